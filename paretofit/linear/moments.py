"""Moments of whitened rows by kind: what a fit and its training errors need, whatever the number of rows.

Targets are residuals of a baseline fit, one for each 2Jmax and level. Then every term of
‖y' − U δ‖² = y'ᵀy' − 2 cᵀδ + δᵀGδ is of the size of the residual itself, and nothing cancels.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import blas, lapack

from paretofit.kinds import RowKind
from paretofit.linear.factor import Array
from paretofit.linear.native import add_gram
from paretofit.linear.whitening import square

CANCELLED = 1e-5  # of the terms' size: rounding of about 1e-15 in them is then 1e-10 in what is left


@dataclass
class KindMoments:
    """Sums over the rows of one kind.

    G = Σ u uᵀ (upper triangle), c = Σ u yᵀ, s = Σ y², the squared norms Σ x² of the raw columns, and the number.
    """

    G: Array
    c: Array
    s: Array
    norms: Array
    n: int = 0

    def add(self, U: Array, Y: Array, X: Array) -> None:
        """Add whitened rows ``(n, P)`` with targets ``(n, n_targets)`` and the raw rows ``(n, P)``."""
        self.norms += np.einsum("ij,ij->j", X, X)
        add_gram(self.G, np.ascontiguousarray(U))
        self.c += U.T @ Y
        self.s += np.einsum("ij,ij->j", Y, Y)
        self.n += len(U)

    def squares(self, delta: Array, columns: slice) -> tuple[Array, bool]:
        """Sums of squared residuals ‖y − U δ‖² for `delta` ``(p, n)`` and as many target columns.

        Also whether one is so much smaller than its terms that it has fewer than ten digits left.
        """
        p = len(delta)
        Gd = blas.dsymm(1.0, self.G[:p, :p], delta, lower=0)
        square = np.einsum("ij,ij->j", Gd, delta)
        total = self.s[columns] - 2 * np.einsum("ij,ij->j", self.c[:p, columns], delta) + square
        cancelled = total < CANCELLED * (self.s[columns] + square)
        return np.maximum(total, 0.0), bool(cancelled.any())


class Moments:
    """`KindMoments` for every kind of row that occurs."""

    def __init__(self, P: int, n_targets: int, kinds: list[RowKind]) -> None:
        self.P = P
        self.parts = {
            kind: KindMoments(square(P), np.zeros((P, n_targets)), np.zeros(n_targets), np.zeros(P)) for kind in kinds
        }

    def add(self, U: Array, Y: Array, X: Array, kind: Array) -> None:
        """Add rows of any kinds."""
        for row_kind, part in self.parts.items():
            own = kind == row_kind
            if own.any():
                part.add(U[own], Y[own], X[own])

    def merge(self, other: "Moments") -> None:
        """Add the sums of other rows."""
        for row_kind, part in self.parts.items():
            more = other.parts[row_kind]
            part.G += more.G
            part.c += more.c
            part.s += more.s
            part.norms += more.norms
            part.n += more.n

    def weighted(self, weights: Array) -> tuple[Array, Array]:
        """M = Σ w² G (upper triangle) and Σ w² c over kinds."""
        M, c = square(self.P), np.zeros_like(next(iter(self.parts.values())).c)
        for row_kind, part in self.parts.items():
            M += weights[row_kind] ** 2 * part.G
            c += weights[row_kind] ** 2 * part.c
        return M, c

    def column_norms(self, weights: Array) -> Array:
        """``(P,)``: norms of the weighted raw columns; 1 for a column of zeros, as in a plain fit."""
        squares = sum((weights[kind] ** 2 * part.norms for kind, part in self.parts.items()), np.zeros(self.P))
        return np.sqrt(np.where(squares > 0, squares, 1.0))


@dataclass(frozen=True)
class NestedFactor:
    """Cholesky factor RᵀR of weighted moments; its leading blocks are the factors of all smaller models.

    Attributes
    ----------
    R : (P, P) float64
        Upper triangular; valid up to `valid` rows and columns.
    valid : int
        Size of the largest leading block that is positive definite.
    """

    R: Array
    valid: int

    @classmethod
    def of(cls, M: Array) -> "NestedFactor":
        """Factorise M (upper triangle; overwritten)."""
        R, info = lapack.dpotrf(M, lower=0, clean=1, overwrite_a=1)
        return cls(R, info - 1 if info > 0 else len(R))

    def condition(self, p: int) -> float:
        """Estimate of the condition number of the leading block of M, its diagonal scaled to one (1-norm).

        Cholesky does not mind how columns are scaled, so neither does the estimate (A. van der Sluis, Numer.
        Math. 14, 14 (1969)).
        """
        if p > self.valid:
            return float("inf")
        R = self.R[:p, :p]
        norms = np.sqrt(np.einsum("ij,ij->j", R, R))
        if not norms.all():
            return float("inf")
        reciprocal, _ = lapack.dtrcon(np.asfortranarray(R / norms), norm="1", uplo="U")
        return float(1.0 / reciprocal**2) if reciprocal > 0 else float("inf")

    def solve(self, c: Array) -> Array:
        """M_pp⁻¹ c for ``(p, n)`` right-hand sides."""
        p = len(c)
        return np.asarray(lapack.dpotrs(np.asfortranarray(self.R[:p, :p]), c, lower=0)[0])
