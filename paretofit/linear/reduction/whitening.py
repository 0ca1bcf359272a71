"""Whitening: a triangular transformation of the columns after which normal equations are accurate.

The Gram matrix of the weighted, column-scaled rows, with a tiny shift, has a Cholesky factor R₀ such that
U = X R₀⁻¹ is moderately conditioned, though X may not be. R₀ is upper triangular, so the first p columns of
U span the first p columns of X, and smaller models remain leading blocks (see `paretofit.linear.reduction`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.linalg import blas, lapack

from paretofit.core import Array, InputError
from paretofit.linear.factor import compute_column_scales, estimate_reciprocal_condition
from paretofit.linear.reduction.linalg import CPU, Device, add_gram, solve_rows, sum_column_squares, to_numpy
from paretofit.linear.reduction.streaming import SERIAL_MAPPER, ArraySums, Part, PartMapper, RowBlock, sum_parts

GRAM_SHIFT = 1e-14  # of the scaled Gram's mean diagonal, which is 1
MAX_SUSPECT_PIVOT = 1e-11  # a pivot (squared sine of the angle to earlier columns) below this may be a dependent column
MAX_DEPENDENT_RESIDUAL = 1e-12  # relative residual below which a column is dependent on earlier ones: pure rounding


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

    @property
    def unwhitening(self) -> Array:
        """The matrix of X = U R₀, with dropped columns, ``(P, p)``; elements below its diagonal are zero."""
        R = np.empty((len(self.retained_columns), len(self.retained_columns) + len(self.dropped_columns)), order="F")
        R[:, self.retained_columns], R[:, self.dropped_columns] = to_numpy(self.R), self.dropped_coefficients
        return R

    def to(self, device: Device) -> Whitening:
        """Return a copy with R₀ on a device."""
        return replace(self, R=device.put(to_numpy(self.R)))

    def apply(self, X: Any) -> Any:
        """Compute the whitened rows U = X R₀⁻¹, ``(n, P)``, of rows X ``(n, p)``."""
        return solve_rows(self.R, self.select_columns(X))

    def select_columns(self, X: Any) -> Any:
        """Return the retained columns of X, ``(n, P)``, without a copy if no column is dropped."""
        return X[:, self.retained_columns] if len(self.dropped_columns) else X[:, : len(self.retained_columns)]

    def solve_transposed(self, c: Array) -> Array:
        """Convert products c of raw columns with targets, ``(p, n)``, to those of whitened columns, R₀⁻ᵀ c ``(P, n)``.

        The whitened Gram matrix of the training rows is nearly the unit matrix, so the result is also the coefficients
        of an approximate fit.
        """
        return np.asarray(blas.dtrsm(1.0, self.R, c[self.retained_columns], side=0, lower=0, trans_a=1))

    def to_raw(self, coefficients: Any) -> Array:
        """Convert whitened coefficients, ``(p, n)``, to those of the first p retained raw columns, ``(p, n)``."""
        p = len(coefficients)
        R = np.asfortranarray(to_numpy(self.R)[:p, :p])
        return np.asarray(lapack.dtrtrs(R, np.asfortranarray(to_numpy(coefficients)), lower=0)[0])

    def estimate_condition(self, P: int) -> float:
        """Estimate the condition number of the first `P` retained columns of the weighted training rows.

        The columns are scaled to unit norm. The estimate is computed from R₀ in the 1-norm, and is at most about 1e7
        because of the shift.
        """
        R = self.R[:P, :P]
        return 1.0 / estimate_reciprocal_condition(R / compute_column_scales(R))

    def count_retained(self, p: int) -> int:
        """Count the retained columns among the first `p` columns of X."""
        return int(np.searchsorted(self.retained_columns, p))


class GramAccumulator:
    """Sums of the first pass over all rows, which runs at the rate of a matrix product.

    Attributes
    ----------
    G : (p, p) float64
        Gram matrix of the weighted training rows (upper triangle). All arrays are on the device until `finish`.
    c : (p, n_levels) float64
        Weighted products with the targets.
    norms : (p,) float64
        Squared column norms over training and test rows.
    kinds : set of int
        `RowKind` of the rows.
    n_train, n_test : int
        Numbers of rows.
    """

    def __init__(self, weights: Array, p: int, n_levels: int, device: Device = CPU) -> None:
        self.weights, self.device = device.put(weights), device
        self.G, self.c, self.norms = device.zeros(p, p), device.zeros(p, n_levels), device.zeros(p)
        self.kinds: set[int] = set()
        self.n_train = self.n_test = 0

    def add(self, block: RowBlock) -> None:
        """Add a block of rows."""
        if not (np.isfinite(block.X).all() and np.isfinite(block.Y).all()):
            raise InputError("rows and targets must be finite; remove the configurations without labels")
        self.kinds |= set(np.unique(block.kind).tolist())
        n_train, n = int(block.is_train.sum()), len(block.X)
        self.n_train, self.n_test = self.n_train + n_train, self.n_test + n - n_train
        X, Y, kind, _, train = block.to(self.device)
        w = self.weights[kind][:, None]
        A, Y = X[:, : len(self.norms)] * w, w * Y
        self.norms += sum_column_squares(A)
        if n_train:
            A, Y = (A, Y) if n_train == n else (A[train], Y[train])
            add_gram(self.G, A)
            self.c += A.T @ Y

    def merge(self, sums: GramAccumulator) -> None:
        """Add the sums of another part."""
        self.kinds |= sums.kinds
        self.G += sums.G
        self.c += sums.c
        self.norms += sums.norms
        self.n_train, self.n_test = self.n_train + sums.n_train, self.n_test + sums.n_test

    def finish(self) -> GramAccumulator:
        """Copy the sums to the processor."""
        self.G, self.c, self.norms = np.asfortranarray(to_numpy(self.G)), to_numpy(self.c), to_numpy(self.norms)
        return self


def compute_whitening(
    sums: GramAccumulator, parts: Sequence[Part], weights: Array, mapper: PartMapper = SERIAL_MAPPER
) -> Whitening:
    """Compute R₀; if some columns may depend on earlier ones, test them with two more passes over the rows.

    Parameters
    ----------
    sums : GramAccumulator
        Sums of the first pass, after `finish`.
    parts : sequence of callable
        The rows that were summed.
    weights : (3,) float64
        w_E, w_F, w_S of the first pass.
    mapper : PartMapper

    Raises
    ------
    InputError
        If all columns are zero.
    """
    p = len(sums.norms)
    columns = np.flatnonzero(sums.norms > 0)
    if not columns.size:
        raise InputError("all columns of the design are zero")
    R, pivots = _factorise_shifted(sums.G, columns)
    suspects = columns[pivots < MAX_SUSPECT_PIVOT]
    dependent, combinations = columns[:0], np.zeros((p, 0))
    if suspects.size:
        independent = np.setdiff1d(columns, suspects)
        R_independent = _factorise_shifted(sums.G, independent)[0]
        whitening = Whitening(independent, suspects, R_independent, np.zeros((len(independent), len(suspects))))
        dependent, combinations = _find_dependent_columns(parts, weights, whitening, p, mapper)
        columns = np.setdiff1d(columns, dependent)
        R, _ = _factorise_shifted(sums.G, columns)
    dropped = np.setdiff1d(np.arange(p), columns)
    coefficients = np.zeros((len(columns), len(dropped)))
    coefficients[:, np.searchsorted(dropped, dependent)] = R @ combinations[columns]
    return Whitening(columns, dropped, R, coefficients)


def _factorise_shifted(G: Array, columns: Array) -> tuple[Array, Array]:
    """Factorise G, restricted to some columns, by Cholesky; return also the pivots relative to the squared norms."""
    diagonal = np.diag(G)[columns]
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))  # a column may be zero in training rows only
    S = G[np.ix_(columns, columns)] / np.outer(scale, scale)
    shift = GRAM_SHIFT
    while True:
        shifted = np.asfortranarray(S)
        shifted[np.diag_indices(len(columns))] += shift
        R, info = lapack.dpotrf(shifted, lower=0, clean=1, overwrite_a=1)
        if info == 0:
            return np.asfortranarray(R * scale), np.diag(R) ** 2
        shift *= 10  # rounding errors in the Gram matrix of many rows can exceed the smallest shift


def _find_dependent_columns(
    parts: Sequence[Part], weights: Array, whitening: Whitening, n_columns: int, mapper: PartMapper
) -> tuple[Array, Array]:
    """Find the dropped columns that are linear combinations of earlier retained columns in all rows.

    Each dropped column is fitted to the earlier whitened columns, and its residual is computed from the rows, where it
    is exact to rounding, unlike the pivot of a Gram matrix. The coefficients of the combinations, ``(p, n_dependent)``,
    are returned, too.
    """
    suspects = whitening.dropped_columns
    combinations = np.zeros((n_columns, len(suspects)))
    gram, products = sum_parts(parts, partial(ArraySums, partial(_project, whitening, weights)), mapper).arrays
    L, info = lapack.dpotrf(gram, lower=0, clean=1)
    if info:  # the retained columns are not independent either, so every fit determines its rank
        return suspects[:0], combinations[:, :0]
    coefficients = np.zeros_like(products)
    for k, q in enumerate(np.searchsorted(whitening.retained_columns, suspects)):
        coefficients[:q, k] = lapack.dpotrs(np.asfortranarray(L[:q, :q]), products[:q, k : k + 1], lower=0)[0][:, 0]
    measure = partial(_measure_dependence, whitening, weights, coefficients)
    residual, norm = sum_parts(parts, partial(ArraySums, measure), mapper).arrays
    combinations[whitening.retained_columns] = whitening.to_raw(coefficients)
    is_dependent = residual <= MAX_DEPENDENT_RESIDUAL**2 * norm
    return suspects[is_dependent], combinations[:, is_dependent]


def _project(whitening: Whitening, weights: Array, block: RowBlock) -> tuple[Array, Array]:
    """Compute the products of the whitened retained columns with each other and with the dropped columns."""
    A = block.X * weights[block.kind][:, None]
    U, gram = whitening.apply(A), CPU.zeros(*whitening.R.shape)
    add_gram(gram, U)
    return gram, U.T @ A[:, whitening.dropped_columns]


def _measure_dependence(
    whitening: Whitening, weights: Array, coefficients: Array, block: RowBlock
) -> tuple[Array, Array]:
    """Sum the squares of the residuals of the dropped columns after a fit to retained ones, and of these columns."""
    A = block.X * weights[block.kind][:, None]
    dropped = A[:, whitening.dropped_columns]
    return sum_column_squares(dropped - whitening.apply(A) @ coefficients), sum_column_squares(dropped)
