"""The linear room against scipy, extended precision, planted truths and explicit hat matrices."""

import mpmath
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from paretofit import (
    DesignMatrix,
    InputError,
    SnapBasis,
    compute_design,
    fit_wls,
    leverage_scores,
    sample_configurations,
)
from paretofit.linear import get_row_weights

KINDS = ["energy", "force", "force", "force"]


@pytest.fixture(scope="module")
def real(beryllium, tmp_path_factory):
    """Rows of a part of the shipped data at 2Jmax up to 6, with labels of two levels."""
    subset = beryllium.select(np.arange(0, 197, 2))
    path = tmp_path_factory.mktemp("real") / "design.h5"
    return compute_design(subset, SnapBasis(elements=["Be"], twojmax=6), path).with_labels(subset, ["2", "5"])


def random_problem(rng, n, p, targets=1):
    kind = [KINDS[k % 4] for k in range(n)]
    return rng.normal(size=(n, p)), rng.normal(size=(n, targets)), kind


@given(st.integers(1, 40), st.integers(1, 25), st.integers(0, 99), st.sampled_from([0.01, 1.0, 150.0]))
@settings(max_examples=60)
def test_agrees_with_scipy_lstsq_in_scaled_columns(n, p, seed, weight):
    X, Y, kind = random_problem(np.random.default_rng(seed), n, p, 2)
    fit = fit_wls(X, Y, kind, energy_weight=weight, force_weight=2.0)
    w = np.where(np.array(kind) == "energy", weight, 2.0)
    A = X * w[:, None]
    scale = np.linalg.norm(X, axis=0)
    expected, _, rank, _ = scipy.linalg.lstsq(A / scale, Y * w[:, None])
    assert fit.rank == rank
    assert fit.coefficients == pytest.approx(expected / scale[:, None], rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("twojmax", [2, 4, 6])
@pytest.mark.parametrize("weight", [1.0, 12.25, 150.0])
def test_agrees_with_scipy_on_real_rows(real, twojmax, weight):
    X, y = real.read_all_rows()[:, : real.count_columns_up_to(twojmax)], real.targets["5"]
    fit = fit_wls(X, y, real.kind, energy_weight=weight)
    w = get_row_weights(real.kind, weight, 1.0)
    A = X * w[:, None]
    scale = np.linalg.norm(A, axis=0)
    expected = scipy.linalg.lstsq(A / scale, y * w, lapack_driver="gelsd")[0] / scale
    residual, oracle = X @ fit.coefficients - y, X @ expected - y
    assert np.sqrt(np.mean(residual**2)) == pytest.approx(np.sqrt(np.mean(oracle**2)), rel=1e-9)
    assert residual == pytest.approx(oracle, abs=1e-9)
    assert fit.rmse["energy"] == pytest.approx(np.sqrt(np.mean(residual[real.kind == 0] ** 2)))
    assert fit.mae["force"] == pytest.approx(np.abs(residual[real.kind == 1]).mean())


def test_agrees_with_extended_precision_where_normal_equations_fail():
    """A Hilbert-like matrix, column-scaled condition near 1e9, solved with fifty digits."""
    n, p = 12, 7
    X = np.array([[1.0 / (i + j + 1) for j in range(p)] for i in range(n)])
    y = np.cos(np.arange(n))
    fit = fit_wls(X, y, ["energy"] * n)
    with mpmath.workdps(50):
        A = mpmath.matrix(X.tolist())
        exact = mpmath.lu_solve(A.T * A, A.T * mpmath.matrix(y.tolist()))
        prediction = np.array([float(v) for v in A * exact])
    assert fit.rank == p
    assert fit.condition > 1e7
    assert X @ fit.coefficients == pytest.approx(prediction, abs=1e-15 * fit.condition)  # rounding, whatever the BLAS


@given(st.integers(0, 999), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
@settings(max_examples=30)
def test_planted_coefficients_come_back_whatever_the_weights(seed, w_energy, w_force):
    rng = np.random.default_rng(seed)
    X, _, kind = random_problem(rng, 40, 8)
    X *= 10.0 ** rng.uniform(-6, 6, size=8)
    beta = rng.normal(size=8)
    fit = fit_wls(X, X @ beta, kind, energy_weight=w_energy, force_weight=w_force)
    rounding = 1e-12 * np.linalg.norm(X @ beta) * max(w_energy, w_force) / min(w_energy, w_force)
    assert np.abs((fit.coefficients - beta) * np.linalg.norm(X, axis=0)).max() < rounding
    assert fit.rank == 8


def test_only_ratios_of_weights_matter(real):
    first = fit_wls(real.read_all_rows()[:, :120], real.targets["5"], real.kind, energy_weight=30, force_weight=2)
    second = fit_wls(real.read_all_rows()[:, :120], real.targets["5"], real.kind, energy_weight=15, force_weight=1)
    assert first.rmse["force"] == pytest.approx(second.rmse["force"], rel=1e-10)


def test_rank_deficient_fits_are_of_minimum_norm_in_scaled_columns():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(30, 4))
    X = np.column_stack([X, X[:, 1], np.zeros(30), 2 * X[:, 0] - X[:, 3]])
    y = rng.normal(size=30)
    fit = fit_wls(X, y, ["force"] * 30)
    assert (fit.rank, fit.solver) == (4, "rank-revealing")
    assert fit.coefficients[5] == 0
    assert fit.coefficients[1] == pytest.approx(fit.coefficients[4])
    scale = np.where(np.linalg.norm(X, axis=0) > 0, np.linalg.norm(X, axis=0), 1)
    assert fit.coefficients * scale == pytest.approx(np.linalg.pinv(X / scale) @ y)


def test_fewer_rows_than_features_go_through_every_label(real):
    """Up to the net force, which no sum of pairwise opposite terms can have: 3 rows of each cell depend on others."""
    few = np.isin(real.configuration, [0, 1, 2])
    fit = fit_wls(real.read_all_rows()[few], real.targets["5"][few], real.kind[few])
    assert fit.rank == few.sum() - 3 * 3
    assert fit.rmse["energy"] < 1e-10
    assert fit.rmse["force"] < 1e-5


def test_several_targets_share_one_factorisation(real):
    X, Y = real.read_all_rows()[:, :120], np.column_stack(list(real.targets.values()))
    fit = fit_wls(X, Y, real.kind, energy_weight=5)
    for k, level in enumerate(real.targets):
        alone = fit_wls(X, real.targets[level], real.kind, energy_weight=5)
        assert fit.coefficients[:, k] == pytest.approx(alone.coefficients, rel=1e-9, abs=1e-12)
        assert fit.rmse["energy"][k] == pytest.approx(alone.rmse["energy"])


def test_stress_rows_take_part():
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    fit = fit_wls(X, y, ["stress"] * 20, stress_weight=3.0)
    assert fit.coefficients == pytest.approx(np.linalg.lstsq(X, y)[0])
    assert list(fit.rmse) == ["stress"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energy_weight": 0.0}, "energy weight must be a positive number; got 0"),
        ({"force_weight": -1.0}, "force weight must be a positive number; got -1"),
        ({"energy_weight": np.nan}, "energy weight must be"),
        ({"kind": ["energy"] * 3}, "each of the 4 rows"),
        ({"targets": [1.0, np.nan, 1.0, 1.0]}, "targets must be finite; row 1"),
        ({"rows": np.ones((0, 2))}, "shape"),
        ({"targets": [1.0]}, "one entry for each of the 4 rows"),
    ],
)
def test_wrong_input_to_a_fit(change, message):
    arguments = {"rows": np.ones((4, 2)), "targets": np.ones(4), "kind": KINDS} | change
    with pytest.raises(InputError, match=message):
        fit_wls(arguments.pop("rows"), arguments.pop("targets"), arguments.pop("kind"), **arguments)


