"""Whitening: a triangular change of columns after which normal equations are safe (DESIGN §4.3).

The Gram matrix of the weighted, column-scaled rows, with a tiny shift, has a Cholesky factor R₀ such that
U = X R₀⁻¹ is moderately conditioned, though X may not be. R₀ is upper triangular, so the first p columns of
U span the first p columns of X: smaller models stay leading blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import lapack

from paretofit.core import InputError
from paretofit.linear.reduction.device import CPU, Device, add_gram, column_squares, solve_rows, to_numpy
from paretofit.linear.reduction.streaming import SERIAL_MAPPER, Part, PartMapper, sum_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paretofit.core import Array
    from paretofit.linear.reduction.row_block import RowBlock

SHIFT = 1e-14  # of the scaled Gram's mean diagonal, which is 1
SUSPECT = 1e-11  # a pivot (squared sine of the angle to earlier columns) below this may be a dependent column
DEPENDENT = 1e-12  # as small as rounding leaves it: relative residual below which a column is dependent on earlier ones


@dataclass(frozen=True)
class Whitening:
    """R₀ and the columns that it is for.

    Attributes
    ----------
    retained_columns : (P,) int64
        Columns of X that are not linearly dependent on earlier ones, ascending.
    dropped_columns : (n_dropped,) int64
        The others.
    R : (P, P) float64
        Upper triangular.
    """

    retained_columns: Array
    dropped_columns: Array
    R: Any

    def to(self, device: Device) -> Whitening:
        """The same with R₀ on a device."""
        return replace(self, R=device.put(to_numpy(self.R)))

    def apply(self, X: Any) -> Any:
        """``(n, P)``: U = X R₀⁻¹ for unweighted rows X ``(n, p)``."""
        return solve_rows(self.R, self.select_columns(X))

    def select_columns(self, X: Any) -> Any:
        """``(n, P)``: the kept columns of X, without a copy where none is dropped."""
        return X[:, self.retained_columns] if len(self.dropped_columns) else X[:, : len(self.retained_columns)]

    def condition(self, P: int) -> float:
        """Condition number of the first `P` kept columns of the training rows, weighted and scaled to unit norm.

        A 1-norm estimate from R₀; the shift hides what lies beyond 1e7.
        """
        R = self.R[:P, :P]
        norms = np.sqrt(np.einsum("ij,ij->j", R, R))
        return float(1.0 / lapack.dtrcon(np.asfortranarray(R / norms), norm="1", uplo="U")[0])

    def count_retained(self, p: int) -> int:
        """Kept columns among the first `p` of X."""
        return int(np.searchsorted(self.retained_columns, p))


class GramAccumulator:
    """What one look at all rows gives, at the rate of a matrix product.

    Attributes
    ----------
    G : (p, p) float64
        Gram matrix of the weighted training rows (upper triangle). Arrays are on `device` until `finish`.
    c : (p, n_levels) float64
        Weighted products with the targets.
    norms : (p,) float64
        Squared column norms over training and test rows.
    kinds : set of int
    n_train, n_test : int
    """

    def __init__(self, weights: Array, p: int, n_levels: int, device: Device = CPU) -> None:
        self.weights, self.device = device.put(weights), device
        self.G, self.c, self.norms = device.zeros(p, p), device.zeros(p, n_levels), device.zeros(p)
        self.kinds: set[int] = set()
        self.n_train = self.n_test = 0

    def add(self, block: RowBlock) -> None:
        """Add a block of rows."""
        if not (np.isfinite(block.X).all() and np.isfinite(block.Y).all()):
            raise InputError("rows and targets must be finite; leave out what has no label")
        self.kinds |= set(np.unique(block.kind).tolist())
        n_train, n = int(block.is_train.sum()), len(block.X)
        self.n_train, self.n_test = self.n_train + n_train, self.n_test + n - n_train
        X, Y, kind, _, train = block.to(self.device)
        w = self.weights[kind][:, None]
        A, Y = X[:, : len(self.norms)] * w, w * Y
        self.norms += column_squares(A)
        if n_train:
            A, Y = (A, Y) if n_train == n else (A[train], Y[train])
            add_gram(self.G, A)
            self.c += A.T @ Y

    def merge(self, other: GramAccumulator) -> None:
        """Add another part's sums."""
        self.G += other.G
        self.c += other.c
        self.norms += other.norms
        self.kinds |= other.kinds
        self.n_train, self.n_test = self.n_train + other.n_train, self.n_test + other.n_test

    def finish(self) -> GramAccumulator:
        """Bring the sums to the processor."""
        self.G, self.c, self.norms = np.asfortranarray(to_numpy(self.G)), to_numpy(self.c), to_numpy(self.norms)
        return self


