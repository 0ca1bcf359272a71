"""Figures of an evaluation: each a function of a table that returns its axes.

Tables are those of `paretofit evaluate`: errors, disagreements and intervals in meV/atom, meV/Å and GPa.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from paretofit.report.figures import style
from paretofit.report.figures.axes import set_axes_limits
from paretofit.report.figures.sweep_figures import CannotDrawError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

UNITS = {"energy": ("eV/atom", "meV/atom"), "force": ("eV/Å", "meV/Å"), "stress": ("GPa", "GPa")}
SETS = {
    "train": ("#999999", 1),
    "held out": ("#0072B2", 2),
    "new": ("#D55E00", 3),
    "validate": ("#0072B2", 2),  # of the active-learning loop
    "test": ("#D55E00", 3),
}
VERDICTS = {"inside": ("#0072B2", "o"), "at the edge": ("#E69F00", "^"), "outside": ("#D55E00", "s")}
MIN_RELATIVE_ERROR = 1e-3  # of the median error: below, errors vanish by symmetry, and are not drawn
MOST_POINTS = 20_000  # of a scatter; more are thinned out evenly


def plot_parity(table: pd.DataFrame, components: pd.DataFrame) -> np.ndarray:
    """Predictions against labels, with a histogram of the errors, for each quantity that has labels.

    Parameters
    ----------
    table, components : DataFrame
        Of an `Evaluation`.

    Returns
    -------
    (n,) array of Axes
    """
    known = components[components["error"].notna()]
    quantities = _of(known["quantity"])
    with style.publication_style():
        axes = _row_of(len(quantities))
        for ax, quantity in zip(axes, quantities, strict=True):
            own = known[known["quantity"] == quantity]
            belongs = table["set"].to_numpy()[own["configuration"]]
            low, high = (f(own[["label", "prediction"]].to_numpy()) for f in (np.min, np.max))
            ax.plot([low, high], [low, high], color="black", linewidth=0.6, zorder=0)
            inset = ax.inset_axes((0.62, 0.1, 0.35, 0.3))
            wide = float(np.quantile(own["error"].abs(), 0.98)) or 1.0
            for name, (colour, order) in SETS.items():
                part = own[belongs == name].iloc[:: max(1, len(own) // MOST_POINTS)]
                if len(part):
                    ax.scatter(
                        part["label"], part["prediction"], s=4, color=colour, alpha=0.5, linewidth=0, zorder=order,
                        label=name, rasterized=True,
                    )  # fmt: skip
                    inset.hist(part["error"], bins=31, range=(-wide, wide), density=True, histtype="step", color=colour,
                               linewidth=0.8)  # fmt: skip
            inset.set_yticks([])
            inset.tick_params(labelsize=5)
            inset.set_title(f"error ({UNITS[quantity][1]})", fontsize=5, pad=1)
            inset.grid(visible=False)
            ax.set_xlabel(f"{quantity}, label ({UNITS[quantity][0]})")
            ax.set_ylabel(f"{quantity}, prediction ({UNITS[quantity][0]})")
            ax.legend(loc="upper left", markerscale=2)
    return axes


def plot_disagreement_against_error(table: pd.DataFrame, slopes: pd.DataFrame) -> np.ndarray:
    """Disagreement against the committee's error (equations 1 and 2), with the calibration τ = aε.

    Parameters
    ----------
    table : DataFrame
        Of an `Evaluation`; configurations that trained are left out.
    slopes : DataFrame
        ``quantity``, ``slope``, ``confidence``: of the line through the origin.

    Returns
    -------
    (n,) array of Axes
    """
    own = table[table["set"] != "train"]
    quantities = [
        one for one in UNITS if f"{one}_std" in own and (own[f"{one}_committee_error"] * own[f"{one}_std"]).gt(0).any()
    ]
    with style.publication_style():
        axes = _row_of(len(quantities))
        for ax, quantity in zip(axes, quantities, strict=True):
            error, spread = own[f"{quantity}_committee_error"], own[f"{quantity}_std"]
            shown = (error > MIN_RELATIVE_ERROR * error.median()) & (spread > 0)  # the others vanish by symmetry
            for name, (colour, marker) in VERDICTS.items():
                part = (own["verdict"] == name) & shown
                if part.any():
                    ax.scatter(error[part], spread[part], s=8, color=colour, marker=marker, alpha=0.7, linewidth=0,
                               label=name)  # fmt: skip
            set_axes_limits(ax, error[shown].to_numpy(), spread[shown].to_numpy(), np.inf, np.inf)
            ends = np.array([error[shown].min(), error.max()])
            for _, line in slopes[slopes["quantity"] == quantity].iterrows():
                slope, half = float(line["slope"]), float(line["confidence"])
                ax.plot(ends, slope * ends, color="black", label=f"τ = {slope:.2f} ε")
                ax.fill_between(
                    ends, (slope - half) * ends, (slope + half) * ends, color="black", alpha=0.15, linewidth=0
                )
            ax.set_xlabel(f"{quantity} error ({UNITS[quantity][1]})")
            ax.set_ylabel(f"disagreement ({UNITS[quantity][1]})")
            ax.legend(loc="upper left")
    return axes


def plot_detection(rates: pd.DataFrame, slopes: pd.DataFrame | None = None) -> np.ndarray:
    """True-positive rate and positive predictive value as functions of both thresholds (equations 3 and 4).

    Parameters
    ----------
    rates : DataFrame
        ``quantity, spread_limit, error_limit, true_positive_rate, positive_predictive_value``, on a grid; white where
        nothing is to be counted.
    slopes : DataFrame, optional
        ``quantity``, ``slope``: of the calibration τ = aε, drawn as a line.

    Returns
    -------
    (n_quantities, 2) array of Axes
    """
    quantities = _of(rates["quantity"])
    with style.publication_style():
        figure = Figure(figsize=(style.PAGE_WIDTH_IN, 2.5 * len(quantities)), layout="constrained")
        axes = figure.subplots(len(quantities), 2, squeeze=False)
        for row, quantity in zip(axes, quantities, strict=True):
            own = rates[rates["quantity"] == quantity]
            for ax, (column, title) in zip(
                row,
                [("true_positive_rate", "share of the large errors that is found"),
                 ("positive_predictive_value", "share of the found that has a large error")],
                strict=True,
            ):  # fmt: skip
                grid = own.pivot_table(index="spread_limit", columns="error_limit", values=column, dropna=False)
                image = ax.pcolormesh(grid.columns, grid.index, grid.to_numpy(), vmin=0, vmax=1, cmap="cividis",
                                      shading="nearest", rasterized=True)  # fmt: skip
                set_axes_limits(
                    ax, np.asarray(grid.columns, dtype=float), np.asarray(grid.index, dtype=float), np.inf, np.inf
                )
                ax.set_xlim(grid.columns.min(), grid.columns.max())
                ax.set_ylim(grid.index.min(), grid.index.max())
                ax.grid(visible=False)
                ax.set_title(title)
                ax.set_xlabel(f"threshold of the {quantity} error ({UNITS[quantity][1]})")
                ax.set_ylabel(f"of the disagreement ({UNITS[quantity][1]})")
                lines = () if slopes is None else slopes[slopes["quantity"] == quantity]["slope"].dropna()
                for slope in lines:
                    ends = np.array([grid.columns.min(), grid.columns.max()])
                    ax.plot(ends, slope * ends, "r--", linewidth=1.0)
                figure.colorbar(image, ax=ax, pad=0.01)
    return axes


def plot_coverage(curve: pd.DataFrame) -> np.ndarray:
    """Share of labels in their intervals against the share that is stated.

    Parameters
    ----------
    curve : DataFrame
        ``quantity, stated, judged_on, conformal, spread``: shares inside of conformal intervals, and of those that
        would follow from the disagreement if it were the standard deviation of a normal distribution.

    Returns
    -------
    (n,) array of Axes
    """
    quantities = _of(curve["quantity"])
    with style.publication_style():
        axes = _row_of(len(quantities))
        for ax, quantity in zip(axes, quantities, strict=True):
            own = curve[curve["quantity"] == quantity]
            ax.plot([0, 1], [0, 1], color="black", linewidth=0.6, linestyle=":")
            ax.plot(own["stated"], own["conformal"], color="#0072B2", marker="o", label="conformal")
            ax.plot(own["stated"], own["spread"], color="#D55E00", marker="s", label="disagreement as σ")
            ax.set_xlim(0, 1)
            ax.set_ylim(0, 1)
            ax.set_xlabel(f"{quantity}: stated share")
        on = str(curve["judged_on"].iloc[0])
        style.get_parent_figure(axes).suptitle(
            f"{on} configurations" + (", which calibrated" * (on == "held out")), fontsize=8
        )
        axes[0].set_ylabel("share of labels in their intervals")
        axes[0].legend(loc="lower right")
    return axes


def plot_error_against_grade(table: pd.DataFrame) -> np.ndarray:
    """Errors of configurations against their highest extrapolation grade, with the edge (1) and the outside (2)."""
    quantities = [one for one in UNITS if table[f"{one}_error"].abs().gt(0).any()]
    finite = table[np.isfinite(table["extrapolation_grade"])]
    if finite.empty or not quantities:
        raise CannotDrawError("no configuration has both a label and a grade")
    with style.publication_style():
        axes = _row_of(len(quantities))
        for ax, quantity in zip(axes, quantities, strict=True):
            for name, (colour, order) in SETS.items():
                error = finite[f"{quantity}_error"].abs()
                own = finite[(finite["set"] == name) & (error > MIN_RELATIVE_ERROR * error.median())]
                if len(own):
                    ax.scatter(own["extrapolation_grade"], own[f"{quantity}_error"].abs(), s=8, color=colour, alpha=0.7,
                               linewidth=0, zorder=order, label=name)  # fmt: skip
            for at in (1, 2):
                ax.axvline(at, color="black", linewidth=0.6, linestyle=":")
            shown = error > MIN_RELATIVE_ERROR * error.median()
            set_axes_limits(
                ax, finite["extrapolation_grade"].to_numpy()[shown], error.to_numpy()[shown], np.inf, np.inf
            )
            ax.set_ylabel(f"{quantity} error ({UNITS[quantity][1]})")
        axes[0].legend(loc="best", framealpha=0.8, frameon=True)
        style.get_parent_figure(axes).supxlabel(
            "highest extrapolation grade of an atom (1: the edge, 2: outside)", fontsize=8
        )
    return axes


def save_uncertainty_figures(
    folder: Path, table: pd.DataFrame, components: pd.DataFrame, derived: dict[str, pd.DataFrame]
) -> list[Path]:
    """Draw what the tables allow, as PNG and SVG.

    Parameters
    ----------
    folder : Path
    table, components : DataFrame
        Of an `Evaluation`.
    derived : dict of str to DataFrame
        ``slopes``, ``plot_detection`` and ``plot_coverage``, those that there are.
    """
    made: list[tuple[str, Any]] = []
    if components["error"].notna().any():
        made.append(("parity", plot_parity(table, components)))
        if "extrapolation_grade" in table and np.isfinite(table["extrapolation_grade"]).any():
            made.append(("error_against_grade", plot_error_against_grade(table)))
    if "slopes" in derived:
        made.append(("disagreement", plot_disagreement_against_error(table, derived["slopes"])))
    if "coverage" in derived:
        made.append(("coverage", plot_coverage(derived["coverage"])))
    if "detection" in derived:
        made.append(("detection", plot_detection(derived["detection"], derived.get("slopes"))))
    return [path for name, axes in made for path in style.save_figure(style.get_parent_figure(axes), folder, name)]


def _of(quantities: Sequence[str] | pd.Series[str]) -> list[str]:
    present = set(quantities)
    found = [one for one in UNITS if one in present]
    if not found:
        raise CannotDrawError("no configuration has a label")
    return found


def _row_of(count: int) -> np.ndarray:
    """Panels side by side."""
    if not count:
        raise CannotDrawError("there is nothing to draw")
    figure = Figure(figsize=(min(style.PAGE_WIDTH_IN, style.COLUMN_WIDTH_IN * count), 2.7), layout="constrained")
    axes: np.ndarray[tuple[int], Any] = figure.subplots(1, count, squeeze=False)[0]
    return axes
