"""Running a sweep: what is still to be fitted, by which engine, in how many processes, and what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from joblib import Parallel, delayed

from paretofit.errors import InputError, suggestion
from paretofit.progress import track
from paretofit.sweep.fast import FastEngine
from paretofit.sweep.plain import PlainEngine, pending_cells
from paretofit.sweep.results import Journal, table_of

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from paretofit.sweep.data import SweepInput
    from paretofit.sweep.grid import SweepGrid

ENGINES = {"fast": FastEngine, "plain": PlainEngine}
EngineName = Literal["fast", "plain"]


def make_engine(data: SweepInput, grid: SweepGrid, name: str = "fast", *, jobs: int = 1) -> FastEngine | PlainEngine:
    """Check the grid against the data and prepare an engine: leverage scores, and for "fast" the reduction.

    Parameters
    ----------
    data : SweepInput
    grid : SweepGrid
    name : str
        "fast", or "plain", which fits every cell from its rows and is the oracle of the other.
    jobs : int
        Threads of the linear algebra while the rows are reduced.

    Raises
    ------
    InputError
        If the grid asks for what the data cannot give, or a label is missing.
    """
    if name not in ENGINES:
        raise InputError(f"unknown engine '{name}'; it must be one of {', '.join(ENGINES)}{suggestion(name, ENGINES)}")
    data.check(grid)
    return FastEngine(data, grid, threads=jobs) if name == "fast" else PlainEngine(data, grid)


def run_sweep(
    data: SweepInput,
    grid: SweepGrid,
    *,
    engine: FastEngine | PlainEngine | EngineName = "fast",
    journal: Path | str | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> pd.DataFrame:
    """Fit every cell of the factorial and return the results table.

    Parameters
    ----------
    data : SweepInput
    grid : SweepGrid
    engine : str or engine
        "fast", "plain", or what `make_engine` returned.
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
    worker = make_engine(data, grid, engine, jobs=jobs) if isinstance(engine, str) else engine
    levels = list(grid.levels)
    with Journal(journal, data.digest(grid, worker.name), data.label_digests(levels)) as book:
        tasks = worker.tasks(pending_cells(data, grid, worker.scores, book.rows))
        finished = Parallel(n_jobs=jobs, return_as="generator_unordered")(delayed(worker.run)(task) for task in tasks)
        for rows in track(finished if tasks else [], len(tasks), "fits", enabled=progress):
            book.append(rows)
        return table_of(book.rows, grid)
