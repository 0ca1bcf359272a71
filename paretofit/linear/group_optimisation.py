"""Optimisation of the weights of groups of configurations by held-out errors, with exact gradients.

The moments of each group g and kind of row k are computed from the whitened rows U_gk and the residuals r_gk of a
baseline fit (see `paretofit.linear.reduction`). A fit with weights w_gk, whose coefficients differ from the baseline by
δ, is then a sum of p × p matrices and one Cholesky factorisation, whatever the number of rows:

    M(w) = Σ w_gk² U_gkᵀU_gk,   M δ = Σ w_gk² U_gkᵀ r_gk,

and for any function E(δ) of the held-out errors, dE/d ln w_gk = 2 w_gk² λᵀ U_gkᵀ(r_gk − U_gk δ), where M λ = dE/dδ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.optimize

from paretofit.core import Array, InputError, RowKind

GroupKind = tuple[str, RowKind]  # a group and a kind of row
# ratio to the mean diagonal; directions that no weighted row determines keep the baseline
RELATIVE_DIAGONAL_SHIFT = 1e-13
MIN_RELATIVE_PIVOT = 1e-12  # ratio to the largest pivot; a column with a smaller pivot depends on others
MAX_WEIGHT_RATIO = 1e4  # largest ratio of an optimised weight to its initial value, in either direction
# Errors below which a fit is good enough (eV/atom, eV/Å, GPa). Their squares are added to mean squared errors, because
# the error of forces that are zero by symmetry may be zero, which has no logarithm.
NEGLIGIBLE_ERRORS = {RowKind.ENERGY: 1e-4, RowKind.FORCE: 1e-3, RowKind.STRESS: 1e-2}


@dataclass(frozen=True)
class GroupSums:
    """Moments of the rows of each part: a group and a kind of row. Iteration yields the parts.

    Attributes
    ----------
    parts : list of (group, kind)
    G : (n_parts, p, p) float64
        UᵀU of the whitened rows U of each part.
    c : (n_parts, p) float64
        Uᵀr, with r the targets minus the baseline.
    s : (n_parts,) float64
        rᵀr.
    n : (n_parts,) int64
        Numbers of rows.
    """

    parts: list[GroupKind]
    G: Array
    c: Array
    s: Array
    n: Array

    @classmethod
    def from_rows(cls, U: Array, r: Array, kind: Array, group: Array) -> GroupSums:
        """Compute the moments of every group and kind that has rows.

        The arguments are the whitened rows ``(n, p)``, and their residuals, kinds and groups ``(n,)``.
        """
        pairs = [(str(name), row_kind) for name in dict.fromkeys(group.tolist()) for row_kind in RowKind]
        all_indices = {pair: np.flatnonzero((group == pair[0]) & (kind == pair[1])) for pair in pairs}
        row_indices = {part: indices for part, indices in all_indices.items() if len(indices)}
        G, c = (np.array([U[indices].T @ A[indices] for indices in row_indices.values()]) for A in (U, r))
        s = np.array([r[indices] @ r[indices] for indices in row_indices.values()])
        n = np.array([len(indices) for indices in row_indices.values()])
        return cls(list(row_indices), G, c, s, n)

    def __iter__(self) -> Iterator[GroupKind]:
        return iter(self.parts)

    def sum_squared_residuals(self, delta: Array) -> Array:
        """Compute ‖r − U δ‖² for each part, ``(n_parts,)``."""
        return np.asarray(np.maximum(self.s - 2 * self.c @ delta + self.G @ delta @ delta, 0.0))

    def gather(self, values: Mapping[GroupKind, float]) -> Array:
        """Gather a number for each part in an array, ``(n_parts,)``, with 0 for a part that `values` lacks."""
        return np.array([values.get(part, 0.0) for part in self.parts])


@dataclass(frozen=True)
class OptimisedWeights:
    """Result of `optimise_weights`.

    Attributes
    ----------
    weights : dict of (group, kind) to float
        The optimised weights.
    initial_errors, final_errors : dict of (group, kind) to float
        Held-out RMSE of each part before and after the optimisation, in the units of the rows.
    objective : (float, float)
        Objective before and after the optimisation, without the regulariser.
    n_evaluations : int
        Number of fits that the optimiser needed.
    """

    weights: dict[GroupKind, float]
    initial_errors: dict[GroupKind, float]
    final_errors: dict[GroupKind, float]
    objective: tuple[float, float]
    n_evaluations: int


class GroupMoments:
    """Moments of training and held-out rows by group and kind.

    Parameters
    ----------
    X : (n, p) float64
        Unweighted rows.
    y : (n,) float64
        Targets.
    kind : (n,) int
        `RowKind`.
    group : (n,) str
        Group of the row's configuration.
    is_held_out : (n,) bool
        Rows on which errors are measured; the others are fitted.
    weights : (n,) float64
        Weights of the baseline fit and of the whitening.

    Attributes
    ----------
    baseline : (p,) float64
        Coefficients of the baseline fit.
    train_sums, held_out_sums : GroupSums
        Moments of the rows that are fitted, and of the others.

    Raises
    ------
    InputError
        If there are no rows to fit or none held out, a column is zero in all rows that are fitted, or there are fewer
        independent rows than columns.
    """

    def __init__(self, X: Array, y: Array, kind: Array, group: Array, is_held_out: Array, weights: Array) -> None:
        if is_held_out.all() or not is_held_out.any():
            raise InputError("optimising weights requires training rows and held-out rows; one of the sets is empty")
        is_train = ~is_held_out
        A = X[is_train] * weights[is_train, None]
        scale = np.linalg.norm(A, axis=0)
        if not scale.all():
            raise InputError(
                f"column {int(np.argmin(scale))}, counted from 0, is zero in all training rows with a positive weight, "
                "so that its coefficient is not determined; remove the column, or add rows in which it is not zero"
            )
        if len(A) < X.shape[1]:
            raise InputError(
                f"{X.shape[1]} coefficients are not determined by {len(A)} training rows; use fewer columns or more "
                "training rows"
            )
        # The weighted training rows are A = Q R S, where S is diagonal with the norms of the columns (`scale`). The
        # whitened rows are U = X S⁻¹ R⁻¹: because A S⁻¹ R⁻¹ = Q has orthonormal columns, the moments UᵀU are well
        # conditioned, whereas XᵀX has the square of the condition number of X. The coefficients of X are S⁻¹ R⁻¹ times
        # those of U.
        Q, R = scipy.linalg.qr(A / scale, mode="economic", check_finite=False)
        if np.abs(np.diag(R)).min() < MIN_RELATIVE_PIVOT * np.abs(np.diag(R)).max():
            raise InputError("columns depend on each other in the rows that are fitted; remove the dependent columns")
        self._R, self._scale = R, scale
        self.baseline = scipy.linalg.solve_triangular(R, Q.T @ (y[is_train] * weights[is_train])) / scale
        U = scipy.linalg.solve_triangular(R, (X / scale).T, trans="T", check_finite=False).T
        r = y - X @ self.baseline
        self.train_sums, self.held_out_sums = (
            GroupSums.from_rows(U[rows], r[rows], kind[rows], group[rows]) for rows in (is_train, is_held_out)
        )

    def fit(self, weights: Mapping[GroupKind, float]) -> Array:
        """Compute the coefficients of a fit, ``(p,)``; training parts without a weight are ignored."""
        delta, _ = self._solve(weights)
        return np.asarray(self.baseline + scipy.linalg.solve_triangular(self._R, delta) / self._scale)

    def compute_errors(self, weights: Mapping[GroupKind, float]) -> dict[GroupKind, float]:
        """Compute the held-out RMSE of each part in a fit with these weights, in the units of the rows."""
        squares = self.held_out_sums.sum_squared_residuals(self._solve(weights)[0])
        return dict(zip(self.held_out_sums, np.sqrt(squares / self.held_out_sums.n).tolist(), strict=True))

    def compute_objective(
        self, weights: Mapping[GroupKind, float], importance: Mapping[GroupKind, float]
    ) -> tuple[float, dict[GroupKind, float]]:
        """Compute Σ importance · ½ ln(MSE + ε²) over held-out parts, and its derivatives with respect to each ln w.

        ε is the error in `NEGLIGIBLE_ERRORS` of the part's kind.

        Parameters
        ----------
        weights : mapping of part to float
            Weight of every training part.
        importance : mapping of part to float
            Share of each held-out part; 0 if it is missing.
        """
        delta, factor = self._solve(weights)
        train_sums, held_out_sums = self.train_sums, self.held_out_sums
        negligible_errors = np.array([NEGLIGIBLE_ERRORS[kind] for _, kind in held_out_sums])
        squares = held_out_sums.sum_squared_residuals(delta) + held_out_sums.n * negligible_errors**2
        shares = held_out_sums.gather(importance)
        slope = (shares / squares) @ (held_out_sums.G @ delta - held_out_sums.c)
        adjoint = scipy.linalg.cho_solve(factor, slope, check_finite=False)
        gradient = 2 * train_sums.gather(weights) ** 2 * ((train_sums.c - train_sums.G @ delta) @ adjoint)
        value = float(shares @ np.log(squares / held_out_sums.n)) / 2
        return value, dict(zip(train_sums, gradient.tolist(), strict=True))

    def _solve(self, weights: Mapping[GroupKind, float]) -> tuple[Array, tuple[Array, bool]]:
        """Return the whitened coefficients minus those of the baseline, ``(p,)``, and the Cholesky factor of M."""
        squares = self.train_sums.gather(weights) ** 2
        M, c = np.tensordot(squares, self.train_sums.G, 1), squares @ self.train_sums.c
        # The floor of the shift keeps M positive definite if all weights are zero.
        M[np.diag_indices(len(c))] += RELATIVE_DIAGONAL_SHIFT * max(float(np.trace(M)) / len(c), 1e-300)
        factor = scipy.linalg.cho_factor(M, lower=True, check_finite=False)
        return np.asarray(scipy.linalg.cho_solve(factor, c, check_finite=False)), factor


def optimise_weights(
    moments: GroupMoments,
    initial_weights: Mapping[GroupKind, float],
    importance: Mapping[GroupKind, float],
    *,
    regulariser: float = 0.01,
    max_iterations: int = 200,
) -> OptimisedWeights:
    """Find weights near their initial values that minimise the weighted mean of the logarithms of held-out errors.

    Because of the logarithms, a relative improvement counts equally for errors of any size. A weight changes by a
    factor of at most `MAX_WEIGHT_RATIO`.

    Parameters
    ----------
    moments : GroupMoments
    initial_weights : mapping of part to float
        Positive weight of every training part.
    importance : mapping of part to float
        Shares of the held-out errors in the objective, which are scaled to a sum of 1.
    regulariser : float
        ρ of the penalty ρ Σ (ln w − ln w₀)²; because of it, weights without influence keep their initial values.
    max_iterations : int
        Largest number of iterations of L-BFGS.

    Raises
    ------
    InputError
        If a part of `importance` is not held out, its sum is not positive, or a weight is missing or not positive.
    """
    parts = moments.train_sums.parts
    _check_weights(moments, initial_weights, importance)
    initial_log_weights = np.log([initial_weights[part] for part in parts])
    shares = _normalise(importance)

    def compute_cost(log_weights: Array) -> tuple[float, Array]:
        value, gradient = moments.compute_objective(dict(zip(parts, np.exp(log_weights), strict=True)), shares)
        change = log_weights - initial_log_weights
        slope = np.array([gradient[part] for part in parts]) + 2 * regulariser * change
        return value + regulariser * float(change @ change), slope

    bounds = [(log - np.log(MAX_WEIGHT_RATIO), log + np.log(MAX_WEIGHT_RATIO)) for log in initial_log_weights]
    options = {"maxiter": max_iterations}
    optimum = scipy.optimize.minimize(
        compute_cost, initial_log_weights, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    weights = dict(zip(parts, np.exp(optimum.x).tolist(), strict=True))
    objectives = moments.compute_objective(initial_weights, shares)[0], moments.compute_objective(weights, shares)[0]
    errors = moments.compute_errors(initial_weights), moments.compute_errors(weights)
    return OptimisedWeights(weights, *errors, objectives, int(optimum.nfev))


def trace_weight_front(
    moments: GroupMoments,
    initial_weights: Mapping[GroupKind, float],
    objectives: tuple[Mapping[GroupKind, float], Mapping[GroupKind, float]],
    *,
    n_points: int = 9,
    regulariser: float = 0.01,
) -> list[tuple[float, OptimisedWeights, tuple[float, float]]]:
    """Optimise the weights for several mixtures of two objectives, to trace the front between the objectives.

    Parameters
    ----------
    moments : GroupMoments
    initial_weights : mapping of part to float
    objectives : two mappings of part to float
        Shares of the held-out errors in each objective, which are scaled to a sum of 1.
    n_points : int
        Number of mixtures, including the two objectives themselves.
    regulariser : float
        As in `optimise_weights`.

    Returns
    -------
    list of (share, weights, means)
        For each mixture the share of the second objective, the `OptimisedWeights`, and the two objectives as geometric
        means of held-out errors.

    Raises
    ------
    InputError
        As in `optimise_weights`.
    """
    first_shares, second_shares = (_normalise(shares) for shares in objectives)
    front = []
    for share in np.linspace(0.0, 1.0, n_points).tolist():
        parts = dict.fromkeys([*first_shares, *second_shares])
        mixture = {
            part: (1.0 - share) * first_shares.get(part, 0.0) + share * second_shares.get(part, 0.0) for part in parts
        }
        optimum = optimise_weights(moments, initial_weights, mixture, regulariser=regulariser)
        means = [
            float(np.exp(moments.compute_objective(optimum.weights, shares)[0]))
            for shares in (first_shares, second_shares)
        ]
        front.append((share, optimum, (means[0], means[1])))
    return front


def _normalise(importance: Mapping[GroupKind, float]) -> dict[GroupKind, float]:
    """Scale the shares so that their sum is 1."""
    total = sum(importance.values())
    return {part: share / total for part, share in importance.items()}


def _check_weights(
    moments: GroupMoments, initial_weights: Mapping[GroupKind, float], importance: Mapping[GroupKind, float]
) -> None:
    """Raise InputError for weights that are not positive, NaN included, and for errors that cannot be measured."""
    for group, kind in moments.train_sums:
        if not initial_weights.get((group, kind), 0.0) > 0:
            raise InputError(f"the {kind.name.lower()} weight of group '{group}' must be positive to be optimised")
    for group, kind in importance:
        if (group, kind) not in moments.held_out_sums:
            raise InputError(f"group '{group}' has no held-out {kind.name.lower()} rows to measure an error on")
    if not importance or not sum(importance.values()) > 0:
        raise InputError("there is no error to minimise; specify at least one group and kind")
