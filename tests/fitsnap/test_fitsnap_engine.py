"""FitSNAP's rows: the native SNAP rows are the oracle, and derivatives of the energy rows the second one."""

import importlib.util
import os
import signal
import sys
from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from paretofit import Dataset, InputError, SnapBasis, compute_design
from paretofit.core import RowKind
from paretofit.dataset import LevelData, split_configurations, write_dataset
from paretofit.dataset.io import load_json, parse_fitsnap_structures
from paretofit.descriptors import ReferencePotential, compute_reference_labels
from paretofit.fitsnap import descriptor_engine as fitsnap_engine
from paretofit.fitsnap import list_group_files, read_fitsnap_input
from paretofit.fitsnap.descriptor_engine import compute_fitsnap_design, with_labels_above_reference
from paretofit.linear import fit_wls, leverage_scores
from paretofit.sweep import SweepGrid, SweepInput, run_sweep

installed = pytest.mark.skipif(
    importlib.util.find_spec("fitsnap3lib") is None,
    reason="FitSNAP is not installed: pip install 'paretofit[fitsnap]'",
)
CUSTOM = {
    "CALCULATOR": {"calculator": "LAMMPSCUSTOM"},
    "CUSTOM": {"numTypes": 2, "type": "W Be", "num_radial": 3, "num_3body": 4, "cutoff": 4.5},
}


def settings(basis):
    """FitSNAP's settings of a basis."""
    section = {
        "numTypes": len(basis.elements), "type": basis.elements, "twojmax": [basis.twojmax] * len(basis.elements),
        "quadraticflag": basis.quadratic,
    }  # fmt: skip
    equal_keys = ("rcutfac", "rfac0", "rmin0", "wj", "radelem", "bzeroflag", "chemflag", "bnormflag", "wselfallflag")
    return {"BISPECTRUM": section | {key: getattr(basis, key) for key in equal_keys}}


def turned(atoms, rotation):
    """The same atoms in a rotated cell."""
    copy = atoms.copy()
    copy.set_cell(atoms.cell[:] @ rotation.T, scale_atoms=True)
    return copy


def structures(elements):
    """Triclinic cells, one of them rotated out of LAMMPS's frame, a left-handed and a skewed one."""
    rng = np.random.default_rng(3)
    rotation = Rotation.from_euler("xyz", [0.4, -1.1, 2.3]).as_matrix()

    def random(cell, n):
        return Atoms((elements * n)[:n], cell=cell, pbc=True, scaled_positions=rng.random((n, 3)))

    triclinic = random(np.eye(3) * 4.5 + rng.normal(size=(3, 3)) * 0.6, 6)
    left_handed = random(np.array([[0, 3.1, 0], [3.3, 0, 0.2], [0.1, 0.3, 3.6]]), 3)
    skewed = random(np.array([[2.9, 0, 0], [8.7, 3.0, 0], [-5.5, 6.1, 3.2]]), 3)
    return [triclinic, turned(triclinic, rotation), left_handed, skewed]


def dataset_of(path, configurations, levels=None, ids=None):
    write_dataset(path, configurations, levels or {}, ids)
    return Dataset(path)


def differences(ours, theirs, kinds):
    """For each kind of row the largest difference, in units of each column's largest entry."""
    deviations = {}
    for kind in RowKind:
        selected = kinds == kind
        if selected.any():
            scale = np.abs(theirs[selected]).max(axis=0)
            difference = np.abs(ours[selected] - theirs[selected]) / np.where(scale > 0, scale, 1)
            deviations[kind.name] = float(difference.max())
    return deviations


