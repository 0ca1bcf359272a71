"""Correlation of a model's residuals with the errors of cheap labels, which shows whether the model learns the errors.

Let r = y_l − Xβ_l be the residuals of a model of level l against the labels of this level, and e = y_l − y_ref the
errors of these labels. If the model ignores the errors, r = e + (misfit); if it learns them, r does not correlate with
e. The analysis follows Figures S4 to S7 of Baghishov et al., Digital Discovery (2025).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from paretofit.core import Array, RowKind
from paretofit.linear import FACTOR, get_row_weights
from paretofit.linear.reduction import iterate_blocks
from paretofit.sweep.fast_engine import FastEngine
from paretofit.sweep.grid import SweepGrid
from paretofit.sweep.plain_engine import EV_TO_MEV

KIND_NAMES = {RowKind.ENERGY: "energy", RowKind.FORCE: "force"}
MAX_NOISE_POINTS = 1500  # points in the figures for each level, pair of weights and kind of row
MIN_ROWS = 3  # fewer rows have no meaningful correlation
NOISE_COLUMNS = [
    "twojmax", "weight_ratio", "level", "kind", "n", "configurations",
    "correlation", "slope", "label_error", "residual",
]  # fmt: skip
POINT_COLUMNS = ["weight_ratio", "level", "kind", "error", "residual"]


def correlate_label_noise(
    engine: FastEngine, grid: SweepGrid, weights: Sequence[tuple[float, float]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Correlate the residuals of test rows with their label errors, at the largest 2Jmax that the data determine.

    Parameters
    ----------
    engine : FastEngine
    grid : SweepGrid
    weights : sequence of (float, float)
        Pairs w_E, w_F.

    Returns
    -------
    table : DataFrame
        A row for each pair of weights, level below the reference and kind of row: the number of test rows (``n``) and
        of their ``configurations``, Pearson's ``correlation`` of r with e, the ``slope`` of r on e (1: the error is
        ignored, 0: it is learned), and the RMS of e and r about their means (``label_error``, ``residual``; meV/atom,
        meV/Å). Weights at which no model is determined have no rows.
    points : DataFrame
        ``weight_ratio``, ``level``, ``kind``, ``error`` and ``residual`` of at most `MAX_NOISE_POINTS` evenly spread
        test rows for each row of `table`.
    """
    rows, points = [], [pd.DataFrame(columns=POINT_COLUMNS)]
    with threadpool_limits(1):
        fits = {pair: fit for pair in weights if (fit := _fit_largest_model(engine, grid, pair)) is not None}
        residuals, labels, kind, configuration = _compute_test_residuals(engine, [beta for _, beta in fits.values()])
    for ((w_energy, w_force), (twojmax, _)), residual in zip(fits.items(), residuals, strict=True):
        for k, level in enumerate(list(grid.levels)[:-1]):
            for row_kind, name in KIND_NAMES.items():
                is_kind = kind == row_kind
                e, r = EV_TO_MEV * (labels[is_kind, k] - labels[is_kind, -1]), EV_TO_MEV * residual[is_kind, k]
                if len(e) >= MIN_ROWS:
                    factors = {"weight_ratio": w_energy / w_force, "level": level, "kind": name}
                    counts = {"n": len(e), "configurations": len(np.unique(configuration[is_kind]))}
                    rows.append({"twojmax": twojmax, **factors, **counts, **_correlate(e, r)})
                    indices = np.unique(np.linspace(0, len(e) - 1, min(len(e), MAX_NOISE_POINTS)).astype(int))
                    points.append(pd.DataFrame({**factors, "error": e[indices], "residual": r[indices]}))
    return pd.DataFrame(rows, columns=NOISE_COLUMNS), pd.concat(points[1:] or points, ignore_index=True)


