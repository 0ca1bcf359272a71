"""The plain fit: weighted least squares of stacked rows by orthogonal factorisation.

It is the oracle of everything faster. Columns are scaled to unit norm after weighting; QR with column pivoting
decides a rank that is in doubt; a rank-deficient problem gets the minimum-norm solution in scaled columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from paretofit.errors import InputError
from paretofit.kinds import RowKind, row_kinds
from paretofit.linear.factor import Array, TriangularFactor, column_scales, rank_tolerance


@dataclass(frozen=True)
class Fit:
    """The result of a weighted least-squares fit; with several targets, arrays have one entry for each.

    Attributes
    ----------
    coefficients : (p,) or (p, n_targets) float64
    rank : int
        Numerical rank of the weighted, column-scaled matrix.
    condition : float
        1-norm estimate of its condition number, of the independent part where it is rank-deficient.
    solver : str
        "qr", or "rrqr" where column pivoting had to reveal the rank.
    rmse, mae : mapping of kind to float or (n_targets,) float64
        Over the rows of that kind, unweighted, in the unit of the targets.
    """

    coefficients: Array
    rank: int
    condition: float
    solver: str
    rmse: Mapping[str, Any]
    mae: Mapping[str, Any]


def fit_wls(
    rows: Array,
    targets: Array,
    kind: Any,
    *,
    energy_weight: float = 1.0,
    force_weight: float = 1.0,
    stress_weight: float = 1.0,
    ridge: float = 0.0,
) -> Fit:
    """Minimise L = Σ w_E² (ΔE/N)² + Σ w_F² ΔF² + Σ w_S² ΔS² over the coefficients of a linear model.

    Parameters
    ----------
    rows : (n, p) float64
        An energy row predicts the energy per atom.
    targets : (n,) or (n, n_targets) float64
        eV/atom, eV/Å, GPa. Several targets (convergence levels) share one factorisation.
    kind : (n,) str or int
        "energy", "force" or "stress" for each row, or `RowKind`.
    energy_weight, force_weight, stress_weight : float
        w_E, w_F, w_S: they multiply residuals (not their squares), and only ratios matter.
    ridge : float
        λ of a penalty λ Σ (d_j β_j)², d_j being the norm of weighted column j; 0 for none.

    Returns
    -------
    Fit

    Raises
    ------
    InputError
        If shapes disagree, a weight is not positive, or a row or target is not finite.

    Notes
    -----
    Equations 1 and 2 of Baghishov et al., Digital Discovery (2025), doi 10.1039/d5dd00294j. A matrix
    product with the normal equations would square the condition number; QR does not.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    >>> fit = fit_wls(rows, rows @ [3.0, 0.5], ["energy", "energy", "force"], energy_weight=10)
    >>> fit.coefficients.round(12), fit.rank
    (array([3. , 0.5]), 2)
    """
    X, Y, kinds = checked_rows(rows, targets, kind)
    weights = row_weights(kinds, energy_weight, force_weight, stress_weight)
    A = X * weights[:, None]
    scale = column_scales(A)
    A /= scale
    WY = Y * weights[:, None]
    if not (np.isfinite(ridge) and ridge >= 0):
        raise InputError(f"ridge must be a finite number, not negative; got {ridge}")
    if ridge > 0:
        p = A.shape[1]
        A, WY = np.vstack([A, np.sqrt(ridge) * np.eye(p)]), np.vstack([WY, np.zeros((p, WY.shape[1]))])
    solution, factor = _solve(A, WY)
    beta = solution / scale[:, None]
    residuals = X @ beta - Y
    rmse = {name: np.sqrt(np.mean(part**2, axis=0)) for name, part in _by_kind(residuals, kinds)}
    mae = {name: np.mean(np.abs(part), axis=0) for name, part in _by_kind(residuals, kinds)}
    if np.ndim(targets) == 1:
        beta = beta[:, 0]
        rmse, mae = ({name: float(value[0]) for name, value in part.items()} for part in (rmse, mae))
    solver = "qr" if factor.orthogonal is None else "rrqr"
    return Fit(beta, factor.rank, factor.condition, solver, rmse, mae)


def row_weights(kinds: Array, energy_weight: float, force_weight: float, stress_weight: float = 1.0) -> Array:
    """``(n,) float64``: the weight of each row by its kind.

    Raises
    ------
    InputError
        If a weight is not a positive finite number.
    """
    weights = (energy_weight, force_weight, stress_weight)
    for row_kind, weight in zip(RowKind, weights, strict=True):
        if not (np.isfinite(weight) and weight > 0):
            raise InputError(
                f"the {row_kind.name.lower()} weight must be a positive number; got {weight} (a small one, "
                "such as 1e-3, all but ignores those rows)"
            )
    return np.asarray(np.array(weights, dtype=np.float64)[kinds])


def _solve(A: Array, Y: Array) -> tuple[Array, TriangularFactor]:
    """Minimum-norm least-squares solution of A x = Y; A is overwritten."""
    n, p = A.shape
    tolerance = rank_tolerance(A.shape)
    if n >= p:
        # Factorising [A | Y] applies Qᵀ to Y without forming Q.
        triangle = scipy.linalg.qr(np.hstack([A, Y]), mode="r", overwrite_a=True, check_finite=False)[0]
        factor = TriangularFactor.of(np.asfortranarray(triangle[:p, :p]), tolerance)
        return factor.solve(triangle[:p, p:]), factor
    Q, R = scipy.linalg.qr(A.T, mode="economic", overwrite_a=True, check_finite=False)
    factor = TriangularFactor.of(R, tolerance)
    return Q @ factor.solve(Y, transposed=True), factor


def _by_kind(residuals: Array, kinds: Array) -> list[tuple[str, Array]]:
    present = [row_kind for row_kind in RowKind if (kinds == row_kind).any()]
    return [(row_kind.name.lower(), residuals[kinds == row_kind]) for row_kind in present]


def checked_rows(rows: Array, targets: Array, kind: Any) -> tuple[Array, Array, Array]:
    """Rows ``(n, p)``, targets ``(n, n_targets)`` and kinds ``(n,)`` as a fit needs them.

    Raises
    ------
    InputError
        If shapes disagree or a value is not finite.
    """
    X, Y = np.asarray(rows, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if X.ndim != 2 or 0 in X.shape:
        raise InputError(f"rows must have the shape (n, p), both at least 1; got {X.shape}")
    if Y.ndim not in {1, 2} or len(Y) != len(X):
        raise InputError(f"targets must have one entry for each of the {len(X)} rows; got shape {Y.shape}")
    Y = Y[:, None] if Y.ndim == 1 else Y
    for name, array in (("rows", X), ("targets", Y)):
        if not np.isfinite(array).all():
            bad = int(np.argmin(np.isfinite(array).all(axis=1)))
            raise InputError(f"{name} must be finite; row {bad} is not (a missing label?): leave it out")
    return X, Y, row_kinds(kind, len(X))
