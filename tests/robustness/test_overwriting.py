"""No command overwrites a file, unless it is told to with --force: one rule for every verb."""

import json

import ase.io
import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from helpers.file_texts import fitsnap
from typer.testing import CliRunner

from paretofit import Dataset, InputError
from paretofit.cli import app
from paretofit.core import atomic_path, check_new_paths, write_text
from paretofit.dataset import LevelData, write_dataset

FITSNAP = """
[BISPECTRUM]
numTypes = 1
twojmax = 2
rcutfac = 4.8
wj = 1.0
radelem = 0.5
type = Be
[CALCULATOR]
calculator = LAMMPSSNAP
energy = 1
force = 1
stress = 0
[SOLVER]
solver = SVD
[SCRAPER]
scraper = JSON
[PATH]
dataPath = JSON
[REFERENCE]
pair_style = zero 10.0
pair_coeff = * *
[GROUPS]
group_sections = name training_size testing_size eweight fweight vweight
group_types = str float float float float float
all = 1.0 0.0 100 1 1e-6
"""
STUDY = """
name: a
dataset: labels.h5
labelling: {structures: [be.extxyz], engine: vasp, levels: [1]}
augmentation: {structures: [be.extxyz], n_candidates: 12, min_length: 4, max_atoms: 8, slabs: {miller_indices: []}}
"""
COMMANDS = {
    "import": ["import", "d.h5", "--level", "a=labelled.extxyz"],
    "export": ["export", "small.h5", "-o", "exported"],
    "fit": ["fit", "small.h5", "-o", "potential", "--twojmax", "2"],
    "fit --fitsnap": ["fit", "--fitsnap", "fit.in", "-o", "fitted"],
    "evaluate": ["evaluate", "earlier", "small.h5", "-o", "evaluation"],
    "validate": ["validate", "earlier", "--structure", "be.cif", "--property", "lattice", "--quick", "-o", "checks"],
    "explore": ["explore", "earlier", "be.extxyz", "--time", "0.01", "--interval", "0.01", "-o", "md", "-j", "1"],
    "augment": ["augment", "s.yaml", "-o", "c.extxyz"],
    "select": ["select", "be.extxyz", "-n", "2", "--method", "random", "-o", "chosen.extxyz"],
    "label --write-inputs": ["label", "s.yaml", "--write-inputs", "inputs"],
    "init": ["init", "small.h5", "-o", "new.yaml"],
    "init --schema": ["init", "--schema", "new.json"],
    "pareto": ["pareto", "t.csv", "u.csv", "--minimize", "cost,error", "-o", "front.csv"],
}


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"VASP_PP_PATH": ""})


def digest(folder):
    """The content of every file that a command may not change."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {"design.h5", "study.schema.json"}
    }


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with small inputs of every verb."""
    folder = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(1)
    structures, labels = [], []
    for k in range(12):
        atoms = bulk("Be", "hcp", a=2.286, c=3.584) * (2, 1, 1)
        atoms.rattle(0.05, seed=k)
        structures.append(atoms)
        labels.append({"energy": -14.0 + 0.1 * rng.normal(), "forces": rng.normal(size=(4, 3)), "seconds": 1.0})
    write_dataset(folder / "small.h5", structures, {"good": LevelData(labels)})
    ase.io.write(folder / "be.extxyz", structures[:4])
    ase.io.write(folder / "be.cif", bulk("Be", "hcp", a=2.286, c=3.584))
    (folder / "labelled.extxyz").write_text(
        '1\nLattice="2 0 0 0 2 0 0 0 2" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1\nBe 0 0 0 0 0 0\n'
    )
    pd.DataFrame({"cost": [1, 2], "error": [2, 1]}).to_csv(folder / "t.csv", index=False)
    pd.DataFrame({"cost": [1, 2], "error": [3, 4]}).to_csv(folder / "u.csv", index=False)
    (folder / "s.yaml").write_text(STUDY)
    (folder / "fit.in").write_text(FITSNAP)
    (folder / "JSON" / "all").mkdir(parents=True)
    for k in range(4):
        text = fitsnap(AtomTypes=["Be", "Be"], Energy=-7.0 - 0.1 * k, Positions=[[0, 0, 0.1 * k], [1.1, 1.65, 1.75]])
        (folder / "JSON" / "all" / f"{k}.json").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("fit", "small.h5", "-o", "earlier", "--twojmax", "2").exit_code == 0
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_every_verb_refuses_to_overwrite_and_obeys_force(name, work, monkeypatch):
    monkeypatch.chdir(work)
    before = digest(work)
    assert run(*COMMANDS[name]).exit_code == 0, run(*COMMANDS[name]).exception
    content = digest(work)
    outputs = content.keys() - before.keys()
    assert outputs
    assert {key: content[key] for key in before} == before
    again = run(*COMMANDS[name])
    assert isinstance(again.exception, InputError)
    assert "would be overwritten" in str(again.exception)
    assert "--force" in str(again.exception)
    assert digest(work) == content
    forced = run(*COMMANDS[name], "--force")
    assert forced.exit_code == 0, forced.exception
    assert digest(work).keys() == content.keys()
    for path in outputs:  # any one of them is enough
        if not any(word in path for word in ("figures", "tables", "inputs", "labels.h5")):
            for other in outputs:
                (work / other).unlink(missing_ok=True)
            (work / path).parent.mkdir(exist_ok=True, parents=True)
            (work / path).write_text("mine")
            assert "would be overwritten" in str(run(*COMMANDS[name]).exception)
            assert (work / path).read_text() == "mine"
            (work / path).unlink()


