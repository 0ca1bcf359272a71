"""Figures of the answer: the lowest error within a budget, and the front at a few equal budgets."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from paretofit import pareto
from paretofit.report.answer import ERRORS, Answer
from paretofit.report.budgets import ROUND_BUDGETS, ROUND_COUNTS
from paretofit.report.figures import axes as axes_tools
from paretofit.report.figures import style
from paretofit.report.figures.sweep_figures import ENERGY_LABEL, FORCE_LABEL
from paretofit.report.rivals import name_value

MIN_TICK_DISTANCE = 0.115  # distance of two labelled budgets, as a share of the axis
MAX_FRONT_CURVES = 4
_LABELS = {"energy": ENERGY_LABEL, "force": FORCE_LABEL}
_CURVE_COLOURS = colormaps["viridis"]
_CHARACTER_WIDTH = 0.017  # of the name of a level, as a share of the axis; names that do not fit are left out


def plot_answer(answer: Answer, levels: Sequence[str]) -> np.ndarray:
    """Plot the energy and force errors of the best setting against the budget, as step curves.

    Colours are those of the levels; with a single level, of the 2Jmax or models on the curve.

    Bands are the intervals of the expected errors; dots are the budgets of the answer's table; dotted parts are
    extrapolated. A strip at the top names the best one. The axis begins at the first budget of the answer's sentence.

    Returns
    -------
    (2,) array of Axes
    """
    curve = answer.curve[answer.curve["budget_from"] >= answer.ranges["budget_from"].iloc[0]]
    end = max(float(answer.table["budget"].max()), float(curve["budget_from"].iloc[-1])) * 1.15
    values = curve[answer.compared].astype(str)
    names = levels if answer.compared == "level" else list(dict.fromkeys(values))
    colours = values.map({name: style.level_colour(name, names) for name in dict.fromkeys(values)})
    with style.publication_style():
        figure = Figure(figsize=(style.PAGE_WIDTH_IN, 2.35))
        axes = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.075, right=0.99, bottom=0.17, top=0.9, wspace=0.2)
        for ax, kind in zip(axes, ERRORS, strict=True):
            _draw_steps(ax, curve, kind, colours, end)
            ax.plot(
                answer.table["budget"], answer.table[kind], "o", markersize=4.5, markerfacecolor="white",
                markeredgecolor="black", markeredgewidth=0.9, zorder=5,
            )  # fmt: skip
            low, high = _find_limits(curve, kind)
            ax.set(xscale="log", xlim=(curve["budget_from"].iloc[0], end), ylabel=_LABELS[kind])
            axes_tools.set_axis_limits(ax, "y", np.array([low, high]))
            _set_budget_ticks(ax, answer)
            _draw_strip(ax, curve, answer.compared, colours, end)
    return np.asarray(axes)


def plot_front_at_budgets(answer: Answer) -> Axes:
    """Plot the front of energy and force errors at up to four budgets, a curve for each.

    Returns
    -------
    Axes
    """
    budgets = list(answer.table["budget"])[-MAX_FRONT_CURVES:]
    with style.publication_style():
        figure = Figure(figsize=(style.COLUMN_WIDTH_IN, 2.5))
        ax = figure.subplots()
        figure.subplots_adjust(left=0.17, right=0.97, bottom=0.17, top=0.82)
        values = []
        for position, budget in enumerate(budgets):
            affordable = answer.options[answer.options["label_seconds"] <= budget]
            front = pareto.pareto_front(affordable, list(ERRORS)).drop_duplicates(list(ERRORS)).sort_values("energy")
            colour = _CURVE_COLOURS(0.85 * (1 - position / max(1, len(budgets) - 1)))
            ax.plot(
                front["energy"], front["force"], "-o", markersize=2.2, linewidth=1.1, color=colour,
                label=f"up to {answer.format_budget(budget)}",
            )  # fmt: skip
            values.append(front[list(ERRORS)])
        points = pd.concat(values)
        x, y = (points[kind].to_numpy(dtype=float) for kind in ERRORS)
        axes_tools.set_axes_limits(ax, x, y)
        axes_tools.annotate_outside(ax, x, y)
        ax.set(xlabel=ENERGY_LABEL, ylabel=FORCE_LABEL)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)  # no place inside is free of curves
    return ax


def _draw_steps(ax: Axes, curve: pd.DataFrame, kind: str, colours: pd.Series, end: float) -> None:
    """Draw the curve in pieces of one colour, measured or extrapolated; each piece ends where the next one begins."""
    pieces = (colours.ne(colours.shift()) | curve["beyond"].ne(curve["beyond"].shift())).cumsum()
    for _, rows in curve.groupby(pieces):
        cost = np.append(rows["budget_from"].to_numpy(float), min(float(rows["budget_to"].iloc[-1]), end))
        error, low, high = (
            np.append(values := rows[f"{kind}{suffix}"].to_numpy(float), values[-1]) for suffix in ("", "_low", "_high")
        )
        colour = colours[rows.index[0]]
        line = ":" if rows["beyond"].iloc[0] else "-"
        ax.plot(cost, error, line, drawstyle="steps-post", color=colour, linewidth=1.8)
        ax.fill_between(cost, low, high, step="post", color=colour, alpha=0.22, linewidth=0)


def _find_limits(curve: pd.DataFrame, kind: str) -> tuple[float, float]:
    ends = curve[[f"{kind}_low", kind, f"{kind}_high"]].to_numpy(dtype=float)
    return float(np.nanmin(ends)), float(np.nanmin([np.nanmax(ends), 2.0 * np.nanmax(curve[kind])]))


def _set_budget_ticks(ax: Axes, answer: Answer) -> None:
    """Set the budgets of the table, and round ones below them, as ticks without those whose names would overlap."""
    (low, high), ticks = ax.get_xlim(), [float(value) for value in answer.table["budget"]]
    smaller = [value for value in (ROUND_BUDGETS if answer.has_cost else ROUND_COUNTS)[0] if low < value < ticks[0]]
    ticks = [*smaller, *ticks]
    shown = ticks[:1]
    for tick in ticks[1:]:
        if np.log(tick / shown[-1]) > MIN_TICK_DISTANCE * np.log(high / low):
            shown.append(tick)
    names = [answer.format_budget(tick).removesuffix(" configurations") for tick in shown]
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.xaxis.set_major_formatter(FixedFormatter(names))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("budget: computing time of the labels" if answer.has_cost else "configurations")


def _draw_strip(ax: Axes, curve: pd.DataFrame, key: str, colours: pd.Series, end: float) -> None:
    """Draw the best level, 2Jmax or model for each budget as a strip above the axes."""
    for _, row in pareto.merge_adjacent_ranges(curve.assign(colour=colours), key).iterrows():
        start, stop, name = float(row["budget_from"]), min(float(row["budget_to"]), end), name_value(row, key)
        ax.axvspan(start, stop, ymin=1.02, ymax=1.1, color=row["colour"], clip_on=False, linewidth=0)
        low, high = ax.get_xlim()
        if np.log(stop / start) / np.log(high / low) > _CHARACTER_WIDTH * len(name):
            ax.text(
                np.sqrt(start * stop), 1.055, style.escape_mathtext(name), ha="center", va="center",
                transform=ax.get_xaxis_transform(), fontsize=7, color="black", path_effects=style.HALO,
            )  # fmt: skip