@given(st.integers(2, 30), st.integers(1, 20), st.integers(0, 99))
@settings(max_examples=60)
def test_leverages_are_the_diagonal_of_the_hat_matrix(n, p, seed):
    rng = np.random.default_rng(seed)
    X, _, _ = random_problem(rng, n, p)
    kind = np.array(["energy" if k % 3 == 0 else "force" for k in range(n)])
    owner = np.arange(n) // 3
    scores = leverage_scores(X, kind, owner, energy_weight=7.0)
    A = X * np.where(kind == "energy", 7.0, 1.0)[:, None]
    H = A @ np.linalg.pinv(A)
    assert scores.rows == pytest.approx(np.diag(H), abs=1e-9)
    assert scores.rows.min() >= 0
    assert scores.rows.max() <= 1 + 1e-12
    assert scores.rows.sum() == pytest.approx(scores.rank)
    assert scores.rank == np.linalg.matrix_rank(A)
    assert scores.regular == pytest.approx(np.diag(H)[kind == "energy"], abs=1e-9)
    assert scores.block == pytest.approx([np.diag(H)[owner == k].sum() for k in range(owner.max() + 1)], abs=1e-9)


def test_leverage_of_deficient_rows_sums_to_the_rank():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(9, 2)) @ rng.normal(size=(2, 5))
    for rows in (X, X[:4]):
        scores = leverage_scores(rows, ["energy"] * len(rows), np.arange(len(rows)))
        assert scores.rank == 2
        assert scores.rows.sum() == pytest.approx(2)
        assert scores.rows == pytest.approx(np.diag(rows @ np.linalg.pinv(rows)), abs=1e-9)


