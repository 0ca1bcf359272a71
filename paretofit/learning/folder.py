"""Where everything of a run stands, and what is finished: a stage is done when its record has its final name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ase.io

from paretofit.dataset.exporter import extxyz_frame
from paretofit.errors import InputError
from paretofit.files import replacing, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pandas as pd
    from ase import Atoms


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

    def iteration(self, k: int) -> IterationFolder:
        """The folder of one iteration, numbered from 1."""
        return IterationFolder(self.path / "iterations" / f"{k:02d}")

    def iterations(self) -> list[int]:
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

    def record(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage has written; None if it is not finished."""
        path = self.path / f"{stage}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def finish(self, stage: str, record: dict[str, Any]) -> dict[str, Any]:
        """Write a stage's record, which makes it finished."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / f"{stage}.json", json.dumps(record, indent=1) + "\n")
        return record


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.8g", lineterminator="\n")


def write_frames(path: Path, frames: Iterable[Atoms]) -> None:
    """Write structures as extended XYZ with all their digits, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for atoms in frames:
            stream.write(extxyz_frame(atoms))


def read_frames_of(path: Path) -> list[Atoms]:
    """Read what `write_frames` has written; an empty file holds none."""
    if not path.stat().st_size:
        return []
    try:
        return list(ase.io.read(path, index=":", format="extxyz"))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read: {error}; remove it, and the stage that made it runs again") from error
