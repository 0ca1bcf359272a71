"""A pilot: what a few tens of configurations, labelled at every level, say about the study that they stand for.

The pilot is cross-validated: every configuration is held out once in each of several partitions, and models are fitted
to nested subsets of the rest, with a ridge chosen by leave-one-out, which keeps rich models usable with so few labels.
The result is a results table with a row per fit and fold, from which `paretofit plan` extrapolates.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from paretofit.core import InputError, atomic_path, track
from paretofit.dataset.quality import LevelErrors, compute_level_errors
from paretofit.execution import parallel_map
from paretofit.study.analysis import add_md_cost, measure_md_cost
from paretofit.study.pipeline import load_or_compute_design
from paretofit.study.preparation import prepare_study
from paretofit.study.run_folder import open_run_folder
from paretofit.study.schema import Study, load_study
from paretofit.study.sweep_data import build_sweep_input
from paretofit.sweep import SweepGrid, SweepInput, run_sweep

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paretofit.study.preparation import PreparedStudy

FOLDS = 4
PARTITIONS = 3
SIZES = 5  # subset sizes within the training part of a fold
SMALLEST = 6  # configurations in a subset
FEWEST = 12  # configurations in a pilot
DEFAULT_PILOT_EXTRAPOLATION_FACTOR = 30.0

log = logging.getLogger(__name__)


def run_pilot(
    source: Study | Path | str,
    *,
    n_configurations: int | None = None,
    out: Path | str | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> pd.DataFrame:
    """Cross-validate a pilot over the factorial of a study.

    Parameters
    ----------
    source : Study or path-like
        A study whose dataset is the pilot; its levels, 2Jmax, weights and basis count, its sizes, samplings and split
        do not. ``ridge`` is ``auto`` unless the study has one.
    n_configurations : int, optional
        Take so many configurations of the dataset, at random, for the pilot; by default all.
    out : path-like, optional
        Where descriptors, finished fits and ``results.csv`` are kept; by default ``runs/<name>-pilot``.
    jobs : int
        Folds at a time.
    progress : bool
        Show bars.

    Returns
    -------
    pandas.DataFrame
        A results table with a column ``fold``; ``repeat`` numbers the folds of all partitions. ``label_energy`` and
        ``label_force`` are the RMSD of the level's labels against the reference, meV/atom and meV/Å.

    Raises
    ------
    InputError
        If the study cannot be used, or the pilot is too small to be cross-validated.
    """
    study = _pilot_study(source if isinstance(source, Study) else load_study(source))
    prepared = _drawn(prepare_study(study), n_configurations)
    folder = Path(out) if out is not None else Path("runs") / f"{study.name}-pilot"
    with prepared.dataset, open_run_folder(folder, f"{study.name}-pilot"):
        design = load_or_compute_design(
            prepared.dataset, study.basis, folder / "design.h5", jobs=jobs, progress=progress
        )
        folds = list(_folds(prepared.split.groups, study.seed))
        data = build_sweep_input(prepared, design)
        errors = compute_level_errors(
            prepared.dataset, list(prepared.grid.levels), reference_configuration=study.reference_configuration
        )
        everybody = replace(data, train=np.arange(data.design.n_configurations))
        md = measure_md_cost(prepared, everybody, errors, folder)
        tasks = list(_tasks(data, prepared.grid, folds))
        found = parallel_map(partial(_fit_fold, folder=folder.absolute()), tasks, jobs)
        tables = list(track(found, len(tasks), "folds of the pilot", enabled=progress))
        results = pd.concat([table.assign(repeat=k, fold=k % FOLDS) for k, table in enumerate(tables)])
        results = add_md_cost(results.merge(_label_errors(prepared, errors), on="level"), md)
        with atomic_path(folder / "results.csv") as temporary:
            results.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")
    table: pd.DataFrame = results.astype({"level": str, "ridge": str})
    return table


def _pilot_study(study: Study) -> Study:
    ridge = study.ridge if "ridge" in study.model_fields_set else ["auto"]
    kept = {"ridge": ridge, "sizes": ["all"], "samplings": ["random"], "repetitions": 1, "leave_one_out": False}
    # half and half is possible wherever folds are; the split itself is not used
    return study.model_copy(update={**kept, "split": study.split.model_copy(update={"train_fraction": 0.5})})


def _drawn(prepared: PreparedStudy, configurations: int | None) -> PreparedStudy:
    """Some of the configurations, as if there were no more."""
    n = len(prepared.dataset)
    if configurations is None or configurations == n:
        return prepared
    if not FEWEST <= configurations < n:
        raise InputError(
            f"a pilot has at least {FEWEST} and at most the {n} configurations there are; got {configurations}"
        )
    rng = np.random.default_rng(np.random.SeedSequence(prepared.study.seed, spawn_key=(PARTITIONS,)))
    chosen = np.sort(rng.choice(n, configurations, replace=False))
    everybody = np.arange(configurations)
    split = replace(prepared.split, train=everybody, test=everybody[:0], groups=prepared.split.groups[chosen])
    return replace(prepared, dataset=prepared.dataset.select(chosen), split=split)


def _label_errors(prepared: PreparedStudy, errors: LevelErrors) -> pd.DataFrame:
    levels = list(prepared.grid.levels)
    table = errors.table.set_index("level")[["energy_rmsd", "force_rmsd"]]
    table = table.reindex(levels).fillna(0.0)  # the reference has no error of its own
    return table.set_axis(["label_energy", "label_force"], axis=1).reset_index(names="level")


def _folds(group: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Masks of what is held out, whole groups of relatives together."""
    families = np.unique(group)
    if len(group) < FEWEST or len(families) < FOLDS:
        raise InputError(
            f"a pilot needs at least {FEWEST} configurations in {FOLDS} groups of relatives, labelled at every level; "
            f"there are {len(group)} in {len(families)}"
        )
    for partition in range(PARTITIONS):
        order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(partition,))).permutation(families)
        for fold in range(FOLDS):
            yield np.isin(group, order[fold::FOLDS])


def _tasks(data: SweepInput, grid: SweepGrid, folds: list[np.ndarray]) -> Iterator[tuple[SweepInput, SweepGrid]]:
    least = min(int((~held_out).sum()) for held_out in folds)
    sizes = sorted({round(size) for size in np.geomspace(max(SMALLEST, least / 5), least, SIZES)})
    for k, held_out in enumerate(folds):
        own = replace(data, train=np.flatnonzero(~held_out), test=np.flatnonzero(held_out))
        yield own, replace(grid, sizes=sizes, seed=grid.seed + k)


def _fit_fold(task: tuple[SweepInput, SweepGrid], folder: Path) -> pd.DataFrame:
    with threadpool_limits(1):
        return run_sweep(*task, journal=folder, jobs=1)
