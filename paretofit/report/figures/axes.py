"""Axis limits, scales and ticks that survive hopeless points: nothing is squashed, nothing goes unsaid."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from paretofit.report.figures.style import escape_mathtext
from paretofit.report.wording import format_count

# An error this many times the lowest one is of no use to anybody, and an axis that shows it shows
# little else (1.5 decades).
MAX_ERROR_RATIO = 30.0
# The largest third of the values may also lie behind a gap of this factor: the lowest convergence level
# can be an order of magnitude worse than all others.
GAP = 4.0
OUTSIDE_NOTE = (
    f"Points above {MAX_ERROR_RATIO:g} times the lowest value, or far behind all others, lie outside and are counted "
    "at the top right."
)
_LINEAR_BELOW = 4.0  # a log axis over less than this factor has too few round numbers to label
# Which numbers of a decade are labelled, by the decades that the axis spans.
_SUBS: tuple[tuple[float, tuple[float, ...]], ...] = (
    (2.5, (1.0,)),
    (1.6, (1.0, 3.0)),
    (0.95, (1.0, 2.0, 5.0)),
    (0.0, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)),
)


def set_axes_limits(
    ax: Axes, x: np.ndarray, y: np.ndarray, max_ratio_x: float = MAX_ERROR_RATIO, max_ratio_y: float = MAX_ERROR_RATIO
) -> np.ndarray:
    """Choose scales and limits of both axes around the points that are of use.

    Parameters
    ----------
    ax : where
    x, y : (n,) float, the points; what is not positive and finite cannot be shown
    max_ratio_x, max_ratio_y : see `find_inliers`; infinity shows all

    Returns
    -------
    (n,) bool, which points lie inside.
    """
    inside: np.ndarray = find_inliers(x, max_ratio_x) & find_inliers(y, max_ratio_y)
    if inside.any():
        set_axis_limits(ax, "x", x[inside])
        set_axis_limits(ax, "y", y[inside])
    return inside


def find_inliers(values: np.ndarray, max_ratio: float = MAX_ERROR_RATIO) -> np.ndarray:
    """(n,) bool: positive, finite, at most `max_ratio` times the lowest value, and not behind a gap of `GAP`.

    Where that would leave out more than it shows, up to three times the median instead.
    """
    positive: np.ndarray = np.isfinite(values) & (values > 0)
    if not positive.any() or np.isinf(max_ratio):
        return positive
    ordered = np.sort(values[positive])
    limit = max(max_ratio * ordered[0], 3 * float(np.median(ordered)))
    tail = ordered[-(-2 * len(ordered) // 3) - 1 :]  # from the last of the lower two thirds
    gaps = np.flatnonzero(tail[1:] > GAP * tail[:-1])
    if gaps.size:
        limit = min(limit, float(tail[gaps[0]]))
    inside: np.ndarray = positive & (values <= limit)
    return inside


def set_axis_limits(ax: Axes, which: Literal["x", "y"], values: np.ndarray) -> None:
    """Scale and limits of one axis that show all of `values`, (n,) positive: linear over a short span."""
    low, high = float(values.min()), float(values.max())
    if high / low < _LINEAR_BELOW:
        margin = 0.08 * (high - low) or 0.1 * high
        bounds, scale = (max(low - margin, 0.0), high + margin), "linear"
    else:
        stretch = (high / low) ** 0.05
        bounds, scale = (low / stretch, high * stretch), "log"
    (ax.set_xscale if which == "x" else ax.set_yscale)(scale)
    (ax.set_xlim if which == "x" else ax.set_ylim)(*bounds)
    if scale == "log":
        set_log_ticks(ax, which, *bounds)


def set_log_ticks(ax: Axes, which: Literal["x", "y"], low: float, high: float) -> None:
    """Plain round numbers on a logarithmic axis that runs from `low` to `high`."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    decades = np.log10(high / low)
    subs = next(subs for least, subs in _SUBS if decades >= least)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(_tick))
    axis.set_minor_formatter(NullFormatter())


def _tick(value: float, _position: object = None) -> str:
    return f"{value:g}" if 1e-3 <= value < 1e5 else f"{value:.0e}"


def annotate_outside(ax: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], kind: str = "") -> str:
    """Say above the axes how many points lie outside of its limits, and whose.

    Parameters
    ----------
    ax : where the note goes, small, at the top right
    x, y : (n,) float, every point that was meant to be drawn
    names : (n,) whose point each is, e.g. the level
    kind : what `names` are, e.g. ``"level"``

    Returns
    -------
    The note, empty where all points are inside.
    """
    outside = [name for name, shown in zip(names, find_inside_axes(ax, x, y), strict=True) if not shown]
    if not outside:
        return ""
    whose = list(dict.fromkeys(outside))
    listing = f"{kind}{'s' if kind and len(whose) > 1 else ''} {', '.join(whose)}".strip()
    note = f"{format_count(len(outside), 'point')} outside"
    if len(note) + len(listing) < 42:  # there is no room for more
        note = f"{note}: {listing}"
    ax.set_title(escape_mathtext(note), loc="right", fontsize=6, color="#666666")
    return note


def find_inside_axes(ax: Axes, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,) bool: which points lie inside of the limits of the axes; False for NaN."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    inside: np.ndarray = (x >= left) & (x <= right) & (y >= bottom) & (y <= top)
    return inside
