"""Figures of an evaluation; each function draws a table of `paretofit evaluate` and returns the axes.

Errors, disagreements and intervals are in meV/atom, meV/Å and GPa. A function raises `CannotDrawError` if its table has
nothing to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paretofit.report.figures import style
from paretofit.report.figures.axes import annotate_outside, set_axes_limits
from paretofit.report.figures.drawing import FigurePlan
from paretofit.report.figures.style import MIN_RELATIVE_ERROR, CannotDrawError

LABEL_UNITS = {"energy": "eV/atom", "force": "eV/Å", "stress": "GPa"}
ERROR_UNITS = {"energy": "meV/atom", "force": "meV/Å", "stress": "GPa"}
SETS = {  # colour, and drawing order from back to front; "validate" and "test" are sets of the active-learning loop
    "train": ("#999999", 1),
    "held out": ("#0072B2", 2),
    "new": ("#D55E00", 3),
    "validate": ("#0072B2", 2),
    "test": ("#D55E00", 3),
}
GRADES = {  # colour and marker of points, by the verdict on the extrapolation
    "interpolation": ("#0072B2", "o"),
    "extrapolation": ("#E69F00", "^"),
    "strong extrapolation": ("#D55E00", "s"),
}
CENTRAL_QUANTILE = 0.99  # a parity figure always shows the values from the 1 % quantile to this one
MAX_RANGE_RATIO = 3.0  # axes are limited if all values span more than this multiple of the range of the central ones
MAX_SCATTER_POINTS = 20_000  # from 2, 3, ... times this number on, only every second, third, ... point is drawn


def plot_parity(table: pd.DataFrame, components: pd.DataFrame) -> np.ndarray:
    """Plot predictions against labels, with a histogram of the errors, for each quantity that has labels.

    Parameters
    ----------
    table, components : DataFrame
        Tables of an `Evaluation`.

    Returns
    -------
    (n_quantities,) array of Axes
    """
    labelled = components[components["error"].notna()]
    quantities = _list_quantities(labelled["quantity"])
    with style.use_publication_style():
        axes = style.create_row(len(quantities))
        for ax, quantity in zip(axes, quantities, strict=True):
            rows = labelled[labelled["quantity"] == quantity]
            _draw_parity(ax, rows, table["set"].to_numpy()[rows["configuration"]], ERROR_UNITS[quantity])
            ax.set_xlabel(f"{quantity}, label ({LABEL_UNITS[quantity]})")
            ax.set_ylabel(f"{quantity}, prediction ({LABEL_UNITS[quantity]})")
            ax.legend(loc="upper left", markerscale=2)
    return axes


def _draw_parity(ax: Axes, rows: pd.DataFrame, set_names: np.ndarray, error_unit: str) -> None:
    """Draw predictions against labels by set, with a histogram of the errors as an inset.

    `set_names` contains the name of the set of each row.
    """
    pairs = rows[["label", "prediction"]].to_numpy()
    ends = np.array([np.min(pairs), np.max(pairs)])
    ax.plot(ends, ends, color="black", linewidth=0.6, zorder=0)
    low, high = np.quantile(pairs, [1 - CENTRAL_QUANTILE, CENTRAL_QUANTILE])
    margin = (high - low) / 2
    if high > low and ends[1] - ends[0] > MAX_RANGE_RATIO * (high - low):  # a few outliers would compress all others
        ax.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
        annotate_outside(ax, pairs[:, 0], pairs[:, 1])
    inset = ax.inset_axes((0.62, 0.1, 0.35, 0.3))
    # A few large errors must not compress the histogram. If the quantile is zero, the bins still require a range.
    max_error = float(np.quantile(rows["error"].abs(), 0.98)) or 1.0
    for name, (colour, order) in SETS.items():
        points = rows[set_names == name].iloc[:: max(1, len(rows) // MAX_SCATTER_POINTS)]
        if len(points):
            ax.scatter(
                points["label"], points["prediction"], s=4, color=colour, alpha=0.5, linewidth=0, zorder=order,
                label=name, rasterized=True,
            )  # fmt: skip
            inset.hist(
                points["error"], bins=31, range=(-max_error, max_error), density=True, histtype="step", color=colour,
                linewidth=0.8,
            )  # fmt: skip
    inset.set_yticks([])
    inset.tick_params(labelsize=5)
    inset.set_title(f"error ({error_unit})", fontsize=5, pad=1)
    inset.grid(visible=False)


def plot_disagreement_against_error(table: pd.DataFrame, slopes: pd.DataFrame) -> np.ndarray:
    """Plot the disagreement of a committee against its error, with the calibration τ = aε.

    Disagreement and error are those of Bidoggia et al. (2025), equations 1 and 2; the threshold τ of the disagreement
    corresponds to the error ε.

    Parameters
    ----------
    table : DataFrame
        Table of an `Evaluation`; configurations of the training set are not drawn.
    slopes : DataFrame
        ``quantity``, ``slope`` a, and ``confidence``, the half width of the interval of a.

    Returns
    -------
    (n_quantities,) array of Axes
    """
    rows = table[table["set"] != "train"]
    quantities = [name for name in ERROR_UNITS if f"{name}_std" in rows and has_disagreement(rows, name)]
    with style.use_publication_style():
        axes = style.create_row(len(quantities))
        for ax, quantity in zip(axes, quantities, strict=True):
            groups = [
                (rows["verdict"] == name, {"label": name, "s": 8, "color": colour, "marker": marker})
                for name, (colour, marker) in GRADES.items()
                if (rows["verdict"] == name).any()
            ]
            ends = draw_disagreement(ax, rows, quantity, groups, ERROR_UNITS[quantity])
            for _, calibration in slopes[slopes["quantity"] == quantity].iterrows():
                slope, half_width = float(calibration["slope"]), float(calibration["confidence"])
                ax.plot(ends, slope * ends, color="black", label=f"τ = {slope:.2f} ε")
                lower, upper = (slope - half_width) * ends, (slope + half_width) * ends
                ax.fill_between(ends, lower, upper, color="black", alpha=0.15, linewidth=0)
            ax.legend(loc="upper left")
    return axes


def has_disagreement(rows: pd.DataFrame, quantity: str) -> bool:
    """Return whether any row has both a positive disagreement and a positive error of a quantity."""
    return bool((rows[f"{quantity}_std"] * rows[f"{quantity}_committee_error"]).gt(0).any())


def draw_disagreement(
    ax: Axes, rows: pd.DataFrame, quantity: str, groups: Iterable[tuple[pd.Series, dict[str, Any]]], unit: str
) -> np.ndarray:
    """Draw the disagreement on a quantity against its error, without disagreements or errors that are zero.

    `rows` has the columns ``<quantity>_std`` (disagreement) and ``<quantity>_committee_error``, both in `unit`. Each of
    the `groups` is a mask of rows and the style of their points. The limits of the axes are set.

    Returns
    -------
    (2,) float64
        Lowest and highest error that is shown.
    """
    error, disagreement = rows[f"{quantity}_committee_error"], rows[f"{quantity}_std"]
    is_shown = (error > MIN_RELATIVE_ERROR * error.median()) & (disagreement > 0)
    for is_in_group, point_style in groups:
        mask = is_in_group & is_shown
        ax.scatter(error[mask], disagreement[mask], alpha=0.7, linewidth=0, **point_style)
    set_axes_limits(ax, error[is_shown].to_numpy(), disagreement[is_shown].to_numpy(), np.inf, np.inf)
    ax.set(xlabel=f"{quantity} error ({unit})", ylabel=f"disagreement ({unit})")
    return np.array([error[is_shown].min(), error[is_shown].max()])


def plot_detection(rates: pd.DataFrame, slopes: pd.DataFrame | None = None) -> np.ndarray:
    """Plot maps of the true-positive rate and the positive predictive value over both thresholds.

    The rates are those of Bidoggia et al. (2025), equations 3 and 4; a map is white where a rate is not defined (NaN).

    Parameters
    ----------
    rates : DataFrame
        ``quantity``, ``true_positive_rate`` and ``positive_predictive_value`` on a grid of the thresholds of the
        disagreement, ``spread_limit``, and of the error, ``error_limit``.
    slopes : DataFrame, optional
        ``quantity``, ``slope`` of the calibration τ = aε, drawn as a line.

    Returns
    -------
    (n_quantities, 2) array of Axes
    """
    quantities = _list_quantities(rates["quantity"])
    titles = {
        "true_positive_rate": "detected share of the large errors",
        "positive_predictive_value": "share of detections with a large error",
    }
    with style.use_publication_style():
        figure = Figure(figsize=(style.PAGE_WIDTH_IN, 2.5 * len(quantities)), layout="constrained")
        axes = figure.subplots(len(quantities), 2, squeeze=False)
        for row_axes, quantity in zip(axes, quantities, strict=True):
            rows = rates[rates["quantity"] == quantity]
            drawn_slopes = () if slopes is None else slopes[slopes["quantity"] == quantity]["slope"].dropna()
            for ax, (column, title) in zip(row_axes, titles.items(), strict=True):
                detection_rates = rows.pivot_table(
                    index="spread_limit", columns="error_limit", values=column, dropna=False
                )
                _draw_detection(ax, detection_rates, drawn_slopes)
                ax.set_title(title)
                ax.set_xlabel(f"threshold of the {quantity} error ({ERROR_UNITS[quantity]})")
                ax.set_ylabel(f"threshold of the disagreement ({ERROR_UNITS[quantity]})")
    return axes


def _draw_detection(ax: Axes, detection_rates: pd.DataFrame, slopes: Iterable[float]) -> None:
    """Draw a map of detection rates, over disagreement (index) and error (columns), with lines of the given slopes."""
    x, y = np.asarray(detection_rates.columns, dtype=float), np.asarray(detection_rates.index, dtype=float)
    image = ax.pcolormesh(
        x, y, detection_rates.to_numpy(), vmin=0, vmax=1, cmap="cividis", shading="nearest", rasterized=True
    )
    set_axes_limits(ax, x, y, np.inf, np.inf)
    ax.set(xlim=(x.min(), x.max()), ylim=(y.min(), y.max()))
    ax.grid(visible=False)
    ends = np.array([x.min(), x.max()])
    for slope in slopes:
        ax.plot(ends, slope * ends, "r--", linewidth=1.0)
    style.get_parent_figure(ax).colorbar(image, ax=ax, pad=0.01)


def plot_coverage(curve: pd.DataFrame) -> np.ndarray:
    """Plot the measured coverage of prediction intervals against the nominal coverage.

    Parameters
    ----------
    curve : DataFrame
        ``quantity``, ``test_set`` (the same in all rows), ``nominal`` coverage, and the measured coverage of conformal
        intervals (``conformal``) and of intervals that treat the disagreement as a standard deviation of normal
        errors (``spread``).

    Returns
    -------
    (n_quantities,) array of Axes
    """
    quantities = _list_quantities(curve["quantity"])
    with style.use_publication_style():
        axes = style.create_row(len(quantities))
        for ax, quantity in zip(axes, quantities, strict=True):
            rows = curve[curve["quantity"] == quantity]
            ax.plot([0, 1], [0, 1], color="black", linewidth=0.6, linestyle=":")
            ax.plot(rows["nominal"], rows["conformal"], color="#0072B2", marker="o", label="conformal")
            ax.plot(rows["nominal"], rows["spread"], color="#D55E00", marker="s", label="disagreement as σ")
            ax.set(xlim=(0, 1), ylim=(0, 1), xlabel=f"{quantity}: nominal coverage")
        test_set = str(curve["test_set"].iloc[0])
        note = ", which calibrated the intervals" if test_set == "held out" else ""
        style.get_parent_figure(axes).suptitle(f"{test_set} configurations{note}", fontsize=8)
        axes[0].set_ylabel("measured coverage")
        axes[0].legend(loc="lower right")
    return axes


def plot_error_against_grade(table: pd.DataFrame) -> np.ndarray:
    """Plot absolute errors against the highest extrapolation grade of an atom of each configuration.

    Dotted lines mark the limits of extrapolation (1) and strong extrapolation (2).

    Parameters
    ----------
    table : DataFrame
        Table of an `Evaluation` with extrapolation grades.

    Returns
    -------
    (n_quantities,) array of Axes
    """
    quantities = [name for name in ERROR_UNITS if table[f"{name}_error"].abs().gt(0).any()]
    finite = table[np.isfinite(table["extrapolation_grade"])]
    if finite.empty or not quantities:
        raise CannotDrawError("no configuration has both a label and a grade")
    with style.use_publication_style():
        axes = style.create_row(len(quantities))
        for ax, quantity in zip(axes, quantities, strict=True):
            error, grade = finite[f"{quantity}_error"].abs(), finite["extrapolation_grade"]
            is_shown = error > MIN_RELATIVE_ERROR * error.median()
            for name, (colour, order) in SETS.items():
                mask = is_shown & (finite["set"] == name)
                if mask.any():
                    ax.scatter(
                        grade[mask], error[mask], s=8, color=colour, alpha=0.7, linewidth=0, zorder=order, label=name
                    )
            for limit in (1, 2):
                ax.axvline(limit, color="black", linewidth=0.6, linestyle=":")
            set_axes_limits(ax, grade[is_shown].to_numpy(), error[is_shown].to_numpy(), np.inf, np.inf)
            ax.set_ylabel(f"{quantity} error ({ERROR_UNITS[quantity]})")
        axes[0].legend(loc="best", framealpha=0.8, frameon=True)
        style.get_parent_figure(axes).supxlabel(
            "highest extrapolation grade of an atom (above 1: extrapolation, above 2: strong extrapolation)", fontsize=8
        )
    return axes


def plan_uncertainty_figures(
    table: pd.DataFrame, components: pd.DataFrame, derived: dict[str, pd.DataFrame]
) -> Iterator[FigurePlan]:
    """Plan all figures of this module for which there are data, with their captions.

    Parameters
    ----------
    table, components : DataFrame
        Tables of an `Evaluation`.
    derived : dict of str to DataFrame
        Tables ``slopes``, ``detection`` and ``coverage`` for the functions with these parameters; each is optional.

    Yields
    ------
    FigurePlan
    """
    plots: dict[str, tuple[Callable[[], Any], str]] = {}
    if components["error"].notna().any():
        plots["parity"] = partial(plot_parity, table, components), "Predictions against labels, and their differences."
        if "extrapolation_grade" in table and np.isfinite(table["extrapolation_grade"]).any():
            caption = "Error against extrapolation grade; above 1, the potential extrapolates."
            plots["error_against_grade"] = partial(plot_error_against_grade, table), caption
    if "slopes" in derived:
        caption = "Disagreement of the committee against the error of its mean, with the calibration line."
        plots["disagreement"] = partial(plot_disagreement_against_error, table, derived["slopes"]), caption
    if "coverage" in derived:
        caption = "Fraction of labels within the prediction intervals against the requested fraction."
        plots["coverage"] = partial(plot_coverage, derived["coverage"]), caption
    if "detection" in derived:
        caption = "Detection of large errors by a threshold of the disagreement."
        plots["detection"] = partial(plot_detection, derived["detection"], derived.get("slopes")), caption
    for name, (draw_figure, caption) in plots.items():
        yield FigurePlan(name, draw_figure, partial(str, caption))


def _list_quantities(quantities: Sequence[str] | pd.Series[str]) -> list[str]:
    """List the distinct quantities in the order of `ERROR_UNITS`; raise `CannotDrawError` if there are none."""
    names = set(quantities)
    if not names & set(ERROR_UNITS):
        raise CannotDrawError("no configuration has a label")
    return [name for name in ERROR_UNITS if name in names]
