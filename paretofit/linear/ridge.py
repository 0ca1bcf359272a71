"""Ridge regression in scaled columns, for one penalty or for the one that leave-one-out prefers.

The penalty is λ Σ (d_j β_j)² with d_j the norm of weighted column j, so that λ is a pure number: the weighted,
column-scaled Gram matrix has eigenvalues that sum to the number of columns.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from paretofit.core import Array
from paretofit.linear.factor import column_scales, rank_tolerance
from paretofit.linear.leverage import column_space
from paretofit.linear.loo import compute_loo_residuals
from paretofit.linear.wls import row_weights, validate_rows

TIE = 1e-6  # relative difference of leave-one-out losses that is no difference
PENALTIES = tuple(float(f"1e{exponent}") for exponent in range(-14, 0))


@dataclass(frozen=True)
class RidgeChoice:
    """For each target the penalty with the smallest leave-one-out loss, and the fit with it.

    Attributes
    ----------
    coefficients : (p, n_targets) float64
    penalty : (n_targets,) float64
    loo_residuals : (n, n_targets) float64
        Leave-one-out residuals, unweighted.
    rank : int
        Numerical rank of the weighted, column-scaled rows.
    condition : float
        Ratio of their largest to their smallest singular value that is not zero, free columns aside.
    """

    coefficients: Array
    penalty: Array
    loo_residuals: Array
    rank: int
    condition: float


def choose_ridge(
    rows: Array,
    targets: Array,
    kind: Any,
    group: Array,
    *,
    energy_weight: float = 1.0,
    force_weight: float = 1.0,
    stress_weight: float = 1.0,
    unpenalised: int = 0,
    penalties: tuple[float, ...] = PENALTIES,
) -> RidgeChoice:
    """Fit with the penalty that leave-one-out prefers, from one singular value decomposition.

    Parameters
    ----------
    rows, targets, kind, energy_weight, force_weight, stress_weight, unpenalised
        As in `fit_wls`.
    group : (n,) int
        What is left out together.
    penalties : tuple of float
        Candidates λ.

    Returns
    -------
    RidgeChoice
    """
    X, Y, kinds = validate_rows(rows, targets, kind)
    weights = row_weights(kinds, energy_weight, force_weight, stress_weight)[:, None]
    A = X * weights
    scale = column_scales(A)
    A /= scale
    free, bound, WY = A[:, :unpenalised], A[:, unpenalised:], Y * weights
    F, free_rank = column_space(free.copy()) if unpenalised else (A[:, :0], 0)
    bound_only, left = bound - F @ (F.T @ bound), WY - F @ (F.T @ WY)
    U, s, Vt = scipy.linalg.svd(bound_only, full_matrices=False, check_finite=False)
    projected = U.T @ left
    best = BestPenalty()
    for penalty in penalties:
        filters = s**2 / (s**2 + penalty)
        V = np.hstack([F, U * np.sqrt(filters)])
        left_out = compute_loo_residuals(V, left - U @ (filters[:, None] * projected), np.asarray(group))
        best.update(penalty, left_out, (s / (s**2 + penalty))[:, None] * projected)
    beta = np.empty((A.shape[1], Y.shape[1]))
    beta[unpenalised:] = Vt.T @ best.solution
    if unpenalised:
        beta[:unpenalised] = scipy.linalg.lstsq(free, WY - bound @ beta[unpenalised:], check_finite=False)[0]
    kept = s[s > rank_tolerance(A.shape) * s.max(initial=0.0)]
    condition = float(kept[0] / kept[-1]) if len(kept) else float("inf")
    rank = free_rank + len(kept)
    return RidgeChoice(beta / scale[:, None], best.penalty, best.loo_residuals / weights, rank, condition)


class BestPenalty:
    """For each target, of the penalties offered in ascending order, the one that leaves the least out.

    That is the largest one whose sum of squared leave-one-out residuals is within a millionth of the smallest:
    where the data do not care, neither should rounding.

    Attributes
    ----------
    penalty : (n_targets,) float64
    loo_residuals : (n, n_targets) float64
        Weighted leave-one-out residuals.
    solution : (p, n_targets) float64
    """

    def __init__(self) -> None:
        self._lowest: Array | None = None
        self.penalty = self.loo_residuals = self.solution = np.empty(0)

    def update(self, penalty: float, loo_residuals: Array, solution: Array) -> None:
        """Compare one more penalty; residuals that are not determined lose."""
        losses = np.where(np.isfinite(loo_residuals), loo_residuals**2, np.inf).sum(axis=0)
        if self._lowest is None:
            self._lowest, self.penalty = losses, np.full(len(losses), penalty)
            self.loo_residuals, self.solution = loo_residuals, solution
            return
        better = losses <= self._lowest * (1 + TIE)
        self._lowest = np.minimum(losses, self._lowest)
        self.penalty = np.where(better, penalty, self.penalty)
        self.loo_residuals = np.where(better, loo_residuals, self.loo_residuals)
        self.solution = np.where(better, solution, self.solution)
