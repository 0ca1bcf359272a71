"""Rows of a user's own linear model as a basis of a study."""

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from helpers.command_line import call
from helpers.studies import SMALL, study_file

from paretofit import Dataset, DesignMatrix, InputError, SnapBasis, compute_design, run_study
from paretofit.descriptors import DesignBlock
from paretofit.study import Study, estimate_study_cost, read_run_settings
from paretofit.sweep import read_results

SNAP = {"name": "snap", "rcutfac": 4.2, "quadratic": False, "twojmax": [2, 4]}
SIZES = {"sizes": [20, "all"], "sampling_methods": ["random", "leverage"], "repetitions": 2, "levels": [4, 5]}
ELASTIC = {
    "name": "C",
    "kind": "elastic",
    "structure": "hcp.cif",
    "components": ["C33"],
    "ions": "clamped",
    "reference": {"C33": 386},
}


def write_rows(path, *, factor=1.0, skip=None, n_left_out=0):
    """Write SNAP rows as those of another program: in random order, multiplied by a factor, without some of them."""
    with Dataset(SMALL["dataset"]) as data:
        basis = SnapBasis(elements=["Be"], twojmax=4, rcutfac=4.2, quadratic=False)
        design = compute_design(data, basis, path.with_name("native.h5"))
    blocks = []
    for position in np.random.default_rng(1).permutation(design.n_configurations):
        rows = np.flatnonzero(design.configuration == position)
        rows = rows[: len(rows) - n_left_out]
        number = design.ids[position]
        if number != skip:
            blocks.append(DesignBlock(factor * design.read_rows(rows), design.kind[rows], np.full(len(rows), number)))
    levels, names = design.column_levels, design.column_names
    attributes = {"constant_columns": "1"}
    DesignMatrix.from_blocks(blocks, path, column_levels=levels, column_names=names, attributes=attributes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder / "mine.h5")
    bulk("Be").write(folder / "hcp.cif")
    return folder


def describe_rows(**changes):
    return {"name": "mine", "rows": "mine.h5", "md_us_per_atom_step": {2: 10, 4: 30}, **changes}


def list_results(run, *names):
    """List the results of some bases of a run."""
    joined = pd.read_csv(run.folder / "bases.csv")
    return [joined[joined["basis"] == name].reset_index(drop=True) for name in names]


def test_given_rows_have_the_errors_of_the_basis_they_come_from(folder):
    basis = {"elements": ["Be"], "rcutfac": SNAP["rcutfac"], "quadratic": False}
    path = study_file(folder, basis=basis, bases=[describe_rows()], **SIZES)
    snap, mine = list_results(run_study(path, out=folder / "short"), "basis", "mine")
    for name in ("ref_energy", "ref_force", "train_energy", "n_features", "label_seconds"):
        assert mine[name].to_numpy() == pytest.approx(snap[name].to_numpy(), rel=1e-9), name


@pytest.mark.slow
def test_given_rows_have_costs_but_no_properties_and_no_potential(folder):
    path = study_file(folder, bases=[SNAP, describe_rows()], properties=[ELASTIC], **SIZES)
    run = run_study(path, out=folder / "run")
    snap, mine = list_results(run, "snap", "mine")
    assert mine.groupby("twojmax")["md_us_per_atom_step"].first().to_dict() == {2: 10, 4: 30}
    assert mine["prop_C_C33"].isna().all()
    assert snap["prop_C_C33"].notna().all()
    assert "Basis mine" in run.report.read_text()
    settings = read_run_settings(run.folder, "mine")
    assert settings["basis"] | {"twojmax": 4} == {
        "family": "rows", "elements": ["Be"], "twojmax": 4, "rows": str(folder / "mine.h5"),
        "rcut": pytest.approx(4.812302818),
    }  # fmt: skip
    assert Study.model_validate(settings).basis.family == "rows"
    done = call("export", run.folder / "bases" / "mine", "--front", "-o", folder / "potentials")
    assert done.returncode == 2
    assert "have no potential, because their descriptors are not known" in done.stderr
    front = pd.read_csv(run.folder / "front.csv")
    done = call("export", run.folder, "--front", "-o", folder / "front", "--md-time", 0.02)
    assert done.returncode == 0, done.stderr
    index = pd.read_csv(folder / "front" / "index.csv")
    assert sorted(index["basis"]) == sorted(name for name in front.loc[front["overall"], "basis"] if name != "mine")
    assert ("without points of mine" in done.stdout) == front.loc[front["overall"], "basis"].eq("mine").any()


@pytest.mark.slow
def test_changed_rows_are_fitted_again(folder, tmp_path):
    write_rows(tmp_path / "mine.h5")
    changes = {**SIZES, "bases": [describe_rows()], "sampling_methods": ["random"]}
    run_study(study_file(tmp_path, **changes), out=tmp_path / "run")
    before = read_results(tmp_path / "run" / "bases" / "mine" / "results.csv")
    write_rows(tmp_path / "mine.h5", factor=np.linspace(0.5, 2, 15) ** 2)
    run_study(study_file(tmp_path, **changes, ridge=[1e-6]), out=tmp_path / "run")
    after = read_results(tmp_path / "run" / "bases" / "mine" / "results.csv")
    assert (after["ref_force"].to_numpy() != before["ref_force"].to_numpy()).any()
    design = DesignMatrix.open(tmp_path / "run" / "bases" / "mine" / "design.h5")
    assert design.read_all_rows()[:, 0].max() == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": "none.h5"}, "there is no design file at .*none.h5"),
        ({"md_us_per_atom_step": {}}, "rows need the MD cost of their models"),
        ({"twojmax": [2, 4, 5], "md_us_per_atom_step": {2: 1, 4: 1}}, "a number for each size, such as {5: 20.0}"),
        ({"md_us_per_atom_step": {2: 1, 8: 1}}, r"no model of size 8; its 'column_levels' are \[.*4\]"),
        ({"rows": "skipped.h5"}, "has no rows of configuration 7 of .*1 of 197 are missing"),
        ({"rows": "short.h5"}, "write its energy, .* forces in the order of the atoms"),
        ({"rows": None, "family": "rows"}, "the design file is missing; add 'rows: design.h5'"),
        ({"fitsnap": "Be.in"}, r"compute_fitsnap_design\(dataset, 'Be.in', 'rows.h5'\)"),
        ({"rows": None, "family": "snap"}, "'md_us_per_atom_step' is for 'rows'"),
    ],
)
def test_bad_rows_are_one_sentence_before_anything_is_computed(folder, changes, message):
    if changes.get("rows") == "skipped.h5":
        write_rows(folder / "skipped.h5", skip=7)
    if changes.get("rows") == "short.h5":
        write_rows(folder / "short.h5", n_left_out=1)
    path = study_file(folder, bases=[describe_rows(**changes)], **SIZES)
    with pytest.raises(InputError, match=message):
        run_study(path, out=folder / "bad")
    with pytest.raises(InputError, match=message):
        estimate_study_cost(path)
    assert not (folder / "bad").exists()


def test_exact_free_atoms_need_descriptors(folder):
    path = study_file(folder, bases=[describe_rows()], reference_energies={"Be": -0.01}, **SIZES)
    with pytest.raises(InputError, match="exact energies of free atoms require descriptors"):
        run_study(path, out=folder / "bad")
