"""Files in the run folder of a loop; a stage is finished when its record exists under its final name."""

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
STAGE_FILES = {
    "train": ("errors.csv", "components.csv", "calibration.csv", "batch_errors.csv", "model/*"),
    "explore": ("trajectories/*.extxyz",),
    "select": ("frames.csv",),
}  # patterns, relative to the folder of an iteration


@dataclass(frozen=True)
class LearnFolder:
    """Run folder of a loop."""

    path: Path

    @property
    def dataset(self) -> Path:
        """Dataset of the labelled configurations of all iterations."""
        return self.path / "dataset.h5"

    @property
    def sets(self) -> Path:
        """File with the set of each configuration and the keys that define groups."""
        return self.path / "sets.json"

    def read_set_assignment(self) -> dict[str, Any]:
        """Read the sets of the configurations and the keys that define groups; empty before the first iteration.

        Raises
        ------
        InputError
            If the file is corrupt, or missing although the loop has labels.
        """
        has_started = self.sets.is_file() or self.iteration(1).read_record("label") is not None
        return read_json_with_digest(self.sets, RESTART_ADVICE) if has_started else {}

    def read_iteration_structures(self, k: int) -> list[Atoms]:
        """Read the structures to label in iteration `k`: candidates, or frames selected in the previous iteration.

        Raises
        ------
        InputError
            If the file is corrupt or missing.
        """
        path = self.iteration(k).structures
        if k == 1:
            return load_frames(path, f"remove {path} to write it again")
        previous_iteration = self.iteration(k - 1)
        remedy = f"remove {previous_iteration.path / 'select.json'} to write it again"
        frames = load_frames(path, remedy)
        if (previous_iteration.read_record("select") or {}).get("structures") not in {None, hash_file(path)}:
            raise InputError(f"{path} is corrupt: it differs from the selection of iteration {k - 1}; {remedy}")
        return frames

    def iteration(self, k: int) -> IterationFolder:
        """Return the folder of an iteration, numbered from 1."""
        return IterationFolder(self.path / "iterations" / f"{k:02d}")

    def list_iterations(self) -> list[int]:
        """List the numbers of the iterations that have started."""
        folders = (self.path / "iterations").glob("[0-9]*")
        return sorted(int(folder.name) for folder in folders if folder.is_dir())

    def read_records(self, stage: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the number of each iteration in which a stage is finished, and the record of the stage."""
        for k in self.list_iterations():
            record = self.iteration(k).read_record(stage)
            if record is not None:
                yield k, record


@dataclass(frozen=True)
class IterationFolder:
    """Folder of one iteration."""

    path: Path

    @property
    def structures(self) -> Path:
        """File of the structures to label."""
        return self.path / "structures.extxyz"

    @property
    def model(self) -> Path:
        """Folder of the committee."""
        return self.path / "model"

    @property
    def trajectories(self) -> Path:
        """Folder with the frames and the record of each trajectory."""
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
        """Write the record of a stage with digests of its files, to mark the stage as finished; return `record`."""
        self.path.mkdir(parents=True, exist_ok=True)
        paths = [path for pattern in STAGE_FILES.get(stage, ()) for path in sorted(self.path.glob(pattern))]
        names = [path.relative_to(self.path).as_posix() for path in paths if path.is_file()]
        write_json_with_digest(self.path / f"{stage}.json", {**record, "sha256": hash_files(self.path, names)})
        return record

    def check_files(self, stage: str, suffix: str = "") -> None:
        """Check that the files of a finished stage (those that end with `suffix`) are unchanged.

        Raises
        ------
        InputError
            If a file has changed or is missing.
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
        Advice for the error message.

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
