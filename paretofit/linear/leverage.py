"""Leverage of rows and configurations: the influence that each has on a fit.

Leverage depends on the rows only, not on labels, so configurations can be chosen before any of them is labelled.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from paretofit.core import Array, InputError, RowKind, parse_row_kinds
from paretofit.linear.factor import TriangularFactor, compute_column_scales, compute_rank_tolerance
from paretofit.linear.wls import get_row_weights


@dataclass(frozen=True)
class LeverageScores:
    """Leverage of each row, and of each configuration in two ways.

    Attributes
    ----------
    rows : (n,) float64
        Diagonal of the hat matrix, between 0 and 1; the sum is the rank.
    regular : (n_configurations,) float64
        Leverage of the configuration's energy row.
    block : (n_configurations,) float64
        Sum over all rows of the configuration.
    rank : int
        Numerical rank of the weighted rows.
    """

    rows: Array
    regular: Array
    block: Array
    rank: int

    @classmethod
    def from_row_leverages(
        cls, row_leverages: Array, kinds: Array, configuration: Array, rank: int, n_configurations: int
    ) -> "LeverageScores":
        """Build the scores from the leverages, kinds and configuration numbers of the rows, ``(n,)`` each.

        In `rows`, leverages that exceed 1 by rounding are set to 1.
        """
        is_energy = kinds == RowKind.ENERGY
        regular = np.bincount(configuration[is_energy], row_leverages[is_energy], n_configurations)
        return cls(
            np.minimum(row_leverages, 1.0), regular, np.bincount(configuration, row_leverages, n_configurations), rank
        )


def leverage_scores(
    rows: Array,
    kind: Any,
    configuration: Array,
    *,
    energy_weight: float = 1.0,
    force_weight: float = 1.0,
    stress_weight: float = 1.0,
    n_columns: int | None = None,
) -> LeverageScores:
    """Compute leverage scores: the diagonal of H = X (XᵀX)⁻¹ Xᵀ = U Uᵀ for the weighted rows X = U Σ Vᵀ.

    Parameters
    ----------
    rows : (n, p) float64
    kind : (n,) str or int
        "energy", "force" or "stress" for each row, or `RowKind`.
    configuration : (n,) int
        Number of each row's configuration, 0 to n_configurations - 1.
    energy_weight, force_weight, stress_weight : float
        Factors of the rows of each kind, as in `fit_wls`.
    n_columns : int, optional
        Use only the first `n_columns` columns (a smaller 2Jmax of a nested model).

    Raises
    ------
    InputError
        If shapes disagree, a row is not finite, a weight or `n_columns` is out of range, or a configuration has no
        energy row.

    Notes
    -----
    Equation 4 and section 2.3 of Baghishov et al., Digital Discovery (2025), doi 10.1039/d5dd00294j.
    """
    X, numbers = np.asarray(rows, dtype=np.float64), np.asarray(configuration)
    if X.ndim != 2 or 0 in X.shape or not np.isfinite(X).all():
        raise InputError(f"rows must be finite and of the shape (n, p), both at least 1; got {X.shape}")
    if n_columns is not None and not 1 <= n_columns <= X.shape[1]:
        raise InputError(f"n_columns must be between 1 and {X.shape[1]}; got {n_columns}")
    kinds = parse_row_kinds(kind, len(X))
    if numbers.shape != (len(X),) or numbers.dtype.kind not in "iu" or numbers.min() < 0:
        raise InputError(f"configuration must number the configuration of each of the {len(X)} rows from 0")
    without_energy_row = np.setdiff1d(numbers, numbers[kinds == RowKind.ENERGY])
    if without_energy_row.size:
        raise InputError(
            f"configuration {without_energy_row[0]} has no energy row, so it has no regular leverage; "
            "add the energy row"
        )
    A = X[:, :n_columns] * get_row_weights(kinds, energy_weight, force_weight, stress_weight)[:, None]
    A /= compute_column_scales(A)
    basis, rank = compute_column_space(A)
    row_leverages = np.clip(np.einsum("ij,ij->i", basis, basis), 0.0, 1.0)
    return LeverageScores.from_row_leverages(row_leverages, kinds, numbers, rank, int(numbers.max()) + 1)


def compute_column_space(A: Array) -> tuple[Array, int]:
    """Compute an orthonormal basis of the column space of A, ``(n, rank)``, and the rank; A is overwritten."""
    n, p = A.shape
    tolerance = compute_rank_tolerance(A.shape)
    if n >= p:
        basis, R = scipy.linalg.qr(A, mode="economic", overwrite_a=True, check_finite=False)
        factor = TriangularFactor.from_triangle(R, tolerance)
        decomposition = factor.complete_decomposition
        return basis if decomposition is None else basis @ decomposition[0], factor.rank
    R = scipy.linalg.qr(A.T, mode="r", overwrite_a=True, check_finite=False)[0][:n]  # rows below are zero
    factor = TriangularFactor.from_triangle(np.asfortranarray(R), tolerance)
    decomposition = factor.complete_decomposition
    # With fewer rows than columns, independent rows span the whole space: a fit reproduces all of them.
    return np.eye(n) if decomposition is None else decomposition[2], factor.rank
