"""Reduction of a design matrix with any number of rows to a few triangular matrices.

One pass over the rows, block by block, folds those of each kind into triangles, one of training rows and one of test
rows. R₀ and a fit of each level follow from these, and so do the factors of the whitened rows. Afterwards, any fit of a
subset needs only the factors of this subset, and its test errors need no rows. The equations are in
`paretofit.linear.reduction`.

Rows are divided into parts (see `streaming`). Each part is a callable that yields its `RowBlock`s every time it is
called, so that a pass over all parts is a map and a reduction, on threads, a GPU, or a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.core import Array, InputError, RowKind
from paretofit.linear.reduction import linalg
from paretofit.linear.reduction.linalg import CPU, Device
from paretofit.linear.reduction.row_factor import RowFactor
from paretofit.linear.reduction.streaming import (
    SERIAL_MAPPER,
    Part,
    PartMapper,
    Parts,
    RowBlock,
    iterate_blocks,
    map_blocks,
    normalise_parts,
    sum_parts,
)
from paretofit.linear.reduction.weighing import RmsErrors, RowFactors
from paretofit.linear.reduction.whitening import WhitenedBasis, Whitening
from paretofit.linear.wls import get_row_weights

TEST_WEIGHT = 1e-6  # weight of test rows in the whitening, where they matter only for columns that training rows lack
StoreRows = Callable[[Any], Any]  # stores an array of whitened rows, and returns it or the path of its file


@dataclass(frozen=True)
class RmsTestErrors(RmsErrors):
    """Root mean squared residuals of the test rows of a kind.

    Attributes
    ----------
    centred_reference : (n_fits * n_levels,) float64
        Against the labels of the last level, about the mean of the residuals.
    """

    centred_reference: Array


class RawFactors:
    """Triangular factors of the rows [X | Y] of each kind, and of [1 | X | Y] for test rows.

    Attributes
    ----------
    n_columns, width : int
        Number of columns of X, and of [X | Y].
    factors : mapping of (RowKind, bool) to RowFactor
        The key is the kind and whether the rows are training rows; on the device until `finish`.
    """

    def __init__(self, n_columns: int, n_levels: int, device: Device = CPU) -> None:
        self.n_columns, self.width, self.device = n_columns, n_columns + n_levels, device
        keys = product(RowKind, (True, False))
        self.factors = {key: RowFactor(self.width + int(not key[1]), device) for key in keys}

    @classmethod
    def from_parts(
        cls, parts: Parts, sizes: Sequence[int], *, mapper: PartMapper = SERIAL_MAPPER, device: Device = CPU
    ) -> RawFactors:
        """Fold the rows of all parts, up to the columns of the largest size; see `Reduction.from_parts`."""
        parts = normalise_parts(parts)
        columns, n_levels = _validate_sizes(parts, sizes)
        return sum_parts(parts, partial(cls, int(columns[-1]), n_levels, device), mapper).finish()

    def add(self, block: RowBlock) -> None:
        """Add a block of rows; raise InputError if a value is not finite."""
        if not (np.isfinite(block.X).all() and np.isfinite(block.Y).all()):
            raise InputError("rows and targets must be finite; remove the configurations without labels")
        X, Y, kind, _, train_mask = block.to(self.device)
        # The leading column of ones is omitted for training rows.
        rows = linalg.concatenate([self.device.zeros(len(X), 1) + 1.0, X[:, : self.n_columns], Y], 1)
        for (row_kind, is_train), factor in self.factors.items():
            mask = (kind == row_kind) & (train_mask == is_train)
            if bool(mask.any()):
                factor.grow(rows[mask][:, int(is_train) :])

    def merge(self, other: RawFactors) -> None:
        """Add the rows of another part."""
        for key, factor in self.factors.items():
            factor.merge(other.factors[key])

    def finish(self) -> RawFactors:
        """Fold the buffered rows, and move the factors of all rows to the processor."""
        self.factors = {key: factor.finish().to(CPU) for key, factor in self.factors.items()}
        self.device = CPU
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Fold buffered rows before pickling, so that a worker returns only the factors."""
        return self.finish().__dict__

    def compute_whitening(self, weights: Array) -> tuple[Whitening, Array]:
        """Compute the whitening of all rows at weights w_E, w_F, w_S, and a fit: ``(P, n_levels)`` coefficients.

        Raises
        ------
        InputError
            If there are no training rows, or all columns are zero.
        """
        if not any(factor.n for (_, is_train), factor in self.factors.items() if is_train):
            raise InputError("a reduction requires training rows; got none")
        T = CPU.zeros(self.width, self.width)
        for (kind, is_train), factor in self.factors.items():
            if factor.n:
                weight = float(weights[kind]) * (1.0 if is_train else TEST_WEIGHT)
                T = linalg.update_qr(T, weight * factor.get_equivalent_rows()[:, int(not is_train) :])
        return Whitening.from_triangle(T, self.n_columns)


