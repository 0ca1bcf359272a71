"""The plain engine: every cell of the factorial is fitted from its rows with `fit_wls`.

The fast engine is tested against it. The levels of a cell share one factorisation, and subsets that hold the
same configurations share one fit. Linear algebra runs on one thread in each process, so that results do not depend on
the number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from threadpoolctl import threadpool_limits

from paretofit.sweep.row_fits import RowSource

if TYPE_CHECKING:
    from paretofit.linear import LeverageScores
    from paretofit.sweep.cells import PendingFits
    from paretofit.sweep.finished_subsets import PartialResults
    from paretofit.sweep.grid import SweepGrid
    from paretofit.sweep.results import Row
    from paretofit.sweep.sweep_input import SweepInput


@dataclass(frozen=True)
class PlainEngine:
    """Fits cells from their rows; joblib shares the arrays with the workers as memory maps.

    Attributes
    ----------
    source : RowSource
    scores : LeverageScores or None
        Scores of the training configurations; None if one of them has no energy row.
    dropped_columns : list of str
        Always empty: a plain fit detects dependent columns by itself.
    """

    source: RowSource
    scores: LeverageScores | None
    dropped_columns: list[str] = field(default_factory=list)
    name: ClassVar[str] = "plain"

    @classmethod
    def from_sweep(cls, data: SweepInput, grid: SweepGrid) -> PlainEngine:
        """Prepare the engine for a grid."""
        scores = data.compute_leverage_scores() if data.has_leverage_scores() else None
        return cls(RowSource.from_sweep(data, grid), scores)

    def run(self, task: list[PendingFits], partial_results: PartialResults) -> list[Row]:
        """Fit one task; runs in a worker."""
        with threadpool_limits(1):
            return [row for pending in task for row in partial_results.load_or_fit(pending, self.source.fit)]

    def estimate_task_bytes(self, task: list[PendingFits]) -> float:
        """Memory of a task in its process, in which its largest subset is fitted with its largest model."""
        return max(self.source.estimate_fit_bytes(pending) for pending in task)
