"""`write_report`: everything that a results table gives, in one folder.

It puts the parts together and holds the captions; what is drawn and said is made elsewhere in this room.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from paretofit.core import InputError, remove_file, write_text
from paretofit.report.figures import front_figures
from paretofit.report.figures import sweep_figures as figures
from paretofit.report.figures.axes import OUTSIDE_NOTE
from paretofit.report.figures.drawing import FigurePlan, render_figure
from paretofit.report.findings.catalogue import collect_findings
from paretofit.report.findings.finding import Finding
from paretofit.report.page.explorer import build_explorer_data
from paretofit.report.page.sweep_page import ReportFigure, ReportTable, render_report
from paretofit.report.tables import table_text as tables
from paretofit.report.tables.summaries import (
    FRONT_COLUMNS,
    check_columns,
    compute_fronts_by_twojmax,
    compute_medians,
    compute_overall_front,
    describe_subset,
    list_sampling_methods,
    prepare_results,
    select_largest_subset,
)
from paretofit.report.wording import (
    format_count,
    format_duration_range,
    format_levels,
    format_number,
    format_ratio,
    join_items,
)


@dataclass(frozen=True)
class ExtraContent:
    """What a study's report has beyond its results table.

    Attributes
    ----------
    findings, figure_plans, tables : sequences
        Come before those of the results.
    later_figure_plans : sequence of FigurePlan
        Come after the figures of the results.
    figures : sequence of Picture
        Drawn already; come last.
    """

    findings: Sequence[Finding] = ()
    figure_plans: Sequence[FigurePlan] = ()
    tables: Sequence[ReportTable] = ()
    later_figure_plans: Sequence[FigurePlan] = ()
    figures: Sequence[ReportFigure] = ()


def write_report(
    folder: Path | str,
    results: pd.DataFrame,
    front: pd.DataFrame,
    levels: Sequence[str],
    *,
    title: str,
    summary: Mapping[str, str],
    warnings: Sequence[str] = (),
    extra_tables: Mapping[str, pd.DataFrame] | None = None,
    path_table: pd.DataFrame | None = None,
    study: Mapping[str, Any] | None = None,
    extra_content: ExtraContent | None = None,
) -> Path:
    """Write ``figures/*.png|svg``, ``tables/*.csv|md`` and ``report.html`` into a folder.

    A figure that the data cannot fill is left out, and the page says why.

    Parameters
    ----------
    folder : where to write; created if needed
    results : DataFrame, a row per fit, with the columns of ``results.csv`` (meV/atom, meV/Å, s)
    front : DataFrame, a row per point that is not dominated, with the columns `FRONT_COLUMNS`
    levels : names of the convergence levels by cost, the last is the reference
    title : heading of the page
    summary : how the results were computed, an entry per line of the page's last section
    warnings : sentences that the reader must see
    extra_tables : more tables for the page, by title
    path_table : the continuous energy/force curves of the largest subset, drawn under the points of the figures
    study : settings as in the study's YAML file, so that the page can give the YAML of a single point
    extra_content : findings, figures and tables that go beyond the results table

    Returns
    -------
    Path of ``report.html``, which is written last.

    Raises
    ------
    InputError
        A table lacks a column or has no rows, or `results` has a level that `levels` does not list.
    """
    folder, levels = Path(folder), [str(level) for level in levels]
    results = _checked(results, front, levels)
    front = front.assign(level=front["level"].astype(str))
    extra_content = extra_content or ExtraContent()
    findings = [*extra_content.findings, *collect_findings(results, front, levels)]
    _write_numbers(folder / "tables", findings)
    text = render_report(
        title=title,
        opening=_opening(results, front, levels),
        findings=findings,
        figures=[
            *(
                render_figure(plan, folder / "figures")
                for plan in (*extra_content.figure_plans, *_plans(results, levels, path_table, extra_content))
            ),
            *extra_content.figures,
        ],
        tables=list(_sheets(results, front, levels, extra_tables or {}, extra_content.tables, folder / "tables")),
        summary=summary,
        warnings=warnings,
        explorer=build_explorer_data(compute_medians(results, levels), levels, study),
    )
    write_text(folder / "report.html", text)
    return folder / "report.html"


def _write_numbers(folder: Path, findings: Sequence[Finding]) -> None:
    """The tables behind the findings; one that an earlier report left is removed where there is none now."""
    for finding in findings:
        name = f"finding_{finding.name}"
        if len(finding.numbers):
            tables.write_table(folder, name, finding.numbers)
        else:
            for kind in ("csv", "md"):
                remove_file(folder / f"{name}.{kind}")


def _checked(results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    if not levels:
        raise InputError("levels must name at least one convergence level, got none")
    check_columns(front, FRONT_COLUMNS, "front")
    frame = prepare_results(results, levels)
    if frame.empty:
        raise InputError("the results table has no rows; a report needs at least one fit")
    return frame


def _opening(results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str]) -> str:
    """What was swept, and the best of it, in one paragraph."""
    ratios, sizes = results["weight_ratio"], results["n_train"]
    used = [level for level in levels if level in set(results["level"])]
    swept = (
        f"{format_count(len(results), 'fit')}: convergence {format_levels(used)}, "
        f"2Jmax {join_items(sorted(set(results['twojmax'])))}, w_E/w_F {_span(ratios.min(), ratios.max())}, "
        f"{_span(sizes.min(), sizes.max())} training configurations, "
        f"{join_items(list_sampling_methods(results))} sampling, up to "
        f"{format_count(results['repeat'].nunique(), 'repetition')}."
    )
    points = compute_overall_front(front)
    costs = points["label_seconds"]
    price = f"; its labels cost {format_duration_range(costs.min(), costs.max())}" if len(costs) else ""
    return (
        f"{swept} Errors are medians over repetitions of the RMSE on the test set; the reference is level "
        f"{levels[-1]}. {_lowest(compute_medians(results, levels))}The front over all 2Jmax has "
        f"{format_count(len(points), 'point')}{price}."
    )


def _lowest(table: pd.DataFrame) -> str:
    """The settings with the lowest median energy and force errors, as one sentence."""
    best = []
    for column, unit in (("ref_energy", "meV/atom"), ("ref_force", "meV/Å")):
        for _, row in table.dropna(subset=[column]).nsmallest(1, column).iterrows():
            best.append(
                f"{format_number(row[column])} {unit} (level {row['level']}, 2Jmax = {row['twojmax']}, "
                f"w_E/w_F = {format_ratio(row['weight_ratio'])}, {row['n_train']:,} configurations)"
            )
    return f"The lowest median errors are {join_items(best)}. " if best else ""


def _span(low: float, high: float) -> str:
    return format_ratio(low) if low == high else f"{format_ratio(low)} to {format_ratio(high)}"


def _plans(
    results: pd.DataFrame, levels: Sequence[str], paths: pd.DataFrame | None, more: ExtraContent
) -> Iterator[FigurePlan]:
    table = compute_medians(results, levels)
    largest = select_largest_subset(table)
    fronts = compute_fronts_by_twojmax(table)
    reference = levels[-1]
    curve = "" if paths is None or paths.empty else "The lines are fits at every ratio between. "

    def tradeoff_caption() -> str:
        return (
            "Energy against force RMSE on the test set for w_E/w_F "
            f"{_span(largest['weight_ratio'].min(), largest['weight_ratio'].max())}, trained on "
            f"{describe_subset(largest)}. Solid, filled: against level {reference}; dotted, hollow: against the "
            f"level trained on. The ends of a line are the smallest and largest w_E/w_F. {curve}{OUTSIDE_NOTE}"
        )

    def learning_caption() -> str:
        rows = figures.select_learning_rows(results, levels)
        return (
            "RMSE against the number of training configurations by sampling method, at level "
            f"{reference}, 2Jmax = {rows['twojmax'].iloc[0]} and w_E/w_F = "
            f"{format_ratio(rows['weight_ratio'].iloc[0])}: median and 10–90 % band over "
            f"{format_count(rows['repeat'].nunique(), 'repetition')}; a band may leave the axes. This is the largest 2Jmax "
            f"of which most of these subsets determine all features. {OUTSIDE_NOTE}"
        )

    yield FigurePlan(
        "energy_force", lambda: figures.plot_energy_force_tradeoff(results, levels, path_table=paths),
        lambda: f"The largest model, 2Jmax = {largest['twojmax'].max()}. {tradeoff_caption()}", wide=False,
    )  # fmt: skip
    yield FigurePlan(
        "energy_force_by_twojmax",
        lambda: _several(results, levels, paths),
        lambda: f"Every 2Jmax. {tradeoff_caption()}",
    )
    yield FigurePlan("learning_curves", lambda: figures.plot_learning_curves(results, levels), learning_caption)
    yield FigurePlan(
        "front", lambda: front_figures.plot_front_by_cost(fronts, levels),
        lambda: "The front in energy error, force error and DFT cost, for each 2Jmax on its own: test "
        f"errors against level {reference}, face colour by DFT cost of the training labels, shape and rim by "
        f"level. {OUTSIDE_NOTE}",
    )  # fmt: skip
    yield FigurePlan(
        "error_against_cost", lambda: front_figures.plot_force_error_against_cost(fronts, levels),
        lambda: "The same fronts as force RMSE against DFT cost of the training labels, face colour by "
        f"energy RMSE, shape and rim by level. {OUTSIDE_NOTE}",
    )  # fmt: skip
    yield from more.later_figure_plans


def _several(results: pd.DataFrame, levels: Sequence[str], paths: pd.DataFrame | None) -> np.ndarray:
    if results["twojmax"].nunique() < 2:
        raise figures.CannotDrawError("All fits have the same 2Jmax, which the figure before shows.")
    return figures.plot_energy_force_by_twojmax(results, levels, path_table=paths)


def _sheets(
    results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str],
    extra: Mapping[str, pd.DataFrame], first: Sequence[ReportTable], folder: Path,
) -> Iterator[ReportTable]:  # fmt: skip
    errors = tables.tabulate_errors(results, levels)
    tables.write_table(folder, "errors", errors)
    top = errors["twojmax"].max()
    shown = errors[errors["twojmax"] == top]
    note = (
        f"Median RMSE at 2Jmax = {top}, trained on {join_items(sorted(set(shown['n_train'])))} configurations; the "
        "other models are in the file."
    )
    yield ReportTable("Errors by level and weight", note, "errors", shown.drop(columns=["twojmax", "n_train"]))
    points = ReportTable("The front", "Click on a heading to sort.", "front", tables.tabulate_front(front))
    costs = ReportTable(
        "DFT cost of a level", "Median over subsets of their cost per configuration.", "costs",
        tables.tabulate_costs(results, levels),
    )  # fmt: skip
    models = ReportTable("Models", "Features of each 2Jmax.", "models", tables.tabulate_models(results, levels))
    taken = {"errors", "front", "costs", "models", *(sheet.file_stem for sheet in first)}
    for sheet in (*first, points, costs, models, *_extra_sheets(extra, taken)):
        if sheet is models and "models" in {one.file_stem for one in first}:
            continue
        tables.write_table(folder, sheet.file_stem, sheet.table)
        yield sheet


def _extra_sheets(extra: Mapping[str, pd.DataFrame], taken: set[str]) -> Iterator[ReportTable]:
    for title, table in extra.items():
        name = re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_") or "table"
        while name in taken or name.startswith("finding_"):
            name = f"extra_{name}"
        taken.add(name)
        yield ReportTable(title, "", name, table)
