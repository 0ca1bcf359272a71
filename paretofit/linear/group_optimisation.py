"""Weights of groups of configurations: fits and held-out errors as functions of them, with exact gradients.

Moments are kept for each group and kind of row, whitened (DESIGN §4.3) and about a baseline fit (§4.6), so that a fit
with any weights is a sum of p × p matrices and one Cholesky factor, whatever the number of rows:

    M(w) = Σ w_gk² U_gkᵀU_gk,   M δ = Σ w_gk² U_gkᵀ r_gk,

and with the held-out errors E(δ), dE/d ln w_gk = 2 w_gk² λᵀ U_gkᵀ(r_gk − U_gk δ), where M λ = dE/dδ. Pure arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.linalg
import scipy.optimize

from paretofit.core import InputError, RowKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from paretofit.core import Array

GroupKind = tuple[str, RowKind]  # a group and a kind of row
RIDGE = 1e-13  # of the mean diagonal, so that a direction that no weighted row sees stays where the baseline has it
# Errors below which a fit is good enough, eV/atom, eV/Å and GPa: forces that are zero by symmetry have no logarithm.
NEGLIGIBLE_ERRORS = {RowKind.ENERGY: 1e-4, RowKind.FORCE: 1e-3, RowKind.STRESS: 1e-2}
SPAN = 1e4  # by how much a weight may differ from where it began


class GroupSums(NamedTuple):
    """UᵀU ``(p, p)``, Uᵀr ``(p,)``, rᵀr and the number of rows."""

    G: Array
    c: Array
    s: float
    n: int

    def sum_squared_residuals(self, delta: Array) -> float:
        """‖r − U δ‖²."""
        return max(float(self.s - 2 * self.c @ delta + delta @ self.G @ delta), 0.0)


@dataclass(frozen=True)
class OptimisedWeights:
    """Weights that were found, and what they bring.

    Attributes
    ----------
    weights : dict of (group, kind) to float
    initial_errors, final_errors : dict of (group, kind) to float
        Held-out RMSE of each part before and after, in the rows' units.
    objective : (float, float)
        Before and after, the regulariser left out.
    n_evaluations : int
        Fits that it took.
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
    kind : (n,) int
        `RowKind`.
    group : (n,) str
    held_out : (n,) bool
        Rows that errors are measured on; the others are fitted.
    weights : (n,) float64
        With which the baseline is fitted, and rows are whitened.

    Raises
    ------
    InputError
        If there are no rows to fit or none held out, or fewer independent rows than columns.
    """

    def __init__(self, X: Array, y: Array, kind: Array, group: Array, held_out: Array, weights: Array) -> None:
        if held_out.all() or not held_out.any():
            raise InputError("weights need rows to fit and rows held out; there are none of one sort")
        train = ~held_out
        A = X[train] * weights[train, None]
        scale = np.linalg.norm(A, axis=0)
        if not scale.all() or len(A) < X.shape[1]:
            raise InputError(
                f"{X.shape[1]} coefficients are not determined by {len(A)} rows with these weights; take fewer columns"
            )
        Q, R = scipy.linalg.qr(A / scale, mode="economic", check_finite=False)
        if np.abs(np.diag(R)).min() < 1e-12 * np.abs(np.diag(R)).max():
            raise InputError("columns depend on each other in the rows that are fitted; leave some out")
        self._R, self._scale = R, scale
        self.baseline = scipy.linalg.solve_triangular(R, Q.T @ (y[train] * weights[train])) / scale
        U = scipy.linalg.solve_triangular(R, (X / scale).T, trans="T", check_finite=False).T
        r = y - X @ self.baseline
        self.train = _sums(U, r, kind, group, train)
        self.held_out = _sums(U, r, kind, group, held_out)

    def fit(self, weights: Mapping[GroupKind, float]) -> Array:
        """``(p,)``: the coefficients of the weighted fit."""
        return self.coefficients(self._solve(weights)[0])

    def coefficients(self, delta: Array) -> Array:
        """Raw coefficients of a whitened difference from the baseline."""
        return np.asarray(self.baseline + scipy.linalg.solve_triangular(self._R, delta) / self._scale)

    def errors(self, weights: Mapping[GroupKind, float]) -> dict[GroupKind, float]:
        """Held-out RMSE of each part."""
        delta, _ = self._solve(weights)
        return {part: float(np.sqrt(one.sum_squared_residuals(delta) / one.n)) for part, one in self.held_out.items()}

    def objective(
        self, weights: Mapping[GroupKind, float], importance: Mapping[GroupKind, float]
    ) -> tuple[float, dict[GroupKind, float]]:
        """Σ importance · ½ ln(MSE + ε²) of held-out parts, ε of `NEGLIGIBLE_ERRORS`, and its derivatives by ln w.

        Parameters
        ----------
        weights : mapping of part to float
            Of the parts that are fitted.
        importance : mapping of part to float
            Of parts that are held out.
        """
        delta, factor = self._solve(weights)
        value, slope = 0.0, np.zeros(len(delta))
        for part, share in importance.items():
            one = self.held_out[part]
            squares = one.sum_squared_residuals(delta) + one.n * NEGLIGIBLE_ERRORS[part[1]] ** 2
            value += share * 0.5 * np.log(squares / one.n)
            slope += share * (one.G @ delta - one.c) / squares
        adjoint = scipy.linalg.cho_solve(factor, slope, check_finite=False)
        gradient = {
            part: float(2 * weights[part] ** 2 * adjoint @ (one.c - one.G @ delta)) for part, one in self.train.items()
        }
        return float(value), gradient

    def _solve(self, weights: Mapping[GroupKind, float]) -> tuple[Array, tuple[Array, bool]]:
        p = len(self.baseline)
        M, c = np.zeros((p, p)), np.zeros(p)
        for part, one in self.train.items():
            square = weights[part] ** 2
            M += square * one.G
            c += square * one.c
        M[np.diag_indices(p)] += RIDGE * max(float(np.trace(M)) / p, 1e-300)
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
    """Weights that minimise the held-out errors that count, not far from where they began.

    The mean of their logarithms is what becomes small, so that a tenth of one error is worth a tenth of another.

    Parameters
    ----------
    moments : GroupMoments
    initial_weights : mapping of part to float
        Positive, for every part that is fitted.
    importance : mapping of part to float
        Of the held-out parts whose errors count.
    regulariser : float
        ρ of ρ Σ (ln w − ln w₀)², which keeps weights that do not matter where they are.
    max_iterations : int
        Of L-BFGS, at most.

    Returns
    -------
    Optimised

    Raises
    ------
    InputError
        If a part of `importance` is not held out, or a weight is missing or not positive.
    """
    parts = list(moments.train)
    _check(moments, parts, initial_weights, importance)
    origin = np.log([initial_weights[part] for part in parts])
    total = sum(importance.values())
    shares = {part: share / total for part, share in importance.items()}
    evaluations = 0

    def cost(logs: Array) -> tuple[float, Array]:
        nonlocal evaluations
        evaluations += 1
        value, gradient = moments.objective(dict(zip(parts, np.exp(logs), strict=True)), shares)
        away = logs - origin
        slope = np.array([gradient[part] for part in parts]) + 2 * regulariser * away
        return value + regulariser * float(away @ away), slope

    bounds = [(one - np.log(SPAN), one + np.log(SPAN)) for one in origin]
    found = scipy.optimize.minimize(
        cost, origin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": max_iterations}
    )
    weights = dict(zip(parts, np.exp(found.x).tolist(), strict=True))
    before, after = (moments.objective(one, shares)[0] for one in (initial_weights, weights))
    return OptimisedWeights(
        weights, moments.errors(initial_weights), moments.errors(weights), (before, after), evaluations
    )


def trace_weight_front(
    moments: GroupMoments,
    initial_weights: Mapping[GroupKind, float],
    objectives: tuple[Mapping[GroupKind, float], Mapping[GroupKind, float]],
    *,
    n_points: int = 9,
    regulariser: float = 0.01,
) -> list[tuple[float, OptimisedWeights, tuple[float, float]]]:
    """Weights between two objectives: optimised for mixtures of both.

    Parameters
    ----------
    moments : GroupMoments
    initial_weights : mapping of part to float
    objectives : two mappings of part to float
        The held-out parts that each of them counts.
    n_points : int
        Mixtures, both ends among them.
    regulariser : float
        As in `optimise_weights`.

    Returns
    -------
    list of (share of the second, Optimised, (first, second))
        The two objectives as geometric means of held-out errors.
    """
    shares = [{part: value / sum(one.values()) for part, value in one.items()} for one in objectives]
    found = []
    for share in np.linspace(0.0, 1.0, n_points).tolist():
        mixed: dict[GroupKind, float] = {}
        for factor, one in zip((1.0 - share, share), shares, strict=True):
            for part, value in one.items():
                mixed[part] = mixed.get(part, 0.0) + factor * value
        best = optimise_weights(moments, initial_weights, mixed, regulariser=regulariser)
        first, second = (float(np.exp(moments.objective(best.weights, one)[0])) for one in shares)
        found.append((share, best, (first, second)))
    return found


def _check(
    moments: GroupMoments,
    parts: Sequence[GroupKind],
    start: Mapping[GroupKind, float],
    importance: Mapping[GroupKind, float],
) -> None:
    for group, kind in parts:
        if not start.get((group, kind), 0.0) > 0:
            raise InputError(f"the {kind.name.lower()} weight of group '{group}' must be positive to be optimised")
    for part in importance:
        if part not in moments.held_out:
            raise InputError(f"group '{part[0]}' has no held-out {part[1].name.lower()} rows whose error could count")
    if not importance or not sum(importance.values()) > 0:
        raise InputError("no error is to be made small; name at least one group and kind")


def _sums(U: Array, r: Array, kind: Array, group: Array, rows: Array) -> dict[GroupKind, GroupSums]:
    found: dict[GroupKind, GroupSums] = {}
    for name in dict.fromkeys(group[rows].tolist()):
        for row_kind in RowKind:
            own = rows & (group == name) & (kind == row_kind)
            if own.any():
                V, s = U[own], r[own]
                found[str(name), row_kind] = GroupSums(V.T @ V, V.T @ s, float(s @ s), int(own.sum()))
    return found
