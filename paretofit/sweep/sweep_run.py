"""Running a sweep: what is still to be fitted, by which engine, in how many processes, and what is kept."""

from __future__ import annotations

import logging
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from paretofit.core import InputError, available_memory, hash_array, require_memory, suggest_match, track
from paretofit.execution import dump_function, get_active_client, parallel_map
from paretofit.linear.reduction import CPU, get_device
from paretofit.sweep.cells import list_draws, list_pending_fits, split_into_tasks
from paretofit.sweep.fast_engine import FastEngine
from paretofit.sweep.finished_subsets import PartialResults
from paretofit.sweep.plain_engine import PlainEngine
from paretofit.sweep.results import FitInputs, FitJournal, build_results_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from paretofit.sweep.cells import Draw, PendingFits
    from paretofit.sweep.grid import SweepGrid
    from paretofit.sweep.results import Row
    from paretofit.sweep.sweep_input import SweepInput

log = logging.getLogger(__name__)

ENGINES = {"fast": FastEngine, "plain": PlainEngine}
EngineName = Literal["fast", "plain"]


def make_engine(
    data: SweepInput,
    grid: SweepGrid,
    name: str = "fast",
    *,
    jobs: int = 1,
    device: str = "cpu",
    folder: Path | None = None,
) -> FastEngine | PlainEngine:
    """Check the grid against the data and prepare an engine: leverage scores, and for "fast" the reduction.

    Parameters
    ----------
    data : SweepInput
    grid : SweepGrid
    name : str
        "fast", or "plain", which fits every cell from its rows and is the oracle of the other.
    jobs : int
        Threads of the linear algebra while the rows are reduced; on a cluster its workers reduce them.
    device : {"cpu", "cuda"}
        What the fast engine reduces the rows and fits from moments with; equal to 1e-8 of the errors.
    folder : Path, optional
        The run folder: where an expensive reduction is kept, and workers of a cluster find what they need.

    Raises
    ------
    InputError
        If the grid asks for what the data cannot give, a label is missing, or there is no such device.
    """
    if name not in ENGINES:
        raise InputError(
            f"unknown engine '{name}'; it must be one of {', '.join(ENGINES)}{suggest_match(name, ENGINES)}"
        )
    data.check(grid)
    place = get_device(device)
    if name == "plain":
        return PlainEngine.from_sweep(data, grid)
    return FastEngine(data, grid, threads=jobs, device=place, folder=folder)


def run_sweep(
    data: SweepInput,
    grid: SweepGrid,
    *,
    engine: FastEngine | PlainEngine | EngineName = "fast",
    journal: Path | str | None = None,
    jobs: int = 1,
    device: str = "cpu",
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
        A folder for the journal of finished fits; with it, an interrupted sweep goes on where it stopped, and
        an edit of the grid computes only what is new.
    jobs : int
        Processes; the numbers do not depend on it.
    device : {"cpu", "cuda"}
        As in `make_engine`, where `engine` is a name.
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
    folder = None if journal is None else Path(journal)
    worker = (
        make_engine(data, grid, engine, jobs=jobs, device=device, folder=folder) if isinstance(engine, str) else engine
    )
    draws = list_draws(data, grid, worker.scores)
    path = None if journal is None else journal_path(journal, data.digest(grid, worker.name))
    inputs = FitInputs(data.label_digests(list(grid.levels)), hash_array(data.loo_groups()))
    finished = PartialResults(None if path is None else path.with_suffix(".parts").absolute(), inputs)
    with FitJournal(path, inputs) as book:
        finished.merge_into(book)
        if isinstance(worker, FastEngine):
            walks = worker.build_chains(list_pending_fits(grid, draws, book.fits))
            own = jobs if worker.device == CPU else 1  # a GPU works for one process
            _work(worker, walks, book, finished, own, "fits from moments" if progress else None)
        plain = worker.plain if isinstance(worker, FastEngine) else worker
        rest = split_into_tasks(list_pending_fits(grid, draws, book.fits))
        _work(plain, rest, book, finished, jobs, "fits from rows" if progress else None)
        finished.merge_into(book)
        return _table(book.fits, data, grid, draws)


def journal_path(folder: Path | str, inputs: str) -> Path:
    """The journal of these inputs in a run folder; other inputs have journals of their own."""
    return Path(folder) / f"sweep-{inputs[:12]}.jsonl"


def _work(
    engine: FastEngine | PlainEngine,
    tasks: list[list[PendingFits]],
    book: FitJournal,
    finished: PartialResults,
    jobs: int,
    title: str | None,
) -> None:
    """Run tasks in parallel and keep what each has finished."""
    if not tasks:
        return
    if get_active_client() is None:  # else they run elsewhere
        _check_memory(max(engine.estimate_task_bytes(task) for task in tasks), min(jobs, len(tasks)))
    step = max(1, len(tasks) // 10)
    place = finished.folder
    if place is not None:
        place.mkdir(exist_ok=True)
    with dump_function(partial(_numbered, engine, finished), None if place is None else place.parent) as run:
        results = parallel_map(run, enumerate(tasks), jobs, ordered=False)
        shown = track(results, len(tasks), title or "", enabled=title is not None)
        for done, (number, fits) in enumerate(shown, start=1):
            book.append(fits)
            finished.remove(tasks[number])
            if done % step == 0:
                log.info("%s: %d of %d tasks", title or "fits", done, len(tasks))


def _numbered(
    engine: FastEngine | PlainEngine, finished: PartialResults, task: tuple[int, list[PendingFits]]
) -> tuple[int, list[Row]]:
    """Run one task in a worker."""
    number, cells = task
    return number, engine.run(cells, finished)


def _check_memory(each: float, jobs: int) -> None:
    """Refuse more processes than there is memory for."""
    free = available_memory()
    fitting = jobs if free is None or not each else int(free // each)
    change = f"use --jobs {fitting}" if fitting else "lower 'twojmax', or use fewer configurations ('sizes')"
    require_memory(each * jobs, f"fits in {jobs} process{'es' * (jobs > 1)}", change)


def _table(fits: Mapping[Any, Row], data: SweepInput, grid: SweepGrid, draws: list[Draw]) -> pd.DataFrame:
    """A row for each cell of the factorial, in its order."""
    seconds = dict(zip(grid.levels, data.label_seconds(list(grid.levels)).T, strict=True))
    cells = product(grid.twojmax, grid.levels, draws, grid.weights, grid.ridge)
    rows = (
        {
            **fits[draw.subset_key, twojmax, level, *weights, ridge],
            "sampling": draw.sampling,
            "repeat": draw.repeat,
            "n_train": draw.n_train,
            "label_seconds": float(seconds[level][draw.configurations].sum()),
            "md_us_per_atom_step": grid.md_cost.get(twojmax, float("nan")),
        }
        for twojmax, level, draw, weights, ridge in cells
    )
    return build_results_table(rows, grid.extra_columns())
