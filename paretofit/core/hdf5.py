"""Writing HDF5 files, whole or not at all, also where the disk fills up.

HDF5 cannot close a file that it cannot write to: the process ends with a segmentation fault (seen with
h5py 3.16 and HDF5 2.0). It therefore writes through a Python file that takes everything and remembers
what went wrong.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import h5py

from paretofit.core.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def atomic_hdf5(path: Path | str) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Yield a new HDF5 file that takes the name `path` on success, and a check that it could be written so far.

    The check is for long work: it raises where the disk is full by now. It need not be called at the end.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with atomic_path(path) as temporary, _Forgiving(temporary) as stream:
        try:
            with h5py.File(stream, "w") as file:
                yield file, stream.check
        finally:
            stream.check()  # what HDF5 made of it comes second


class _Forgiving(io.RawIOBase):
    """A new file that can be written to without end; `check` raises the first error, if there was one.

    What cannot be written any more stays in memory: HDF5 reads it back, and takes whatever it gets for its own.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._error: OSError | None = None
        self._position = 0
        self._held: list[tuple[int, bytes]] = []

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        start, length = self._position, len(rest)
        try:
            while len(rest) and self._error is None:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._error = error
        if len(rest):
            self._held.append((start + length - len(rest), bytes(rest)))
        self._position = start + length
        return length

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size) if self._error is None else size or 0
        except OSError as error:
            self._error = error
            return size or 0

    def readinto(self, buffer: Any) -> int:
        view, start = memoryview(buffer).cast("B"), self._position
        view[:] = bytes(len(view))
        self._file.seek(start)
        self._file.readinto(view)
        for place, held in self._held:
            first, last = max(start, place), min(start + len(view), place + len(held))
            if first < last:
                view[first - start : last - start] = held[first - place : last - place]
        self._position = start + len(view)
        return len(view)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = self._file.seek(offset, whence)
        if whence == io.SEEK_END:
            self._position = max([self._position, *(place + len(held) for place, held in self._held)])
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()
