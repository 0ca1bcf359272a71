"""What a task has finished, on disk before it goes on: a worker that is killed in the midst of a walk loses one subset.

The process that hands out tasks takes the files into its journal and removes them, whether it gets the task's result or
begins anew.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paretofit.core import JsonLines, digest, read_json_lines, replacing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from paretofit.sweep.cells import Cells
    from paretofit.sweep.results import Inputs, Journal, Row


@dataclass(frozen=True)
class Finished:
    """Files of finished subsets.

    Attributes
    ----------
    folder : Path or None
        None keeps nothing.
    inputs : Inputs
    """

    folder: Path | None
    inputs: Inputs

    def once(self, cells: Cells, fit: Callable[[Cells], list[Row]]) -> list[Row]:
        """The fits of one subset: those on disk, where the task has been here before, or new ones."""
        if not cells.pending:
            return []
        path = self._path(cells)
        if path is not None and path.exists() and (there := self._whole(path)) is not None:
            return there
        rows = fit(cells)
        if path is not None:
            with replacing(path) as temporary, JsonLines(temporary) as lines:
                lines.append(self.inputs.entry(rows))
                lines.append({"rows": len(rows)})
        return rows

    def _whole(self, path: Path) -> list[Row] | None:
        """The fits of a file if none of them is damaged."""
        entries = read_json_lines(path)[0]
        rows = list(self.inputs.valid(entries[:-1]).values())
        return rows if entries and entries[-1] == {"rows": len(rows)} else None

    def forget(self, task: list[Cells]) -> None:
        """Remove the files of a task, whose fits are in the journal."""
        for cells in task:
            if (path := self._path(cells)) is not None:
                path.unlink(missing_ok=True)

    def take_up(self, book: Journal) -> None:
        """Take what an earlier run has left into the journal, and remove it."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob("*.jsonl")):
            with suppress(FileNotFoundError):  # a task of a killed run, elsewhere, is still writing, and renames
                if rows := list(self.inputs.valid(read_json_lines(path)[0]).values()):
                    book.append(rows)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, cells: Cells) -> Path | None:
        pending = [[*weights, *models] for weights, models in cells.pending.items()]
        name = f"{cells.key}-{digest([pending, dict(self.inputs.labels), self.inputs.groups])[:12]}.jsonl"
        return None if self.folder is None else self.folder / name
