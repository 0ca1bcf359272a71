"""Files that are either whole or absent: written under a temporary name, then renamed.

A reader never sees a half-written file, and a file under its final name means its stage is done.
"""

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from paretofit.core.errors import ExecutionError, InputError

MOST_VALUES, LONGEST_NUMBER = 1_000_000, 10_000  # in a YAML file: values, and bits of a whole number
LOCK_FILE_NAME = "run.lock"  # in a folder that a run holds for itself
TEMPORARY = re.compile(r"\..*-[a-z0-9_]{8}(\.[^.]*)?")  # names of `tempfile.mkstemp` in `atomic_path`
DISK_WRITE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # raised in mid-file, without a file name


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and takes that name.

    On an error the temporary file is removed and whatever stood at `path` is left as it was.

    Raises
    ------
    InputError
        If nothing can be written there: a folder has that name, permission or space is missing, ...
    """
    path = Path(path)
    temporary = _temporary_beside(path)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes it private; users share run folders
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename != str(temporary) and error.errno not in DISK_WRITE_ERRNOS:  # another file's trouble
            raise
        raise _not_written(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _temporary_beside(path: Path) -> Path:
    """An empty file of a new name in the folder of `path`, which is made where it is missing."""
    if os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises where a folder above cannot be entered)
        raise InputError(f"{path} cannot be written: it is a folder; name another place")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _not_written(path, error) from error
    os.close(handle)
    return Path(name)


def remove_temporary_files(folder: Path) -> None:
    """Remove what `atomic_path` has left in a folder, and those in it, where it was killed."""
    for place, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if not Path(place, one, LOCK_FILE_NAME).exists()]  # another run's
        for name in names:
            if TEMPORARY.fullmatch(name):
                Path(place, name).unlink(missing_ok=True)


def check_writable(path: Path | str) -> None:
    """See that a file can be written, before the work that it is for; nothing is left there.

    Raises
    ------
    InputError
        As of `atomic_path`.
    """
    _temporary_beside(Path(path)).unlink()


def _not_written(path: Path, error: OSError | ValueError) -> InputError:
    reason = getattr(error, "strerror", None) or one_line(error)
    if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
        return ExecutionError(f"{path} cannot be written: {reason}; make room, or name another place")
    return InputError(f"{path} cannot be written: {reason}; name another place")


def one_line(text: object) -> str:
    """`text` without line breaks and repeated blanks: other programs' errors, quoted in a sentence of ours."""
    return " ".join(str(text).split())


def remove_file(path: Path | str) -> None:
    """Remove a file if it is there.

    Raises
    ------
    InputError
        If it cannot be removed.
    """
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be removed: {error.strerror}; remove it, or name another place") from error


def write_text(path: Path | str, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_with_digest(path: Path | str, record: dict[str, Any]) -> None:
    """Write a JSON object with a digest of itself, whole or not at all."""
    plain = json.loads(json.dumps(record))  # keys that are numbers become texts before the digest, too
    write_text(path, json.dumps({**plain, "digest": hash_json(plain)}, indent=1) + "\n")


def read_json_with_digest(path: Path | str, remedy: str) -> dict[str, Any]:
    """Read what `write_json_with_digest` has written; a file of an older version bears no digest.

    Parameters
    ----------
    path : path-like
    remedy : str
        What would be right.

    Raises
    ------
    InputError
        If it is not what was written.
    """
    try:
        record: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        whole = record.pop("digest", None) in {None, hash_json(record)}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        whole = False
    if not whole:
        state = "damaged" if Path(path).is_file() else "damaged or missing"
        raise InputError(f"{path} is {state}: it is not what the run has written; {remedy}")
    return record


def hash_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of those files of a folder that are there, for its record."""
    return {name: hash_file(folder / name) for name in names if (folder / name).exists()}


def read_yaml(path: Path | str) -> Any:
    """Read a YAML 1.2 file into plain Python values.

    Raises
    ------
    InputError
        If there is no such file, or it is not YAML (a key that appears twice is an error, too).
    """
    path = Path(path)
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8-sig"))
        _check_extent(content, {})
    except FileNotFoundError as error:
        raise InputError(f"no file at {path}") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = one_line(getattr(error, "problem", None) or error)
        if "mapping values are not allowed" in problem:
            problem += "; put text that contains ': ' in quotes"
        raise InputError(f"{path}{where} is not valid YAML: {problem}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; name a YAML file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; name a YAML file") from error
    except (ValueError, TypeError, RecursionError) as error:  # a date that does not exist, a list as a key, ...
        raise InputError(f"{path} is not valid YAML: {one_line(error)}") from error
    return content


def _check_extent(value: Any, extents: dict[int, int]) -> int:
    """How many values there are with all aliases written out, where one that stands twice is counted twice.

    A few lines of aliases of aliases can stand for more than any memory holds, and what repeats them in a message
    writes them out.
    """
    if isinstance(value, int) and value.bit_length() > LONGEST_NUMBER:
        raise ValueError(f"a number of {value.bit_length()} bits is too long")
    if not isinstance(value, dict | list | tuple | set):
        return 1
    if id(value) not in extents:
        extents[id(value)] = MOST_VALUES  # while its own values are counted: it may be one of them
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        extents[id(value)] = 1 + sum(_check_extent(one, extents) for one in inner)
    if extents[id(value)] >= MOST_VALUES:
        raise ValueError(f"its aliases stand for more than {MOST_VALUES:,} values, or for what they stand in")
    return extents[id(value)]


def hash_json(value: Any) -> str:
    """SHA-256, as hex, of anything that JSON can hold; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_array(array: np.ndarray[Any, Any]) -> str:
    """SHA-256, as hex, of an array's shape, type and bytes."""
    contiguous = np.ascontiguousarray(array)
    head = f"{contiguous.shape}{contiguous.dtype.str}".encode()
    return hashlib.sha256(head + contiguous.tobytes()).hexdigest()


def hash_file(path: Path | str) -> str:
    """SHA-256, as hex, of a file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
