"""Data for the interactive explorer of the page: every setting as a point, in a compact form.

The page (``explorer.html`` and ``explorer_script.html``, with plotly.js) filters, draws and recommends settings. This
module only converts tables to columns for JSON, and compresses plotly.js; the script of the page computes a
recommendation as a minimum over these columns.
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
from paretofit.report.answer import ERROR_UNITS, INTERVAL_PERCENT, Answer
from paretofit.report.figures import style
from paretofit.report.figures.axes import find_inliers
from paretofit.report.paired_errors import INTERVAL_SUFFIXES
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
MAX_SETTINGS = 20_000  # number of points; they take 1.3 MB on the page, and a laptop computes their front in 0.1 s
_OTHER_COLUMNS = ["twojmax", "weight_ratio", "test_energy", "test_force", "n_features", "n_repeats"]
KNOT_STEP = 3  # every third number of configurations above the largest measured one is a knot
_SIGNIFICANT_DIGITS = 7  # more than the accuracy of errors requires, so that rounding does not change a minimum
_SYMBOLS = {  # symbols of plotly by the marker of matplotlib
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
    """Convert settings to the data of the explorer: columns of numbers, and their names, colours and units.

    Parameters
    ----------
    points : DataFrame, a row per setting
        From `paretofit.report.tables.compute_medians`: errors in meV/atom and meV/Å, ``label_seconds`` in s,
        ``md_us_per_atom_step`` in µs. Values that are not finite count as unknown.
    levels : names of the convergence levels in order of cost; the last is the reference
    study : settings of the study, as in its YAML file; without them, the page only gives the keys of a point as YAML
    answer : from `paretofit.report.find_answer`; with an answer, the page recommends the same settings as `paretofit
        plan`, initially for the budget at the knee; without an answer, it recommends the best of the points
    mixtures : from `paretofit.report.tables.tabulate_mixtures`; by default, there are no mixtures
    further_studies : settings of the studies of further bases, by the name in the column ``basis`` of the points
    folder : run folder in the command lines of the page
    max_settings : maximum number of settings; those with the highest Pareto rank within their level, model and sampling
        method are dropped

    Returns
    -------
    dict for JSON: ``columns`` (lists of equal length, None where unknown; ``level``, ``sampling`` and ``basis`` are
    indices of the lists ``levels``, ``samplings`` and ``bases``), ``levels`` (name, colour, symbol, levels of the
    labels, and keys of a mixture), ``samplings`` (names), ``bases`` (name and colour; empty if there is only one),
    ``quantities`` (label, unit and limit of each possible axis), ``left_out`` (number of dropped settings), ``plan``
    (from `_build_plan`, None without an answer), ``base`` (for each basis and each level, the YAML of the study without
    the keys that a point determines), ``folder`` and ``reference``.
    """
    levels, samplings = [str(level) for level in levels], list_sampling_methods(points)
    further_studies = further_studies or {}
    basis_names = set(points[BASIS_COLUMN]) if BASIS_COLUMN in points else set()
    bases = [*sorted(basis_names - set(further_studies)), *(name for name in further_studies if name in basis_names)]
    mixture_rows = {} if mixtures is None else {row["level"]: row for _, row in mixtures.iterrows()}
    label_levels = {
        level: list_label_levels(mixture_rows[level]) if level in mixture_rows else [level] for level in levels
    }
    selected = _select_near_fronts(points.reset_index(drop=True), max_settings)
    units = list_property_units((study or {}).get("properties", []))
    properties = {column: get_property_name(column) for column in map(str, points) if is_property_error(column)}
    quantities = QUANTITIES | {column: (f"error of {name}", units.get(name, "")) for column, name in properties.items()}
    columns = {name: _round_values(selected[name]) for name in [*quantities, *_OTHER_COLUMNS]}
    columns["level"] = [levels.index(str(level)) for level in selected["level"]]
    columns["sampling"] = [samplings.index(sampling) for sampling in selected["sampling"]]
    if bases:
        columns["basis"] = [bases.index(basis) for basis in selected[BASIS_COLUMN]]
    return {
        "columns": columns,
        "levels": [
            _describe_level(level, levels) | {
                "labels": label_levels[level],
                "mixture": _collect_mixture_keys(mixture_rows[level]) if level in mixture_rows else None,
            } for level in levels
        ],
        "samplings": samplings,
        "bases": [{"name": name, "colour": style.get_level_colour(name, bases)} for name in bases],
        "quantities": {
            name: {"label": label, "unit": unit, "limit": _find_axis_limit(name, points[name])}
            for name, (label, unit) in quantities.items()
        },
        "plan": None if answer is None else _build_plan(answer, levels, samplings, bases, set(points["n_train"])),
        "folder": folder,
        "left_out": len(points) - len(selected),
        "base": _format_base_studies(study, further_studies, bases, label_levels, levels[-1]),
        "reference": levels[-1],
    }  # fmt: skip


def _format_base_studies(
    study: Mapping[str, Any] | None, further_studies: Mapping[str, Mapping[str, Any]], bases: Sequence[str],
    label_levels: Mapping[str, Sequence[str]], reference: str,
) -> list[list[str]]:  # fmt: skip
    """Format, for each basis and each level, the YAML of a study without the keys that a point determines.

    `label_levels` are the levels of the labels of each level (several for a mixture). Empty without a study.
    """
    if study is None:
        return []
    studies = [further_studies.get(basis, study) for basis in bases or [""]]
    return [
        [format_base_study(settings, {*names, reference}) for names in label_levels.values()] for settings in studies
    ]


def _describe_level(level: str, levels: Sequence[str]) -> dict[str, Any]:
    """Return the name of a level, and the colour and the plotly symbol that it has in all figures."""
    colour, symbol = style.get_level_colour(level, levels), _SYMBOLS[style.get_level_marker(level, levels)]
    return {"name": level, "colour": colour, "symbol": symbol}


def embed_explorer_data(data: Mapping[str, Any]) -> dict[str, Markup]:
    """Encode the data of the explorer and the library plotly.js as text for ``<script>`` elements.

    Parameters
    ----------
    data : mapping
        From `build_explorer_data`, without NaN.

    Returns
    -------
    dict with ``data``, JSON without characters that could end the element, and ``plotly``, the library as base64 of
    gzip (2 MB instead of 5 MB).
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))  # characters beyond ASCII are escaped by default
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return {"data": Markup(text), "plotly": Markup(_compress_library())}  # noqa: S704  (escaped above; base64)


