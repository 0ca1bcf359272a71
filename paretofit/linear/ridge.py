"""Ridge regression in scaled columns, for one penalty or for the one that leave-one-out prefers.

The penalty is λ Σ (d_j β_j)² with d_j the norm of weighted column j, so that λ is a pure number: the weighted,
column-scaled Gram matrix has eigenvalues that sum to the number of columns.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from paretofit.linear.factor import Array, column_scales
from paretofit.linear.loo import group_residuals
from paretofit.linear.wls import checked_rows, row_weights

PENALTIES = tuple(float(f"1e{exponent}") for exponent in range(-14, 0))


@dataclass(frozen=True)
class RidgeChoice:
    """For each target the penalty with the smallest leave-one-out loss, and the fit with it.

    Attributes
    ----------
    coefficients : (p, n_targets) float64
    penalty : (n_targets,) float64
    left_out : (n, n_targets) float64
        Leave-one-out residuals, unweighted.
    """

    coefficients: Array
    penalty: Array
    left_out: Array


def choose_ridge(
    rows: Array,
    targets: Array,
    kind: Any,
    group: Array,
    *,
    energy_weight: float = 1.0,
    force_weight: float = 1.0,
    penalties: tuple[float, ...] = PENALTIES,
) -> RidgeChoice:
    """Fit with the penalty that leave-one-out prefers, from one singular value decomposition.

    Parameters
    ----------
    rows, targets, kind, energy_weight, force_weight
        As in `fit_wls`.
    group : (n,) int
        What is left out together.
    penalties : tuple of float
        Candidates λ.

    Returns
    -------
    RidgeChoice
    """
    X, Y, kinds = checked_rows(rows, targets, kind)
    weights = row_weights(kinds, energy_weight, force_weight)[:, None]
    A = X * weights
    scale = column_scales(A)
    U, s, Vt = scipy.linalg.svd(A / scale, full_matrices=False, check_finite=False)
    WY = Y * weights
    projected = U.T @ WY

    best = BestPenalty()
    for penalty in penalties:
        filters = s**2 / (s**2 + penalty)
        residuals = WY - U @ (filters[:, None] * projected)
        left_out = group_residuals(U * np.sqrt(filters), residuals, np.asarray(group))
        best.offer(penalty, left_out, (s / (s**2 + penalty))[:, None] * projected)
    return RidgeChoice((Vt.T @ best.solution) / scale[:, None], best.penalty, best.left_out / weights)


class BestPenalty:
    """For each target, of the penalties offered, the one with the smallest sum of squared leave-one-out residuals.

    Attributes
    ----------
    penalty : (n_targets,) float64
    left_out : (n, n_targets) float64
        Weighted leave-one-out residuals.
    solution : (p, n_targets) float64
    """

    def __init__(self) -> None:
        self._losses: Array | None = None
        self.penalty = self.left_out = self.solution = np.empty(0)

    def offer(self, penalty: float, left_out: Array, solution: Array) -> None:
        """Compare one more penalty; residuals that are not determined lose."""
        losses = np.where(np.isfinite(left_out), left_out**2, np.inf).sum(axis=0)
        if self._losses is None:
            self._losses, self.penalty = losses, np.full(len(losses), penalty)
            self.left_out, self.solution = left_out, solution
            return
        better = losses < self._losses
        self._losses = np.where(better, losses, self._losses)
        self.penalty = np.where(better, penalty, self.penalty)
        self.left_out = np.where(better, left_out, self.left_out)
        self.solution = np.where(better, solution, self.solution)
