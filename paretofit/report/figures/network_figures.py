"""When is a network worth its cost: networks and linear models on the same axes, tables and words."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from paretofit.pareto import pareto_front
from paretofit.report.figures import axes as axes_tools
from paretofit.report.figures import style
from paretofit.report.figures.drawing import FigurePlan
from paretofit.report.figures.sweep_figures import ENERGY_LABEL, FORCE_LABEL, CannotDrawError
from paretofit.report.findings.finding import Finding
from paretofit.report.page.sweep_page import ReportTable
from paretofit.report.tables.summaries import compute_medians
from paretofit.report.wording import choose_time_unit, format_count, format_duration, format_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes

QUESTION = "When is a network worth it?"
ERRORS = {"ref_force": FORCE_LABEL, "ref_energy": ENERGY_LABEL}
MD_COST_COLUMN = "md_us_per_atom_step"
OBJECTIVES = ["ref_force", "ref_energy", MD_COST_COLUMN, "label_seconds"]
LINEAR, MACE = "linear", "MACE"


def combine_models(results: pd.DataFrame, networks: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    """Medians of the linear models, and the networks, as rows of one table.

    Parameters
    ----------
    results : DataFrame
        As ``results.csv``.
    networks : DataFrame
        As ``mace.csv``.
    levels : sequence of str
        By cost, the last is the reference.

    Returns
    -------
    DataFrame
        ``family`` ("linear" or "MACE"), ``model, level, n_train`` and `OBJECTIVES`.
    """
    linear = compute_medians(results, levels)
    linear = linear.assign(family=LINEAR, model="2Jmax " + linear["twojmax"].astype(str))
    both = pd.concat([linear, networks.assign(family=MACE)], ignore_index=True)
    both["level"] = both["level"].astype(str)
    return both[["family", "model", "level", "n_train", *OBJECTIVES]]


def plot_network_costs(models: pd.DataFrame, levels: Sequence[str]) -> np.ndarray:
    """Force and energy RMSE against the cost of MD and of the labels: linear models, networks, and their fronts.

    Parameters
    ----------
    models : DataFrame
        From `combine_models`.
    levels : sequence of str

    Returns
    -------
    (2, 2) array of Axes
    """
    known = models[np.isfinite(models[OBJECTIVES].to_numpy(dtype=float)).all(axis=1)]
    if not (known["family"] == MACE).any():
        raise CannotDrawError("No network has all of its errors and costs.")
    length, unit = choose_time_unit(float(known["label_seconds"].median()))
    known = known.assign(label_seconds=known["label_seconds"] / length)
    costs = {MD_COST_COLUMN: "MD cost (µs/atom/step)", "label_seconds": f"DFT cost ({unit})"}
    with style.publication_style():
        axes: np.ndarray = Figure(
            figsize=(style.PAGE_WIDTH_IN, 0.86 * style.PAGE_WIDTH_IN), layout="constrained"
        ).subplots(2, 2)
        for row, (error, named) in zip(axes, ERRORS.items(), strict=True):
            for ax, (cost, label) in zip(row, costs.items(), strict=True):
                _panel(ax, known, cost, error, levels)
                ax.set_xlabel(label)
                ax.set_ylabel(f"test {named}")
        present = [level for level in levels if level in set(known["level"])]
        handles = [Line2D([], [], color=style.level_colour(one, levels), marker="o", linestyle="", markersize=4,
                          label=f"level {style.escape_mathtext(one)}") for one in present]  # fmt: skip
        handles += [
            Line2D([], [], color="#555555", marker="o", linestyle="", markersize=3, alpha=0.5, label="linear model"),
            Line2D([], [], color="#555555", marker="*", linestyle="", markersize=9, label="network"),
            Line2D([], [], color="#777777", linestyle=":", label="front of the linear models"),
            Line2D([], [], color="black", linestyle="-", linewidth=0.9, label="front of all"),
        ]
        style.get_parent_figure(axes).legend(handles=handles, loc="outside lower center", ncols=4)
    return axes


def _panel(ax: Axes, known: pd.DataFrame, cost: str, error: str, levels: Sequence[str]) -> None:
    """One pair of axes: small dots, stars, and two fronts as steps."""
    x, y = known[cost].to_numpy(dtype=float), known[error].to_numpy(dtype=float)
    axes_tools.set_axes_limits(ax, x, y, max_ratio_x=np.inf)
    ax.margins(0.08)
    for level, part in known.groupby("level"):
        colour = style.level_colour(str(level), levels)
        dots, stars = part[part["family"] == LINEAR], part[part["family"] == MACE]
        ax.scatter(dots[cost], dots[error], s=6, color=colour, alpha=0.5, linewidths=0)
        ax.scatter(stars[cost], stars[error], s=75, marker="*", color=colour, edgecolors="black", linewidths=0.5,
                   zorder=4)  # fmt: skip
    for part, line in ((known[known["family"] == LINEAR], {"color": "#777777", "linestyle": ":"}),
                       (known, {"color": "black", "linewidth": 0.9})):  # fmt: skip
        front = pareto_front(part, [cost, error]).sort_values(cost)
        ax.step(front[cost], front[error], where="post", **line)
    best = known[known["family"] == MACE].sort_values(error).drop_duplicates("model")
    for _, one in best.iterrows():  # each model once, at its best
        ax.annotate(
            style.escape_mathtext(str(one["model"])), (one[cost], one[error]), xytext=(5, 4), textcoords="offset points",
            fontsize=6.5, path_effects=[withStroke(linewidth=2, foreground="white")], zorder=5,
        )  # fmt: skip
    axes_tools.annotate_outside(ax, x, y, known["model"].tolist())


def plan_network_figures(models: pd.DataFrame, levels: Sequence[str]) -> Iterator[FigurePlan]:
    """The figure, if there are networks."""
    if (models["family"] == MACE).any():
        yield FigurePlan(
            "networks",
            partial(plot_network_costs, models, levels),
            partial(str, "Errors on the test set, against the reference, over the cost of MD (one core) and of the "
                    "labels: networks (stars, each named at its best) among the linear models, with the front of each "
                    "pair of axes without and with them."),
        )  # fmt: skip


def build_network_tables(networks: pd.DataFrame, calibration: pd.DataFrame) -> Iterator[ReportTable]:
    """The points, and how far each committee's disagreement is to be trusted."""
    if networks.empty:
        return
    note = (
        "Trained on the first draw of each size, less the share on which training is watched, and judged on the test "
        "set of the linear models. Of the committee's mean; MD is timed with one member, in ASE, on one core."
    )
    yield ReportTable("Networks", note, "networks", networks.drop(columns=["folder", "events"], errors="ignore"))
    if len(calibration):
        note = (
            "On the test set: spread is the committee's disagreement (root mean square), rank_correlation that of "
            "disagreements and errors of configurations, inside the share of labels in 90 % conformal intervals that "
            "the other half of the test set has calibrated, and half_width their median. Beside each network a "
            "bootstrap committee of the linear model that is best in forces on the same subset. Linear models are "
            "fitted to energies and forces, networks also to stresses where there are any."
        )
        yield ReportTable("Committees, next to each other", note, "committees", calibration)