@installed
@pytest.mark.parametrize(
    "flags",
    [
        {"elements": ["Be"], "quadratic": False},
        pytest.param({"elements": ["Be"], "quadratic": True}, marks=pytest.mark.slow),
        pytest.param({"elements": ["W", "Be"], "quadratic": False, "bnormflag": True}, marks=pytest.mark.slow),
        {"elements": ["W", "Be"], "quadratic": True},
        pytest.param(
            {"elements": ["W", "Be"], "quadratic": False, "chemflag": True, "twojmax": 4}, marks=pytest.mark.slow
        ),
    ],
    ids=lambda flags: "-".join([*flags["elements"], *(key for key, value in flags.items() if value is True)]),
)
def test_rows_are_the_native_ones(tmp_path, flags):
    basis = SnapBasis(**{"twojmax": 6, "bzeroflag": False, "wj": [1.0, 0.8][: len(flags["elements"])],
                         "radelem": [0.5, 0.417][: len(flags["elements"])]} | flags)  # fmt: skip
    dataset = dataset_of(tmp_path / "data.h5", structures(basis.elements), ids=[7, 3, 5, 11])
    native = compute_design(dataset, basis, tmp_path / "native.h5", stress=True)
    design = compute_fitsnap_design(dataset, settings(basis), tmp_path / "fitsnap.h5", stress=True)
    assert design.column_names == native.column_names
    assert design.n_constant == native.n_constant == len(basis.elements)
    for name in ("column_levels", "kind", "configuration", "ids"):
        np.testing.assert_array_equal(getattr(design, name), getattr(native, name))
    deviations = differences(design.read_all_rows(), native.read_all_rows(), native.kind)
    print(deviations)  # noqa: T201  (pytest -s shows the deviations)
    assert max(deviations.values()) < 1e-9


@pytest.mark.slow
@installed
def test_molecules_slabs_and_no_constants(tmp_path):
    basis = SnapBasis(elements=["H", "O"], twojmax=4, rcutfac=3.0, quadratic=False)
    layer = Atoms("OH", positions=[[0, 0, 0], [0.4, 0.1, 1.0]], cell=[2.5, 2.7, 0], pbc=[True, True, False])
    dataset = dataset_of(tmp_path / "data.h5", [molecule("H2O"), layer, Atoms("H", positions=[[0, 0, 0]])])
    native = compute_design(dataset, basis, tmp_path / "native.h5")
    design = compute_fitsnap_design(dataset, settings(basis), tmp_path / "fitsnap.h5")
    assert design.n_constant == 0  # FitSNAP has none with bzeroflag = 1
    assert design.column_names == native.column_names[2:]
    assert max(differences(design.read_all_rows(), native.read_all_rows()[:, 2:], native.kind).values()) < 1e-9


@installed
@pytest.mark.parametrize("calculator", ["LAMMPSSNAP", pytest.param("LAMMPSCUSTOM", marks=pytest.mark.slow)])
def test_forces_and_stresses_are_derivatives_of_energies(tmp_path, calculator):
    basis = SnapBasis(elements=["W", "Be"], twojmax=4, quadratic=False)
    atoms, h = structures(basis.elements)[1], 1e-4
    moved = [atoms]
    for sign in (1, -1):
        displaced, strained = atoms.copy(), atoms.copy()
        displaced.positions[2, 1] += sign * h
        strain = np.eye(3)
        strain[[0, 1], [1, 0]] += sign * h / 2
        strained.set_cell(atoms.cell[:] @ strain, scale_atoms=True)
        moved += [displaced, strained]
    dataset = dataset_of(tmp_path / "data.h5", moved)
    sections = settings(basis) if calculator == "LAMMPSSNAP" else CUSTOM
    design = compute_fitsnap_design(dataset, sections, tmp_path / "fitsnap.h5", stress=True)
    rows, n = design.read_all_rows(), len(atoms)
    energy = n * rows[design.kind == RowKind.ENERGY]
    force, shear = -(energy[1] - energy[3]) / (2 * h), (energy[2] - energy[4]) / (2 * h) / atoms.cell.volume
    np.testing.assert_allclose(rows[1 + 3 * 2 + 1], force, rtol=1e-4, atol=1e-5 * np.abs(force).max())
    gpa = 160.21765
    np.testing.assert_allclose(rows[1 + 3 * n + 5], shear * gpa, rtol=1e-4, atol=1e-5 * gpa * np.abs(shear).max())
    if calculator == "LAMMPSCUSTOM":
        assert design.column_names[:3] == ["pairs", "radial(1)", "radial(2)"]
        assert design.n_features == 8


