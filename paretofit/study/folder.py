"""The run folder: nobody else's files are touched, two runs never share it, and a kill leaves no litter."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from paretofit.errors import InputError
from paretofit.files import file_digest, replacing, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORD = "run.json"
RESULTS, FRONT = "results.csv", "front.csv"
PATHS, KNEES = "weight_path.csv", "weight_knees.csv"
NETWORKS, CALIBRATION = "mace.csv", "mace_calibration.csv"


@contextmanager
def run_folder(folder: Path, name: str) -> Iterator[Path]:
    """Make or reopen the run folder of a study and hold it for this process.

    Raises
    ------
    InputError
        If the folder cannot be written, holds files that are not of a run, is of another study, or is
        in use.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_owner(folder, name)
        lock = (folder / "run.lock").open("a", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the run folder {folder} cannot be used: {error.strerror}; name another one with --out"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another run is using {folder}; wait for it, or name another folder with --out"
            ) from error
        if not (folder / RECORD).exists():
            write_text(folder / RECORD, json.dumps({"study": name}) + "\n")
        _sweep_litter(folder)
        yield folder


def _check_owner(folder: Path, name: str) -> None:
    others = [path.name for path in folder.iterdir() if path.name not in {"run.lock", RECORD}]
    owner = _owner(folder / RECORD)
    if owner is None and others:
        raise InputError(
            f"{folder} holds files that are not of a run (such as {min(others)}); name a new or empty folder with --out"
        )
    if owner is not None and owner != name:
        raise InputError(
            f"{folder} holds a run of the study '{owner}', not of '{name}'; name another folder with --out"
        )


def _owner(record: Path) -> str | None:
    try:
        content: Any = json.loads(record.read_text(encoding="utf-8"))
        return str(content["study"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _sweep_litter(folder: Path) -> None:
    """Remove temporary files of a run that was killed; the lock says that it is not running any more."""
    for place in (folder, folder / "figures", folder / "tables"):
        for path in place.glob(".*-????????.*"):
            path.unlink(missing_ok=True)


def link_dataset(source: Path, target: Path) -> None:
    """Keep the labels that a run used beside it: as a hard link where the file system can, else a copy."""
    if target.exists() and (target.samefile(source) or file_digest(target) == file_digest(source)):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Send this package's log to the run's file as well."""
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise InputError(f"the log {path} cannot be written: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("paretofit")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    except Exception:
        logger.exception("stopped")
        raise
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        handler.close()
