"""Files of the subsets that a task has finished: a worker that is killed in the middle of a chain loses one subset.

The process that distributes tasks moves the files into its journal, when it receives the task's result or when it
starts again.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paretofit.core import JsonLines, atomic_path, hash_json, read_json_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from paretofit.sweep.cells import PendingFits
    from paretofit.sweep.results import FitInputs, FitJournal, Row


@dataclass(frozen=True)
class PartialResults:
    """Files of finished subsets.

    Attributes
    ----------
    folder : Path or None
        With None, no files are written.
    inputs : FitInputs
    """

    folder: Path | None
    inputs: FitInputs

    def load_or_fit(self, pending_fits: PendingFits, fit: Callable[[PendingFits], Iterable[Row]]) -> list[Row]:
        """The fits of one subset: those of an interrupted task, or new ones."""
        if not pending_fits.models_by_weights:
            return []
        path = self._path(pending_fits)
        if path is not None and path.exists() and (finished := self._read_complete(path)) is not None:
            return finished
        rows = [{"subset": pending_fits.subset_key, **row} for row in fit(pending_fits)]
        if path is not None:
            with atomic_path(path) as temporary, JsonLines(temporary) as lines:
                lines.append(self.inputs.to_records(rows))
                lines.append({"rows": len(rows)})
        return rows

    def _read_complete(self, path: Path) -> list[Row] | None:
        """The fits of a file if none of them is missing or corrupt."""
        entries = read_json_lines(path)[0]
        rows = list(self.inputs.select_valid(entries[:-1]).values())
        return rows if entries and entries[-1] == {"rows": len(rows)} else None

    def remove(self, task: list[PendingFits]) -> None:
        """Remove the files of a task, whose fits are in the journal."""
        for pending in task:
            if (path := self._path(pending)) is not None:
                path.unlink(missing_ok=True)

    def merge_into(self, journal: FitJournal) -> None:
        """Move the fits of an interrupted run into the journal."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob("*.jsonl")):
            with suppress(FileNotFoundError):  # a task of a killed run may still be writing elsewhere, and rename it
                if rows := list(self.inputs.select_valid(read_json_lines(path)[0]).values()):
                    journal.append(rows)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, pending_fits: PendingFits) -> Path | None:
        if self.folder is None:
            return None
        models = [[*weights, *models] for weights, models in pending_fits.models_by_weights.items()]
        digest = hash_json([models, dict(self.inputs.label_digests), self.inputs.groups_digest])[:12]
        return self.folder / f"{pending_fits.subset_key}-{digest}.jsonl"
