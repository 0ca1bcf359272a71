"""The plain engine: every cell of the factorial is fitted from its rows with `fit_wls`, in parallel.

The levels of a cell share one factorisation, and subsets that hold the same configurations share one fit.
Linear algebra runs on one thread in each process, so that the numbers do not depend on their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from paretofit.errors import InputError
from paretofit.files import array_digest, digest
from paretofit.kinds import RowKind
from paretofit.linear import LeverageScores, fit_wls, leverage_scores
from paretofit.progress import track
from paretofit.sweep.results import Journal, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from paretofit.descriptors import DesignMatrix
    from paretofit.sweep.grid import Array, Subset, SweepGrid
    from paretofit.sweep.results import Row

MILLI = 1000.0  # errors are reported in meV/atom and meV/Å


@dataclass(frozen=True)
class SweepInput:
    """What a sweep needs: rows with their labels, who trains and who tests, and the leverage settings.

    Attributes
    ----------
    design : DesignMatrix
        With targets and seconds for every level of the grid.
    train, test : (n_train,), (n_test,) int64
        Positions of the configurations in the design.
    leverage_weights : (float, float)
        w_E and w_F of the leverage scores.
    leverage_columns : int, optional
        Leading columns of which the scores are taken; by default all.
    """

    design: DesignMatrix
    train: Array
    test: Array
    leverage_weights: tuple[float, float] = (150.0, 1.0)
    leverage_columns: int | None = None

    def rows_of(self, positions: Array) -> Array:
        """Rows of some configurations, in the design's order."""
        wanted = np.zeros(self.design.n_configurations, dtype=bool)
        wanted[positions] = True
        return np.flatnonzero(wanted[self.design.configuration])

    def scores(self) -> LeverageScores:
        """Leverage of the training configurations with respect to all of them."""
        design, rows = self.design, self.rows_of(self.train)
        local = np.searchsorted(self.train, design.configuration[rows])
        w_energy, w_force = self.leverage_weights
        with threadpool_limits(1):
            return leverage_scores(
                design.rows()[rows],
                design.kind[rows],
                local,
                energy_weight=w_energy,
                force_weight=w_force,
                columns=self.leverage_columns,
            )


@dataclass(frozen=True)
class _Arrays:
    """What a worker needs, as plain arrays, which joblib shares between processes as memory maps."""

    X: Array
    Y: Array
    kind: Array
    configuration: Array
    seconds: Array
    test_rows: Array
    levels: list[str]
    column_levels: Array


@dataclass(frozen=True)
class _Task:
    """All 2Jmax and levels of some subsets that hold the same configurations, at one pair of weights."""

    members: tuple[int, ...]
    weights: tuple[float, float]
    twojmax: list[int]
    labels: list[tuple[str, int]]  # the samplings and repetitions that drew this subset


