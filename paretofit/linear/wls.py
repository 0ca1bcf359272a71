"""The plain fit: weighted least squares of stacked rows by orthogonal factorisation.

All faster methods are tested against this fit. Columns are scaled to unit norm, QR with column pivoting determines the
rank if it is in doubt, and a rank-deficient problem gets the minimum-norm solution in scaled columns. With fewer rows
than columns, one factorisation serves all weights (`WideFactor`).

>>> import numpy as np
>>> rows = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
>>> fit = fit_wls(rows, rows @ [3.0, 0.5], ["energy", "energy", "force"], energy_weight=10)
>>> fit.coefficients.round(12), fit.rank
(array([3. , 0.5]), 2)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from paretofit.core import Array, InputError, RowKind, parse_row_kinds
from paretofit.linear.factor import TriangularFactor, compute_column_scales, compute_rank_tolerance, name_solver


@dataclass(frozen=True)
class Fit:
    """Result of a weighted least-squares fit; with several targets, arrays have one entry for each target.

    Attributes
    ----------
    coefficients : (p,) or (p, n_targets) float64
    rank : int
        Numerical rank of the weighted, column-scaled rows, including those of a ridge.
    condition : float
        1-norm estimate of the condition number of these rows, or of their independent part if the rank is deficient.
        With fewer rows than columns and no ridge, the rows are not weighted.
    solver : str
        "factor", or "rank-revealing" if the rank is below the number of columns.
    rmse, mae : mapping of str to float or (n_targets,) float64
        Unweighted errors of all rows of each kind ("energy", "force", "stress") that is present, in the units of the
        targets.
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
    weights: Array | None = None,
    ridge: float = 0.0,
    n_unpenalised: int = 0,
) -> Fit:
    """Minimise L = Σ w_E² (ΔE/N)² + Σ w_F² ΔF² + Σ w_S² ΔS² over the coefficients of a linear model.

    Equations 1 and 2 of Baghishov et al., Digital Discovery (2025), doi 10.1039/d5dd00294j, solved by QR, because the
    normal equations would square the condition number.

    Parameters
    ----------
    rows : (n, p) float64
        An energy row predicts the energy per atom.
    targets : (n,) or (n, n_targets) float64
        eV/atom, eV/Å, GPa. Several targets (convergence levels) share one factorisation.
    kind : (n,) str or int
        "energy", "force" or "stress" for each row, or `RowKind`.
    energy_weight, force_weight, stress_weight : float
        w_E, w_F and w_S, which multiply the residuals, not their squares; only their ratios matter.
    weights : (n,) float64, optional
        Weights of single rows, which replace the weights of the kinds; a row of weight 0 is not fitted, but counts in
        the errors.
    ridge : float
        λ of a penalty λ Σ (d_j β_j)², d_j being the norm of weighted column j; 0 for none.
    n_unpenalised : int
        Number of leading columns without penalty, such as atomic reference energies, so that the fit does not depend
        on the zero of energy.

    Raises
    ------
    InputError
        If shapes disagree, a weight or `ridge` is out of range, or a row or target is not finite.
    """
    X, Y, kinds = validate_rows(rows, targets, kind)
    kind_weights = get_row_weights(kinds, energy_weight, force_weight, stress_weight)
    w = (kind_weights if weights is None else _validate_row_weights(weights, len(X)))[:, None]
    if ridge == 0 and len(X) < X.shape[1] and w.all():
        wide_factor = WideFactor.from_rows(X)
        factor, beta = wide_factor.factor, wide_factor.solve(Y, w)
    else:
        factor, beta = _solve_tall(X * w, Y * w, ridge, n_unpenalised)
    return _build_fit(X @ beta - Y, kinds, beta, factor, is_vector=np.ndim(targets) == 1)


def _solve_tall(A: Array, WY: Array, ridge: float, n_unpenalised: int) -> tuple[TriangularFactor, Array]:
    """Factorise the weighted rows A, which are overwritten; return the factor and the coefficients."""
    column_scales = compute_column_scales(A)
    A /= column_scales
    if ridge != 0:
        penalty = build_penalty_rows(A.shape[1], ridge, n_unpenalised)
        A, WY = np.vstack([A, penalty]), np.vstack([WY, np.zeros((len(penalty), WY.shape[1]))])
    p = A.shape[1]
    # Factorising [A | Y] applies Qᵀ to Y without forming Q; with mode "r", qr returns a tuple that contains only R.
    triangle = scipy.linalg.qr(np.hstack([A, WY]), mode="r", overwrite_a=True, check_finite=False)[0]
    factor = TriangularFactor.from_triangle(np.asfortranarray(triangle[:p, :p]), compute_rank_tolerance(A.shape))
    return factor, factor.solve(triangle[:p, p:]) / column_scales[:, None]


def _validate_row_weights(weights: Array, n: int) -> Array:
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (n,) or not (np.isfinite(values) & (values >= 0)).all() or not values.any():
        raise InputError(
            f"weights must be {n} finite numbers, none below zero and not all zero; got shape {values.shape}"
        )
    return values


