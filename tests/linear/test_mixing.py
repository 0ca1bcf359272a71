"""Mixtures of levels: fits from factors against a plain fit of the stacked rows with offset columns."""

import numpy as np
import pytest

from paretofit.core import RowKind
from paretofit.linear import Reduction, get_row_weights
from paretofit.linear.reduction import LevelRows, MixedFactors, RowBlock

N_CONFIGURATIONS, N_FORCES, SIZES = 60, 12, [6, 14, 20]


@pytest.fixture(scope="module")
def rows():
    """Rows of 60 configurations of two elements with labels of three levels, the columns badly conditioned."""
    rng = np.random.default_rng(3)
    n = N_CONFIGURATIONS * (1 + N_FORCES)
    kind = np.tile([RowKind.ENERGY] + [RowKind.FORCE] * N_FORCES, N_CONFIGURATIONS)
    configuration = np.repeat(np.arange(N_CONFIGURATIONS), 1 + N_FORCES)
    X = rng.normal(size=(n, SIZES[-1])) @ np.triu(rng.normal(size=(SIZES[-1],) * 2)) * np.logspace(0, 4, SIZES[-1])
    fraction = rng.uniform(0.2, 0.8, N_CONFIGURATIONS)[configuration]
    is_energy = kind == RowKind.ENERGY
    X[:, 0], X[:, 1] = np.where(is_energy, fraction, 0), np.where(is_energy, 1 - fraction, 0)
    beta = rng.normal(size=SIZES[-1]) / np.linalg.norm(X, axis=0)
    y = X @ beta + 0.1 * rng.normal(size=n)
    noise = rng.normal(size=(n, 2)) * [0.05, 0.02]
    shifts = np.where(is_energy, 5.0 * fraction - 2.0, 0)
    Y = np.column_stack([y + noise[:, 0] + shifts, y + noise[:, 1] - shifts, y])
    return X, Y, kind, configuration


def fit_stacked(rows, levels, weights, p):
    """Fit stacked rows of ``(configurations, level, energy weight)`` by least squares, the last without offsets."""
    X, Y, kind, configuration = rows
    n_offsets, blocks, targets = 2 * (len(levels) - 1), [], []
    for position, (configurations, level, energy_weight) in enumerate(levels):
        is_used = np.isin(configuration, configurations)
        w = weights[kind[is_used]] * np.where(kind[is_used] == RowKind.ENERGY, energy_weight, 1)
        offsets = np.zeros((is_used.sum(), n_offsets))
        if position < len(levels) - 1:
            offsets[:, 2 * position : 2 * position + 2] = X[is_used, :2]
        blocks.append(np.hstack([offsets, X[is_used, :p]]) * w[:, None])
        targets.append(Y[is_used, level] * w)
    A = np.vstack(blocks)
    scale = np.linalg.norm(A, axis=0)
    scale[scale == 0] = 1
    return (np.linalg.lstsq(A / scale, np.concatenate(targets), rcond=1e-14)[0] / scale)[n_offsets:]


@pytest.mark.parametrize("energy_weight", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("n_top", [2, 15])
@pytest.mark.parametrize("has_middle", [False, True])
def test_mixed_fits_equal_a_fit_of_the_stacked_rows(rows, energy_weight, n_top, has_middle):
    X, Y, kind, configuration = rows
    reduction = Reduction.from_parts(
        lambda: [RowBlock(X, Y, kind, configuration, configuration >= 0)], SIZES, energy_weight=4.0
    )
    levels = [(np.arange(40), 0, energy_weight), (np.arange(5, 30), 1, 1.0), (np.arange(20, 20 + n_top), 2, 1.0)]
    levels = levels if has_middle else [levels[0], levels[2]]
    whitened = reduction.whiten(X, Y)
    mixed_rows = []
    for configurations, level, weight in levels:
        factors, is_used = reduction.create_factors(), np.isin(configuration, configurations)
        factors.grow(whitened[is_used], kind[is_used])
        mixed_rows.append(LevelRows(factors, level, weight))
    mixed = MixedFactors.from_levels(mixed_rows, 2)
    for ratio in (1.0, 12.25, 300.0):
        weights = get_row_weights(np.arange(3), ratio, 1.0, 1.0)
        for p, fit in zip(SIZES, mixed.fit(weights, range(len(SIZES))), strict=True):
            beta = reduction.whitening.to_raw_coefficients(fit.delta + reduction.baseline[:, [2]])[:p, 0]
            expected = fit_stacked(rows, levels, weights, p)
            assert fit.rank == p
            np.testing.assert_allclose(X[:, :p] @ beta, X[:, :p] @ expected, rtol=1e-8, atol=1e-8 * np.abs(Y).max())


def test_exact_free_atoms_need_no_offsets(rows):
    X, Y, kind, configuration = rows
    reduction = Reduction.from_parts(lambda: [RowBlock(X, Y, kind, configuration, configuration >= 0)], SIZES)
    factors = reduction.create_factors()
    factors.grow(reduction.whiten(X, Y), kind)
    assert MixedFactors.from_levels([LevelRows(factors, 0), LevelRows(factors, 2)], 0).n_offsets == 0
