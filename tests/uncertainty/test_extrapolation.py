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


def test_leverage_of_training_rows_is_that_of_the_hat_matrix(rows):
    weights = np.random.default_rng(1).uniform(0.1, 10, 40)
    found = TrainingLeverage.from_rows(rows, weights)
    W = rows * weights[:, None]
    hat = W @ np.linalg.pinv(W)
    assert found(rows, weights) == pytest.approx(np.diag(hat), rel=1e-8)
    assert found(rows, weights).sum() == pytest.approx(5)
    assert found(rows, weights) == pytest.approx(
        leverage_scores(W, ["energy"] * 40, np.arange(40), energy_weight=1.0).rows, rel=1e-8
    )
    assert found(3 * rows[:1])[0] == pytest.approx(9 * found(rows[:1])[0])


def test_the_active_set_has_the_largest_determinant_of_all():
    for seed in range(5):
        few = np.random.default_rng(seed).normal(size=(9, 3))
        found = ActiveSet.from_rows(few)
        best = max(abs(np.linalg.det(few[list(one)])) for one in combinations(range(9), 3))
        own = abs(np.linalg.det(few[found.row_indices]))
        assert own >= best / (1 + MAXVOL_TOLERANCE) ** 3 / 1.5  # MaxVol is locally optimal
        for k, j in ((k, j) for k in range(9) for j in range(3)):  # no exchange of one row is better
            swapped = found.row_indices.copy()
            swapped[j] = k
            assert abs(np.linalg.det(few[swapped])) <= own * (1 + 2 * MAXVOL_TOLERANCE)


def test_grades_are_at_most_one_inside_and_grow_outside(rows):
    found = ActiveSet.from_rows(rows)
    assert found.grade(rows).max() <= 1 + 2 * MAXVOL_TOLERANCE
    assert found.grade(rows[found.row_indices]) == pytest.approx(np.ones(5))
    assert found.grade(4 * rows[found.row_indices]) == pytest.approx(np.full(5, 4.0))
    brute = [np.abs(np.linalg.solve(rows[found.row_indices].T, row)).max() for row in rows]
    assert found.grade(rows) == pytest.approx(brute)
    scaled = ActiveSet.from_rows(rows * np.logspace(0, 3, 5))
    assert scaled.grade(rows * np.logspace(0, 3, 5)).max() <= 1 + 2 * MAXVOL_TOLERANCE
    assert [classify_grade(one) for one in (0.3, 1.5, 7.0)] == ["inside", "at the edge", "outside"]


def test_configurations_far_away_are_outside(tmp_path):
    """The shipped far set, compressed and stretched, against the shipped training data."""
    from conftest import ROOT

    basis, grades = SnapBasis(elements=["Be"], twojmax=4), {}
    for name in ("beryllium", "beryllium_far"):
        with Dataset(ROOT / "data" / f"{name}.h5") as data:
            design = compute_design(data.select(np.arange(0, len(data), 2)), basis, tmp_path / f"{name}.h5")
        own = design.rows()[design.kind == 0]
        grades[name] = own
    active = ActiveSet.from_rows(grades["beryllium"])
    assert np.median(active.grade(grades["beryllium_far"])) > 2 * np.median(active.grade(grades["beryllium"]))


def test_what_has_no_grade(rows):
    with pytest.raises(InputError, match="an active set of 5 columns needs as many rows; there are 3"):
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

    def test_grades_are_those_of_a_locally_optimal_set(self):
        """Training atoms are inside, and a point is graded by its coefficients in some p of them."""
        values = np.random.default_rng(3).normal(size=(3000, 4)) * np.logspace(0, -3, 4)
        for quadratic, columns in ((False, 5), (True, 15)):
            found = EnvironmentGrade.from_descriptors(values, quadratic=quadratic)
            assert found(values).max() == pytest.approx(1.0, abs=3 * MAXVOL_TOLERANCE)
            assert found.coefficient_map.shape == (columns, columns)
            rows = self.features(values) if quadratic else np.hstack([np.ones((3000, 1)), values])
            active = rows[found(values) > 1 - 1e-9]
            own = ActiveSet.from_rows(rows)
            assert abs(np.linalg.slogdet(own.inverse)[1] + np.linalg.slogdet(active[:columns])[1]) < 2.0
            brute = np.abs(np.linalg.solve(active[:columns].T, rows[:50].T)).max(axis=0)
            assert found(values[:50]) == pytest.approx(brute, rel=1e-6)

    def test_a_change_of_units_changes_nothing(self):
        values = np.random.default_rng(4).normal(size=(500, 3))
        new = np.random.default_rng(5).normal(size=(20, 3)) * 2
        first, second = (
            EnvironmentGrade.from_descriptors(values),
            EnvironmentGrade.from_descriptors(values * [1e3, 1e-4, 7.0]),
        )
        assert second(new * [1e3, 1e-4, 7.0]) == pytest.approx(first(new), rel=1e-6)

    def test_directions_that_the_training_set_lacks_are_infinitely_far(self):
        values = np.random.default_rng(6).normal(size=(200, 3))
        flat = np.hstack([values, values[:, :1] + values[:, 1:2]])
        found = EnvironmentGrade.from_descriptors(flat)
        assert found(flat).max() <= 1 + 3 * MAXVOL_TOLERANCE
        assert np.isinf(found(np.add(flat, [0, 0, 0, 0.1]))).all()
        one = EnvironmentGrade.from_descriptors(np.tile([1.0, 2.0], (10, 1)))  # a perfect crystal and nothing else
        assert one(np.array([[1.0, 2.0]]))[0] == pytest.approx(1.0)
        assert np.isinf(one(np.array([[1.0, 2.1]])))[0]
