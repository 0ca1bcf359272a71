"""Leverage of the training rows at every model size from one pass over the rows.

See `paretofit.linear.reduction` for the equations.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.core import Array
from paretofit.linear.factor import FACTOR
from paretofit.linear.leverage import LeverageScores
from paretofit.linear.reduction.linalg import CPU, Device, solve_rows, to_numpy
from paretofit.linear.reduction.reducer import Reduction
from paretofit.linear.reduction.streaming import SERIAL_MAPPER, PartMapper, Parts, RowBlock, map_blocks, normalise_parts


def compute_reduced_leverage(
    reduction: Reduction,
    parts: Parts,
    weights: Array,
    n_configurations: int,
    *,
    mapper: PartMapper = SERIAL_MAPPER,
    device: Device = CPU,
) -> list[LeverageScores | None]:
    """Compute the leverage of the training rows at every model size in one more pass over the rows.

    Parameters
    ----------
    reduction : Reduction
    parts : callable or sequence of callable
        The rows that were reduced.
    weights : (3,) float64
        w_E, w_F, w_S of the scores.
    n_configurations : int
    mapper, device
        As in `Reduction.from_parts`.

    Returns
    -------
    list of LeverageScores or None
        Scores for each size, with the rows in the order of the training rows; None where the factor is singular or
        too ill-conditioned.
    """
    sizes, relative_weights = reduction.whitened_sizes, weights / weights.max()
    with threadpool_limits(1):
        factor = reduction.train.apply_weights(weights)
        fits = [factor.fit(index) for index in range(len(sizes))]
        is_usable = [fit.solver == FACTOR for fit in fits]
        P = int(max(sizes[is_usable], default=0))
        if P == 0:
            return [None] * len(sizes)
        # U R⁻¹ = X (R R₀)⁻¹, so that each block needs one triangular solve.
        combined_triangle = np.asfortranarray(factor.R[:P, :P] @ reduction.whitening.R[:P, :P])
    columns, last_columns = reduction.whitening.retained_columns[:P], np.minimum(sizes, P) - 1
    compute_rows = partial(_compute_row_leverage, combined_triangle, columns, relative_weights, last_columns, device)
    blocks = map_blocks(normalise_parts(parts), compute_rows, mapper)
    row_leverages, kind, configuration = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
    return [
        LeverageScores.from_row_leverages(row_leverages[:, k], kind, configuration, int(p), n_configurations)
        if is_size_usable
        else None
        for k, (p, is_size_usable) in enumerate(zip(sizes, is_usable, strict=True))
    ]


def _compute_row_leverage(
    R: Array, columns: Array, weights: Array, last_columns: Array, device: Device, block: RowBlock
) -> tuple[Array, Array, Array]:
    """Compute the leverage of a block's training rows at every size, ``(n, n_sizes)``.

    Return also their kinds and configurations. R is the triangle R R₀ of the weighted raw rows.
    """
    kind = block.kind[block.is_train]
    X = block.X[np.ix_(block.is_train, columns)] * weights[kind][:, None]
    U = solve_rows(device.put(R), device.put(X))
    return to_numpy((U * U).cumsum(1)[:, last_columns]), kind, block.configuration[block.is_train]
