"""Figures of label noise and of training errors over weights.

They correspond to Figures S4 to S7 and 4a of Baghishov et al., Digital Discovery (2025).
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paretofit.report.figures import axes as axes_tools
from paretofit.report.figures import style, sweep_figures
from paretofit.report.figures.drawing import FigurePlan
from paretofit.report.figures.noise_text import format_correlation, format_twojmax
from paretofit.report.figures.style import UNITS, CannotDrawError
from paretofit.report.tables import summaries
from paretofit.report.wording import format_count, format_number, format_ratio

Kind = Literal["energy", "force"]  # energies per atom, or force components
_SHOWN_SHARE = 0.98  # share of the points within the limits of a panel in each direction
_MAX_OPAQUE_POINTS = 500  # number of points in a panel; larger numbers are drawn with more transparency
# Training errors below this multiple of the median are rounding errors of a model with as many features as rows.
_MIN_RELATIVE_ERROR = 1e-6
# Styles of the lines in a panel of label noise, by their label in the legend.
_GUIDES: dict[str, dict[str, Any]] = {
    "residual = label error: ignored": {"color": "#444444", "linestyle": "--", "linewidth": 0.9},
    "residual = 0: learned": {"color": "#444444", "linestyle": ":", "linewidth": 1.1},
    "least squares": {"color": "black", "linestyle": "-", "linewidth": 1.1},
}


def plot_label_noise(points: pd.DataFrame, table: pd.DataFrame, levels: Sequence[str], kind: Kind) -> np.ndarray:
    """Plot residuals of a model at its training level against label errors, with a row of panels for each level.

    Parameters
    ----------
    points : DataFrame
        ``weight_ratio``, ``level``, ``kind``, ``error`` and ``residual`` (meV/atom, meV/Å) of test rows.
    table : DataFrame
        A row per weight, level and kind, with ``correlation`` of residuals with label errors, and ``slope``. Both
        tables are from `paretofit.sweep.correlate_label_noise`.
    levels : names in order of cost; the last is the reference
    kind : whether energies per atom or force components are drawn

    Returns
    -------
    (n_levels, n_weights) array of Axes, cheapest level and smallest w_E/w_F first

    Raises
    ------
    CannotDrawError
        If there are no finite residuals of this kind.
    """
    finite = summaries.select_finite_rows(points[(points["kind"] == kind).to_numpy(dtype=bool)], ["error", "residual"])
    finite = finite.assign(level=finite["level"].astype(str))
    table = table[table["kind"] == kind].assign(level=table["level"].astype(str))
    shown_levels = [level for level in levels if level in set(finite["level"])]
    if not shown_levels:
        raise CannotDrawError(f"There are no residuals of the {'energies' if kind == 'energy' else 'forces'} to draw.")
    ratios = sorted(set(finite["weight_ratio"]))
    with style.use_publication_style():
        size = (style.PAGE_WIDTH_IN if len(ratios) > 1 else style.COLUMN_WIDTH_IN, 1.55 * len(shown_levels) + 0.5)
        axes = Figure(figsize=size, layout="constrained").subplots(len(shown_levels), len(ratios), squeeze=False)
        for row_axes, level in zip(axes, shown_levels, strict=True):
            for ax, ratio in zip(row_axes, ratios, strict=True):
                panel_points, correlations = (
                    rows[(rows["level"] == level) & (rows["weight_ratio"] == ratio)] for rows in (finite, table)
                )
                _draw_noise(ax, panel_points, correlations, style.get_level_colour(level, levels))
                title = f"level {style.escape_mathtext(level)}, $w_E/w_F$ = {format_ratio(ratio)}"
                ax.set_title(title, loc="left", fontsize=7)
            row_axes[0].set_ylabel(f"residual ({UNITS[kind]})")
        for ax in axes[-1]:
            ax.set_xlabel(f"label error ({UNITS[kind]})")
        handles = [Line2D([], [], label=label, **line_style) for label, line_style in _GUIDES.items()]
        figure = style.get_parent_figure(axes)
        figure.align_ylabels(axes[:, 0])
        figure.legend(handles=handles, loc="outside lower center", ncols=3 if len(ratios) > 1 else 1)
    return axes


def _draw_noise(ax: Axes, points: pd.DataFrame, correlations: pd.DataFrame, colour: str) -> None:
    """Draw the points of a panel, their regression line, and the lines of models that learn or ignore label errors.

    `correlations` is the row of the panel in the table, or empty.
    """
    x, y = points["error"].to_numpy(dtype=float), points["residual"].to_numpy(dtype=float)
    x_limit, y_limit = _choose_limit(x), _choose_limit(y)
    ax.set(xlim=(-x_limit, x_limit), ylim=(-y_limit, y_limit))
    axes_tools.annotate_outside(ax, x, y)
    alpha = 0.7 if len(x) < _MAX_OPAQUE_POINTS else 0.4
    ax.scatter(x, y, s=5, color=colour, alpha=alpha, linewidths=0, rasterized=True)
    ends = np.array([-x_limit, x_limit])
    ignored, learned, regression = _GUIDES
    lines = {ignored: ends, learned: 0.0 * ends}
    if len(x) and len(correlations) and np.isfinite(correlations["slope"].iloc[0]):
        slope, correlation = float(correlations["slope"].iloc[0]), correlations["correlation"].iloc[0]
        lines[regression] = y.mean() + slope * (ends - x.mean())
        ax.text(
            0.02, 0.97, f"r = {format_correlation(correlation)}, slope {format_correlation(slope)}",
            transform=ax.transAxes, verticalalignment="top", fontsize=7, path_effects=style.HALO, zorder=5,
        )  # fmt: skip
    for name, heights in lines.items():
        ax.plot(ends, heights, **_GUIDES[name])


def _choose_limit(values: np.ndarray) -> float:
    """Choose the limit of an axis around zero that includes most values, with a margin; 1 if all values are zero."""
    if not values.size:
        return 1.0
    magnitudes = np.abs(values)
    return 1.15 * float(np.quantile(magnitudes, _SHOWN_SHARE)) or float(magnitudes.max()) or 1.0


def plot_training_tradeoff(
    results: pd.DataFrame, levels: Sequence[str], path_table: pd.DataFrame | None = None
) -> Axes:
    """Plot energy against force RMSE on the training set at the largest 2Jmax and subset, with a line for each level.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    levels : names in order of cost; the last is the reference
    path_table : DataFrame, from `paretofit.sweep.compute_weight_paths`; its curves replace the straight lines

    Returns
    -------
    Axes

    Raises
    ------
    CannotDrawError
        If all fits have the same weights, or none has training errors above rounding errors.
    """
    rows = sweep_figures.select_tradeoff_rows(results, levels)
    rows = rows[rows["twojmax"] == rows["twojmax"].max()].sort_values("weight_ratio")
    x, y = rows["train_energy"].to_numpy(dtype=float), rows["train_force"].to_numpy(dtype=float)
    is_shown = _is_above_rounding(x) & _is_above_rounding(y)
    if not is_shown.any():
        raise CannotDrawError("No fit has training errors above rounding errors.")
    curves = None if path_table is None else path_table[path_table["twojmax"] == rows["twojmax"].iloc[0]]
    with style.use_publication_style():
        ax = style.ensure_axes(None)
        for level in levels:
            group = rows[rows["level"] == level]
            if len(group):
                curve, ratios = None, group["weight_ratio"]
                if curves is not None:
                    curve = sweep_figures.select_path_curve(curves, level, "train", ratios)
                points = group[["level", "train_energy", "train_force"]].set_axis(["level", "x", "y"], axis=1)
                sweep_figures.draw_level_line(ax, points, levels, is_reference=True, curve=curve)
        axes_tools.set_axes_limits(ax, x[is_shown], y[is_shown], np.inf, np.inf)
        axes_tools.annotate_outside(ax, x, y, list(rows["level"]), "level")
        # `annotate_weights` reads the coordinates from these columns
        sweep_figures.annotate_weights(ax, rows.assign(ref_energy=x, ref_force=y), levels)
        ax.set_title(f"2Jmax = {rows['twojmax'].iloc[0]}", loc="left")
        ax.set(xlabel=f"training {sweep_figures.ENERGY_LABEL}", ylabel=f"training {sweep_figures.FORCE_LABEL}")
        levels_inside = set(rows["level"][axes_tools.find_inside_axes(ax, x, y)])
        handles = style.build_level_handles(levels, list(rows["level"]), levels_inside)
        style.get_parent_figure(ax).legend(handles=handles, loc="outside lower center", ncols=3)
    return ax


def _is_above_rounding(values: np.ndarray) -> np.ndarray:
    """Return whether each error is finite and larger than the rounding errors of an exact fit, ``(n,)`` bool."""
    finite = values[np.isfinite(values)]
    limit = _MIN_RELATIVE_ERROR * (np.median(finite) if finite.size else 0.0)
    return np.asarray(np.isfinite(values) & (values > limit))


def plan_noise_figures(
    results: pd.DataFrame,
    levels: Sequence[str],
    path_table: pd.DataFrame | None,
    points: pd.DataFrame,
    table: pd.DataFrame,
) -> Iterator[FigurePlan]:
    """Plan the figures of this module, with their captions.

    Parameters
    ----------
    results : DataFrame, a row per fit
    levels : names in order of cost; the last is the reference
    path_table : DataFrame or None, as in `plot_training_tradeoff`
    points, table : DataFrame, as in `plot_label_noise`; if one is empty, the figures of label noise are omitted

    Yields
    ------
    FigurePlan
    """
    yield FigurePlan(
        "training_tradeoff", lambda: plot_training_tradeoff(results, levels, path_table),
        lambda: _format_training_caption(results, levels, path_table), is_wide=False, is_secondary=True,
    )  # fmt: skip
    if points.empty or table.empty:
        return
    kinds: tuple[Kind, ...] = ("energy", "force")
    for kind in kinds:
        yield FigurePlan(
            f"label_noise_{kind}", partial(plot_label_noise, points, table, levels, kind),
            partial(_format_noise_caption, points, table, levels, kind), is_secondary=True,
        )  # fmt: skip


def _format_training_caption(results: pd.DataFrame, levels: Sequence[str], path_table: pd.DataFrame | None) -> str:
    """Format the caption of `plot_training_tradeoff`."""
    rows = sweep_figures.select_tradeoff_rows(results, levels)
    rows = rows[rows["twojmax"] == rows["twojmax"].max()]
    has_curves = path_table is not None and (path_table["twojmax"] == rows["twojmax"].iloc[0]).any()
    curves = " The lines are fits for all ratios between the points." if has_curves else ""
    return (
        "Energy against force RMSE on the training set, against the labels of the level, for w_E/w_F "
        f"{format_ratio(rows['weight_ratio'].min())} to {format_ratio(rows['weight_ratio'].max())} at 2Jmax = "
        f"{rows['twojmax'].iloc[0]}, trained on {summaries.describe_subset(rows)}.{curves}"
    )


def _format_noise_caption(points: pd.DataFrame, table: pd.DataFrame, levels: Sequence[str], kind: Kind) -> str:
    """Format the caption of `plot_label_noise`."""
    rows, drawn_points = table[table["kind"] == kind], points[points["kind"] == kind]
    n_points, n_drawn = int(rows["n"].max()), int(drawn_points.groupby(["weight_ratio", "level"]).size().max())
    nouns = ("energy", "energies") if kind == "energy" else ("force component", "force components")
    omission = "" if n_drawn >= n_points else f" {n_drawn:,} of them are drawn."
    return (
        f"Residual of the model (label minus prediction, on its own level) against the error of the label (level "
        f"minus level {levels[-1]}), {format_count(n_points, *nouns)} of the test set at {format_twojmax(rows)}, "
        f"trained on the whole training set.{omission} The limits of each panel exclude about "
        f"{format_number(100 * (1 - _SHOWN_SHARE))} % of the points in each direction. r: Pearson's correlation."
    )
