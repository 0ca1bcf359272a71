"""Committees against explicit refits, a known posterior, and the promise of POPS."""

import numpy as np
import pytest

from paretofit import InputError, fit_wls
from paretofit.linear.committee import METHODS, WhitenedFit, committee


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    n, p = 400, 8
    rows = rng.normal(size=(n, p)) * np.logspace(0, -5, p)
    truth = rng.normal(size=p) / np.logspace(0, -5, p)
    targets = rows @ truth + 0.1 * rng.normal(size=n)
    return rows, targets, rng.uniform(0.5, 5, n), np.arange(n) // 8, truth


def test_the_fit_itself_is_the_plain_one(data):
    rows, targets, weights, _, _ = data
    fit = WhitenedFit.of(rows, targets, weights)
    plain = fit_wls(rows, targets, ["force"] * len(rows), weights=weights)
    assert fit.coefficients == pytest.approx(plain.coefficients, rel=1e-9)
    assert pytest.approx(np.eye(8), abs=1e-12) == fit.U.T @ fit.U


@pytest.mark.parametrize("method", ["bootstrap", "subset"])
def test_members_are_refits_of_the_drawn_rows(data, method):
    """With as many blocks as groups, a member is a plain fit of what was drawn: here drawn again by the same seed."""
    rows, targets, weights, group, _ = data
    fit = WhitenedFit.of(rows, targets, weights)
    found = committee(fit, group, 3, np.random.default_rng(5), method=method)
    rng = np.random.default_rng(5)
    n_groups = group.max() + 1
    block = rng.permutation(np.arange(n_groups))[group]
    for member in found:
        if method == "bootstrap":
            counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups))
        else:
            counts = np.zeros(n_groups, dtype=int)
            counts[rng.permutation(n_groups)[: round(0.7 * n_groups)]] = 1
        each = np.repeat(np.arange(len(rows)), counts[block])
        plain = fit_wls(rows[each], targets[each], ["force"] * len(each), weights=weights[each])
        assert member == pytest.approx(plain.coefficients, rel=1e-7)


def test_the_posterior_is_the_known_one(data):
    rows, targets, weights, group, truth = data
    fit = WhitenedFit.of(rows, targets, weights)
    draws = committee(fit, group, 4000, np.random.default_rng(1), method="posterior")
    W = rows * weights[:, None]
    residual = (targets - rows @ fit.coefficients) * weights
    known = np.linalg.inv(W.T @ W) * (residual @ residual) / (len(rows) - 8)
    assert draws.mean(axis=0) == pytest.approx(fit.coefficients, abs=4 * np.sqrt(np.diag(known)).max() / 60 + 1e-9)
    scale = np.sqrt(np.diag(known))
    assert np.cov(draws.T) / np.outer(scale, scale) == pytest.approx(known / np.outer(scale, scale), abs=0.1)
    assert (np.abs(truth - fit.coefficients) < 6 * scale).all()


def test_pops_holds_the_errors_of_a_model_that_is_wrong_where_others_do_not():
    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 1, (3000, 1))
    rows = np.hstack([x**k for k in range(3)])
    targets = np.sin(4 * x[:, 0])  # no noise at all: the error is the model's
    fit, group = WhitenedFit.of(rows, targets, np.ones(3000)), np.arange(3000)
    inside = {}
    for method in METHODS:
        members = rows @ committee(fit, group, 200, np.random.default_rng(3), method=method).T
        inside[method] = np.mean((members.min(axis=1) <= targets) & (targets <= members.max(axis=1)))
    assert inside["pops"] > 0.8
    assert max(inside["bootstrap"], inside["posterior"]) < 0.4


def test_the_order_of_rows_does_not_matter_and_a_seed_decides(data):
    rows, targets, weights, group, _ = data
    first, second = (
        committee(WhitenedFit.of(rows, targets, weights), group, 4, np.random.default_rng(7)) for _ in range(2)
    )
    assert np.array_equal(first, second)
    order = np.random.default_rng(8).permutation(len(rows))
    shuffled = WhitenedFit.of(rows[order], targets[order], weights[order])
    assert committee(shuffled, group[order], 4, np.random.default_rng(7)) == pytest.approx(first, rel=1e-7)


def test_what_is_no_committee(data):
    rows, targets, weights, group, _ = data
    fit, rng = WhitenedFit.of(rows, targets, weights), np.random.default_rng(0)
    with pytest.raises(InputError, match="two members at least; got 1"):
        committee(fit, group, 1, rng)
    with pytest.raises(InputError, match="'bagging' is not one of bootstrap, subset, posterior, pops"):
        committee(fit, group, 4, rng, method="bagging")
    with pytest.raises(InputError, match="two groups at least; there is 1"):
        committee(fit, 0 * group, 4, rng)
    with pytest.raises(InputError, match="between 0 and 1; got 1.0"):
        committee(fit, group, 4, rng, method="subset", fraction=1.0)
    with pytest.raises(InputError, match="6 rows do not determine 8 coefficients"):
        WhitenedFit.of(rows[:6], targets[:6], weights[:6])
