"""Figures of the front: errors coloured by DFT cost, and errors against DFT cost, with a panel for each 2Jmax.

The shape of a marker and the colour of its rim show the level, as in all figures; the colour of its face shows the
objective that is on neither axis, with the same logarithmic scale in all panels.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize

from paretofit.report.figures import axes as axes_tools
from paretofit.report.figures import style
from paretofit.report.figures.style import CannotDrawError
from paretofit.report.figures.sweep_figures import ENERGY_LABEL, FORCE_LABEL
from paretofit.report.wording import choose_time_unit

_COLOUR_MAP = "viridis"  # its lightness is monotonic, for colour-blind readers and black-and-white print


def plot_front_by_cost(front: pd.DataFrame, levels: Sequence[str]) -> np.ndarray:
    """Plot energy against force RMSE of the points on the front, coloured by DFT cost; a panel for each 2Jmax.

    Parameters
    ----------
    front : DataFrame, a row per point: twojmax, level, ref_energy (meV/atom), ref_force (meV/Å),
        label_seconds (s)
    levels : names in order of cost; the last is the reference

    Returns
    -------
    (n_twojmax,) array of Axes, in increasing 2Jmax

    Raises
    ------
    CannotDrawError
        If no point has a cost above zero.
    """
    frame, unit = _add_cost_column(front)
    x, y = ("ref_energy", f"test {ENERGY_LABEL}"), ("ref_force", f"test {FORCE_LABEL}")
    return _plot_front_panels(frame, levels, x, y, face=("cost", f"DFT cost ({unit})"))


def plot_force_error_against_cost(front: pd.DataFrame, levels: Sequence[str]) -> np.ndarray:
    """Plot force RMSE against DFT cost of the points on the front, coloured by energy RMSE.

    The parameters, the returned array and the exceptions are those of `plot_front_by_cost`.
    """
    frame, unit = _add_cost_column(front)
    x, y = ("cost", f"DFT cost ({unit})"), ("ref_force", f"test {FORCE_LABEL}")
    return _plot_front_panels(frame, levels, x, y, face=("ref_energy", ENERGY_LABEL))


def _add_cost_column(front: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Add a column ``cost`` in a suitable unit of time, and return the table and the unit.

    Raises
    ------
    CannotDrawError
        If no point has a cost above zero.
    """
    seconds = front["label_seconds"].to_numpy(dtype=float)
    positive_seconds = seconds[np.isfinite(seconds) & (seconds > 0)]
    if positive_seconds.size == 0:
        raise CannotDrawError("No point of the front has a DFT cost above zero, so the cost cannot be drawn.")
    unit_seconds, unit = choose_time_unit(float(np.median(positive_seconds)))
    return front.assign(cost=seconds / unit_seconds, level=front["level"].astype(str)), unit


def _plot_front_panels(
    frame: pd.DataFrame, levels: Sequence[str], x: tuple[str, str], y: tuple[str, str], face: tuple[str, str]
) -> np.ndarray:
    """Plot a front with a panel for each 2Jmax; `x`, `y` and `face` are pairs of a column and its label."""
    sizes = sorted(set(frame["twojmax"]))
    with style.use_publication_style():
        axes = style.create_panels(len(sizes))
        # the colour scale includes all costs, but not errors that are outliers, which would compress it
        norm, extend = _choose_norm(frame[face[0]].to_numpy(dtype=float), with_outliers=face[0] == "cost")
        levels_inside: set[str] = set()
        for ax, twojmax in zip(axes, sizes, strict=True):
            levels_inside |= _draw_panel(ax, frame[frame["twojmax"] == twojmax], levels, (x[0], y[0], face[0]), norm)
            ax.set_title(f"2Jmax = {twojmax}", loc="left")
            ax.set(xlabel=x[1], ylabel=y[1])
        figure = style.get_parent_figure(axes)
        bar = figure.colorbar(
            ScalarMappable(norm, _COLOUR_MAP), ax=list(axes), label=face[1], aspect=30, pad=0.02, extend=extend
        )
        if isinstance(norm, LogNorm):  # its limits are never None, but their type says so
            axes_tools.set_log_ticks(bar.ax, "y", norm.vmin or 1.0, norm.vmax or 1.0)
        handles = style.build_level_handles(levels, list(frame["level"]), levels_inside, with_line=False)
        style.add_legend_below(axes, handles, 6 if len(axes) > 1 else 3)
    return axes


def _choose_norm(values: np.ndarray, *, with_outliers: bool) -> tuple[Normalize, str]:
    """Choose a colour norm for the inliers or, `with_outliers`, for all positive values.

    The norm is logarithmic, or linear if the values differ by less than 5 %. The second return value is the option
    ``extend`` of the colour bar: ``"max"`` if a value is above the norm.
    """
    max_ratio = np.inf if with_outliers else axes_tools.MAX_ERROR_RATIO
    shown_values = values[axes_tools.find_inliers(values, max_ratio)]
    low, high = (float(shown_values.min()), float(shown_values.max())) if shown_values.size else (1.0, 1.0)
    extend = "max" if np.nanmax(values) > high else "neither"
    return (LogNorm(low, high) if high > 1.05 * low else Normalize(0.9 * low, 1.1 * high)), extend


def _draw_panel(
    ax: Axes, rows: pd.DataFrame, levels: Sequence[str], columns: tuple[str, str, str], norm: Normalize
) -> set[str]:
    """Draw a panel, and return the levels that have a point inside its axes.

    `columns` are those of the x axis, of the y axis and of the colours of the faces.
    """
    x, y, face = (rows[column].to_numpy(dtype=float) for column in columns)
    axes_tools.set_axes_limits(ax, x, y, max_ratio_x=np.inf if columns[0] == "cost" else axes_tools.MAX_ERROR_RATIO)
    axes_tools.annotate_outside(ax, x, y, list(rows["level"]), "level")
    for level in levels:
        is_level = (rows["level"] == level).to_numpy()
        if is_level.any():
            ax.scatter(
                x[is_level], y[is_level], c=face[is_level], cmap=_COLOUR_MAP, norm=norm, s=22, linewidths=0.8,
                marker=style.get_level_marker(level, levels), edgecolors=style.get_level_colour(level, levels),
                label=f"level {level}",
            )  # fmt: skip
    return set(rows["level"][axes_tools.find_inside_axes(ax, x, y)])
