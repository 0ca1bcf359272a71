"""Errors of a committee on labelled configurations that it was not trained on: calibration points and new batches.

A batch consists of the frames that one iteration selected and the next one labelled. Calibration points have three
sources: configurations of the training set, each predicted by a committee that was trained without its fold
(`CROSS_VALIDATION`, linear models only); validation and test sets (`HELD_OUT`); and the frames of each batch, predicted
by the committee that chose them (`NEW_BATCH`). Errors are in meV/atom, meV/Å and GPa.
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

# "iteration": iteration that labelled the configuration; "of": iteration whose committee predicted it
POINT_COLUMNS = ["id", "config_type", "input", "iteration", "of"]
VALUE_COLUMNS = [f"{name}_{suffix}" for name in PROPERTIES for suffix in ("std", "committee_error")]


def tabulate_configurations(training_data: TrainingData, weights: Array | float = 1.0) -> pd.DataFrame:
    """Tabulate the labelled configurations, in the order of the training data.

    Parameters
    ----------
    training_data : TrainingData
    weights : (n,) float64 or float
        Weights of the rows of the configurations in the training.

    Returns
    -------
    DataFrame
        ``id, set, iteration, level, config_type, input, weight``: the iteration that added the configuration, and the
        level of its label; the kind (``config_type``) and the input are empty if unknown.
    """
    info_records = training_data.dataset.info_records
    return pd.DataFrame({
        "id": training_data.dataset.ids,
        "set": training_data.sets,
        "iteration": training_data.iteration,
        "level": training_data.level,
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
        The frames with their labels, on the energy scale of the best level.
    configuration_table : DataFrame
        Rows of `tabulate_configurations` for these frames, in the same order.
    context : RunContext

    Returns
    -------
    DataFrame
        Columns of `CommitteeErrors.table`, and for each property ``*_expected`` and ``*_bound`` (predicted error and
        its upper bound); NaN if unknown, or if only a part of the frame was labelled.
    """
    table = evaluate_committee(committee, labelled, configuration_table, context).table
    predicted_columns = [f"{name}_{suffix}" for name in PROPERTIES for suffix in ("expected", "bound")]
    path = previous_iteration.path / "frames.csv"
    frames = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    if "config_id" not in frames:
        return table.assign(**dict.fromkeys(predicted_columns, np.nan))
    # errors were predicted for whole frames, and do not apply to a part that was cut out of a frame; in files without
    # the column "atoms_to_label", all frames are whole
    is_whole = frames.get("atoms_to_label", frames.get("atoms")) == frames.get("atoms")
    labelled_frames = frames[frames["config_id"].notna() & is_whole].set_index("config_id")
    return table.join(labelled_frames.reindex(columns=predicted_columns), on="id")


