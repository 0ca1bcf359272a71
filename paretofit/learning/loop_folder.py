"""Files in the run folder of a loop; a stage is finished when its record exists under its final name.

Iterations are numbered from 1, and `number` is the number of an iteration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from paretofit.core import (
    InputError,
    atomic_path,
    hash_file,
    hash_files,
    join_lines,
    raise_if_system_error,
    read_json_with_digest,
    write_json_with_digest,
)
from paretofit.dataset.io import format_extxyz

RESTART_ADVICE = "restore it from a copy, or start a new run in another folder with --out"
# files by the stage that writes them, as patterns relative to the folder of an iteration
STAGE_FILES = {
    "train": ("errors.csv", "components.csv", "calibration.csv", "batch_errors.csv", "model/*"),
    "explore": ("trajectories/*.extxyz",),
    "select": ("frames.csv",),
}


@dataclass(frozen=True)
class LearnFolder:
    """Run folder of a loop at `path`."""

    path: Path

    @property
    def dataset_path(self) -> Path:
        """Path of the dataset of the labelled configurations of all iterations."""
        return self.path / "dataset.h5"

    @property
    def sets_path(self) -> Path:
        """Path of the file with the set of each configuration and the keys that define groups."""
        return self.path / "sets.json"

    def read_set_assignment(self) -> dict[str, Any]:
        """Read the sets of the configurations and the keys that define groups.

        Returns
        -------
        dict
            ``sets`` (set by ``config_id``, which is a string in JSON) and ``group_by`` (list of info keys); empty
            before the first iteration.

        Raises
        ------
        InputError
            If the file is corrupt, or missing although the loop has labels.
        """
        has_started = self.sets_path.is_file() or self.get_iteration(1).read_record("label") is not None
        return read_json_with_digest(self.sets_path, RESTART_ADVICE) if has_started else {}

    def read_iteration_structures(self, number: int) -> list[Atoms]:
        """Read the structures to label in an iteration: candidates, or frames selected in the previous iteration.

        Raises
        ------
        InputError
            If the file is corrupt or missing, or differs from the selection of the previous iteration.
        """
        path = self.get_iteration(number).structures_path
        if number == 1:
            return load_frames(path, f"remove {path} to write it again")
        previous_iteration = self.get_iteration(number - 1)
        remedy = f"remove {previous_iteration.path / 'select.json'} to write it again"
        frames = load_frames(path, remedy)
        selected_digest = (previous_iteration.read_record("select") or {}).get("structures")
        if selected_digest is not None and selected_digest != hash_file(path):
            raise InputError(f"{path} is corrupt: it differs from the selection of iteration {number - 1}; {remedy}")
        return frames

    def get_iteration(self, number: int) -> IterationFolder:
        """Return the folder of an iteration, which need not exist."""
        return IterationFolder(self.path / "iterations" / f"{number:02d}")

    def list_iterations(self) -> list[int]:
        """List the numbers of the iterations that have started, in ascending order."""
        folders = (self.path / "iterations").glob("[0-9]*")
        return sorted(int(folder.name) for folder in folders if folder.is_dir())

    def read_records(self, stage: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the number of each iteration in which a stage is finished, and the record of the stage.

        Raises
        ------
        InputError
            If a record is corrupt.
        """
        for number in self.list_iterations():
            record = self.get_iteration(number).read_record(stage)
            if record is not None:
                yield number, record


@dataclass(frozen=True)
class IterationFolder:
    """Folder of one iteration at `path`."""

    path: Path

    @property
    def structures_path(self) -> Path:
        """Path of the file of the structures to label."""
        return self.path / "structures.extxyz"

    @property
    def model_folder(self) -> Path:
        """Path of the folder of the committee."""
        return self.path / "model"

    @property
    def trajectories_folder(self) -> Path:
        """Path of the folder with the frames and the record of each trajectory."""
        return self.path / "trajectories"

    def read_record(self, stage: str) -> dict[str, Any] | None:
        """Read the record of a finished stage; None if the stage is not finished.

        Raises
        ------
        InputError
            If the record is corrupt.
        """
        path = self.path / f"{stage}.json"
        return read_json_with_digest(path, "remove it to repeat the stage") if path.is_file() else None

    def write_record(self, stage: str, record: dict[str, Any]) -> dict[str, Any]:
        """Write the record of a stage with digests of its files, to mark the stage as finished.

        The folder is created if it is missing. Returns `record`, without the digests.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        paths = [path for pattern in STAGE_FILES.get(stage, ()) for path in sorted(self.path.glob(pattern))]
        names = [path.relative_to(self.path).as_posix() for path in paths if path.is_file()]
        write_json_with_digest(self.path / f"{stage}.json", {**record, "sha256": hash_files(self.path, names)})
        return record

    def check_files(self, stage: str, suffix: str = "") -> None:
        """Check that the files of a finished stage are unchanged; only those whose names end with `suffix` are checked.

        Raises
        ------
        InputError
            If a file has changed or is missing, or the record is corrupt.
        """
        for name, digest in (self.read_record(stage) or {}).get("sha256", {}).items():
            path = self.path / name
            if name.endswith(suffix) and not (path.is_file() and hash_file(path) == digest):
                raise InputError(
                    f"{path} is corrupt or missing: it has changed since the stage '{stage}' wrote it; remove "
                    f"{self.path / stage}.json to repeat the stage"
                )


def write_frames(path: Path, frames: Iterable[Atoms]) -> None:
    """Write structures atomically as extended XYZ with full precision."""
    with atomic_path(path) as temporary_path, temporary_path.open("w", encoding="utf-8") as stream:
        for atoms in frames:
            stream.write(format_extxyz(atoms))


def load_frames(path: Path, remedy: str) -> list[Atoms]:
    """Read structures that `write_frames` has written; an empty file contains no structures.

    Parameters
    ----------
    path : Path
    remedy : str
        Advice at the end of the error message.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    try:
        return list(ase.io.read(path, index=":", format="extxyz")) if path.stat().st_size else []
    except (OSError, ValueError, KeyError) as error:
        raise_if_system_error(error, path)
        raise InputError(f"{path} is corrupt or missing ({join_lines(error)}); {remedy}") from error
