"""Atomic writing of HDF5 files, with a regular error if the disk fills up.

HDF5 cannot close a file that it cannot write to: the process ends with a segmentation fault (seen with
h5py 3.16 and HDF5 2.0). HDF5 therefore writes to a Python file object that stores the first OSError instead of raising
it. This error is raised later, in preference to the error that HDF5 raises.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from paretofit.core.files import atomic_path


@contextmanager
def atomic_hdf5(path: Path | str) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Yield a new HDF5 file and a function that raises the first write error; on success, rename the file to `path`.

    Write errors are stored until the function is called, at the latest at the end of the `with` block. Call it between
    the steps of long work, to stop as soon as the disk is full.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with atomic_path(path) as temporary_path, _ErrorCollectingFile(temporary_path) as stream:
        try:
            with h5py.File(stream, "w") as file:
                yield file, stream.check
        finally:
            stream.check()  # takes precedence over the error that HDF5 raises


class _ErrorCollectingFile(io.FileIO):
    """New file whose `write` never fails; `check` raises the first error, if there was one.

    Bytes that could not be written are stored in memory, because HDF5 reads them back without checking them.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None
        self._unwritten: list[tuple[int, bytes]] = []  # positions in the file, and bytes

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        remainder = memoryview(data).cast("B")
        end = self.tell() + len(remainder)
        length = len(remainder)
        try:
            while len(remainder) and self._error is None:
                remainder = remainder[super().write(remainder) :]
        except OSError as error:
            self._error = error
        if len(remainder):
            self._unwritten.append((end - len(remainder), bytes(remainder)))
        self.seek(end)
        return length

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size) if self._error is None else size or 0
        except OSError as error:
            self._error = error
            return size or 0

    def readinto(self, buffer: Any) -> int:
        view, start = memoryview(buffer).cast("B"), self.tell()
        view[:] = bytes(len(view))
        super().readinto(view)
        for position, data in self._unwritten:  # HDF5 expects to read what it wrote
            overlap_start, overlap_end = max(start, position), min(start + len(view), position + len(data))
            if overlap_start < overlap_end:
                overlap = data[overlap_start - position : overlap_end - position]
                view[overlap_start - start : overlap_end - start] = overlap
        self.seek(start + len(view))
        return len(view)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = super().seek(offset, whence)
        if whence == io.SEEK_END:
            position = max([position, *(start + len(data) for start, data in self._unwritten)])
            super().seek(position)
        return position
