"""Leverage of new rows and D-optimality grades against brute force."""

from itertools import combinations

import numpy as np
import pytest

from paretofit import Dataset, InputError, SnapBasis, compute_design, leverage_scores
from paretofit.linear.extrapolation import TOLERANCE, ActiveSet, TrainingLeverage, verdict


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(40, 5)) * np.logspace(0, -4, 5)


def test_leverage_of_training_rows_is_that_of_the_hat_matrix(rows):
    weights = np.random.default_rng(1).uniform(0.1, 10, 40)
    found = TrainingLeverage.of(rows, weights)
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
        found = ActiveSet.of(few)
        best = max(abs(np.linalg.det(few[list(one)])) for one in combinations(range(9), 3))
        own = abs(np.linalg.det(few[found.members]))
        assert own >= best / (1 + TOLERANCE) ** 3 / 1.5  # MaxVol is locally optimal
        for k, j in ((k, j) for k in range(9) for j in range(3)):  # no exchange of one row is better
            swapped = found.members.copy()
            swapped[j] = k
            assert abs(np.linalg.det(few[swapped])) <= own * (1 + 2 * TOLERANCE)


def test_grades_are_at_most_one_inside_and_grow_outside(rows):
    found = ActiveSet.of(rows)
    assert found.grade(rows).max() <= 1 + 2 * TOLERANCE
    assert found.grade(rows[found.members]) == pytest.approx(np.ones(5))
    assert found.grade(4 * rows[found.members]) == pytest.approx(np.full(5, 4.0))
    brute = [np.abs(np.linalg.solve(rows[found.members].T, row)).max() for row in rows]
    assert found.grade(rows) == pytest.approx(brute)
    scaled = ActiveSet.of(rows * np.logspace(0, 3, 5))
    assert scaled.grade(rows * np.logspace(0, 3, 5)).max() <= 1 + 2 * TOLERANCE
    assert [verdict(one) for one in (0.3, 1.5, 7.0)] == ["inside", "at the edge", "outside"]


def test_configurations_far_away_are_outside(tmp_path):
    """The shipped far set, compressed and stretched, against the shipped training data."""
    from conftest import ROOT

    basis, grades = SnapBasis(elements=["Be"], twojmax=4), {}
    for name in ("beryllium", "beryllium_far"):
        with Dataset(ROOT / "data" / f"{name}.h5") as data:
            design = compute_design(data.select(np.arange(0, len(data), 2)), basis, tmp_path / f"{name}.h5")
        own = design.rows()[design.kind == 0]
        grades[name] = own
    active = ActiveSet.of(grades["beryllium"])
    assert np.median(active.grade(grades["beryllium_far"])) > 2 * np.median(active.grade(grades["beryllium"]))


def test_what_has_no_grade(rows):
    with pytest.raises(InputError, match="an active set of 5 columns needs as many rows; there are 3"):
        ActiveSet.of(rows[:3])
    with pytest.raises(InputError, match="not independent"):
        ActiveSet.of(np.hstack([rows, rows[:, :1]]))
    with pytest.raises(InputError, match="40 rows do not determine 6 columns"):
        TrainingLeverage.of(np.hstack([rows, rows[:, :1]]))