def _build_fit(residuals: Array, kinds: Array, beta: Array, factor: TriangularFactor, *, is_vector: bool) -> Fit:
    """Build the result with training errors; for a vector of targets, arrays become vectors and floats."""
    rmse = compute_rms_by_kind(residuals, kinds)
    mae = {kind: np.abs(residuals[kinds == kind]).mean(axis=0) for kind in rmse}
    named_errors = (
        {kind.name.lower(): float(value[0]) if is_vector else value for kind, value in errors.items()}
        for errors in (rmse, mae)
    )
    solver = name_solver(factor.rank, len(beta))
    return Fit(beta[:, 0] if is_vector else beta, factor.rank, factor.condition, solver, *named_errors)


@dataclass(frozen=True)
class WideFactor:
    """Factorisation of a matrix with fewer rows than columns; it serves all weights of the rows.

    With columns scaled to unit norm, X D⁻¹ = Tᵀ Qᵀ, and T determines the rank. Weights change how residuals of
    dependent rows are balanced, but not the space in which the solution of minimum norm lies.

    Attributes
    ----------
    Q : (p, n) float64
        Orthonormal columns.
    factor : TriangularFactor
        Factor of T.
    scale : (p,) float64
        Diagonal of D.
    """

    Q: Array
    factor: TriangularFactor
    scale: Array

    @classmethod
    def from_rows(cls, X: Array) -> "WideFactor":
        """Factorise unweighted rows ``(n, p)``, n < p."""
        scale = compute_column_scales(X)
        Q, R = scipy.linalg.qr((X / scale).T, mode="economic", overwrite_a=True, check_finite=False)
        return cls(Q, TriangularFactor.from_triangle(R, compute_rank_tolerance(X.shape)), scale)

    def solve(self, Y: Array, weights: Array) -> Array:
        """Compute coefficients ``(p, n_targets)`` for targets ``(n, n_targets)`` and row weights ``(n, 1)``."""
        r = self.factor.rank
        if self.factor.complete_decomposition is None or r == 0:
            # The weights do not matter: independent rows are reproduced exactly, and rows of zeros have coefficients 0.
            solution = self.factor.solve(Y, transposed=True)
        else:
            U, S, V = self.factor.complete_decomposition  # T = U Sᵀ Vᵀ, so that X D⁻¹ = V S Uᵀ Qᵀ
            triangle = scipy.linalg.qr(np.hstack([V * weights, Y * weights]), mode="r", check_finite=False)[0]
            # the coefficients z in the basis V of min ‖W (V z − Y)‖; then S Uᵀ x = z
            z = scipy.linalg.solve_triangular(triangle[:r, :r], triangle[:r, r:], check_finite=False)
            solution = U @ scipy.linalg.solve_triangular(S, z, check_finite=False)
        return np.asarray(self.Q @ solution) / self.scale[:, None]


def build_penalty_rows(p: int, ridge: float, n_unpenalised: int) -> Array:
    """Build the rows √λ e_j of a ridge, one for each penalised column j: ``(p - n_unpenalised, p)``.

    Raises
    ------
    InputError
        If the penalty is negative or not finite.
    """
    if not (np.isfinite(ridge) and ridge >= 0):
        raise InputError(f"ridge must be a finite, non-negative number; got {ridge}")
    return np.asarray(np.sqrt(ridge) * np.eye(p)[n_unpenalised:])


def get_row_weights(kinds: Array, energy_weight: float, force_weight: float, stress_weight: float = 1.0) -> Array:
    """Return the weight of each row's kind, ``(n,) float64``; of ``np.arange(3)``, these are w_E, w_F and w_S.

    Raises
    ------
    InputError
        If a weight is not a positive finite number.
    """
    weights = (energy_weight, force_weight, stress_weight)
    for row_kind, weight in zip(RowKind, weights, strict=True):
        if not (np.isfinite(weight) and weight > 0):
            raise InputError(
                f"the {row_kind.name.lower()} weight must be a positive number; got {weight} (use a small number, "
                "such as 1e-3, to give those rows almost no influence)"
            )
    return np.asarray(np.array(weights, dtype=np.float64)[kinds])


def compute_rms_by_kind(residuals: Array, kinds: Array) -> dict[RowKind, Array]:
    """Compute root mean squares, ``(n_targets,)``, over the rows of each kind that is present; NaN propagates."""
    masks = {kind: kinds == kind for kind in RowKind}
    return {kind: np.sqrt(np.mean(residuals[mask] ** 2, axis=0)) for kind, mask in masks.items() if mask.any()}


def validate_rows(rows: Array, targets: Array, kind: Any) -> tuple[Array, Array, Array]:
    """Validate the input of a fit, and return rows ``(n, p)``, targets ``(n, n_targets)`` and kinds ``(n,)``.

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
        is_finite = np.isfinite(array).all(axis=1)
        if not is_finite.all():
            raise InputError(
                f"{name} must be finite; row {int(np.argmin(is_finite))} is not (a missing label?): remove this row"
            )
    return X, Y, parse_row_kinds(kind, len(X))