@cache
def _compress_library() -> str:
    """Compress plotly.js with gzip, once per process, and encode it as base64."""
    compressed = gzip.compress(get_plotlyjs().encode("utf-8"), mtime=0)  # no date, so that the bytes are reproducible
    return base64.b64encode(compressed).decode("ascii")


def _select_near_fronts(points: pd.DataFrame, max_rows: int) -> pd.DataFrame:
    """Select at most `max_rows` rows: those with the lowest Pareto rank within their level, model and sampling method.

    For any choice of levels, models and methods, the best setting is on the front of such a group. Recommendations
    therefore do not change as long as `max_rows` is enough for the fronts of all groups.
    """
    if len(points) <= max_rows:
        return points
    values = points[OBJECTIVES].to_numpy(dtype=float)
    values = np.where(np.isfinite(values), values, np.inf)  # an unknown objective counts as the worst
    ranks = np.zeros(len(points), dtype=int)
    for rows in points.groupby([*({BASIS_COLUMN} & {*points}), "twojmax", "level", "sampling"]).indices.values():
        ranks[rows] = moocore.pareto_rank(values[rows])
    return points.iloc[np.sort(np.argsort(ranks, kind="stable")[:max_rows])]  # in their original order


def _round_values(column: pd.Series) -> list[float | int | None]:
    """Round numbers to `_SIGNIFICANT_DIGITS`, and convert whole numbers to int; None where a number is not finite."""
    rounded = [
        float(f"{number:.{_SIGNIFICANT_DIGITS}g}") if np.isfinite(number) else None for number in column.to_numpy(float)
    ]
    # Whole numbers are shorter in JSON as int.
    return [int(number) if number is not None and number.is_integer() else number for number in rounded]


