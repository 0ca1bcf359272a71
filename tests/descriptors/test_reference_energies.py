"""Energies of free atoms as a constraint: against equality-constrained least squares, for every way to read rows."""

import numpy as np
import pytest
import scipy.linalg
from ase import Atoms
from ase.build import bulk

from paretofit import InputError, SnapBasis, compute_design, fit_wls
from paretofit.core import RowKind
from paretofit.dataset import Dataset, LevelData, find_isolated_atoms, measure_isolation, write_dataset
from paretofit.descriptors import (
    ColumnConstraint,
    DesignMatrix,
    compute_free_atom_rows,
    constrain_free_atoms,
    parse_reference_energies,
    select_level_energies,
)
from paretofit.potentials.committee_building import expand_leverage
from paretofit.uncertainty import TrainingLeverage

ENERGIES = {"cheap": {"Cu": -3.25, "Au": -2.5}, "good": {"Cu": -3.0, "Au": -2.75}}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Alloys and clusters of Cu and Au with arbitrary labels, at two levels."""
    rng = np.random.default_rng(5)
    structures = []
    for k in range(24):
        atoms = bulk("Cu", cubic=True, a=3.7 + 0.01 * k)
        atoms.symbols[rng.permutation(4)[: k % 4]] = "Au"
        atoms.rattle(0.1, seed=k)
        atoms.pbc = k < 18
        structures.append(atoms)
    levels = {}
    for name in ENERGIES:
        levels[name] = LevelData(
            [{"energy": -12 + rng.normal(), "forces": rng.normal(size=(4, 3)), "seconds": 1.0} for _ in structures]
        )
    path = tmp_path_factory.mktemp("alloy") / "alloy.h5"
    write_dataset(path, structures, levels)
    with Dataset(path) as data:
        yield data


def make_design(dataset, folder, **settings):
    basis = SnapBasis(elements=["Cu", "Au"], twojmax=2, rcutfac=4.0, **settings)
    return basis, compute_design(dataset, basis, folder / "design.h5").with_labels(dataset, list(ENERGIES))


def solve_constrained(X, y, A, b):
    """Equality-constrained least squares by an orthogonal basis of the null space of A."""
    particular = scipy.linalg.lstsq(A, b)[0]
    null = scipy.linalg.null_space(A)
    return particular + null @ scipy.linalg.lstsq(X @ null, y - X @ particular)[0]


@pytest.mark.parametrize(
    ("settings", "symbols"),
    [
        ({"quadratic": False}, ["Cu", "Au"]),
        ({"quadratic": False, "bzeroflag": False}, ["Cu", "Au"]),
        ({"quadratic": False, "bzeroflag": False}, ["Au"]),
        ({"quadratic": False}, ["Cu"]),
        ({"quadratic": True, "bzeroflag": False, "radelem": [0.5, 0.55], "wj": [1.0, 0.8]}, ["Cu", "Au"]),
    ],
)
def test_a_fit_is_the_equality_constrained_least_squares_fit(dataset, tmp_path, settings, symbols):
    basis, design = make_design(dataset, tmp_path, **settings)
    energies = {level: {symbol: values[symbol] for symbol in symbols} for level, values in ENERGIES.items()}
    constrained = constrain_free_atoms(design, energies)
    w = np.where(design.kind == RowKind.ENERGY, 12.0, 1.0)
    A = compute_free_atom_rows(basis, symbols)
    for twojmax in (0, 2):
        p, reduced_p = design.count_columns_up_to(twojmax), constrained.count_columns_up_to(twojmax)
        assert reduced_p == p - len(symbols)
        for level in ENERGIES:
            X = constrained.read_all_rows()[:, :reduced_p]
            fit = fit_wls(X, constrained.targets[level], design.kind, energy_weight=12.0)
            coefficients = constrained.expand_coefficients(fit.coefficients, level)
            b = np.array([energies[level][symbol] for symbol in symbols])
            assert A[:, :p] @ coefficients == pytest.approx(b, abs=1e-9)
            expected = solve_constrained(
                design.read_all_rows()[:, :p] * w[:, None], design.targets[level] * w, A[:, :p], b
            )
            prediction = design.read_all_rows()[:, :p] @ coefficients
            assert np.abs(prediction - design.read_all_rows()[:, :p] @ expected).max() < 1e-8 * np.abs(prediction).max()
            residual = X @ fit.coefficients - constrained.targets[level]
            assert residual == pytest.approx(prediction - design.targets[level], abs=1e-8)


def test_rows_are_the_same_however_they_are_read(dataset, tmp_path):
    _, stored = make_design(dataset, tmp_path, bzeroflag=False)
    constrained = constrain_free_atoms(stored, {"cheap": {"Au": 1.0}, "good": {"Au": 2.0}})
    rows = constrained.read_all_rows()
    weights = np.linspace(0.5, 2.0, stored.n_rows)
    for design in (constrained, constrained.load_into_memory()):
        assert np.array_equal(design.read_all_rows(), rows)
        assert np.array_equal(np.concatenate([block for _, block in design.iterate_blocks(7)]), rows)
        indices = np.array([0, 1, 2, 13, 14, 40])
        for columns in (1, 3, None):
            assert design.read_rows(indices, columns) == pytest.approx(rows[indices, :columns], abs=1e-12)
        assert np.array_equal(design.with_row_weights(weights).read_all_rows(), rows * weights[:, None])
    assert constrained.n_constant == 1
    assert constrained.n_features == rows.shape[1] == stored.n_features - 1
    assert constrained.attributes["structures"] != stored.attributes["structures"]
    copy = constrained.save(tmp_path / "copy.h5")
    assert np.array_equal(DesignMatrix.open(copy.path).read_all_rows(), rows)
    assert constrain_free_atoms(stored, {"cheap": {}, "good": {}}) is stored


def test_force_rows_do_not_change(dataset, tmp_path):
    _, design = make_design(dataset, tmp_path)
    constrained = constrain_free_atoms(design, ENERGIES)
    is_force = design.kind == RowKind.FORCE
    assert np.array_equal(constrained.read_all_rows()[is_force], design.read_all_rows()[is_force, 2:])
    assert np.array_equal(constrained.targets["good"][is_force], design.targets["good"][is_force])


def test_leverage_is_that_of_a_training_set_with_exact_free_atoms(dataset, tmp_path):
    """The leverage of constrained rows in all columns, against free atoms as rows of a large weight."""
    basis, design = make_design(dataset, tmp_path, quadratic=False, bzeroflag=False)
    constrained = constrain_free_atoms(design, ENERGIES)
    X, A = design.read_all_rows(), compute_free_atom_rows(basis)
    leverage = expand_leverage(TrainingLeverage.from_rows(constrained.read_all_rows()), constrained.constraint)
    heavy = np.vstack([1e6 * A, X])
    expected = np.einsum("ij,ji->i", X, np.linalg.pinv(heavy.T @ heavy, rcond=1e-20) @ X.T)
    assert leverage(X) == pytest.approx(
        TrainingLeverage.from_rows(constrained.read_all_rows())(constrained.read_all_rows()), abs=1e-9
    )
    assert leverage(X) == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert leverage(A) == pytest.approx(0.0, abs=1e-12)


def test_equations_may_share_columns():
    """Offsets of a level beside constants: β₀ = 2, and β₀ + 3 β₁ + δ = 7."""
    equations = np.array([[1.0, 0.0, 0.0], [1.0, 3.0, 1.0]])
    constraint = ColumnConstraint.from_equations(equations, np.array([0, 2]), {"a": np.array([2.0, 7.0])})
    coefficients = constraint.expand([[0.5], [1.0]], "a")
    assert coefficients @ equations.T == pytest.approx(np.array([[2.0, 7.0], [2.0, 7.0]]))
    rows = np.random.default_rng(0).normal(size=(5, 3))
    residual = constraint.reduce_rows(rows) @ [0.5] - constraint.reduce_targets(rows, np.ones(5), "a")
    assert residual == pytest.approx(rows @ coefficients[0] - 1)
    restricted = constraint.restrict_columns(2)
    assert restricted.eliminated_columns.tolist() == [0]
    assert restricted.expand([0.5], "a") == pytest.approx([2.0, 0.5])


def test_descriptors_of_free_atoms_vanish_with_bzeroflag():
    rows = compute_free_atom_rows(SnapBasis(elements=["C", "O"], twojmax=4))
    assert np.array_equal(rows[:, :2], np.eye(2))
    assert not rows[:, 2:].any()
    assert compute_free_atom_rows(SnapBasis(elements=["C"], twojmax=4, bzeroflag=False))[:, 1:].any()


def test_isolated_atoms_are_those_without_images(tmp_path):
    structures = [
        bulk("Cu"),
        Atoms("Cu", cell=[9.0] * 3, pbc=True),
        Atoms("Cu"),
        Atoms("Cu", cell=[4.0] * 3, pbc=True, info={"config_type": "isolated_atom"}),
        Atoms("Cu2", positions=[[0, 0, 0], [9, 0, 0]]),
        Atoms("Au", cell=[20, 20, 4.0], pbc=True),
    ]
    labels = [{"energy": float(k), "forces": np.zeros((len(atoms), 3))} for k, atoms in enumerate(structures)]
    write_dataset(tmp_path / "d.h5", structures, {"a": LevelData(labels)})
    with Dataset(tmp_path / "d.h5") as data:
        assert [atom.dataset_index for atom in find_isolated_atoms(data, 5.0)] == [1, 2, 3]
        assert [atom.dataset_index for atom in find_isolated_atoms(data, 9.5)] == [2, 3]
    assert measure_isolation(structures[1], 5.0) == 9.0


def test_the_force_on_a_lone_atom_needs_no_label(tmp_path):
    structures = [Atoms("Cu"), Atoms("Cu"), Atoms("Cu2", positions=[[0, 0, 0], [2, 0, 0]])]
    labels = [{"energy": -1.0}, {}, {"energy": -3.0}]
    write_dataset(tmp_path / "d.h5", structures, {"a": LevelData(labels)})
    with Dataset(tmp_path / "d.h5") as data:
        assert data.labels("a").is_complete.tolist() == [True, False, False]
        assert data.select([2, 0]).labels("a").is_complete.tolist() == [False, True]


def test_settings_from_the_command_line():
    assert parse_reference_energies("isolated") == "isolated"
    assert parse_reference_energies("C=-1.25, O=-2") == {"C": -1.25, "O": -2.0}
    assert select_level_energies({"C": -1.0, "a": {"C": -2.0}}, "b", "b") == {"C": -1.0}
    for text in ("C", "C=x", "isolatd"):
        with pytest.raises(InputError, match="--reference-energies must be auto, isolated, fitted, or energies in eV"):
            parse_reference_energies(text)
