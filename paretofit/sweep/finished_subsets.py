"""What a task has finished, on disk before it goes on: a worker that is killed in the midst of a walk loses one subset.

The process that hands out tasks takes the files into its journal and removes them, whether it gets the task's result or
begins anew.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paretofit.core import JsonLines, atomic_path, hash_json, read_json_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from paretofit.sweep.cells import PendingFits
    from paretofit.sweep.results import FitInputs, FitJournal, Row


@dataclass(frozen=True)
class PartialResults:
    """Files of finished subsets.

    Attributes
    ----------
    folder : Path or None
        None keeps nothing.
    inputs : Inputs
    """

    folder: Path | None
    inputs: FitInputs

    def load_or_fit(self, pending_fits: PendingFits, fit: Callable[[PendingFits], list[Row]]) -> list[Row]:
        """The fits of one subset: those on disk, where the task has been here before, or new ones."""
        if not pending_fits.models_by_weights:
            return []
        path = self._path(pending_fits)
        if path is not None and path.exists() and (there := self._whole(path)) is not None:
            return there
        rows = fit(pending_fits)
        if path is not None:
            with atomic_path(path) as temporary, JsonLines(temporary) as lines:
                lines.append(self.inputs.to_records(rows))
                lines.append({"rows": len(rows)})
        return rows

    def _whole(self, path: Path) -> list[Row] | None:
        """The fits of a file if none of them is damaged."""
        entries = read_json_lines(path)[0]
        rows = list(self.inputs.select_valid(entries[:-1]).values())
        return rows if entries and entries[-1] == {"rows": len(rows)} else None

    def remove(self, task: list[PendingFits]) -> None:
        """Remove the files of a task, whose fits are in the journal."""
        for cells in task:
            if (path := self._path(cells)) is not None:
                path.unlink(missing_ok=True)

    def merge_into(self, journal: FitJournal) -> None:
        """Take what an earlier run has left into the journal, and remove it."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob("*.jsonl")):
            with suppress(FileNotFoundError):  # a task of a killed run, elsewhere, is still writing, and renames
                if rows := list(self.inputs.select_valid(read_json_lines(path)[0]).values()):
                    journal.append(rows)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, cells: PendingFits) -> Path | None:
        pending = [[*weights, *models] for weights, models in cells.models_by_weights.items()]
        name = f"{cells.subset_key}-{hash_json([pending, dict(self.inputs.label_digests), self.inputs.groups_digest])[:12]}.jsonl"
        return None if self.folder is None else self.folder / name
