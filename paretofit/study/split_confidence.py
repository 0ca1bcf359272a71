"""Intervals of a study's errors from further train/test splits, and the probabilities of settings to be on the front.

The errors in further splits are stored in the run folder (`SPLIT_ERRORS_FILE`), with a hash of their inputs, and reused
when the study runs again. The tables are derived from these errors and from the results table.
"""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from paretofit.core import (
    CORRUPT_FILE_ERRORS,
    Array,
    InputError,
    atomic_hdf5,
    hash_json,
    raise_if_system_error,
    write_csv,
)
from paretofit.dataset import split_configurations
from paretofit.descriptors import write_array
from paretofit.execution import RunContext
from paretofit.pareto import (
    BASIS_COLUMN,
    SPLITS_COLUMN,
    TEXT_COLUMNS,
    compute_front_probabilities,
    estimate_intervals,
    find_ties,
)
from paretofit.study.preparation import PreparedStudy
from paretofit.study.run_folder import CONFIDENCE_FILE, CONFIDENCE_FILES, SPLIT_ERRORS_FILE
from paretofit.sweep import (
    SPLIT_SETTING_COLUMNS,
    WHOLE_SET,
    FastEngine,
    FurtherSplit,
    PlainEngine,
    SplitErrors,
    SweepInput,
    compute_split_errors,
)

log = logging.getLogger(__name__)

FRONT_ERRORS = ("ref_energy", "ref_force")
MAX_TRIALS_PER_SPLIT = 4  # a random split of few groups may leave one of the sets empty
SPLIT_ERRORS_VERSION = 2  # increased when `compute_split_errors` gives other numbers, so that files are not reused


def add_intervals(
    prepared: PreparedStudy,
    sweep_input: SweepInput,
    engine: FastEngine | PlainEngine,
    results: pd.DataFrame,
    folder: Path,
    context: RunContext,
) -> pd.DataFrame:
    """Compute the errors of further splits, write `CONFIDENCE_FILES`, and add the intervals to a results table.

    Intervals require the fast engine, a test set, at least one further split, and no group weights; otherwise, the
    files are removed and the results are returned unchanged.

    Parameters
    ----------
    prepared : PreparedStudy
    sweep_input : SweepInput
    engine : FastEngine or PlainEngine
    results : DataFrame
        Results table.
    folder : Path
        The run folder.
    context : RunContext

    Returns
    -------
    DataFrame
        The results with two further columns for each error, such as ``ref_energy_low`` and ``ref_energy_high``. The
        interval, which is the same for all repetitions of a setting, contains the error of a new draw in a new split
        with a probability of 90 %; it is NaN for the models of `find_dominated_models`. The column ``further_splits``
        is the number of splits.
    """
    splits = _draw_further_splits(prepared)
    if not isinstance(engine, FastEngine) or not splits or sweep_input.design.row_weights is not None:
        for name in CONFIDENCE_FILES:
            (folder / name).unlink(missing_ok=True)
        return results
    n_samples = 1 + math.ceil(prepared.study.confidence.bootstrap / len(splits))  # the first is the test set itself
    grid, train, groups = prepared.grid, sweep_input.train.tolist(), sweep_input.get_loo_groups().tolist()
    label_hash, seeds = sweep_input.hash_labels(list(grid.levels)), [split.seed for split in splits]
    inputs = [sweep_input.hash_inputs(grid, engine.name), label_hash, repr(grid), train, groups]
    inputs += [sweep_input.n_leverage_columns, sweep_input.leverage_weights, n_samples, seeds]
    omitted_models = find_dominated_models(results)
    inputs_hash = hash_json([SPLIT_ERRORS_VERSION, inputs, omitted_models])
    split_errors = read_split_errors(folder, inputs_hash)
    if split_errors is None:
        split_errors = compute_split_errors(
            engine, sweep_input, grid, splits, n_samples, replace(context, folder=folder), omitted_models
        )
        _write_split_errors(folder, inputs_hash, split_errors)
    table = tabulate_confidence(split_errors, results, len(sweep_input.train), prepared.study.objective_columns)
    write_csv(table, folder / CONFIDENCE_FILE)
    setting_columns = _list_setting_columns(results)
    interval_columns = _list_interval_columns(split_errors.errors)
    intervals = table[[*setting_columns, *interval_columns]]
    settings = _mark_whole_set(results, len(sweep_input.train))[setting_columns]
    interval_rows = settings.merge(intervals, on=setting_columns, how="left")
    columns = {name: interval_rows[name].to_numpy() for name in interval_columns}
    return results.assign(**columns, **{SPLITS_COLUMN: len(splits)})


