"""Leave-one-out residuals without refitting, and ridge regression with the penalty that minimises them.

If predictions of the weighted rows are H y with H = V Vᵀ, and the rows b of one group are left out of the fit, the
residuals of these rows change from r_b to (I − H_bb)⁻¹ r_b (see `paretofit.linear.reduction`): one solve for each
configuration or group.

The penalty is λ Σ (d_j β_j)² with d_j the norm of weighted column j, so that λ is a pure number, which is added to the
eigenvalues of the weighted, column-scaled Gram matrix. The sum of these eigenvalues is the number of columns.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.linalg

from paretofit.core import Array, InputError
from paretofit.linear.factor import compute_column_scales, compute_rank_tolerance
from paretofit.linear.leverage import compute_column_space
from paretofit.linear.wls import build_penalty_rows, get_row_weights, validate_rows

LOSS_TOLERANCE = 1e-6  # relative difference below which two leave-one-out losses count as equal
PENALTIES = tuple(float(f"1e{exponent}") for exponent in range(-14, 0))  # candidates λ of `choose_ridge`
MIN_EIGENVALUE = 1e-10  # smallest eigenvalue of I − H_bb; below it, the fit without the rows b is not determined


def leave_one_out(
    rows: Array,
    targets: Array,
    kind: Any,
    group: Array,
    *,
    energy_weight: float = 1.0,
    force_weight: float = 1.0,
    stress_weight: float = 1.0,
    ridge: float = 0.0,
    n_unpenalised: int = 0,
) -> Array:
    """Compute the residual of each row in a fit without its group.

    Parameters
    ----------
    rows, targets, kind, energy_weight, force_weight, stress_weight, ridge, n_unpenalised
        As in `fit_wls`. With a ridge, the scales of the columns are those of all rows.
    group : (n,) int
        Group of each row: its configuration, or a number that several configurations share.

    Returns
    -------
    (n,) or (n, n_targets) float64
        Target minus prediction, unweighted; NaN where the other rows do not determine the prediction.

    Raises
    ------
    InputError
        As in `fit_wls`, and if `group` does not have one number for each row.
    """
    X, Y, kinds = validate_rows(rows, targets, kind)
    if np.shape(group) != (len(X),):
        raise InputError(f"group must have one number for each of the {len(X)} rows; got shape {np.shape(group)}")
    weights = get_row_weights(kinds, energy_weight, force_weight, stress_weight)[:, None]
    A, WY = X * weights, Y * weights
    A /= compute_column_scales(A)
    if ridge > 0:
        A = np.vstack([A, build_penalty_rows(A.shape[1], ridge, n_unpenalised)])
    V = compute_column_space(A)[0][: len(X)]
    residuals = compute_loo_residuals(V, WY - V @ (V.T @ WY), np.asarray(group)) / weights
    return residuals[:, 0] if np.ndim(targets) == 1 else residuals


def compute_loo_residuals(V: Array, residuals: Array, group: Array) -> Array:
    """Compute (I − V_b V_bᵀ)⁻¹ r_b for the rows b of every group, ``(n, n_targets)``; NaN where it is not determined.

    Parameters
    ----------
    V : (n, r) float64
        Orthonormal basis of the column space.
    residuals : (n, n_targets) float64
        Weighted residuals r of the fit to all rows.
    group : (n,) int
        Number of each row's group.
    """
    loo_residuals = np.empty_like(residuals)
    for members in split_by_group(group):
        complement = np.eye(len(members)) - V[members] @ V[members].T
        eigenvalues, eigenvectors = scipy.linalg.eigh(complement, check_finite=False)
        if eigenvalues[0] < MIN_EIGENVALUE:
            loo_residuals[members] = np.nan
        else:
            loo_residuals[members] = eigenvectors @ ((eigenvectors.T @ residuals[members]) / eigenvalues[:, None])
    return loo_residuals


def split_by_group(group: Array) -> list[Array]:
    """Return the positions of the members of each group, in ascending order of the groups' numbers."""
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