def collect_network_warnings(networks: pd.DataFrame) -> list[str]:
    """What went wrong in trainings, and was mended."""
    told = networks.dropna(subset="events") if len(networks) else networks
    return [
        f"Network {one['model']}, level {one['level']}, {one['n_train']} configurations: {one['events']}."
        for _, one in told.iterrows()
    ]


def assess_networks(models: pd.DataFrame) -> Finding | None:
    """Whether networks reach what linear models do not, and at which cost."""
    known = models[np.isfinite(models[OBJECTIVES].to_numpy(dtype=float)).all(axis=1)]
    networks, linear = known[known["family"] == MACE], known[known["family"] == LINEAR]
    if networks.empty or linear.empty:
        return None
    words = []
    for error, unit, name in (("ref_force", "meV/Å", "forces"), ("ref_energy", "meV/atom", "energies")):
        one, other = (part.sort_values(error).iloc[0] for part in (networks, linear))
        better = "less" if one[error] < other[error] else "more"
        words.append(
            f"In {name} the best network ({one['model']}, level {one['level']}, {one['n_train']} configurations) has "
            f"{format_number(one[error])} {unit}, {better} than the best linear model ({other['model']}, level "
            f"{other['level']}, {other['n_train']} configurations) with {format_number(other[error])} {unit}, at "
            f"{format_number(one[MD_COST_COLUMN] / other[MD_COST_COLUMN])} times its MD cost."
        )
    cheaper = _same_for_less(networks, linear)
    words += [cheaper] if cheaper else []
    front = pareto_front(known, OBJECTIVES)
    own = int((front["family"] == MACE).sum())
    words.append(
        f"{own} of {format_count(len(networks), 'network')} and {int((front['family'] == LINEAR).sum())} of "
        f"{format_count(len(linear), 'linear model')} are on the front of both errors and both costs."
    )
    return Finding("networks", QUESTION, "measured", " ".join(words), "")


def _same_for_less(networks: pd.DataFrame, linear: pd.DataFrame) -> str:
    """The network that reaches the best linear model's force error with the cheapest labels."""
    best = linear.sort_values("ref_force").iloc[0]
    enough = networks[networks["ref_force"] <= best["ref_force"]]
    if enough.empty:
        return ""
    one = enough.sort_values("label_seconds").iloc[0]
    if one["label_seconds"] >= best["label_seconds"]:
        return ""
    where = f"level {one['level']}, {one['n_train']} configurations"
    return (
        f"What the best linear model reaches in forces with labels of {format_duration(best['label_seconds'])}, "
        f"{one['model']} reaches with {format_duration(one['label_seconds'])} ({where})."
    )
