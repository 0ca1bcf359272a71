"""Errors of a committee on labelled configurations that it was not trained on: calibration points and new batches.

Points have three sources: configurations of the training set, each predicted by a committee that was trained without
its fold (`CROSS_VALIDATION`, linear models only); validation and test sets (`HELD_OUT`); and the frames of each batch,
predicted by the committee that chose them (`NEW_BATCH`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from paretofit.core import Array, InputError
from paretofit.execution import RunContext
from paretofit.learning.evaluation import CommitteeErrors, evaluate_committee, evaluate_cross_validation
from paretofit.learning.loop_folder import IterationFolder, LearnFolder
from paretofit.learning.model import Committee, TrainingResult
from paretofit.learning.selection import BOUND_COVERAGE, CROSS_VALIDATION, HELD_OUT, NEW_BATCH, PROPERTIES, UNITS
from paretofit.learning.set_balance import TRAIN
from paretofit.learning.training_set import TrainingData
from paretofit.potentials import LabelledStructures

POINT_COLUMNS = ["id", "config_type", "input", "iteration", "of"]
VALUE_COLUMNS = [f"{name}_{suffix}" for name in PROPERTIES for suffix in ("std", "committee_error")]


def tabulate_configurations(data: TrainingData, weights: Array | float = 1.0) -> pd.DataFrame:
    """Tabulate ``id, set, iteration, level, config_type, input, weight`` of the labelled configurations.

    Parameters
    ----------
    data : TrainingData
    weights : (n,) float64 or float
        Row weights of the configurations in the training.
    """
    info_records = data.dataset.info_records
    return pd.DataFrame({
        "id": data.dataset.ids,
        "set": data.sets,
        "iteration": data.iteration,
        "level": data.level,
        "config_type": [str(info.get("config_type", "")) for info in info_records],
        "input": [str(info.get("input", "")) for info in info_records],
        "weight": weights,
    })  # fmt: skip


def evaluate_batch(
    committee: Committee,
    previous_iteration: IterationFolder,
    labelled: LabelledStructures,
    configuration_table: pd.DataFrame,
    context: RunContext,
) -> pd.DataFrame:
    """Compare the errors that were predicted for the newly labelled frames with their true errors.

    Parameters
    ----------
    committee : Committee
        Committee that chose the frames; it was not trained on them.
    previous_iteration : IterationFolder
        Folder of the iteration that chose the frames; its ``frames.csv`` contains the predicted errors.
    labelled : LabelledStructures
        The frames with their labels.
    configuration_table : DataFrame
        Rows of `tabulate_configurations` for these frames.
    context : RunContext

    Returns
    -------
    DataFrame
        Columns of `CommitteeErrors.table`, and for each property ``*_expected`` and ``*_bound`` (predicted error and
        its upper bound); NaN if unknown, or if only a part of the frame was labelled.
    """
    table = evaluate_committee(committee, labelled, configuration_table, context).table
    names = [f"{name}_{suffix}" for name in PROPERTIES for suffix in ("expected", "bound")]
    path = previous_iteration.path / "frames.csv"
    frames = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    if "config_id" not in frames:
        return table.assign(**dict.fromkeys(names, np.nan))
    # errors were predicted for whole frames, and do not apply to a part that was cut out of one
    is_whole = frames.get("atoms_to_label", frames.get("atoms")) == frames.get("atoms")
    predicted_frames = frames[frames["config_id"].notna() & is_whole].set_index("config_id").reindex(columns=names)
    return table.join(predicted_frames, on="id")


def summarise_batch(batch: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Summarise the table of `evaluate_batch` by property; properties without labels or predicted errors are omitted.

    Returns
    -------
    dict of str to dict
        By property: ``ratio`` (median of true / predicted error), ``inside`` (fraction of the errors below their
        bounds), ``labels`` (number of configurations with a label), and ``error`` (root mean square error of the mean
        prediction; meV/atom, meV/Å, GPa).
    """
    summary = {}
    for name in PROPERTIES:
        rows = batch[batch[f"{name}_committee_error"].notna() & batch[f"{name}_expected"].gt(0)]
        if len(rows):
            error = rows[f"{name}_committee_error"]
            summary[name] = {
                "ratio": float((error / rows[f"{name}_expected"]).median()),
                "inside": float((error <= rows[f"{name}_bound"]).mean()),
                "labels": len(rows),
                # the number of force components is proportional to the number of atoms
                "error": float(
                    np.sqrt(np.average(rows[f"{name}_error"] ** 2, weights=rows["n_atoms"] ** (name == "forces")))
                ),
            }
    return summary


