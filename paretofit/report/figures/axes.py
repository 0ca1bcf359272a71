"""Axis limits, scales and ticks that ignore outliers; the number of outliers is written above the axes."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from paretofit.report.figures.style import add_note
from paretofit.report.wording import format_count

# Errors larger than this multiple of the lowest error (1.5 decades) are not useful, and would compress all others.
MAX_ERROR_RATIO = 30.0
# In the larger half of the values, those above a gap are outliers as well, because the errors of the lowest convergence
# level can be an order of magnitude larger than all other errors. A gap is a factor between neighbouring values that
# depends on the range of the values below it: an outlier that compresses narrow data may not matter among wide data.
MIN_GAP_RATIO, MAX_GAP_RATIO = 2.0, 4.0
OUTSIDE_NOTE = (
    f"Points above {MAX_ERROR_RATIO:g} times the lowest value, or far above all others, are outside the axes; their "
    "number is given at the top right."
)
_MIN_LOG_RATIO = 4.0  # a logarithmic axis over a smaller ratio contains too few round numbers for labels
MAX_NOTE_LENGTH = 42  # number of characters that fit above the axes
# Labelled multiples of each power of ten, by the minimum number of decades that the axis spans.
_TICKS_BY_DECADES: tuple[tuple[float, tuple[float, ...]], ...] = (
    (2.5, (1.0,)),
    (1.6, (1.0, 3.0)),
    (0.95, (1.0, 2.0, 5.0)),
    (0.0, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)),
)


def set_axes_limits(
    ax: Axes, x: np.ndarray, y: np.ndarray, max_ratio_x: float = MAX_ERROR_RATIO, max_ratio_y: float = MAX_ERROR_RATIO
) -> np.ndarray:
    """Set scales and limits of both axes to the points that are not outliers.

    Parameters
    ----------
    ax : Axes
    x, y : (n,) float, coordinates of the points; only positive finite values can be shown
    max_ratio_x, max_ratio_y : see `find_inliers`; infinity shows all points

    Returns
    -------
    (n,) bool
        Whether each point is an inlier in both x and y; if none is, the axes are left unchanged.
    """
    is_inside: np.ndarray = find_inliers(x, max_ratio_x) & find_inliers(y, max_ratio_y)
    if is_inside.any():
        set_axis_limits(ax, "x", x[is_inside])
        set_axis_limits(ax, "y", y[is_inside])
    return is_inside


def find_inliers(values: np.ndarray, max_ratio: float = MAX_ERROR_RATIO) -> np.ndarray:
    """Find the values that are positive, finite and not outliers, ``(n,)`` bool.

    Outliers are values above both `max_ratio` times the lowest value and three times the median (so that at least half
    of the values are inliers), and values in the larger half that are above a gap. A gap is a factor between
    neighbouring values that exceeds the ratio of the lower neighbour to the lowest value, limited to the range from
    `MIN_GAP_RATIO` to `MAX_GAP_RATIO`. With an infinite `max_ratio`, there are no outliers.
    """
    is_positive: np.ndarray = np.isfinite(values) & (values > 0)
    if not is_positive.any() or np.isinf(max_ratio):
        return is_positive
    ordered = np.sort(values[is_positive])
    limit = max(max_ratio * ordered[0], 3 * float(np.median(ordered)))
    n_lower = (len(ordered) + 1) // 2
    upper_values = ordered[n_lower - 1 :]  # begins with the largest value of the lower half, above which may be a gap
    gap_ratios = np.clip(upper_values[:-1] / ordered[0], MIN_GAP_RATIO, MAX_GAP_RATIO)
    gap_positions = np.flatnonzero(upper_values[1:] > gap_ratios * upper_values[:-1])
    if gap_positions.size:
        limit = min(limit, float(upper_values[gap_positions[0]]))
    return np.asarray(is_positive & (values <= limit))


def set_axis_limits(ax: Axes, axis_name: Literal["x", "y"], values: np.ndarray) -> None:
    """Set the limits of an axis to show all `values`, ``(n,)`` positive; its scale is linear for a narrow range."""
    low, high = float(values.min()), float(values.max())
    if high / low < _MIN_LOG_RATIO:
        margin = 0.08 * (high - low) or 0.1 * high  # the latter if all values are equal
        bounds, scale = (max(low - margin, 0.0), high + margin), "linear"
    else:
        stretch = (high / low) ** 0.05
        bounds, scale = (low / stretch, high * stretch), "log"
    ax.set(**{f"{axis_name}scale": scale, f"{axis_name}lim": bounds})
    if scale == "log":
        set_log_ticks(ax, axis_name, *bounds)


def set_log_ticks(ax: Axes, axis_name: Literal["x", "y"], low: float, high: float) -> None:
    """Set round numbers as ticks of a logarithmic axis from `low` to `high`."""
    axis = ax.xaxis if axis_name == "x" else ax.yaxis
    n_decades = np.log10(high / low)
    multiples = next(multiples for min_decades, multiples in _TICKS_BY_DECADES if n_decades >= min_decades)
    axis.set_major_locator(LogLocator(subs=multiples))
    axis.set_major_formatter(FuncFormatter(_format_tick))
    axis.set_minor_formatter(NullFormatter())


def _format_tick(value: float, _position: object = None) -> str:
    """Format the label of a tick, with an exponent only for very small or large numbers.

    `FuncFormatter` requires the second parameter.
    """
    return f"{value:g}" if 1e-3 <= value < 1e5 else f"{value:.0e}"


def annotate_outside(ax: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str] = (), kind: str = "") -> str:
    """Write above the axes how many points are outside the limits, and to which groups they belong.

    Points with NaN count as outside. The groups are omitted if the note would not fit above the axes.

    Parameters
    ----------
    ax : Axes
    x, y : (n,) float, coordinates of all points
    names : (n,) name of the group of each point, such as the level; empty if groups are not listed
    kind : noun for `names`, such as ``"level"``

    Returns
    -------
    str
        The note; empty if all points are inside.
    """
    is_outside = ~find_inside_axes(ax, x, y)
    if not is_outside.any():
        return ""
    groups = list(dict.fromkeys(name for name, outside in zip(names, is_outside, strict=bool(names)) if outside))
    listing = f"{kind}{'s' if kind and len(groups) > 1 else ''} {', '.join(groups)}".strip()
    note = f"{format_count(int(is_outside.sum()), 'point')} outside"
    if listing and len(note) + len(listing) < MAX_NOTE_LENGTH:
        note = f"{note}: {listing}"
    add_note(ax, note)
    return note


def find_inside_axes(ax: Axes, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Find the points inside the limits of the axes, ``(n,)`` bool; False for NaN."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    return np.asarray((x >= left) & (x <= right) & (y >= bottom) & (y <= top))