def test_leverage_on_real_rows_at_every_2jmax(real):
    for twojmax in (2, 4, 6):
        p = real.count_columns_up_to(twojmax)
        scores = leverage_scores(real.read_all_rows(), real.kind, real.configuration, energy_weight=150, n_columns=p)
        assert scores.rank == p
        assert scores.block.sum() == pytest.approx(p)
        assert scores.regular.max() <= 1
        assert (scores.block >= scores.regular - 1e-12).all()


def test_wrong_input_to_leverage():
    with pytest.raises(InputError, match="configuration 1 has no energy row"):
        leverage_scores(np.ones((3, 1)), ["energy", "force", "force"], np.array([0, 0, 1]))
    with pytest.raises(InputError, match="between 1 and 1; got 2"):
        leverage_scores(np.ones((1, 1)), ["energy"], np.array([0]), n_columns=2)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.integers(0, 99))
def test_draws_are_nested_and_without_replacement(scores, seed):
    whole = sample_configurations(np.array(scores), len(scores), rng=np.random.default_rng(seed))
    assert sorted(whole.tolist()) == list(range(len(scores)))
    for n in range(1, len(scores) + 1):
        part = sample_configurations(np.array(scores), n, rng=np.random.default_rng(seed))
        assert part.tolist() == whole[:n].tolist()
    zeros = [k for k, score in enumerate(scores) if score == 0]
    assert set(whole[len(scores) - len(zeros) :].tolist()) == set(zeros)


def test_draws_follow_the_scores():
    """First draws and pairs have the probabilities of successive sampling, to 4 standard errors."""
    scores = np.array([1.0, 2.0, 5.0])
    rng = np.random.default_rng(0)
    draws = np.array([sample_configurations(scores, 2, rng=rng) for _ in range(20000)])
    p = scores / scores.sum()
    for k in range(3):
        assert (draws[:, 0] == k).mean() == pytest.approx(p[k], abs=4 * np.sqrt(p[k] * (1 - p[k]) / 20000))
    pair = p[2] * p[1] / (1 - p[2])
    assert ((draws == [2, 1]).all(axis=1)).mean() == pytest.approx(pair, abs=4 * np.sqrt(pair * (1 - pair) / 20000))


def test_top_n_is_deterministic():
    assert sample_configurations(np.array([0.3, 0.9, 0.9, 0.1]), 3).tolist() == [1, 2, 0]


def test_wrong_input_to_sampling():
    with pytest.raises(InputError, match="at most the number of configurations, 2; got 3"):
        sample_configurations(np.ones(2), 3)
    with pytest.raises(InputError, match="non-negative"):
        sample_configurations(np.array([1.0, -1.0]), 1)


def test_any_linear_model_without_lammps():
    """Rows from elsewhere go through fit, leverage and sampling."""
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(40, 5))
    kind = [KINDS[k % 4] for k in range(40)]
    design = DesignMatrix.from_arrays(rows, kind, np.arange(40) // 4, targets={"x": rows @ np.arange(5.0)})
    fit = fit_wls(design.read_all_rows(), design.targets["x"], design.kind)
    assert fit.coefficients == pytest.approx(np.arange(5.0), abs=1e-12)
    scores = leverage_scores(design.read_all_rows(), design.kind, design.configuration)
    assert len(sample_configurations(scores.block, 3, rng=rng)) == 3
