"""Committees against explicit refits, a known posterior, and the promise of POPS."""

import numpy as np
import pytest

from paretofit import InputError, fit_wls
from paretofit.uncertainty import COMMITTEE_METHODS, CommitteeFit, build_part
from paretofit.uncertainty.extrapolation import TrainingLeverage


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    n, p = 400, 8
    rows = rng.normal(size=(n, p)) * np.logspace(0, -5, p)
    truth = rng.normal(size=p) / np.logspace(0, -5, p)
    targets = rows @ truth + 0.1 * rng.normal(size=n)
    return rows, targets, rng.uniform(0.5, 5, n), np.arange(n) // 8, truth


def fit_committee(rows, targets, weights, group, seed=0):
    """The committee fit of rows in memory."""
    blocks, kinds = build_part(rows, targets, weights, group)
    return CommitteeFit.from_parts(blocks, np.arange(group.max() + 1), kinds, np.random.default_rng(seed))


def test_the_fit_itself_is_the_plain_one(data):
    rows, targets, weights, group, _ = data
    fit = fit_committee(rows, targets, weights, group)
    plain = fit_wls(rows, targets, ["force"] * len(rows), weights=weights)
    assert fit.coefficients == pytest.approx(plain.coefficients, rel=1e-9)
    residual = (targets - rows @ plain.coefficients) * weights
    assert fit.variance == pytest.approx(residual @ residual / 392, rel=1e-9)


@pytest.mark.parametrize("method", ["bootstrap", "subset"])
def test_members_are_refits_of_the_drawn_rows(data, method):
    """With as many blocks as groups, a member is a plain fit of what was drawn: here drawn again by the same seed."""
    rows, targets, weights, group, _ = data
    fit = fit_committee(rows, targets, weights, group, seed=4)
    members = fit.draw_members(3, np.random.default_rng(5), method=method)
    n_groups = group.max() + 1
    block = np.random.default_rng(4).permutation(np.arange(n_groups))[group]
    rng = np.random.default_rng(5)
    if method == "bootstrap":
        draws = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=3)
    else:
        draws = [np.isin(np.arange(n_groups), rng.permutation(n_groups)[: round(0.7 * n_groups)]) for _ in range(3)]
    for member, counts in zip(members, np.array(draws, dtype=int), strict=True):
        each = np.repeat(np.arange(len(rows)), counts[block])
        plain = fit_wls(rows[each], targets[each], ["force"] * len(each), weights=weights[each])
        assert member == pytest.approx(plain.coefficients, rel=1e-7)


@pytest.mark.parametrize("method", COMMITTEE_METHODS)
def test_a_fit_without_blocks_is_a_fit_of_the_other_rows(data, method):
    """Coefficients, noise and members do not depend on the rows that are left out, whatever their targets are."""
    rows, targets, weights, group, _ = data
    fits = []
    for disturbance in (0.0, 100.0):
        fit = fit_committee(rows, targets, weights, group, seed=4)
        left_out = np.isin(fit.block_numbers[group], [3, 10, 11])
        fit = fit_committee(rows, targets + disturbance * left_out, weights, group, seed=4)
        fits.append(fit.leave_out(np.array([3, 10, 11])))
    plain = fit_wls(rows[~left_out], targets[~left_out], ["force"] * int((~left_out).sum()), weights=weights[~left_out])
    residual = (targets - rows @ plain.coefficients)[~left_out] * weights[~left_out]
    for fit in fits:
        assert fit.coefficients == pytest.approx(plain.coefficients, rel=1e-7)
        assert fit.variance == pytest.approx(residual @ residual / (len(residual) - 8), rel=1e-6)
    members, disturbed_members = (fit.draw_members(3, np.random.default_rng(5), method=method) for fit in fits)
    assert disturbed_members == pytest.approx(members, rel=1e-5)
    assert np.ptp(members, axis=0).min() > 0


def test_rows_that_determine_a_coefficient_cannot_be_left_out(data):
    rows, targets, weights, group, _ = data
    rows = rows.copy()
    rows[group > 0, 7] = 0.0  # only the first group determines the last coefficient
    fit = fit_committee(rows, targets, weights, group)
    with pytest.raises(InputError, match="without 1 of 50 blocks, the rows do not determine the fit"):
        fit.leave_out(fit.block_numbers[:1])


def test_groups_are_drawn_together(data):
    """Groups of configurations: a member is fitted to all rows of a group or to none."""
    rows, targets, weights, configuration, _ = data
    group_of_configuration = np.arange(configuration.max() + 1) // 5
    blocks, kinds = build_part(rows, targets, weights, configuration)
    fit = CommitteeFit.from_parts(blocks, group_of_configuration, kinds, np.random.default_rng(0))
    together = fit_committee(rows, targets, weights, group_of_configuration[configuration], seed=0)
    for method in ("bootstrap", "subset"):
        first, second = (each.draw_members(3, np.random.default_rng(1), method=method) for each in (fit, together))
        assert first == pytest.approx(second, rel=1e-9)


