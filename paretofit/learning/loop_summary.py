"""Answers at the top of a loop's page: whether the potential is good, for which kinds it is not, and what it cost."""

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
MAX_LISTED_KINDS = 4
MIN_CURVE_POINTS = 3  # number of iterations that an extrapolation to the next one requires
MIN_NAMED_CHANGE = 0.03  # relative change of an error, below which it did not change
MIN_WEIGHT_EFFECT = 0.05  # relative change of an error by the weights of configurations, above which they are mentioned


def read_tolerance(folder: LearnFolder) -> ToleranceSettings:
    """Read the tolerances from the record of the study; return the default tolerances if it is unreadable."""
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
        training set, outside it, and outside it with a stress label; errors (meV/atom, meV/Å, GPa) of those outside.
        The last row combines all kinds.
    """
    kinds = zip(errors["config_type"].fillna(""), errors["periodic"], strict=True)
    table = errors.assign(kind=[name_kind(*kind) for kind in kinds], input=errors["input"].fillna(""))
    rows = [
        {"kind": kind, "input": name, **_measure_kind(rows)} for (kind, name), rows in table.groupby(["kind", "input"])
    ]
    result = pd.DataFrame([*rows, {"kind": "all", "input": "", **_measure_kind(table)}])
    return result if result["input"].any() else result.drop(columns="input")


def _measure_kind(rows: pd.DataFrame) -> dict[str, float]:
    """Count the configurations of a kind, and compute the errors of those outside the training set."""
    held_out = rows[rows["set"] != TRAIN]
    counts = {
        "trained": len(rows) - len(held_out),
        "held_out": len(held_out),
        "stress_labels": int(held_out["stress_error"].notna().sum()),
    }
    errors = {}
    for name in PROPERTIES:
        labelled_rows = held_out[held_out[f"{name}_error"].notna()]
        # the number of force components is proportional to the number of atoms
        weights = labelled_rows["n_atoms"] if name == "forces" else pd.Series(1.0, index=labelled_rows.index)
        square = (weights * labelled_rows[f"{name}_error"] ** 2).sum() / max(weights.sum(), 1)
        errors[name] = float(np.sqrt(square)) if len(labelled_rows) else np.nan
    return counts | errors


def read_last_errors(folder: LearnFolder) -> pd.DataFrame:
    """Read ``errors.csv`` of the last committee; an iteration must have trained a committee."""
    last_iteration = max(k for k, _ in folder.read_records("train"))
    return pd.read_csv(folder.iteration(last_iteration).path / "errors.csv")


def build_facts(folder: LearnFolder, iterations: pd.DataFrame) -> list[tuple[str, str]]:
    """Build the questions and answers at the top of the page; an iteration must have trained a committee.

    Parameters
    ----------
    folder : LearnFolder
    iterations : DataFrame
        Table of ``iterations.csv``.
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
    """Compare the errors of the first and the last committee, as a sentence or two.

    The first compares them on the first test set, which is the same in all iterations. The second, if there are two
    batches of new frames of the dynamics, compares the errors on these frames before the training on them; it comes
    first where errors on the test set rose, because this set has none of the structures that the loop has added. Errors
    on the other sets are not compared: these sets grow by frames with large predicted errors.
    """
    pairs = {name: [_get_weighted(records[k][1], name) for k in (0, -1)] for name in PROPERTIES}
    if len(records) < 2 or not (texts := list(_describe_changes(pairs))):
        return ""
    progress = f"On the first test set, which is the same in all iterations, {join_items(texts)}"
    batches = [(k, record["batch"]) for k, record in records if record.get("batch")]
    frame_pairs = {name: [batch.get(name, {}).get("error") for _, batch in batches] for name in PROPERTIES}
    frame_texts = list(_describe_changes(frame_pairs)) if len(batches) > 1 else []
    if not frame_texts:
        return f"{progress}."
    dynamics = (
        f"On new frames of its dynamics, before the training on them, {join_items(frame_texts)}, from iteration "
        f"{batches[0][0]} to {batches[-1][0]}."
    )
    if any(" rose " in text for text in texts):
        return f"{dynamics} {progress}; this set has only structures of the beginning."
    return f"{progress}. {dynamics}"


def _describe_changes(errors: Mapping[str, list[float | None]]) -> Iterator[str]:
    """Describe the change from the first to the last error of each property; unknown errors are left out."""
    for name, values in errors.items():
        first, last = (values[0], values[-1]) if values else (None, None)
        if first and last and np.isfinite([first, last]).all():
            change = f"from {format_number(first)} to {format_number(last)} {UNITS[name]}"
            yield f"the {name} error {_name_change(last / first)} ({change})"


def _name_change(ratio: float) -> str:
    """Name the change of an error by a factor, such as ``"halved"``, ``"fell by 20 %"`` or ``"did not change"``."""
    if abs(ratio - 1) < MIN_NAMED_CHANGE:
        return "did not change"
    if ratio <= 1 / 3:
        return f"fell by a factor of {format_number(1 / ratio, 2)}"
    if abs(ratio - 0.5) < MIN_NAMED_CHANGE:
        return "halved"
    return f"{'fell' if ratio < 1 else 'rose'} by {100 * abs(ratio - 1):.0f} %"