def summarise_batch(batch: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Summarise the table of `evaluate_batch` by property; properties without labels or predicted errors are omitted.

    Returns
    -------
    dict of str to dict
        By property: ``ratio`` (median of true / predicted error of the members), ``inside`` (fraction of these errors
        within their bounds), ``labels`` (number of configurations with a label and a predicted error), and ``error``
        (root mean square error of the mean prediction; meV/atom, meV/Å, GPa).
    """
    summary = {}
    for name in PROPERTIES:
        rows = batch[batch[f"{name}_committee_error"].notna() & batch[f"{name}_expected"].gt(0)]
        if len(rows):
            error = rows[f"{name}_committee_error"]
            # the number of force components is proportional to the number of atoms
            weights = rows["n_atoms"] if name == "forces" else np.ones(len(rows))
            summary[name] = {
                "ratio": float((error / rows[f"{name}_expected"]).median()),
                "inside": float((error <= rows[f"{name}_bound"]).mean()),
                "labels": len(rows),
                "error": float(np.sqrt(np.average(rows[f"{name}_error"] ** 2, weights=weights))),
            }
    return summary


def format_batch(summary: dict[str, dict[str, float]]) -> str:
    """Format the summary of a batch as a phrase for the console; return an empty string for an empty summary."""
    if not summary:
        return ""
    ratios = ", ".join(f"{name} {statistics['ratio']:.2g}" for name, statistics in summary.items())
    shares = ", ".join(f"{100 * statistics['inside']:.0f} %" for statistics in summary.values())
    n_labels = max(int(statistics["labels"]) for statistics in summary.values())
    return (
        f"; median ratio of true to predicted error of the {n_labels} new configurations: {ratios}; {shares} below the "
        f"{100 * BOUND_COVERAGE:.0f} % bound"
    )


def collect_points(
    folder: LearnFolder,
    iteration_number: int,
    training: TrainingResult,
    labelled: LabelledStructures,
    errors: CommitteeErrors,
    context: RunContext,
) -> pd.DataFrame:
    """Collect the points that calibrate the committee of an iteration.

    Parameters
    ----------
    folder : LearnFolder
        Contains ``batch_errors.csv`` of this and earlier iterations.
    iteration_number : int
    training : TrainingResult
        Training of this iteration, with the committees of the cross-validation if there are any.
    labelled : LabelledStructures
        All labelled configurations, in the order of the training data.
    errors : CommitteeErrors
        Errors of the committee on `labelled`.
    context : RunContext

    Returns
    -------
    DataFrame
        ``source``, `POINT_COLUMNS`, and by property ``*_std`` (disagreement) and ``*_committee_error``.
    """
    table = errors.table.assign(of=iteration_number)
    tables = {
        HELD_OUT: [table[table["set"] != TRAIN]],
        CROSS_VALIDATION: [],
        NEW_BATCH: list(_read_batches(folder, iteration_number)),
    }
    if training.cross_validation is not None:
        fold_errors = evaluate_cross_validation(training.cross_validation, labelled, context)
        if len(fold_errors):
            tables[CROSS_VALIDATION] = [table.loc[fold_errors.index, POINT_COLUMNS].join(fold_errors)]
    columns = [*POINT_COLUMNS, *VALUE_COLUMNS]
    point_tables = [
        source_table[columns].assign(source=source)
        for source, source_tables in tables.items()
        for source_table in source_tables
        if len(source_table)
    ]
    if not point_tables:
        return pd.DataFrame(columns=["source", *columns])
    return pd.concat(point_tables, ignore_index=True)[["source", *columns]]


def read_points(iteration: IterationFolder) -> pd.DataFrame:
    """Read the calibration points that the training stage of an iteration wrote to ``calibration.csv``.

    Raises
    ------
    InputError
        If the file is missing, because an earlier version trained the committee of this iteration.
    """
    path = iteration.path / "calibration.csv"
    if not path.is_file():
        raise InputError(f"{path} is missing; remove {iteration.path / 'train.json'} to repeat the training")
    return pd.read_csv(path)


def _read_batches(folder: LearnFolder, last_number: int) -> Iterable[pd.DataFrame]:
    """Yield the errors of each batch that was labelled in an iteration up to `last_number`."""
    for number in folder.list_iterations():
        path = folder.get_iteration(number).path / "batch_errors.csv"
        if number <= last_number and path.is_file():
            yield pd.read_csv(path).assign(of=number - 1)  # the previous committee chose and predicted the batch


def format_test_errors(rmse: dict[str, dict[str, float]]) -> str:
    """Format the errors on the test set as a phrase for the console, and name the properties without labels.

    Parameters
    ----------
    rmse : dict of str to dict
        Errors on the test set by property, as in `CommitteeErrors`.
    """
    error_texts = [
        f"{name} {errors['value']:.3g} ({errors['weighted']:.3g} weighted) {UNITS[name]}"
        for name, errors in rmse.items()
        if np.isfinite(errors["value"])
    ]
    missing_names = [name for name, errors in rmse.items() if not np.isfinite(errors["value"])]
    if not error_texts:
        return "no labels"
    return ", ".join(error_texts) + (f" (no labels of the {' and '.join(missing_names)})" if missing_names else "")
