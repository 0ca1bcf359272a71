"""Files that are either whole or absent: written under a temporary name, then renamed.

A reader never sees a half-written file, and a file under its final name means its stage is done.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from paretofit.errors import InputError


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and takes that name.

    On an error the temporary file is removed and whatever stood at `path` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes it private; users share run folders
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_yaml(path: Path | str) -> Any:
    """Read a YAML 1.2 file into plain Python values.

    Raises
    ------
    InputError
        If there is no such file, or it is not YAML (a key that appears twice is an error, too).
    """
    path = Path(path)
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"no file at {path}") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"{path}{where} is not valid YAML: {' '.join(str(problem).split())}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text: {error}") from error


def digest(value: Any) -> str:
    """SHA-256, as hex, of anything that JSON can hold; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def array_digest(array: np.ndarray[Any, Any]) -> str:
    """SHA-256, as hex, of an array's shape, type and bytes."""
    contiguous = np.ascontiguousarray(array)
    head = f"{contiguous.shape}{contiguous.dtype.str}".encode()
    return hashlib.sha256(head + contiguous.tobytes()).hexdigest()


def file_digest(path: Path | str) -> str:
    """SHA-256, as hex, of a file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
