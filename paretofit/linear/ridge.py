"""Ridge regression in scaled columns, with the penalty that minimises the leave-one-out loss.

The penalty is λ Σ (d_j β_j)² with d_j the norm of weighted column j, so that λ is a pure number: the weighted,
column-scaled Gram matrix has eigenvalues that sum to the number of columns.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.linalg

from paretofit.core import Array
from paretofit.linear.factor import column_scales, rank_tolerance
from paretofit.linear.leverage import column_space
from paretofit.linear.loo import compute_loo_residuals
from paretofit.linear.wls import row_weights, validate_rows

LOSS_TOLERANCE = 1e-6  # relative difference below which two leave-one-out losses count as equal
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
        Ratio of their largest to their smallest singular value that is not zero, without unpenalised columns.
    """

    coefficients: Array
    penalty: Array
    loo_residuals: Array
    rank: int
    condition: float
    solver: ClassVar[str] = "svd"


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
    """Fit with the penalty of the smallest leave-one-out loss, from one singular value decomposition.

    `rows` to `unpenalised` are as in `fit_wls` and `leave_one_out`; `penalties` are the candidates λ, ascending.
    """
    X, Y, kinds = validate_rows(rows, targets, kind)
    weights = row_weights(kinds, energy_weight, force_weight, stress_weight)[:, None]
    A, WY = X * weights, Y * weights
    scale = column_scales(A)
    A /= scale
    free, penalised = A[:, :unpenalised], A[:, unpenalised:]
    F, free_rank = column_space(free.copy()) if unpenalised else (free, 0)
    remaining = WY - F @ (F.T @ WY)
    U, s, Vt = scipy.linalg.svd(penalised - F @ (F.T @ penalised), full_matrices=False, check_finite=False)
    projected = U.T @ remaining
    best = BestPenalty()
    for penalty in penalties:
        filters = s**2 / (s**2 + penalty)
        V = np.hstack([F, U * np.sqrt(filters)])
        loo_residuals = compute_loo_residuals(V, remaining - U @ (filters[:, None] * projected), np.asarray(group))
        best.update(penalty, loo_residuals, (s / (s**2 + penalty))[:, None] * projected)
    beta = np.empty((A.shape[1], Y.shape[1]))
    beta[unpenalised:] = Vt.T @ best.solution
    if unpenalised:
        beta[:unpenalised] = scipy.linalg.lstsq(free, WY - penalised @ beta[unpenalised:], check_finite=False)[0]
    nonzero = s[s > rank_tolerance(A.shape) * s.max(initial=0.0)]
    condition = float(nonzero[0] / nonzero[-1]) if len(nonzero) else float("inf")
    residuals = best.loo_residuals / weights
    return RidgeChoice(beta / scale[:, None], best.penalty, residuals, free_rank + len(nonzero), condition)


class BestPenalty:
    """For each target, the penalty with the smallest leave-one-out loss among those offered in ascending order.

    Among losses equal within `LOSS_TOLERANCE` it is the largest penalty, so that rounding does not decide.

    Attributes
    ----------
    penalty : (n_targets,) float64
    loo_residuals : (n, n_targets) float64
        Weighted leave-one-out residuals.
    solution : (p, n_targets) float64
    """

    def __init__(self) -> None:
        self._lowest_loss: Any = np.inf
        self.penalty = self.loo_residuals = self.solution = np.empty(0)

    def update(self, penalty: float, loo_residuals: Array, solution: Array) -> None:
        """Compare one more penalty; residuals that are not determined make its loss infinite."""
        losses = np.where(np.isfinite(loo_residuals), loo_residuals**2, np.inf).sum(axis=0)
        better = losses <= self._lowest_loss * (1 + LOSS_TOLERANCE)
        self._lowest_loss = np.minimum(losses, self._lowest_loss)
        if not self.penalty.size:
            self.penalty, self.loo_residuals, self.solution = np.full(len(losses), penalty), loo_residuals, solution
        self.penalty = np.where(better, penalty, self.penalty)
        self.loo_residuals = np.where(better, loo_residuals, self.loo_residuals)
        self.solution = np.where(better, solution, self.solution)
