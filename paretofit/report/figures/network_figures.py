"""Comparison of networks with linear models in a report: figure, tables, warnings and finding."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paretofit.pareto import MD_COST_COLUMN, pareto_front
from paretofit.report.figures import axes as axes_tools
from paretofit.report.figures import style
from paretofit.report.figures.drawing import FigurePlan
from paretofit.report.figures.sweep_figures import ENERGY_LABEL, FORCE_LABEL
from paretofit.report.findings.finding import Finding
from paretofit.report.page.sweep_page import ReportTable
from paretofit.report.tables.summaries import compute_medians, select_finite_rows
from paretofit.report.wording import (
    choose_time_unit,
    format_count,
    format_duration,
    format_number,
    join_items,
    join_sentences,
)

QUESTION = "Are networks better than linear models, and at what cost?"
ERROR_LABELS = {"ref_force": FORCE_LABEL, "ref_energy": ENERGY_LABEL}
# Columns of both errors (meV/Å, meV/atom) and both costs (µs per atom and step, s).
OBJECTIVES = ["ref_force", "ref_energy", MD_COST_COLUMN, "label_seconds"]
LINEAR, MACE = "linear", "MACE"  # types of models


def combine_models(results: pd.DataFrame, networks: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    """Combine the linear models, with the median over the repetitions of each setting, and the networks in one table.

    Parameters
    ----------
    results : DataFrame
        Fits of linear models, as in ``results.csv``.
    networks : DataFrame
        Networks, as in ``mace.csv``.
    levels : sequence of str
        Names in order of cost; the last is the reference.

    Returns
    -------
    DataFrame
        A row for each setting of the linear models and for each network: ``model_type`` ("linear" or "MACE"),
        ``model``, ``level``, ``n_train`` and `OBJECTIVES`. ``model`` is not unique: for linear models it is only the
        2Jmax, for networks the name of the model, which may be trained at several levels and sizes.
    """
    medians = compute_medians(results, levels)
    linear = medians.assign(model_type=LINEAR, model="2Jmax " + medians["twojmax"].astype(str))
    models = pd.concat([linear, networks.assign(model_type=MACE)], ignore_index=True)
    models["level"] = models["level"].astype(str)
    return models[["model_type", "model", "level", "n_train", *OBJECTIVES]]


def plot_network_costs(models: pd.DataFrame, levels: Sequence[str]) -> np.ndarray:
    """Plot force and energy RMSE against MD and label cost: linear models, networks, and their fronts.

    Parameters
    ----------
    models : DataFrame
        From `combine_models`.
    levels : sequence of str
        Names in order of cost; the last is the reference.

    Returns
    -------
    (2, 2) array of Axes
        Force errors in the first row, energy errors in the second; MD cost in the first column, label cost in the
        second.

    Raises
    ------
    CannotDrawError
        If no network has both errors and both costs.
    """
    rows = select_finite_rows(models, OBJECTIVES)
    if not (rows["model_type"] == MACE).any():
        raise style.CannotDrawError("No network has all of its errors and costs.")
    unit_seconds, unit = choose_time_unit(float(rows["label_seconds"].median()))
    rows = rows.assign(label_seconds=rows["label_seconds"] / unit_seconds)
    cost_labels = {MD_COST_COLUMN: "MD cost (µs/atom/step)", "label_seconds": f"DFT cost ({unit})"}
    size = (style.PAGE_WIDTH_IN, 0.86 * style.PAGE_WIDTH_IN)
    with style.use_publication_style():
        axes: np.ndarray = Figure(figsize=size, layout="constrained").subplots(2, 2)
        for row_axes, (error, error_label) in zip(axes, ERROR_LABELS.items(), strict=True):
            for ax, (cost, cost_label) in zip(row_axes, cost_labels.items(), strict=True):
                _draw_models(ax, rows, cost, error, levels)
                ax.set(xlabel=cost_label, ylabel=f"test {error_label}")
        shown_levels = [level for level in levels if level in set(rows["level"])]
        handles = [Line2D([], [], color=style.get_level_colour(level, levels), marker="o", linestyle="", markersize=4,
                          label=f"level {style.escape_mathtext(level)}") for level in shown_levels]  # fmt: skip
        handles += [
            Line2D([], [], color="#555555", marker="o", linestyle="", markersize=3, alpha=0.5, label="linear model"),
            Line2D([], [], color="#555555", marker="*", linestyle="", markersize=9, label="network"),
            Line2D([], [], color="#777777", linestyle=":", label="front of the linear models"),
            Line2D([], [], color="black", linestyle="-", linewidth=0.9, label="front of all"),
        ]
        style.get_parent_figure(axes).legend(handles=handles, loc="outside lower center", ncols=4)
    return axes


def _draw_models(ax: Axes, rows: pd.DataFrame, cost: str, error: str, levels: Sequence[str]) -> None:
    """Draw linear models as dots, networks as stars, and the fronts of the linear and of all models as steps.

    `cost` and `error` are the columns of the axes.
    """
    x, y = rows[cost].to_numpy(dtype=float), rows[error].to_numpy(dtype=float)
    axes_tools.set_axes_limits(ax, x, y, max_ratio_x=np.inf)
    ax.margins(0.08)
    is_linear = rows["model_type"] == LINEAR
    for level in rows["level"].drop_duplicates().sort_values():
        is_level, colour = rows["level"] == level, style.get_level_colour(str(level), levels)
        dots, stars = rows[is_level & is_linear], rows[is_level & ~is_linear]
        ax.scatter(dots[cost], dots[error], s=6, color=colour, alpha=0.5, linewidths=0)
        ax.scatter(
            stars[cost], stars[error], s=75, marker="*", color=colour, edgecolors="black", linewidths=0.5, zorder=4
        )
    front_styles = ((rows[is_linear], "#777777", ":", 1.2), (rows, "black", "-", 0.9))
    for models, colour, line_style, width in front_styles:
        front = pareto_front(models, [cost, error]).sort_values(cost)
        ax.step(front[cost], front[error], where="post", color=colour, linestyle=line_style, linewidth=width)
    best_networks = rows[~is_linear].sort_values(error).drop_duplicates("model")
    for _, network in best_networks.iterrows():
        ax.annotate(
            style.escape_mathtext(str(network["model"])), (network[cost], network[error]), xytext=(5, 4),
            textcoords="offset points", fontsize=6.5, path_effects=style.HALO, zorder=5,
        )  # fmt: skip
    axes_tools.annotate_outside(ax, x, y, rows["model"].tolist())


def plan_network_figures(models: pd.DataFrame, levels: Sequence[str]) -> Iterator[FigurePlan]:
    """Plan the figure of `plot_network_costs`, unless there are no networks."""
    if (models["model_type"] == MACE).any():
        caption = (
            "Errors on the test set, against the reference, by the cost of MD (one core) and of the labels: networks "
            "(stars, each labelled at its lowest error) and linear models, with the front of the linear models and "
            "that of all models."
        )
        yield FigurePlan("networks", partial(plot_network_costs, models, levels), lambda: caption)


def build_network_tables(networks: pd.DataFrame, calibration: pd.DataFrame) -> Iterator[ReportTable]:
    """Build the tables of the networks (as in ``mace.csv``) and of their committees (`calibration`).

    Without networks, there are no tables; if `calibration` is empty, the second one is omitted.
    """
    if networks.empty:
        return
    note = (
        "Networks are trained on the first draw of each size, without the validation share that monitors the "
        "training, and evaluated on the test set of the linear models. Errors are those of the mean of the committee; "
        "MD is timed with a single member, in ASE, on one core."
    )
    # events are shown as warnings
    yield ReportTable("Networks", note, "networks", networks.drop(columns=["folder", "events"], errors="ignore"))
    if len(calibration):
        note = (
            "On the test set: spread is the disagreement of the committee (root mean square); rank_correlation is that "
            "of disagreements and errors of configurations; inside is the share of labels in 90 % conformal intervals, "
            "which are calibrated on the other half of the test set; half_width is the median of their half widths. "
            "Each network is compared with a bootstrap committee of the linear model that has the lowest force error "
            "on the same subset. Linear models are fitted to energies and forces, networks also to stresses if there "
            "are any."
        )
        yield ReportTable("Comparison of committees", note, "committees", calibration)


def collect_network_warnings(networks: pd.DataFrame) -> list[str]:
    """List a message for each network with events in its training, which are problems that were resolved."""
    rows = networks.dropna(subset="events") if len(networks) else networks
    return [f"Network {_describe_model(row)}: {row['events']}." for _, row in rows.iterrows()]


def _describe_model(row: pd.Series) -> str:
    """Describe a model by its name, level and number of training configurations."""
    return f"{row['model']}, level {row['level']}, {row['n_train']} configurations"


def assess_networks(models: pd.DataFrame) -> Finding | None:
    """Assess whether networks have lower errors than linear models, and at what cost, from `combine_models`.

    Return None if no network, or no linear model, has both errors and both costs.
    """
    rows = select_finite_rows(models, OBJECTIVES)
    networks, linear = rows[rows["model_type"] == MACE], rows[rows["model_type"] == LINEAR]
    if networks.empty or linear.empty:
        return None
    sentences = []
    for error, unit, name in (("ref_force", "meV/Å", "force"), ("ref_energy", "meV/atom", "energy")):
        network, linear_model = (table.sort_values(error).iloc[0] for table in (networks, linear))
        relation = "lower" if network[error] < linear_model[error] else "higher"
        sentences.append(
            f"The lowest {name} error of the networks is {format_number(network[error])} {unit} "
            f"({_describe_model(network)}), {relation} than that of the linear models, "
            f"{format_number(linear_model[error])} {unit} ({_describe_model(linear_model)}), at "
            f"{format_number(network[MD_COST_COLUMN] / linear_model[MD_COST_COLUMN])} times the MD cost of the linear "
            "model."
        )
    counts = pareto_front(rows, OBJECTIVES)["model_type"].value_counts()
    front_counts = join_items(
        f"{counts.get(model_type, 0)} of {format_count(len(table), noun)}"
        for model_type, table, noun in ((MACE, networks, "network"), (LINEAR, linear, "linear model"))
    )
    text = join_sentences(
        *sentences,
        _describe_cheaper_network(networks, linear),
        f"{front_counts} are on the front of both errors and both costs.",
    )
    return Finding("networks", QUESTION, "measured", text)


def _describe_cheaper_network(networks: pd.DataFrame, linear: pd.DataFrame) -> str:
    """Describe the network with the cheapest labels that reaches the force error of the best linear model.

    The text is empty if there is no such network with cheaper labels than those of this linear model.
    """
    best = linear.sort_values("ref_force").iloc[0]
    candidates = networks[networks["ref_force"] <= best["ref_force"]].sort_values("label_seconds")
    if candidates.empty or candidates["label_seconds"].iloc[0] >= best["label_seconds"]:
        return ""
    network = candidates.iloc[0]
    return (
        f"The force error of the best linear model, with labels of {format_duration(best['label_seconds'])}, is "
        f"reached by {network['model']} with labels of {format_duration(network['label_seconds'])} (level "
        f"{network['level']}, {network['n_train']} configurations)."
    )
