"""Sums over blocks of rows on several threads, the same to the last bit for any number of threads.

Block k goes to lane k mod LANES; each lane adds its blocks in order, and the lanes are merged in order. Linear
algebra runs on one thread in each lane: how a library splits a product over threads would change its rounding.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

LANES = 4


class Sums(Protocol):
    """What can be summed over blocks."""

    def add(self, block: Any) -> None:
        """Add a block."""

    def merge(self, other: Self) -> None:
        """Add what another lane has summed."""


S = TypeVar("S", bound=Sums)
T = TypeVar("T")


def sum_blocks(blocks: Iterable[Any], make: Callable[[], S], threads: int) -> S:
    """Sum all blocks into what `make` returns.

    Parameters
    ----------
    blocks : iterable
    make : callable
        Returns empty sums.
    threads : int

    Returns
    -------
    Sums
    """
    lanes = [make() for _ in range(LANES)]
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        for round_of_blocks in _rounds(blocks):
            list(pool.map(lambda pair: pair[0].add(pair[1]), zip(lanes, round_of_blocks, strict=False)))
    for lane in lanes[1:]:
        lanes[0].merge(lane)
    return lanes[0]


def map_blocks(blocks: Iterable[Any], function: Callable[[Any], T], threads: int) -> list[T]:
    """Apply a function to every block, a few at a time, results in order."""
    results: list[T] = []
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        for round_of_blocks in _rounds(blocks):
            results += pool.map(function, round_of_blocks)
    return results


def _rounds(blocks: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(blocks)
    while chunk := list(islice(iterator, LANES)):
        yield chunk
