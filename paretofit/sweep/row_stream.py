"""The rows of a sweep for the reduction, in parts that any process can read on its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from paretofit.core import Array
from paretofit.linear.reduction import Part, RowBlock, split_rows
from paretofit.sweep.plain_engine import RowSource

BLOCK_BYTES = 16 << 20  # of the rows that are reduced at once


@dataclass(frozen=True)
class RowStream:
    """The rows of all training and test configurations, in blocks of moderate size.

    Attributes
    ----------
    source : RowSource
    is_train, is_test : (n_rows,) bool
    """

    source: RowSource
    is_train: Array
    is_test: Array

    @classmethod
    def from_source(cls, source: RowSource, train: Array) -> RowStream:
        """Select the rows of the training configurations and the test rows of the source."""
        is_test = np.zeros(source.design.n_rows, dtype=bool)
        is_test[source.test_rows] = True
        return cls(source, np.isin(source.design.configuration, train), is_test)

    def list_parts(self) -> list[Part]:
        """Return one callable for each window of rows, which reads the blocks of the window."""
        design = self.source.design
        return [partial(self.read_blocks, window) for window in split_rows(design.n_rows, design.n_features)]

    def read_blocks(self, part: slice) -> Iterator[RowBlock]:
        """Read the training and test rows in a window of rows, block by block."""
        design, Y = self.source.design, self.source.Y
        for window, X in design.blocks(count_rows_per_block(design.n_features), part):
            is_train = self.is_train[window]
            is_used = is_train | self.is_test[window]
            if is_used.any():
                arrays = (X, Y[window], design.kind[window], design.configuration[window], is_train)
                yield RowBlock(*(arrays if is_used.all() else (array[is_used] for array in arrays)))


def count_rows_per_block(n_features: int) -> int:
    """Count the rows of a block of `BLOCK_BYTES`."""
    return max(1, BLOCK_BYTES // (8 * n_features))
