"""Figures of energy against force errors over the weights, and of learning curves.

Each public ``plot_`` function draws the results table and returns the axes; by default, it creates a new figure,
``ax.figure``. If a figure cannot be drawn, the function raises `CannotDrawError` with the reason.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from paretofit.report.figures import axes as axes_tools
from paretofit.report.figures import style
from paretofit.report.figures.style import CannotDrawError
from paretofit.report.tables import summaries
from paretofit.report.wording import format_ratio

ENERGY_LABEL = "energy RMSE (meV/atom)"
FORCE_LABEL = "force RMSE (meV/Å)"
MAX_LABELLED_WEIGHTS = 5  # number of points of a line with a label
_BAND_QUANTILES = (0.1, 0.9)  # ends of the bands around learning curves


def plot_energy_force_tradeoff(
    results: pd.DataFrame,
    levels: Sequence[str],
    *,
    twojmax: int | None = None,
    ax: Axes | None = None,
    path_table: pd.DataFrame | None = None,
) -> Axes:
    """Plot energy against force RMSE of the test set at the largest subset, with a line over weights for each level.

    Solid lines are errors against the reference level, dotted lines errors against the training level of the model. If
    `path_table` contains the continuous curve, it replaces the straight lines between the points.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    levels : names in order of cost; the last is the reference
    twojmax : model size, the largest by default
    ax : Axes to draw into; a new figure one column wide by default
    path_table : DataFrame, a row per 2Jmax, level and ratio, from `paretofit.sweep.compute_weight_paths`

    Returns
    -------
    Axes

    Raises
    ------
    CannotDrawError
        If all fits have the same ratio of weights, or none has this 2Jmax.
    """
    rows = select_tradeoff_rows(results, levels)
    twojmax = int(rows["twojmax"].max()) if twojmax is None else twojmax
    rows = rows[rows["twojmax"] == twojmax]
    if rows.empty:
        raise CannotDrawError(f"There are no results at 2Jmax = {twojmax}.")
    with style.use_publication_style():
        is_new = ax is None
        ax = style.ensure_axes(ax)
        levels_inside = _draw_tradeoff(ax, rows, levels, path_table)
        handles = _build_tradeoff_handles(rows, levels, levels_inside)
        if is_new:
            style.get_parent_figure(ax).legend(handles=handles, loc="outside lower center", ncols=2)
        else:
            ax.legend(handles=handles, loc="best")
    return ax


def plot_energy_force_by_twojmax(
    results: pd.DataFrame, levels: Sequence[str], *, path_table: pd.DataFrame | None = None
) -> np.ndarray:
    """Plot the figure of `plot_energy_force_tradeoff` for every 2Jmax, with a panel for each.

    The parameters are those of `plot_energy_force_tradeoff`.

    Returns
    -------
    (n_twojmax,) array of Axes, in increasing 2Jmax
    """
    rows = select_tradeoff_rows(results, levels)
    sizes = sorted(set(rows["twojmax"]))
    with style.use_publication_style():
        axes = style.create_panels(len(sizes))
        levels_inside: set[str] = set()
        for ax, twojmax in zip(axes, sizes, strict=True):
            levels_inside |= _draw_tradeoff(ax, rows[rows["twojmax"] == twojmax], levels, path_table)
        style.add_legend_below(axes, _build_tradeoff_handles(rows, levels, levels_inside), 4 if len(axes) > 1 else 2)
    return axes


def select_tradeoff_rows(results: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    """Select the medians at the largest subset; raise `CannotDrawError` if all have the same w_E/w_F."""
    rows = summaries.select_largest_subset(summaries.compute_medians(results, levels))
    if rows["weight_ratio"].nunique() < 2:
        raise CannotDrawError("All fits have the same energy/force weight, so there is no trade-off to draw.")
    return rows


def _draw_tradeoff(ax: Axes, rows: pd.DataFrame, levels: Sequence[str], path_table: pd.DataFrame | None) -> set[str]:
    """Draw the rows of one 2Jmax, and return the levels that have a point inside the axes."""
    drawn_points = []
    curves = None if path_table is None else path_table[path_table["twojmax"] == rows["twojmax"].iloc[0]]
    for level, group in _group_by_level(rows.sort_values("weight_ratio"), levels):
        for kind in ("test", "ref") if level != levels[-1] else ("ref",):  # both are equal at the reference level
            points = group[["level", f"{kind}_energy", f"{kind}_force"]].set_axis(["level", "x", "y"], axis=1)
            curve = None if curves is None else select_path_curve(curves, level, kind, group["weight_ratio"])
            draw_level_line(ax, points, levels, is_reference=kind == "ref", curve=curve)
            drawn_points.append(points)
    points = pd.concat(drawn_points)
    is_inlier = axes_tools.find_inliers(rows["ref_energy"].to_numpy(float))
    is_inlier &= axes_tools.find_inliers(rows["ref_force"].to_numpy(float))
    # Limits ignore levels whose errors against the reference are outliers.
    is_shown = points["level"].isin(rows["level"][is_inlier]).to_numpy()
    x, y = points["x"].to_numpy(float), points["y"].to_numpy(float)
    axes_tools.set_axes_limits(ax, x[is_shown], y[is_shown])
    axes_tools.annotate_outside(ax, x, y, list(points["level"]), "level")
    ax.set_title(f"2Jmax = {rows['twojmax'].iloc[0]}", loc="left")
    ax.set(xlabel=f"test {ENERGY_LABEL}", ylabel=f"test {FORCE_LABEL}")
    annotate_weights(ax, rows, levels)
    return set(points["level"][axes_tools.find_inside_axes(ax, x, y)])


def select_path_curve(path_table: pd.DataFrame, level: str, kind: str, ratios: pd.Series) -> pd.DataFrame | None:
    """Select the curve of a level between the smallest and the largest of the ratios of its points.

    Parameters
    ----------
    path_table : DataFrame, as in `plot_energy_force_tradeoff`, with one 2Jmax
    level : name of the level
    kind : prefix of the columns of the errors: ``"ref"``, ``"test"`` or ``"train"``
    ratios : w_E/w_F of the points

    Returns
    -------
    DataFrame or None
        Energy and force errors in the columns ``x`` and ``y``; None if there is no curve.
    """
    margin = 1.0001  # ratios are rounded to six digits
    is_inside = path_table["weight_ratio"].between(ratios.min() / margin, ratios.max() * margin)
    curve = path_table[is_inside & (path_table["level"].astype(str) == level)]
    return None if curve.empty else curve[[f"{kind}_energy", f"{kind}_force"]].set_axis(["x", "y"], axis=1)


def draw_level_line(
    ax: Axes, points: pd.DataFrame, levels: Sequence[str], *, is_reference: bool, curve: pd.DataFrame | None
) -> None:
    """Draw the errors of a level over the weights as points that are connected by straight lines or by a curve.

    Parameters
    ----------
    ax : Axes
    points : DataFrame with the columns ``level`` (the same in all rows), ``x`` and ``y``, in the order of the weights
    levels : names in order of cost
    is_reference : whether the line is solid and the markers are filled, for errors against the reference level;
        otherwise, the line is dotted and the markers are hollow
    curve : DataFrame from `select_path_curve`, or None for straight lines
    """
    level = points["level"].iloc[0]
    colour = style.get_level_colour(level, levels)
    line_style: dict[str, Any] = {"linestyle": "-" if is_reference else ":", "linewidth": 1.2 if is_reference else 1.0}
    if curve is not None:
        ax.plot(curve["x"].to_numpy(float), curve["y"].to_numpy(float), color=colour, **line_style)
        line_style = {"linestyle": "none", "linewidth": 0.0}
    ax.plot(
        points["x"].to_numpy(float), points["y"].to_numpy(float),
        color=colour, marker=style.get_level_marker(level, levels), markerfacecolor=colour if is_reference else "white",
        markersize=4 if is_reference else 3, label=f"{level} {'ref' if is_reference else 'test'}", **line_style,
    )  # fmt: skip


def annotate_weights(ax: Axes, rows: pd.DataFrame, levels: Sequence[str]) -> None:
    """Write w_E/w_F at up to five points of the highest level, among them those of the smallest and the largest ratio.

    `rows` has the errors of the points in the columns ``ref_energy`` and ``ref_force``, with ``weight_ratio`` and
    ``level``.
    """
    _, highest_level_rows = _group_by_level(rows, levels)[-1]
    points = highest_level_rows.sort_values("weight_ratio")
    n_labels = min(len(points), MAX_LABELLED_WEIGHTS)
    positions = np.unique(np.linspace(0, len(points) - 1, n_labels).round().astype(int))
    for position in positions.tolist():
        row = points.iloc[position]
        offset, alignment = ((5, 0), "center") if position == 0 else ((2, 4), "bottom")
        name = "$w_E/w_F$ = " if position == 0 else ""
        ax.annotate(
            f"{name}{format_ratio(row['weight_ratio'])}", (row["ref_energy"], row["ref_force"]), xytext=offset,
            textcoords="offset points", fontsize=6, verticalalignment=alignment, annotation_clip=True,
            path_effects=style.HALO,
        )  # fmt: skip


def _group_by_level(rows: pd.DataFrame, levels: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """Return the levels that have rows, in the order of `levels`, with these rows."""
    return [(level, rows[rows["level"] == level]) for level in levels if (rows["level"] == level).any()]


def _build_tradeoff_handles(rows: pd.DataFrame, levels: Sequence[str], levels_inside: set[str]) -> list[Line2D]:
    """Build the legend entries of the levels that are inside the axes, and entries for solid and dotted lines."""
    handles = style.build_level_handles(levels, list(rows["level"]), levels_inside)
    reference = style.escape_mathtext(levels[-1])
    handles.append(Line2D([], [], color="#444444", label=f"tested against level {reference}"))
    if set(rows["level"]) - {levels[-1]}:
        handles.append(
            Line2D([], [], color="#444444", linestyle=":", marker="o", markerfacecolor="white", markersize=3,
                   label="tested on own level")
        )  # fmt: skip
    return handles


def plot_learning_curves(
    results: pd.DataFrame,
    levels: Sequence[str],
    *,
    twojmax: int | None = None,
    weight_ratio: float | None = None,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Plot energy and force RMSE against subset size at the reference level, with a line for each sampling method.

    Lines are medians over repetitions; bands extend from the 10th to the 90th percentile.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    levels : names in order of cost; the last is the reference
    twojmax, weight_ratio : model size and w_E/w_F; by default chosen by `choose_default_cell`
    axes : (2,) array of Axes to draw into, energy first; a new figure by default

    Returns
    -------
    (2,) array of Axes
    """
    rows = select_learning_rows(results, levels, twojmax, weight_ratio)
    with style.use_publication_style():
        axes = style.create_panels(2) if axes is None else axes
        for ax, column, label in zip(axes, ("ref_energy", "ref_force"), (ENERGY_LABEL, FORCE_LABEL), strict=True):
            _draw_learning_curves(ax, rows, column)
            ax.set_ylabel(f"test {label}")
        handles, labels = axes[0].get_legend_handles_labels()
        style.get_parent_figure(axes).legend(handles, labels, loc="outside lower center", ncols=5)
        ratio = format_ratio(rows["weight_ratio"].iloc[0])
        axes[0].set_title(f"2Jmax = {rows['twojmax'].iloc[0]}, $w_E/w_F$ = {ratio}", loc="left")
    return axes


