"""The published results tables as a study: medians, front and the paper's figures, without a single fit.

What the report draws from a run is drawn from these tables; what they do not hold (rank, condition, shifted errors,
MD cost) is NaN, and no figure reads it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from paretofit.core import InputError, atomic_path, remove_file
from paretofit.pareto import pareto_front
from paretofit.published import ERROR_COLUMNS, FIT_COLUMNS, N_CONFIGURATIONS, SECONDS_PER_CONFIGURATION, read_published
from paretofit.report.figures import (
    CannotDrawError,
    get_parent_figure,
    plot_energy_force_by_twojmax,
    plot_energy_force_tradeoff,
    plot_force_error_against_cost,
    plot_front_by_cost,
    plot_learning_curves,
    save_figure,
)
from paretofit.report.tables import OBJECTIVES, RESULT_COLUMNS, compute_fronts_by_twojmax, compute_medians

DRAWN_RATIOS = (5.0, 300.0)  # the weights of the paper's Fig. 7 and 8; the tables go from 0.01 to 2000
Draw = Callable[[], Axes | np.ndarray]


@dataclass
class PublishedStudy:
    """What the published tables say.

    Attributes
    ----------
    results : DataFrame, a row per fit
        As `paretofit.published.result_tables.read_published` gives it.
    medians : DataFrame, a row per setting
        Median of every error over repetitions, ``label_seconds`` and ``n_repeats``; meV/atom, meV/Å, s.
    front : DataFrame
        The rows of `compute_medians` that no other beats in every objective, sorted by the objectives.
        ``front.attrs["dropped_rows"]`` is the number of those that lack an objective, as where errors are measured
        against another level than the reference.
    figures : list of Path
        The PNG files; an SVG is beside each.
    missing_figures : list of str
        A sentence for each figure that these tables cannot fill.
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
) -> PublishedStudy:
    """Medians, front and figures of published tables: ``paretofit pareto TABLE... --published``.

    Parameters
    ----------
    paths : sequence of path-like
        The published CSV files, see `paretofit.published.result_tables`.
    minimize : sequence of str
        Objectives; by default energy error, force error (both against the reference) and the cost of the labels.
    cost_per_configuration : mapping of level to float
        Seconds of one label, cheapest level first, the last is the reference.
    out : path-like, optional
        The CSV of the front to write, ten significant digits.
    figures_folder : path-like, optional
        Folder for the figures, made if need be: energy against force errors over weights (the paper's Fig. 4 and 5),
        learning curves by sampling (Fig. 6), the front coloured by cost (Fig. 7) and against cost (Fig. 8), all of
        weights in `DRAWN_RATIOS` only: beyond, errors of eV would stretch the axes.

    Returns
    -------
    PublishedStudy

    Raises
    ------
    InputError
        As `read_published` and `pareto_front`; or `out` is one of the tables or cannot be written.
    """
    if out is not None and Path(out).resolve() in [Path(path).resolve() for path in paths]:
        raise InputError(f"{out}: is one of the tables; write the front to another file")
    results = read_published(paths, cost_per_configuration)
    grouped = results.groupby(FIT_COLUMNS, sort=True)
    table = grouped[[*ERROR_COLUMNS, "label_seconds"]].median()
    table["n_repeats"] = grouped["repeat"].nunique()
    table = table.reset_index()
    front = pareto_front(table, list(minimize) or OBJECTIVES, drop_missing=True).reset_index(drop=True)
    study = PublishedStudy(results, table, front)
    if out is not None:
        with atomic_path(out) as temporary:
            front.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")
    if figures_folder is not None:
        _draw(study, [str(level) for level in cost_per_configuration], Path(figures_folder))
    return study


def format_published(study: PublishedStudy) -> str:
    """What was found, in a few lines."""
    fits, settings = len(study.results), len(study.medians)
    repetitions = study.medians["n_repeats"].max()
    counts = f"{fits} fits; medians over up to {repetitions} repetitions give {settings} settings"
    lines = [f"{counts}, {len(study.front)} of them on the front"]
    if study.figures:
        low, high = DRAWN_RATIOS
        lines.append(f"figures, of the weights w_E/w_F from {low:g} to {high:g} that the paper draws:")
        lines += [f"  {path}" for path in study.figures]
    lines += [f"not drawn: {text}" for text in study.missing_figures]
    return "\n".join(lines)