def _find_axis_limit(name: str, column: pd.Series) -> float | None:
    """Find the largest error in a column without its outliers (see `find_inliers`).

    The result is None if no error is positive and finite, or if `name` is a cost or a number of configurations.
    """
    unit = QUANTITIES.get(name, ("", "error"))[1]  # other quantities are errors of properties
    if "µs" in unit or unit in ("s", ""):
        return None
    errors = column.to_numpy(dtype=float)
    inliers = errors[find_inliers(errors)]
    return float(inliers.max()) if inliers.size else None


def _collect_mixture_keys(row: pd.Series) -> dict[str, Any]:
    """Collect the keys of a mixture in a study, without the number of configurations at its top level."""
    base, *middle, top = list_label_levels(row)  # `middle` has at most one name
    keys: dict[str, Any] = {"base": base, "base_sizes": [int(row["n_base"])]}
    if middle:
        keys |= {"middle": middle[0], "middle_sizes": [int(row["n_middle"])]}
    return keys | {"top": top, "base_energy_weight": [float(row["base_energy_weight"])]}


def _build_plan(
    answer: Answer, levels: Sequence[str], samplings: Sequence[str], bases: Sequence[str], measured_sizes: set[int]
) -> dict[str, Any]:
    """Convert the options of the planner to knots, between which the page interpolates as the planner does.

    The knots of a setting are its options at `measured_sizes` (those of all settings), and every `KNOT_STEP`-th of the
    extrapolated ones, including the last. Settings with a sampling method that is not in `samplings` are omitted.

    Returns
    -------
    dict for JSON: a list for each column of a setting, with an entry per setting; ``start`` (position of the first knot
    of each setting); ``knots`` (a list per column: configurations, costs in s, expected errors, the ends of their
    intervals, and whether the errors are extrapolated); ``knee`` (budget at the knee, in the unit of the costs); and
    ``percent`` (coverage of the intervals).
    """
    # The cost of a mixture is known only at its measured sizes, so each size is a separate setting.
    options = answer.options.assign(size=answer.options["n_train"].where(pareto.find_mixtures(answer.options), 0))
    columns = [*pareto.list_setting_columns(options), "size"]
    setting_keys = ["level", "sampling", "twojmax", "weight_ratio", *([BASIS_COLUMN] if bases else [])]
    plan: dict[str, Any] = {key: [] for key in [*setting_keys, "start"]}
    knot_tables: list[pd.DataFrame] = []
    for _, rows in options.groupby(columns, sort=False):
        setting = rows.iloc[0]
        if str(setting["sampling"]) not in samplings:
            continue
        plan["start"].append(sum(map(len, knot_tables)))
        plan["level"].append(list(levels).index(str(setting["level"])))
        plan["sampling"].append(list(samplings).index(str(setting["sampling"])))
        plan["twojmax"].append(int(setting["twojmax"]))
        if bases:
            plan[BASIS_COLUMN].append(list(bases).index(setting[BASIS_COLUMN]))
        plan["weight_ratio"].append(float(f"{setting['w_energy'] / setting['w_force']:.6g}"))
        extrapolated = rows[rows["beyond"]]
        is_knot = rows["n_train"].isin(measured_sizes) | rows.index.isin(extrapolated.index[::-KNOT_STEP])
        knot_tables.append(rows[is_knot])
    knots = pd.concat(knot_tables)
    error_columns = [f"{kind}{suffix}" for kind in ERROR_UNITS for suffix in INTERVAL_SUFFIXES]
    plan["knots"] = {name: _round_values(knots[name]) for name in ["n_train", "label_seconds", *error_columns]}
    plan["knots"]["beyond"] = [bool(is_extrapolated) for is_extrapolated in knots["beyond"]]
    return plan | {"knee": answer.knee, "percent": INTERVAL_PERCENT}