@pytest.mark.slow
@installed
def test_reference_potential_and_the_fit(tmp_path, lammps):
    basis = SnapBasis(elements=["Ta"], twojmax=4, quadratic=False, bzeroflag=False)
    reference = ReferencePotential("hybrid/overlay zero 10.0 zbl 4.0 4.8", ("* * zero", "* * zbl 73 73"))
    rng = np.random.default_rng(1)
    atoms, labels = [], []
    for _ in range(6):
        structure = turned(bulk("Ta", cubic=True), Rotation.random(rng=rng).as_matrix()) * (2, 1, 1)
        structure.rattle(0.3, rng=rng)
        atoms.append(structure)
    truth = rng.normal(size=basis.n_features)
    dataset = dataset_of(tmp_path / "bare.h5", atoms)
    rows = compute_design(dataset, basis, tmp_path / "native.h5", stress=True).read_all_rows()
    expected = []
    for structure, structure_rows in zip(atoms, np.split(rows, 6), strict=True):
        energy, forces, stress = compute_reference_labels(lammps, basis, reference, structure)
        expected.append(np.concatenate([[energy / len(structure)], forces.ravel(), stress]))
        total = structure_rows @ truth + expected[-1]
        n = 3 * len(structure)
        labels.append({"energy": total[0] * len(structure), "forces": total[1 : 1 + n].reshape(-1, 3),
                       "stress": total[1 + n :] / 160.2176634})  # fmt: skip
    labelled = dataset_of(tmp_path / "data.h5", atoms, {"dft": LevelData(labels)})
    sections = settings(basis) | {"REFERENCE": {"pair_style": reference.pair_style, "pair_coeff1": "* * zero",
                                             "pair_coeff2": "* * zbl 73 73"}}  # fmt: skip
    design = compute_fitsnap_design(labelled, sections, tmp_path / "fitsnap.h5", stress=True)
    np.testing.assert_allclose(design.targets["reference"], np.concatenate(expected), rtol=1e-9, atol=1e-9)
    above = with_labels_above_reference(design, labelled, ["dft"])
    fit = fit_wls(above.read_all_rows(), above.targets["dft"], above.kind)
    np.testing.assert_allclose(fit.coefficients, truth, rtol=1e-5, atol=1e-6)
    scores = leverage_scores(above.read_all_rows(), above.kind, above.configuration)
    assert scores.block.sum() == pytest.approx(basis.n_features)
    assert set(design.with_labels(labelled, ["dft"]).targets) == {"dft"}


@pytest.mark.slow
@installed
def test_a_sweep_gives_what_it_gives_on_native_rows(tmp_path, beryllium):
    subset = beryllium.select(np.arange(0, 197, 10))
    basis = SnapBasis(elements=["Be"], twojmax=4, quadratic=False, bzeroflag=False)
    native = compute_design(subset, basis, tmp_path / "native.h5")
    design = compute_fitsnap_design(subset, settings(basis), tmp_path / "fitsnap.h5")
    split = split_configurations(np.arange(len(subset)), 0.6, 3)
    grid = SweepGrid(subset.levels[-2:], [2, 4], [(1.0, 1.0), (12.25, 1.0)], [5, 10], ["random", "leverage"], 2)
    ours, theirs = (
        run_sweep(SweepInput(candidate.with_labels(subset, subset.levels), split.train, split.test, (150.0, 1.0)), grid)
        for candidate in (design, native)
    )
    errors = ["train_energy", "train_force", "test_energy", "test_force", "ref_energy", "ref_force"]
    np.testing.assert_allclose(ours[errors], theirs[errors], rtol=1e-6)


@pytest.mark.slow
@installed
def test_an_input_file_as_it_is_gives_the_published_coefficients(tmp_path, shared_data):
    file = shared_data / "fitsnap_ta_linear" / "Ta-example.in"
    fitsnap_input = read_fitsnap_input(file)
    atoms, labels, weights = [], [], []
    for group, files in zip(fitsnap_input.groups, list_group_files(fitsnap_input).values(), strict=True):
        members = [
            structure for name in files for structure in parse_fitsnap_structures(name, load_json(name), Counter())
        ]
        atoms += members
        labels += [
            {key: structure.calc.results[key] for key in ("energy", "forces", "stress")} for structure in members
        ]
        group_weights = [group.energy_weight, group.force_weight, group.stress_weight * 1e4]  # FitSNAP's are for bar
        weights += [np.repeat(group_weights, [1, 3 * len(structure), 6]) for structure in members]
    dataset = dataset_of(tmp_path / "data.h5", [structure.copy() for structure in atoms], {"dft": LevelData(labels)})
    design = compute_fitsnap_design(dataset, file, tmp_path / "fitsnap.h5", stress=True)
    above = with_labels_above_reference(design, dataset, ["dft"])
    fit = fit_wls(above.read_all_rows(), above.targets["dft"], above.kind, weights=np.concatenate(weights))
    lines = (file.parent / "Ta_pot.snapcoeff").read_text().splitlines()
    published = np.array([float(line.split()[0]) for line in lines if "B[" in line])
    order = SnapBasis(elements=["Ta"], twojmax=6, quadratic=False).component_order
    np.testing.assert_allclose(fit.coefficients, published[[0, *(1 + order)]], rtol=1e-9)