def format_batch(summary: dict[str, dict[str, float]]) -> str:
    """Format the summary of a batch as a phrase for the console; empty without a batch."""
    if not summary:
        return ""
    ratios = ", ".join(f"{name} {values['ratio']:.2g}" for name, values in summary.items())
    shares = ", ".join(f"{100 * values['inside']:.0f} %" for values in summary.values())
    n_labels = max(int(values["labels"]) for values in summary.values())
    return (
        f"; median ratio of true to predicted error of the {n_labels} new configurations: {ratios}; {shares} below the "
        f"{100 * BOUND_COVERAGE:.0f} % bound"
    )


def collect_points(
    folder: LearnFolder,
    k: int,
    training: TrainingResult,
    labelled: LabelledStructures,
    errors: CommitteeErrors,
    context: RunContext,
) -> pd.DataFrame:
    """Collect the points that calibrate the committee of iteration `k`.

    Parameters
    ----------
    folder : LearnFolder
        Contains ``batch_errors.csv`` of this and earlier iterations.
    k : int
    training : TrainingResult
    labelled : LabelledStructures
        All labelled configurations, in the order of the training data.
    errors : CommitteeErrors
        Errors of the committee on `labelled`.
    context : RunContext

    Returns
    -------
    DataFrame
        ``source, id, config_type, input, iteration, of`` (iteration of the committee), ``*_std, *_committee_error``.
    """
    table = errors.table.assign(of=k)
    tables = {HELD_OUT: [table[table["set"] != TRAIN]], CROSS_VALIDATION: [], NEW_BATCH: list(_read_batches(folder, k))}
    if training.cross_validation is not None:
        fold_errors = evaluate_cross_validation(training.cross_validation, labelled, context)
        if len(fold_errors):
            tables[CROSS_VALIDATION] = [table.loc[fold_errors.index, POINT_COLUMNS].join(fold_errors)]
    columns = [*POINT_COLUMNS, *VALUE_COLUMNS]
    rows = [part[columns].assign(source=source) for source, parts in tables.items() for part in parts if len(part)]
    points = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=[*columns, "source"])
    return points[["source", *columns]]


def read_points(iteration: IterationFolder) -> pd.DataFrame:
    """Read the calibration points that the training stage has written.

    Raises
    ------
    InputError
        If the file is missing, because an earlier version trained the committee of this iteration.
    """
    path = iteration.path / "calibration.csv"
    if not path.is_file():
        raise InputError(f"{path} is missing; remove {iteration.path / 'train.json'} to repeat the training")
    return pd.read_csv(path)


def _read_batches(folder: LearnFolder, k: int) -> Iterable[pd.DataFrame]:
    """Yield the errors of the batches that were labelled in iterations up to `k`."""
    for number in folder.list_iterations():
        path = folder.iteration(number).path / "batch_errors.csv"
        if number <= k and path.is_file():
            yield pd.read_csv(path).assign(of=number - 1)  # the previous committee chose and predicted the batch


def format_test_errors(rmse: dict[str, dict[str, float]]) -> str:
    """Format the test errors, unweighted and weighted as in the training; name the properties without labels."""
    parts = [
        f"{name} {errors['value']:.3g} ({errors['weighted']:.3g} weighted) {UNITS[name]}"
        for name, errors in rmse.items()
        if np.isfinite(errors["value"])
    ]
    missing_names = [name for name, errors in rmse.items() if not np.isfinite(errors["value"])]
    if not parts:
        return "no labels"
    return ", ".join(parts) + (f" (no labels of the {' and '.join(missing_names)})" if missing_names else "")
