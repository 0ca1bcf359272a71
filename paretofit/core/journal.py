"""Append-only file of JSON lines, for results that must survive a kill of the process.

An incomplete last line is removed when the file is opened again. Each object is stored with its CRC-32, which reveals a
change on disk.
"""

import json
import logging
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from paretofit.core.errors import ExecutionError, InputError

log = logging.getLogger(__name__)

CHECKSUM_KEY = "crc32"


class JsonLines:
    """Journal of JSON lines, opened for appending.

    Parameters
    ----------
    path : path-like
        Created, with its directory, if it is missing.

    Raises
    ------
    InputError
        If the file cannot be written.

    Attributes
    ----------
    entries : list
        Content of the file when it was opened, with one object or list of objects for each line. Lines that are not
        JSON, and objects that have changed since they were written, are skipped with a warning in the log, but remain
        in the file. An incomplete last line is removed from the file.
    """

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("a", encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"the journal {path} cannot be written: {error.strerror}; choose another folder"
            ) from error
        self.entries, complete_bytes = read_json_lines(path)
        if complete_bytes < path.stat().st_size:
            os.truncate(path, complete_bytes)

    def append(self, entry: Any) -> None:
        """Append an object or a list of objects as one line, and flush it to disk.

        Raises
        ------
        ExecutionError
            If the entry cannot be written; earlier entries remain in the file.
        """
        content = [_add_checksum(element) for element in entry] if isinstance(entry, list) else _add_checksum(entry)
        line = json.dumps(content)
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise ExecutionError(
                f"the journal {self._stream.name} cannot be written: {error.strerror}; finished results are "
                "kept; free disk space, then run the same command again to resume"
            ) from error

    def close(self) -> None:
        """Close the file; all entries are on disk already."""
        with suppress(OSError):  # closing repeats the error of a line that could not be written
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception_details: object) -> None:
        self.close()


def read_json_lines(path: Path) -> tuple[list[Any], int]:
    """Read the complete lines of a file; return their entries and the total length of these lines in bytes.

    Corrupt lines and changed objects are skipped with a warning in the log. The entries have no checksums.
    """
    entries: list[Any] = []
    content = path.read_bytes()
    *lines, incomplete_line = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            log.warning("%s, line %d is corrupt and is skipped", path, number)
            continue
        objects = entry if isinstance(entry, list) else [entry]
        valid_objects = [element for element in objects if _pop_and_verify_checksum(element)]
        if len(valid_objects) < len(objects):
            log.warning("%s, line %d has changed since it was written; the changed objects are skipped", path, number)
        if isinstance(entry, list):  # the list remains one entry, even if all its objects were skipped
            entries.append(valid_objects)
        else:
            entries.extend(valid_objects)
    return entries, len(content) - len(incomplete_line)


def _add_checksum(element: Any) -> Any:
    """Return a copy of a JSON object with its checksum; return any other value, such as a number, unchanged."""
    return {**element, CHECKSUM_KEY: _compute_checksum(element)} if isinstance(element, dict) else element


def _pop_and_verify_checksum(element: Any) -> bool:
    """Remove an object's checksum in place; return whether it is correct or, as in files of older versions, missing."""
    if not isinstance(element, dict) or CHECKSUM_KEY not in element:
        return True
    checksum = element.pop(CHECKSUM_KEY)
    return bool(checksum == _compute_checksum(element))


def _compute_checksum(json_object: dict[str, Any]) -> int:
    """Return the CRC-32 of an object's JSON text, which is the same after reading because the keys keep their order."""
    return zlib.crc32(json.dumps(json_object).encode())
