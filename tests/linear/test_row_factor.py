"""The triangular factor of rows, folded into a triangle or added to the Gram matrix."""

import numpy as np
import pytest

from paretofit.core import RowKind
from paretofit.linear import Reduction
from paretofit.linear.reduction import RowBlock, RowFactor
from paretofit.linear.reduction.conditioning import estimate_gram_condition
from paretofit.linear.reduction.linalg import CPU

N_COLUMNS, N_TARGETS = 30, 3


@pytest.fixture
def rows():
    """Return well-conditioned rows [U | Y] with a column of zeros, and two equal targets."""
    U, Y = np.split(np.random.default_rng(0).normal(size=(400, N_COLUMNS + N_TARGETS)), [N_COLUMNS], axis=1)
    U[:, 0], Y[:, 1] = 0.0, Y[:, 0]
    return np.hstack([U, Y])


def build_factor(rows, *, is_gram, n_before=100):
    """Build a factor that may change to its Gram matrix after some rows."""
    factor = RowFactor(N_COLUMNS + N_TARGETS, CPU, N_TARGETS)
    factor.grow(rows[:n_before])
    if is_gram:
        factor.convert_to_gram()
    for chunk in np.array_split(rows[n_before:], 5):
        factor.grow(chunk)
    return factor


def test_a_gram_matrix_and_folded_rows_give_equivalent_triangles(rows):
    folded, gram = (build_factor(rows, is_gram=is_gram) for is_gram in (False, True))
    assert gram.is_gram
    assert gram.is_accurate()
    assert not folded.is_gram
    products = rows.T @ rows
    for factor in (folded, gram):
        triangle = np.triu(factor.get_triangle())
        assert triangle.T @ triangle == pytest.approx(products, rel=1e-12, abs=1e-11)
        assert factor.n == len(rows)


def test_residuals_from_a_gram_matrix_are_those_of_the_rows(rows):
    gram, rng = build_factor(rows, is_gram=True), np.random.default_rng(1)
    B, targets = rng.normal(size=(N_COLUMNS, 4)), np.array([0, 1, 2, 1])
    residuals = gram.compute_residuals(B, N_COLUMNS + targets)
    expected = rows[:, :N_COLUMNS] @ B - rows[:, N_COLUMNS + targets]
    assert (residuals**2).sum(axis=0) == pytest.approx((expected**2).sum(axis=0), rel=1e-12)


def test_the_factor_of_a_gram_matrix_can_be_merged(rows):
    merged = build_factor(rows[:200], is_gram=True)
    merged.merge(build_factor(rows[200:], is_gram=True))
    triangle = np.triu(merged.get_triangle())
    assert triangle.T @ triangle == pytest.approx(rows.T @ rows, rel=1e-12, abs=1e-11)
    assert merged.n == len(rows)


@pytest.mark.parametrize("reason", ["few rows", "nearly dependent columns", "targets that are reproduced"])
def test_rows_remain_folded_where_the_gram_matrix_is_not_accurate(rows, reason):
    if reason == "few rows":
        rows = rows[:20]
    elif reason == "nearly dependent columns":
        rows[:, 5] = rows[:, 4] + 1e-5 * rows[:, 5]
    else:
        rows[:, -1] = rows[:, 3] + 1e-3 * rows[:, -1]
    assert not build_factor(rows, is_gram=True).is_gram


def test_an_unchecked_gram_matrix_of_too_few_rows_is_not_used(rows):
    factor = RowFactor(N_COLUMNS + N_TARGETS, CPU, N_TARGETS)
    factor.convert_to_gram(is_checked=False)
    factor.grow(rows[:20])
    assert not factor.is_accurate()
    with pytest.raises(ArithmeticError, match="not positive definite"):
        factor.get_triangle()


@pytest.mark.parametrize("exponent", [0, 3, 7])
def test_the_condition_of_a_gram_matrix_is_that_of_scaled_columns(exponent):
    rng = np.random.default_rng(exponent)
    A = rng.normal(size=(80, 40))
    A[:, 1] = A[:, 0] + 10.0 ** (-exponent / 2) * A[:, 1]
    R = np.linalg.qr(A * 10.0 ** rng.uniform(-8, 8, size=40), mode="r")
    expected = np.linalg.cond(A / np.linalg.norm(A, axis=0)) ** 2
    assert estimate_gram_condition(R) == pytest.approx(expected, rel=0.05)
    R[3, 3] = 0.0
    assert estimate_gram_condition(R) == np.inf


def test_factors_of_some_rows_may_lack_a_kind(rows):
    """A subset without force rows has the fit of its energy rows."""
    kind = np.repeat([RowKind.ENERGY, RowKind.FORCE], 200)
    block = RowBlock(rows[:, :N_COLUMNS], rows[:, N_COLUMNS:], kind, np.arange(400), np.ones(400, dtype=bool))
    reduction = Reduction.from_parts(lambda: [block], [N_COLUMNS])
    factors = reduction.create_factors()
    factors.grow(reduction.whiten(block.X, block.Y)[:200], kind[:200])
    delta = factors.apply_weights(np.ones(3)).fit(0).delta
    U, Y = np.split(reduction.whiten(block.X, block.Y)[:200], [delta.shape[0]], axis=1)
    assert delta == pytest.approx(np.linalg.lstsq(U, Y)[0], rel=1e-9, abs=1e-11)
    assert set(factors.compute_rms(delta)) == {RowKind.ENERGY}
