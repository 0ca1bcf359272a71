"""Finding on bases: which basis and 2Jmax have the lowest errors, and at which MD speed."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import moocore
import numpy as np
import pandas as pd

from paretofit.core import Array
from paretofit.pareto import BASIS_COLUMN, INTERVAL_COVERAGE, MD_COST_COLUMN, compute_sign_shares
from paretofit.report.findings.finding import Finding, FindingDots
from paretofit.report.paired_errors import (
    MIN_DRAWS,
    MIN_RELATIVE_CHANGE,
    NO_CLEAR_DIFFERENCE,
    PairedErrors,
    compute_central_interval,
)
from paretofit.report.tables.summaries import ERROR_KINDS, SETTING, compute_weight_ratio
from paretofit.report.wording import format_number, format_ratio, join_items

QUESTION = "Which basis and 2Jmax have the lowest errors at which MD speed?"
FASTER_RATIO = 2.0  # MD speed relative to the best model; the best model that is at least as fast is also named
_COLUMNS = [BASIS_COLUMN, *SETTING, MD_COST_COLUMN, "ref_energy", "ref_force", "both"]  # columns of the numbers
# Column of a setting by the kind of error; "both" is the geometric mean of the energy and force errors.
_COLUMN_BY_KIND = {**{kind: column for column, kind in ERROR_KINDS.items()}, "both": "both"}


class _Model(NamedTuple):
    """Best setting of a basis and 2Jmax at the reference level and the largest subset.

    Attributes
    ----------
    setting : mapping
        Row with the columns `_COLUMNS`.
    samples : mapping of str to (n_samples,) float
        Errors in further train/test splits, by column; empty with fewer than `MIN_DRAWS` splits.
    """

    setting: Mapping[Any, Any]
    samples: Mapping[str, Array]


def assess_bases(
    results: pd.DataFrame, reference: str, split_errors: Mapping[str, PairedErrors | None]
) -> Finding | None:
    """Compare the models of all bases at the reference level and the largest subset, each with its best setting.

    The best setting of a model, which is a basis and 2Jmax, has the lowest product of energy and force errors.

    Parameters
    ----------
    results : DataFrame, a row per fit, with the column ``basis``
    reference : name of the reference level
    split_errors : errors in further train/test splits by basis, all in the same splits and samples

    Returns
    -------
    Finding or None
        ``numbers`` has a row for each model: its best setting, MD cost and errors (medians over further splits, if
        there are any); the ratios of its errors to those of the model with the lowest errors, with their 90 %
        intervals; and whether it is on the front of the geometric mean of both errors and the MD cost. None with a
        single basis, or without fits to the reference level.
    """
    rows = results[results["level"].astype(str) == reference]
    if rows.empty or rows[BASIS_COLUMN].nunique() < 2:
        return None
    models = _choose_models(rows[rows["n_train"] == rows["n_train"].max()], split_errors)
    numbers = pd.DataFrame([{name: model.setting[name] for name in _COLUMNS} for model in models])
    best = models[int(numbers["both"].argmin())]
    numbers = numbers.join(pd.DataFrame([_compare_to_best(best, model) for model in models]))
    points = numbers[["both", MD_COST_COLUMN]].to_numpy(dtype=float)
    is_known = np.isfinite(points).all(axis=1)
    front_answers = pd.Series("unknown", index=numbers.index, dtype=object)
    if is_known.any():
        front_answers[is_known] = np.where(moocore.is_nondominated(points[is_known]), "yes", "no")
    numbers["on_front"] = front_answers
    groups = numbers[BASIS_COLUMN] + ", 2Jmax " + numbers["twojmax"].astype(str)
    columns = {kind: f"{kind}_to_lowest" for kind in ERROR_KINDS.values()}
    dots = FindingDots.collect(numbers, groups, columns, "error / error of the best model")
    text = _describe_models(numbers, best, reference)
    return Finding("bases", QUESTION, "measured", text, numbers=numbers, dots=dots)


def _choose_models(rows: pd.DataFrame, split_errors: Mapping[str, PairedErrors | None]) -> list[_Model]:
    """Choose the best setting of each basis and 2Jmax.

    Errors are medians over repetitions or, in a basis with at least `MIN_DRAWS` further splits, over their samples.
    """
    table = rows.assign(weight_ratio=compute_weight_ratio(rows))
    medians = table.groupby([BASIS_COLUMN, *SETTING])[[*ERROR_KINDS, MD_COST_COLUMN]].median().reset_index()
    medians["both"] = np.sqrt(medians["ref_energy"] * medians["ref_force"])
    best_models: dict[tuple[Any, Any], _Model] = {}
    for setting in medians.dropna(subset="both").to_dict("records"):
        errors = split_errors.get(str(setting[BASIS_COLUMN]))
        has_splits = errors is not None and errors.n_splits >= MIN_DRAWS
        samples = errors.collect_setting_samples(setting) if errors and has_splits else {}
        setting |= {name: float(np.median(samples[name])) for name in (*ERROR_KINDS, "both") if name in samples}
        key = setting[BASIS_COLUMN], setting["twojmax"]
        if key not in best_models or setting["both"] < best_models[key].setting["both"]:
            best_models[key] = _Model(setting, samples)
    return list(best_models.values())


def _compare_to_best(best: _Model, model: _Model) -> dict[str, Any]:
    """Divide the errors of a model by those of the best one; return the ratios with a verdict.

    Ratios are medians of paired samples, with their intervals, or ratios of medians without samples.
    """
    row: dict[str, Any] = {}
    share_above = {}  # share of the paired samples in which the model has the larger error, by the kind of error
    for kind, column in _COLUMN_BY_KIND.items():
        ratio, low, high = model.setting[column] / best.setting[column], float("nan"), float("nan")
        if column in model.samples and column in best.samples:
            ratios = model.samples[column] / best.samples[column]
            ratio, (low, high) = float(np.median(ratios)), compute_central_interval(ratios)
            share_above[kind] = float(compute_sign_shares(ratios[None], np.ones((1, len(ratios)))))
        row |= {f"{kind}_to_lowest": ratio, f"{kind}_to_lowest_low": low, f"{kind}_to_lowest_high": high}
    is_often_above = share_above.get("both", 0.0) > (1 + INTERVAL_COVERAGE) / 2
    is_clear = is_often_above and row["both_to_lowest"] > 1 + MIN_RELATIVE_CHANGE
    return row | {"verdict": "best" if model is best else "higher" if is_clear else NO_CLEAR_DIFFERENCE}


def _describe_models(numbers: pd.DataFrame, best: _Model, reference: str) -> str:
    """Describe the best model, models without a clear difference from it, the best fast model, and the front."""
    records = [dict(row) for row in numbers.to_dict("records")]
    tied = [row for row in records if row["verdict"] == NO_CLEAR_DIFFERENCE]
    text = f"{_name_model(best.setting)} has the lowest errors ({_format_errors(best.setting)}"
    cost = float(best.setting[MD_COST_COLUMN])
    text += f", {format_number(cost)} µs per atom and step)" if np.isfinite(cost) else ")"
    if tied:
        text += f", with no clear difference from {join_items(_name_model(row) for row in tied)}"
    faster = [row for row in records if float(row[MD_COST_COLUMN]) <= cost / FASTER_RATIO]
    if faster:
        row = min(faster, key=lambda row: float(row["both"]))
        text += (
            f"; of the models that are at least {FASTER_RATIO:g} times as fast, {_name_model(row)} has the lowest "
            f"errors, {_format_excess(row, best)} larger"
        )
    front = sorted((row for row in records if row["on_front"] == "yes"), key=lambda row: float(row[MD_COST_COLUMN]))
    costs = "; ".join(
        f"{format_number(row[MD_COST_COLUMN])} µs per atom and step: {_name_model(row)}, {_format_errors(row)}, "
        f"{_format_excess(row, best)} above the lowest"
        for row in front
    )
    front_text = f" On the front of these errors and the MD cost: {costs}." if front else ""
    bases_without_cost = list(dict.fromkeys(str(row[BASIS_COLUMN]) for row in records if row["on_front"] == "unknown"))
    front_text += f" The MD cost of {join_items(bases_without_cost)} is not known." if bases_without_cost else ""
    return (
        f"{text}.{front_text} All models were fitted to {int(best.setting['n_train'])} configurations at level "
        f"{reference}, each at its best weights; percentages are those of the geometric mean of both errors, in "
        "further train/test splits if there are enough."
    )


def _name_model(row: Mapping[Any, Any]) -> str:
    """Name the basis and 2Jmax of a setting."""
    return f"{row[BASIS_COLUMN]} at 2Jmax {int(row['twojmax'])}"


def _format_excess(row: Mapping[Any, Any], best: _Model) -> str:
    """Format in percent by how much the geometric mean of both errors exceeds that of the best model."""
    return f"{format_number(100 * (row['both'] / best.setting['both'] - 1), 2)} %"


def _format_errors(row: Mapping[Any, Any]) -> str:
    """Format the errors and w_E/w_F of a setting."""
    return (
        f"{format_number(row['ref_energy'])} meV/atom and {format_number(row['ref_force'])} meV/Å at w_E/w_F = "
        f"{format_ratio(row['weight_ratio'])}"
    )
