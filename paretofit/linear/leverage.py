"""Leverage of rows and configurations: how much a fit listens to each of them.

Leverage needs the rows only, no labels, so configurations can be chosen before any of them is paid for.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from paretofit.core import Array, InputError, RowKind, parse_row_kinds
from paretofit.linear.factor import TriangularFactor, column_scales, rank_tolerance
from paretofit.linear.wls import row_weights


@dataclass(frozen=True)
class LeverageScores:
    """Leverage of each row, and of each configuration in two ways.

    Attributes
    ----------
    rows : (n,) float64
        Diagonal of the hat matrix, between 0 and 1; they sum to the rank.
    regular : (n_configurations,) float64
        Leverage of the configuration's energy row.
    block : (n_configurations,) float64
        Sum over all rows of the configuration.
    rank : int
    """

    rows: Array
    regular: Array
    block: Array
    rank: int


def leverage_scores(
    rows: Array,
    kind: Any,
    configuration: Array,
    *,
    energy_weight: float = 1.0,
    force_weight: float = 1.0,
    stress_weight: float = 1.0,
    columns: int | None = None,
) -> LeverageScores:
    """Leverage scores: the diagonal of H = X (XᵀX)⁻¹ Xᵀ = U Uᵀ for the weighted rows X = U Σ Vᵀ.

    Parameters
    ----------
    rows : (n, p) float64
    kind : (n,) str or int
        "energy", "force" or "stress" for each row, or `RowKind`.
    configuration : (n,) int
        Number of each row's configuration, 0 to n_configurations - 1.
    energy_weight, force_weight, stress_weight : float
        They multiply rows, as in `fit_wls`.
    columns : int, optional
        Use only the first `columns` columns (a smaller 2Jmax of a nested model).

    Returns
    -------
    LeverageScores

    Raises
    ------
    InputError
        If shapes disagree, a value is not finite, or a configuration has no energy row.

    Notes
    -----
    Equation 4 and section 2.3 of Baghishov et al., Digital Discovery (2025), doi 10.1039/d5dd00294j.
    """
    X = np.asarray(rows, dtype=np.float64)
    if X.ndim != 2 or 0 in X.shape or not np.isfinite(X).all():
        raise InputError(f"rows must be finite and of the shape (n, p), both at least 1; got {X.shape}")
    if columns is not None and not 1 <= columns <= X.shape[1]:
        raise InputError(f"columns must lie between 1 and {X.shape[1]}; got {columns}")
    kinds = parse_row_kinds(kind, len(X))
    owner = np.asarray(configuration)
    if owner.shape != (len(X),) or owner.dtype.kind not in "iu" or owner.min() < 0:
        raise InputError(f"configuration must number the configuration of each of the {len(X)} rows from 0")
    is_energy = kinds == RowKind.ENERGY
    without = np.setdiff1d(owner, owner[is_energy])
    if without.size:
        raise InputError(f"configuration {without[0]} has no energy row, so it has no regular leverage")
    weights = row_weights(kinds, energy_weight, force_weight, stress_weight)
    values, rank = _hat_diagonal(X[:, :columns] * weights[:, None])
    n_configurations = int(owner.max()) + 1
    return LeverageScores(
        rows=values,
        regular=np.bincount(owner[is_energy], values[is_energy], n_configurations),
        block=np.bincount(owner, values, n_configurations),
        rank=rank,
    )


def _hat_diagonal(A: Array) -> tuple[Array, int]:
    """Squared row norms of an orthonormal basis of the column space, and its dimension; A is overwritten."""
    A /= column_scales(A)
    basis, rank = column_space(A)
    return np.clip(np.einsum("ij,ij->i", basis, basis), 0.0, 1.0), rank


def column_space(A: Array) -> tuple[Array, int]:
    """Orthonormal basis ``(n, rank)`` of the space that A's columns span; A is overwritten."""
    tolerance = rank_tolerance(A.shape)
    if A.shape[0] >= A.shape[1]:
        basis, R = scipy.linalg.qr(A, mode="economic", overwrite_a=True, check_finite=False)
        factor = TriangularFactor.from_triangle(R, tolerance)
        return (
            (basis, factor.rank)
            if factor.complete_decomposition is None
            else (basis @ factor.complete_decomposition[0], factor.rank)
        )
    R = scipy.linalg.qr(A.T, mode="r", overwrite_a=True, check_finite=False)[0][: A.shape[0]]
    factor = TriangularFactor.from_triangle(np.asfortranarray(R), tolerance)
    if factor.complete_decomposition is None:  # as many independent rows as rows: the fit goes through all of them
        return np.eye(A.shape[0]), factor.rank
    return factor.complete_decomposition[2], factor.rank
