"""Reading, hashing and atomic writing of files.

A file is written under a temporary name and then renamed. A reader therefore never sees a half-written file, and a file
under its final name shows that the stage that writes it is complete.
"""

import bz2
import errno
import fcntl
import gzip
import hashlib
import json
import lzma
import os
import re
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from paretofit.core.errors import ExecutionError, InputError, raise_if_system_error
from paretofit.core.text import list_first

MAX_YAML_VALUES = 1_000_000  # number of values of a YAML file with all aliases expanded
MAX_INTEGER_BITS = 10_000  # length of an integer in a YAML file; Python refuses to print much longer integers
MAX_LISTED_PATHS = 3  # number of paths in a message
LOCK_FILE_NAME = "run.lock"  # file in a run directory that the active run locks
COMPRESSED_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
TEMPORARY_NAME = re.compile(r"\..*-[a-z0-9_]{8}(\.[^.]*)?")  # matches the names of `_create_temporary_file`
# Errors of writing to an open file, which do not name the file.
DISK_WRITE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the directory of `path`; on success, flush the file to disk and rename it to `path`.

    On an error, the temporary file is removed, and an existing file at `path` remains unchanged. If `path` is a
    symbolic link, the file that it points to is written. The temporary file is locked; unlocked temporary files, which
    killed processes left behind, are removed by the next call for the same path.

    Raises
    ------
    InputError
        If the file cannot be written, for example because `path` is a directory.
    ExecutionError
        If the disk is full.
    """
    path = _follow_links(Path(path))
    temporary_path, lock_descriptor = _create_temporary_file(path)
    try:
        yield temporary_path
        temporary_path.chmod(0o666 & ~_get_umask())  # mkstemp sets 0600, but users share run directories
        with temporary_path.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary_path.replace(path)
    except OSError as error:
        if error.filename == str(temporary_path) or error.errno in DISK_WRITE_ERRNOS:
            raise _translate_write_error(path, error) from error
        raise  # the error concerns another file
    finally:
        with suppress(OSError):
            temporary_path.unlink(missing_ok=True)
        os.close(lock_descriptor)


def _follow_links(path: Path) -> Path:
    """Return the path to write to: the target of a symbolic link, or `path` itself.

    Renaming a file to `path` would replace a link, a device or a pipe instead of writing to it. Raises `InputError` for
    a device, a pipe or a loop of links.
    """
    try:
        mode = path.stat().st_mode
        is_link = path.is_symlink()
    except (OSError, ValueError):  # a missing or invalid path, for which writing reports a better message
        target = Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114  (Path.is_symlink may raise)
        if os.path.islink(target):  # noqa: PTH114  (a loop of links)
            raise _translate_write_error(path, OSError(errno.ELOOP, os.strerror(errno.ELOOP))) from None
        return target
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path} cannot be written: it is a device or a pipe; choose another path")
    return Path(os.path.realpath(path)) if is_link else path


def check_new_paths(
    files: Iterable[Path | str],
    folders: Iterable[Path | str] = (),
    *,
    overwrite: bool,
    remedy: str = "choose another path, or replace it with --force",
) -> None:
    """Check, before any work begins, that the outputs of a command replace nothing that exists.

    Every function that writes to paths that the user chose calls this function. Devices are not checked, because
    `atomic_path` refuses them; a symbolic link counts as the file that it points to.

    Parameters
    ----------
    files, folders : iterable of path-like
        Files to be written, and folders to write files to. Folders may exist if they are empty.
    overwrite : bool
        Whether existing files may be replaced; if true, nothing is checked.
    remedy : str
        Advice to the user, at the end of the error message.

    Raises
    ------
    InputError
        If an output exists.
    """
    if overwrite:
        return
    existing_paths = [str(path) for path in files if os.path.isfile(path)]  # noqa: PTH113  (Path.is_file may raise)
    existing_paths += [f"{path}{os.sep}" for path in folders if os.path.isdir(path) and os.listdir(path)]  # noqa: PTH112, PTH208
    if existing_paths:
        verb = "already exists" if len(existing_paths) == 1 else "already exist"
        raise InputError(f"{list_first(existing_paths, MAX_LISTED_PATHS)} {verb} and would be overwritten; {remedy}")


def _create_temporary_file(path: Path) -> tuple[Path, int]:
    """Create a locked, empty temporary file next to `path`; return its path and the descriptor that holds the lock.

    The directory is created if it is missing, and unlocked temporary files for `path` are removed. Raises `InputError`
    if `path` is a directory or the file cannot be created.
    """
    if os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises if a parent directory cannot be entered)
        raise InputError(f"{path} cannot be written: it is a directory; choose another path")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_files(path)
        while True:
            lock_descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
            with suppress(OSError):  # some network disks have no locks
                fcntl.flock(lock_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have removed the file as stale before it was locked; then create another one.
            if os.path.exists(name):  # noqa: PTH110  (`name` is a string)
                return Path(name), lock_descriptor
            os.close(lock_descriptor)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _translate_write_error(path, error) from error


def _remove_stale_files(path: Path) -> None:
    """Remove temporary files for `path` that killed processes left behind: those that no process has locked."""
    for name in os.listdir(path.parent):  # noqa: PTH208  (names, without a Path for each file)
        if name.startswith(f".{path.stem}-") and name.endswith(path.suffix) and TEMPORARY_NAME.fullmatch(name):
            with suppress(OSError):  # another process has removed or locked the file
                descriptor = os.open(path.parent / name, os.O_RDWR | os.O_NOFOLLOW)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    (path.parent / name).unlink()
                finally:
                    os.close(descriptor)


def remove_temporary_files(folder: Path) -> None:
    """Remove all temporary files under a run directory, locked or not, except in the directories of other runs.

    The directory of another run is a subdirectory that contains `LOCK_FILE_NAME`.
    """
    for parent, subfolders, file_names in os.walk(folder):
        # `os.walk` enters only the subfolders that remain in this list.
        subfolders[:] = [name for name in subfolders if not Path(parent, name, LOCK_FILE_NAME).exists()]
        for name in filter(TEMPORARY_NAME.fullmatch, file_names):
            Path(parent, name).unlink(missing_ok=True)


def check_writable(path: Path | str) -> None:
    """Check, before any work begins, that a file can be written; create its directory, but not the file itself.

    Raises
    ------
    InputError
        As for `atomic_path`.
    """
    temporary_path, lock_descriptor = _create_temporary_file(_follow_links(Path(path)))
    temporary_path.unlink()
    os.close(lock_descriptor)


def _translate_write_error(path: Path, error: OSError | ValueError) -> InputError:
    """Return the error to raise if `path` cannot be written: an `ExecutionError` if the disk is full."""
    reason = getattr(error, "strerror", None) or join_lines(error)
    if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
        return ExecutionError(f"{path} cannot be written: {reason}; free disk space, or choose another path")
    return InputError(f"{path} cannot be written: {reason}; choose another path")


def join_lines(text: object) -> str:
    """Return a text on one line, with single spaces, such as an error of another program to quote in a message."""
    return " ".join(str(text).split())


def remove_file(path: Path | str) -> None:
    """Remove a file if it exists.

    Raises
    ------
    InputError
        If the file cannot be removed.
    """
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path} cannot be removed: {error.strerror}; remove it yourself, or choose another path"
        ) from error


def write_text(path: Path | str, text: str) -> None:
    """Write a UTF-8 text file atomically.

    Raises
    ------
    InputError
        As for `atomic_path`.
    """
    with atomic_path(path) as temporary_path:
        temporary_path.write_text(text, encoding="utf-8")


def write_json_with_digest(path: Path | str, record: dict[str, Any]) -> None:
    """Write a JSON object atomically, with the digest of its content under the additional key "digest".

    Raises
    ------
    InputError
        As for `atomic_path`.
    """
    content = json.loads(json.dumps(record))  # converts numeric keys to text before they are hashed
    write_text(path, json.dumps({**content, "digest": hash_json(content)}, indent=1) + "\n")


def read_json_with_digest(path: Path | str, remedy: str) -> dict[str, Any]:
    """Read a file written by `write_json_with_digest`, verify its digest, and return its content without the digest.

    Files of older versions have no digest and are not verified.

    Parameters
    ----------
    path : path-like
    remedy : str
        Advice to the user, at the end of the error message.

    Raises
    ------
    InputError
        If the file is missing or corrupt.
    ExecutionError
        If the system prevents reading.
    """
    try:
        record: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        digest = record.pop("digest", None)
        is_intact = digest in {None, hash_json(record)}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise_if_system_error(error, path)
        is_intact = False
    if not is_intact:
        state = "corrupt" if Path(path).is_file() else "corrupt or missing"
        raise InputError(f"{path} is {state}: its content is not what the run wrote; {remedy}")
    return record


def hash_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 digest of each of the named files that exists in the folder."""
    return {name: hash_file(folder / name) for name in names if (folder / name).exists()}


