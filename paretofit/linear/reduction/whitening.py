"""Whitening: a triangular transformation after which the columns of all rows are orthonormal.

R₀ is the triangle of the weighted rows, [w X] = Q R₀, so that the rows U = X R₀⁻¹ of well-distributed subsets are
moderately conditioned, though X may not be. R₀ is upper triangular, so the first p columns of U span the first p
columns of X, and smaller models remain leading blocks (see `paretofit.linear.reduction`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from scipy.linalg import blas, lapack

from paretofit.core import Array, InputError, RowKind
from paretofit.linear.factor import compute_column_scales, estimate_reciprocal_condition
from paretofit.linear.reduction.linalg import CPU, Device, concatenate, solve_rows, to_numpy, update_qr

MAX_DEPENDENT_RESIDUAL = 1e-12  # relative residual below which a column is dependent on earlier ones: pure rounding
WHITENING_ROWS = 128  # number of rows that are whitened at once; it is constant, because rounding may depend on it
MAX_RELATIVE_ZERO_NORM = 1e-14  # a column of norm below this fraction of its norm in all rows counts as zero


@dataclass(frozen=True)
class Whitening:
    """The triangular factor R₀ and the columns to which it applies.

    Attributes
    ----------
    retained_columns : (P,) int64
        Columns of X that are not linearly dependent on earlier ones, ascending.
    dropped_columns : (n_dropped,) int64
        The other columns.
    R : (P, P) float64
        Upper triangular.
    dropped_coefficients : (P, n_dropped) float64
        Dropped columns as combinations of the columns of U.
    """

    retained_columns: Array
    dropped_columns: Array
    R: Any
    dropped_coefficients: Array

    @classmethod
    def from_triangle(cls, T: Array, p: int) -> tuple[Whitening, Array]:
        """Compute R₀ from the triangle T of weighted rows [X | Y]; return also θ of a fit of Y, ``(P, n_levels)``.

        Parameters
        ----------
        T : (p + n_levels, p + n_levels) float64
            Upper triangular.
        p : int
            Number of columns of X.

        Raises
        ------
        InputError
            If all columns are zero.
        """
        is_dependent = np.abs(np.diag(T)[:p]) <= MAX_DEPENDENT_RESIDUAL * np.linalg.norm(T[:, :p], axis=0)
        retained_columns, dropped_columns = np.flatnonzero(~is_dependent), np.flatnonzero(is_dependent)
        if not retained_columns.size:
            raise InputError("all columns of the design are zero; check the descriptors")
        if dropped_columns.size:
            T = update_qr(CPU.zeros(*T.shape), T[:, [*retained_columns, *dropped_columns, *range(p, len(T))]])
        P = len(retained_columns)
        return cls(retained_columns, dropped_columns, np.asfortranarray(T[:P, :P]), T[:P, P:p].copy()), T[:P, p:].copy()

    @property
    def unwhitening(self) -> Array:
        """The matrix R₀ of X = U R₀, including dropped columns, ``(P, p)``; elements below its diagonal are zero."""
        R = np.empty((len(self.retained_columns), len(self.retained_columns) + len(self.dropped_columns)), order="F")
        R[:, self.retained_columns], R[:, self.dropped_columns] = to_numpy(self.R), self.dropped_coefficients
        return R

    def to(self, device: Device) -> Whitening:
        """Return a copy with R₀ on a device."""
        return replace(self, R=device.put(to_numpy(self.R)))

    def apply(self, X: Any) -> Any:
        """Compute the whitened rows U = X R₀⁻¹, ``(n, P)``, of rows X ``(n, p)``."""
        return solve_rows(self.R, self.select_columns(X))

    def to_raw_rows(self, U: Array) -> Array:
        """Compute the raw rows X = U R₀, ``(n, p)``; columns that are zero to rounding are set to zero.

        If U has only the first q whitened columns, later raw columns are zero.
        """
        q, X = U.shape[1], np.zeros((len(U), len(self.retained_columns) + len(self.dropped_columns)), order="F")
        R = np.asfortranarray(to_numpy(self.R)[:q, :q])
        X[:, self.retained_columns[:q]] = blas.dtrmm(1.0, R, U, side=1)
        X[:, self.dropped_columns] = U @ self.dropped_coefficients[:q]
        norms = np.linalg.norm(self.unwhitening, axis=0)
        X[:, np.linalg.norm(X, axis=0) <= MAX_RELATIVE_ZERO_NORM * norms] = 0.0
        return X

    def select_columns(self, X: Any) -> Any:
        """Return the retained columns of X, ``(n, P)``, without a copy if no column is dropped."""
        return X[:, self.retained_columns] if len(self.dropped_columns) else X[:, : len(self.retained_columns)]

    def to_raw_coefficients(self, coefficients: Any) -> Array:
        """Convert whitened coefficients, ``(p, n_fits)``, to those of the first p retained raw columns."""
        p = len(coefficients)
        R = np.asfortranarray(to_numpy(self.R)[:p, :p])
        return np.asarray(lapack.dtrtrs(R, np.asfortranarray(to_numpy(coefficients)), lower=0)[0])

    def estimate_condition(self, P: int) -> float:
        """Estimate the condition number of the first `P` retained columns of the weighted rows.

        The columns are scaled to unit norm; the estimate is computed from R₀ in the 1-norm.
        """
        R = self.R[:P, :P]
        return 1.0 / estimate_reciprocal_condition(R / compute_column_scales(R))

    def count_retained(self, p: int) -> int:
        """Count the retained columns among the first `p` columns of X."""
        return int(np.searchsorted(self.retained_columns, p))


@dataclass(frozen=True)
class WhitenedBasis:
    """The basis in which rows are whitened, with the model sizes and the baseline of the targets.

    Attributes
    ----------
    sizes : (n_sizes,) int64
        Number of leading columns of X in each model, ascending.
    whitening : Whitening
        R₀ and the retained columns.
    weights : (3,) float64
        w_E, w_F, w_S of the whitening.
    baseline : (P, n_levels) float64
        Whitened coefficients θ of a fit of each level, whose residuals are the targets of whitened rows.
    train_squared_norms : mapping of RowKind to (p,) float64
        Squared norms of the raw columns of the training rows.
    n_unpenalised : int
        Number of leading columns of X without ridge penalty.
    """

    sizes: Array
    whitening: Whitening
    weights: Array
    baseline: Any
    train_squared_norms: dict[RowKind, Array]
    n_unpenalised: int

    @property
    def whitened_sizes(self) -> Array:
        """Number of leading whitened columns in each model, ``(n_sizes,)``."""
        return np.array([self.whitening.count_retained(int(p)) for p in self.sizes])

    @property
    def n_levels(self) -> int:
        """Number of convergence levels."""
        return int(self.baseline.shape[1])

    def pair_with_reference(self, delta: Array, level: int | None = None) -> tuple[Array, Array]:
        """Stack the coefficients of fits twice: for residuals against their levels, and against the last level.

        Parameters
        ----------
        delta : (P, n_fits * n_levels) float64
            `ModelFit.delta` of some fits side by side.
        level : int, optional
            Position of the level of all fits, which then have one column each.

        Returns
        -------
        deltas : (P, 2 * n_fits * n_levels) float64
            The second half is relative to the baseline of the last level.
        levels : (2 * n_fits * n_levels,) int64
            Position of the level with whose labels each column is compared.
        """
        n, levels = delta.shape[1], self._list_levels(delta, level)
        reference_delta = delta + (self.baseline - self.baseline[:, -1:])[:, levels]
        return np.hstack([delta, reference_delta]), np.concatenate([levels, np.full(n, self.n_levels - 1)])

    def add_baseline(self, delta: Array, level: int | None = None) -> Array:
        """Return the whitened coefficients θ + δ of fits, ``(P, n_fits * n_levels)``, as in `pair_with_reference`."""
        return np.asarray(delta + to_numpy(self.baseline)[:, self._list_levels(delta, level)])

    def _list_levels(self, delta: Array, level: int | None) -> Array:
        """List the positions of the levels of all columns."""
        n = delta.shape[1]
        return np.arange(n) % self.n_levels if level is None else np.full(n, level)

    def to(self, device: Device) -> Self:
        """Return a copy that whitens rows on a device."""
        return replace(self, whitening=self.whitening.to(device), baseline=device.put(to_numpy(self.baseline)))

    def whiten(self, X: Any, Y: Any) -> Any:
        """Whiten rows of a design, and subtract the baseline from their labels: [U | Y − U θ], ``(n, P + n_levels)``.

        On the processor, rows are whitened in groups of `WHITENING_ROWS`, so that results do not depend on the size of
        X, if X starts at a multiple of this number in the design.
        """
        size, groups = WHITENING_ROWS if isinstance(X, np.ndarray) else len(X), []
        for k in range(0, len(X), size):
            U = self.whitening.apply(X[k : k + size])
            groups.append(concatenate([U, Y[k : k + size] - U @ self.baseline], 1))
        if not groups:
            return self.baseline[:0, :0].reshape(0, sum(self.baseline.shape))  # no rows, on the device of the baseline
        return concatenate(groups, 0)