@dataclass(frozen=True)
class Reduction(WhitenedBasis):
    """The triangular factors to which the rows are reduced.

    Attributes
    ----------
    train_factors, test_factors : mapping of RowKind to RowFactor
        Factors of the training rows [U | Y], and of the test rows [1 | U | Y].
    stored_rows : list
        The whitened rows of each block, or the paths of their files; empty if they are not stored.
    """

    train_factors: dict[RowKind, RowFactor]
    test_factors: dict[RowKind, RowFactor]
    stored_rows: Sequence[Any] = ()

    @classmethod
    def from_parts(
        cls,
        parts: Parts,
        sizes: Sequence[int],
        *,
        energy_weight: float = 1.0,
        force_weight: float = 1.0,
        stress_weight: float = 1.0,
        n_unpenalised: int = 0,
        mapper: PartMapper = SERIAL_MAPPER,
        device: Device = CPU,
    ) -> Reduction:
        """Reduce the rows of all parts.

        Parameters
        ----------
        parts : callable or sequence of callable
            Each returns a new iterator over `RowBlock`s.
        sizes : sequence of int
            Number of leading columns in each model, ascending.
        energy_weight, force_weight, stress_weight : float
            Weights of the whitening, typical of the fits that follow.
        n_unpenalised : int
            Number of leading columns without ridge penalty.
        mapper : PartMapper
            Computes the sums of the parts; the result does not depend on it.
        device : Device
            Hardware that folds rows. The reduction is returned on the processor, and depends on the device only by
            rounding.

        Raises
        ------
        InputError
            If sizes do not ascend or exceed the columns, a weight is not positive, a value is not finite, all columns
            are zero, or there are no training rows.
        """
        raw_factors = RawFactors.from_parts(parts, sizes, mapper=mapper, device=device)
        weights = get_row_weights(np.arange(3), energy_weight, force_weight, stress_weight)
        return cls.from_factors(raw_factors, np.asarray(sizes), weights, n_unpenalised)

    @classmethod
    def from_factors(cls, raw_factors: RawFactors, sizes: Array, weights: Array, n_unpenalised: int) -> Reduction:
        """Compute the whitening and the baseline from the factors of raw rows, and whiten these factors.

        The arguments and errors are those of `from_parts`; `weights` are w_E, w_F and w_S, ``(3,)``.
        """
        with threadpool_limits(1):  # threads within a product would change its rounding
            whitening, baseline = raw_factors.compute_whitening(weights)
            kinds = [
                kind for kind in RowKind if any(raw_factors.factors[kind, is_train].n for is_train in (True, False))
            ]
            raw_columns = {
                kind: raw_factors.factors[kind, True].get_equivalent_rows()[:, : raw_factors.n_columns]
                for kind in kinds
            }
            squared_norms = {kind: linalg.sum_column_squares(A) for kind, A in raw_columns.items()}
            basis = WhitenedBasis(sizes, whitening, weights, baseline, squared_norms, n_unpenalised)
            train_factors, test_factors = (
                {kind: _whiten_factor(basis, raw_factors.factors[kind, is_train], int(not is_train)) for kind in kinds}
                for is_train in (True, False)
            )
        return cls(sizes, whitening, weights, baseline, squared_norms, n_unpenalised, train_factors, test_factors)

    @property
    def train(self) -> RowFactors:
        """Factors of all training rows; they are part of the reduction, so that no rows may be added to them."""
        return RowFactors(self, self.train_factors)

    def create_factors(self, device: Device = CPU) -> RowFactors:
        """Create factors without rows, to which whitened rows can be added."""
        width, n_targets = sum(self.baseline.shape), self.n_levels
        return RowFactors(self, {kind: RowFactor(width, device, n_targets) for kind in self.train_factors})

    def whiten_parts(self, parts: Sequence[Part], mapper: PartMapper, device: Device, store: StoreRows) -> Reduction:
        """Whiten and store the rows of all parts; return a copy of the reduction with these rows."""
        whiten_block = partial(_whiten_block, self.to(device), device, store)
        return replace(self, stored_rows=map_blocks(parts, whiten_block, mapper))

    def compute_test_rms(self, delta: Array, level: int | None = None) -> dict[RowKind, RmsTestErrors]:
        """Compute the root mean squared residuals of fits for the test rows of each kind that is present.

        Parameters
        ----------
        delta, level
            As for `WhitenedBasis.pair_with_reference`.
        """
        deltas, levels = self.pair_with_reference(delta, level)
        B = np.vstack([np.zeros((1, len(levels))), deltas])  # 0 for the column of ones
        targets, n, rms = len(B) + levels, delta.shape[1], {}
        for kind, factor in self.test_factors.items():
            if factor.n:
                residuals = factor.compute_residuals(B, targets)
                own_squares, reference_squares = np.split(linalg.sum_column_squares(residuals), 2)
                centred_squares = linalg.sum_column_squares(factor.centre(residuals[:, n:]))
                squares = own_squares, reference_squares, centred_squares
                rms[kind] = RmsTestErrors(*(np.sqrt(square / factor.n) for square in squares))
        return rms


