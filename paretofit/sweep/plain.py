"""The plain engine: every cell of the factorial is fitted from its rows with `fit_wls`.

It is the oracle of the fast engine. The levels of a cell share one factorisation, and subsets that hold the
same configurations share one fit. Linear algebra runs on one thread in each process, so that the numbers do
not depend on the number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.kinds import RowKind
from paretofit.linear import Fit, fit_wls

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from paretofit.descriptors import DesignMatrix
    from paretofit.linear import LeverageScores
    from paretofit.sweep.data import SweepInput
    from paretofit.sweep.grid import Array, Subset, SweepGrid
    from paretofit.sweep.results import Row

MILLI = 1000.0  # errors are reported in meV/atom and meV/Å


@dataclass(frozen=True)
class Cells:
    """All 2Jmax of one subset at some weights.

    Attributes
    ----------
    members : (n,) int64
        Positions of the configurations in the design, ascending.
    pending : mapping of (w_E, w_F) to list of int
        The 2Jmax that are still to be fitted at each pair of weights.
    labels : list of (str, int)
        The samplings and repetitions that drew this subset.
    """

    members: Array
    pending: dict[tuple[float, float], list[int]]
    labels: list[tuple[str, int]]

    def rows(self, partial: Row, seconds: Array, levels: list[str]) -> list[Row]:
        """Complete a row with what the subset says: its size, its cost, and who drew it."""
        cost = float(seconds[self.members, levels.index(partial["level"])].sum())
        row = {**partial, "n_train": len(self.members), "label_seconds": cost}
        return [{**row, "sampling": sampling, "repeat": repeat} for sampling, repeat in self.labels]


class PlainEngine:
    """Fits cells from their rows; joblib shares the arrays with the workers as memory maps."""

    name = "plain"

    def __init__(self, data: SweepInput, grid: SweepGrid) -> None:
        self.levels = list(grid.levels)
        self.scores: LeverageScores = data.scores()
        self.dropped: list[str] = []
        self.source = RowSource.of(data, self.levels)

    def tasks(self, cells: list[Cells]) -> list[list[Cells]]:
        """One task for each subset and pair of weights, the largest first, so that none is left to the end."""
        single = [
            Cells(one.members, {weights: sizes}, one.labels) for one in cells for weights, sizes in one.pending.items()
        ]
        return [[one] for one in sorted(single, key=lambda one: -len(one.members))]

    def run(self, task: list[Cells]) -> list[Row]:
        """Fit one task; runs in a worker."""
        rows: list[Row] = []
        with threadpool_limits(1):
            for cells in task:
                for weights, pending in cells.pending.items():
                    for twojmax in pending:
                        for partial in self.source.fit(cells.members, twojmax, weights):
                            rows += cells.rows(partial, self.source.seconds, self.levels)
        return rows


@dataclass(frozen=True)
class RowSource:
    """Rows, labels and costs, where fits are made from rows."""

    design: DesignMatrix
    Y: Array
    seconds: Array
    test_rows: Array
    levels: list[str]

    @classmethod
    def of(cls, data: SweepInput, levels: list[str]) -> RowSource:
        """Gather them; a design of moderate size is read into memory once."""
        return cls(data.design.in_memory(), data.targets(levels), data.seconds(levels), data.rows_of(data.test), levels)

    def member_rows(self, members: Array) -> Array:
        """Row numbers of some configurations."""
        wanted = np.zeros(self.design.n_configurations, dtype=bool)
        wanted[members] = True
        return np.flatnonzero(wanted[self.design.configuration])

    def fit(self, members: Array, twojmax: int, weights: tuple[float, float]) -> Iterator[Row]:
        """Fit all levels of one cell and measure their errors in meV/atom and meV/Å."""
        p = self.design.columns_up_to(twojmax)
        train, test = self.member_rows(members), self.test_rows
        fit = fit_wls(
            self.design.take(train, p),
            self.Y[train],
            self.design.kind[train],
            energy_weight=weights[0],
            force_weight=weights[1],
        )
        prediction = self.design.take(test, p) @ fit.coefficients
        kind, truth = self.design.kind[test], self.Y[test]
        own, reference = prediction - truth, prediction - truth[:, -1:]
        energy, force = kind == RowKind.ENERGY, kind == RowKind.FORCE
        errors = {
            "train_energy": fit.rmse.get("energy"),
            "train_force": fit.rmse.get("force"),
            "test_energy": _rms(own[energy]),
            "test_force": _rms(own[force]),
            "ref_energy": _rms(reference[energy]),
            "ref_force": _rms(reference[force]),
            "ref_energy_shifted": np.std(reference[energy], axis=0) if energy.any() else None,
        }
        yield from rows_of_levels(self.levels, twojmax, weights, p, _how(fit), errors)


def rows_of_levels(
    levels: list[str],
    twojmax: int,
    weights: tuple[float, float],
    n_features: int,
    how: Mapping[str, Any],
    errors: Mapping[str, Array | None],
) -> Iterator[Row]:
    """One row for each level; errors are ``(n_levels,)`` in eV/atom and eV/Å, None where there are none."""
    common: Row = {"twojmax": twojmax, "w_energy": weights[0], "w_force": weights[1], "n_features": n_features, **how}
    for k, level in enumerate(levels):
        values = {name: float("nan") if value is None else float(value[k]) * MILLI for name, value in errors.items()}
        yield {**common, "level": level, **values}


def pending_cells(data: SweepInput, grid: SweepGrid, scores: LeverageScores, done: Mapping[Any, Any]) -> list[Cells]:
    """What is still to be fitted, one entry for each set of configurations."""
    shared: dict[tuple[int, ...], list[Subset]] = {}
    for subset in grid.subsets(scores, len(data.train)):
        shared.setdefault(subset.members, []).append(subset)
    cells = []
    for members, subsets in shared.items():
        labels = [(subset.sampling, subset.repeat) for subset in subsets]
        keys = [(level, sampling, len(members), repeat) for level in grid.levels for sampling, repeat in labels]
        pending = {
            weights: [twojmax for twojmax in grid.twojmax if any((twojmax, *key, *weights) not in done for key in keys)]
            for weights in grid.weights
        }
        pending = {weights: sizes for weights, sizes in pending.items() if sizes}
        if pending:
            cells.append(Cells(data.train[list(members)], pending, labels))
    return cells


def _how(fit: Fit) -> dict[str, Any]:
    return {"rank": fit.rank, "condition": fit.condition, "solver": fit.solver}


def _rms(residuals: Array) -> Array | None:
    return np.asarray(np.sqrt(np.mean(residuals**2, axis=0))) if len(residuals) else None
