"""Reduction of a design matrix with any number of rows to a few triangular matrices.

The rows are read block by block in a few passes, which run at the rate of matrix products. The first pass computes the
Gram matrix, from which R₀ and a baseline fit of each level follow. The second pass whitens the rows, stores them where
there is room, and computes the factors of the training rows and of the test rows. Afterwards, any fit of a subset needs
only the factors of this subset, and its test errors need no rows. The equations are in `paretofit.linear.reduction`.

Rows are divided into parts (see `streaming`). Each part is a callable that yields its `RowBlock`s every time it is
called, so that a pass over all parts is a map and a reduction, on threads, a GPU, or a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.core import Array, InputError, RowKind
from paretofit.linear.reduction import linalg
from paretofit.linear.reduction.linalg import CPU, Device, to_numpy
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
from paretofit.linear.reduction.weighing import RowFactors
from paretofit.linear.reduction.whitening import GramAccumulator, Whitening, compute_whitening
from paretofit.linear.wls import get_row_weights

WHITENING_ROWS = 128  # rows that are whitened at once: rounding may depend on the number, so it is always the same
StoreRows = Callable[[Any], Any]  # stores an array of whitened rows, and returns it or the path of its file


class HeldOutErrors(NamedTuple):
    """Root mean squared test residuals.

    Attributes
    ----------
    own_level : (n_fits * n_levels,) float64
        Against the labels of the level of each fit.
    reference_level : (n_fits * n_levels,) float64
        Against the labels of the last level.
    centred_reference : (n_fits * n_levels,) float64
        Against the labels of the last level, about the mean of the residuals.
    """

    own_level: Array
    reference_level: Array
    centred_reference: Array


@dataclass(frozen=True)
class Reduction:
    """The triangular factors to which the rows are reduced.

    Attributes
    ----------
    sizes : (n_sizes,) int64
        Number of leading columns of X in each model, ascending.
    whitened_sizes : (n_sizes,) int64
        Number of leading whitened columns in each model.
    whitening : Whitening
        R₀ and the retained columns.
    weights : (3,) float64
        w_E, w_F, w_S of the whitening.
    baseline : (P, n_levels) float64
        Whitened coefficients of an approximate fit of each level, whose residuals are the targets of whitened rows.
    train_factors, test_factors : mapping of RowKind to RowFactor
        Factors of the training rows [U | Y], and of the test rows [1 | U | Y].
    train_norms : mapping of RowKind to (p,) float64
        Squared norms of the raw columns of the training rows.
    unpenalised : int
        Number of leading columns of X without ridge penalty.
    stored_rows : list
        The whitened rows of each block, or the paths of their files, if they are stored.
    """

    sizes: Array
    whitened_sizes: Array
    whitening: Whitening
    weights: Array
    baseline: Array
    train_factors: dict[RowKind, RowFactor]
    test_factors: dict[RowKind, RowFactor]
    train_norms: dict[RowKind, Array]
    unpenalised: int = 0
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
        unpenalised: int = 0,
        mapper: PartMapper = SERIAL_MAPPER,
        device: Device = CPU,
        store: StoreRows | None = None,
    ) -> Reduction:
        """Reduce the rows of all parts.

        Parameters
        ----------
        parts : callable or sequence of callable
            Each returns a new iterator over `RowBlock`s.
        sizes : sequence of int
            Number of leading columns in each model, ascending.
        energy_weight, force_weight, stress_weight : float
            Weights of the Gram matrix and the baseline, typical of the fits that follow.
        unpenalised : int
            Number of leading columns without ridge penalty.
        mapper : PartMapper
            Computes the sums of the parts; the result does not depend on it.
        device : Device
            Hardware that computes the sums. The reduction is returned on the processor, and depends on the device only
            by rounding.
        store : callable, optional
            Stores the whitened rows of each block; by default they are not stored.

        Raises
        ------
        InputError
            If sizes do not ascend or exceed the columns, a value is not finite, or there are no training rows.
        """
        parts = normalise_parts(parts)
        weights = get_row_weights(np.arange(3), energy_weight, force_weight, stress_weight)
        columns, n_levels = _check_sizes(parts, sizes)
        create_sums = partial(GramAccumulator, weights, int(columns[-1]), n_levels, device)
        sums = sum_parts(parts, create_sums, mapper).finish()
        if not sums.n_train:
            raise InputError("a reduction requires training rows; got none")
        with threadpool_limits(1):  # threads within a product would change its rounding
            whitening = compute_whitening(sums, parts, weights, mapper)
            whitened_sizes = np.array([whitening.count_retained(int(p)) for p in columns])
            baseline = whitening.solve_transposed(sums.c)
        empty = cls(columns, whitened_sizes, whitening, weights, baseline, {}, {}, {}, unpenalised)
        second_pass = partial(_SecondPass, empty, [RowKind(kind) for kind in sorted(sums.kinds)], device)
        del sums  # its memory is needed for the factors
        result = sum_parts(parts, partial(second_pass, is_gram=True, store=store), mapper).add_to(empty)
        with threadpool_limits(1):
            is_well_conditioned = result.train.is_well_conditioned()
        if not is_well_conditioned:
            triangles = sum_parts(parts, partial(second_pass, is_gram=False, store=None), mapper)
            result = replace(triangles.add_to(empty), stored_rows=result.stored_rows)
        return result

    @property
    def train(self) -> RowFactors:
        """Factors of all training rows."""
        return RowFactors(self, self.train_factors)

    @property
    def n_levels(self) -> int:
        """Number of convergence levels."""
        return self.baseline.shape[1]

    def create_factors(self, device: Device = CPU) -> RowFactors:
        """Create the factors of no rows, which grow by whitened rows."""
        width = sum(self.baseline.shape)
        return RowFactors(self, {kind: RowFactor(width, device) for kind in self.train_factors})

    def to(self, device: Device) -> Reduction:
        """Return a copy that whitens rows on a device."""
        return replace(self, whitening=self.whitening.to(device), baseline=device.put(to_numpy(self.baseline)))

    def whiten(self, X: Any, Y: Any) -> Any:
        """Whiten rows of a design, and subtract the baseline from their labels: [U | Y − U θ], ``(n, P + n_levels)``.

        Every `WHITENING_ROWS` rows are whitened separately, so that results do not depend on the size of a block that
        starts at a multiple of this number.
        """
        step = WHITENING_ROWS if isinstance(X, np.ndarray) else len(X)
        U = linalg.concatenate([self.whitening.apply(X[k : k + step]) for k in range(0, len(X), step)], 0)
        return linalg.concatenate([U, Y - U @ self.baseline], 1)

    def whiten_parts(self, parts: Sequence[Part], mapper: PartMapper, device: Device, store: StoreRows) -> Reduction:
        """Return the reduction with stored rows."""
        whiten_block = partial(_whiten_block, self.to(device), device, store)
        return replace(self, stored_rows=map_blocks(parts, whiten_block, mapper))

    def compute_test_rms(self, delta: Array) -> dict[RowKind, HeldOutErrors]:
        """Compute the root mean squared residuals of fits for the test rows of each kind.

        Parameters
        ----------
        delta : (P, n_fits * n_levels) float64
            `ModelFit.delta` of some fits side by side.
        """
        (P, n_levels), n = self.baseline.shape, delta.shape[1]
        level = np.arange(n) % n_levels
        reference = delta + (self.baseline - self.baseline[:, -1:])[:, level]
        B = np.vstack([np.zeros((1, 3 * n)), np.hstack([delta, reference, reference])])
        targets = 1 + P + np.concatenate([level, np.full(2 * n, n_levels - 1)])
        rms = {}
        for kind, factor in self.test_factors.items():
            if factor.n:
                squares = factor.sum_squared_residuals(B, targets, is_centred=np.arange(3 * n) >= 2 * n)[0]
                rms[kind] = HeldOutErrors(*np.split(np.sqrt(squares / factor.n), 3))
        return rms


def _whiten_block(reduction: Reduction, device: Device, store: StoreRows, block: RowBlock) -> Any:
    X, Y, *_ = block.to(device)
    return store(reduction.whiten(X, Y))


class _SecondPass:
    """Factors of the training rows and of the test rows."""

    def __init__(
        self,
        reduction: Reduction,
        kinds: list[RowKind],
        device: Device,
        *,
        is_gram: bool,
        store: StoreRows | None,
    ) -> None:
        self.reduction, self.device, self.store = reduction, device, store
        self.device_reduction = reduction.to(device)
        width = sum(reduction.baseline.shape)
        # Energies are few, and their residuals can be far below those of the baseline.
        grams = {kind: is_gram and kind != RowKind.ENERGY for kind in kinds}
        self.train = {kind: RowFactor(width, device, flag) for kind, flag in grams.items()}
        self.test = {kind: RowFactor(1 + width, device) for kind in kinds}
        n_columns = int(reduction.sizes[-1])
        self.norms = {kind: device.zeros(n_columns) for kind in kinds}
        self.stored: list[Any] = []

    def add(self, block: RowBlock) -> None:
        """Whiten a block and add its rows."""
        X, Y, kind, _, train = block.to(self.device)
        rows = self.device_reduction.whiten(X, Y)
        if self.store is not None:
            self.stored.append(self.store(rows))
        for row_kind, factor in self.train.items():
            is_kind = kind == row_kind
            if bool((is_kind & train).any()):
                factor.grow(rows[is_kind & train])
                self.norms[row_kind] += linalg.sum_column_squares(X[is_kind & train][:, : len(self.norms[row_kind])])
            if bool((is_kind & ~train).any()):
                test = rows[is_kind & ~train]
                self.test[row_kind].grow(linalg.concatenate([self.device.zeros(len(test), 1) + 1.0, test], 1))

    def finish(self) -> _SecondPass:
        """Update the factors with their buffered rows."""
        for factor in [*self.train.values(), *self.test.values()]:
            factor.finish()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Pickle only the sums, which are all that a worker has to return."""
        self.finish()
        return {name: getattr(self, name) for name in ("train", "test", "norms", "stored")}

    def merge(self, sums: _SecondPass) -> None:
        """Add the sums of another part."""
        self.stored += sums.stored
        for kind in self.train:
            self.norms[kind] += sums.norms[kind]
            self.train[kind].merge(sums.train[kind])
            self.test[kind].merge(sums.test[kind])

    def add_to(self, reduction: Reduction) -> Reduction:
        """Return the reduction with these factors, on the processor."""
        self.finish()
        train, test = ({k: factor.to(CPU) for k, factor in part.items()} for part in (self.train, self.test))
        norms = {kind: to_numpy(norm) for kind, norm in self.norms.items()}
        return replace(reduction, train_factors=train, test_factors=test, train_norms=norms, stored_rows=self.stored)


def _check_sizes(parts: Sequence[Part], sizes: Sequence[int]) -> tuple[Array, int]:
    """Check the sizes; return them as an array, and the number of levels of the rows."""
    columns = np.asarray(sizes, dtype=np.int64)
    if columns.ndim != 1 or not len(columns) or columns[0] < 1 or (np.diff(columns) <= 0).any():
        raise InputError(f"sizes must be ascending numbers of columns; got {list(sizes)}")
    block = next(iterate_blocks(parts), None)
    n_columns = 0 if block is None else block.X.shape[1]
    if block is None or columns[-1] > n_columns:
        raise InputError(f"sizes must be at most the number of columns, {n_columns}; got {columns[-1]}")
    return columns, block.Y.shape[1]
