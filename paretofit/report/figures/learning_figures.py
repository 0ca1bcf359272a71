"""Figures of the active-learning loop: each a function of a table that returns its axes.

Errors are in meV/atom, meV/Å and meV/Å³; an iteration has one colour in all figures, early ones dark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from paretofit.report.figures import style
from paretofit.report.figures.axes import set_axes_limits, set_axis_limits
from paretofit.report.figures.sweep_figures import CannotDrawError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

MIN_RELATIVE_ERROR = 1e-3  # of the median error: below, errors vanish by symmetry, and are not drawn
UNITS = {"energy": "meV/atom", "forces": "meV/Å", "stress": "meV/Å³"}
SETS = {
    "train": ("#777777", "o", "-"),
    "validate": ("#0072B2", "s", "--"),
    "test": ("#D55E00", "D", "-"),
    "first_test": ("#009E73", "^", ":"),
}


def iteration_colours(iterations: Sequence[int]) -> dict[int, Any]:
    """One colour for each iteration."""
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.92, max(len(iterations), 1)))
    return dict(zip(sorted(iterations), shades, strict=True))


def plot_errors_over_iterations(iterations: pd.DataFrame) -> np.ndarray:
    """Root mean squared errors of the potential on the three sets by iteration (paper 1, Fig. 4).

    Bars: standard deviation of the members' errors.

    Parameters
    ----------
    iterations : DataFrame
        ``iteration, n_train`` and ``<set>_<property>`` with ``_spread``, as in ``iterations.csv``.

    Returns
    -------
    (n,) array of Axes
    """
    known = [
        one for one in UNITS if any(f"{name}_{one}" in iterations and iterations[f"{name}_{one}"].notna().any()
                                    for name in SETS)
    ]  # fmt: skip
    if not known:
        raise CannotDrawError("no iteration has been trained")
    with style.publication_style():
        figure = Figure(figsize=(style.PAGE_WIDTH_IN, 2.7), layout="constrained")
        axes: np.ndarray = figure.subplots(1, len(known), squeeze=False)[0]
        for ax, name in zip(axes, known, strict=True):
            for one, (colour, marker, line) in SETS.items():
                column = f"{one}_{name}"
                if column in iterations and iterations[column].notna().any():
                    value, spread = iterations[column], iterations[f"{column}_spread"]
                    bars = np.array([np.minimum(spread, 0.7 * value), spread])  # a logarithmic axis has no zero
                    ax.errorbar(iterations["iteration"], value, yerr=bars, color=colour, marker=marker, linestyle=line,
                                elinewidth=0.5, label=one.replace("first_test", "test set of iteration 1"))  # fmt: skip
            values = np.concatenate(
                [iterations[f"{one}_{name}"].to_numpy(float) for one in SETS if f"{one}_{name}" in iterations]
            )
            set_axis_limits(ax, "y", values[np.isfinite(values) & (values > 0)])
            ticks = iterations["iteration"].tolist()
            labels = [f"{k}\n{n:.0f}" for k, n in zip(ticks, iterations["n_train"], strict=True)]
            step = max(1, len(ticks) // 6)
            ax.set_xticks(ticks[::step], labels[::step])
            ax.set_ylabel(f"{name} RMSE ({UNITS[name]})")
        figure.supxlabel("iteration, and configurations that train", fontsize=8)
        handles = [axes[0].get_legend_handles_labels()[0], axes[0].get_legend_handles_labels()[1]]
        figure.legend(*handles, loc="outside upper center", ncols=4)
    return axes


def plot_disagreement_by_iteration(errors: pd.DataFrame, calibration: pd.DataFrame) -> np.ndarray:
    """Disagreement against error of what did not train, by iteration, with its calibration (paper 1, Fig. 5).

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
    apart = errors[errors["set"] != "train"]
    known = [one for one in UNITS if (apart[f"{one}_std"] * apart[f"{one}_committee_error"]).gt(0).any()]
    if not known:
        raise CannotDrawError("nothing but the training set has labels")
    colours = iteration_colours(sorted(set(apart["of"])))
    with style.publication_style():
        figure = Figure(figsize=(style.PAGE_WIDTH_IN, 2.9), layout="constrained")
        axes: np.ndarray = figure.subplots(1, len(known), squeeze=False)[0]
        for ax, name in zip(axes, known, strict=True):
            error, spread = apart[f"{name}_committee_error"], apart[f"{name}_std"]
            shown = (error > MIN_RELATIVE_ERROR * error.median()) & (spread > 0)
            for k, colour in colours.items():
                own = shown & (apart["of"] == k)
                ax.scatter(error[own], spread[own], s=7, color=colour, alpha=0.7, linewidth=0, label=f"iteration {k}")
            set_axes_limits(ax, error[shown].to_numpy(), spread[shown].to_numpy(), np.inf, np.inf)
            ends = np.array([error[shown].min(), error[shown].max()])
            lines = calibration[(calibration["property"] == name) & calibration["slope"].notna()]
            for _, line in lines.tail(1).iterrows():
                ax.plot(ends, float(line["slope"]) * ends, "r--", label="τ = a ε")
                ax.set_title(f"a = {float(line['slope']):.2f}")
            ax.set_xlabel(f"{name} error ({UNITS[name]})")
            ax.set_ylabel(f"disagreement ({UNITS[name]})")
        style.add_legend_below(axes, axes[0].get_legend_handles_labels()[0], 6)
    return axes


def plot_map_by_iteration(points: np.ndarray, iteration: np.ndarray, name: str) -> Axes:
    """A map of descriptors, coloured by the iteration in which a configuration was added (paper 1, Fig. 5).

    Parameters
    ----------
    points : (n, 2) float
    iteration : (n,) int
    name : str
        Of the map, such as "t-SNE".
    """
    colours = iteration_colours(sorted(set(iteration.tolist())))
    with style.publication_style():
        ax = style.ensure_axes(None, 0.9)
        for k, colour in colours.items():
            own = iteration == k
            ax.scatter(points[own, 0], points[own, 1], s=9, color=colour, linewidth=0, label=f"iteration {k}")
        ax.set_xlabel(f"{name} 1")
        ax.set_ylabel(f"{name} 2")
        ax.legend(markerscale=1.5, fontsize=6)
    return ax
