"""Labels: k-point meshes, resuming after a kill, failures, and labels that are kept."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from paretofit import Dataset, InputError
from paretofit.commands import (
    LabelStudy,
    collect_labels,
    estimate_label_cost,
    format_labels,
    label_study,
    load_label_study,
    read_label_outputs,
    write_label_inputs,
)
from paretofit.core import ExecutionError
from paretofit.dataset import LevelData, describe_dataset, write_dataset
from paretofit.execution import run_tasks
from paretofit.labelling import (
    PAPER_LADDER,
    LabelSettings,
    choose_probe_labels,
    compute_cost_terms,
    compute_kpoint_mesh,
    fit_cost_model,
)
from paretofit.labelling.gather import CollectedData

needs_gpaw = pytest.mark.skipif(find_spec("gpaw") is None, reason="GPAW is not installed (the extra 'dft')")

LABELLER = """
import os, time
from pathlib import Path
from ase.calculators.calculator import SCFError
from ase.calculators.emt import EMT

class Counted(EMT):
    '''EMT that logs its calls, and fails on request.'''

    def __init__(self, log, seconds=0.0, bad=None, atoms=0, factor=1.0):
        super().__init__()
        self.log, self.seconds, self.bad, self.atoms_bad = Path(log), seconds, bad, atoms

    def calculate(self, atoms=None, *args, **kwargs):
        with self.log.open("a") as stream:
            stream.write(f"{atoms.positions[0, 0]!r}\\n")
        time.sleep(self.seconds)
        if self.bad and len(atoms) == self.atoms_bad:
            if self.bad == "die":
                os._exit(1)
            raise SCFError("no luck") if self.bad == "scf" else RuntimeError("the pseudopotential is broken")
        super().calculate(atoms, *args, **kwargs)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A directory with copper structures of one to four atoms, and a calculator that logs its calls."""
    (tmp_path / "counted.py").write_text(LABELLER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "counted", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    structures = []
    for k in range(8):
        atoms = bulk("Cu", "fcc", a=3.6 + 0.02 * k) * (1 + k % 4, 1, 1)
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.info["config_type"] = "rattled"
        structures.append(atoms)
    ase.io.write(tmp_path / "copper.extxyz", structures)
    return tmp_path


def study_of(folder, **labelling):
    options = {"log": str(folder / "calls.txt"), **labelling.pop("options", {})}
    engine = {"name": "ase", "calculator": "counted.Counted", "options": options}
    ladder = [{"name": "low"}, {"name": "high", "options": {"factor": 2.0}}]
    settings = {"structures": [folder / "copper.extxyz"], "engine": engine, "ladder": ladder, **labelling}
    return LabelStudy(name="copper", dataset=folder / "copper.h5", labelling=LabelSettings.model_validate(settings))


def calls(folder):
    path = folder / "calls.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


# --- meshes and ladders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "spacing", "mesh"),
    [
        (np.diag([3.0, 6.0, 30.0]), 0.5, (5, 3, 1)),  # |b| = 2.094, 1.047, 0.209
        (np.diag([2 * np.pi] * 3), 0.5, (2, 2, 2)),  # exactly two intervals: not three
        (np.diag([2 * np.pi] * 3), 0.25, (4, 4, 4)),
        (np.diag([2 * np.pi] * 3), 0.49999, (3, 3, 3)),
        ([[2.27, 0, 0], [-1.135, 1.9659, 0], [0, 0, 3.57]], 0.5, (7, 7, 4)),  # hcp Be: |b| = 3.196, 3.196, 1.760
        (np.diag([3.0, 3.0, 3.0]), None, (1, 1, 1)),
    ],
)
def test_meshes_by_hand(cell, spacing, mesh):
    assert compute_kpoint_mesh(np.array(cell, float), [True] * 3, spacing) == mesh


def test_a_direction_that_is_not_periodic_has_one_point():
    assert compute_kpoint_mesh(np.diag([3.0, 3.0, 0.0]), [True, True, False], 0.5) == (5, 5, 1)


@given(st.floats(0.05, 2.0), st.integers(0, 10_000))
def test_a_mesh_is_never_coarser_than_its_spacing_nor_depends_on_orientation(spacing, seed):
    rng = np.random.default_rng(seed)
    cell = np.eye(3) * 4 + rng.normal(0, 0.5, (3, 3))
    mesh = compute_kpoint_mesh(cell, [True] * 3, spacing)
    lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(cell), axis=0)
    assert (lengths / mesh <= spacing * (1 + 1e-8)).all()
    assert all(n == 1 or length / (n - 1) > spacing * (1 - 1e-8) for n, length in zip(mesh, lengths, strict=True))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    assert compute_kpoint_mesh(cell @ rotation.T, [True] * 3, spacing) == mesh


def test_meshes_are_those_of_the_shipped_labels(beryllium):
    for level in PAPER_LADDER[:5]:
        recorded = [tuple(record["kpts"]) for record in beryllium.label_records(level.name)]
        assert [level.get_kpoint_mesh(atoms) for atoms in beryllium] == recorded


def test_the_preset_is_table_1_of_the_paper():
    assert [(level.cutoff_ev, level.kspacing_per_angstrom) for level in PAPER_LADDER] == [
        (300, None), (300, 1.0), (400, 0.75), (500, 0.5), (700, 0.25), (900, 0.1),
    ]  # fmt: skip


# --- running, resuming, failing ---------------------------------------------------------------------------------


def test_labels_are_those_of_the_calculator_with_their_cost(folder):
    from ase.calculators.emt import EMT

    result = label_study(study_of(folder), jobs=2)
    assert (result.n_computed, result.n_failed, result.n_remaining) == (16, 0, 0)
    with Dataset(folder / "copper.h5") as data:
        assert data.levels == ["low", "high"]
        labels = data.labels("high")
        for k, atoms in enumerate(data):
            atoms.calc = EMT()
            rows = slice(labels.offsets[k], labels.offsets[k + 1])
            assert labels.energy[k] == pytest.approx(atoms.get_potential_energy(force_consistent=True), abs=1e-10)
            assert labels.forces[rows] == pytest.approx(atoms.get_forces(), abs=1e-10)
            assert labels.stress[k] == pytest.approx(atoms.get_stress(), abs=1e-12)
        assert (labels.seconds > 0).all()
        record = data.label_records("high")[0]
        assert {"kpts", "cpu_seconds", "wall_seconds", "attempts", "converged"} <= set(record)
        assert data.settings("high")["engine"].startswith("counted.Counted")
        assert data[0].info["config_type"] == "rattled"


def test_finished_labels_are_not_computed_again(folder):
    label_study(study_of(folder), jobs=1)
    before, stamp = calls(folder), (folder / "copper.h5").stat().st_mtime_ns
    result = label_study(study_of(folder), jobs=1)
    assert result.n_computed == 0
    assert calls(folder) == before == 16
    assert (folder / "copper.h5").stat().st_mtime_ns == stamp


def test_a_structure_without_an_id_is_recognised_and_a_new_one_gets_the_next(folder):
    label_study(study_of(folder, levels=["low"]), jobs=1)
    more = ase.io.read(folder / "copper.extxyz", ":3")
    more.append(bulk("Cu", a=3.8, cubic=True))
    ase.io.write(folder / "copper.extxyz", more)
    assert label_study(study_of(folder, levels=["low"]), jobs=1).n_computed == 1
    with Dataset(folder / "copper.h5") as data:
        assert data.ids.tolist() == list(range(9))
        assert len(data[8]) == 4


@pytest.mark.slow
def test_a_kill_loses_only_running_labels(folder):
    """kill -9 the command with all its workers, repeat it: every label is there, none was finished twice."""
    (folder / "study.yaml").write_text(
        "dataset: copper.h5\nlabelling:\n  structures: [copper.extxyz]\n"
        f"  engine: {{name: ase, calculator: counted.Counted, options: {{log: {folder}/calls.txt, seconds: 0.3}}}}\n"
        "  ladder: [{name: low}, {name: high, options: {factor: 2.0}}]\n"
    )
    command = [sys.executable, "-m", "paretofit.cli", "label", "study.yaml", "--jobs", "2"]
    process = subprocess.Popen(command, cwd=folder, start_new_session=True, stderr=subprocess.DEVNULL)
    journal = folder / "runs" / "study-labels" / "labels.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.exists() and len(journal.read_text().splitlines()) >= 4):
        assert time.monotonic() < deadline, "no label within a minute"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    keys_before = [json.loads(line)["key"] for line in journal.read_text().splitlines() if line.endswith("}")]
    assert not (folder / "copper.h5").exists()
    with journal.open("a") as stream:
        stream.write('{"key": "cut sho')  # what a kill in the middle of a line leaves
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    finished = [json.loads(line)["key"] for line in journal.read_text().splitlines()]
    assert finished[: len(keys_before)] == keys_before
    assert len(finished) == len(set(finished)) == 16
    assert calls(folder) <= 16 + 2  # two were running
    with Dataset(folder / "copper.h5") as data:
        assert all(data.labels(level).is_complete.all() for level in data.levels)


def test_the_dataset_can_be_collected_while_labels_are_missing(folder):
    study = study_of(folder)
    with pytest.raises(InputError, match="as no label is finished"):
        collect_labels(study)
    label_study(study, jobs=1)
    journal = folder / "runs" / "copper-labels" / "labels.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:5]))
    (folder / "copper.h5").unlink()
    assert collect_labels(study).n_remaining == 11
    with Dataset(folder / "copper.h5") as data:
        assert sum(int(data.labels(level).is_complete.sum()) for level in data.levels) == 5


@pytest.mark.parametrize(
    ("bad", "message", "attempts"),
    [
        ("scf", "no luck", 3),
        ("raise", "the pseudopotential is broken", 1),
        ("die", "the process ended unexpectedly", 1),
    ],
)
def test_a_failure_is_recorded_with_its_reason_and_the_others_are_computed(folder, bad, message, attempts):
    study = study_of(folder, options={"bad": bad, "atoms": 3}, levels=["low"])
    result = label_study(study, jobs=2)
    assert (result.n_computed, result.n_failed) == (8, 2)
    assert all(message in why for why in result.failures.values())
    assert message in format_labels(result)
    with Dataset(folder / "copper.h5") as data:
        labels = data.labels("low")
        assert (labels.status == 2).tolist() == (data.n_atoms == 3).tolist()
        assert labels.is_complete.tolist() == (data.n_atoms != 3).tolist()
        record = data.label_records("low")[2]
        assert message in record["reasons"][-1]
        assert record["attempts"] == attempts
        assert not record["converged"]
        assert any("failed" in warning or "missing" in warning for warning in describe_dataset(data).warnings)


def test_failed_labels_are_computed_again_only_on_request(folder):
    study = study_of(folder, options={"bad": "raise", "atoms": 3})
    label_study(study, jobs=1)
    again = label_study(study, jobs=1)
    assert again.n_computed == 0
    assert len(again.failures) == 4
    (folder / "counted.py").write_text(LABELLER.replace("if self.bad and", "if False and"))
    retried = label_study(study, jobs=1, retry_failed=True)
    assert (retried.n_computed, retried.n_failed, retried.failures) == (4, 0, {})
    with Dataset(folder / "copper.h5") as data:
        assert data.labels("low").is_complete.all()


@pytest.mark.parametrize("order", ["configurations", "levels"])
def test_the_order_of_work(folder, order):
    label_study(study_of(folder, order=order), jobs=1)
    lines = (folder / "runs" / "copper-labels" / "labels.jsonl").read_text().splitlines()
    done = [(json.loads(line)["id"], json.loads(line)["level"]) for line in lines]
    whole = [(k, level) for k in range(8) for level in ("low", "high")]
    assert done == (whole if order == "configurations" else sorted(whole, key=lambda entry: entry[1] == "high"))


def test_only_some_configurations_at_a_level(folder):
    label_study(study_of(folder, subsets={"high": {"max_atoms": 2, "max_configurations": 3}}), jobs=1)
    with Dataset(folder / "copper.h5") as data:
        assert data.labels("low").is_complete.all()
        assert np.flatnonzero(data.labels("high").is_complete).tolist() == [0, 1, 4]


def test_configurations_with_given_ids_at_a_level(folder):
    label_study(study_of(folder, subsets={"high": {"ids": [5, 2]}}), jobs=1)
    with Dataset(folder / "copper.h5") as data:
        assert np.flatnonzero(data.labels("high").is_complete).tolist() == [2, 5]
    with pytest.raises(InputError, match="'labelling.subsets' of level 'high' has id 77, which no configuration has"):
        label_study(study_of(folder, subsets={"high": {"ids": [77]}}), jobs=1)


@pytest.mark.slow
def test_a_dying_process_loses_only_its_task():
    results = dict(run_tasks(_square_or_die, [1, 2, 3, 4, 5, 6], 2, lambda _: -1))
    assert results == {1: 1, 2: 4, 3: -1, 4: 16, 5: 25, 6: 36}


def _square_or_die(number):
    if number == 3:
        os._exit(1)
    return number**2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("float('nan')", "the engine returned energy that is not finite"),
        ("[1.0, 2.0]", "TypeError"),
    ],
)
def test_an_invalid_result_is_a_failure(folder, answer, message):
    text = LABELLER + f"        self.results['energy'] = self.results['free_energy'] = {answer}\n"
    (folder / "counted.py").write_text(text)
    with pytest.raises(ExecutionError, match=f"5 labels in succession failed for the same reason.*{message}"):
        label_study(study_of(folder, levels=["low"]), jobs=1)


def test_a_corrupt_line_of_the_journal_costs_one_label(folder):
    label_study(study_of(folder, levels=["low"]), jobs=1)
    (folder / "copper.h5").unlink()
    journal = folder / "runs" / "copper-labels" / "labels.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:2], '{"key": "broken}\n', "null\n", "{}\n", *lines[3:]]))
    result = label_study(study_of(folder, levels=["low"]), jobs=1)
    assert (result.n_computed, result.n_complete) == (1, 8)


def test_calculators_that_write_files_do_not_interfere(folder):
    """A calculator that reads back what it wrote into its directory must find its own file there."""
    (folder / "counted.py").write_text(
        LABELLER
        + """