@pytest.mark.slow
@installed
def test_nothing_leaks(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["somebody", "--else", "html"])
    dataset = dataset_of(tmp_path / "data.h5", structures(["Be"])[:1])
    before = set(sys.modules)
    compute_fitsnap_design(dataset, {"BISPECTRUM": {"type": "Be"}}, "fitsnap.h5")
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.h5", "fitsnap.h5"]
    assert not {name for name in set(sys.modules) - before if name.startswith(("fitsnap", "torch", "mpi4py"))}


def test_fitsnap_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    dataset = dataset_of(tmp_path / "data.h5", [bulk("Be")])
    with pytest.raises(InputError, match=r"pip install 'paretofit\[fitsnap\]'"):
        compute_fitsnap_design(dataset, {"BISPECTRUM": {}}, tmp_path / "fitsnap.h5")


SNAP = {"BISPECTRUM": {"type": "Be"}}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"BISPECTRUMS": {}}, r"\[BISPECTRUMS\]; did you mean 'BISPECTRUM'"),
        ({"CALCULATOR": {"calculator": "LAMMPSNAP"}}, "did you mean 'LAMMPSSNAP'"),
        ({"CALCULATOR": {"calculator": "LAMMPSPACE"}}, r"no section \[ACE\]"),
        ({"BISPECTRUM": {"bikflag": True}}, r"\[BISPECTRUM\] bikflag must be 0"),
        (SNAP | {"CALCULATOR": {"nonlinear": 1}}, "nonlinear must be 0"),
        (SNAP | {"REFERENCE": {"units": "real"}}, "units must be metal"),
        (CUSTOM | {"REFERENCE": {"pair_style": "zbl 4.0 4.8"}}, "does not support a reference potential"),
        ({"BISPECTRUM": 4}, "must be a mapping"),
        ("nowhere.in", "no file at nowhere.in"),
        (4, "a mapping of FitSNAP's sections or a path"),
    ],
)
def test_wrong_settings_are_said_before_fitsnap_starts(tmp_path, monkeypatch, sections, message):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    dataset = dataset_of(tmp_path / "data.h5", [bulk("Be")])
    with pytest.raises(InputError, match=message):
        compute_fitsnap_design(dataset, sections, tmp_path / "fitsnap.h5")


@installed
@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"BISPECTRUM": {"type": "Be", "twojmaxx": 6}}, "FitSNAP failed: .*twojmaxx"),
        pytest.param(
            {"BISPECTRUM": {"type": "H"}},
            "configuration 4 contains Be.*add the element to 'type'",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            SNAP | {"REFERENCE": {"pair_style": "zbl 4.0"}},
            "configuration 4: FitSNAP failed: .*pair_style",
            marks=pytest.mark.slow,
        ),
        ({"CALCULATOR": {"calculator": "LAMMPSPACE"}, "ACE": {"type": "Be"}}, "ML-PACE"),
    ],
)
def test_what_fitsnap_refuses_is_one_sentence(tmp_path, sections, message):
    dataset = dataset_of(tmp_path / "data.h5", [bulk("Be")], ids=[4])
    with pytest.raises(InputError, match=message) as error:
        compute_fitsnap_design(dataset, sections, tmp_path / "fitsnap.h5")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "fitsnap.h5").exists()


@pytest.mark.slow
@installed
def test_stress_needs_a_crystal(tmp_path):
    dataset = dataset_of(tmp_path / "data.h5", [Atoms("Be", positions=[[0, 0, 0]])])
    with pytest.raises(InputError, match="configuration 0 .* is not periodic"):
        compute_fitsnap_design(dataset, SNAP, tmp_path / "fitsnap.h5", stress=True)


@pytest.mark.slow
@installed
def test_a_process_that_dies_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(fitsnap_engine, "compute_fitsnap_rows", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    dataset = dataset_of(tmp_path / "data.h5", [bulk("Be")], ids=[4])
    with pytest.raises(InputError, match=r"configuration 4: FitSNAP ended with exit code -9$"):
        compute_fitsnap_design(dataset, SNAP, tmp_path / "fitsnap.h5")
