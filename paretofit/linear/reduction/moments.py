"""Moments and triangular factors of whitened rows, from which fits and errors are computed without the rows.

Targets are residuals of a baseline fit, one for each 2Jmax and level. Every term of
‖y' − U δ‖² = y'ᵀy' − 2 cᵀδ + δᵀGδ is then of the size of the residual itself, so that no digits cancel.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from paretofit.core import Array, RowKind
from paretofit.linear.factor import compute_column_scales, estimate_reciprocal_condition
from paretofit.linear.reduction import linalg
from paretofit.linear.reduction.linalg import CPU, Device, to_numpy

MIN_RELATIVE_REMAINDER = 1e-5  # of the size of the terms, whose rounding of 1e-15 is then 1e-10 of the remainder


@dataclass
class KindMoments:
    """Sums over the rows of one kind.

    The sums are G = Σ u uᵀ (upper triangle), c = Σ u yᵀ, s = Σ y², the squared norms Σ x² of the raw columns, and the
    number of rows. All arrays are on the same device.
    """

    G: Any
    c: Any
    s: Any
    norms: Any
    n: int = 0

    def add(self, U: Any, Y: Any, X: Any) -> None:
        """Add whitened rows ``(n, P)`` with targets ``(n, n_targets)`` and the raw rows ``(n, P)``."""
        self.norms += linalg.sum_column_squares(X)
        linalg.add_gram(self.G, U)
        self.c += U.T @ Y
        self.s += linalg.sum_column_squares(Y)
        self.n += len(U)

    def merge(self, sums: "KindMoments") -> None:
        """Add the sums of other rows."""
        self.G += sums.G
        self.c += sums.c
        self.s += sums.s
        self.norms += sums.norms
        self.n += sums.n

    def to(self, device: Device) -> "KindMoments":
        """Return a copy on a device."""
        G, c, s, norms = (device.put(to_numpy(array)) for array in (self.G, self.c, self.s, self.norms))
        return KindMoments(G, c, s, norms, self.n)

    def sum_squared_residuals(self, delta: Any, columns: slice) -> tuple[Array, bool]:
        """Compute the sums of squared residuals ‖y − U δ‖² for `delta` ``(p, n)`` and n target columns.

        The second value is true if a sum is so much smaller than its terms that fewer than ten digits remain.
        """
        p = len(delta)
        square = to_numpy(linalg.sum_column_products(linalg.multiply_symmetric(self.G[:p, :p], delta), delta))
        s = to_numpy(self.s[columns])
        total = s - 2 * to_numpy(linalg.sum_column_products(self.c[:p, columns], delta)) + square
        has_cancelled = total < MIN_RELATIVE_REMAINDER * (s + square)
        return np.maximum(total, 0.0), bool(has_cancelled.any())


class Moments:
    """Moments of the rows of each kind."""

    def __init__(self, P: int, n_targets: int, kinds: list[RowKind], device: Device = CPU) -> None:
        self.P, self.device = P, device
        zeros = device.zeros
        self.by_kind = {
            kind: KindMoments(zeros(P, P), zeros(P, n_targets), zeros(n_targets), zeros(P)) for kind in kinds
        }

    def to(self, device: Device) -> "Moments":
        """Return a copy on a device."""
        copy = Moments(self.P, 0, [], device)
        copy.by_kind = {kind: part.to(device) for kind, part in self.by_kind.items()}
        return copy

    def add(self, U: Any, Y: Any, X: Any, kind: Any) -> None:
        """Add rows of one or several kinds."""
        for row_kind, part in self.by_kind.items():
            mask = kind == row_kind
            if mask.any():
                part.add(U[mask], Y[mask], X[mask])

    def merge(self, moments: "Moments") -> None:
        """Add the sums of other rows."""
        for row_kind, part in self.by_kind.items():
            part.merge(moments.by_kind[row_kind])

    def form_normal_equations(self, weights: Array) -> tuple[Any, Any]:
        """Compute M = Σ w² G (upper triangle) and Σ w² c, summed over the kinds."""
        M, c = self.device.zeros(self.P, self.P), 0.0 * next(iter(self.by_kind.values())).c
        for row_kind, part in self.by_kind.items():
            M += float(weights[row_kind] ** 2) * part.G
            c += float(weights[row_kind] ** 2) * part.c
        return M, c

    def compute_column_norms(self, weights: Array) -> Array:
        """Compute the norms of the weighted raw columns, ``(P,)``; 1 for a column of zeros, as in a plain fit."""
        squares = sum(
            (weights[kind] ** 2 * to_numpy(part.norms) for kind, part in self.by_kind.items()), np.zeros(self.P)
        )
        return np.sqrt(np.where(squares > 0, squares, 1.0))


@dataclass(frozen=True)
class NestedFactor:
    """Cholesky factor RᵀR of weighted moments; its leading blocks are the factors of all smaller models.

    Attributes
    ----------
    R : (P, P) float64
        Upper triangular; valid up to `valid_size` rows and columns.
    valid_size : int
        Size of the largest leading block that is positive definite.
    """

    R: Any
    valid_size: int

    @classmethod
    def from_moments(cls, M: Any) -> "NestedFactor":
        """Factorise M (upper triangle; overwritten)."""
        return cls(*linalg.factorise_cholesky(M))

    @cached_property
    def _R_on_cpu(self) -> Array:
        return to_numpy(self.R)

    def estimate_condition(self, p: int) -> float:
        """Estimate the condition number of the leading p × p block of M in the 1-norm, its diagonal scaled to one.

        The scale of the columns does not affect the accuracy of Cholesky, so the estimate does not include it (A. van
        der Sluis, Numer. Math. 14, 14 (1969)).
        """
        if p > self.valid_size:
            return float("inf")
        R = self._R_on_cpu[:p, :p]
        reciprocal = estimate_reciprocal_condition(R / compute_column_scales(R))
        return float(1.0 / reciprocal**2) if reciprocal > 0 else float("inf")

    def solve(self, c: Any) -> Any:
        """Compute M_pp⁻¹ c for right-hand sides c, ``(p, n)``."""
        p = len(c)
        return linalg.solve_factored(self.R[:p, :p], c)


@dataclass
class ResidualFactor:
    """Triangular factor of the augmented rows [1 | U | Y] of one kind, for errors without cancellation.

    With [1 | U | Y] = Q R, computed block by block, the sum of squares of U δ − y equals that of the same combination
    of the columns of R, because Q does not change lengths. The column of ones comes first, so that the first row of R
    contains the means.

    Attributes
    ----------
    P : int
        Number of columns of U.
    n : int
        Number of rows that have been added.
    """

    P: int
    n: int = 0
    _R: Any = None
    _pending: list[Any] = field(default_factory=list)

    def add(self, U: Any, Y: Any) -> None:
        """Add rows, which are buffered until there are enough for an efficient update of the factor."""
        self._append(linalg.concatenate([linalg.get_array_device(U).zeros(len(U), 1) + 1.0, U, Y], 1))
        self.n += len(U)

    def merge(self, factor: "ResidualFactor") -> None:
        """Add the rows of another factor."""
        if factor.n:
            self._append(factor.R)
            self.n += factor.n

    def _append(self, rows: Any) -> None:
        self._pending.append(rows)
        if sum(map(len, self._pending)) > linalg.get_qr_batch_size(rows):
            self.finish()

    def finish(self) -> None:
        """Update the factor with the buffered rows."""
        if self._pending:
            rows = linalg.concatenate(self._pending, 0)
            width = rows.shape[1]
            self._R = linalg.update_qr(
                linalg.get_array_device(rows).zeros(width, width) if self._R is None else self._R, rows
            )
            self._pending = []

    @property
    def R(self) -> Any:
        """Upper triangular factor of all rows; its last rows are zero if there are fewer rows than columns."""
        self.finish()
        return self._R if self._R is not None else CPU.zeros(0, self.P + 1)

    def to(self, device: Device) -> "ResidualFactor":
        """Return a copy on a device."""
        return ResidualFactor(self.P, self.n, device.put(to_numpy(self.R)))

    def sum_squared_residuals(self, delta: Any, columns: Array) -> tuple[Array, Array]:
        """Compute the sums of squares of U δ − y, about zero and about their mean, each ``(n,)``.

        Parameters
        ----------
        delta : (p, n) float64
        columns : (n,) int64
            Target column for each column of `delta`.
        """
        R = self.R
        combined = R[:, 1 : 1 + len(delta)] @ delta - R[:, 1 + self.P + columns]
        return to_numpy(linalg.sum_column_squares(combined)), to_numpy(linalg.sum_column_squares(combined[1:]))
