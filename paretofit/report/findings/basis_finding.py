"""Finding on bases: which basis and 2Jmax has the lowest errors at which MD speed."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import moocore
import numpy as np
import pandas as pd

from paretofit.core import Array
from paretofit.pareto import BASIS_COLUMN, INTERVAL_COVERAGE, MD_COST_COLUMN, compute_sign_shares
from paretofit.report.findings.finding import Finding, FindingDots
from paretofit.report.paired_errors import (
    MIN_RELATIVE_CHANGE,
    MIN_SAMPLES,
    NO_CLEAR_DIFFERENCE,
    PairedErrors,
    compute_central_interval,
)
from paretofit.report.tables.summaries import ERROR_KINDS, SETTING, compute_weight_ratio
from paretofit.report.wording import format_number, format_ratio, join_items

QUESTION = "Which basis and 2Jmax have the lowest errors at which MD speed?"


class _Model(NamedTuple):
    """The best setting of a basis and 2Jmax at the reference level and the largest subset, and its samples."""

    setting: Mapping[Any, Any]
    samples: Mapping[str, Array]  # by error, (n_samples,); empty without further splits


def assess_bases(
    results: pd.DataFrame, reference: str, split_errors: Mapping[str, PairedErrors | None]
) -> Finding | None:
    """Compare the models of all bases at the reference level and the largest subset, each at its best weights.

    The best weights have the lowest product of both errors.

    Parameters
    ----------
    results : DataFrame, a row per fit, with the column ``basis``
    reference : name of the reference level
    split_errors : errors in further train/test splits by basis; they have the same splits and samples

    Returns
    -------
    Finding or None
        None with a single basis. ``numbers`` has a row for each basis and 2Jmax with its MD cost, the setting, its
        errors, their ratios to those of the best model, in further splits if there are any, with 90 % intervals, and
        whether it is on the front of the geometric mean of both errors and the MD cost.
    """
    rows = results[(results["level"].astype(str) == reference)]
    if rows.empty or rows[BASIS_COLUMN].nunique() < 2:
        return None
    models = _choose_models(rows[rows["n_train"] == rows["n_train"].max()], split_errors)
    numbers = pd.DataFrame([{name: model.setting[name] for name in _COLUMNS} for model in models])
    best = models[int(numbers["both"].argmin())]
    numbers = numbers.join(pd.DataFrame([_compare(best, model) for model in models]))
    points = numbers[["both", MD_COST_COLUMN]].to_numpy(dtype=float)
    is_known = np.isfinite(points).all(axis=1)
    on_front = pd.Series("unknown", index=numbers.index, dtype=object)
    if is_known.any():
        on_front[is_known] = np.where(moocore.is_nondominated(points[is_known]), "yes", "no")
    numbers["on_front"] = on_front
    groups = numbers[BASIS_COLUMN] + ", 2Jmax " + numbers["twojmax"].astype(str)
    columns = {kind: f"{kind}_to_lowest" for kind in ERROR_KINDS.values()}
    dots = FindingDots.collect(numbers, groups, columns, "error / that of the best model")
    return Finding("bases", QUESTION, "measured", _describe(numbers, best, reference), numbers=numbers, dots=dots)


FASTER_RATIO = 2.0  # MD speed of the model that is named beside the best one, relative to it
_COLUMNS = [BASIS_COLUMN, *SETTING, MD_COST_COLUMN, "ref_energy", "ref_force", "both"]


def _choose_models(rows: pd.DataFrame, split_errors: Mapping[str, PairedErrors | None]) -> list[_Model]:
    """Choose the best setting of each basis and 2Jmax; with further splits, errors are the medians of their samples."""
    table = rows.assign(weight_ratio=compute_weight_ratio(rows))
    medians = table.groupby([BASIS_COLUMN, *SETTING])[[*ERROR_KINDS, MD_COST_COLUMN]].median().reset_index()
    medians["both"] = np.sqrt(medians["ref_energy"] * medians["ref_force"])
    best: dict[tuple[Any, Any], _Model] = {}
    for setting in medians.dropna(subset="both").to_dict("records"):
        errors = split_errors.get(str(setting[BASIS_COLUMN]))
        samples = {} if errors is None else errors.collect_setting(setting)
        setting |= {name: float(np.median(samples[name])) for name in (*ERROR_KINDS, "both") if name in samples}
        key = setting[BASIS_COLUMN], setting["twojmax"]
        if key not in best or setting["both"] < best[key].setting["both"]:
            best[key] = _Model(setting, samples)
    return list(best.values())


def _compare(best: _Model, model: _Model) -> dict[str, Any]:
    """Divide the errors of a model by those of the best one: medians of paired samples, with their intervals."""
    row: dict[str, Any] = {}
    share = float("nan")
    for name, column in {**{kind: name for name, kind in ERROR_KINDS.items()}, "both": "both"}.items():
        ratio, low, high = model.setting[column] / best.setting[column], float("nan"), float("nan")
        if column in model.samples and column in best.samples and len(model.samples[column]) >= MIN_SAMPLES:
            ratios = model.samples[column] / best.samples[column]
            ratio, (low, high) = float(np.median(ratios)), compute_central_interval(ratios)
            share = float(compute_sign_shares(ratios[None], np.ones((1, len(ratios)))))
        row |= {f"{name}_to_lowest": ratio, f"{name}_to_lowest_low": low, f"{name}_to_lowest_high": high}
    is_clear = row["both_to_lowest"] > 1 + MIN_RELATIVE_CHANGE and share > (1 + INTERVAL_COVERAGE) / 2
    return row | {"verdict": "best" if model is best else "higher" if is_clear else NO_CLEAR_DIFFERENCE}


def _describe(numbers: pd.DataFrame, best: _Model, reference: str) -> str:
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
            f"; of those at least {FASTER_RATIO:g} times as fast, {_name_model(row)} has the lowest, "
            f"{format_number(100 * (row['both'] / best.setting['both'] - 1), 2)} % above it"
        )
    front = sorted((row for row in records if row["on_front"] == "yes"), key=lambda row: float(row[MD_COST_COLUMN]))
    costs = "; ".join(
        f"{format_number(row[MD_COST_COLUMN])} µs per atom and step: {_name_model(row)}, {_format_errors(row)}, "
        f"{format_number(100 * (row['both'] / best.setting['both'] - 1), 2)} % above the lowest"
        for row in front
    )
    front_text = f" On the front of these errors and the MD cost: {costs}." if front else ""
    unknown = list(dict.fromkeys(str(row[BASIS_COLUMN]) for row in records if row["on_front"] == "unknown"))
    front_text += f" The MD cost of {join_items(unknown)} is not known." if unknown else ""
    return (
        f"{text}.{front_text} All models were fitted to {int(best.setting['n_train'])} configurations at level "
        f"{reference}, each at its best weights; percentages are those of the geometric mean of both errors, in "
        "further train/test splits if there are any."
    )


def _name_model(row: Mapping[Any, Any]) -> str:
    return f"{row[BASIS_COLUMN]} at 2Jmax {int(row['twojmax'])}"


def _format_errors(row: Mapping[Any, Any]) -> str:
    return (
        f"{format_number(row['ref_energy'])} meV/atom and {format_number(row['ref_force'])} meV/Å at w_E/w_F = "
        f"{format_ratio(row['weight_ratio'])}"
    )
