"""The plain engine: every cell of the factorial is fitted from its rows with `fit_wls`.

It is the oracle of the fast engine. The levels of a cell share one factorisation, and subsets that hold the
same configurations share one fit. Linear algebra runs on one thread in each process, so that the numbers do
not depend on the number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.kinds import RowKind
from paretofit.linear import choose_ridge, fit_wls, leave_one_out
from paretofit.linear.loo import rms_by_kind
from paretofit.sweep.results import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from paretofit.descriptors import DesignMatrix
    from paretofit.linear import LeverageScores
    from paretofit.sweep.data import SweepInput
    from paretofit.sweep.grid import Array, Ridge, SweepGrid
    from paretofit.sweep.results import Row

MILLI = 1000.0  # errors are reported in meV/atom and meV/Å


@dataclass(frozen=True)
class Cells:
    """What is to be fitted on one set of configurations.

    Attributes
    ----------
    key : str
        Names the set.
    members : (n,) int64
        Positions of the configurations in the design, ascending.
    draw : (str, int)
        A sampling and repetition that drew it; the sets of one draw are nested.
    pending : mapping of (w_E, w_F) to list of (2Jmax, ridge)
    """

    key: str
    members: Array
    draw: tuple[str, int]
    pending: dict[tuple[float, float], list[tuple[int, Ridge]]]


@dataclass(frozen=True)
class PlainEngine:
    """Fits cells from their rows; joblib shares the arrays with the workers as memory maps.

    Attributes
    ----------
    source : RowSource
    scores : LeverageScores
        Of the training configurations.
    dropped : list of str
        Always empty: a plain fit finds dependent columns by itself.
    """

    source: RowSource
    scores: LeverageScores
    dropped: list[str] = field(default_factory=list)
    name: ClassVar[str] = "plain"

    @classmethod
    def of(cls, data: SweepInput, grid: SweepGrid) -> PlainEngine:
        """Prepare for a grid."""
        return cls(RowSource.of(data, grid), data.scores())

    def run(self, task: list[Cells]) -> list[Row]:
        """Fit one task; runs in a worker."""
        fits: list[Row] = []
        with threadpool_limits(1):
            for cells in task:
                for weights, models in cells.pending.items():
                    for twojmax, ridge in models:
                        rows = self.source.fit(cells.members, twojmax, weights, ridge)
                        fits += [{"subset": cells.key, **row} for row in rows]
        return fits


def single_tasks(cells: list[Cells]) -> list[list[Cells]]:
    """One task for each subset and pair of weights, the largest first, so that none is left to the end."""
    single = [replace(one, pending={weights: models}) for one in cells for weights, models in one.pending.items()]
    return [[one] for one in sorted(single, key=lambda one: -len(one.members))]


@dataclass(frozen=True)
class RowSource:
    """Rows and labels, where fits are made from rows."""

    design: DesignMatrix
    Y: Array
    test_rows: Array
    levels: list[str]
    group: Array
    leave_one_out: bool

    @classmethod
    def of(cls, data: SweepInput, grid: SweepGrid) -> RowSource:
        """Gather them; a design of moderate size is read into memory once."""
        levels = list(grid.levels)
        test = data.rows_of(data.test)
        return cls(data.design.in_memory(), data.targets(levels), test, levels, data.groups(), grid.leave_one_out)

    def member_rows(self, members: Array) -> Array:
        """Row numbers of some configurations."""
        wanted = np.zeros(self.design.n_configurations, dtype=bool)
        wanted[members] = True
        return np.flatnonzero(wanted[self.design.configuration])

    def fit(self, members: Array, twojmax: int, weights: tuple[float, float], ridge: Ridge) -> Iterator[Row]:
        """Fit all levels of one cell and measure their errors in meV/atom and meV/Å."""
        p = self.design.columns_up_to(twojmax)
        train = self.member_rows(members)
        X, Y, kind = self.design.take(train, p), self.Y[train], self.design.kind[train]
        group = self.group[self.design.configuration[train]]
        w_energy, w_force = weights
        left_out = None
        if ridge == "auto":
            choice = choose_ridge(X, Y, kind, group, energy_weight=w_energy, force_weight=w_force)
            beta, penalty, left_out = choice.coefficients, choice.penalty, choice.left_out
            how: dict[str, Any] = {"rank": p, "condition": float("nan"), "solver": "svd"}
        else:
            fit = fit_wls(X, Y, kind, energy_weight=w_energy, force_weight=w_force, ridge=ridge)
            beta, penalty = fit.coefficients, np.full(len(self.levels), ridge)
            how = {"rank": fit.rank, "condition": fit.condition, "solver": fit.solver}
            if self.leave_one_out:
                left_out = leave_one_out(X, Y, kind, group, energy_weight=w_energy, force_weight=w_force, ridge=ridge)
        errors = {**_prefixed("train", rms_by_kind(X @ beta - Y, kind)), **self._test_errors(beta, p)}
        if self.leave_one_out and left_out is not None:
            errors |= _prefixed("loo", rms_by_kind(left_out, kind))
        cell = {"twojmax": twojmax, "w_energy": weights[0], "w_force": weights[1], "n_features": p, "ridge": ridge}
        yield from rows_of_levels(self.levels, {**cell, **how}, errors, penalty)

    def _test_errors(self, beta: Array, p: int) -> dict[str, Array]:
        test = self.test_rows
        prediction = self.design.take(test, p) @ beta
        kind, truth = self.design.kind[test], self.Y[test]
        reference = prediction - truth[:, -1:]
        errors = _prefixed("test", rms_by_kind(prediction - truth, kind)) | _prefixed(
            "ref", rms_by_kind(reference, kind)
        )
        energy = reference[kind == RowKind.ENERGY]
        return errors | ({"ref_energy_shifted": np.std(energy, axis=0)} if len(energy) else {})


def _prefixed(prefix: str, errors: Mapping[RowKind, Array]) -> dict[str, Array]:
    return {f"{prefix}_{kind.name.lower()}": value for kind, value in errors.items()}


def rows_of_levels(levels: list[str], cell: Row, errors: Mapping[str, Array], penalty: Array) -> Iterator[Row]:
    """One row for each level; errors are ``(n_levels,)`` in eV/atom and eV/Å."""
    names = [name for name in COLUMNS if name.startswith(("train_", "test_", "ref_"))]
    for k, level in enumerate(levels):
        values = dict.fromkeys(names, float("nan"))
        values |= {name: float(value[k]) * MILLI for name, value in errors.items()}
        yield {**cell, "level": level, "ridge_lambda": float(penalty[k]), **values}


def pending_cells(grid: SweepGrid, draws: list[Draw], done: Mapping[Any, Any]) -> list[Cells]:
    """What is still to be fitted, one entry for each set of configurations."""
    cells: dict[str, Cells] = {}
    for draw in draws:
        if draw.key in cells:
            continue
        pending = {
            weights: [
                (twojmax, ridge)
                for twojmax in grid.twojmax
                for ridge in grid.ridge
                if any((draw.key, twojmax, level, *weights, ridge) not in done for level in grid.levels)
            ]
            for weights in grid.weights
        }
        pending = {weights: models for weights, models in pending.items() if models}
        if pending:
            cells[draw.key] = Cells(draw.key, draw.members, (draw.sampling, draw.repeat), pending)
    return list(cells.values())


@dataclass(frozen=True)
class Draw:
    """One subset of the factorial: who drew it, and which configurations of the design are in it."""

    sampling: str
    repeat: int
    n_train: int
    key: str
    members: Array


def draws_of(data: SweepInput, grid: SweepGrid, scores: LeverageScores) -> list[Draw]:
    """Every subset of the factorial, in the order of the grid."""
    draws = []
    for subset in grid.subsets(scores, len(data.train)):
        members = data.train[list(subset.members)]
        draws.append(Draw(subset.sampling, subset.repeat, subset.n_train, data.subset_key(members), members))
    return draws