def _draw_further_splits(prepared: PreparedStudy) -> list[FurtherSplit]:
    """Draw further train/test splits of the study's groups; an empty list without a test set.

    Splits with an empty set are drawn again, at most `MAX_TRIALS_PER_SPLIT` times per split, so that there may be fewer
    splits than requested.
    """
    split, settings = prepared.split, prepared.study.split
    n_splits = prepared.study.confidence.splits if len(split.test) else 0
    elements = [set(atoms.numbers.tolist()) for atoms in prepared.dataset] if n_splits else []
    splits: list[FurtherSplit] = []
    for child in np.random.SeedSequence(settings.seed).spawn(MAX_TRIALS_PER_SPLIT * n_splits):
        seed = int(child.generate_state(1)[0])
        try:
            further_split = split_configurations(split.groups, settings.train_fraction, seed, elements)
        except InputError:  # one of the sets would be empty
            continue
        splits.append(FurtherSplit(further_split.train, further_split.test, seed))
        if len(splits) == n_splits:
            break
    return splits


def find_dominated_models(results: pd.DataFrame) -> list[tuple[int, int]]:
    """Find the subset sizes at which a 2Jmax has larger errors than smaller 2Jmax at every level.

    The lowest median errors over all weights and sampling methods are compared with those of all smaller 2Jmax; both
    errors, of energies and of forces, must be larger. The models that are found have hardly more rows than
    coefficients; their fits are expensive, and are omitted in further splits.

    Returns
    -------
    list of (int, int)
        Pairs of subset size and 2Jmax.
    """
    error_columns = list(FRONT_ERRORS)
    medians = _format_names(results).groupby(_list_setting_columns(results))[error_columns].median()
    lowest_errors = medians.groupby(["n_train", "level", "twojmax"])[error_columns].min()
    # shifted cumulative minimum: the lowest error of all smaller models (NaN, and never lower, for the smallest)
    smaller_model_errors = lowest_errors.groupby(["n_train", "level"]).cummin().groupby(["n_train", "level"]).shift()
    is_dominated = (smaller_model_errors < lowest_errors).all(axis=1).groupby(["n_train", "twojmax"]).all()
    return [(int(size), int(twojmax)) for size, twojmax in is_dominated.index[is_dominated]]


def tabulate_confidence(
    split_errors: SplitErrors, results: pd.DataFrame, n_train: int, objectives: Sequence[str] = FRONT_ERRORS
) -> pd.DataFrame:
    """Tabulate the median errors of every setting, their intervals, and its share of samples on the front.

    Parameters
    ----------
    split_errors : SplitErrors
        Errors of all settings in further splits.
    results : DataFrame
        Results table.
    n_train : int
        Size of the whole training set.
    objectives : sequence of str
        Columns of errors that the front minimises besides the cost.

    Returns
    -------
    DataFrame
        A row per setting: the columns that identify it; for each error the median over repetitions in the study's split
        and the ends of the 90 % interval (``_low``, ``_high``); ``label_seconds``; and ``p_front``, the share of
        samples in which the setting is on the front of the objectives and the cost over all 2Jmax.
    """
    setting_columns = _list_setting_columns(results)
    rows_by_setting = _mark_whole_set(results, n_train).groupby(setting_columns, sort=False)
    median_columns = [*split_errors.errors, "label_seconds"]
    settings = _format_names(split_errors.settings)[setting_columns].merge(
        rows_by_setting[median_columns].median().reset_index(), on=setting_columns, how="left"
    )
    repetitions_by_setting = dict(iter(rows_by_setting))
    setting_keys = settings[setting_columns].itertuples(index=False, name=None)
    repetitions = [repetitions_by_setting[key] for key in setting_keys]
    for name, errors in split_errors.errors.items():
        low, high = estimate_intervals(errors, [rows[name].to_numpy() for rows in repetitions])
        settings[f"{name}_low"], settings[f"{name}_high"] = low, high
    costs = settings["label_seconds"].to_numpy()
    objective_errors = [split_errors.errors[name] for name in objectives]
    return settings.assign(p_front=compute_front_probabilities(objective_errors, costs))


def _list_interval_columns(error_columns: Iterable[str]) -> list[str]:
    """List the names of the columns with the ends of the intervals of some errors."""
    return [f"{name}_{end}" for name in error_columns for end in ("low", "high")]