def compute_whitening(
    sums: GramAccumulator, parts: Sequence[Part], weights: Array, mapper: PartMapper = SERIAL_MAPPER
) -> Whitening:
    """Find R₀; if a column is suspect of depending on earlier ones, two more passes decide.

    Parameters
    ----------
    sums : FirstPass
        Finished.
    parts : sequence of callable
        What was summed.
    weights : (3,) float64
        w_E, w_F, w_S of the first pass.
    mapper : Run

    Raises
    ------
    InputError
        If no column is different from zero.
    """
    p = len(sums.norms)
    kept = np.flatnonzero(sums.norms > 0)
    if not kept.size:
        raise InputError("all columns of the design are zero")
    R, pivots = _shifted_factor(sums.G, kept)
    suspects = kept[pivots < SUSPECT]
    if suspects.size:
        clear = np.setdiff1d(kept, suspects)
        dependent = _dependent(parts, weights, _shifted_factor(sums.G, clear)[0], clear, suspects, mapper)
        kept = np.setdiff1d(kept, dependent)
        R, _ = _shifted_factor(sums.G, kept)
    return Whitening(kept, np.setdiff1d(np.arange(p), kept), R)


def _shifted_factor(G: Array, kept: Array) -> tuple[Array, Array]:
    """Cholesky factor of G restricted to `kept`, and the pivots relative to the squared column norms."""
    diagonal = np.diag(G)[kept]
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))  # a column may be zero in training rows only
    S = G[np.ix_(kept, kept)] / np.outer(scale, scale)
    shift = SHIFT
    while True:
        shifted = np.asfortranarray(S)
        shifted[np.diag_indices(len(kept))] += shift
        R, info = lapack.dpotrf(shifted, lower=0, clean=1, overwrite_a=1)
        if info == 0:
            return np.asfortranarray(R * scale), np.diag(R) ** 2
        shift *= 10  # rounding in a Gram of many rows can exceed the smallest shift


def _dependent(
    parts: Sequence[Part], weights: Array, R: Array, clear: Array, suspects: Array, run: PartMapper
) -> Array:
    """Suspects that are combinations of earlier columns in every row, to training and test rows alike.

    Each is fitted to the whitened earlier columns, and the residual is measured on the rows themselves,
    where it is exact to rounding, which the pivot of a Gram matrix is not.
    """
    whitening = Whitening(clear, suspects, R)
    fit = sum_parts(parts, partial(_Projection, whitening, weights), run)
    L, info = lapack.dpotrf(fit.G, lower=0, clean=1)
    if info:
        return suspects[:0]  # the clear columns are not independent either: leave it to each fit
    coefficients = np.zeros_like(fit.C)
    for k, q in enumerate(np.searchsorted(clear, suspects)):
        coefficients[:q, k] = lapack.dpotrs(np.asfortranarray(L[:q, :q]), fit.C[:q, k : k + 1], lower=0)[0][:, 0]
    left = sum_parts(parts, partial(_Remainder, whitening, weights, coefficients), run)
    return np.asarray(suspects[left.residual <= DEPENDENT**2 * left.norm])


class _Projection:
    """Products of the whitened clear columns with each other and with the suspects, which the whitening drops."""

    def __init__(self, whitening: Whitening, weights: Array) -> None:
        P, n = len(whitening.retained_columns), len(whitening.dropped_columns)
        self.whitening, self.weights = whitening, weights
        self.G, self.C = CPU.zeros(P, P), np.zeros((P, n))

    def add(self, block: RowBlock) -> None:
        A = block.X * self.weights[block.kind][:, None]
        U = self.whitening.apply(A)
        add_gram(self.G, U)
        self.C += U.T @ A[:, self.whitening.dropped_columns]

    def merge(self, other: _Projection) -> None:
        self.G += other.G
        self.C += other.C


class _Remainder:
    """What of the suspects' squares their fit to earlier columns leaves."""

    def __init__(self, whitening: Whitening, weights: Array, coefficients: Array) -> None:
        self.whitening, self.weights, self.coefficients = whitening, weights, coefficients
        self.residual = np.zeros(len(whitening.dropped_columns))
        self.norm = np.zeros(len(whitening.dropped_columns))

    def add(self, block: RowBlock) -> None:
        A = block.X * self.weights[block.kind][:, None]
        own = A[:, self.whitening.dropped_columns]
        self.residual += column_squares(own - self.whitening.apply(A) @ self.coefficients)
        self.norm += column_squares(own)

    def merge(self, other: _Remainder) -> None:
        self.residual += other.residual
        self.norm += other.norm