@dataclass(frozen=True)
class RidgeChoice:
    """Penalty with the smallest leave-one-out loss for each target, and the fit with this penalty.

    Attributes
    ----------
    coefficients : (p, n_targets) float64
    penalty : (n_targets,) float64
        λ.
    loo_residuals : (n, n_targets) float64
        Leave-one-out residuals, unweighted.
    rank : int
        Numerical rank of the weighted, column-scaled rows.
    condition : float
        Ratio of the largest to the smallest nonzero singular value of the penalised columns of these rows, after they
        are made orthogonal to the unpenalised ones; infinite if there are none.
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
    n_unpenalised: int = 0,
    penalties: tuple[float, ...] = PENALTIES,
) -> RidgeChoice:
    """Choose for each target the penalty with the smallest leave-one-out loss, and fit with it; one SVD serves all.

    Parameters
    ----------
    rows, targets, kind, group, energy_weight, force_weight, stress_weight, n_unpenalised
        As in `leave_one_out`.
    penalties : tuple of float
        Candidates λ, ascending.

    Raises
    ------
    InputError
        As in `fit_wls`.
    """
    X, Y, kinds = validate_rows(rows, targets, kind)
    weights = get_row_weights(kinds, energy_weight, force_weight, stress_weight)[:, None]
    A, WY = X * weights, Y * weights
    scale = compute_column_scales(A)
    A /= scale
    A_unpenalised, A_penalised = A[:, :n_unpenalised], A[:, n_unpenalised:]
    # F is an orthonormal basis of the unpenalised columns, U one of the penalised columns without their part in F.
    F, unpenalised_rank = compute_column_space(A_unpenalised.copy()) if n_unpenalised else (A_unpenalised, 0)
    remainder = WY - F @ (F.T @ WY)
    U, s, Vt = scipy.linalg.svd(A_penalised - F @ (F.T @ A_penalised), full_matrices=False, check_finite=False)
    projection = U.T @ remainder
    best = BestPenalty()
    for penalty in penalties:
        filter_factors = s**2 / (s**2 + penalty)
        V = np.hstack([F, U * np.sqrt(filter_factors)])
        loo_residuals = compute_loo_residuals(
            V, remainder - U @ (filter_factors[:, None] * projection), np.asarray(group)
        )
        best.update(penalty, loo_residuals, (s / (s**2 + penalty))[:, None] * projection)
    beta = np.empty((A.shape[1], Y.shape[1]))
    beta[n_unpenalised:] = Vt.T @ best.solution
    if n_unpenalised:
        beta[:n_unpenalised] = scipy.linalg.lstsq(
            A_unpenalised, WY - A_penalised @ beta[n_unpenalised:], check_finite=False
        )[0]
    nonzero_s = s[s > compute_rank_tolerance(A.shape) * s.max(initial=0.0)]  # s is empty if no column is penalised
    condition = float(nonzero_s[0] / nonzero_s[-1]) if len(nonzero_s) else float("inf")
    residuals, rank = best.loo_residuals / weights, unpenalised_rank + len(nonzero_s)
    return RidgeChoice(beta / scale[:, None], best.penalty, residuals, rank, condition)


class BestPenalty:
    """For each target, the penalty with the smallest leave-one-out loss among penalties tried in ascending order.

    Of several penalties whose losses are equal within `LOSS_TOLERANCE`, or all infinite, the largest is chosen, so that
    the choice does not depend on rounding.

    Attributes
    ----------
    penalty : (n_targets,) float64
    loo_residuals : (n, n_targets) float64
        Weighted leave-one-out residuals.
    solution : (n_singular_values, n_targets) float64
        Coefficients in the basis of right singular vectors.
    """

    def __init__(self) -> None:
        self._lowest_loss: Any = np.inf
        self.penalty = self.loo_residuals = self.solution = np.empty(0)

    def update(self, penalty: float, loo_residuals: Array, solution: Array) -> None:
        """Compare a penalty with the best so far; its loss is infinite if a residual is not determined."""
        losses = np.where(np.isfinite(loo_residuals), loo_residuals**2, np.inf).sum(axis=0)
        is_better = losses <= self._lowest_loss * (1 + LOSS_TOLERANCE)
        self._lowest_loss = np.minimum(losses, self._lowest_loss)
        if not self.penalty.size:
            self.penalty, self.loo_residuals, self.solution = np.full(len(losses), penalty), loo_residuals, solution
        self.penalty = np.where(is_better, penalty, self.penalty)
        self.loo_residuals = np.where(is_better, loo_residuals, self.loo_residuals)
        self.solution = np.where(is_better, solution, self.solution)