def test_the_posterior_is_the_known_one(data):
    rows, targets, weights, group, truth = data
    fit = fit_committee(rows, targets, weights, group)
    draws = fit.draw_members(4000, np.random.default_rng(1), method="posterior")
    W = rows * weights[:, None]
    residual = (targets - rows @ fit.coefficients) * weights
    known = np.linalg.inv(W.T @ W) * (residual @ residual) / (len(rows) - 8)
    scale = np.sqrt(np.diag(known))
    assert (draws.mean(axis=0) - fit.coefficients) / scale == pytest.approx(np.zeros(8), abs=0.08)
    assert np.cov(draws.T) / np.outer(scale, scale) == pytest.approx(known / np.outer(scale, scale), abs=0.1)
    assert (np.abs(truth - fit.coefficients) < 6 * scale).all()


def wrong_model():
    """A parabola for a sine, without any noise: the error is the model's."""
    x = np.random.default_rng(2).uniform(-1, 1, (3000, 1))
    rows = np.hstack([x**k for k in range(3)])
    return rows, np.sin(4 * x[:, 0]), fit_committee(rows, np.sin(4 * x[:, 0]), np.ones(3000), np.arange(3000))


def test_pops_holds_the_errors_of_a_model_that_is_wrong_where_others_do_not():
    rows, targets, fit = wrong_model()
    inside = {}
    for method in COMMITTEE_METHODS:
        members = rows @ fit.draw_members(200, np.random.default_rng(3), method=method).T
        inside[method] = np.mean((members.min(axis=1) <= targets) & (targets <= members.max(axis=1)))
    assert inside["pops"] > 0.8
    assert max(inside["bootstrap"], inside["posterior"]) < 0.4


def test_the_hypercube_is_that_of_the_authors_package():
    """Their rows are ours in coordinates of unit normal matrix; their ridge is negligible there."""
    package = pytest.importorskip("popsregression", reason="the extra 'test' has popsregression")
    rows, targets, fit = wrong_model()
    U = rows @ np.linalg.inv(fit.factor.R @ fit.whitening.R)
    theirs = package.POPSRegression(max_iter=1, lambda_init=1e-12, alpha_init=1.0, leverage_percentile=0.0).fit(
        U, targets
    )
    axes, low, high = fit.bound_hypercube()
    overlap = axes.T @ theirs._hypercube_support
    assert np.abs(overlap) == pytest.approx(np.eye(3), abs=5e-3)
    signs = np.sign(np.diag(overlap))
    bounds = np.sort(np.array(theirs._hypercube_bounds) * signs, axis=0)
    assert bounds == pytest.approx(np.array([low, high]), rel=1e-2)


def test_leverage_comes_from_the_same_factor(data):
    rows, targets, weights, group, _ = data
    fit = fit_committee(rows, targets, weights, group)
    direct = TrainingLeverage.from_rows(rows, weights)
    assert fit.leverage(rows, weights) == pytest.approx(direct(rows, weights), rel=1e-8)


def test_rows_may_come_in_any_order_and_blocks_and_a_seed_decides(data):
    rows, targets, weights, group, _ = data
    first, second = (
        fit_committee(rows, targets, weights, group).draw_members(4, np.random.default_rng(7)) for _ in range(2)
    )
    assert np.array_equal(first, second)
    order = np.random.default_rng(8).permutation(len(rows))
    shuffled = fit_committee(rows[order], targets[order], weights[order], group[order])
    assert shuffled.draw_members(4, np.random.default_rng(7)) == pytest.approx(first, rel=1e-7)
    blocks, kinds = build_part(rows, targets, weights, group)

    def pieces():
        whole = next(iter(blocks()))
        for start in range(0, len(rows), 64):
            yield type(whole)(*(array[start : start + 64] for array in whole))

    for method in COMMITTEE_METHODS:
        whole = fit_committee(rows, targets, weights, group).draw_members(3, np.random.default_rng(9), method=method)
        fits = [
            CommitteeFit.from_parts(pieces, np.arange(50), kinds, np.random.default_rng(0), threads=threads)
            for threads in (1, 3)
        ]
        serial, threaded = (fit.draw_members(3, np.random.default_rng(9), method=method) for fit in fits)
        assert np.array_equal(serial, threaded)
        if method != "pops":  # principal axes have no sign
            assert serial == pytest.approx(whole, rel=1e-7)


def test_a_column_that_depends_on_others_stays_at_zero(data):
    rows, targets, weights, group, _ = data
    more = np.hstack([rows, rows[:, :1] + rows[:, 1:2], np.zeros((len(rows), 1))])
    fit = fit_committee(more, targets, weights, group)
    assert fit.draw_members(3, np.random.default_rng(0))[:, 8:] == pytest.approx(0.0)
    assert fit.coefficients[:8] == pytest.approx(fit_committee(rows, targets, weights, group).coefficients, rel=1e-8)


def test_invalid_input_is_refused(data):
    rows, targets, weights, group, _ = data
    fit, rng = fit_committee(rows, targets, weights, group), np.random.default_rng(0)
    with pytest.raises(InputError, match="at least two members; got 1"):
        fit.draw_members(1, rng)
    with pytest.raises(InputError, match="must be one of bootstrap, subset, posterior, pops; got 'bagging'"):
        fit.draw_members(4, rng, method="bagging")
    with pytest.raises(InputError, match="at least two groups of configurations; got 1"):
        fit_committee(rows, targets, weights, 0 * group)
    with pytest.raises(InputError, match="between 0 and 1; got 1.0"):
        fit.draw_members(4, rng, method="subset", fraction=1.0)
    with pytest.raises(InputError, match="6 rows do not determine 8 coefficients"):
        fit_committee(rows[:6], targets[:6], weights[:6], np.arange(6))
