"""Weights of groups: fits from moments against plain fits, gradients against differences, and lower errors."""

from itertools import pairwise

import numpy as np
import pytest

from paretofit import InputError, fit_wls
from paretofit.core import RowKind
from paretofit.linear import GroupMoments, optimise_weights, trace_weight_front
from paretofit.linear.group_optimisation import NEGLIGIBLE_ERRORS

E, F = RowKind.ENERGY, RowKind.FORCE


@pytest.fixture(scope="module")
def rows():
    """Rows of three groups; no model fits the labels of "bad", and "odd" has other coefficients than the others."""
    rng = np.random.default_rng(0)
    n, p = 600, 12
    X = rng.normal(size=(n, p)) * np.logspace(0, -3, p)
    group = np.repeat(["good", "bad", "odd"], n // 3)
    kind = np.where(np.arange(n) % 4 == 0, E, F)
    y = X @ rng.normal(size=p) + 0.01 * rng.normal(size=n)
    y[group == "bad"] += rng.normal(size=n // 3)
    y[group == "odd"] += (X @ rng.normal(size=p))[group == "odd"]
    held_out = rng.random(n) < 0.3
    return X, y, kind, group, held_out


@pytest.fixture(scope="module")
def moments(rows):
    return GroupMoments(*rows, np.ones(len(rows[1])))


def random_weights(moments, seed=0):
    rng = np.random.default_rng(seed)
    return {part: float(np.exp(2 * rng.normal())) for part in moments.train_sums}


@pytest.mark.parametrize("seed", range(4))
def test_a_fit_from_moments_is_the_plain_fit(rows, moments, seed):
    X, y, kind, group, held_out = rows
    weights = random_weights(moments, seed)
    each = np.array([weights[name, RowKind(number)] for name, number in zip(group, kind, strict=True)])
    train = ~held_out
    plain = fit_wls(X[train], y[train], kind[train], weights=each[train])
    assert moments.fit(weights) == pytest.approx(plain.coefficients, rel=1e-9, abs=1e-12)
    for part, error in moments.compute_errors(weights).items():
        mask = held_out & (group == part[0]) & (kind == part[1])
        assert error == pytest.approx(np.sqrt(np.mean((y - X @ plain.coefficients)[mask] ** 2)), rel=1e-9)


def test_gradients_are_the_differences(moments):
    weights, importance = random_weights(moments), {part: 0.5 + k for k, part in enumerate(moments.held_out_sums)}
    _, gradient = moments.compute_objective(weights, importance)
    for part, slope in gradient.items():
        up, down = ({**weights, part: weights[part] * np.exp(step)} for step in (1e-5, -1e-5))
        difference = (
            moments.compute_objective(up, importance)[0] - moments.compute_objective(down, importance)[0]
        ) / 2e-5
        assert slope == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_optimisation_lowers_the_errors_of_the_objective_only(moments):
    start = dict.fromkeys(moments.train_sums, 1.0)
    importance = {("good", E): 1.0, ("good", F): 1.0}
    optimum = optimise_weights(moments, start, importance, regulariser=1e-3)
    assert optimum.objective[1] < optimum.objective[0]
    for part in importance:
        assert optimum.final_errors[part] < optimum.initial_errors[part]
    assert min(optimum.weights["good", kind] for kind in (E, F)) > max(
        optimum.weights[name, kind] for name in ("bad", "odd") for kind in (E, F)
    )
    regularised = optimise_weights(moments, start, importance, regulariser=1e6)
    assert all(weight == pytest.approx(1.0, abs=1e-3) for weight in regularised.weights.values())


def test_the_front_between_two_objectives(moments):
    start = dict.fromkeys(moments.train_sums, 1.0)
    objectives = {("good", E): 1.0, ("good", F): 2.0}, {("odd", F): 1.0}
    front = trace_weight_front(moments, start, objectives, n_points=5, regulariser=1e-3)
    assert [share for share, _, _ in front] == [0.0, 0.25, 0.5, 0.75, 1.0]
    first, second = zip(*(errors for _, _, errors in front), strict=True)
    assert all(b >= a * (1 - 1e-3) for a, b in pairwise(first))
    assert all(b <= a * (1 + 1e-3) for a, b in pairwise(second))
    assert first[-1] > 1.05 * first[0]
    assert second[0] > 1.05 * second[-1]


def test_errors_that_are_zero_have_a_floor():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(60, 3))
    group = np.array(["a"] * 60)
    held_out = np.arange(60) % 3 == 0
    exact = GroupMoments(X, X @ [1.0, 2.0, 3.0], np.full(60, E), group, held_out, np.ones(60))
    value, gradient = exact.compute_objective({("a", E): 1.0}, {("a", E): 1.0})
    assert value == pytest.approx(np.log(NEGLIGIBLE_ERRORS[E]))
    assert gradient["a", E] == pytest.approx(0.0, abs=1e-6)


def test_invalid_input_is_refused(rows, moments):
    X, y, kind, group, held_out = rows
    ones = np.ones(len(y))
    with pytest.raises(InputError, match="requires training rows and held-out rows"):
        GroupMoments(X, y, kind, group, np.zeros(len(y), dtype=bool), ones)
    with pytest.raises(InputError, match="12 coefficients are not determined"):
        GroupMoments(X[:14], y[:14], kind[:14], group[:14], np.arange(14) < 4, ones[:14])
    with pytest.raises(InputError, match="column 12, counted from 0, is zero in all training rows"):
        GroupMoments(np.hstack([X, np.where(held_out, 1.0, 0.0)[:, None]]), y, kind, group, held_out, ones)
    with pytest.raises(InputError, match="columns depend on each other"):
        GroupMoments(np.hstack([X, X[:, :1]]), y, kind, group, held_out, ones)
    start = dict.fromkeys(moments.train_sums, 1.0)
    with pytest.raises(InputError, match="group 'none' has no held-out energy rows"):
        optimise_weights(moments, start, {("none", E): 1.0})
    with pytest.raises(InputError, match="the energy weight of group 'good' must be positive"):
        optimise_weights(moments, {**start, ("good", E): 0.0}, {("bad", E): 1.0})
    with pytest.raises(InputError, match="no error to minimise"):
        optimise_weights(moments, start, {})
