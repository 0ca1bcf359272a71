"""Sums over blocks of rows that are equal to the last bit for any number of threads or workers.

The rows of a design are divided into parts, which depend only on the shape of the design. Each part is summed
separately, block by block, on any thread or worker, and the sums are merged in the order of the parts. A pass over the
rows is therefore a map and a reduction, on threads or by another `PartMapper`. Linear algebra runs on one thread in
each part, because rounding depends on how a library divides a product among threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise, repeat
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.core import Array
from paretofit.linear.reduction.linalg import Device


class RowBlock(NamedTuple):
    """A block of rows of a design.

    Attributes
    ----------
    X : (n, p) float64
    Y : (n, n_levels) float64
        Labels of all levels.
    kind : (n,) int8
        `RowKind`.
    configuration : (n,) int64
        Numbered from 0.
    is_train : (n,) bool
        Training rows; the others are test rows.
    """

    X: Any
    Y: Any
    kind: Any
    configuration: Array
    is_train: Any

    def to(self, device: Device) -> RowBlock:
        """Return the block with its arrays on a device, but for the configurations, which remain on the processor."""
        kind = device.put(np.asarray(self.kind, dtype=np.int64))
        return self._replace(X=device.put(self.X), Y=device.put(self.Y), kind=kind, is_train=device.put(self.is_train))


Part = Callable[[], Iterable[RowBlock]]  # yields its blocks each time it is called
Parts = Part | Sequence[Part]

MIN_PARTS, MAX_PARTS = 4, 64  # the minimum suffices for a few threads, the maximum for a cluster
MIN_ROWS_PER_COLUMN = 16  # rows of a part for each column, so that merging is cheap compared with summing


class Accumulator(Protocol):
    """Sums over blocks."""

    def add(self, block: Any) -> None:
        """Add a block."""

    def merge(self, sums: Self) -> None:
        """Add the sums of another part."""


S = TypeVar("S", bound=Accumulator)
T = TypeVar("T")


class PartMapper(Protocol):
    """Callable that applies a function to every part and yields the results in the order of the parts."""

    def __call__(self, function: Callable[[Part], T], parts: Sequence[Part]) -> Iterator[T]:
        """Apply the function to the parts."""


@dataclass(frozen=True)
class ThreadMapper:
    """Map over parts on threads of this process; at most ``threads + 1`` parts are computed or wait to be merged."""

    threads: int = 1

    def __call__(self, function: Callable[[Part], T], parts: Sequence[Part]) -> Iterator[T]:
        """Apply the function to the parts."""
        if self.threads == 1:
            yield from map(function, parts)
            return
        with ThreadPoolExecutor(self.threads) as pool:
            futures = (pool.submit(function, part) for part in parts)
            yield from _iterate_results(futures, self.threads + 1)


SERIAL_MAPPER = ThreadMapper()


@dataclass(frozen=True)
class PrefetchMapper:
    """Map over one part after the other, for a GPU; a thread reads the next blocks while a block is processed."""

    def __call__(self, function: Callable[[Part], T], parts: Sequence[Part]) -> Iterator[T]:
        """Apply the function to the parts."""
        for part in parts:
            yield function(lambda part=part: prefetch(part()))  # type: ignore[misc]


def prefetch(blocks: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield blocks that another thread reads, at most `depth` ahead."""
    source, end = iter(blocks), object()
    with ThreadPoolExecutor(1) as reader:
        futures = (reader.submit(next, source, end) for _ in repeat(None))
        for block in _iterate_results(futures, depth):
            if block is end:
                return
            yield block


def _iterate_results(futures: Iterator[Future[Any]], depth: int) -> Iterator[Any]:
    """Yield results in order, with `depth` calls submitted ahead; if the caller stops, cancel the waiting calls."""
    pending: deque[Future[Any]] = deque()
    try:
        while True:
            pending.extend(islice(futures, depth - len(pending)))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def split_rows(n_rows: int, n_columns: int) -> list[slice]:
    """Split the rows into windows, one for each part, in order."""
    n_parts = max(MIN_PARTS, min(n_rows // (MIN_ROWS_PER_COLUMN * max(n_columns, 1)), MAX_PARTS))
    n_parts = min(n_parts, max(n_rows, 1))
    bounds = [k * n_rows // n_parts for k in range(n_parts + 1)]
    return [slice(*pair) for pair in pairwise(bounds)]


def normalise_parts(parts: Parts) -> Sequence[Part]:
    """Return the parts as a sequence; a single part becomes a list."""
    return [parts] if callable(parts) else parts


def iterate_blocks(parts: Sequence[Part]) -> Iterator[RowBlock]:
    """Iterate over the blocks of all parts, in order."""
    return (block for part in parts for block in part())


def sum_parts(parts: Sequence[Part], create: Callable[[], S], mapper: PartMapper) -> S:
    """Sum the blocks of each part in an accumulator, and merge the accumulators, in the order of the parts, into one.

    Parameters
    ----------
    parts : sequence of callable
        At least one part.
    create : callable
        Returns an empty accumulator; it must support pickling if `mapper` uses other processes.
    mapper : PartMapper

    Returns
    -------
    Accumulator
        Sums over all parts.
    """
    # A limit applies to a whole process. `_sum_part` sets it in any other process that computes a part. Here it is set
    # for the threads of this process: the first one to finish would otherwise restore the old limit for the others.
    with threadpool_limits(1):
        sums = mapper(partial(_sum_part, create), parts)
        total = next(sums)
        for part_sums in sums:
            total.merge(part_sums)
    return total


def map_blocks(parts: Sequence[Part], function: Callable[[Any], T], mapper: PartMapper) -> list[T]:
    """Apply a function to every block, and return the results in order."""
    # See `sum_parts` for the two limits.
    with threadpool_limits(1):
        return [result for results in mapper(partial(_map_part, function), parts) for result in results]


def _sum_part(create: Callable[[], S], part: Part) -> S:
    """Sum the blocks of a part in a new accumulator."""
    sums = create()
    with threadpool_limits(1):
        for block in part():
            sums.add(block)
    return sums


def _map_part(function: Callable[[Any], T], part: Part) -> list[T]:
    """Apply a function to every block of a part."""
    with threadpool_limits(1):
        return [function(block) for block in part()]
