"""Where everything of a run stands, and what is finished: a stage is done when its record has its final name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ase.io

from paretofit.core import (
    InputError,
    atomic_path,
    hash_file,
    hash_files,
    one_line,
    read_json_with_digest,
    write_json_with_digest,
)
from paretofit.dataset.io import format_extxyz

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pandas as pd
    from ase import Atoms

RESTART_ADVICE = "restore it from a copy, or begin anew in another folder with --out"
FILES = {
    "train": ("errors.csv", "components.csv", "model/*"),
    "explore": ("trajectories/*.extxyz",),
    "select": ("frames.csv",),
}  # of an iteration, by the stage that makes them


@dataclass(frozen=True)
class LearnFolder:
    """The run folder of a loop."""

    path: Path

    @property
    def dataset(self) -> Path:
        """All labelled configurations, of all iterations."""
        return self.path / "dataset.h5"

    @property
    def sets(self) -> Path:
        """Which set each configuration is in, by id; for ever."""
        return self.path / "sets.json"

    def read_set_assignment(self) -> dict[str, Any]:
        """Sets by configuration, and the keys that tell relatives, as they were given before.

        Raises
        ------
        InputError
            If they are damaged, or missing where the loop has begun.
        """
        begun = self.sets.is_file() or self.iteration(1).read_record("label") is not None
        return read_json_with_digest(self.sets, RESTART_ADVICE) if begun else {}

    def read_iteration_structures(self, k: int) -> list[Atoms]:
        """What iteration `k` is to label: candidates, or what the one before has selected.

        Raises
        ------
        InputError
            If that is damaged.
        """
        path = self.iteration(k).structures
        if k == 1:
            return load_frames(path, f"remove {path}, and it is made again")
        before = self.iteration(k - 1)
        remedy = f"remove {before.path / 'select.json'}, and it is made again"
        found = load_frames(path, remedy)
        if (before.read_record("select") or {}).get("structures") not in {None, hash_file(path)}:
            raise InputError(f"{path} is damaged: it is not what was selected; {remedy}")
        return found

    def iteration(self, k: int) -> IterationFolder:
        """The folder of one iteration, numbered from 1."""
        return IterationFolder(self.path / "iterations" / f"{k:02d}")

    def list_iterations(self) -> list[int]:
        """Numbers of the iterations that have begun."""
        return sorted(int(one.name) for one in (self.path / "iterations").glob("[0-9]*") if one.is_dir())


@dataclass(frozen=True)
class IterationFolder:
    """The folder of one iteration."""

    path: Path

    @property
    def structures(self) -> Path:
        """What is to be labelled."""
        return self.path / "structures.extxyz"

    @property
    def model(self) -> Path:
        """The committee."""
        return self.path / "model"

    @property
    def trajectories(self) -> Path:
        """Frames of each trajectory, with a record beside them."""
        return self.path / "trajectories"

    def read_record(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage has written; None if it is not finished.

        Raises
        ------
        InputError
            If it has changed since.
        """
        path = self.path / f"{stage}.json"
        return read_json_with_digest(path, "remove it, and the stage is done again") if path.is_file() else None

    def write_record(self, stage: str, record: dict[str, Any]) -> dict[str, Any]:
        """Write a stage's record with digests of its files, which makes it finished."""
        self.path.mkdir(parents=True, exist_ok=True)
        files = [path for pattern in FILES.get(stage, ()) for path in sorted(self.path.glob(pattern)) if path.is_file()]
        made = hash_files(self.path, [path.relative_to(self.path).as_posix() for path in files])
        write_json_with_digest(self.path / f"{stage}.json", {**record, "sha256": made})
        return record

    def check_files(self, stage: str, suffix: str = "") -> None:
        """See that the files of a finished stage, or those of one kind, are as it has left them.

        Raises
        ------
        InputError
            If one has changed or is missing.
        """
        for name, known in (self.read_record(stage) or {}).get("sha256", {}).items():
            path = self.path / name
            if name.endswith(suffix) and not (path.is_file() and hash_file(path) == known):
                raise InputError(
                    f"{path} is damaged or missing: it is not what the stage '{stage}' has written; remove "
                    f"{self.path / stage}.json, and it is done again"
                )


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.8g", lineterminator="\n")


def write_frames(path: Path, frames: Iterable[Atoms]) -> None:
    """Write structures as extended XYZ with all their digits, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for atoms in frames:
            stream.write(format_extxyz(atoms))


def load_frames(path: Path, remedy: str) -> list[Atoms]:
    """Read what `write_frames` has written; an empty file holds none.

    Parameters
    ----------
    path : Path
    remedy : str
        What would be right where it cannot be read.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        if not path.stat().st_size:
            return []
        return list(ase.io.read(path, index=":", format="extxyz"))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged or missing ({one_line(error)}); {remedy}") from error