def compute_configuration_residuals(engine: FastEngine, grid: SweepGrid, pair: tuple[float, float]) -> pd.DataFrame:
    """Compute the residuals of test configurations at the reference level, at the largest 2Jmax that is determined.

    Parameters
    ----------
    engine : FastEngine
    grid : SweepGrid
    pair : (float, float)
        w_E, w_F.

    Returns
    -------
    DataFrame
        ``configuration`` (position in the design), ``energy`` and ``force``: root mean squares of label minus
        prediction, meV/atom and meV/Å. Empty if the training set determines no model.
    """
    fit = _fit_largest_model(engine, grid, pair)
    if fit is None:
        return pd.DataFrame(columns=["configuration", *KIND_NAMES.values()])
    with threadpool_limits(1):
        (residual,), _, kind, configuration = _compute_test_residuals(engine, [fit[1]])
    rows = pd.DataFrame({"configuration": configuration, "kind": kind, "square": (EV_TO_MEV * residual[:, -1]) ** 2})
    errors: pd.DataFrame = rows.pivot_table("square", "configuration", "kind", aggfunc="mean") ** 0.5
    names = {int(row_kind): name for row_kind, name in KIND_NAMES.items()}
    return errors.rename(columns=names).reindex(columns=list(names.values())).reset_index()


def _fit_largest_model(engine: FastEngine, grid: SweepGrid, weights: tuple[float, float]) -> tuple[int, Array] | None:
    """Fit the whole training set at the largest 2Jmax that it determines.

    Return this 2Jmax and the coefficients of the retained raw columns, ``(q, n_levels)``; None if the training set
    determines no model.
    """
    reduction = engine.reduction
    factor = reduction.train.apply_weights(get_row_weights(np.arange(3), *weights, weights[1]))
    for twojmax in sorted(grid.twojmax, reverse=True):
        index = engine.get_size_index(twojmax)
        fit = factor.fit(index)
        if fit.solver == FACTOR:
            q = int(reduction.whitened_sizes[index])
            return twojmax, reduction.whitening.to_raw_coefficients((fit.delta + reduction.baseline)[:q])
    return None


def _compute_test_residuals(
    engine: FastEngine, coefficients: Sequence[Array]
) -> tuple[list[Array], Array, Array, Array]:
    """Compute the residuals (label minus prediction) of the test rows, ``(n, n_levels)`` for each fit.

    Return also the labels ``(n, n_levels)``, kinds and configurations of the rows; without fits, all arrays are empty.

    One pass over the rows serves all fits. Rows are multiplied by raw coefficients, which are accurate enough for
    correlations and need no whitening.
    """
    select_columns = engine.reduction.whitening.select_columns
    residuals_by_fit: list[list[Array]] = [[] for _ in coefficients]
    labels, kinds, configurations = [], [], []
    for block in iterate_blocks(engine.stream.list_parts()) if coefficients else ():
        is_test = ~block.is_train
        X, Y = select_columns(block.X[is_test]), block.Y[is_test]
        for residual_blocks, beta in zip(residuals_by_fit, coefficients, strict=True):
            residual_blocks.append(Y - X[:, : len(beta)] @ beta)
        labels.append(Y)
        kinds.append(block.kind[is_test])
        configurations.append(block.configuration[is_test])
    if not coefficients:
        return [], np.empty((0, 1)), np.empty(0, dtype=np.int8), np.empty(0, dtype=np.int64)
    joined_residuals = [np.concatenate(residual_blocks) for residual_blocks in residuals_by_fit]
    return joined_residuals, np.concatenate(labels), np.concatenate(kinds), np.concatenate(configurations)


def _correlate(error: Array, residual: Array) -> dict[str, float]:
    """Compute the last four of `NOISE_COLUMNS`; the correlation and the slope are NaN if an array is constant."""
    e, r = error - error.mean(), residual - residual.mean()
    ee, rr, er = float(e @ e), float(r @ r), float(e @ r)
    is_determined = ee > 0 and rr > 0
    return {
        "correlation": er / np.sqrt(ee * rr) if is_determined else np.nan,
        "slope": er / ee if is_determined else np.nan,
        "label_error": np.sqrt(ee / len(e)),
        "residual": np.sqrt(rr / len(e)),
    }