def add_front_confidence(
    front: pd.DataFrame, folders: Mapping[str, Path], objectives: Sequence[str] = FRONT_ERRORS
) -> pd.DataFrame:
    """Return the front of a run with intervals, ``p_front`` and ``tied_with``; without further splits, unchanged.

    A column ``point`` numbers the rows from 1. ``tied_with`` contains the numbers, separated by blanks, of the points
    whose errors cannot be distinguished in paired samples. With several bases, ``p_front`` is the share of samples in
    which the point is on the front over all bases.

    Parameters
    ----------
    front : DataFrame
        Table of `paretofit.study.study_front.find_study_front`.
    folders : mapping of str to Path
        Run folder of each basis.
    objectives : sequence of str
        Columns of errors that the front minimises besides the cost.
    """
    confidence = _read_confidence(folders, objectives)
    if confidence is None:
        return front
    table, objective_errors = confidence
    basis_columns = [BASIS_COLUMN] if BASIS_COLUMN in front else []
    if basis_columns:  # the shares in the table are those of the front of each basis
        table["p_front"] = compute_front_probabilities(objective_errors, table["label_seconds"].to_numpy())
    keys = [*basis_columns, *_list_setting_columns(front)]
    columns = [*_list_interval_columns(dict.fromkeys([*FRONT_ERRORS, *objectives])), "p_front"]
    table = table[[*keys, *columns]].assign(position=np.arange(len(table)))
    matching_rows = _format_names(front)[keys].merge(_format_names(table), on=keys, how="left")
    is_known = matching_rows["position"].notna().to_numpy()
    positions = matching_rows["position"][is_known].astype(int)
    points = np.arange(1, len(front) + 1)
    ties = np.full(len(front), "", dtype=object)
    tie_flags = find_ties([errors[..., positions] for errors in objective_errors])
    ties[is_known] = [" ".join(map(str, points[is_known][flags])) for flags in tie_flags]
    confidence_columns = {name: matching_rows[name].to_numpy() for name in columns}
    return front.assign(point=points, **confidence_columns, tied_with=ties)


def _read_confidence(folders: Mapping[str, Path], objectives: Sequence[str]) -> tuple[pd.DataFrame, list[Array]] | None:
    """Read the confidence tables of all bases, and their errors in further splits.

    The errors of each objective have the shape ``(n_splits, n_samples, n_settings)``, with the settings in the order of
    the joined table. Bases that lack an objective are omitted. Return None if a basis has no further splits.
    """
    tables, errors_by_basis = [], []
    for name, folder in folders.items():
        split_errors = read_split_errors(folder)
        if split_errors is None or not (folder / CONFIDENCE_FILE).exists():
            return None
        if set(objectives) <= set(split_errors.errors):
            tables.append(pd.read_csv(folder / CONFIDENCE_FILE, dtype=TEXT_COLUMNS).assign(**{BASIS_COLUMN: name}))
            errors_by_basis.append([split_errors.errors[objective] for objective in objectives])
    return pd.concat(tables, ignore_index=True), [
        np.concatenate(objective_errors, axis=-1) for objective_errors in zip(*errors_by_basis, strict=True)
    ]


def _list_setting_columns(table: pd.DataFrame) -> list[str]:
    """List the columns of a table that identify a setting."""
    return [name for name in SPLIT_SETTING_COLUMNS if name in table]


def _mark_whole_set(results: pd.DataFrame, n_train: int) -> pd.DataFrame:
    """Return results with the sampling `WHOLE_SET` for the whole training set, and names as text."""
    table = results.assign(sampling=results["sampling"].where(results["n_train"] < n_train, WHOLE_SET))
    return _format_names(table)


def _format_names(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with levels and ridge penalties as text, to merge tables from files with those in memory."""
    columns: dict[str, Any] = {"level": table["level"].astype(str)}
    if "ridge" in table:
        columns["ridge"] = [ridge if ridge == "auto" else f"{float(ridge):g}" for ridge in table["ridge"]]
    return table.assign(**columns)


def _write_split_errors(folder: Path, key: str, split_errors: SplitErrors) -> None:
    """Write errors in further splits to `SPLIT_ERRORS_FILE`, with a key of the inputs from which they were computed."""
    with atomic_hdf5(folder / SPLIT_ERRORS_FILE) as (file, check):
        for name, values in split_errors.errors.items():
            write_array(file, name, values)
            check()
        file.attrs["key"] = key
        file.attrs["settings"] = split_errors.settings.to_json(orient="split")
        file.attrs["errors"] = list(split_errors.errors)


def read_split_errors(folder: Path, key: str | None = None) -> SplitErrors | None:
    """Read the errors of further splits from a run folder.

    Parameters
    ----------
    folder : Path
    key : str, optional
        Key with which the file must have been written; by default, any key is accepted.

    Returns
    -------
    SplitErrors or None
        None if the file is missing, corrupt, or has another key.
    """
    path = folder / SPLIT_ERRORS_FILE
    if not path.is_file():
        return None
    try:
        with h5py.File(path, "r") as file:
            if key is not None and file.attrs.get("key") != key:
                return None
            content: dict[str, Any] = json.loads(file.attrs["settings"])
            errors = {name: file[name][()] for name in file.attrs["errors"]}
    except CORRUPT_FILE_ERRORS as error:
        raise_if_system_error(error, path)
        log.warning("%s cannot be read (%s); the fits of further splits are computed again", path, error)
        return None
    return SplitErrors(pd.DataFrame(content["data"], columns=content["columns"]), errors)
