"""The rows of a sweep for the reduction, in parts that any process can read on its own, and whitened for the fits."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from paretofit.core import Array, get_available_memory
from paretofit.linear import Reduction
from paretofit.linear.reduction import WHITENING_ROWS, Device, Part, RowBlock, get_array_device, split_rows, to_numpy
from paretofit.sweep.plain_engine import RowSource

BLOCK_BYTES = 16 << 20  # size of the rows that are reduced at once
MAX_STORED_BYTES = 2 << 30  # size of whitened rows in memory, which is also at most a quarter of the free memory


@dataclass(frozen=True)
class RowStream:
    """The rows of all training and test configurations, in blocks of moderate size.

    Attributes
    ----------
    source : RowSource
    row_indices : (n,) int64
        Positions of these rows in the design, ascending.
    is_train : (n_rows,) bool
        Whether each row of the design is a training row.
    """

    source: RowSource
    row_indices: Array
    is_train: Array

    @classmethod
    def from_source(cls, source: RowSource, train: Array) -> RowStream:
        """Select the rows of the training configurations and the test rows of the source."""
        is_train = np.isin(source.design.configuration, train)
        return cls(source, np.union1d(np.flatnonzero(is_train), source.test_row_indices), is_train)

    @cached_property
    def _windows(self) -> list[list[slice]]:
        """Slices of `row_indices` for the blocks of each part; every block begins at a multiple of `WHITENING_ROWS`."""
        step = max(1, count_rows_per_block(self.source.design.n_features) // WHITENING_ROWS) * WHITENING_ROWS
        parts = split_rows(len(self.row_indices), self.source.design.n_features)
        # A negative floor division rounds the bounds up.
        bounds = [-(-part.start // WHITENING_ROWS) * WHITENING_ROWS for part in parts] + [len(self.row_indices)]
        ranges = [range(*pair) for pair in pairwise(bounds)]
        return [[slice(k, min(k + step, part.stop)) for k in part[::step]] for part in ranges if part]

    def list_parts(self) -> list[Part]:
        """Return, for each part of the rows, a callable that reads the blocks of the part."""
        return [partial(self.read_blocks, windows) for windows in self._windows]

    def read_blocks(self, windows: list[slice]) -> Iterator[RowBlock]:
        """Read the rows; yield a block for each of the windows, which are slices of `row_indices`."""
        design, Y = self.source.design, self.source.Y
        for window in windows:
            rows = self.row_indices[window]
            arrays = (array[rows] for array in (Y, design.kind, design.configuration, self.is_train))
            yield RowBlock(design.read_rows(rows), *arrays)

    def read_whitened(self, reduction: Reduction, requested_indices: Array) -> Iterator[tuple[Any, Array]]:
        """Yield whitened rows [U | Y] ``(n, P + n_levels)`` and their row indices in the design, block by block.

        Parameters
        ----------
        reduction : Reduction
            If it has no stored rows, rows are read and whitened again, with the same result.
        requested_indices : (n,) int64
            Indices of training or test rows in the design, ascending.
        """
        stream_positions = np.searchsorted(self.row_indices, requested_indices)
        windows = [window for part in self._windows for window in part]
        block_numbers = np.searchsorted([window.start for window in windows], stream_positions, side="right") - 1
        for number in np.unique(block_numbers).tolist():
            block_positions = stream_positions[block_numbers == number]
            row_indices = self.row_indices[block_positions]
            if reduction.stored_rows:
                stored_block = reduction.stored_rows[number]
                array = np.load(stored_block, mmap_mode="r") if isinstance(stored_block, str) else stored_block
                yield array[block_positions - windows[number].start], row_indices
                continue
            # Rounding depends on the group of rows that is whitened at once, so whole groups are whitened.
            group_starts = np.unique(block_positions // WHITENING_ROWS)[:, None] * WHITENING_ROWS
            group_positions = group_starts + np.arange(WHITENING_ROWS)
            group_positions = group_positions[group_positions < len(self.row_indices)]
            group_rows = self.row_indices[group_positions]
            device = get_array_device(reduction.baseline)
            X, Y = self.source.design.read_rows(group_rows), self.source.Y[group_rows]
            whitened_rows = reduction.whiten(device.put(X), device.put(Y))
            yield whitened_rows[np.isin(group_positions, block_positions)], row_indices


@dataclass(frozen=True)
class RowStore:
    """Storage of whitened rows: in memory, on a GPU, or in a temporary directory.

    Attributes
    ----------
    directory : str or None
        None for memory.
    is_on_device : bool
        Whether the rows remain in the memory of a GPU.
    """

    directory: str | None = None
    is_on_device: bool = False

    def __call__(self, rows: Any) -> Any:
        """Store the rows of a block; return them, or the path of their file."""
        if self.directory is None:
            return rows if self.is_on_device else to_numpy(rows)
        with tempfile.NamedTemporaryFile(dir=self.directory, suffix=".npy", delete=False) as file:
            np.save(file, to_numpy(rows))
        return file.name


def select_store(n_bytes: float, folder: Path | None, device: Device, *, is_shared: bool) -> RowStore | None:
    """Select where whitened rows are stored; None if there is no room, so that they are whitened when needed.

    A temporary directory is created if the rows are stored in files; the caller removes it.

    Parameters
    ----------
    n_bytes : float
        Size of all rows.
    folder : Path or None
        The run folder.
    device : Device
    is_shared : bool
        Whether the processes of a cluster use the rows, which must then be in files.
    """
    device_bytes, memory = device.get_available_memory(), get_available_memory()
    if device_bytes is not None and 2 * n_bytes < device_bytes:
        return RowStore(is_on_device=True)
    if not is_shared and n_bytes < min(MAX_STORED_BYTES, np.inf if memory is None else memory / 4):
        return RowStore()
    if folder is not None and 2 * n_bytes < shutil.disk_usage(folder).free:
        return RowStore(tempfile.mkdtemp(prefix=".whitened-", dir=folder.absolute()))
    return None


def count_rows_per_block(n_features: int) -> int:
    """Count the rows that fit into a block of `BLOCK_BYTES`; at least one."""
    return max(1, BLOCK_BYTES // (8 * n_features))