def read_text(path: Path | str, description: str) -> str:
    """Read a UTF-8 text file, which may be compressed (.gz, .bz2, .xz), without its byte-order mark.

    Parameters
    ----------
    path : path-like
    description : str
        Kind of file, for error messages, such as "YAML file".

    Raises
    ------
    InputError
        If the file is missing, cannot be read, or is not UTF-8.
    ExecutionError
        If the system prevents reading.
    """
    try:
        with COMPRESSED_OPENERS.get(Path(path).suffix, open)(path, "rb") as stream:
            return str(stream.read().decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(f"there is no file at {path}; correct the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; specify a {description}") from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        if getattr(error, "errno", None) != errno.EISDIR:  # a directory is a wrong path, not a system error
            raise_if_system_error(error, path)
        reason = getattr(error, "strerror", None) or join_lines(error)
        raise InputError(f"{path} cannot be read: {reason}; specify a {description}") from error


def read_yaml(path: Path | str) -> Any:
    """Read a YAML 1.2 file into plain Python values.

    Raises
    ------
    InputError
        If the file cannot be read, is not valid YAML, repeats a key, has aliases that expand to too many values, or
        contains an integer that is too long.
    """
    text = read_text(path, "YAML file")
    try:
        content = YAML(typ="safe", pure=True).load(text)
        _count_yaml_values(content, {})
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        location = f", line {mark.line + 1}" if mark else ""
        problem = join_lines(getattr(error, "problem", None) or error)
        if "mapping values are not allowed" in problem:
            problem += "; put text that contains ': ' in quotes"
        raise InputError(f"{path}{location} is not valid YAML: {problem}") from error
    except (ValueError, TypeError, RecursionError) as error:  # an invalid date, a list as a key, ...
        raise InputError(f"{path} is not valid YAML: {join_lines(error)}") from error
    return content


def _count_yaml_values(value: Any, counts: dict[int, int]) -> int:
    """Count the values with all aliases expanded; raise ValueError for too many values or an integer that is too long.

    A few lines of nested aliases can expand to more values than fit into memory when a message prints them. `counts`
    caches the counts of containers by their `id`.
    """
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        raise ValueError(f"a number of {value.bit_length()} bits is too long")
    if not isinstance(value, dict | list | tuple | set):
        return 1
    if id(value) not in counts:
        counts[id(value)] = MAX_YAML_VALUES  # until the count is known: refuses a value that contains itself
        children = [*value, *value.values()] if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_count_yaml_values(child, counts) for child in children)
    if counts[id(value)] >= MAX_YAML_VALUES:
        raise ValueError(f"its aliases expand to more than {MAX_YAML_VALUES:,} values, or contain themselves")
    return counts[id(value)]


def hash_json(value: Any) -> str:
    """Return the hexadecimal SHA-256 digest of a JSON value, independent of the order of keys.

    Objects that JSON does not know, such as paths, are hashed as their text.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_array(array: np.ndarray[Any, Any]) -> str:
    """Return the hexadecimal SHA-256 digest of the shape, type and bytes of an array."""
    contiguous_array = np.ascontiguousarray(array)
    header = f"{contiguous_array.shape}{contiguous_array.dtype.str}".encode()
    return hashlib.sha256(header + contiguous_array.tobytes()).hexdigest()


def hash_file(path: Path | str) -> str:
    """Return the hexadecimal SHA-256 digest of the bytes of a file."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _get_umask() -> int:
    """Return the permission mask of new files, which Python can read only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
