"""Atomic writing of HDF5 files; a full disk raises an exception instead of crashing the process.

If HDF5 cannot write to a file, it cannot close it either, and the process ends with a segmentation fault (seen with
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

    An error of the disk is not raised by writing to the file, but by the function, which is also called at the end of
    the `with` block. Call it between the steps of long work, to stop as soon as the disk is full.

    Raises
    ------
    InputError
        As for `atomic_path`.
    """
    with atomic_path(path) as temporary_path, _ErrorCollectingFile(temporary_path) as stream:
        try:
            with h5py.File(stream, "w") as file:
                yield file, stream.check
        finally:
            stream.check()  # takes precedence over the error that HDF5 raises


class _ErrorCollectingFile(io.FileIO):
    """New file whose `write` and `truncate` never fail; `check` raises their first error, if there was one.

    Bytes that could not be written are stored in memory, because HDF5 reads them back without checking them.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None
        self._unwritten: list[tuple[int, bytes]] = []  # position in the file, and bytes, of each failed write

    def check(self) -> None:
        """Raise the first error of writing, if there was one."""
        if self._error is not None:
            raise self._error

    def write(self, buffer: Any) -> int:
        """Write a buffer at the current position or, after an error, store it in memory; return its length in bytes."""
        remainder = memoryview(buffer).cast("B")
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
        """Change the size of the file; after an error, leave it unchanged."""
        try:
            return super().truncate(size) if self._error is None else size or 0
        except OSError as error:
            self._error = error
            return size or 0

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the file and the unwritten bytes; bytes beyond the end of the file are zero."""
        view, view_start = memoryview(buffer).cast("B"), self.tell()
        view[:] = bytes(len(view))
        super().readinto(view)
        for position, content in self._unwritten:  # HDF5 expects to read what it wrote
            overlap_start = max(view_start, position)
            overlap_end = min(view_start + len(view), position + len(content))
            if overlap_start < overlap_end:
                overlap = content[overlap_start - position : overlap_end - position]
                view[overlap_start - view_start : overlap_end - view_start] = overlap
        self.seek(view_start + len(view))
        return len(view)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it; the end of the file includes the bytes that could not be written."""
        position = super().seek(offset, whence)
        if whence == io.SEEK_END:
            position = max([position, *(start + len(content) for start, content in self._unwritten)])
            super().seek(position)
        return position
