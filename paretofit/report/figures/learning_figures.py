"""Figures of the active-learning loop; each function draws a table and returns the axes.

Errors are in meV/atom, meV/Å and GPa. Colours of iterations are the same in all figures; early iterations are dark.
A function raises `CannotDrawError` if its table has nothing to draw.
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
# Colour, marker and line style by the name of a set in the columns of the table. The first test set, which is the same
# in all iterations, is drawn first, with the thickest line.
SETS = {
    "first_test": ("#009E73", "^", "-"),
    "train": ("#777777", "o", "--"),
    "validate": ("#0072B2", "s", ":"),
    "test": ("#D55E00", "D", ":"),
}
SET_LABELS = {"first_test": "first test set (fixed)", "test": "growing test set"}  # labels that differ from the name


def select_iteration_colours(iterations: Sequence[int]) -> dict[int, Any]:
    """Select an RGBA colour for each iteration, from dark to light."""
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.92, max(len(iterations), 1)))
    return dict(zip(sorted(iterations), shades, strict=True))


def plot_errors_over_iterations(iterations: pd.DataFrame) -> np.ndarray:
    """Plot the root mean square errors of the potential on each set by iteration (Bidoggia et al., 2025, Fig. 4).

    The potential is the mean of the members. Beside its errors on the training and the test set, bars show the mean and
    the standard deviation of the errors of the individual members.

    Parameters
    ----------
    iterations : DataFrame
        ``iteration``, ``n_train`` and, for each set and property, the error of the potential, ``<set>_<property>``; for
        the training and the test set also the mean and the standard deviation of the errors of the members, with the
        suffixes ``_members`` and ``_spread``; as in ``iterations.csv``.

    Returns
    -------
    (n_properties,) array of Axes
    """
    has_errors = {column: iterations[column].notna().any() for column in iterations}
    sets_by_property = {
        name: [set_name for set_name in SETS if has_errors.get(f"{set_name}_{name}", False)] for name in PROPERTIES
    }
    sets_by_property = {name: set_names for name, set_names in sets_by_property.items() if set_names}
    if not sets_by_property:
        raise CannotDrawError("no iteration has been trained")
    with style.use_publication_style():
        axes = style.create_row(len(sets_by_property), style.PAGE_WIDTH_IN)
        for ax, (name, set_names) in zip(axes, sets_by_property.items(), strict=True):
            errors = np.concatenate([_draw_errors(ax, iterations, set_name, name) for set_name in set_names])
            set_axis_limits(ax, "y", errors[np.isfinite(errors) & (errors > 0)])
            ticks = iterations["iteration"].tolist()
            labels = [f"{tick}\n{n_train:.0f}" for tick, n_train in zip(ticks, iterations["n_train"], strict=True)]
            step = max(1, len(ticks) // 6)  # more than about six labels would overlap
            ax.set_xticks(ticks[::step], labels[::step])
            ax.set_xlim(min(ticks) - 0.4, max(ticks) + 0.4)
            ax.set_ylabel(f"{name} RMSE ({UNITS[name]})")
        figure = style.get_parent_figure(axes)
        figure.supxlabel("iteration, and number of training configurations", fontsize=8)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=6)
    return axes


def _draw_errors(ax: Axes, iterations: pd.DataFrame, set_name: str, property_name: str) -> np.ndarray:
    """Draw the errors of the potential on a set and, for the training and the test set, those of its members.

    The errors on the first test set are those of the column with the suffix ``_weighted``, if the table has it.

    Returns
    -------
    (n,) float64
        All drawn errors and upper ends of bars.
    """
    colour, marker, line_style = SETS[set_name]
    label, column = SET_LABELS.get(set_name, set_name), f"{set_name}_{property_name}"
    numbers, errors = iterations["iteration"], iterations[column]
    is_first_test = set_name == "first_test"
    if is_first_test:
        errors = iterations.get(f"{column}_weighted", errors)
    width = 2.0 if is_first_test else 0.9
    ax.plot(numbers, errors, color=colour, marker=marker, linestyle=line_style, linewidth=width, label=label)
    if set_name not in {"train", "test"}:
        return errors.to_numpy(float)
    members, spread = iterations[f"{column}_members"], iterations[f"{column}_spread"]
    bars = np.array([np.minimum(spread, 0.7 * members), spread])  # lower ends stay positive on the logarithmic axis
    ax.errorbar(
        numbers + MEMBER_OFFSET, members, yerr=bars, color=colour, marker=marker, markerfacecolor="white",
        linestyle="none", elinewidth=0.6, alpha=0.7, label=f"{label}: members",
    )  # fmt: skip
    return np.concatenate([errors, members, members + spread]).astype(float)


def plot_batch_errors(batches: pd.DataFrame) -> np.ndarray:
    """Plot true against predicted errors of new frames, coloured by the iteration that labelled them.

    The predictions are those of the committee that chose the frames, before it was trained on them. The titles give the
    median ratio of true to predicted errors; the band contains ratios within a factor of `CLOSE_RATIO`.

    Parameters
    ----------
    batches : DataFrame
        ``iteration``, and by property ``*_expected`` (predicted) and ``*_committee_error`` (true), as in
        ``batch_errors.csv``.

    Returns
    -------
    (n_properties,) array of Axes
    """
    rows_by_property = {}
    for name in PROPERTIES:
        expected, true = f"{name}_expected", f"{name}_committee_error"
        if {expected, true} <= set(batches):
            rows = batches[(batches[expected] * batches[true]).gt(0)]  # the axes are logarithmic
            if len(rows):
                rows_by_property[name] = rows
    if not rows_by_property:
        raise CannotDrawError("no frames with predicted errors have been labelled")
    colours = select_iteration_colours(sorted(set(batches["iteration"])))
    with style.use_publication_style():
        axes = style.create_row(len(rows_by_property), style.PAGE_WIDTH_IN, 2.9)
        for ax, (name, rows) in zip(axes, rows_by_property.items(), strict=True):
            expected, true = f"{name}_expected", f"{name}_committee_error"
            for iteration, colour in colours.items():
                points = rows[rows["iteration"] == iteration]
                label = f"iteration {iteration}"
                ax.scatter(points[expected], points[true], s=8, color=colour, linewidth=0, label=label)
            errors = rows[[expected, true]].to_numpy(float).ravel()
            set_axes_limits(ax, errors, errors, np.inf, np.inf)  # both axes have the same limits
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
    """Plot disagreement against error of calibration points, coloured by iteration, with the last calibration.

    The calibration τ = aε gives the threshold τ of the disagreement for an error ε. The figure corresponds to Bidoggia
    et al. (2025), Fig. 5.

    Parameters
    ----------
    points : DataFrame
        ``of`` (iteration of the committee), and for each property ``*_std`` (disagreement) and ``*_committee_error``.
    calibration : DataFrame
        ``of``, ``property``, and the ``slope`` a, in the order of iterations.

    Returns
    -------
    (n_properties,) array of Axes
    """
    names = [name for name in PROPERTIES if has_disagreement(points, name)]
    if not names:
        raise CannotDrawError("no configuration outside the training set has a label")
    colours = select_iteration_colours(sorted(set(points["of"])))
    groups = [
        (points["of"] == iteration, {"label": f"iteration {iteration}", "s": 7, "color": colour})
        for iteration, colour in colours.items()
    ]
    with style.use_publication_style():
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

    The points of the first committees, which span more decades, would compress those of later ones. Without
    two positive points of the last committee, the limits stay as they are.
    """
    error, disagreement = points[f"{name}_committee_error"], points[f"{name}_std"]
    is_last = (points["of"] == points["of"].max()) & (disagreement > 0)
    is_last &= error > MIN_RELATIVE_ERROR * error.median()
    if is_last.sum() > 1:
        set_axes_limits(ax, error[is_last].to_numpy(), disagreement[is_last].to_numpy(), np.inf, np.inf)
        is_positive = error * disagreement > 0
        annotate_outside(ax, error[is_positive].to_numpy(), disagreement[is_positive].to_numpy())


def plot_map_by_iteration(points: np.ndarray, iterations: np.ndarray, name: str) -> Axes:
    """Plot a map of descriptors, coloured by the iteration that added a configuration (Bidoggia et al., 2025, Fig. 5).

    Parameters
    ----------
    points : (n, 2) float
        Coordinates of the configurations in the map.
    iterations : (n,) int
        Iteration that added each configuration.
    name : str
        Name of the method, such as ``"t-SNE"``.
    """
    with style.use_publication_style():
        ax = style.ensure_axes(None, 0.9)
        for iteration, colour in select_iteration_colours(sorted(set(iterations.tolist()))).items():
            x, y = points[iterations == iteration].T
            ax.scatter(x, y, s=9, color=colour, linewidth=0, label=f"iteration {iteration}")
        ax.set_xlabel(f"{name} 1")
        ax.set_ylabel(f"{name} 2")
        ax.legend(markerscale=1.5, fontsize=6)
    return ax
