"""Sums over rows that come in parts: the same to the last bit for any number of threads or workers.

The rows of a design are cut into parts that depend on its shape only. Each part is summed by itself, block by block,
wherever there is room for it, and the sums are merged in the order of the parts. So a pass over the rows is a map and a
reduction: on threads, or by whoever hands in another `Run`. Linear algebra runs on one thread in each part: how a
library splits a product over threads would change its rounding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from paretofit.linear.reduction.row_block import RowBlock

Part = Callable[[], Iterable["RowBlock"]]  # yields its blocks afresh each time it is called
Parts = Part | Sequence[Part]

FEWEST, MOST = 4, 64  # parts: work for a few threads, and for a cluster
WORTH = 16  # rows of a part for each column: what merging costs is little beside summing so many


class Accumulator(Protocol):
    """What can be summed over blocks."""

    def add(self, block: Any) -> None:
        """Add a block."""

    def merge(self, other: Self) -> None:
        """Add what another part has summed."""


S = TypeVar("S", bound=Accumulator)
T = TypeVar("T")


class PartMapper(Protocol):
    """Yields a function of each part, in the order of the parts, wherever they are computed."""

    def __call__(self, function: Callable[[Part], T], parts: Sequence[Part]) -> Iterator[T]:
        """Run them."""


@dataclass(frozen=True)
class ThreadMapper:
    """Parts on threads of this process; only so many are summed, or wait to be merged, at a time."""

    threads: int = 1

    def __call__(self, function: Callable[[Part], T], parts: Sequence[Part]) -> Iterator[T]:
        """Run them."""
        if self.threads == 1:
            yield from map(function, parts)
            return
        with ThreadPoolExecutor(self.threads) as pool:
            running: deque[Future[T]] = deque()
            try:
                for part in parts:
                    running.append(pool.submit(function, part))
                    if len(running) > self.threads:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for one in running:
                    one.cancel()


SERIAL_MAPPER = ThreadMapper()


@dataclass(frozen=True)
class PrefetchMapper:
    """One part after the other, its next blocks being read while one is worked on elsewhere, as on a GPU."""

    def __call__(self, function: Callable[[Part], T], parts: Sequence[Part]) -> Iterator[T]:
        """Run them."""
        for part in parts:
            yield function(lambda part=part: prefetch(part()))  # type: ignore[misc]


def prefetch(blocks: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield what another thread takes from `blocks`, at most `depth` ahead."""
    with ThreadPoolExecutor(1) as reader:
        source, ahead = iter(blocks), deque[Future[Any]]()
        end = object()
        try:
            while True:
                while len(ahead) < depth:
                    ahead.append(reader.submit(next, source, end))
                if (block := ahead.popleft().result()) is end:
                    return
                yield block
        finally:
            for one in ahead:
                one.cancel()


def split_rows(n_rows: int, n_columns: int) -> list[slice]:
    """Windows of rows, in order, that are parts."""
    n = min(max(FEWEST, min(n_rows // (WORTH * max(n_columns, 1)), MOST)), max(n_rows, 1))
    bounds = [k * n_rows // n for k in range(n + 1)]
    return [slice(*pair) for pair in pairwise(bounds)]


def as_parts(parts: Parts) -> Sequence[Part]:
    """A single part may stand for all."""
    return [parts] if callable(parts) else parts


def iterate_blocks(parts: Sequence[Part]) -> Iterator[RowBlock]:
    """The blocks of all parts, in order."""
    return (block for part in parts for block in part())


def sum_parts(parts: Sequence[Part], create: Callable[[], S], mapper: PartMapper) -> S:
    """Sum all blocks into what `create` returns.

    Parameters
    ----------
    parts : sequence of callable
    create : callable
        Returns empty sums; pickled where `mapper` needs it.
    mapper : Run

    Returns
    -------
    Sums
    """
    with threadpool_limits(1):
        found = mapper(partial(_summed, create), parts)
        total = next(found)
        for one in found:
            total.merge(one)
    return total


def map_blocks(parts: Sequence[Part], function: Callable[[Any], T], mapper: PartMapper) -> list[T]:
    """Apply a function to every block, results in order."""
    with threadpool_limits(1):
        return [one for several in mapper(partial(_mapped, function), parts) for one in several]


def _summed(make: Callable[[], S], part: Part) -> S:
    sums = make()
    with threadpool_limits(1):
        for block in part():
            sums.add(block)
    return sums


def _mapped(function: Callable[[Any], T], part: Part) -> list[T]:
    with threadpool_limits(1):
        return [function(block) for block in part()]
