"""Data for the interactive explorer of the page: every setting as a point, in a compact form.

The page (``explorer.html`` and ``explorer_script.html``, with plotly.js) filters, draws and recommends settings. This
module only converts a table to columns for JSON, and compresses plotly.js; a recommendation is a minimum over these
columns.
"""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import moocore
import numpy as np
import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from paretofit import pareto
from paretofit.pareto import BASIS_COLUMN, MD_COST_COLUMN
from paretofit.properties import get_property_name, is_property_error, list_property_units
from paretofit.report.answer import ERRORS, INTERVAL_PERCENT, Answer
from paretofit.report.figures import style
from paretofit.report.figures.axes import find_inliers
from paretofit.report.setting_yaml import format_base_study, list_label_levels
from paretofit.report.tables.summaries import OBJECTIVES, list_sampling_methods

QUANTITIES = {  # name and unit of each possible axis
    "ref_energy": ("energy error", "meV/atom"),
    "ref_energy_shifted": ("energy error, shifted", "meV/atom"),
    "ref_force": ("force error", "meV/Å"),
    "label_seconds": ("DFT cost", "s"),
    MD_COST_COLUMN: ("MD cost", "µs/atom/step"),
    "n_train": ("training configurations", ""),
}
MAX_SETTINGS = 20_000  # 1.3 MB on the page; a laptop computes their front in 0.1 s
_OTHER_COLUMNS = ["twojmax", "weight_ratio", "test_energy", "test_force", "n_features", "n_repeats"]
KNOT_STEP = 3  # every third of the numbers of configurations beyond the measured ones is a knot
_SIGNIFICANT_DIGITS = 7  # more than errors need, so that rounding does not change a minimum
_SYMBOLS = {  # symbol of plotly by marker of matplotlib
    "v": "triangle-down", "^": "triangle-up", "s": "square", "D": "diamond", "o": "circle", "P": "cross", "X": "x",
    "<": "triangle-left", ">": "triangle-right", "p": "pentagon", "h": "hexagon",
}  # fmt: skip


def build_explorer_data(
    points: pd.DataFrame,
    levels: Sequence[str],
    study: Mapping[str, Any] | None = None,
    answer: Answer | None = None,
    *,
    mixtures: pd.DataFrame | None = None,
    further_studies: Mapping[str, Mapping[str, Any]] | None = None,
    folder: str = "RUN",
    max_settings: int = MAX_SETTINGS,
) -> dict[str, Any]:
    """Convert settings to columns of numbers, with the names, colours and units of the page.

    Parameters
    ----------
    points : DataFrame, a row per setting
        From `paretofit.report.tables.compute_medians`: errors in meV/atom and meV/Å, ``label_seconds`` in s,
        ``md_us_per_atom_step`` in µs. Values that are not finite count as unknown.
    levels : names of the convergence levels in order of cost; the last is the reference
    study : settings of the study, as in its YAML file; with them, the page can give the complete YAML of a point
    answer : from `paretofit.report.find_answer`; with it, the page recommends what `paretofit plan` does, at first for
        the budget at the knee, and otherwise the best of the points
    mixtures : from `paretofit.report.tables.tabulate_mixtures`; by default none
    further_studies : settings of the studies of further bases, by the name in the column ``basis`` of the points
    folder : run folder in the command lines of the page
    max_settings : maximum number of settings; those with the highest Pareto rank within their level, model and sampling
        method are dropped

    Returns
    -------
    dict for JSON: ``columns`` (lists of equal length, None where unknown; ``level``, ``sampling`` and ``basis`` are
    indices of the lists ``levels``, ``samplings`` and ``bases``), ``levels``, ``samplings``, ``bases`` (empty if there
    is only one), ``quantities``, ``left_out`` (number of dropped settings), ``plan`` (from `_build_plan`), ``base``
    (for each basis and each level, YAML of the study without the keys that a point sets) and ``reference``.
    """
    levels, samplings = [str(level) for level in levels], list_sampling_methods(points)
    further_studies = further_studies or {}
    names = set(points[BASIS_COLUMN]) if BASIS_COLUMN in points else set()
    bases = [*sorted(names - set(further_studies)), *(name for name in further_studies if name in names)]
    rows = {} if mixtures is None else {row["level"]: row for _, row in mixtures.iterrows()}
    label_levels = {level: list_label_levels(rows[level]) if level in rows else [level] for level in levels}
    selected = _select_near_fronts(points.reset_index(drop=True), max_settings)
    units = list_property_units((study or {}).get("properties", []))
    errors = {name: get_property_name(name) for name in map(str, points) if is_property_error(name)}
    quantities = QUANTITIES | {name: (f"error of {error}", units.get(error, "")) for name, error in errors.items()}
    columns = {name: _round_values(selected[name]) for name in [*quantities, *_OTHER_COLUMNS]}
    columns["level"] = [levels.index(str(level)) for level in selected["level"]]
    columns["sampling"] = [samplings.index(sampling) for sampling in selected["sampling"]]
    if bases:
        columns["basis"] = [bases.index(basis) for basis in selected[BASIS_COLUMN]]
    return {
        "columns": columns,
        "levels": [
            _describe_level(level, levels) | {
                "labels": label_levels[level], "mixture": _describe_mixture(rows[level]) if level in rows else None
            } for level in levels
        ],
        "samplings": samplings,
        "bases": [{"name": name, "colour": style.level_colour(name, bases)} for name in bases],
        "quantities": {
            name: {"label": label, "unit": unit, "limit": _find_limit(name, points[name])}
            for name, (label, unit) in quantities.items()
        },
        "plan": None if answer is None else _build_plan(answer, levels, samplings, bases, set(points["n_train"])),
        "folder": folder,
        "left_out": len(points) - len(selected),
        "base": [] if study is None else [
            [format_base_study(settings, {*names, levels[-1]}) for names in label_levels.values()]
            for settings in (further_studies.get(basis, study) for basis in bases or [""])
        ],
        "reference": levels[-1],
    }  # fmt: skip


