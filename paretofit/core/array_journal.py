"""Append-only file of arrays, for results that are too large for JSON lines and must survive a kill of the process.

It holds the results of an ordered list of tasks until the caller has written them to their final file; the caller then
removes the journal. Each result is stored with its length and CRC-32; reading stops at the first one that is incomplete
or has changed.
"""

import fcntl
import io
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from paretofit.core.errors import ExecutionError, InputError

FORMAT = b"paretofit arrays 1\n"  # first line of the file: the format and its version
RECORD_HEADER = struct.Struct("<QI")  # length in bytes and CRC-32 of a record


class ArrayJournal:
    """Journal of arrays, opened for reading and appending, and locked for this process.

    Parameters
    ----------
    path : path-like
        Created, with its directory, if it is missing.
    digest : str
        Digest of all inputs of the results; a file with another digest is emptied.

    Attributes
    ----------
    path : Path
    is_restarted : bool
        Whether the file contained results of other inputs and was emptied.

    Raises
    ------
    InputError
        If the file cannot be opened for writing or locked, or another process uses it.
    ExecutionError
        If the header cannot be written, for example because the disk is full.
    """

    def __init__(self, path: Path | str, digest: str) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("a+b")
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}; choose another folder") from error
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._stream.close()
            if not isinstance(error, BlockingIOError):  # the file system does not support locks
                raise InputError(
                    f"{path} cannot be locked: {error.strerror}; choose a folder on another file system"
                ) from error
            raise InputError(
                f"another run is using {self.path.parent}; wait until it ends, or choose another folder"
            ) from error
        header = FORMAT + digest.encode() + b"\n"
        self._stream.seek(0)
        existing_header = self._stream.read(len(header))
        self.is_restarted = existing_header != header and bool(existing_header)
        if existing_header != header:
            self._stream.truncate(0)
            self._write(header)

    def read(self) -> Iterator[list[np.ndarray[Any, Any]]]:
        """Yield the arrays of each stored result, then truncate the file after the last intact result.

        Read to the end before calling `append`; otherwise, a corrupt result would hide the appended ones.
        """
        self._stream.seek(0)
        for _ in range(2):  # skip the header: format and digest
            self._stream.readline()
        intact_length = self._stream.tell()
        while len(record_header := self._stream.read(RECORD_HEADER.size)) == RECORD_HEADER.size:
            length, checksum = RECORD_HEADER.unpack(record_header)
            if length > self._stream.seek(0, os.SEEK_END) - intact_length:  # `read` would allocate a corrupt length
                break
            self._stream.seek(intact_length + RECORD_HEADER.size)
            content = self._stream.read(length)
            if len(content) < length or zlib.crc32(content) != checksum:
                break
            with np.load(io.BytesIO(content)) as arrays:
                yield [arrays[name] for name in arrays.files]
            intact_length += RECORD_HEADER.size + length
            self._stream.seek(intact_length)
        self._stream.truncate(intact_length)

    def append(self, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
        """Append the arrays of a result.

        Raises
        ------
        ExecutionError
            If the arrays cannot be written; earlier results remain in the file.
        """
        buffer = io.BytesIO()
        np.savez(buffer, *arrays)
        content = buffer.getvalue()
        self._write(RECORD_HEADER.pack(len(content), zlib.crc32(content)) + content)

    def _write(self, content: bytes) -> None:
        """Write bytes to the end of the file and flush them; raise `ExecutionError` if this fails."""
        try:
            self._stream.write(content)
            self._stream.flush()
        except OSError as error:
            raise ExecutionError(
                f"{self.path} cannot be written: {error.strerror}; finished results are kept; free disk space, then "
                "run the same command again to resume"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception_details: object) -> None:
        self._stream.close()
