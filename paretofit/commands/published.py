"""Medians, Pareto front and figures of the published results tables, without any fits.

The figures are drawn as in the report of a run. Columns that the published tables lack (rank, condition, shifted
errors, MD cost) are NaN, and no figure uses them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from paretofit.core import InputError, check_new_paths, write_csv
from paretofit.pareto import pareto_front
from paretofit.published import ERROR_COLUMNS, FIT_COLUMNS, N_CONFIGURATIONS, SECONDS_PER_CONFIGURATION, read_published
from paretofit.report import figures
from paretofit.report.tables import OBJECTIVES, RESULT_COLUMNS, compute_fronts_by_twojmax, compute_medians

DRAWN_RATIOS = (5.0, 300.0)  # w_E/w_F, as in the paper's Fig. 7 and 8; the tables go from 0.01 to 2000
DrawFigure = Callable[[], Axes | np.ndarray]


@dataclass
class PublishedStudy:
    """Medians, front and figures of the published tables.

    Attributes
    ----------
    results : DataFrame, a row per fit
        Results of `paretofit.published.read_published`, in which each fit occurs once.
    medians : DataFrame, a row per setting
        Medians over repetitions of all errors (meV/atom, meV/Å) and of ``label_seconds`` (s), and ``n_repeats``, the
        number of repetitions.
    front : DataFrame
        Pareto front of the medians, sorted by the objectives. ``front.attrs["dropped_rows"]`` is the number of rows
        without a value of an objective, such as those without errors against the reference level.
    figures : list of Path
        PNG files; each has an SVG file next to it.
    missing_figures : list of str
        Message for each figure for which the tables contain no data.
    """

    results: pd.DataFrame
    medians: pd.DataFrame
    front: pd.DataFrame
    figures: list[Path] = field(default_factory=list)
    missing_figures: list[str] = field(default_factory=list)


def analyse_published_tables(
    paths: Sequence[Path | str],
    *,
    minimize: Sequence[str] = (),
    cost_per_configuration: Mapping[str, float] = SECONDS_PER_CONFIGURATION,
    out: Path | str | None = None,
    figures_folder: Path | str | None = None,
    overwrite: bool = False,
) -> PublishedStudy:
    """Compute the medians and the front of published tables, and draw figures.

    This is the command ``paretofit pareto TABLE... --published``.

    Parameters
    ----------
    paths : sequence of path-like
        The published CSV files; see `paretofit.published.result_tables`.
    minimize : sequence of str
        Objectives, columns of `medians`; by default the energy and force errors against the reference level, and the
        cost of the labels.
    cost_per_configuration : mapping of str to float
        Computing time of one label (s) by level, cheapest level first and the reference last.
    out : path-like, optional
        CSV file for the front, written with ten significant digits.
    figures_folder : path-like, optional
        Folder for the figures: energy against force errors over weights (Fig. 4 and 5 of the paper), learning curves
        by sampling method (Fig. 6), and the front, coloured by cost (Fig. 7) and as force error against cost (Fig. 8).
        They show only weights in the range `DRAWN_RATIOS`, because errors of several eV at other weights would stretch
        the axes.
    overwrite : bool
        Replace existing files.

    Returns
    -------
    PublishedStudy

    Raises
    ------
    InputError
        If a table or an objective cannot be used, an output exists, or `out` is one of the tables or cannot be written.
    """
    if out is not None and Path(out).resolve() in [Path(path).resolve() for path in paths]:
        raise InputError(f"{out} is one of the tables; write the front to another file")
    outputs = ([] if out is None else [out]), ([] if figures_folder is None else [figures_folder])
    check_new_paths(*outputs, overwrite=overwrite)
    results = read_published(paths, cost_per_configuration)
    repetitions = results.groupby(FIT_COLUMNS, sort=True)
    medians = repetitions[[*ERROR_COLUMNS, "label_seconds"]].median()
    medians["n_repeats"] = repetitions["repeat"].nunique()
    medians = medians.reset_index()
    front = pareto_front(medians, list(minimize) or OBJECTIVES, drop_missing=True).reset_index(drop=True)
    study = PublishedStudy(results, medians, front)
    if out is not None:
        write_csv(front, out)
    if figures_folder is not None:
        _draw_figures(study, [str(level) for level in cost_per_configuration], Path(figures_folder))
    return study


def format_published(study: PublishedStudy) -> str:
    """Format the numbers of fits and settings, the figures and the missing figures as plain text."""
    fits, settings = len(study.results), len(study.medians)
    repetitions = study.medians["n_repeats"].max()
    counts = f"{fits} fits; medians over up to {repetitions} repetitions give {settings} settings"
    lines = [f"{counts}, {len(study.front)} of them on the front"]
    if n_merged := study.results.attrs["merged_rows"]:
        lines.append(
            f"{n_merged} rows describe a fit of another table (all errors agree), such as one to 9,990 instead of all "
            f"{N_CONFIGURATIONS:,} configurations; each fit counts once, with the larger number"
        )
    if study.figures:
        low, high = DRAWN_RATIOS
        lines.append(f"figures for w_E/w_F from {low:g} to {high:g}, as in the paper:")
        lines += [f"  {path}" for path in study.figures]
    lines += [f"not drawn: {message}" for message in study.missing_figures]
    return "\n".join(lines)


def _draw_figures(study: PublishedStudy, levels: list[str], folder: Path) -> None:
    """Draw the figures and record their paths in `study`; for a figure without data, record the reason instead.

    Earlier files of a figure without data are removed.
    """
    fits = study.results.reindex(columns=RESULT_COLUMNS).assign(solver="published")
    fits = fits[fits["w_energy"].between(*DRAWN_RATIOS)]  # w_F is 1
    draw_functions: dict[str, DrawFigure] = {
        "energy_force": lambda: _plot_tradeoff(fits, levels),
        "front": lambda: figures.plot_front_by_cost(_compute_fronts(fits, levels), levels),
        "error_against_cost": lambda: figures.plot_force_error_against_cost(_compute_fronts(fits, levels), levels),
    }
    for twojmax in sorted(set(study.results["twojmax"])):
        rows = fits[fits["twojmax"] == twojmax]
        draw_functions[f"learning_curves_twojmax{twojmax}"] = partial(_plot_learning_curves, rows, levels)
    for name, draw in draw_functions.items():
        if reason := figures.render_figure(figures.FigurePlan(name, draw, str), folder).missing_reason:
            study.missing_figures.append(f"{name}: {reason}")
        else:
            study.figures.append(folder / f"{name}.png")


def _plot_tradeoff(fits: pd.DataFrame, levels: list[str]) -> Axes | np.ndarray:
    """Plot energy against force errors over weights for the largest subset, with a panel for each 2Jmax."""
    if len(set(fits["twojmax"])) > 1:
        return figures.plot_energy_force_by_twojmax(fits, levels)
    return figures.plot_energy_force_tradeoff(fits, levels)


def _plot_learning_curves(fits: pd.DataFrame, levels: list[str]) -> np.ndarray:
    """Plot the learning curves of one 2Jmax at the reference level, for the w_E/w_F with the most methods and sizes.

    Errors of fits to the whole training set are horizontal lines, because the tables have no subsets of more than 1,000
    configurations.
    """
    rows = fits[fits["level"] == levels[-1]]
    is_whole_set = rows["n_train"] == N_CONFIGURATIONS
    counts = rows[~is_whole_set].drop_duplicates(["w_energy", "sampling", "n_train"])["w_energy"].value_counts()
    if counts.empty:
        raise figures.CannotDrawError("There are no fits to subsets at the reference level.")
    ratio = counts.index.to_numpy(dtype=float)[0]  # the most frequent weight; w_F is 1
    has_ratio = rows["w_energy"] == ratio
    subsets = rows[has_ratio & ~is_whole_set]
    axes = figures.plot_learning_curves(subsets, levels, twojmax=int(subsets["twojmax"].iloc[0]), weight_ratio=ratio)
    for ax, column in zip(axes, ("ref_energy", "ref_force"), strict=True):
        for value in rows.loc[has_ratio & is_whole_set, column].dropna():
            _draw_horizontal_line(ax, float(value), f"all {N_CONFIGURATIONS:,}")
    return axes


def _draw_horizontal_line(ax: Axes, value: float, text: str) -> None:
    """Draw a dashed horizontal line with a label below its left end; extend the y axis downwards if necessary."""
    bottom, top = ax.get_ylim()
    ax.set_ylim(min(bottom, value - 0.1 * (top - value)), top)
    ax.axhline(value, color="#444444", linestyle="--", linewidth=0.8)
    ax.annotate(
        text, (0.02, value), xycoords=ax.get_yaxis_transform(), xytext=(0, -2), textcoords="offset points",
        fontsize=6, verticalalignment="top", color="#444444",
    )  # fmt: skip


def _compute_fronts(fits: pd.DataFrame, levels: list[str]) -> pd.DataFrame:
    """Compute the front of each 2Jmax, with errors against the reference level.

    Raises
    ------
    CannotDrawError
        If there are no such errors.
    """
    fronts = compute_fronts_by_twojmax(compute_medians(fits, levels))
    if fronts.empty:
        raise figures.CannotDrawError("There are no errors against the reference level.")
    return fronts
