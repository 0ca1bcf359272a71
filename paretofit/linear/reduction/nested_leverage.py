"""Leverage of the training rows at every size of model from one pass over the rows (DESIGN §4.3)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.core import RowKind
from paretofit.linear.leverage import LeverageScores
from paretofit.linear.reduction.device import CPU, Device, solve_rows, to_numpy
from paretofit.linear.reduction.moments import NestedFactor
from paretofit.linear.reduction.reducer import MAX_CONDITION
from paretofit.linear.reduction.streaming import SERIAL_MAPPER, PartMapper, Parts, as_parts, map_blocks

if TYPE_CHECKING:
    from paretofit.core import Array
    from paretofit.linear.reduction.reducer import Reduction
    from paretofit.linear.reduction.row_block import RowBlock


def compute_reduced_leverage(
    reduction: Reduction,
    parts: Parts,
    weights: Array,
    n_configurations: int,
    *,
    mapper: PartMapper = SERIAL_MAPPER,
    device: Device = CPU,
) -> list[LeverageScores | None]:
    """Leverage of the training rows at every size, from one more pass, without ever holding U.

    Parameters
    ----------
    reduction : Reduction
    parts : callable or sequence of callable
        What was reduced.
    weights : (3,) float64
        w_E, w_F, w_S of the scores.
    n_configurations : int
    mapper, device
        As in `Reduction.of`.

    Returns
    -------
    list of LeverageScores or None
        For each size; rows are in the order of the training rows. None where the moments are singular or
        too ill-conditioned.
    """
    with threadpool_limits(1):
        factor = NestedFactor.from_moments(reduction.train_moments.form_normal_equations(weights / weights.max())[0])
        inner = reduction.whitened_sizes
        usable = [factor.condition(int(p)) < MAX_CONDITION for p in inner]
        P = int(max((p for p, good in zip(inner, usable, strict=True) if good), default=0))
        if P == 0:
            return [None] * len(inner)
        # U L⁻ᵀ = X (Rᵀ-factor times R₀)⁻¹: one triangular solve for each block.
        combined = np.asfortranarray(factor.R[:P, :P] @ reduction.whitening.R[:P, :P])
        kept = reduction.whitening.retained_columns[:P]
    ends = np.minimum(inner, P) - 1
    squares = partial(_row_leverage, combined, kept, weights / weights.max(), ends, device)
    values, kind, owner = (
        np.concatenate(arrays) for arrays in zip(*map_blocks(as_parts(parts), squares, mapper), strict=True)
    )
    energy = kind == RowKind.ENERGY
    return [
        LeverageScores(
            rows=np.minimum(values[:, k], 1.0),
            regular=np.bincount(owner[energy], values[energy, k], n_configurations),
            block=np.bincount(owner, values[:, k], n_configurations),
            rank=int(inner[k]),
        )
        if good
        else None
        for k, good in enumerate(usable)
    ]


def _row_leverage(
    R: Array, kept: Array, weights: Array, ends: Array, device: Device, block: RowBlock
) -> tuple[Array, Array, Array]:
    """Leverage of the training rows of a block at every size, their kinds and configurations."""
    kind = block.kind[block.is_train]
    X = block.X[np.ix_(block.is_train, kept)] * weights[kind][:, None]
    U = solve_rows(device.put(R), device.put(X))
    return to_numpy((U * U).cumsum(1)[:, ends]), kind, block.configuration[block.is_train]
