"""Answers at the top of a loop's page: whether the potential is good, for which kinds it is not, and what it cost.

`records` are the numbers of the iterations that trained a committee, each with the record of its stage "train".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from paretofit.learning.evaluation import FIRST_TEST
from paretofit.learning.learn_settings import ToleranceSettings
from paretofit.learning.level_choice import fit_learning_exponent
from paretofit.learning.loop_folder import LearnFolder
from paretofit.learning.selection import BOUND_COVERAGE, PROPERTIES, UNITS
from paretofit.learning.set_balance import TRAIN
from paretofit.learning.sets import name_kind
from paretofit.report import format_duration, format_number, join_items

MIN_KIND_SIZE = 3  # number of held-out configurations of a kind below which its errors are not evaluated
MAX_LISTED_KINDS = 4  # number of kinds above tolerance that are named
MIN_CURVE_POINTS = 3  # number of iterations that an extrapolation to the next one requires
MIN_NAMED_CHANGE = 0.03  # relative change of an error; a smaller change is described as no change
MIN_WEIGHT_EFFECT = 0.05  # relative difference of weighted and unweighted errors, above which the weights are mentioned


def read_tolerance(folder: LearnFolder) -> ToleranceSettings:
    """Read the tolerances from ``study.json``; return the default tolerances if the file is missing or invalid."""
    try:
        study = json.loads((folder.path / "study.json").read_text(encoding="utf-8"))
        return ToleranceSettings.model_validate(study["learning"]["select"]["tolerance"])
    except (OSError, ValueError, KeyError):
        return ToleranceSettings()


def tabulate_errors_by_kind(errors: pd.DataFrame) -> pd.DataFrame:
    """Tabulate root mean square errors of held-out configurations by kind and, if known, input.

    Parameters
    ----------
    errors : DataFrame
        Table of ``errors.csv``.

    Returns
    -------
    DataFrame
        ``kind, input, trained, held_out, stress_labels, energy, forces, stress``: numbers of configurations in the
        training set, outside it, and outside it with a stress label; errors (meV/atom, meV/Å, GPa) outside the training
        set, NaN without labels. The last row combines all kinds. ``input`` is missing if no input is known.
    """
    kinds = [
        name_kind(config_type, n_periodic)
        for config_type, n_periodic in zip(errors["config_type"].fillna(""), errors["periodic"], strict=True)
    ]
    errors = errors.assign(kind=kinds, input=errors["input"].fillna(""))
    rows = [
        {"kind": kind, "input": input_name, **_measure_kind(kind_errors)}
        for (kind, input_name), kind_errors in errors.groupby(["kind", "input"])
    ]
    table = pd.DataFrame([*rows, {"kind": "all", "input": "", **_measure_kind(errors)}])
    return table if table["input"].any() else table.drop(columns="input")


def _measure_kind(errors: pd.DataFrame) -> dict[str, float]:
    """Count the configurations of a kind, and compute the errors outside the training set.

    `errors` contains the rows of ``errors.csv`` of the kind; the result has the columns of `tabulate_errors_by_kind`.
    """
    held_out = errors[errors["set"] != TRAIN]
    counts = {
        "trained": len(errors) - len(held_out),
        "held_out": len(held_out),
        "stress_labels": int(held_out["stress_error"].notna().sum()),
    }
    rmse = {}
    for name in PROPERTIES:
        labelled_rows = held_out[held_out[f"{name}_error"].notna()]
        # the number of force components is proportional to the number of atoms
        weights = labelled_rows["n_atoms"] if name == "forces" else pd.Series(1.0, index=labelled_rows.index)
        mean_square = (weights * labelled_rows[f"{name}_error"] ** 2).sum() / max(weights.sum(), 1)
        rmse[name] = float(np.sqrt(mean_square)) if len(labelled_rows) else np.nan
    return counts | rmse


def read_last_errors(folder: LearnFolder) -> pd.DataFrame:
    """Read ``errors.csv`` of the last committee; an iteration must have trained a committee.

    Raises
    ------
    InputError
        If a record of a training is corrupt.
    """
    last_iteration = max(number for number, _ in folder.read_records("train"))
    return pd.read_csv(folder.get_iteration(last_iteration).path / "errors.csv")


def build_facts(folder: LearnFolder, iterations: pd.DataFrame) -> list[tuple[str, str]]:
    """Build the questions and answers at the top of the page; an iteration must have trained a committee.

    Parameters
    ----------
    folder : LearnFolder
    iterations : DataFrame
        Table of ``iterations.csv``.

    Raises
    ------
    InputError
        If a record of a training is corrupt.
    """
    tolerance, errors = read_tolerance(folder), read_last_errors(folder)
    records = list(folder.read_records("train"))
    progress = describe_progress(records)
    return [
        *([("What has the loop achieved?", progress)] if progress else []),
        ("Is the potential good?", _describe_quality(records[-1][1], tolerance)),
        ("For which kinds is it not?", _describe_kinds(tabulate_errors_by_kind(errors.assign(input="")), tolerance)),
        ("Are its predicted errors right?", describe_batch(records)),
        ("What did it cost?", _describe_cost(iterations)),
        ("How much would another iteration lower the errors?", _describe_next(records, iterations)),
    ]


def describe_progress(records: list[tuple[int, dict[str, Any]]]) -> str:
    """Compare the errors of the first and the last committee in one or two sentences.

    One sentence compares the errors on the first test set, which is the same in all iterations. If there are two
    batches of new frames of the dynamics, another sentence compares the errors on these frames before the training on
    them. This sentence comes first if an error on the test set rose, because this set has none of the structures that
    the loop has added. Errors on the other sets are not compared, because these sets grow by frames with large
    predicted errors. The text is empty if there are fewer than two committees or no errors.
    """
    if len(records) < 2:
        return ""
    first_record, last_record = records[0][1], records[-1][1]
    test_errors = {
        name: [_get_test_error(record, name) for record in (first_record, last_record)] for name in PROPERTIES
    }
    changes = list(_describe_changes(test_errors))
    if not changes:
        return ""
    progress = f"On the first test set, which is the same in all iterations, {join_items(changes)}"
    batches = [(number, record["batch"]) for number, record in records if record.get("batch")]
    frame_errors = {name: [batch.get(name, {}).get("error") for _, batch in batches] for name in PROPERTIES}
    frame_changes = list(_describe_changes(frame_errors)) if len(batches) > 1 else []
    if not frame_changes:
        return f"{progress}."
    frame_progress = (
        f"On new frames of its dynamics, before the training on them, {join_items(frame_changes)}, from iteration "
        f"{batches[0][0]} to {batches[-1][0]}."
    )
    if any(" rose " in change for change in changes):
        return f"{frame_progress} {progress}; this set has only structures of the first iteration."
    return f"{progress}. {frame_progress}"


def _describe_changes(errors: Mapping[str, list[float | None]]) -> Iterator[str]:
    """Describe the change from the first to the last error of each property, unless one of them is unknown or zero."""
    for name, history in errors.items():
        first_error, last_error = (history[0], history[-1]) if history else (None, None)
        if first_error and last_error and np.isfinite([first_error, last_error]).all():
            change = f"from {format_number(first_error)} to {format_number(last_error)} {UNITS[name]}"
            yield f"the {name} error {_name_change(last_error / first_error)} ({change})"


def _name_change(ratio: float) -> str:
    """Name the change of an error by a factor `ratio`, such as "halved", "fell by 20 %" or "did not change"."""
    if abs(ratio - 1) < MIN_NAMED_CHANGE:
        return "did not change"
    if ratio <= 1 / 3:
        return f"fell by a factor of {format_number(1 / ratio, 2)}"
    if abs(ratio - 0.5) < MIN_NAMED_CHANGE:
        return "halved"
    return f"{'fell' if ratio < 1 else 'rose'} by {100 * abs(ratio - 1):.0f} %"


def _describe_quality(record: Mapping[str, Any], tolerance: ToleranceSettings) -> str:
    """Describe in a few sentences whether the errors on the first test set are within the tolerances.

    The errors are weighted as in the training; `record` is that of the last training.
    """
    rmse = record["rmse"].get(FIRST_TEST, {})
    error_texts, properties_above, unknown_properties, has_weight_effect = [], [], [], False
    for name in PROPERTIES:
        errors, limit = rmse.get(name, {"value": None}), getattr(tolerance, name)
        unweighted_error = errors["value"]
        if unweighted_error is None or not np.isfinite(unweighted_error):
            unknown_properties.append(name)
            continue
        error = errors.get("weighted", unweighted_error)
        if error > limit:
            properties_above.append(name)
        if unweighted_error and abs(error / unweighted_error - 1) > MIN_WEIGHT_EFFECT:
            has_weight_effect = True
        error_texts.append(
            f"{name} {format_number(error)} {UNITS[name]} (tolerance {format_number(limit)}, "
            f"{errors.get('labels', 0)} labels)"
        )
    if not error_texts:
        return "This is not known: the test set of the first iteration has no labels."
    verdict = f"Not yet for {join_items(properties_above)}" if properties_above else "Yes, within the tolerances"
    missing_text = (
        f" Nothing is known about the {join_items(unknown_properties)}: no configuration of this set has such a label "
        "(stresses require three periodic directions)."
        if unknown_properties
        else ""
    )
    return (
        f"{verdict}. Errors on the test set of the first iteration, which is the same in all iterations: "
        f"{'; '.join(error_texts)}.{missing_text}"
        + (
            " Structures far above equilibrium, and with large forces, count less than others, as in the training "
            "('learning.model.downweight')."
            if has_weight_effect
            else ""
        )
    )


def _describe_kinds(table: pd.DataFrame, tolerance: ToleranceSettings) -> str:
    """Name the kinds with errors above tolerance, the worst first, and the kinds with too few held-out configurations.

    At most `MAX_LISTED_KINDS` kinds above tolerance are named; the others are counted. `table` is that of
    `tabulate_errors_by_kind`.
    """
    kinds = table[table["kind"] != "all"]
    ratios = pd.DataFrame({name: kinds[name] / getattr(tolerance, name) for name in PROPERTIES})
    worst_ratios = ratios[ratios.gt(1).any(axis=1)].max(axis=1).sort_values(ascending=False)
    kind_texts = []
    for index in worst_ratios.index[:MAX_LISTED_KINDS]:
        errors_above = [f"{name} {format_number(kinds[name][index])} {UNITS[name]}" for name in PROPERTIES
                        if ratios[name][index] > 1]  # fmt: skip
        kind_texts.append(f"{kinds['kind'][index]} ({', '.join(errors_above)}; {kinds['held_out'][index]} held out)")
    remainder_text = (
        f"; and {len(worst_ratios) - MAX_LISTED_KINDS} more" if len(worst_ratios) > MAX_LISTED_KINDS else ""
    )
    text = f"Above tolerance: {'; '.join(kind_texts)}{remainder_text}." if kind_texts else "No kind is above tolerance."
    is_unknown = (kinds["held_out"] < MIN_KIND_SIZE) & ~kinds.index.isin(worst_ratios.index)
    unknown_kinds = kinds.loc[is_unknown, "kind"].tolist()
    if unknown_kinds:
        text += f" Not known, with fewer than {MIN_KIND_SIZE} held-out configurations: {join_items(unknown_kinds)}."
    return text


def describe_batch(records: list[tuple[int, dict[str, Any]]]) -> str:
    """Compare predicted and true errors of the last batch of new frames, in a sentence for the report."""
    batches = [(number, record["batch"]) for number, record in records if record.get("batch")]
    if not batches:
        return "This is not known yet: no frames with predicted errors have been labelled."
    number, batch_summary = batches[-1]
    comparisons = [
        f"{name}: {summary['ratio']:.2f} times the predicted error (median), {100 * summary['inside']:.0f} % below "
        f"the {100 * BOUND_COVERAGE:.0f} % bound"
        for name, summary in batch_summary.items()
    ]
    n_labels = max(int(summary["labels"]) for summary in batch_summary.values())
    return (
        f"True errors of the {n_labels} frames labelled in iteration {number}, before training on them: "
        f"{'; '.join(comparisons)}."
    )


def _describe_cost(iterations: pd.DataFrame) -> str:
    """Describe the CPU time of the labels and, if recorded, the wall time of all stages."""
    n_labels, seconds = int(iterations["labels"].sum()), float(iterations["label_seconds"].sum())
    text = f"{n_labels} labels, which took {format_duration(seconds)} of CPU time"
    if "wall_seconds" in iterations:
        text += f"; {format_duration(float(iterations['wall_seconds'].sum()))} of wall time for all stages together"
    return f"{text}, in {len(iterations)} iterations."


def _describe_next(records: list[tuple[int, dict[str, Any]]], iterations: pd.DataFrame) -> str:
    """Describe the extrapolation of the errors on the first test set to one more batch of labels.

    The size of this batch is the mean number of labels of an iteration after the first one.
    """
    if len(records) < MIN_CURVE_POINTS:
        return f"This is not known from fewer than {MIN_CURVE_POINTS} iterations."
    n_last = int(records[-1][1]["counts"][TRAIN])
    n_new = int(iterations["labels"].iloc[1:].mean())
    predictions = list(_extrapolate(records, n_last, n_new))
    if not predictions:
        return "This is not known: errors on the test set of the first iteration have not fallen, or have no labels."
    return (
        f"With {n_new} more labels, {'; '.join(predictions)}, if the errors on the test set of the first iteration "
        "continue to fall as in the last iterations (power law)."
    )


def _extrapolate(records: list[tuple[int, dict[str, Any]]], n_last: int, n_new: int) -> Iterator[str]:
    """Describe the expected error of each property for `n_new` labels more than the `n_last` of the last training set.

    Properties are omitted if too few of their errors are known, or if their errors have not fallen.
    """
    for name in PROPERTIES:
        history = [(int(record["counts"][TRAIN]), _get_test_error(record, name)) for _, record in records]
        known_points = [
            (size, error) for size, error in history if error is not None and np.isfinite(error) and error > 0
        ]
        if len(known_points) < MIN_CURVE_POINTS:
            continue
        first_error, last_error = known_points[0][1], known_points[-1][1]
        if last_error >= first_error:
            continue
        expected_error = last_error * (n_last / (n_last + n_new)) ** fit_learning_exponent(known_points)
        yield f"{name} {format_number(expected_error)} instead of {format_number(last_error)} {UNITS[name]}"


def _get_test_error(record: Mapping[str, Any], name: str) -> float | None:
    """Return the error of a property on the first test set, weighted as in the training if this error is recorded.

    The error is None or NaN without labels.
    """
    errors = record["rmse"][FIRST_TEST][name]
    error: float | None = errors.get("weighted", errors["value"])
    return error
