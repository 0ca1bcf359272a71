"""An append-only file of JSON lines, for results that must survive a kill the moment they exist.

A last line that a kill cut short is dropped when the file is opened again, and written over.
"""

import json
import logging
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from paretofit.errors import InputError

log = logging.getLogger(__name__)


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
        What stood in the file when it was opened. A line in its midst that is not JSON is left where it is, and
        warned of in the log.
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
    """The entries of the whole lines of a file, and the length of these lines in bytes."""
    entries: list[Any] = []
    content = path.read_bytes()
    *lines, cut_short = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(json.loads(line))
        except ValueError:
            log.warning("%s, line %d is damaged and left out", path, number)
    return entries, len(content) - len(cut_short)
