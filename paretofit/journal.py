"""An append-only file of JSON lines, for results that must survive a kill the moment they exist.

A line that a kill cut short is dropped when the file is opened again, and written over.
"""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from paretofit.errors import InputError


class JsonLines:
    """Open or go on with a journal.

    Parameters
    ----------
    path : path-like
        Made, with its folder, where it is missing.

    Raises
    ------
    InputError
        If it cannot be written.

    Attributes
    ----------
    entries : list
        What stood in the file when it was opened, up to the first line that is not whole.
    """

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("a", encoding="utf-8")
        except OSError as error:
            raise InputError(f"the journal {path} cannot be written: {error.strerror}") from error
        self.entries, whole = read_json_lines(path)
        if whole < path.stat().st_size:
            os.truncate(path, whole)

    def append(self, entry: Any) -> None:
        """Add an entry; on return it is on disk."""
        self._stream.write(json.dumps(entry) + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file; what was appended is on disk already."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_json_lines(path: Path) -> tuple[list[Any], int]:
    """The entries of the whole lines at the beginning of a file, and their length in bytes."""
    entries: list[Any] = []
    length = 0
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
        length += len(line) + 1
    return entries, length
