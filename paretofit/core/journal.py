"""An append-only file of JSON lines, for results that must survive a kill the moment they exist.

A last line that a kill cut short is dropped when the file is opened again, and written over. Every object bears a
CRC-32 of itself, so that one whose numbers have changed on disk is not taken for what was
written.
"""

import json
import logging
import os
import zlib
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from paretofit.core.errors import ExecutionError, InputError

log = logging.getLogger(__name__)

SEAL = "crc32"


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
        What stood in the file when it was opened. A line in its midst that is not JSON, or an object that has
        changed since it was written, is left where it is, and warned of in the log.
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
        """Add an entry, an object or a list of them; on return it is on disk.

        Raises
        ------
        FailedError
            If it cannot be written; what was appended before is safe.
        """
        line = json.dumps([_sealed(one) for one in entry] if isinstance(entry, list) else _sealed(entry))
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise ExecutionError(
                f"the journal {self._stream.name} cannot be written: {error.strerror}; what is finished is kept: make "
                "room, then the same command goes on"
            ) from error

    def close(self) -> None:
        """Close the file; what was appended is on disk already."""
        with suppress(OSError):  # the line that could not be written
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
            entry = json.loads(line)
        except (ValueError, RecursionError):
            log.warning("%s, line %d is damaged and left out", path, number)
            continue
        parts = entry if isinstance(entry, list) else [entry]
        whole = [one for one in parts if _unsealed(one)]
        if len(whole) < len(parts):
            log.warning("%s, line %d has changed since it was written; what has changed is left out", path, number)
        entries.extend([whole] if isinstance(entry, list) else whole)
    return entries, len(content) - len(cut_short)


def _sealed(entry: Any) -> Any:
    return {**entry, SEAL: _crc(entry)} if isinstance(entry, dict) else entry


def _unsealed(entry: Any) -> bool:
    """Whether an entry is as it was written, its seal removed; one of an older version has none."""
    return not isinstance(entry, dict) or SEAL not in entry or entry.pop(SEAL) == _crc(entry)


def _crc(entry: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(entry).encode())