def _draw(study: PublishedStudy, levels: list[str], folder: Path) -> None:
    """Draw what the tables can fill; of the rest, an older figure is removed and a sentence kept."""
    fits = study.results.reindex(columns=RESULT_COLUMNS).assign(solver="published")
    fits = fits[fits["w_energy"].between(*DRAWN_RATIOS)]  # w_F is 1
    plans: dict[str, Draw] = {
        "energy_force": lambda: _tradeoff(fits, levels),
        "front": lambda: plot_front_by_cost(_fronts(fits, levels), levels),
        "error_against_cost": lambda: plot_force_error_against_cost(_fronts(fits, levels), levels),
    }
    for twojmax in sorted(set(study.results["twojmax"])):
        rows = fits[fits["twojmax"] == twojmax]
        plans[f"learning_curves_twojmax{twojmax}"] = partial(_learning, rows, levels)
    for name, draw in plans.items():
        try:
            saved = save_figure(get_parent_figure(draw()), folder, name)
        except CannotDrawError as reason:
            for kind in ("png", "svg"):
                remove_file(folder / f"{name}.{kind}")
            study.missing_figures.append(f"{name}: {reason}")
        else:
            study.figures += [path for path in saved if path.suffix == ".png"]


def _tradeoff(fits: pd.DataFrame, levels: list[str]) -> Axes | np.ndarray:
    """Energy against force errors over weights at the largest subset, a panel for each 2Jmax."""
    if len(set(fits["twojmax"])) > 1:
        return plot_energy_force_by_twojmax(fits, levels)
    return plot_energy_force_tradeoff(fits, levels)


def _learning(fits: pd.DataFrame, levels: list[str]) -> np.ndarray:
    """Learning curves of one 2Jmax at the reference, at the w_E/w_F that most samplings and sizes have.

    What the whole training set gives is a line across: the tables have nothing between 1,000 and all of it.
    """
    rows = fits[fits["level"] == levels[-1]]
    whole = rows["n_train"] == N_CONFIGURATIONS
    counts = rows[~whole].drop_duplicates(["w_energy", "sampling", "n_train"])["w_energy"].value_counts()
    if counts.empty:
        raise CannotDrawError("There are no fits to subsets at the reference level.")
    ratio = counts.index.to_numpy(dtype=float)[0]
    chosen = rows["w_energy"] == ratio
    subsets = rows[chosen & ~whole]
    axes = plot_learning_curves(subsets, levels, twojmax=int(subsets["twojmax"].iloc[0]), weight_ratio=ratio)
    for ax, column in zip(axes, ("ref_energy", "ref_force"), strict=True):
        for value in rows.loc[chosen & whole, column].dropna():
            _line_across(ax, float(value), f"all {N_CONFIGURATIONS:,}")
    return axes


def _line_across(ax: Axes, value: float, text: str) -> None:
    """A dashed line at `value`, inside of the axes, with its name under it at the left."""
    bottom, top = ax.get_ylim()
    ax.set_ylim(min(bottom, value - 0.1 * (top - value)), top)
    ax.axhline(value, color="#444444", linestyle="--", linewidth=0.8)
    ax.annotate(
        text, (0.02, value), xycoords=ax.get_yaxis_transform(), xytext=(0, -2), textcoords="offset points",
        fontsize=6, verticalalignment="top", color="#444444",
    )  # fmt: skip


def _fronts(fits: pd.DataFrame, levels: list[str]) -> pd.DataFrame:
    """The front of each 2Jmax, from rows that are measured against the reference."""
    fronts = compute_fronts_by_twojmax(compute_medians(fits, levels))
    if fronts.empty:
        raise CannotDrawError("No errors against the reference level are there.")
    return fronts
