"""The fast engine: one reduction of the rows serves the whole factorial (DESIGN §4).

Each draw is walked from its smallest subset to its largest: moments grow by the rows that are new, one
Cholesky factor for each subset and pair of weights serves all levels and all 2Jmax. Where the whitened moments
are singular or too ill-conditioned, a cell is fitted from its rows as in the plain engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.kinds import RowKind
from paretofit.linear import Reduction, reduced_leverage
from paretofit.linear.whitening import RowBlock
from paretofit.sweep.plain import RowSource, rows_of_levels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paretofit.linear import LeverageScores
    from paretofit.linear.moments import Moments
    from paretofit.linear.reduction import NestedFit
    from paretofit.sweep.data import SweepInput
    from paretofit.sweep.grid import Array, SweepGrid
    from paretofit.sweep.plain import Cells
    from paretofit.sweep.results import Row

BLOCK_BYTES = 64 << 20


class FastEngine:
    """Fits cells from grown moments; falls back to rows where moments cannot be trusted.

    Attributes
    ----------
    scores : LeverageScores
        Of the training configurations.
    dropped : list of str
        Columns that depend linearly on earlier ones in every row.
    reduction : Reduction
    """

    name = "fast"

    def __init__(self, data: SweepInput, grid: SweepGrid, *, threads: int = 1) -> None:
        self.levels = list(grid.levels)
        self.source = RowSource.of(data, self.levels)
        self.train = data.train
        columns = {twojmax: data.design.columns_up_to(twojmax) for twojmax in grid.twojmax}
        leverage = data.leverage_columns or data.design.n_features
        sizes = sorted({*columns.values(), leverage})
        self._size = {twojmax: sizes.index(p) for twojmax, p in columns.items()}
        w_energy, w_force = _middle(grid)
        self.reduction = Reduction.of(self.blocks, sizes, energy_weight=w_energy, force_weight=w_force, threads=threads)
        weights = np.array([*data.leverage_weights, 1.0])
        n = data.design.n_configurations
        found = reduced_leverage(self.reduction, self.blocks, weights, n, threads=threads)
        self.scores = _of_training(found[sizes.index(leverage)], data.train) or data.scores()
        self.dropped = [data.design.column_names[k] for k in self.reduction.whitening.dropped]

    def blocks(self) -> Iterator[RowBlock]:
        """Stream the rows of all configurations that train or test."""
        design, source = self.source.design, self.source
        is_test = np.zeros(design.n_rows, dtype=bool)
        is_test[source.test_rows] = True
        is_train = np.zeros(design.n_rows, dtype=bool)
        is_train[source.member_rows(self.train)] = True
        for window, X in design.blocks(max(1, BLOCK_BYTES // (8 * design.n_features))):
            used = is_train[window] | is_test[window]
            if used.any():
                arrays = (X, source.Y[window], design.kind[window], design.configuration[window], is_train[window])
                yield RowBlock(*(arrays if used.all() else (array[used] for array in arrays)))

    def tasks(self, cells: list[Cells]) -> list[list[Cells]]:
        """One task for each draw, its subsets nested; the whole training set is a task of its own."""
        walks: dict[Any, list[Cells]] = {}
        for one in cells:
            whole = len(one.members) == len(self.train)
            walks.setdefault("whole" if whole else one.labels[0], []).append(one)
        ordered = [sorted(walk, key=lambda one: len(one.members)) for walk in walks.values()]
        return sorted(ordered, key=lambda walk: -len(walk[-1].members))

    def run(self, task: list[Cells]) -> list[Row]:
        """Walk one draw; runs in a worker."""
        rows: list[Row] = []
        moments = self.reduction.empty_moments()
        known = np.empty(0, dtype=np.int64)
        with threadpool_limits(1):
            for cells in task:
                if len(cells.members) == len(self.train):
                    moments = self.reduction.train
                else:
                    self._grow(moments, np.setdiff1d(cells.members, known))
                    known = cells.members
                for weights, pending in cells.pending.items():
                    for partial in self._fit(moments, cells.members, weights, pending):
                        rows += cells.rows(partial, self.source.seconds, self.levels)
        return rows

    def _grow(self, moments: Moments, members: Array) -> None:
        """Add the rows of some configurations, a block at a time."""
        design = self.source.design
        rows = self.source.member_rows(members)
        step = max(1, BLOCK_BYTES // (8 * design.n_features))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            U, Y = self.reduction.rows(design.take(some), self.source.Y[some])
            moments.add(U, Y, design.kind[some])

    def _fit(self, moments: Moments, members: Array, weights: tuple[float, float], pending: list[int]) -> Iterator[Row]:
        """Fit all levels of a subset at one pair of weights, for several 2Jmax at once."""
        sizes = [self._size[twojmax] for twojmax in pending]
        fits = self.reduction.fits(moments, np.array([*weights, 1.0]), sizes)
        for twojmax, size, fit in zip(pending, sizes, fits, strict=True):
            if fit is None:
                yield from self.source.fit(members, twojmax, weights)
                continue
            how = {
                "rank": int(self.reduction.whitened_sizes[size]),
                "condition": fit.condition,
                "solver": "whitened",
            }
            n_features = int(self.reduction.sizes[size])
            errors = self._errors(moments, members, fit)
            yield from rows_of_levels(self.levels, twojmax, weights, n_features, how, errors)

    def _errors(self, moments: Moments, members: Array, fit: NestedFit) -> dict[str, Array | None]:
        train, lost = self.reduction.train_rms(moments, fit)
        if lost:
            train = self._train_from_rows(members, fit)
        test = self.reduction.test_rms(fit)
        energy, force = test.get(RowKind.ENERGY), test.get(RowKind.FORCE)
        return {
            "train_energy": train.get(RowKind.ENERGY),
            "train_force": train.get(RowKind.FORCE),
            "test_energy": energy.own if energy else None,
            "test_force": force.own if force else None,
            "ref_energy": energy.reference if energy else None,
            "ref_force": force.reference if force else None,
            "ref_energy_shifted": energy.centred if energy else None,
        }

    def _train_from_rows(self, members: Array, fit: NestedFit) -> dict[RowKind, Array]:
        """Training errors that are too small against the baseline's for sums of squares to resolve."""
        rows = self.source.member_rows(members)
        U, Y = self.reduction.rows(self.source.design.take(rows), self.source.Y[rows])
        residuals = U[:, : len(fit.delta)] @ fit.delta - Y[:, fit.columns]
        kind = self.source.design.kind[rows]
        return {
            row_kind: np.sqrt(np.mean(residuals[kind == row_kind] ** 2, axis=0))
            for row_kind in RowKind
            if (kind == row_kind).any()
        }


def _middle(grid: SweepGrid) -> tuple[float, float]:
    """The geometric middle of the study's weight ratios, for the reduction's own weights."""
    ratios = [w_energy / w_force for w_energy, w_force in grid.weights]
    return float(np.sqrt(min(ratios) * max(ratios))), 1.0


def _of_training(scores: LeverageScores | None, train: Array) -> LeverageScores | None:
    """Scores of all configurations cut down to those that train."""
    if scores is None:
        return None
    return type(scores)(scores.rows, scores.regular[train], scores.block[train], scores.rank)