def _whiten_factor(basis: WhitenedBasis, factor: RowFactor, n_leading: int) -> RowFactor:
    """Return the factor of the whitened rows from that of the raw rows; the first `n_leading` columns do not change."""
    rows, p = factor.get_equivalent_rows(), n_leading + int(basis.sizes[-1])
    rows = np.hstack([rows[:, :n_leading], basis.whiten(rows[:, n_leading:p], rows[:, p:])])
    whitened_factor = RowFactor(rows.shape[1])
    whitened_factor.grow(rows)
    whitened_factor.n = factor.n  # all rows, not only those of the triangle
    return whitened_factor.finish(is_full=factor.matrix is not None)


def _whiten_block(basis: WhitenedBasis, device: Device, store: StoreRows, block: RowBlock) -> Any:
    """Whiten a block on a device, and return what `store` returns for its rows."""
    X, Y, *_ = block.to(device)
    return store(basis.whiten(X, Y))


def _validate_sizes(parts: Sequence[Part], sizes: Sequence[int]) -> tuple[Array, int]:
    """Check the sizes; return them as an array, and the number of levels of the rows."""
    columns = np.asarray(sizes, dtype=np.int64)
    if columns.ndim != 1 or not len(columns) or columns[0] < 1 or (np.diff(columns) <= 0).any():
        raise InputError(f"sizes must be ascending numbers of columns; got {list(sizes)}")
    block = next(iterate_blocks(parts), None)
    n_columns = 0 if block is None else block.X.shape[1]
    if block is None or columns[-1] > n_columns:
        raise InputError(f"sizes must be at most the number of columns, {n_columns}; got {columns[-1]}")
    return columns, block.Y.shape[1]
