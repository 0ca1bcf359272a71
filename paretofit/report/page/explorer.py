"""What the page's explorer shows: every setting as a point, small enough to carry inside the page.

The choosing, filtering and drawing is the page's own (``explorer.html`` and ``explorer_script.html``, with
plotly.js). This module only turns a table into columns that JSON can hold, and packs the library. Nothing
here is computed anew: the recommendation of the page is a minimum over these columns.
"""

import base64
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import moocore
import numpy as np
import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]
from ruamel.yaml import YAML

from paretofit.report.figures import style
from paretofit.report.tables.summaries import OBJECTIVES, list_sampling_methods

QUANTITIES = {  # what can be an axis: its name and its unit
    "ref_energy": ("energy error", "meV/atom"),
    "ref_energy_shifted": ("energy error, shifted", "meV/atom"),
    "ref_force": ("force error", "meV/Å"),
    "label_seconds": ("DFT cost", "s"),
    "md_us_per_atom_step": ("MD cost", "µs/atom/step"),
    "n_train": ("training configurations", ""),
}
MOST = 20_000  # settings on the page: about 1.3 MB, and fronts that a laptop finds in a tenth of a second
_OTHERS = ["twojmax", "weight_ratio", "test_energy", "test_force", "n_features", "n_repeats"]
_DIGITS = 7  # significant: more than any error has, so that rounding changes no minimum
_SYMBOLS = {
    "v": "triangle-down", "^": "triangle-up", "s": "square", "D": "diamond", "o": "circle", "P": "cross", "X": "x",
    "<": "triangle-left", ">": "triangle-right", "p": "pentagon", "h": "hexagon",
}  # fmt: skip


def build_explorer_data(
    points: pd.DataFrame, levels: Sequence[str], study: Mapping[str, Any] | None = None, *, max_settings: int = MOST
) -> dict[str, Any]:
    """The settings as columns of numbers, with what is needed to draw and to name them.

    Parameters
    ----------
    points : DataFrame, a row per setting
        As `paretofit.report.tables.summaries.compute_medians` gives it: errors in meV/atom and meV/Å, ``label_seconds`` in s,
        ``md_us_per_atom_step`` in µs. A value that is not finite is unknown.
    levels : names of the convergence levels by cost, the last is the reference
    study : settings of the study, as in its YAML file; makes the YAML of a point a whole study
    max_settings : settings to keep at most; beyond it those far from the front of their level, 2Jmax and sampling go

    Returns
    -------
    dict that JSON can hold: ``columns`` (lists of equal length, None where unknown; ``level`` and ``sampling``
    are places in the lists of that name), ``levels``, ``samplings``, ``quantities``, ``left_out`` (settings
    dropped), ``base`` (YAML of the study without the point's own keys, by level) and ``reference``.
    """
    levels, samplings = [str(level) for level in levels], list_sampling_methods(points)
    kept = _nearest_the_fronts(points.reset_index(drop=True), max_settings)
    columns = {name: _rounded(kept[name]) for name in [*QUANTITIES, *_OTHERS]}
    columns["level"] = [levels.index(str(level)) for level in kept["level"]]
    columns["sampling"] = [samplings.index(sampling) for sampling in kept["sampling"]]
    return {
        "columns": columns,
        "levels": [
            {
                "name": level,
                "colour": style.level_colour(level, levels),
                "symbol": _SYMBOLS[style.level_marker(level, levels)],
            }
            for level in levels
        ],
        "samplings": samplings,
        "quantities": {name: {"label": label, "unit": unit} for name, (label, unit) in QUANTITIES.items()},
        "left_out": len(points) - len(kept),
        "base": [] if study is None else [_base(study, {level, levels[-1]}) for level in levels],
        "reference": levels[-1],
    }


def embed_explorer_data(data: Mapping[str, Any]) -> dict[str, Markup]:
    """The data and the library as text that may stand inside a ``<script>`` element.

    Returns
    -------
    dict with ``data``, JSON in which no character can end the element, and ``plotly``, the library as
    base64 of gzip: 2 MB of the page instead of 5.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))  # all beyond ASCII is escaped
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return {"data": Markup(text), "plotly": Markup(_library())}  # noqa: S704  (escaped above; base64)


@cache
def _library() -> str:
    packed = gzip.compress(get_plotlyjs().encode("utf-8"), mtime=0)  # no date: the same page, the same bytes
    return base64.b64encode(packed).decode("ascii")


def _nearest_the_fronts(points: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` rows: first the front of each level, 2Jmax and sampling, then what is next behind it.

    The best of any selection of levels, models and samplings is the best of one of them, so as long as
    these fronts have room no recommendation changes.
    """
    if len(points) <= most:
        return points
    values = points[OBJECTIVES].to_numpy(dtype=float)
    values = np.where(np.isfinite(values), values, np.inf)
    rank = np.zeros(len(points), dtype=int)
    for rows in points.groupby(["twojmax", "level", "sampling"]).indices.values():
        rank[rows] = moocore.pareto_rank(values[rows])
    return points.iloc[np.sort(np.argsort(rank, kind="stable")[:most])]


def _rounded(column: pd.Series) -> list[float | int | None]:
    """Numbers of few digits, whole ones without a point; None where a value is not finite."""
    short = [float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None for value in column.to_numpy(dtype=float)]
    return [int(value) if value is not None and value.is_integer() else value for value in short]


def _base(study: Mapping[str, Any], levels: set[str]) -> str:
    """YAML of a study of one level and the reference, without the keys that a point sets."""
    own = {"levels", "twojmax", "weights", "sizes", "samplings", "labelling", "augmentation"}
    content = {key: value for key, value in study.items() if key not in own and value is not None}
    if study.get("twojmax"):  # the leverage scores and the descriptors stay those of the whole study
        largest = max(study["twojmax"])
        content["basis"] = {"twojmax": largest, **(study.get("basis") or {})}
        leverage = {key: value for key, value in (study.get("leverage") or {}).items() if value is not None}
        content["leverage"] = {"twojmax": largest, **leverage}
    if study.get("ridge"):  # figures and points are those of the first penalty
        content["ridge"] = list(study["ridge"])[:1]
    cost = dict(study.get("cost") or {})
    if isinstance(cost.get("seconds"), Mapping):
        content["cost"] = cost | {"seconds": {k: v for k, v in cost["seconds"].items() if str(k) in levels}}
    stream, yaml = io.StringIO(), YAML()
    yaml.default_flow_style = None  # lists of numbers on one line
    yaml.dump(content, stream)
    return stream.getvalue()