def run_sweep(
    data: SweepInput,
    grid: SweepGrid,
    *,
    scores: LeverageScores | None = None,
    journal: Path | str | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> pd.DataFrame:
    """Fit every cell of the factorial and return the results table.

    Parameters
    ----------
    data : SweepInput
    grid : SweepGrid
    scores : LeverageScores, optional
        Of the training configurations; computed if not given.
    journal : path-like, optional
        A file for finished fits; with it, an interrupted sweep goes on where it stopped.
    jobs : int
        Processes; the numbers do not depend on it.
    progress : bool
        Show a bar with the time left.

    Returns
    -------
    pandas.DataFrame
        One row for each fit with the columns of `COLUMNS`: energies in meV/atom, forces in meV/Å.

    Raises
    ------
    InputError
        If the grid asks for what the data cannot give, or a label is missing.

    Notes
    -----
    Sections 2.2, 2.3 and 3 of Baghishov et al., Digital Discovery (2025), doi 10.1039/d5dd00294j.
    """
    grid.check(len(data.train))
    _check_labels(data, grid)
    scores = data.scores() if scores is None else scores
    arrays = _arrays(data, grid)
    with Journal(journal, _inputs(data, grid), _label_digests(data, grid)) as book:
        tasks = list(_tasks(data, grid, scores, book.rows))
        calls = (delayed(_run)(arrays, task) for task in tasks)
        finished = Parallel(n_jobs=jobs, return_as="generator_unordered")(calls) if tasks else []
        for rows in track(finished, len(tasks), "fits", enabled=progress):
            book.append(rows)
        return table_of(book.rows, grid)


def _check_labels(data: SweepInput, grid: SweepGrid) -> None:
    used = np.concatenate([data.train, data.test])
    for level in grid.levels:
        if level not in data.design.targets:
            raise InputError(
                f"there are no labels of level '{level}'; the design has {', '.join(data.design.targets) or 'none'}"
            )
        missing = used[data.design.missing(level)[used]]
        if missing.size:
            raise InputError(
                f"level '{level}' has {missing.size} configurations with missing or NaN labels, the first with id "
                f"{data.design.ids[missing[0]]}; label them, or leave them out with 'missing_labels: drop'"
            )


def _inputs(data: SweepInput, grid: SweepGrid) -> str:
    """Hash of all that a fit's numbers depend on and that its row in the table does not say."""
    design = data.design
    return digest(
        {
            "rows": [array_digest(block) for _, block in design.blocks()],
            "configuration": array_digest(design.configuration),
            "reference_labels": _label_digests(data, grid)[grid.levels[-1]],
            "reference": grid.levels[-1],
            "train": data.train.tolist(),
            "test": data.test.tolist(),
            "leverage": [data.leverage_weights, data.leverage_columns],
            "seed": grid.seed,
        }
    )


def _label_digests(data: SweepInput, grid: SweepGrid) -> dict[str, str]:
    design = data.design
    return {
        level: array_digest(np.concatenate([design.targets[level], design.seconds.get(level, np.empty(0))]))
        for level in grid.levels
    }


def _arrays(data: SweepInput, grid: SweepGrid) -> _Arrays:
    design = data.design
    seconds = [design.seconds.get(level, np.full(design.n_configurations, np.nan)) for level in grid.levels]
    return _Arrays(
        X=design.rows(),
        Y=np.column_stack([design.targets[level] for level in grid.levels]),
        kind=design.kind,
        configuration=design.configuration,
        seconds=np.column_stack(seconds),
        test_rows=data.rows_of(data.test),
        levels=list(grid.levels),
        column_levels=design.column_levels,
    )


def _tasks(data: SweepInput, grid: SweepGrid, scores: LeverageScores, done: Mapping[Any, Row]) -> Iterator[_Task]:
    """What is still to be fitted, the largest subsets first, so that no process ends on a long one."""
    shared: dict[tuple[int, ...], list[Subset]] = {}
    for subset in grid.subsets(scores, len(data.train)):
        shared.setdefault(subset.members, []).append(subset)
    for members, subsets in sorted(shared.items(), key=lambda item: -len(item[0])):
        labels = [(subset.sampling, subset.repeat) for subset in subsets]
        for weights in grid.weights:
            missing = [
                twojmax
                for twojmax in grid.twojmax
                if any(
                    (twojmax, level, sampling, len(members), repeat, *weights) not in done
                    for level in grid.levels
                    for sampling, repeat in labels
                )
            ]
            if missing:
                yield _Task(tuple(data.train[list(members)].tolist()), weights, missing, labels)


def _run(arrays: _Arrays, task: _Task) -> list[Row]:
    """Fit one task in a worker."""
    members = np.array(task.members)
    wanted = np.zeros(len(arrays.seconds), dtype=bool)
    wanted[members] = True
    train = np.flatnonzero(wanted[arrays.configuration])
    rows: list[Row] = []
    with threadpool_limits(1):
        for twojmax in task.twojmax:
            for row in _fit_levels(arrays, train, twojmax, task.weights):
                cost = float(arrays.seconds[members, arrays.levels.index(row["level"])].sum())
                row |= {"n_train": len(members), "label_seconds": cost}
                rows += [row | {"sampling": sampling, "repeat": repeat} for sampling, repeat in task.labels]
    return rows


def _fit_levels(arrays: _Arrays, train: Array, twojmax: int, weights: tuple[float, float]) -> Iterator[Row]:
    """Fit all levels of one cell and measure their errors in meV/atom and meV/Å."""
    p = int(np.searchsorted(arrays.column_levels, twojmax, side="right"))
    w_energy, w_force = weights
    fit = fit_wls(
        arrays.X[train, :p], arrays.Y[train], arrays.kind[train], energy_weight=w_energy, force_weight=w_force
    )
    test, kind = arrays.test_rows, arrays.kind[arrays.test_rows]
    prediction = arrays.X[test, :p] @ fit.coefficients
    truth = arrays.Y[test]
    own, reference = prediction - truth, prediction - truth[:, -1:]
    energy, force = kind == RowKind.ENERGY, kind == RowKind.FORCE
    errors = {
        "train_energy": fit.rmse.get("energy"),
        "train_force": fit.rmse.get("force"),
        "test_energy": _rms(own[energy]),
        "test_force": _rms(own[force]),
        "ref_energy": _rms(reference[energy]),
        "ref_force": _rms(reference[force]),
        "ref_energy_shifted": np.std(reference[energy], axis=0),
    }
    common: Row = {
        "twojmax": twojmax,
        "w_energy": w_energy,
        "w_force": w_force,
        "n_features": p,
        "rank": fit.rank,
        "condition": fit.condition,
        "solver": fit.solver,
    }
    for k, level in enumerate(arrays.levels):
        values = {name: _at(value, k) for name, value in errors.items()}
        yield {**common, "level": level, **values}


def _rms(residuals: Array) -> Array:
    return np.asarray(np.sqrt(np.mean(residuals**2, axis=0)))


def _at(values: Sequence[float] | Array | None, k: int) -> float:
    return float("nan") if values is None else float(values[k]) * MILLI