def _describe_quality(record: Mapping[str, Any], tolerance: ToleranceSettings) -> str:
    """Compare the errors on the first test set, weighted as in the training, with the tolerances."""
    rmse = record["rmse"].get(FIRST_TEST, {})
    texts, properties_above, unknown_properties, is_weighted = [], [], [], False
    for name in PROPERTIES:
        values, limit = rmse.get(name, {"value": None}), getattr(tolerance, name)
        if values["value"] is None or not np.isfinite(values["value"]):
            unknown_properties.append(name)
            continue
        error = values.get("weighted", values["value"])
        if error > limit:
            properties_above.append(name)
        is_weighted |= abs(error / values["value"] - 1) > MIN_WEIGHT_EFFECT if values["value"] else False
        texts.append(
            f"{name} {format_number(error)} {UNITS[name]} (tolerance {format_number(limit)}, "
            f"{values.get('labels', 0)} labels)"
        )
    if not texts:
        return "This is not known: the test set of the first iteration has no labels."
    verdict = f"Not yet for {join_items(properties_above)}" if properties_above else "Yes, within the tolerances"
    missing_text = (
        f" Nothing is known about the {join_items(unknown_properties)}: no configuration of this set has such a label "
        "(stresses require three periodic directions)."
        if unknown_properties
        else ""
    )
    return (
        f"{verdict}. Errors on the test set of the first iteration, the same in all: {'; '.join(texts)}.{missing_text}"
        + (
            " Structures far above equilibrium, and with large forces, count less than others, as in the training "
            "('learning.model.downweight')."
            if is_weighted
            else ""
        )
    )


def _describe_kinds(table: pd.DataFrame, tolerance: ToleranceSettings) -> str:
    """Name the kinds with errors above tolerance, the worst first, and those with too few held-out configurations."""
    kinds = table[table["kind"] != "all"]
    ratios = pd.DataFrame({name: kinds[name] / getattr(tolerance, name) for name in PROPERTIES})
    worst_ratios = ratios[ratios.gt(1).any(axis=1)].max(axis=1).sort_values(ascending=False)
    kind_texts = []
    for index in worst_ratios.index[:MAX_LISTED_KINDS]:
        values = [f"{name} {format_number(kinds[name][index])} {UNITS[name]}" for name in PROPERTIES
                  if ratios[name][index] > 1]  # fmt: skip
        kind_texts.append(f"{kinds['kind'][index]} ({', '.join(values)}; {kinds['held_out'][index]} held out)")
    remainder_text = (
        f"; and {len(worst_ratios) - MAX_LISTED_KINDS} more" if len(worst_ratios) > MAX_LISTED_KINDS else ""
    )
    text = f"Above tolerance: {'; '.join(kind_texts)}{remainder_text}." if kind_texts else "No kind is above tolerance."
    unknown_kinds = kinds.loc[
        (kinds["held_out"] < MIN_KIND_SIZE) & ~kinds.index.isin(worst_ratios.index), "kind"
    ].tolist()
    return text + (f" Not known, with fewer than {MIN_KIND_SIZE} held-out configurations: {join_items(unknown_kinds)}."
                   if unknown_kinds else "")  # fmt: skip


def describe_batch(records: list[tuple[int, dict[str, Any]]]) -> str:
    """Compare predicted and true errors of the last batch of new frames, in a sentence for the report."""
    batches = [(k, record["batch"]) for k, record in records if record.get("batch")]
    if not batches:
        return "This is not known yet: no frames with predicted errors have been labelled."
    k, summary = batches[-1]
    texts = [
        f"{name}: {values['ratio']:.2f} times the predicted error (median), {100 * values['inside']:.0f} % below "
        f"the {100 * BOUND_COVERAGE:.0f} % bound"
        for name, values in summary.items()
    ]
    n_labels = max(int(values["labels"]) for values in summary.values())
    return (
        f"True errors of the {n_labels} frames labelled in iteration {k}, before training on them: {'; '.join(texts)}."
    )


def _describe_cost(iterations: pd.DataFrame) -> str:
    labels, seconds = int(iterations["labels"].sum()), float(iterations["label_seconds"].sum())
    text = f"{labels} labels, {format_duration(seconds)} of CPU time for them"
    if "wall_seconds" in iterations:
        text += f"; {format_duration(float(iterations['wall_seconds'].sum()))} of wall time for all stages together"
    return f"{text}, in {len(iterations)} iterations."


def _describe_next(records: list[tuple[int, dict[str, Any]]], iterations: pd.DataFrame) -> str:
    """Extrapolate the learning curve on the first test set by one more batch, of the mean size after iteration 1."""
    if len(records) < MIN_CURVE_POINTS:
        return f"This is not known from fewer than {MIN_CURVE_POINTS} iterations."
    n_last = int(records[-1][1]["counts"][TRAIN])
    n_new = int(iterations["labels"].iloc[1:].mean())
    texts = list(_extrapolate(records, n_last, n_new))
    if not texts:
        return "This is not known: errors on the test set of the first iteration have not fallen, or have no labels."
    return (
        f"With {n_new} more labels, {'; '.join(texts)}, if the errors on the test set of the first iteration go on "
        "falling as in the last iterations (power law)."
    )


def _extrapolate(records: list[tuple[int, dict[str, Any]]], n_last: int, n_new: int) -> Iterator[str]:
    for name in PROPERTIES:
        history = [(int(record["counts"][TRAIN]), _get_weighted(record, name)) for _, record in records]
        points = [(n, error) for n, error in history if error is not None and np.isfinite(error) and error > 0]
        if len(points) < MIN_CURVE_POINTS or points[-1][1] >= points[0][1]:
            continue
        exponent, error = fit_learning_exponent(points), points[-1][1]
        expected_error = error * (n_last / (n_last + n_new)) ** exponent
        yield f"{name} {format_number(expected_error)} instead of {format_number(error)} {UNITS[name]}"


def _get_weighted(record: Mapping[str, Any], name: str) -> float | None:
    """Return the error of a property on the first test set, weighted as in the training if this error is recorded."""
    values = record["rmse"][FIRST_TEST][name]
    error: float | None = values.get("weighted", values["value"])
    return error
