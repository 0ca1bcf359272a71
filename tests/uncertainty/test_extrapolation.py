"""Leverage of new rows and D-optimality grades against brute force."""

from itertools import combinations

import numpy as np
import pytest

from paretofit import Dataset, InputError, SnapBasis, compute_design, leverage_scores
from paretofit.uncertainty import EnvironmentGrade, classify_grade
from paretofit.uncertainty.extrapolation import MAXVOL_TOLERANCE, ActiveSet, TrainingLeverage


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(40, 5)) * np.logspace(0, -4, 5)


def test_leverage_of_training_rows_is_the_diagonal_of_the_hat_matrix(rows):
    weights = np.random.default_rng(1).uniform(0.1, 10, 40)
    leverage = TrainingLeverage.from_rows(rows, weights)
    W = rows * weights[:, None]
    hat = W @ np.linalg.pinv(W)
    assert leverage(rows, weights) == pytest.approx(np.diag(hat), rel=1e-8)
    assert leverage(rows, weights).sum() == pytest.approx(5)
    assert leverage(rows, weights) == pytest.approx(
        leverage_scores(W, ["energy"] * 40, np.arange(40), energy_weight=1.0).rows, rel=1e-8
    )
    assert leverage(3 * rows[:1])[0] == pytest.approx(9 * leverage(rows[:1])[0])


def test_the_active_set_maximises_the_determinant_locally():
    for seed in range(5):
        candidates = np.random.default_rng(seed).normal(size=(9, 3))
        active_set = ActiveSet.from_rows(candidates)
        best = max(abs(np.linalg.det(candidates[list(rows)])) for rows in combinations(range(9), 3))
        determinant = abs(np.linalg.det(candidates[active_set.row_indices]))
        assert determinant >= best / (1 + MAXVOL_TOLERANCE) ** 3 / 1.5  # MaxVol is locally optimal
        for k, j in ((k, j) for k in range(9) for j in range(3)):  # no exchange of one row is better
            swapped = active_set.row_indices.copy()
            swapped[j] = k
            assert abs(np.linalg.det(candidates[swapped])) <= determinant * (1 + 2 * MAXVOL_TOLERANCE)


def test_grades_are_at_most_one_for_training_rows_and_scale_with_the_row(rows):
    active_set = ActiveSet.from_rows(rows)
    assert active_set.grade(rows).max() <= 1 + 2 * MAXVOL_TOLERANCE
    assert active_set.grade(rows[active_set.row_indices]) == pytest.approx(np.ones(5))
    assert active_set.grade(4 * rows[active_set.row_indices]) == pytest.approx(np.full(5, 4.0))
    direct_grades = [np.abs(np.linalg.solve(rows[active_set.row_indices].T, row)).max() for row in rows]
    assert active_set.grade(rows) == pytest.approx(direct_grades)
    scaled = ActiveSet.from_rows(rows * np.logspace(0, 3, 5))
    assert scaled.grade(rows * np.logspace(0, 3, 5)).max() <= 1 + 2 * MAXVOL_TOLERANCE
    assert [classify_grade(grade) for grade in (0.3, 1.5, 7.0)] == [
        "interpolation",
        "extrapolation",
        "strong extrapolation",
    ]


def test_distant_configurations_extrapolate(tmp_path):
    """The shipped far set, compressed and stretched, against the shipped training data."""
    from conftest import ROOT

    basis, rows = SnapBasis(elements=["Be"], twojmax=4), {}
    for name in ("beryllium", "beryllium_far"):
        with Dataset(ROOT / "data" / f"{name}.h5") as data:
            design = compute_design(data.select(np.arange(0, len(data), 2)), basis, tmp_path / f"{name}.h5")
        rows[name] = design.read_all_rows()[design.kind == 0]
    active = ActiveSet.from_rows(rows["beryllium"])
    assert np.median(active.grade(rows["beryllium_far"])) > 2 * np.median(active.grade(rows["beryllium"]))


def test_dependent_rows_are_refused(rows):
    with pytest.raises(InputError, match="an active set of 5 columns requires as many rows; there are 3"):
        ActiveSet.from_rows(rows[:3])
    with pytest.raises(InputError, match="not independent"):
        ActiveSet.from_rows(np.hstack([rows, rows[:, :1]]))
    with pytest.raises(InputError, match="40 rows do not determine 6 columns"):
        TrainingLeverage.from_rows(np.hstack([rows, rows[:, :1]]))


class TestEnvironments:
    def features(self, values):
        upper = np.triu_indices(values.shape[1])
        products = np.einsum("ni,nj->nij", values, values)[:, upper[0], upper[1]]
        return np.hstack([np.ones((len(values), 1)), values, products])

    def test_grades_equal_those_of_a_locally_optimal_set(self):
        """Training atoms have grades up to one; a grade is the largest coefficient in an active set of p of them."""
        values = np.random.default_rng(3).normal(size=(3000, 4)) * np.logspace(0, -3, 4)
        for quadratic, columns in ((False, 5), (True, 15)):
            environment_grade = EnvironmentGrade.from_descriptors(values, quadratic=quadratic)
            assert environment_grade(values).max() == pytest.approx(1.0, abs=3 * MAXVOL_TOLERANCE)
            assert environment_grade.coefficient_map.shape == (columns, columns)
            rows = self.features(values) if quadratic else np.hstack([np.ones((3000, 1)), values])
            active = rows[environment_grade(values) > 1 - 1e-9]
            active_set = ActiveSet.from_rows(rows)
            assert abs(np.linalg.slogdet(active_set.inverse)[1] + np.linalg.slogdet(active[:columns])[1]) < 2.0
            direct_grades = np.abs(np.linalg.solve(active[:columns].T, rows[:50].T)).max(axis=0)
            assert environment_grade(values[:50]) == pytest.approx(direct_grades, rel=1e-6)

    def test_grades_do_not_depend_on_descriptor_units(self):
        values = np.random.default_rng(4).normal(size=(500, 3))
        new = np.random.default_rng(5).normal(size=(20, 3)) * 2
        first, second = (
            EnvironmentGrade.from_descriptors(values),
            EnvironmentGrade.from_descriptors(values * [1e3, 1e-4, 7.0]),
        )
        assert second(new * [1e3, 1e-4, 7.0]) == pytest.approx(first(new), rel=1e-6)

    def test_grades_are_infinite_in_directions_without_training_data(self):
        values = np.random.default_rng(6).normal(size=(200, 3))
        flat = np.hstack([values, values[:, :1] + values[:, 1:2]])
        flat_grade = EnvironmentGrade.from_descriptors(flat)
        assert flat_grade(flat).max() <= 1 + 3 * MAXVOL_TOLERANCE
        assert np.isinf(flat_grade(np.add(flat, [0, 0, 0, 0.1]))).all()
        # All environments of a perfect crystal are the same.
        crystal_grade = EnvironmentGrade.from_descriptors(np.tile([1.0, 2.0], (10, 1)))
        assert crystal_grade(np.array([[1.0, 2.0]]))[0] == pytest.approx(1.0)
        assert np.isinf(crystal_grade(np.array([[1.0, 2.1]])))[0]