def _describe_level(level: str, levels: Sequence[str]) -> dict[str, Any]:
    colour, symbol = style.level_colour(level, levels), _SYMBOLS[style.level_marker(level, levels)]
    return {"name": level, "colour": colour, "symbol": symbol}


def embed_explorer_data(data: Mapping[str, Any]) -> dict[str, Markup]:
    """Encode the data and the library as text for ``<script>`` elements.

    Returns
    -------
    dict with ``data``, JSON without characters that could end the element, and ``plotly``, the library as base64 of
    gzip (2 MB instead of 5).
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))  # escapes all characters beyond ASCII
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return {"data": Markup(text), "plotly": Markup(_compress_library())}  # noqa: S704  (escaped above; base64)


@cache
def _compress_library() -> str:
    compressed = gzip.compress(get_plotlyjs().encode("utf-8"), mtime=0)  # no date, so that the bytes are reproducible
    return base64.b64encode(compressed).decode("ascii")


def _select_near_fronts(points: pd.DataFrame, max_rows: int) -> pd.DataFrame:
    """Select at most `max_rows` rows, with the lowest Pareto rank within their level, model and sampling method.

    The best setting for any choice of levels, models and methods is on the front of one such group, so recommendations
    do not change as long as `max_rows` is enough for all fronts.
    """
    if len(points) <= max_rows:
        return points
    values = points[OBJECTIVES].to_numpy(dtype=float)
    values = np.where(np.isfinite(values), values, np.inf)  # an unknown objective counts as the worst
    rank = np.zeros(len(points), dtype=int)
    for rows in points.groupby([*({BASIS_COLUMN} & {*points}), "twojmax", "level", "sampling"]).indices.values():
        rank[rows] = moocore.pareto_rank(values[rows])
    return points.iloc[np.sort(np.argsort(rank, kind="stable")[:max_rows])]


def _round_values(column: pd.Series) -> list[float | int | None]:
    """Round values, and convert whole numbers to int; None where a value is not finite."""
    rounded = [
        float(f"{value:.{_SIGNIFICANT_DIGITS}g}") if np.isfinite(value) else None for value in column.to_numpy(float)
    ]
    return [int(value) if value is not None and value.is_integer() else value for value in rounded]


def _find_limit(name: str, values: pd.Series) -> float | None:
    """Find the largest error that is not an outlier; None for quantities other than errors."""
    unit = QUANTITIES.get(name, ("", "error"))[1]  # errors of properties have outliers, too
    if "µs" in unit or unit in ("s", ""):
        return None
    errors = values.to_numpy(dtype=float)
    inliers = errors[find_inliers(errors)]
    return float(inliers.max()) if inliers.size else None


def _describe_mixture(row: pd.Series) -> dict[str, Any]:
    """Return the keys of a mixture in a study, without the number of configurations at its top level."""
    base, *middle, top = list_label_levels(row)
    keys: dict[str, Any] = {"base": base, "base_sizes": [int(row["n_base"])]}
    keys |= {"middle": middle[0], "middle_sizes": [int(row["n_middle"])]} if middle else {}
    return keys | {"top": top, "base_energy_weight": [float(row["base_energy_weight"])]}


def _build_plan(
    answer: Answer, levels: Sequence[str], samplings: Sequence[str], bases: Sequence[str], measured_sizes: set[int]
) -> dict[str, Any]:
    """Convert the options of the planner to knots, between which the page interpolates as the planner does.

    Returns
    -------
    dict for JSON: a list for each column of a setting, ``start`` (position of the first knot of each setting),
    ``knots`` (costs in s, expected errors and the ends of their intervals), ``knee`` (budget in s) and ``percent``.
    """
    # The cost of a mixture is known only at its measured sizes, so each size is a separate setting.
    options = answer.options.assign(size=answer.options["n_train"].where(pareto.find_mixtures(answer.options), 0))
    columns = [*pareto.list_setting_columns(options), "size"]
    names = ["level", "sampling", "twojmax", "weight_ratio", "start", *([BASIS_COLUMN] if bases else [])]
    plan: dict[str, Any] = {name: [] for name in names}
    tables: list[pd.DataFrame] = []
    for _, rows in options.groupby(columns, sort=False):
        first = rows.iloc[0]
        if str(first["sampling"]) not in samplings:
            continue
        plan["start"].append(sum(map(len, tables)))
        plan["level"].append(list(levels).index(str(first["level"])))
        plan["sampling"].append(list(samplings).index(str(first["sampling"])))
        plan["twojmax"].append(int(first["twojmax"]))
        if bases:
            plan[BASIS_COLUMN].append(list(bases).index(first[BASIS_COLUMN]))
        plan["weight_ratio"].append(float(f"{first['w_energy'] / first['w_force']:.6g}"))
        beyond = rows[rows["beyond"]]
        is_knot = rows["n_train"].isin(measured_sizes) | rows.index.isin(beyond.index[::-KNOT_STEP])
        tables.append(rows[is_knot])
    knots = pd.concat(tables)
    names = ["n_train", "label_seconds", *(f"{kind}{end}" for kind in ERRORS for end in ("", "_low", "_high"))]
    plan["knots"] = {name: _round_values(knots[name]) for name in names}
    plan["knots"]["beyond"] = [bool(value) for value in knots["beyond"]]
    return plan | {"knee": answer.knee, "percent": INTERVAL_PERCENT}