def select_learning_rows(
    results: pd.DataFrame, levels: Sequence[str], twojmax: int | None = None, weight_ratio: float | None = None
) -> pd.DataFrame:
    """Select the fits of a learning curve: fits to the reference level with one 2Jmax and one w_E/w_F.

    If a parameter is None, `choose_default_cell` chooses it.

    Raises
    ------
    CannotDrawError
        If there are no such fits, or all have the same subset size.
    """
    frame = summaries.prepare_results(results, levels)
    frame = frame[frame["level"] == levels[-1]]
    if frame.empty:
        raise CannotDrawError(f"There are no fits to the reference level, {levels[-1]}.")
    if twojmax is None or weight_ratio is None:
        default_twojmax, default_ratio = choose_default_cell(frame)
        twojmax = default_twojmax if twojmax is None else twojmax
        weight_ratio = default_ratio if weight_ratio is None else weight_ratio
    frame = frame[(frame["twojmax"] == twojmax) & np.isclose(frame["weight_ratio"], weight_ratio, rtol=1e-5)]
    if frame["n_train"].nunique() < 2:
        raise CannotDrawError("All fits have the same subset size, so there is no learning curve to draw.")
    return frame


def choose_default_cell(frame: pd.DataFrame) -> tuple[int, float]:
    """Choose the 2Jmax and w_E/w_F of the learning curve.

    The 2Jmax is the largest one for which at least half of the subset sizes determine all features (more than half of
    their fits have full rank), or otherwise the smallest one. The w_E/w_F is the middle one of all ratios.
    """
    has_full_rank = frame["rank"] >= frame["n_features"]
    is_determined = has_full_rank.groupby([frame["twojmax"], frame["n_train"]]).mean() > 0.5
    determined_shares = is_determined.groupby("twojmax").mean()
    determined_models = [twojmax for twojmax in determined_shares.index if determined_shares[twojmax] >= 0.5]
    ratios = sorted(set(frame["weight_ratio"]))
    twojmax = max(determined_models, default=min(determined_shares.index))
    return int(twojmax), float(ratios[len(ratios) // 2])


def _draw_learning_curves(ax: Axes, rows: pd.DataFrame, column: str) -> None:
    """Draw the errors of a column over the subset size: medians and bands over repetitions by sampling method."""
    all_sizes, all_medians, names, lower_ends = [], [], [], []
    for sampling in summaries.list_sampling_methods(rows):
        colour, marker, line_style = style.get_sampling_style(sampling)
        grouped = rows[rows["sampling"] == sampling].groupby("n_train")[column]
        medians = grouped.median().astype(float)
        sizes = medians.index.to_numpy(dtype=float)
        label = style.escape_mathtext(sampling)
        ax.plot(sizes, medians.to_numpy(), line_style, color=colour, marker=marker, label=label)
        if grouped.size().max() > 1:
            bands = np.array([summaries.compute_quantiles(errors, _BAND_QUANTILES) for _, errors in grouped])
            low, high = bands.T
            ax.fill_between(sizes, low, high, color=colour, alpha=0.18, linewidth=0)
            lower_ends.append(low)
        all_sizes.append(sizes)
        all_medians.append(medians.to_numpy())
        names += [sampling] * len(medians)
    x, y = np.concatenate(all_sizes), np.concatenate(all_medians)
    is_inside = axes_tools.set_axes_limits(ax, x, y, max_ratio_x=np.inf)
    if lower_ends and is_inside.any():
        # the axis includes the lower ends of the bands, but not the upper ones, which may be far above all medians
        all_lower_ends = np.concatenate(lower_ends)
        shown_lower_ends = all_lower_ends[axes_tools.find_inliers(all_lower_ends)]
        axes_tools.set_axis_limits(ax, "y", np.concatenate([y[is_inside], shown_lower_ends]))
    axes_tools.annotate_outside(ax, x, y, names)
    ax.set_xlabel("training configurations")
