"""Intervals, probabilities of fronts and ties, against brute force and against known distributions."""

import numpy as np
import pytest
from scipy import stats

from paretofit.pareto import (
    compute_front_probabilities,
    compute_sign_shares,
    estimate_intervals,
    find_ties,
    scale_intervals,
)


def draw_errors(rng, *, n_splits, n_settings, split_sd=0.3, draw_sd=0.2):
    """Errors of settings with the mean log(10), for one draw in each split, without scatter of the test sets."""
    logs = np.log(10) + split_sd * rng.normal(size=(n_splits, n_settings))
    return np.exp(logs + draw_sd * rng.normal(size=logs.shape)), logs


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_intervals_hold_the_errors_of_new_draws_in_new_splits(coverage):
    rng = np.random.default_rng(1)
    errors, _ = draw_errors(rng, n_splits=5, n_settings=4000)
    repetitions = np.log(10) + 0.3 * rng.normal(size=(4000, 1)) + 0.2 * rng.normal(size=(4000, 10))
    low, high = estimate_intervals(errors[:, None], list(np.exp(repetitions)), coverage)
    new, _ = draw_errors(rng, n_splits=20, n_settings=4000)
    assert np.mean((new > low) & (new < high)) == pytest.approx(coverage, abs=0.04)


def test_an_interval_is_that_of_the_t_distribution():
    errors = np.exp(np.array([[1.0, 1.2, 0.8], [1.5, 1.4, 1.6]]))[
        :, :, None
    ]  # two splits; bootstrap samples do not count
    repetitions = np.array([1.0, 1.4])
    ends = estimate_intervals(errors, [np.exp(repetitions)], 0.9)
    values = np.array([1.0, 1.5, repetitions.mean()])
    half_width = stats.t.ppf(0.95, 2) * np.std(values, ddof=1) * np.sqrt(1 + 1 / 3)
    np.testing.assert_allclose(np.log(ends[:, 0]), values.mean() + np.array([-1, 1]) * half_width)
    narrower = estimate_intervals(errors, [np.exp(repetitions)], 0.8)
    np.testing.assert_allclose(scale_intervals(ends, np.array([2.0]), 0.8), narrower)


def test_an_error_of_zero_has_no_interval():
    assert np.isnan(estimate_intervals(np.zeros((3, 4, 1)), [np.ones(2)])).all()


def test_front_probabilities_are_those_of_brute_force():
    rng = np.random.default_rng(2)
    energy, force, cost = rng.random((2, 30, 12)), rng.random((2, 30, 12)), rng.random(12)
    energy[0, 3, 5] = np.nan
    counts = np.zeros(12)
    for split, sample in np.ndindex(2, 30):
        points = np.column_stack([energy[split, sample], force[split, sample], cost])
        for k, point in enumerate(points):
            others = np.delete(points, k, axis=0)
            is_dominated = (others <= point).all(axis=1) & (others < point).any(axis=1)
            counts[k] += np.isfinite(point).all() and not is_dominated.any()
    np.testing.assert_allclose(compute_front_probabilities([energy, force], cost), counts / 60)


def test_settings_are_tied_unless_an_error_differs_in_nearly_all_samples():
    rng = np.random.default_rng(3)
    common = np.exp(rng.normal(size=(5, 40, 1)))  # a hard test set is hard for all settings
    noise = np.exp(0.02 * rng.normal(size=(5, 40, 3)))
    energy, force = common * noise * [1.0, 1.0, 2.0], common * noise[..., ::-1]
    assert find_ties([energy, force]).tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    assert compute_sign_shares(energy[..., 2], energy[..., 0]) == 1.0
    assert compute_sign_shares(energy[..., 0], energy[..., 0]) == 0.5
