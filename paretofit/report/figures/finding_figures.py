"""Small picture of a finding, of the same kind for all findings: groups of dots with intervals."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from paretofit.report.figures import style
from paretofit.report.figures.drawing import FigurePlan
from paretofit.report.findings.finding import Finding, FindingDots
from paretofit.report.wording import format_number

CLEAR_COLOUR, UNCLEAR_COLOUR = "#0072B2", "#888888"  # colours of dots whose interval excludes or contains the reference
GROUP_HEIGHT_IN, CHARACTER_WIDTH_IN = 0.27, 0.062  # height of a group, and width of a character of its name
MAX_NAME_SHARE = 0.5  # largest share of the width of the figure for the names of groups
TICK_SERIES = ((1.0,), (1.0, 3.0), (1.0, 1.5, 2.0, 3.0, 5.0))  # multiples of each power of ten, coarsest first
MIN_TICKS = 3  # number of ticks in a panel
MIN_TICK_DISTANCE = 0.17  # distance between two ticks, as a share of the axis
MAX_SPARSE_ROWS, CROWDED_GROUP_FACTOR = 8, 1.5  # number of dots of a group; with more, groups are higher by this factor
MAX_INTERVAL_RATIO = 2.0  # ratio of the end of an interval to its value; farther ends do not extend the axis
_SPREAD = 0.34  # distance of the outermost dots from the centre of their group, in units of the height of a group


def plan_finding_figures(findings: Sequence[Finding]) -> Iterator[FigurePlan]:
    """Plan the pictures of the findings that have dots, with their captions."""
    for finding in findings:
        if finding.dots is not None:
            caption = _format_caption(finding.dots)
            yield FigurePlan(
                finding.figure_name, partial(plot_dots, finding.dots), partial(str, caption), is_wide=False
            )


def plot_dots(dots: FindingDots) -> np.ndarray:
    """Plot the values of each group as dots with their intervals, and a line at the reference.

    There is a panel for each kind of error. Dots are hollow if their interval contains the reference, and filled if it
    does not or is unknown.

    Returns
    -------
    (n_kinds,) array of Axes

    Raises
    ------
    CannotDrawError
        If no value is finite.
    """
    table = _select_drawable(dots)
    kinds, groups = list(dict.fromkeys(table["error"])), list(dict.fromkeys(table["group"]))
    if not groups:
        raise style.CannotDrawError("No value is finite.")
    names = ["\n".join(_shorten(line) for line in name.split("\n")) for name in groups]
    # margins, height and width are in inches
    left_margin = 0.12 + CHARACTER_WIDTH_IN * max(len(line) for name in names for line in name.split("\n"))
    is_crowded = table.groupby(["error", "group"]).size().max() > MAX_SPARSE_ROWS
    height = 0.68 + GROUP_HEIGHT_IN * len(groups) * (CROWDED_GROUP_FACTOR if is_crowded else 1.0)
    with style.use_publication_style():
        figure = Figure(figsize=(style.COLUMN_WIDTH_IN, height))
        axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        figure.subplots_adjust(
            left=left_margin / style.COLUMN_WIDTH_IN,
            right=0.97,
            bottom=0.42 / height,
            top=1 - 0.2 / height,
            wspace=0.12,
        )
        for ax, kind in zip(axes, kinds, strict=True):
            _draw_panel(ax, table[table["error"] == kind], groups, dots.reference)
            ax.set_title(kind)
        axes[0].set_yticks(range(len(groups)), [style.escape_mathtext(name) for name in names])
        axes[0].set_ylim(len(groups) - 0.5, -0.5)
        figure.text(0.5, 0.03 / height, style.escape_mathtext(dots.label), ha="center", va="bottom")
    return np.asarray(axes)


def _shorten(text: str) -> str:
    """Shorten a line of the name of a group, so that it fits into the share `MAX_NAME_SHARE` of the width."""
    max_length = int(MAX_NAME_SHARE * style.COLUMN_WIDTH_IN / CHARACTER_WIDTH_IN)
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


def _select_drawable(dots: FindingDots) -> pd.DataFrame:
    """Select the dots with finite values that are positive if the axis is logarithmic."""
    values = dots.table["value"].to_numpy(dtype=float)
    is_drawable = np.isfinite(values) & ((values > 0) | (dots.reference == 0))
    table: pd.DataFrame = dots.table[is_drawable]
    return table


def _draw_panel(ax: Axes, table: pd.DataFrame, groups: Sequence[str], reference: float) -> None:
    """Draw the dots of one kind of error, with the groups from top to bottom."""
    ax.axvline(reference, color="black", linewidth=0.8, zorder=1)
    ax.grid(visible=False, axis="y")
    for position, name in enumerate(groups):
        rows = table[table["group"] == name]
        offsets = np.linspace(-_SPREAD, _SPREAD, len(rows)) if len(rows) > 1 else np.zeros(len(rows))
        value, low, high = (rows[column].to_numpy(dtype=float) for column in ("value", "low", "high"))
        is_unclear = (low <= reference) & (high >= reference)
        size = 3.2 if len(rows) <= MAX_SPARSE_ROWS else 2.2
        for is_shown, colour, face in (
            (is_unclear, UNCLEAR_COLOUR, "white"),
            (~is_unclear, CLEAR_COLOUR, CLEAR_COLOUR),
        ):
            y = position + offsets[is_shown]
            ax.hlines(y, low[is_shown], high[is_shown], color=colour, linewidth=0.7, alpha=0.8, zorder=2)
            ax.plot(value[is_shown], y, "o", markersize=size, markerfacecolor=face, markeredgecolor=colour,
                    markeredgewidth=0.8, zorder=3)  # fmt: skip
    ax.tick_params(axis="y", length=0)
    _set_value_axis(ax, table, reference)


def _set_value_axis(ax: Axes, table: pd.DataFrame, reference: float) -> None:
    """Set limits that contain all values, the reference, and the ends of intervals within `MAX_INTERVAL_RATIO`.

    The axis is logarithmic, except for the reference 0, for which it is linear and contains all intervals.
    """
    value = table["value"].to_numpy(dtype=float)
    low, high = (table[name].fillna(table["value"]).to_numpy(dtype=float) for name in ("low", "high"))
    if reference == 0:
        lower_limit, upper_limit = min(float(low.min()), 0.0), max(float(high.max()), 0.0)
        margin = 0.06 * (upper_limit - lower_limit)
        ax.set_xlim(lower_limit - margin, upper_limit + margin)
        ax.xaxis.set_major_locator(MaxNLocator(3))
        return
    low, high = np.maximum(low, value / MAX_INTERVAL_RATIO), np.minimum(high, value * MAX_INTERVAL_RATIO)
    lower_limit = min(float(low.min()), float(value.min()), reference)
    upper_limit = max(float(high.max()), float(value.max()), reference)
    margin = 0.06 * np.log(upper_limit / lower_limit) + 0.01
    lower_limit, upper_limit = lower_limit * np.exp(-margin), upper_limit * np.exp(margin)
    ax.set_xscale("log")
    ax.set_xlim(lower_limit, upper_limit)
    ax.xaxis.set_major_locator(FixedLocator(_choose_ticks(lower_limit, upper_limit)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: format_number(tick)))


def _choose_ticks(low: float, high: float) -> list[float]:
    """Choose round ticks for a logarithmic axis, from the coarsest of `TICK_SERIES` with at least `MIN_TICKS` of them.

    On an axis that is too short for all series, the ticks are those of a linear axis.
    """
    powers_of_ten = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for multiples in TICK_SERIES:
        candidates = (float(tick) for power in powers_of_ten for tick in power * np.array(multiples))
        ticks = [tick for tick in candidates if low <= tick <= high]
        if len(ticks) >= MIN_TICKS:
            return _drop_near_ticks(ticks, MIN_TICK_DISTANCE * np.log(high / low))
    return [tick for tick in MaxNLocator(MIN_TICKS).tick_values(low, high) if low <= tick <= high]


def _drop_near_ticks(ticks: Sequence[float], min_distance: float) -> list[float]:
    """Drop ticks whose labels would overlap with those of smaller ticks or with that of 1, which is always retained.

    `min_distance` is a difference of natural logarithms.
    """
    retained_ticks: list[float] = []
    for tick in sorted(ticks, key=lambda tick: (tick != 1, tick)):
        if all(abs(np.log(tick / retained_tick)) >= min_distance for retained_tick in retained_ticks):
            retained_ticks.append(tick)
    return sorted(retained_ticks)


def _format_caption(dots: FindingDots) -> str:
    """Format the caption of a picture."""
    text = f"{dots.label[0].upper()}{dots.label[1:]}, for each row of the table."
    if dots.table[["low", "high"]].notna().any(axis=None):
        text += f" Lines: 90 % intervals; hollow: the interval contains {dots.reference:g}, no clear difference."
    return text
