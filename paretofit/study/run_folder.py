"""Run folders: owner, exclusive lock, record, log, and removal of the temporary files of killed runs."""

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
    remove_file,
    remove_temporary_files,
    write_json_with_digest,
    write_text,
)

RECORD_FILE = "run.json"
RERUN_ADVICE = "run the study again"
RESUME_ADVICE = "run the same command again to resume"
RESULTS_FILE, FRONT_FILE = "results.csv", "front.csv"
WEIGHT_FILES = ("weight_path.csv", "weight_knees.csv")
CONFIDENCE_FILES = CONFIDENCE_FILE, SPLIT_ERRORS_FILE = "confidence.csv", "confidence.h5"
NETWORK_FILES = NETWORKS_FILE, NETWORK_CALIBRATION_FILE = "mace.csv", "mace_calibration.csv"


@contextmanager
def open_run_folder(folder: Path, name: str) -> Iterator[Path]:
    """Create or reopen the run folder of a study, and lock it for this process until the context ends.

    Temporary files of killed runs are removed, and a new folder gets a record with the name of the study.

    Parameters
    ----------
    folder : Path
    name : str
        Name of the study, which is the owner of the folder.

    Raises
    ------
    InputError
        If the folder cannot be written or locked, contains foreign files or a corrupt record, belongs to another study,
        or is in use.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_new_lock = not (folder / LOCK_FILE_NAME).exists()
        lock = (folder / LOCK_FILE_NAME).open("a", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the run folder {folder} cannot be used: {error.strerror}; choose another folder with --out"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another run is at work in {folder}; wait until it ends, or choose another folder with --out"
            ) from error
        except OSError as error:  # some network file systems cannot lock
            raise InputError(
                f"the run folder {folder} cannot be locked: {error.strerror}; use another disk, with --out"
            ) from error
        try:
            # Only under the lock, because another run that has just started may not have written its record yet.
            _check_owner(folder, name)
        except InputError:
            if is_new_lock:
                remove_file(folder / LOCK_FILE_NAME)
            raise
        if _read_study_name(folder) is None:
            write_text(folder / RECORD_FILE, json.dumps({"study": name}) + "\n")
        remove_temporary_files(folder)  # safe: the process that wrote these files has ended, as it lost the lock
        yield folder


def _check_owner(folder: Path, name: str) -> None:
    """Raise InputError if a folder contains files that do not belong to the study `name`."""
    other_files = [path.name for path in folder.iterdir() if path.name not in {LOCK_FILE_NAME, RECORD_FILE}]
    owner = _read_owner(folder)
    if owner is None and other_files and (folder / RECORD_FILE).exists():
        raise InputError(
            f"{folder / RECORD_FILE} is corrupt; if the folder belongs to the study '{name}', replace the content of "
            f"this file by {json.dumps({'study': name})}"
        )
    if owner is None and other_files:
        raise InputError(
            f"{folder} contains files that do not belong to a run (such as {min(other_files)}); choose a new or "
            "empty folder with --out"
        )
    if owner is not None and owner != name:
        raise InputError(
            f"{folder} contains a run of the study '{owner}', not of '{name}'; choose another folder with --out"
        )


def _read_owner(folder: Path) -> str | None:
    """Read the name of the study that owns a folder from its record, or from its study file if the record is corrupt.

    Return None if there is no record, or neither file can be read.
    """
    if (folder / RECORD_FILE).exists() and _read_study_name(folder) is None:
        for name in ("study.yaml", "study.json"):  # JSON is valid YAML
            with suppress(InputError, TypeError, KeyError):
                return str(read_yaml(folder / name)["name"])
    return _read_study_name(folder)


def _read_study_name(folder: Path) -> str | None:
    """Read the name of the study from the record of a folder; None if the record is missing or corrupt."""
    record = _read_raw_record(folder)
    return str(record["study"]) if "study" in record else None


def record_version(folder: Path, stage: str) -> None:
    """Record in a run folder that this version of paretofit executed a stage."""
    from paretofit import __version__  # noqa: PLC0415  (the package's __init__ may still be loading)

    record = _read_raw_record(folder)
    versions = read_stage_versions(folder)
    if __version__ not in versions.setdefault(stage, []):
        versions[stage].append(__version__)
        write_record(folder, {**record, "stage_versions": versions})


def read_stage_versions(folder: Path) -> dict[str, list[str]]:
    """Read the versions of paretofit that executed each stage of a run, in order of their first execution.

    Records of older versions of paretofit contain one version for all stages.
    """
    record = _read_raw_record(folder)
    versions = record.get("stage_versions")
    if isinstance(versions, dict):
        return {str(stage): list(map(str, names)) for stage, names in versions.items()}
    package_versions = record.get("versions")
    if isinstance(package_versions, dict) and package_versions.get("paretofit"):
        return {stage: [str(package_versions["paretofit"])] for stage in record.get("seconds", {})}
    return {}


def describe_other_versions(folder: Path) -> list[str]:
    """Return a warning about stages that other versions of paretofit executed, as a list; empty if there are none."""
    from paretofit import __version__  # noqa: PLC0415  (the package's __init__ may still be loading)

    stage_notes = [
        f"{stage} by {', '.join(versions)}"
        for stage, versions in read_stage_versions(folder).items()
        if set(versions) - {__version__}
    ]
    if not stage_notes:
        return []
    warning = (
        f"This run is continued by paretofit {__version__}, and reuses results of other versions "
        f"({'; '.join(stage_notes)}); for results of one version only, run the study in a new folder (--out)."
    )
    return [warning]


def _read_raw_record(folder: Path) -> dict[str, Any]:
    """Read the record of a run without its digest, which is not checked; empty if the record cannot be read."""
    try:
        content = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return {key: value for key, value in content.items() if key != "digest"} if isinstance(content, dict) else {}


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record of a run, with a digest of its content."""
    write_json_with_digest(folder / RECORD_FILE, record)


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record of a run; the record of an unfinished run contains only the name of the study.

    Raises
    ------
    InputError
        If the record is missing or corrupt.
    """
    record = read_json_with_digest(folder / RECORD_FILE, RERUN_ADVICE)
    if not isinstance(record.get("study"), str):
        raise InputError(f"{folder / RECORD_FILE} does not contain the name of its study; {RERUN_ADVICE}")
    return record


def check_stages(folder: Path, stage_by_file: Mapping[str, str]) -> dict[str, Any]:
    """Check that files of a run exist, and return the record of the run.

    Parameters
    ----------
    folder : Path
    stage_by_file : mapping of str to str
        Name of the stage that writes each required file.

    Raises
    ------
    InputError
        If the folder is not a run folder, the record is corrupt, or a file is missing; the message contains its stage.
    """
    if not (folder / RECORD_FILE).exists():
        raise InputError(f"{folder} is not a run folder (no {RECORD_FILE}); specify a folder of 'paretofit run'")
    for name, stage in stage_by_file.items():
        if not (folder / name).exists():
            raise InputError(f"{folder} is not finished: the stage '{stage}' is missing (no {name}); {RESUME_ADVICE}")
    return read_record(folder)


def check_digests(folder: Path, record: dict[str, Any], names: Iterable[str] | None = None) -> None:
    """Check that the content of a run's files has not changed.

    Only `names` are checked; by default, all files. Files that do not exist or have no digest in the record, as in runs
    of older versions, are not checked.

    Raises
    ------
    InputError
        If a file has changed.
    """
    digests: dict[str, str] = record.get("sha256", {})
    checked_names = list(digests) if names is None else set(names) & set(digests)
    for name in checked_names:
        if (folder / name).exists() and hash_file(folder / name) != digests[name]:
            raise InputError(
                f"{folder / name} is corrupt: it has changed since the run wrote it; run the same command again to "
                "write it from the finished fits"
            )


def link_dataset(source: Path, target: Path) -> None:
    """Store a dataset as a hard link if the file system allows it, otherwise as a copy.

    A file at `target` is replaced, unless it has the same content.
    """
    if target.exists() and (target.samefile(source) or hash_file(target) == hash_file(source)):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


class _LogFile(logging.FileHandler):
    """Log file that ignores a full disk, which the code that writes results reports with a better message."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore errors of the file system when a record is written; handle other errors like the parent class."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close the file; ignore errors when the last records are written."""
        with suppress(OSError):
            super().close()


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Append the log of this package to a file while the context is open, at the level INFO.

    An exception is logged and raised again.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    try:
        handler = _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise InputError(f"the log {path} cannot be written: {error.strerror}; choose another folder") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("paretofit")
    original_level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    except Exception:
        logger.exception("stopped")
        raise
    finally:
        logger.setLevel(original_level)
        logger.removeHandler(handler)
        handler.close()
