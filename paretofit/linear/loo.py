"""Leave-one-out residuals without refitting: one solve for each configuration or group (DESIGN §4.9).

If predictions of the weighted rows are H y with H = V Vᵀ, then leaving out the rows b of one group changes
their residuals from r_b to (I − H_bb)⁻¹ r_b.
"""

from typing import Any

import numpy as np
import scipy.linalg

from paretofit.core import Array, InputError
from paretofit.linear.factor import column_scales
from paretofit.linear.leverage import column_space
from paretofit.linear.wls import penalty_rows, row_weights, validate_rows

UNDETERMINED = 1e-10  # an eigenvalue of I − H_bb below this: without these rows the fit is not determined


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
    """Residuals of each row in the fit that leaves its group out.

    Parameters
    ----------
    rows, targets, kind, energy_weight, force_weight, stress_weight, ridge, unpenalised
        As in `fit_wls`. With a ridge, columns keep the scale that they have in all rows.
    group : (n,) int
        The group of each row: its configuration, or a family of relatives.

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
    A = X * weights
    A /= column_scales(A)
    if ridge > 0:
        stacked, n = np.vstack([A, penalty_rows(A.shape[1], ridge, unpenalised)]), len(A)
        V = column_space(stacked)[0][:n]
    else:
        V, _ = column_space(A)
    WY = Y * weights
    residuals = compute_loo_residuals(V, WY - V @ (V.T @ WY), np.asarray(group)) / weights
    return residuals[:, 0] if np.ndim(targets) == 1 else residuals


def compute_loo_residuals(V: Array, residuals: Array, group: Array) -> Array:
    """(I − V_b V_bᵀ)⁻¹ r_b for the rows b of every group; NaN where that matrix is singular.

    Parameters
    ----------
    V : (n, r) float64
    residuals : (n, n_targets) float64
        Of the fit to all rows.
    group : (n,) int
    """
    left_out = np.empty_like(residuals)
    order = np.argsort(group, kind="stable")
    bounds = np.flatnonzero(np.diff(group[order])) + 1
    for own in np.split(order, bounds):
        remaining = np.eye(len(own)) - V[own] @ V[own].T
        values, vectors = scipy.linalg.eigh(remaining, check_finite=False)
        if values[0] < UNDETERMINED:
            left_out[own] = np.nan
        else:
            left_out[own] = vectors @ ((vectors.T @ residuals[own]) / values[:, None])
    return left_out