class Filed(Counted):
    def calculate(self, atoms=None, *args, **kwargs):
        path = Path(self.directory) / "input.txt"
        path.write_text(repr(atoms.positions.tolist()))
        time.sleep(0.05)
        if path.read_text() != repr(atoms.positions.tolist()):
            raise RuntimeError("that is not my file")
        super().calculate(atoms, *args, **kwargs)
"""
    )
    engine = {"name": "ase", "calculator": "counted.Filed", "options": {"log": str(folder / "calls.txt")}}
    assert label_study(study_of(folder, engine=engine, levels=["low"]), jobs=2).n_failed == 0
    assert not (folder / "input.txt").exists()


def test_labels_of_two_engines_are_not_mixed(folder):
    label_study(study_of(folder, levels=["low"]), jobs=1)
    engine = {"name": "ase", "calculator": "ase.calculators.emt.EMT"}
    with pytest.raises(
        InputError, match=r"level 'low' was computed by counted.Counted, but the study's engine is ase.calc"
    ):
        label_study(study_of(folder, engine=engine), jobs=1)


# --- existing labels ----------------------------------------------------------------------------------------


def test_existing_labels_are_kept_to_the_last_bit(folder):
    configurations = ase.io.read(folder / "copper.extxyz", ":")
    labels_before = [
        {"energy": -k / 3, "forces": np.full((len(atoms), 3), k / 7), "seconds": 1.5, "info": {"note": "by hand"}}
        for k, atoms in enumerate(configurations)
    ]
    labels_before[5] = None
    levels = {"low": LevelData(labels_before, {"functional": "PBE"}), "other": LevelData(labels_before, {})}
    write_dataset(folder / "copper.h5", configurations, levels, ids=range(100, 108))
    assert label_study(study_of(folder), jobs=1).n_computed == 1 + 8
    with Dataset(folder / "copper.h5") as data:
        assert data.levels == ["low", "high", "other"]
        assert data.ids.tolist() == list(range(100, 108))
        labels = data.labels("low")
        is_unchanged = np.arange(8) != 5
        assert (labels.energy[is_unchanged] == -np.arange(8)[is_unchanged] / 3).all()
        assert labels.is_complete[5]
        assert data.label_records("low")[0] == {"note": "by hand"}
        assert np.isnan(data.labels("other").energy[5])


def test_labels_of_other_settings_are_not_mixed(folder):
    configurations = ase.io.read(folder / "copper.extxyz", ":")
    write_dataset(folder / "copper.h5", configurations, {"low": LevelData([None] * 8, {"functional": "LDA"})})
    with pytest.raises(InputError, match="level 'low' was computed with functional LDA, but the ladder requests PBE"):
        label_study(study_of(folder), jobs=1)


def test_input_files_have_the_ids_of_the_dataset(folder):
    """Inputs of VASP for every missing label, in directories named by the ids of the dataset."""
    from ase.io.vasp import read_vasp

    settings = {"structures": [folder / "copper.extxyz"], "engine": "vasp", "levels": ["3"]}
    study = LabelStudy(name="copper", dataset=folder / "v.h5", labelling=LabelSettings.model_validate(settings))
    text = write_label_inputs(study, folder / "inputs")
    assert "8 labels" in text
    assert f"--read-outputs {folder / 'inputs'}" in text
    assert read_label_outputs(study, folder / "inputs").n_remaining == 8  # nothing has run yet
    with Dataset(folder / "v.h5") as data:
        for atoms in data:
            label_folder = folder / "inputs" / "3" / str(atoms.info["config_id"])
            written = read_vasp(label_folder / "POSCAR")
            assert written.positions == pytest.approx(atoms.positions, abs=1e-12)
            mesh = tuple(int(n) for n in (label_folder / "KPOINTS").read_text().split("\n")[3].split())
            assert mesh == PAPER_LADDER[2].get_kpoint_mesh(atoms)


def test_an_engine_without_input_files_is_refused(folder):
    with pytest.raises(InputError, match="the engine 'ase' has no input files to write"):
        write_label_inputs(study_of(folder), folder / "inputs")


# --- cost -------------------------------------------------------------------------------------------------------


def test_the_cost_of_the_finest_level_is_predicted_from_cheap_ones(beryllium):
    engine = LabelSettings.model_validate({"engine": {"name": "ase", "calculator": "ase.calculators.emt.EMT"}}).engine
    terms, seconds, level_of = [], [], []
    for level in PAPER_LADDER[:5]:
        terms += [compute_cost_terms(atoms, level, engine) for atoms in beryllium]
        seconds += beryllium.labels(level.name).seconds.tolist()
        level_of += [level.name] * len(beryllium)
    terms, seconds, fine = np.array(terms), np.array(seconds), np.array(level_of) == "5"
    cheap = np.isin(level_of, ["1", "2", "3"])
    model = fit_cost_model(terms[cheap], seconds[cheap])
    assert model.predict_seconds(terms[fine]).sum() == pytest.approx(seconds[fine].sum(), rel=0.2)
    probe = choose_probe_labels(terms, 8, 60.0)
    assert len(probe) == len(set(probe)) <= 8
    assert fit_cost_model(terms[probe], seconds[probe]).predict_seconds(terms).sum() == pytest.approx(
        seconds.sum(), rel=0.3
    )


def test_a_dry_run_computes_a_few_and_keeps_them(folder):
    table, model = estimate_label_cost(study_of(folder), jobs=1)
    assert table["to_do"].sum() == 16 - model.n_labels
    assert 0 < model.n_labels <= 8
    assert calls(folder) == model.n_labels
    assert not (folder / "copper.h5").exists()
    assert label_study(study_of(folder), jobs=1).n_computed == 16 - model.n_labels


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labelling", "message"),
    [
        ("engine: gpwa", "'labelling.engine': 'gpwa' is not one of .*did you mean 'gpaw'"),
        ("engine: {name: ase, calculator: no.such.Module}", "'no.such.Module' cannot be imported"),
        (
            "engine: {name: ase, calculator: ase.calculators.emt.EMT, option: {}}",
            "unknown key 'labelling.engine.option'",
        ),
        (
            "ladder: [{name: 1, cutoff_ev: 300, kspacing_per_angstrom: 0}]",
            "'kspacing_per_angstrom' in entry 1 of 'labelling.ladder'",
        ),
        (
            "ladder: [{name: a, cutoff_ev: 500}, {name: b, cutoff_ev: 300}]",
            "level 'b' .* is coarser than the preceding level 'a'",
        ),
        ("ladder: [{name: a, kspacing_per_angstrom: 0.2}, {name: b}]", "not in order"),
        ("ladder: [{name: a, cutoff_ev: 300}]", "has 'cutoff_ev', which an ASE calculator does not read; .*'options'"),
        ("ladder: papre", "'papre' is not one of paper; did you mean 'paper'"),
        ("levels: [9]", "unknown level '9' in 'levels'; available: calculator"),
        ("subsets: {6: {max_atom: 2}}", "unknown key 'labelling.subsets.6.max_atom'; did you mean 'max_atoms'"),
        ("smearing: {width_ev: -0.1}", "width_ev' in entry 1 of 'labelling.ladder': must be greater than 0"),
        ("structures: [nowhere.extxyz]", "no file at .*nowhere.extxyz"),
        ("ladder: [{name: a/b}]", "'a/b' is not a valid name for a convergence level"),
        ("ladder: [{name: a}, {name: b}]", "levels 'a' and 'b' have identical settings"),
        ("engine: gpaw, ladder: [{name: a, cutoff_ev: 300}]", "has no 'kspacing_per_angstrom'|not installed"),
        ("structure: [copper.extxyz]", "unknown key 'labelling.structure'; did you mean 'structures'"),
        ("structures: []", "no configurations to label"),
    ],
)
def test_wrong_studies_are_refused_before_anything_is_computed(folder, labelling, message):
    engine = "" if labelling.startswith("engine") else "engine: {name: ase, calculator: ase.calculators.emt.EMT}, "
    structures = "" if labelling.startswith("struct") else "structures: [copper.extxyz], "
    (folder / "s.yaml").write_text(f"dataset: out.h5\nlabelling: {{{structures}{engine}{labelling}}}\n")
    with pytest.raises(InputError, match=message):
        label_study(load_label_study(folder / "s.yaml"), jobs=1)
    assert not (folder / "out.h5").exists()


def test_a_study_without_labelling_is_refused(folder):
    (folder / "s.yaml").write_text("dataset: out.h5\n")
    with pytest.raises(InputError, match="the key 'labelling' is missing"):
        load_label_study(folder / "s.yaml")


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms("Cu2", [[0, 0, 0], [0.5, 0, 0]], cell=[5, 5, 5], pbc=True), "configuration 0 has atoms closer"),
        (Atoms("Cu", [[0, 0, 0]], cell=[1, 5, 5], pbc=True), "configuration 0 has atoms closer"),
        (Atoms("Cu", [[0, 0, np.nan]], cell=[5, 5, 5], pbc=True), "not finite"),
        (Atoms("Cu", [[0, 0, 0]], pbc=True), "a cell vector of zero length"),
        (Atoms("Cu", [[0, 0, 0]], cell=[5, 5, 5], pbc=True, magmoms=[1.0]), "initial magmoms"),
    ],
)
def test_unusable_structures_are_refused(folder, atoms, message):
    ase.io.write(folder / "copper.extxyz", atoms)
    with pytest.raises(InputError, match=message):
        label_study(study_of(folder), jobs=1)
    assert calls(folder) == 0


def test_an_id_of_two_geometries_is_refused(folder):
    atoms = ase.io.read(folder / "copper.extxyz", ":2")
    for structure in atoms:
        structure.info["config_id"] = 7
    ase.io.write(folder / "a.extxyz", atoms[0])
    ase.io.write(folder / "b.extxyz", atoms[1])
    with pytest.raises(InputError, match=r"b.extxyz: structure 0 .*configuration 7 differs in geometry"):
        label_study(study_of(folder, structures=[folder / "a.extxyz", folder / "b.extxyz"]), jobs=1)


def test_a_run_folder_in_use_is_refused(folder):
    import fcntl

    target = folder / "runs" / "copper-labels"
    target.mkdir(parents=True)
    with (target / "run.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is at work"):
            label_study(study_of(folder), jobs=1)


def test_ase_calculator_without_a_ladder_has_one_level():
    """It has no cutoff and no k-points: six levels would be six times the same labels."""
    engine = {"name": "ase", "calculator": "ase.calculators.emt.EMT"}
    settings = LabelSettings.model_validate({"engine": engine})
    assert [level.name for level in settings.ladder] == ["calculator"]
    assert len(LabelSettings.model_validate({"engine": engine, "ladder": "paper"}).ladder) == 6
    assert len(LabelSettings.model_validate({"engine": "gpaw"}).ladder) == 6


def test_translated_structures_without_ids_are_different_configurations():
    """Their fingerprints are equal, but their labels are looked up by positions, such as those of force constants."""
    first, second = bulk("Be"), bulk("Be")
    first.positions[0, 0] -= 0.01
    second.positions[1, 0] += 0.01
    collected = CollectedData()
    for atoms in (first, second, first, second):
        collected.add(atoms, None, "a file")
    assert list(collected.configurations) == [0, 1]
    assert collected.configurations[1].positions == pytest.approx(second.positions)
