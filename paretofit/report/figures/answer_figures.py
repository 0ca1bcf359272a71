"""Figures of the answer: the lowest error within a budget, and the front at a few equal budgets."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter

from paretofit import pareto
from paretofit.report.answer import ERROR_UNITS, Answer
from paretofit.report.budgets import ROUND_BUDGETS, ROUND_COUNTS
from paretofit.report.figures import axes as axes_tools
from paretofit.report.figures import style
from paretofit.report.figures.sweep_figures import ENERGY_LABEL, FORCE_LABEL
from paretofit.report.rivals import name_value

MIN_LABEL_GAP_PT = 4.0  # gap between two labels of budgets, or margin of a name in the strip
MAX_FRONT_CURVES = 4  # number of budgets in the figure of the fronts
_LABELS = {"energy": ENERGY_LABEL, "force": FORCE_LABEL}
_CURVE_COLOURS = colormaps["viridis"]
_LABEL_SIZE_PT = 7  # that of tick labels in the style


def plot_answer(answer: Answer, levels: Sequence[str]) -> np.ndarray:
    """Plot the energy and force errors of the best setting against the budget, as step curves.

    Colours show the best level or, with a single level, the best 2Jmax or model; a strip at the top names it. Bands are
    the intervals of the expected errors; dots are at the budgets of the answer's table; dotted parts are extrapolated.
    The axis begins at the first budget of the answer's sentence.

    Parameters
    ----------
    answer : Answer
    levels : names in order of cost; their order determines the colours

    Returns
    -------
    (2,) array of Axes
    """
    curve = answer.curve[answer.curve["budget_from"] >= answer.ranges["budget_from"].iloc[0]]
    # the axis extends beyond the last budget by 15 %
    max_budget = 1.15 * max(float(answer.table["budget"].max()), float(curve["budget_from"].iloc[-1]))
    best_names = curve[answer.compared].astype(str)
    distinct_names = list(dict.fromkeys(best_names))
    all_names = levels if answer.compared == "level" else distinct_names
    colours = best_names.map({name: style.get_level_colour(name, all_names) for name in distinct_names})
    with style.use_publication_style():
        figure = Figure(figsize=(style.PAGE_WIDTH_IN, 2.35))
        axes = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.095, right=0.985, bottom=0.17, top=0.9, wspace=0.32)
        for ax, kind in zip(axes, ERROR_UNITS, strict=True):
            _draw_steps(ax, curve, kind, colours, max_budget)
            ax.plot(
                answer.table["budget"], answer.table[kind], "o", markersize=4.5, markerfacecolor="white",
                markeredgecolor="black", markeredgewidth=0.9, zorder=5,
            )  # fmt: skip
            low, high = _choose_limits(curve, kind)
            ax.set(xscale="log", xlim=(curve["budget_from"].iloc[0], max_budget), ylabel=_LABELS[kind])
            axes_tools.set_axis_limits(ax, "y", np.array([low, high]))
            _set_budget_ticks(ax, answer)
            _draw_strip(ax, curve, answer.compared, colours, max_budget)
    return np.asarray(axes)


def plot_front_at_budgets(answer: Answer) -> Axes:
    """Plot the front of energy and force errors as a curve for each of the four largest budgets of the table."""
    budgets = list(answer.table["budget"])[-MAX_FRONT_CURVES:]
    with style.use_publication_style():
        figure = Figure(figsize=(style.COLUMN_WIDTH_IN, 2.5))
        ax = figure.subplots()
        figure.subplots_adjust(left=0.17, right=0.97, bottom=0.17, top=0.82)
        fronts = []
        for position, budget in enumerate(budgets):
            affordable = answer.options[answer.options["label_seconds"] <= budget]
            front = pareto.pareto_front(affordable, list(ERROR_UNITS))
            front = front.drop_duplicates(list(ERROR_UNITS)).sort_values("energy")
            # the largest budget is darkest; 0.85 excludes colours that are too pale on white
            colour = _CURVE_COLOURS(0.85 * (1 - position / max(1, len(budgets) - 1)))
            ax.plot(
                front["energy"], front["force"], "-o", markersize=2.2, linewidth=1.1, color=colour,
                label=f"up to {answer.format_budget(budget)}",
            )  # fmt: skip
            fronts.append(front[list(ERROR_UNITS)])
        points = pd.concat(fronts)
        x, y = (points[kind].to_numpy(dtype=float) for kind in ERROR_UNITS)
        axes_tools.set_axes_limits(ax, x, y)
        axes_tools.annotate_outside(ax, x, y)
        ax.set(xlabel=ENERGY_LABEL, ylabel=FORCE_LABEL)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)  # inside, it would cover curves
    return ax


def _draw_steps(ax: Axes, curve: pd.DataFrame, kind: str, colours: pd.Series, max_budget: float) -> None:
    """Draw the energy or force errors of the curve, with their intervals, up to a budget.

    The curve consists of pieces that have one colour and are either measured or extrapolated; each piece ends where the
    next one begins.
    """
    pieces = (colours.ne(colours.shift()) | curve["beyond"].ne(curve["beyond"].shift())).cumsum()
    for _, rows in curve.groupby(pieces):
        budgets = np.append(rows["budget_from"].to_numpy(float), min(float(rows["budget_to"].iloc[-1]), max_budget))
        columns = [kind, f"{kind}_low", f"{kind}_high"]
        steps = rows[columns].to_numpy(dtype=float)
        error, low, high = np.vstack([steps, steps[-1]]).T  # the last step extends to the last budget
        colour = colours[rows.index[0]]
        line_style = ":" if rows["beyond"].iloc[0] else "-"
        ax.plot(budgets, error, line_style, drawstyle="steps-post", color=colour, linewidth=1.8)
        ax.fill_between(budgets, low, high, step="post", color=colour, alpha=0.22, linewidth=0)


def _choose_limits(curve: pd.DataFrame, kind: str) -> tuple[float, float]:
    """Choose the range of the errors and their intervals, at most up to twice the largest error."""
    ends = curve[[f"{kind}_low", kind, f"{kind}_high"]].to_numpy(dtype=float)
    return float(np.nanmin(ends)), float(np.nanmin([np.nanmax(ends), 2.0 * np.nanmax(curve[kind])]))


def _set_budget_ticks(ax: Axes, answer: Answer) -> None:
    """Label the budgets of the table and round budgets below them, without labels that would touch earlier ones."""
    low, table_budgets = ax.get_xlim()[0], [float(budget) for budget in answer.table["budget"]]
    round_budgets = (ROUND_BUDGETS if answer.has_cost else ROUND_COUNTS)[0]
    budgets = [*table_budgets, *(budget for budget in round_budgets if low < budget < table_budgets[0])]
    names = {budget: answer.format_budget(budget).removesuffix(" configurations") for budget in budgets}
    widths = {budget: _measure_text(name) for budget, name in names.items()}
    ticks: list[float] = []
    for budget in budgets:
        if all(
            _measure_range(ax, *sorted([budget, tick])) > (widths[budget] + widths[tick]) / 2 + MIN_LABEL_GAP_PT
            for tick in ticks
        ):
            ticks.append(budget)
    ax.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    ax.xaxis.set_major_formatter(FixedFormatter([names[tick] for tick in sorted(ticks)]))
    ax.xaxis.set_minor_locator(FixedLocator(table_budgets))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("budget: computing time of the labels" if answer.has_cost else "configurations")


def _measure_text(text: str) -> float:
    """Measure the width of a label in points."""
    return float(TextPath((0, 0), style.escape_mathtext(text), size=_LABEL_SIZE_PT).get_extents().width)


def _measure_range(ax: Axes, low: float, high: float) -> float:
    """Measure the length of a range of budgets along the axis in points."""
    left, right = ax.get_xlim()
    axis_length = ax.get_window_extent().width / ax.figure.dpi * 72
    return float(axis_length * np.log(high / low) / np.log(right / left))


def _draw_strip(ax: Axes, curve: pd.DataFrame, key: str, colours: pd.Series, max_budget: float) -> None:
    """Draw the best level, 2Jmax or model (the column `key`) for each budget as a strip above the axes.

    A name that is wider than its part of the strip is shortened to the value, or omitted.
    """
    for _, row in pareto.merge_adjacent_ranges(curve.assign(colour=colours), key).iterrows():
        low_budget, high_budget = float(row["budget_from"]), min(float(row["budget_to"]), max_budget)
        ax.axvspan(low_budget, high_budget, ymin=1.02, ymax=1.1, color=row["colour"], clip_on=False, linewidth=0)
        room = _measure_range(ax, low_budget, high_budget) - MIN_LABEL_GAP_PT
        for name in (name_value(row, key), str(row[key])):
            if _measure_text(name) <= room:
                ax.text(
                    np.sqrt(low_budget * high_budget), 1.055, style.escape_mathtext(name), ha="center", va="center",
                    transform=ax.get_xaxis_transform(), fontsize=_LABEL_SIZE_PT, color="black",
                    path_effects=style.HALO,
                )  # fmt: skip
                break