def test_import_names_both_ways_to_go_on(work, monkeypatch):
    monkeypatch.chdir(work)
    arguments = ["import", "e.h5", "--level", "a=labelled.extxyz"]
    assert run(*arguments).exit_code == 0
    message = str(run(*arguments).exception)
    assert "--add" in message
    assert "--force" in message
    assert "choose one" in str(run(*arguments, "--add", "--force").exception)
    assert run("import", "e.h5", "--level", "b=labelled.extxyz", "--add").exit_code == 0
    with Dataset("e.h5") as data:
        assert data.levels == ["a", "b"]
    source = (work / "labelled.extxyz").read_bytes()
    refused = run("import", "labelled.extxyz", "--level", "a=labelled.extxyz", "--force")
    assert "one of the files to import" in str(refused.exception)
    assert (work / "labelled.extxyz").read_bytes() == source


@pytest.mark.parametrize("verb", ["run", "learn", "label", "plan"])
def test_folders_of_other_files_are_refused(verb, work, monkeypatch):
    monkeypatch.chdir(work)
    folder = work / f"foreign-{verb}"
    folder.mkdir()
    (folder / "results.csv").write_text("mine")
    study = work / f"{verb}.yaml"
    structures = "" if verb == "learn" else "structures: [be.extxyz], "
    study.write_text(
        "dataset: small.h5\nbasis: {elements: [Be]}\nlevels: [good]\ntwojmax: [2]\nweights: [1]\n"
        "labelling: {" + structures + "engine: {name: ase, calculator: ase.calculators.emt.EMT}, "
        "ladder: [{name: x}]}\nlearning: {structures: [be.extxyz]}\n"
    )
    options = ["--budget", "1h"] if verb == "plan" else []
    assert "do not belong to a run" in str(run(verb, study, "-o", folder, "-j", "1", *options).exception)
    assert [path.name for path in folder.iterdir()] == ["results.csv"]
    assert (folder / "results.csv").read_text() == "mine"


def test_a_design_of_other_structures_is_kept(work, monkeypatch):
    """Such as that of a run, in whose folder a potential is written."""
    monkeypatch.chdir(work)
    folder = work / "with-design"
    folder.mkdir()
    (folder / "design.h5").write_bytes(b"mine")
    assert "design.h5 already exists" in str(run("fit", "small.h5", "-o", folder, "--twojmax", "2").exception)
    assert (folder / "design.h5").read_bytes() == b"mine"


def test_a_schema_of_another_program_is_kept(work, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.schema.json").write_text(json.dumps({"title": "mine"}))
    assert "study.schema.json" in str(run("init", work / "small.h5", "-o", "a.yaml").exception)
    assert not (tmp_path / "a.yaml").exists()
    (tmp_path / "study.schema.json").unlink()
    for name in ("a.yaml", "b.yaml"):
        assert run("init", work / "small.h5", "-o", name).exit_code == 0


class TestLinks:
    @pytest.mark.parametrize("exists", [True, False])
    def test_a_link_is_written_through(self, tmp_path, exists):
        target, link = tmp_path / "elsewhere" / "d.txt", tmp_path / "link.txt"
        target.parent.mkdir()
        if exists:
            target.write_text("old")
        link.symlink_to("elsewhere/d.txt")
        write_text(link, "new")
        assert link.is_symlink()
        assert target.read_text() == "new"
        assert sorted(path.name for path in target.parent.iterdir()) == ["d.txt"]

    def test_an_import_through_a_link(self, work, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        link, target = tmp_path / "d.h5", tmp_path / "store" / "big.h5"
        link.symlink_to(target)
        assert run("import", link, "--level", f"a={work / 'labelled.extxyz'}").exit_code == 0
        assert "would be overwritten" in str(run("import", link, "--level", "a=x.extxyz").exception)
        assert run("import", link, "--level", f"b={work / 'labelled.extxyz'}", "--add").exit_code == 0
        assert link.is_symlink()
        with Dataset(target) as data:
            assert data.levels == ["a", "b"]

    def test_a_device_is_not_replaced(self, tmp_path):
        with pytest.raises(InputError, match="device or a pipe"), atomic_path("/dev/null"):
            pytest.fail("the path was accepted")
        (tmp_path / "loop").symlink_to("loop")
        with pytest.raises(InputError, match="loop"), atomic_path(tmp_path / "loop"):
            pytest.fail("the path was accepted")


def test_the_rule(tmp_path):
    (tmp_path / "a").write_text("")
    (tmp_path / "empty").mkdir()
    check_new_paths([tmp_path / "b"], [tmp_path / "empty", tmp_path / "none"], overwrite=False)
    check_new_paths([tmp_path / "a"], overwrite=True)
    with pytest.raises(InputError, match="a already exists and would be overwritten"):
        check_new_paths([tmp_path / "a", tmp_path / "b"], overwrite=False)
    with pytest.raises(InputError, match="/ already exists"):
        check_new_paths([], [tmp_path], overwrite=False)
