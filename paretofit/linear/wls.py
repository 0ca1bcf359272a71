"""The plain fit: weighted least squares of stacked rows by orthogonal factorisation.

It is the oracle of everything faster. Columns are scaled to unit norm; QR with column pivoting decides a rank that is
in doubt; a rank-deficient problem gets the minimum-norm solution in scaled columns. With fewer rows than columns one
factorisation serves all weights (`WideFactor`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from paretofit.core import Array, InputError, RowKind, parse_row_kinds
from paretofit.linear.factor import TriangularFactor, column_scales, rank_tolerance


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
    weights: Array | None = None,
    ridge: float = 0.0,
    unpenalised: int = 0,
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
    weights : (n,) float64, optional
        A weight for each row instead, such as those of groups of configurations; 0 leaves a row out.
    ridge : float
        λ of a penalty λ Σ (d_j β_j)², d_j being the norm of weighted column j; 0 for none.
    unpenalised : int
        Leading columns that the penalty leaves free: reference energies of atoms, so that the zero of energy
        does not matter.

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
    X, Y, kinds = validate_rows(rows, targets, kind)
    by_kind = row_weights(kinds, energy_weight, force_weight, stress_weight)
    w = (by_kind if weights is None else _given(weights, len(X)))[:, None]
    if ridge == 0 and len(X) < X.shape[1] and w.all():
        wide = WideFactor.from_rows(X)
        return _fit(X, Y, kinds, wide.solve(Y, w), wide.rank, wide.condition, wide.solver, np.ndim(targets))
    A, WY = X * w, Y * w
    scale = column_scales(A)
    A /= scale
    if ridge != 0:
        penalty = penalty_rows(A.shape[1], ridge, unpenalised)
        A, WY = np.vstack([A, penalty]), np.vstack([WY, np.zeros((len(penalty), WY.shape[1]))])
    p = A.shape[1]
    # Factorising [A | Y] applies Qᵀ to Y without forming Q.
    triangle = scipy.linalg.qr(np.hstack([A, WY]), mode="r", overwrite_a=True, check_finite=False)[0]
    factor = TriangularFactor.from_triangle(np.asfortranarray(triangle[:p, :p]), rank_tolerance(A.shape))
    beta = factor.solve(triangle[:p, p:]) / scale[:, None]
    solver = "qr" if factor.complete_decomposition is None else "rrqr"
    return _fit(X, Y, kinds, beta, factor.rank, factor.condition, solver, np.ndim(targets))


def _given(weights: Array, n: int) -> Array:
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (n,) or not (np.isfinite(values) & (values >= 0)).all() or not values.any():
        raise InputError(
            f"weights must be {n} finite numbers, none below zero and not all zero; got shape {values.shape}"
        )
    return values


def _fit(
    X: Array, Y: Array, kinds: Array, beta: Array, rank: int, condition: float, solver: str, n_dimensions: int
) -> Fit:
    """Measure a solution."""
    residuals = _by_kind(X @ beta - Y, kinds)
    rmse = {name: np.sqrt(np.mean(part**2, axis=0)) for name, part in residuals}
    mae = {name: np.mean(np.abs(part), axis=0) for name, part in residuals}
    if n_dimensions == 1:
        beta = beta[:, 0]
        rmse, mae = ({name: float(value[0]) for name, value in part.items()} for part in (rmse, mae))
    return Fit(beta, rank, condition, solver, rmse, mae)


@dataclass(frozen=True)
class WideFactor:
    """A factorisation of fewer rows than columns that serves every weighting of the rows.

    With columns scaled to unit norm, X D⁻¹ = Tᵀ Qᵀ, and T decides the rank. Weights change how residuals of
    dependent rows are balanced, but not the space in which the solution of minimum norm lies.

    Attributes
    ----------
    Q : (p, n) float64
    factor : TriangularFactor
        Of T.
    scale : (p,) float64
        D.
    """

    Q: Array
    factor: TriangularFactor
    scale: Array

    @classmethod
    def from_rows(cls, X: Array) -> "WideFactor":
        """Factorise unweighted rows ``(n, p)``, n < p."""
        scale = column_scales(X)
        Q, R = scipy.linalg.qr((X / scale).T, mode="economic", overwrite_a=True, check_finite=False)
        return cls(Q, TriangularFactor.from_triangle(R, rank_tolerance(X.shape)), scale)

    @property
    def rank(self) -> int:
        """Numerical rank of the rows."""
        return self.factor.rank

    @property
    def condition(self) -> float:
        """1-norm estimate of the condition number of the independent part."""
        return self.factor.condition

    @property
    def solver(self) -> str:
        """The name that a `Fit` gives to this way."""
        return "qr" if self.factor.complete_decomposition is None else "rrqr"

    def solve(self, Y: Array, weights: Array) -> Array:
        """Coefficients ``(p, n_targets)`` for targets ``(n, n_targets)`` and weights ``(n, 1)`` of the rows."""
        if self.factor.complete_decomposition is None:  # independent rows: every residual is zero, whatever its weight
            inner = self.factor.solve(Y, transposed=True)
        elif self.rank == 0:
            inner = np.zeros((self.Q.shape[1], Y.shape[1]))
        else:
            U, S, V = self.factor.complete_decomposition  # T = U Sᵀ Vᵀ, so that X D⁻¹ = V S Uᵀ Qᵀ
            r = self.rank
            triangle = scipy.linalg.qr(np.hstack([V * weights, Y * weights]), mode="r", check_finite=False)[0]
            balanced = scipy.linalg.solve_triangular(triangle[:r, :r], triangle[:r, r:], check_finite=False)
            inner = U @ scipy.linalg.solve_triangular(S, balanced, check_finite=False)
        return np.asarray(self.Q @ inner) / self.scale[:, None]


def compress_rows(X: Array, Y: Array, kinds: Array) -> tuple[Array, Array, Array]:
    """Replace the rows of each kind by the triangular factor of [X | Y], where that is shorter.

    Rows of a kind have one weight, and an orthogonal transformation among them changes no weighted
    least-squares problem: the same coefficients come out at every weight, from at most p + n_targets rows of
    each kind. (Their residuals are not those of the rows.)

    Returns
    -------
    X, Y, kinds
        As they went in, with fewer rows.
    """
    parts = []
    for kind in np.unique(kinds):
        rows = np.hstack([X[kinds == kind], Y[kinds == kind]])
        parts.append((kind, np.linalg.qr(rows, mode="r") if len(rows) > rows.shape[1] else rows))
    stacked = np.vstack([np.asarray(part) for _, part in parts])
    lengths = [len(np.asarray(part)) for _, part in parts]
    p = X.shape[1]
    return stacked[:, :p], stacked[:, p:], np.repeat([kind for kind, _ in parts], lengths).astype(np.int8)


def penalty_rows(p: int, ridge: float, unpenalised: int) -> Array:
    """``(p - unpenalised, p)``: rows √λ e_j for the columns that a ridge penalises.

    Raises
    ------
    InputError
        If the penalty is negative or not finite.
    """
    if not (np.isfinite(ridge) and ridge >= 0):
        raise InputError(f"ridge must be a finite number, not negative; got {ridge}")
    return np.asarray(np.sqrt(ridge) * np.eye(p)[unpenalised:])


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


def rms_by_kind(residuals: Array, kinds: Array) -> dict[RowKind, Array]:
    """Root mean squares over the rows of each kind; NaN if one of them is not determined."""
    return {kind: np.sqrt(np.mean(own**2, axis=0)) for kind in RowKind if len(own := residuals[kinds == kind])}


def _by_kind(residuals: Array, kinds: Array) -> list[tuple[str, Array]]:
    present = [row_kind for row_kind in RowKind if (kinds == row_kind).any()]
    return [(row_kind.name.lower(), residuals[kinds == row_kind]) for row_kind in present]


def validate_rows(rows: Array, targets: Array, kind: Any) -> tuple[Array, Array, Array]:
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
    return X, Y, parse_row_kinds(kind, len(X))
