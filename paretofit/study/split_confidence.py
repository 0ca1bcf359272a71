"""Confidence of a study's errors: intervals from further train/test splits, and the shares of their samples on fronts.

The fits of further splits are stored in the run folder (`SPLIT_ERRORS_FILE`), with a key of their inputs, and reused
when the study runs again. Tables are derived from them and from the results table.
"""

import json
import logging
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
VERSION = 2  # version of the contents of the file


def add_intervals(
    prepared: PreparedStudy,
    data: SweepInput,
    engine: FastEngine | PlainEngine,
    results: pd.DataFrame,
    folder: Path,
    context: RunContext,
) -> pd.DataFrame:
    """Compute the errors of further splits, write `CONFIDENCE_FILES`, and add the intervals to a results table.

    Without the fast engine, a test set and further splits, and with group weights, the files are removed.

    Parameters
    ----------
    prepared : PreparedStudy
    data : SweepInput
    engine : FastEngine or PlainEngine
    results : DataFrame
        Results table.
    folder : Path
        The run folder.
    context : RunContext

    Returns
    -------
    DataFrame
        The results with two further columns for each error, ``ref_energy_low`` and ``ref_energy_high``, equal for all
        repetitions of a setting: the interval contains the error of a new draw in a new split with a probability of
        90 %. ``further_splits`` is the number of splits.
    """
    splits = _draw_further_splits(prepared)
    if not isinstance(engine, FastEngine) or not splits or data.design.row_weights is not None:
        for name in CONFIDENCE_FILES:
            (folder / name).unlink(missing_ok=True)
        return results
    n_samples = 1 + -(-prepared.study.confidence.bootstrap // len(splits))
    grid, train, groups = prepared.grid, data.train.tolist(), data.get_loo_groups().tolist()
    inputs = [data.hash_inputs(grid, engine.name), data.hash_labels(list(grid.levels)), repr(grid), train, groups]
    inputs += [data.n_leverage_columns, data.leverage_weights, n_samples, [split.seed for split in splits]]
    omitted_models = find_dominated_models(results)
    key = hash_json([VERSION, inputs, omitted_models])
    split_errors = read_split_errors(folder, key)
    if split_errors is None:
        split_errors = compute_split_errors(
            engine, data, grid, splits, n_samples, replace(context, folder=folder), omitted_models
        )
        _write_split_errors(folder, key, split_errors)
    table = tabulate_confidence(split_errors, results, len(data.train), prepared.study.objective_columns)
    write_csv(table, folder / CONFIDENCE_FILE)
    keys = _list_keys(results)
    interval_columns = _list_interval_columns(split_errors.errors)
    intervals = table[[*keys, *interval_columns]]
    interval_rows = _mark_whole_set(results, len(data.train))[keys].merge(intervals, on=keys, how="left")
    columns = {name: interval_rows[name].to_numpy() for name in interval_columns}
    return results.assign(**columns, **{SPLITS_COLUMN: len(splits)})


def _draw_further_splits(prepared: PreparedStudy) -> list[FurtherSplit]:
    """Draw train/test splits of the study's groups; none without a test set."""
    split, settings = prepared.split, prepared.study.split
    n_splits = prepared.study.confidence.count_splits(prepared.grid.repetitions) if len(split.test) else 0
    elements = [set(atoms.numbers.tolist()) for atoms in prepared.dataset] if n_splits else []
    splits: list[FurtherSplit] = []
    for child in np.random.SeedSequence(settings.seed).spawn(MAX_TRIALS_PER_SPLIT * n_splits):
        seed = int(child.generate_state(1)[0])
        try:
            further_split = split_configurations(split.groups, settings.train_fraction, seed, elements)
        except InputError:
            continue
        splits.append(FurtherSplit(further_split.train, further_split.test, seed))
        if len(splits) == n_splits:
            break
    return splits


def find_dominated_models(results: pd.DataFrame) -> list[tuple[int, int]]:
    """Find the sizes and 2Jmax that need no fits: at these sizes, a smaller 2Jmax has lower errors at every level.

    Both lowest median errors over all weights and sampling methods are compared. Such models have hardly more rows than
    coefficients, and their fits are expensive; no further splits are computed for them.
    """
    columns = list(FRONT_ERRORS)
    medians = _format_names(results).groupby(_list_keys(results))[columns].median()
    lowest_errors = medians.groupby(["n_train", "level", "twojmax"])[columns].min()
    smaller_model_errors = lowest_errors.groupby(["n_train", "level"]).cummin().groupby(["n_train", "level"]).shift()
    is_dominated = (smaller_model_errors < lowest_errors).all(axis=1).groupby(["n_train", "twojmax"]).all()
    return [(int(size), int(twojmax)) for size, twojmax in is_dominated.index[is_dominated]]


def tabulate_confidence(
    split_errors: SplitErrors, results: pd.DataFrame, n_train: int, objectives: Sequence[str] = FRONT_ERRORS
) -> pd.DataFrame:
    """Tabulate the median errors, their intervals and the share on the front of every setting.

    Parameters
    ----------
    split_errors : SplitErrors
    results : DataFrame
        Results table.
    n_train : int
        Size of the whole training set.
    objectives : sequence of str
        Errors that the front minimises, besides the cost.

    Returns
    -------
    DataFrame
        The columns of a setting; for each error the median over repetitions in the study's split and the ends of the
        90 % interval (``_low``, ``_high``); ``label_seconds``; and ``p_front``, the share of samples in which the
        setting is on the front of the objectives and the cost over all 2Jmax.
    """
    keys = _list_keys(results)
    rows_by_setting = _mark_whole_set(results, n_train).groupby(keys, sort=False)
    columns = [*split_errors.errors, "label_seconds"]
    settings = _format_names(split_errors.settings)[keys].merge(
        rows_by_setting[columns].median().reset_index(), on=keys, how="left"
    )
    groups = dict(iter(rows_by_setting))
    repetitions = [groups[key] for key in settings[keys].itertuples(index=False, name=None)]
    for name, errors in split_errors.errors.items():
        ends = estimate_intervals(errors, [rows[name].to_numpy() for rows in repetitions])
        settings[f"{name}_low"], settings[f"{name}_high"] = ends
    costs = settings["label_seconds"].to_numpy()
    objective_errors = [split_errors.errors[name] for name in objectives]
    return settings.assign(p_front=compute_front_probabilities(objective_errors, costs))


def _list_interval_columns(names: Iterable[str]) -> list[str]:
    return [f"{name}_{end}" for name in names for end in ("low", "high")]


def add_front_confidence(
    front: pd.DataFrame, folders: Mapping[str, Path], objectives: Sequence[str] = FRONT_ERRORS
) -> pd.DataFrame:
    """Add intervals, ``p_front`` and ``tied_with`` to the front of a run; without further splits, return it unchanged.

    ``point`` numbers the rows from 1, and ``tied_with`` lists the numbers of the points whose errors paired samples
    cannot tell apart, separated by blanks. With several bases, ``p_front`` is that of the front over all bases.

    Parameters
    ----------
    front : DataFrame
    folders : mapping of str to Path
        Run folder of each basis.
    objectives : sequence of str
        Errors that the front minimises, besides the cost.
    """
    confidence = _read_confidence(folders, objectives)
    if confidence is None:
        return front
    table, errors = confidence
    if BASIS_COLUMN in front:
        table["p_front"] = compute_front_probabilities(errors, table["label_seconds"].to_numpy())
    keys = [*({BASIS_COLUMN} & {*front}), *_list_keys(front)]
    columns = [*_list_interval_columns(dict.fromkeys([*FRONT_ERRORS, *objectives])), "p_front"]
    table = table[[*keys, *columns]].assign(position=np.arange(len(table)))
    matching_rows = _format_names(front)[keys].merge(_format_names(table), on=keys, how="left")
    is_known = matching_rows["position"].notna().to_numpy()
    positions = matching_rows["position"][is_known].astype(int)
    points = np.arange(1, len(front) + 1)
    ties = np.full(len(front), "", dtype=object)
    tie_flags = find_ties([values[..., positions] for values in errors])
    ties[is_known] = [" ".join(map(str, points[is_known][flags])) for flags in tie_flags]
    values = {name: matching_rows[name].to_numpy() for name in columns}
    return front.assign(point=points, **values, tied_with=ties)


def _read_confidence(folders: Mapping[str, Path], objectives: Sequence[str]) -> tuple[pd.DataFrame, list[Array]] | None:
    """Read the settings of all bases and their errors in further splits, ``(n_splits, n_samples, n_settings)`` each.

    Bases without one of the objectives are left out. None if a basis has no further splits.
    """
    tables, parts = [], []
    for name, folder in folders.items():
        split_errors = read_split_errors(folder)
        if split_errors is None or not (folder / CONFIDENCE_FILE).exists():
            return None
        if set(objectives) <= set(split_errors.errors):
            tables.append(pd.read_csv(folder / CONFIDENCE_FILE, dtype=TEXT_COLUMNS).assign(**{BASIS_COLUMN: name}))
            parts.append([split_errors.errors[objective] for objective in objectives])
    return pd.concat(tables, ignore_index=True), [np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)]


def _list_keys(table: pd.DataFrame) -> list[str]:
    return [name for name in SPLIT_SETTING_COLUMNS if name in table]


def _mark_whole_set(results: pd.DataFrame, n_train: int) -> pd.DataFrame:
    table = results.assign(sampling=results["sampling"].where(results["n_train"] < n_train, WHOLE_SET))
    return _format_names(table)


def _format_names(table: pd.DataFrame) -> pd.DataFrame:
    """Write levels as text, and penalties as text without trailing zeros, whether they were read from a file or not."""
    columns: dict[str, Any] = {"level": table["level"].astype(str)}
    if "ridge" in table:
        columns["ridge"] = [ridge if ridge == "auto" else f"{float(ridge):g}" for ridge in table["ridge"]]
    return table.assign(**columns)


def _write_split_errors(folder: Path, key: str, split_errors: SplitErrors) -> None:
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
        Key of the inputs; by default it is not checked.

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
