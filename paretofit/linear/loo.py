"""Leave-one-out residuals without refitting: one solve for each configuration or group.

If predictions of the weighted rows are H y with H = V Vᵀ, then a fit without the rows b of one group changes their
residuals from r_b to (I − H_bb)⁻¹ r_b (see `paretofit.linear.reduction`).
"""

from typing import Any

import numpy as np
import scipy.linalg

from paretofit.core import Array, InputError
from paretofit.linear.factor import column_scales
from paretofit.linear.leverage import column_space
from paretofit.linear.wls import penalty_rows, row_weights, validate_rows

MIN_EIGENVALUE = 1e-10  # an eigenvalue of I − H_bb below this: without these rows the fit is not determined


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
    unpenalised: int = 0,
) -> Array:
    """Compute the residual of each row in a fit without its group.

    Parameters
    ----------
    rows, targets, kind, energy_weight, force_weight, stress_weight, ridge, unpenalised
        As in `fit_wls`. With a ridge, columns keep the scale that they have in all rows.
    group : (n,) int
        The group of each row: its configuration, or a number that several configurations share.

    Returns
    -------
    (n,) or (n, n_targets) float64
        Target minus prediction, unweighted; NaN where the other rows do not determine the prediction.

    Raises
    ------
    InputError
        As `fit_wls`, and if `group` does not have one number for each row.
    """
    X, Y, kinds = validate_rows(rows, targets, kind)
    if np.shape(group) != (len(X),):
        raise InputError(f"group must have one number for each of the {len(X)} rows; got shape {np.shape(group)}")
    weights = row_weights(kinds, energy_weight, force_weight, stress_weight)[:, None]
    A, WY = X * weights, Y * weights
    A /= column_scales(A)
    if ridge > 0:
        A = np.vstack([A, penalty_rows(A.shape[1], ridge, unpenalised)])
    V = column_space(A)[0][: len(X)]
    residuals = compute_loo_residuals(V, WY - V @ (V.T @ WY), np.asarray(group)) / weights
    return residuals[:, 0] if np.ndim(targets) == 1 else residuals


def compute_loo_residuals(V: Array, residuals: Array, group: Array) -> Array:
    """(I − V_b V_bᵀ)⁻¹ r_b for the rows b of every group; NaN where that matrix is singular.

    Parameters
    ----------
    V : (n, r) float64
        Orthonormal basis of the column space.
    residuals : (n, n_targets) float64
        Residuals of the fit to all rows.
    group : (n,) int
    """
    loo_residuals = np.empty_like(residuals)
    for members in split_by_group(group):
        remaining = np.eye(len(members)) - V[members] @ V[members].T
        values, vectors = scipy.linalg.eigh(remaining, check_finite=False)
        if values[0] < MIN_EIGENVALUE:
            loo_residuals[members] = np.nan
        else:
            loo_residuals[members] = vectors @ ((vectors.T @ residuals[members]) / values[:, None])
    return loo_residuals


def split_by_group(group: Array) -> list[Array]:
    """Positions of the members of each group, in ascending order of the groups' numbers."""
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
