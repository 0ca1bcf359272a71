"""Run folders: ownership check, exclusive lock, record, and removal of temporary files that a killed run left."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from paretofit.core import (
    LOCK_FILE_NAME,
    InputError,
    atomic_path,
    hash_file,
    read_json_with_digest,
    read_yaml,
    remove_temporary_files,
    write_json_with_digest,
    write_text,
)

RECORD_FILE = "run.json"
RERUN_ADVICE = "run the study again"
RESUME_ADVICE = "run the same paretofit run again, it resumes"
RESULTS_FILE, FRONT_FILE = "results.csv", "front.csv"
WEIGHT_PATH_FILE, WEIGHT_KNEES_FILE = "weight_path.csv", "weight_knees.csv"
NETWORKS_FILE, NETWORK_CALIBRATION_FILE = "mace.csv", "mace_calibration.csv"


@contextmanager
def open_run_folder(folder: Path, name: str) -> Iterator[Path]:
    """Create or reopen the run folder of a study and lock it for this process.

    Raises
    ------
    InputError
        If the folder cannot be written, holds files that are not of a run, belongs to another study, or is in use.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_owner(folder, name)
        lock = (folder / LOCK_FILE_NAME).open("a", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the run folder {folder} cannot be used: {error.strerror}; name another one with --out"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another run is using {folder}; wait for it, or name another folder with --out"
            ) from error
        except OSError as error:  # some network file systems cannot lock
            raise InputError(
                f"the run folder {folder} cannot be locked: {error.strerror}; name a folder on another disk with --out"
            ) from error
        if _read_study_name(folder) is None:
            write_text(folder / RECORD_FILE, json.dumps({"study": name}) + "\n")
        remove_temporary_files(folder)  # the lock proves that the process that wrote them has ended
        yield folder


def _check_owner(folder: Path, name: str) -> None:
    others = [path.name for path in folder.iterdir() if path.name not in {LOCK_FILE_NAME, RECORD_FILE}]
    owner = _find_owner(folder)
    if owner is None and others and (folder / RECORD_FILE).exists():
        raise InputError(
            f"{folder / RECORD_FILE} is corrupt; if this is a run of '{name}', write "
            f"{json.dumps({'study': name})} into it"
        )
    if owner is None and others:
        raise InputError(
            f"{folder} holds files that are not of a run (such as {min(others)}); name a new or empty folder with --out"
        )
    if owner is not None and owner != name:
        raise InputError(
            f"{folder} holds a run of the study '{owner}', not of '{name}'; name another folder with --out"
        )


def _find_owner(folder: Path) -> str | None:
    """Find the study that a folder belongs to; where the record is corrupt, from the copy of the study."""
    if (folder / RECORD_FILE).exists() and _read_study_name(folder) is None:
        for name in ("study.yaml", "study.json"):  # JSON is YAML
            with suppress(InputError, TypeError, KeyError):
                return str(read_yaml(folder / name)["name"])
    return _read_study_name(folder)


def _read_study_name(folder: Path) -> str | None:
    try:
        content: Any = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        return str(content["study"])
    except (FileNotFoundError, ValueError, TypeError, KeyError, RecursionError):
        return None


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record of a run, with a digest of its content."""
    write_json_with_digest(folder / RECORD_FILE, record)


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record of a run; it has only the name of the study where the run is not finished.

    Raises
    ------
    InputError
        If the record is not as the run wrote it.
    """
    record = read_json_with_digest(folder / RECORD_FILE, RERUN_ADVICE)
    if not isinstance(record.get("study"), str):
        raise InputError(f"{folder / RECORD_FILE} does not name its study; {RERUN_ADVICE}")
    return record


def check_stages(folder: Path, stage_by_file: Mapping[str, str]) -> dict[str, Any]:
    """Check that the files of some stages of a run exist; return its record.

    Raises
    ------
    InputError
        If the folder is not a run folder, or with the first stage whose file is missing.
    """
    if not (folder / RECORD_FILE).exists():
        raise InputError(f"{folder} is not a run folder: it has no {RECORD_FILE}; name one that paretofit run has made")
    for name, stage in stage_by_file.items():
        if not (folder / name).exists():
            raise InputError(f"{folder} is not finished: the stage '{stage}' is missing (no {name}); {RESUME_ADVICE}")
    return read_record(folder)


def check_digests(folder: Path, record: dict[str, Any], names: Iterable[str] | None = None) -> None:
    """Refuse files of a run whose content has changed since: a changed digit looks like any other.

    Files without a recorded digest (from older versions) and files that do not exist are not checked.

    Raises
    ------
    InputError
        With the first such file.
    """
    digests: dict[str, str] = record.get("sha256", {})
    for name in digests if names is None else set(names) & set(digests):
        if (folder / name).exists() and hash_file(folder / name) != digests[name]:
            raise InputError(
                f"{folder / name} is corrupt: its content is not what the run wrote; run the same paretofit run "
                "again, which writes it from the finished fits"
            )


def link_dataset(source: Path, target: Path) -> None:
    """Keep the dataset of a run in its folder: as a hard link where the file system allows it, else as a copy."""
    if target.exists() and (target.samefile(source) or hash_file(target) == hash_file(source)):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


class _LogFile(logging.FileHandler):
    """A log that ignores a full disk: writing a result fails with a message of its own."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Write the log of this package also to a file."""
    try:
        handler = _LogFile(path, encoding="utf-8")
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
