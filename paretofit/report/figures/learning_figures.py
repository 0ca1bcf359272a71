"""Figures of the active-learning loop; each function draws a table and returns the axes.

Errors are in meV/atom, meV/Å and meV/Å³. An iteration has the same colour in all figures; early iterations are dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from paretofit.report.figures import style
from paretofit.report.figures.axes import set_axis_limits
from paretofit.report.figures.style import UNITS, CannotDrawError
from paretofit.report.figures.uncertainty_plots import draw_disagreement, has_disagreement

PROPERTIES = ("energy", "forces", "stress")
SETS = {
    "train": ("#777777", "o", "-"),
    "validate": ("#0072B2", "s", "--"),
    "test": ("#D55E00", "D", "-"),
    "first_test": ("#009E73", "^", ":"),
}


def select_iteration_colours(iterations: Sequence[int]) -> dict[int, Any]:
    """Select a colour for each iteration."""
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.92, max(len(iterations), 1)))
    return dict(zip(sorted(iterations), shades, strict=True))


def plot_errors_over_iterations(iterations: pd.DataFrame) -> np.ndarray:
    """Plot the root mean square errors of the potential on each set by iteration (paper 1, Fig. 4).

    Error bars show the standard deviation of the errors of the members.

    Parameters
    ----------
    iterations : DataFrame
        ``iteration, n_train`` and ``<set>_<property>`` with ``_spread``, as in ``iterations.csv``.

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
            for column in set_columns:
                set_name = column.removesuffix(f"_{name}")
                colour, marker, line = SETS[set_name]
                value, spread = iterations[column], iterations[f"{column}_spread"]
                bars = np.array([np.minimum(spread, 0.7 * value), spread])  # the axis is logarithmic
                ax.errorbar(
                    iterations["iteration"], value, yerr=bars, color=colour, marker=marker, linestyle=line,
                    elinewidth=0.5, label=set_name.replace("first_test", "test set of iteration 1"),
                )  # fmt: skip
            values = iterations[set_columns].to_numpy(float).T.ravel()
            set_axis_limits(ax, "y", values[np.isfinite(values) & (values > 0)])
            ticks = iterations["iteration"].tolist()
            labels = [f"{k}\n{n:.0f}" for k, n in zip(ticks, iterations["n_train"], strict=True)]
            step = max(1, len(ticks) // 6)
            ax.set_xticks(ticks[::step], labels[::step])
            ax.set_ylabel(f"{name} RMSE ({UNITS[name]})")
        figure = style.get_parent_figure(axes)
        figure.supxlabel("iteration, and number of training configurations", fontsize=8)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return axes


def plot_disagreement_by_iteration(errors: pd.DataFrame, calibration: pd.DataFrame) -> np.ndarray:
    """Plot disagreement against error outside the training set by iteration, with the calibration (paper 1, Fig. 5).

    Parameters
    ----------
    errors : DataFrame
        ``of`` (iteration of the committee), ``set``, and ``*_std``, ``*_committee_error`` by property.
    calibration : DataFrame
        ``of``, ``property``, ``slope`` of τ = aε.

    Returns
    -------
    (n,) array of Axes
    """
    rows = errors[errors["set"] != "train"]
    names = [name for name in PROPERTIES if has_disagreement(rows, name)]
    if not names:
        raise CannotDrawError("only the training set has labels")
    colours = select_iteration_colours(sorted(set(rows["of"])))
    groups = [(rows["of"] == k, {"label": f"iteration {k}", "s": 7, "color": colours[k]}) for k in colours]
    with style.publication_style():
        axes = style.create_row(len(names), style.PAGE_WIDTH_IN, 2.9)
        for ax, name in zip(axes, names, strict=True):
            ends = draw_disagreement(ax, rows, name, groups, UNITS[name])
            slopes = calibration.loc[calibration["property"] == name, "slope"].dropna()
            for slope in slopes.tail(1):
                ax.plot(ends, float(slope) * ends, "r--", label="τ = a ε")
                ax.set_title(f"a = {float(slope):.2f}")
        style.add_legend_below(axes, axes[0].get_legend_handles_labels()[0], 6)
    return axes


def plot_map_by_iteration(points: np.ndarray, iteration: np.ndarray, name: str) -> Axes:
    """Plot a map of descriptors, coloured by the iteration that added a configuration (paper 1, Fig. 5).

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
