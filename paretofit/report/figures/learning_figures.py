"""Figures of the active-learning loop; each function draws a table and returns the axes.

Errors are in meV/atom, meV/Å and GPa. An iteration has the same colour in all figures; early iterations are dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from paretofit.report.figures import style
from paretofit.report.figures.axes import annotate_outside, set_axes_limits, set_axis_limits
from paretofit.report.figures.style import MIN_RELATIVE_ERROR, CannotDrawError
from paretofit.report.figures.uncertainty_plots import draw_disagreement, has_disagreement

PROPERTIES = ("energy", "forces", "stress")
UNITS = {"energy": "meV/atom", "forces": "meV/Å", "stress": "GPa"}
MEMBER_OFFSET = 0.12  # horizontal distance between the potential and its members, in iterations
CLOSE_RATIO = 1.5  # true errors within this factor of the predicted errors are in the shaded band
SETS = {  # the first test set, which is the same in all iterations, is drawn first and strongest
    "first_test": ("#009E73", "^", "-"),
    "train": ("#777777", "o", "--"),
    "validate": ("#0072B2", "s", ":"),
    "test": ("#D55E00", "D", ":"),
}
SET_LABELS = {"first": "first test set (fixed)", "test": "growing test set"}


def select_iteration_colours(iterations: Sequence[int]) -> dict[int, Any]:
    """Select a colour for each iteration, from dark to light."""
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.92, max(len(iterations), 1)))
    return dict(zip(sorted(iterations), shades, strict=True))


def plot_errors_over_iterations(iterations: pd.DataFrame) -> np.ndarray:
    """Plot the root mean square errors of the potential on each set by iteration (Bidoggia et al., 2025, Fig. 4).

    The potential is the mean of the members. Beside its errors on the training and the test set, bars show the mean and
    the standard deviation of the errors of the individual members.

    Parameters
    ----------
    iterations : DataFrame
        ``iteration, n_train`` and ``<set>_<property>`` with ``_members`` and ``_spread``, as in ``iterations.csv``.

    Returns
    -------
    (n,) array of Axes
    """
    columns = {
        name: [column for column in (f"{set_name}_{name}" for set_name in SETS) if column in iterations
               and iterations[column].notna().any()]
        for name in PROPERTIES
    }  # fmt: skip
    columns = {name: set_columns for name, set_columns in columns.items() if set_columns}
    if not columns:
        raise CannotDrawError("no iteration has been trained")
    with style.publication_style():
        axes = style.create_row(len(columns), style.PAGE_WIDTH_IN)
        for ax, (name, set_columns) in zip(axes, columns.items(), strict=True):
            drawn = [_draw_errors(ax, iterations, column, SETS[column.removesuffix(f"_{name}")])
                     for column in set_columns]  # fmt: skip
            values = np.concatenate(drawn)
            set_axis_limits(ax, "y", values[np.isfinite(values) & (values > 0)])
            ticks = iterations["iteration"].tolist()
            labels = [f"{k}\n{n:.0f}" for k, n in zip(ticks, iterations["n_train"], strict=True)]
            step = max(1, len(ticks) // 6)
            ax.set_xticks(ticks[::step], labels[::step])
            ax.set_xlim(min(ticks) - 0.4, max(ticks) + 0.4)
            ax.set_ylabel(f"{name} RMSE ({UNITS[name]})")
        figure = style.get_parent_figure(axes)
        figure.supxlabel("iteration, and number of training configurations", fontsize=8)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=6)
    return axes


def _draw_errors(ax: Axes, iterations: pd.DataFrame, column: str, set_style: tuple[str, str, str]) -> np.ndarray:
    """Draw the errors of the potential on a set, and of its members on the training and test set; return all values."""
    set_name, (colour, marker, line) = column.split("_", maxsplit=1)[0], set_style
    label = SET_LABELS.get(set_name, set_name)
    numbers, value = iterations["iteration"], iterations[column]
    if set_name == "first":
        value = iterations.get(f"{column}_weighted", value)
    width = 2.0 if set_name == "first" else 0.9
    ax.plot(numbers, value, color=colour, marker=marker, linestyle=line, linewidth=width, label=label)
    if set_name not in {"train", "test"}:
        return value.to_numpy(float)
    members, spread = iterations[f"{column}_members"], iterations[f"{column}_spread"]
    bars = np.array([np.minimum(spread, 0.7 * members), spread])  # lower ends stay positive on the logarithmic axis
    ax.errorbar(
        numbers + MEMBER_OFFSET, members, yerr=bars, color=colour, marker=marker, markerfacecolor="white",
        linestyle="none", elinewidth=0.6, alpha=0.7, label=f"{label}: members",
    )  # fmt: skip
    return np.concatenate([value, members, members + spread]).astype(float)


def plot_batch_errors(batches: pd.DataFrame) -> np.ndarray:
    """Plot true against predicted errors of new frames, coloured by the iteration that labelled them.

    The predictions are those of the committee that chose the frames, before it was trained on them.

    Parameters
    ----------
    batches : DataFrame
        ``iteration``, and by property ``*_expected`` and ``*_committee_error``, as in ``batch_errors.csv``.

    Returns
    -------
    (n,) array of Axes
    """
    pairs = {name: (f"{name}_expected", f"{name}_committee_error") for name in PROPERTIES}
    pairs = {name: pair for name, pair in pairs.items() if set(pair) <= set(batches) and
             (batches[pair[0]] * batches[pair[1]]).gt(0).any()}  # fmt: skip
    if not pairs:
        raise CannotDrawError("no frames with predicted errors have been labelled")
    colours = select_iteration_colours(sorted(set(batches["iteration"])))
    with style.publication_style():
        axes = style.create_row(len(pairs), style.PAGE_WIDTH_IN, 2.9)
        for ax, (name, (expected, true)) in zip(axes, pairs.items(), strict=True):
            rows = batches[(batches[expected] * batches[true]).gt(0)]
            for k, colour in colours.items():
                points = rows[rows["iteration"] == k]
                ax.scatter(points[expected], points[true], s=8, color=colour, linewidth=0, label=f"iteration {k}")
            values = rows[[expected, true]].to_numpy(float).ravel()
            set_axes_limits(ax, values, values, np.inf, np.inf)
            ends = np.array(ax.get_xlim())
            ax.plot(ends, ends, color="black", linewidth=0.7)
            ax.fill_between(ends, ends / CLOSE_RATIO, ends * CLOSE_RATIO, color="black", alpha=0.1, linewidth=0)
            ax.set_title(f"true / predicted: {(rows[true] / rows[expected]).median():.2f}")
            ax.set_xlabel(f"predicted {name} error ({UNITS[name]})")
            ax.set_ylabel(f"true {name} error ({UNITS[name]})")
        handles: dict[str, Any] = {}  # handles by label, because each panel may lack points of some iterations
        for ax in axes:
            handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        style.add_legend_below(axes, list(handles.values()), 6)
    return axes


def plot_disagreement_by_iteration(points: pd.DataFrame, calibration: pd.DataFrame) -> np.ndarray:
    """Plot disagreement against error of calibration points, coloured by iteration, with τ = aε.

    The figure corresponds to Bidoggia et al. (2025), Fig. 5.

    Parameters
    ----------
    points : DataFrame
        ``of`` (iteration of the committee), and ``*_std``, ``*_committee_error`` by property.
    calibration : DataFrame
        ``of``, ``property``, ``slope`` of τ = aε.

    Returns
    -------
    (n,) array of Axes
    """
    names = [name for name in PROPERTIES if has_disagreement(points, name)]
    if not names:
        raise CannotDrawError("no configuration outside the training set has a label")
    colours = select_iteration_colours(sorted(set(points["of"])))
    groups = [(points["of"] == k, {"label": f"iteration {k}", "s": 7, "color": colours[k]}) for k in colours]
    with style.publication_style():
        axes = style.create_row(len(names), style.PAGE_WIDTH_IN, 2.9)
        for ax, name in zip(axes, names, strict=True):
            ends = draw_disagreement(ax, points, name, groups, UNITS[name])
            _limit_to_last_iteration(ax, points, name)
            slopes = calibration.loc[calibration["property"] == name, "slope"].dropna()
            for slope in slopes.tail(1):  # the last calibration, if there is one
                ax.plot(ends, float(slope) * ends, "r--", label="τ = a ε")
                ax.set_title(f"a = {float(slope):.2f}", loc="left")
        style.add_legend_below(axes, axes[0].get_legend_handles_labels()[0], 6)
    return axes


def _limit_to_last_iteration(ax: Axes, points: pd.DataFrame, name: str) -> None:
    """Limit the axes to the points of the last committee, and note how many points are outside.

    The points of the first committee span decades more.
    """
    error, spread = points[f"{name}_committee_error"], points[f"{name}_std"]
    is_last = (points["of"] == points["of"].max()) & (error > MIN_RELATIVE_ERROR * error.median()) & (spread > 0)
    if is_last.sum() > 1:
        set_axes_limits(ax, error[is_last].to_numpy(), spread[is_last].to_numpy(), np.inf, np.inf)
        annotate_outside(ax, error[error * spread > 0].to_numpy(), spread[error * spread > 0].to_numpy())


def plot_map_by_iteration(points: np.ndarray, iteration: np.ndarray, name: str) -> Axes:
    """Plot a map of descriptors, coloured by the iteration that added a configuration (Bidoggia et al., 2025, Fig. 5).

    Parameters
    ----------
    points : (n, 2) float
    iteration : (n,) int
    name : str
        Name of the method, such as "t-SNE".
    """
    with style.publication_style():
        ax = style.ensure_axes(None, 0.9)
        for k, colour in select_iteration_colours(sorted(set(iteration.tolist()))).items():
            x, y = points[iteration == k].T
            ax.scatter(x, y, s=9, color=colour, linewidth=0, label=f"iteration {k}")
        ax.set_xlabel(f"{name} 1")
        ax.set_ylabel(f"{name} 2")
        ax.legend(markerscale=1.5, fontsize=6)
    return ax
