"""Pilot of a study: cross-validated fits of a few tens of configurations that are labelled at every level.

In each of several random partitions into folds, every configuration is held out once, and models are fitted to nested
subsets of the other folds. The ridge penalty is chosen by leave-one-out errors, so that large models can be fitted to
few labels. `paretofit plan` extrapolates from the results table, which has a row per fit and fold.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from paretofit.core import InputError, show_message, write_csv
from paretofit.dataset.quality import LevelErrors, compute_level_errors
from paretofit.execution import RunContext
from paretofit.study.analysis import add_md_cost, mark_assumed_costs, measure_md_cost
from paretofit.study.pipeline import load_or_compute_design
from paretofit.study.preparation import PreparedStudy, prepare_study
from paretofit.study.run_folder import RESULTS_FILE, open_run_folder
from paretofit.study.schema import Study, load_study
from paretofit.study.sweep_data import build_sweep_input
from paretofit.sweep import SweepGrid, SweepInput, run_sweep

N_FOLDS = 4  # number of folds per partition
N_PARTITIONS = 3
N_SUBSET_SIZES = 5  # number of subset sizes within the training set of a fold
MIN_SUBSET_SIZE = 6  # number of configurations
MIN_PILOT_SIZE = 12  # number of configurations
DEFAULT_PILOT_EXTRAPOLATION_FACTOR = 30.0  # largest training set of a plan relative to the pilot's

JOURNAL_PATTERN = "sweep-*.jsonl"  # files named by `build_journal_path`

log = logging.getLogger(__name__)


def run_pilot(
    source: Study | Path | str,
    context: RunContext,
    *,
    n_configurations: int | None = None,
    out: Path | str | None = None,
) -> pd.DataFrame:
    """Cross-validate every fit of a study's factorial on a pilot, and write the results table.

    Parameters
    ----------
    source : Study or path-like
        Study from whose dataset the pilot is drawn. Its sizes, sampling methods, repetitions, mixtures and split are
        ignored; ``ridge`` is ``auto`` by default.
    context : RunContext
    n_configurations : int, optional
        Number of configurations to draw at random from the dataset; by default all are used.
    out : path-like, optional
        Folder for descriptors, finished fits and ``results.csv``, from which a stopped pilot resumes; by default
        ``runs/<name>-pilot``.

    Returns
    -------
    pandas.DataFrame
        Results table. ``repeat`` numbers the folds of all partitions, and ``fold`` those of each partition.
        ``label_energy`` and ``label_force`` are the RMSD of the level's labels against the reference, meV/atom and
        meV/Å.

    Raises
    ------
    InputError
        If the study cannot be used, or the pilot is too small for a cross-validation.
    """
    study = _derive_pilot_study(source if isinstance(source, Study) else load_study(source))
    prepared = _draw_configurations(prepare_study(study), n_configurations)
    folder = Path(out) if out is not None else Path("runs") / f"{study.name}-pilot"
    with prepared.dataset, open_run_folder(folder, f"{study.name}-pilot"):
        return _cross_validate(prepared, folder, context)


def _cross_validate(prepared: PreparedStudy, folder: Path, context: RunContext) -> pd.DataFrame:
    """Fit all folds in parallel; write and return the results table of `run_pilot`."""
    study = prepared.study
    design = load_or_compute_design(prepared.dataset, study.basis, folder / "design.h5", context)
    folds = list(_draw_folds(prepared.split.groups, study.seed))
    sweep_input = build_sweep_input(prepared, design)
    errors = compute_level_errors(
        prepared.dataset, list(prepared.grid.levels), reference_configuration=study.reference_configuration
    )
    # the split of the study is not used, so the timed potential may be trained on any configurations
    timing_input = replace(sweep_input, train=np.arange(design.n_configurations))
    md_costs = measure_md_cost(prepared, timing_input, errors, folder)
    tasks = list(_list_tasks(sweep_input, prepared.grid, folds))
    n_journals = len(list(folder.glob(JOURNAL_PATTERN)))
    if n_journals:
        message = f"finished fits of a stopped pilot are in {n_journals} files in {folder} and are used again"
        log.info(message)
        show_message(message, enabled=context.progress)
    tables = context.map_and_track(partial(_fit_fold, folder=folder.absolute()), tasks, "folds of the pilot")
    results = pd.concat([table.assign(repeat=k, fold=k % N_FOLDS) for k, table in enumerate(tables)])
    results = add_md_cost(results.merge(_tabulate_label_errors(prepared, errors), on="level"), md_costs)
    results = mark_assumed_costs(results, study)
    write_csv(results, folder / RESULTS_FILE)
    typed_results: pd.DataFrame = results.astype({"level": str, "ridge": str})
    return typed_results


def _derive_pilot_study(study: Study) -> Study:
    """Return the study with one random draw of the whole training set, and automatic ridge penalties by default."""
    ridge = study.ridge if "ridge" in study.model_fields_set else ["auto"]
    # the split is not used, but must be valid: a split in halves is possible whenever a split into folds is
    split = study.split.model_copy(update={"train_fraction": 0.5})
    return study.model_copy(
        update={
            "ridge": ridge,
            "sizes": ["all"],
            "mixtures": [],
            "sampling_methods": ["random"],
            "repetitions": 1,
            "leave_one_out": False,
            "split": split,
        }
    )


def _draw_configurations(prepared: PreparedStudy, n_configurations: int | None) -> PreparedStudy:
    """Return the study with only `n_configurations`, drawn at random; with None, return it unchanged.

    All of its configurations are in the training set, because the split of the study is not used.
    """
    n = len(prepared.dataset)
    if n_configurations is None or n_configurations == n:
        return prepared
    if not MIN_PILOT_SIZE <= n_configurations < n:
        raise InputError(
            f"a pilot requires at least {MIN_PILOT_SIZE} and at most all {n} configurations; got {n_configurations}"
        )
    # `_draw_folds` uses the spawn keys below N_PARTITIONS
    rng = np.random.default_rng(np.random.SeedSequence(prepared.study.seed, spawn_key=(N_PARTITIONS,)))
    positions = np.sort(rng.choice(n, n_configurations, replace=False))
    train = np.arange(n_configurations)
    split = replace(prepared.split, train=train, test=train[:0], groups=prepared.split.groups[positions])
    return replace(prepared, dataset=prepared.dataset.select(positions), split=split)


def _tabulate_label_errors(prepared: PreparedStudy, errors: LevelErrors) -> pd.DataFrame:
    """Tabulate ``label_energy`` (meV/atom) and ``label_force`` (meV/Å) of every level; zero at the reference."""
    levels = list(prepared.grid.levels)
    table = errors.table.set_index("level")[["energy_rmsd", "force_rmsd"]]
    table = table.reindex(levels).fillna(0.0)  # the reference has no row in the table
    return table.set_axis(["label_energy", "label_force"], axis=1).reset_index(names="level")


def _draw_folds(groups: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Draw the folds of all partitions, without dividing a group.

    Parameters
    ----------
    groups : (n,) int64
        Group of each configuration.
    seed : int

    Yields
    ------
    (n,) bool
        Mask of the configurations that are held out in a fold; all folds of a partition follow each other.

    Raises
    ------
    InputError
        If there are too few configurations or groups.
    """
    distinct_groups = np.unique(groups)
    if len(groups) < MIN_PILOT_SIZE or len(distinct_groups) < N_FOLDS:
        raise InputError(
            f"a pilot requires at least {MIN_PILOT_SIZE} configurations in {N_FOLDS} groups, labelled at every level; "
            f"got {len(groups)} in {len(distinct_groups)}"
        )
    for partition in range(N_PARTITIONS):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(partition,)))
        shuffled_groups = rng.permutation(distinct_groups)
        for fold in range(N_FOLDS):
            yield np.isin(groups, shuffled_groups[fold::N_FOLDS])


def _list_tasks(
    sweep_input: SweepInput, grid: SweepGrid, folds: list[np.ndarray]
) -> Iterator[tuple[SweepInput, SweepGrid]]:
    """Yield the input and the grid of each fold; all grids have the same subset sizes, but different seeds."""
    n_train = min(int((~is_held_out).sum()) for is_held_out in folds)
    sizes = sorted({round(size) for size in np.geomspace(max(MIN_SUBSET_SIZE, n_train / 5), n_train, N_SUBSET_SIZES)})
    for k, is_held_out in enumerate(folds):
        fold_input = replace(sweep_input, train=np.flatnonzero(~is_held_out), test=np.flatnonzero(is_held_out))
        yield fold_input, replace(grid, sizes=sizes, seed=grid.seed + k)


def _fit_fold(task: tuple[SweepInput, SweepGrid], folder: Path) -> pd.DataFrame:
    """Run the sweep of a fold; its journal in `folder` lets a stopped pilot resume."""
    with threadpool_limits(1):  # the folds are fitted in parallel
        return run_sweep(*task, journal=folder, jobs=1)
