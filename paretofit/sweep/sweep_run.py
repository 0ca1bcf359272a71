"""Execution of a sweep: an engine computes the pending fits in parallel, and a journal stores the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import pandas as pd

from paretofit.core import InputError, check_choice, get_available_memory, hash_array, require_memory
from paretofit.execution import RunContext, get_active_client, share_function
from paretofit.linear.reduction import CPU, get_device
from paretofit.sweep.cells import Draw, PendingFits, list_draws, list_pending_fits
from paretofit.sweep.fast_engine import FastEngine
from paretofit.sweep.grid import SweepGrid
from paretofit.sweep.mixture_fits import run_mixtures
from paretofit.sweep.mixtures import (
    MixtureDraw,
    PendingMixture,
    check_mixtures,
    iterate_mixture_cells,
    list_mixture_draws,
    list_pending_mixtures,
)
from paretofit.sweep.plain_engine import PlainEngine
from paretofit.sweep.results import FitInputs, FitJournal, PartialResults, Row, build_results_table
from paretofit.sweep.sweep_input import SweepInput
from paretofit.sweep.work import count_mixture_flops

Engine: TypeAlias = FastEngine | PlainEngine
EngineName = Literal["fast", "plain"]
Task: TypeAlias = list[PendingFits] | list[PendingMixture]


def make_engine(
    data: SweepInput,
    grid: SweepGrid,
    name: str = "fast",
    *,
    jobs: int = 1,
    device: str = "cpu",
    folder: Path | None = None,
) -> Engine:
    """Check the grid against the data and make an engine with leverage scores and, for "fast", the reduction.

    Parameters
    ----------
    data : SweepInput
    grid : SweepGrid
    name : str
        "fast", or "plain", which fits every cell from its rows and is the reference for the fast engine.
    jobs : int
        Number of threads that reduce the rows, unless the workers of an active cluster reduce them.
    device : {"cpu", "cuda"}
        Hardware on which the fast engine reduces the rows and on which factors grow; the errors of fits agree to 1e-8.
    folder : Path, optional
        The run folder, where an expensive reduction and files for the workers of a cluster are stored.

    Raises
    ------
    InputError
        If the engine, the device or a value of the grid is invalid, columns or labels are missing, or the memory is
        too small.
    """
    check_choice("'engine'", name, ("fast", "plain"))
    data.check(grid)
    check_mixtures(grid, len(data.train), data)
    hardware = get_device(device)
    if name == "plain":
        if grid.mixtures:
            raise InputError("'mixtures' require 'engine: fast'")
        return PlainEngine.from_sweep(data, grid)
    return FastEngine(data, grid, threads=jobs, device=hardware, folder=folder)


def run_sweep(
    data: SweepInput,
    grid: SweepGrid,
    *,
    engine: Engine | EngineName = "fast",
    journal: Path | str | None = None,
    jobs: int = 1,
    device: str = "cpu",
    progress: bool = False,
) -> pd.DataFrame:
    """Fit every cell of the factorial, and return the results table.

    The method follows sections 2.2, 2.3 and 3 of Baghishov et al., Digital Discovery (2025), doi 10.1039/d5dd00294j.

    Parameters
    ----------
    data : SweepInput
    grid : SweepGrid
    engine : str or engine
        "fast", "plain", or a result of `make_engine`.
    journal : path-like, optional
        Folder in which a journal of finished fits is written. If the sweep is interrupted or the grid is changed, a
        call with the same folder computes only the fits that are not in the journal.
    jobs : int
        Number of processes, and of threads that reduce the rows; results do not depend on it.
    device : {"cpu", "cuda"}
        As in `make_engine`; ignored if `engine` is not a name.
    progress : bool
        Whether to show a progress bar with the remaining time.

    Returns
    -------
    pandas.DataFrame
        One row for each fit with the columns `SWEEP_COLUMNS`, those of `SweepGrid.list_extra_columns`, and those of
        properties: energies in meV/atom, forces in meV/Å, costs of labels in s.

    Raises
    ------
    InputError
        If the grid is invalid, columns or labels are missing, or the memory is too small.
    """
    folder = None if journal is None else Path(journal)
    if isinstance(engine, str):
        engine = make_engine(data, grid, engine, jobs=jobs, device=device, folder=folder)
    draws = list_draws(data, grid, engine.scores)
    mixture_draws = list_mixture_draws(data, grid, engine.scores)
    fits = _fit_pending(data, grid, engine, (draws, mixture_draws), RunContext(jobs, progress, folder))
    return _build_table(fits, data, grid, draws, mixture_draws)


def _fit_pending(
    data: SweepInput,
    grid: SweepGrid,
    engine: Engine,
    draws: tuple[list[Draw], list[MixtureDraw]],
    context: RunContext,
) -> Mapping[Any, Row]:
    """Compute the fits that are not in the journal, and return all fits of the journal by their keys."""
    path = None if context.folder is None else build_journal_path(context.folder, data.hash_inputs(grid, engine.name))
    digests = data.hash_labels(list(grid.levels))
    digests |= {mixture.name: " ".join(digests[level] for level in mixture.levels) for mixture in grid.mixtures}
    inputs = FitInputs(digests, hash_array(data.get_loo_groups()))
    partial_results = PartialResults(None if path is None else path.with_suffix(".parts").absolute(), inputs)
    with FitJournal(path, inputs) as journal:
        partial_results.merge_into(journal)
        tasks: list[Task] = [*list_pending_mixtures(grid, draws[1], journal.fits)]
        tasks += engine.build_tasks(list_pending_fits(grid, draws[0], journal.fits))
        _run_tasks(engine, tasks, journal, partial_results, context)
        partial_results.merge_into(journal)
        return journal.fits


def build_journal_path(folder: Path | str, digest: str) -> Path:
    """Return the path of the journal in a run folder for inputs with this digest."""
    return Path(folder) / f"sweep-{digest[:12]}.jsonl"


def _run_tasks(
    engine: Engine,
    tasks: list[Task],
    journal: FitJournal,
    partial_results: PartialResults,
    context: RunContext,
) -> None:
    """Compute pending fits in parallel, task by task, and append the fits of each task to the journal."""
    if not tasks:
        return
    if isinstance(engine, FastEngine) and engine.device != CPU:
        context = replace(context, jobs=1)  # a GPU serves one process
    if get_active_client() is None:  # otherwise the tasks run on other machines
        _check_memory(
            max(engine.estimate_task_bytes(cast("Any", task)) for task in tasks), min(context.jobs, len(tasks))
        )
    folder, task_flops = partial_results.folder, [_count_flops(engine, task) for task in tasks]
    if folder is not None:
        folder.mkdir(exist_ok=True)
    run_task = partial(_run_task, engine, partial_results)
    # On a cluster, the workers load the engine's arrays from a file in the run folder; otherwise, this is `run_task`.
    with share_function(run_task, None if folder is None else folder.parent) as function:
        numbered_fits = context.map_and_track(
            function, list(enumerate(tasks)), "fits", ordered=False, get_work=lambda result: task_flops[result[0]],
            total_work=sum(task_flops),
        )  # fmt: skip
        for number, fits in numbered_fits:
            journal.append(fits)
            partial_results.remove(tasks[number])


def _run_task(engine: Engine, partial_results: PartialResults, numbered_task: tuple[int, Any]) -> tuple[int, list[Row]]:
    """Run one task in a worker; return its number and the rows of its fits."""
    number, task = numbered_task
    if isinstance(engine, FastEngine) and isinstance(task[0], PendingMixture):
        return number, run_mixtures(engine, task, partial_results)
    return number, engine.run(task, partial_results)


def _count_flops(engine: Engine, task: Any) -> float:
    """Count the floating-point operations of a task."""
    if isinstance(engine, FastEngine) and isinstance(task[0], PendingMixture):
        n_weights = sum(len({model.weights for model in pending.models}) for pending in task)
        return count_mixture_flops(len(task), n_weights, engine.reduction.sizes.tolist())
    return engine.count_flops(task)


def _check_memory(task_bytes: float, jobs: int) -> None:
    """Raise InputError if the tasks of all processes do not fit into the memory."""
    free_bytes = get_available_memory()
    max_jobs = jobs if free_bytes is None or not task_bytes else int(free_bytes // task_bytes)
    remedy = f"use --jobs {max_jobs}" if max_jobs else "lower 'twojmax', or use fewer configurations ('sizes')"
    require_memory(task_bytes * jobs, f"fits in {jobs} process{'es' * (jobs > 1)}", remedy)


def _build_table(
    fits: Mapping[Any, Row], data: SweepInput, grid: SweepGrid, draws: list[Draw], mixture_draws: list[MixtureDraw]
) -> pd.DataFrame:
    """Build the results table: a row for each cell of the factorial in the order of the grid, then the mixtures."""
    seconds = dict(zip(grid.levels, data.stack_label_seconds(list(grid.levels)).T, strict=True))
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
    mixtures = ({**fits[key], **columns} for key, columns in iterate_mixture_cells(grid, data, mixture_draws))
    property_columns = [] if data.properties is None else data.properties.columns
    return build_results_table(chain(rows, mixtures), [*grid.list_extra_columns(), *property_columns])
