"""Writer of the report on a results table: figures, tables and the HTML page, in one directory.

This module assembles the report, and contains the captions of the figures of the results table.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from paretofit.core import InputError, remove_file, write_text
from paretofit.pareto import ASSUMED_COLUMN, BASIS_COLUMN
from paretofit.report.answer import Answer, describe_intervals, find_answer_or_reason
from paretofit.report.figures import sweep_figures
from paretofit.report.figures.answer_figures import plot_answer, plot_front_at_budgets
from paretofit.report.figures.axes import OUTSIDE_NOTE
from paretofit.report.figures.drawing import FigurePlan, render_figure
from paretofit.report.figures.finding_figures import plan_finding_figures
from paretofit.report.figures.style import UNITS, remove_figure
from paretofit.report.findings.catalogue import JOINED_FINDINGS, collect_findings
from paretofit.report.findings.finding import Finding
from paretofit.report.joined_bases import JoinedBases
from paretofit.report.page.explorer import build_explorer_data
from paretofit.report.page.sweep_page import (
    AnswerSection,
    ReportFigure,
    ReportTable,
    assign_pictures,
    render_report,
)
from paretofit.report.paired_errors import PairedErrors
from paretofit.report.tables import summaries
from paretofit.report.tables import table_text as tables
from paretofit.report.tables.error_tables import build_model_table
from paretofit.report.wording import (
    format_count,
    format_duration_range,
    format_levels,
    format_number,
    format_ratio,
    join_items,
    join_sentences,
)

PAGE_DPI = 130  # resolution of bitmaps, dots per inch, which is enough for a screen; SVG is for print


@dataclass(frozen=True)
class ExtraContent:
    """Content of a report that is not derived from the results table.

    Attributes
    ----------
    findings, figure_plans, tables : sequences
        Content that is shown before that of the results table.
    later_figure_plans : sequence of FigurePlan
        Figures that are shown after those of the results table.
    figures : sequence of ReportFigure
        Figures that are already drawn; they are shown last.
    split_errors : PairedErrors, optional
        Errors in further train/test splits, for the answer and the findings; None if there are none.
    scope : str
        The part of the study that the results table covers, such as a basis; it is appended to the questions of the
        findings. Empty for the whole study.
    """

    findings: Sequence[Finding] = ()
    figure_plans: Sequence[FigurePlan] = ()
    tables: Sequence[ReportTable] = ()
    later_figure_plans: Sequence[FigurePlan] = ()
    figures: Sequence[ReportFigure] = ()
    split_errors: PairedErrors | None = None
    scope: str = ""

    def join_findings(self, findings: Sequence[Finding]) -> list[Finding]:
        """Join the additional findings with those of the results table, and append the scope to the latter's questions.

        The findings `JOINED_FINDINGS` are about all bases, so their questions are not changed.
        """
        suffix = f" ({self.scope})" if self.scope else ""
        scoped_findings = [
            finding if finding.name in JOINED_FINDINGS else replace(finding, question=finding.question + suffix)
            for finding in findings
        ]
        return [*self.findings, *scoped_findings]


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
    answer: Answer | None = None,
    joined: JoinedBases | None = None,
    formats: Sequence[str] = ("png",),
    all_figures: bool = False,
    links: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write ``tables/*.csv|md``, ``figures/*`` and ``report.html``, and return the path of the page.

    The page is written twice: before the figures are drawn, so that the answer can be read, and with the figures. Files
    of an earlier report that no longer belong to the report are removed.

    Parameters
    ----------
    folder : output directory, which is created if it does not exist
    results : DataFrame, a row per fit, with the columns of ``results.csv`` (meV/atom, meV/Å, s)
    front : DataFrame with the columns `FRONT_COLUMNS`, a row per point of these results that is not dominated
    levels : names of the convergence levels in order of cost; the last is the reference
    title : heading of the page
    summary : entries of a list that describes how the results were computed, by their titles
    warnings : sentences for the list of warnings
    extra_tables : more tables for the page, by title
    path_table : continuous energy/force curves of the largest subset, drawn below the points of the figures; optional
    study : settings as in the YAML file of the study, from which the page derives the YAML of a single point; optional
    extra_content : additional findings, figures and tables; none by default
    answer : from `paretofit.report.find_answer`, which is called by default; if it fails, the page gives the reason
    joined : results of all bases, for the opening, the front and the explorer; by default, `results` are all results
    formats : formats of the figures, a selection of "png" and "svg"; the page shows the first one
    all_figures : whether to draw the secondary figures, too; otherwise the page only names them
    links : pairs of the relative path of a further page and its title

    Raises
    ------
    InputError
        If a table lacks a column, if `results` has no rows or a level that is not in `levels`, or if there are no
        levels.
    """
    folder, levels = Path(folder), [str(level) for level in levels]
    tables_folder, results = folder / "tables", _check_tables(results, front, levels)
    front = front.assign(level=front["level"].astype(str))
    extra = extra_content or ExtraContent()
    joined = _check_joined(joined or JoinedBases(results, front, extra.split_errors), levels)
    answer, reason = (answer, "") if answer is not None else find_answer_or_reason(results, study, extra.split_errors)
    findings = extra.join_findings(collect_findings(results, front, levels, extra.split_errors, joined))
    _write_finding_tables(tables_folder, findings)
    singles = summaries.select_single_levels(results)
    report_tables = list(_write_tables(singles, joined.front, levels, extra_tables or {}, extra.tables, tables_folder))
    explorer = _build_explorer(joined, levels, study, answer, folder)
    answer_section = None if answer is None else _build_answer_section(answer, results, levels, folder, formats)
    plans = [*extra.figure_plans, *_plan_figures(singles, levels, path_table, answer), *extra.later_figure_plans]
    plans += _plan_dots(findings, [plan.name for plan in plans], folder / "figures")  # also removes old files
    drawn_plans = [plan for plan in plans if all_figures or not plan.is_secondary]
    undrawn_names = [plan.name for plan in plans if plan not in drawn_plans]
    opening = _describe_study(summaries.select_single_levels(joined.results), joined, levels)

    def write_page(figures: Sequence[ReportFigure]) -> None:
        page = render_report(
            title=title, opening=opening, findings=findings, figures=figures, tables=report_tables, summary=summary,
            warnings=warnings, explorer=explorer, answer=answer_section, missing_answer=reason, links=links,
            undrawn=undrawn_names, folder=str(folder),
        )  # fmt: skip
        write_text(folder / "report.html", page)

    write_page(())
    for name in undrawn_names:
        remove_figure(folder / "figures", name)  # a file of an earlier report would show other results
    write_page([*(render_figure(plan, folder / "figures", formats, PAGE_DPI) for plan in drawn_plans), *extra.figures])
    return folder / "report.html"


def _check_joined(joined: JoinedBases, levels: Sequence[str]) -> JoinedBases:
    """Check the joined results and front, and return them with the prepared results (see `prepare_results`)."""
    return joined._replace(results=_check_tables(joined.results, joined.front, levels))


def _build_explorer(
    joined: JoinedBases, levels: Sequence[str], study: Mapping[str, Any] | None, answer: Answer | None, folder: Path
) -> dict[str, Any]:
    """Build the data of the explorer from the joined results."""
    medians, mixtures = summaries.compute_medians(joined.results, levels), summaries.tabulate_mixtures(joined.results)
    return build_explorer_data(
        medians, levels, study, answer, mixtures=mixtures, further_studies=joined.studies, folder=str(folder)
    )


def _build_answer_section(
    answer: Answer, results: pd.DataFrame, levels: Sequence[str], folder: Path, formats: Sequence[str]
) -> AnswerSection:
    """Draw the figure of the answer, which writes its files, and build the section at the top of the page."""
    figure = render_figure(_plan_answer_figure(answer, results, levels), folder / "figures", formats, PAGE_DPI)
    return AnswerSection.build(answer, figure, str(folder))


def _plan_answer_figure(answer: Answer, results: pd.DataFrame, levels: Sequence[str]) -> FigurePlan:
    """Plan the figure of the expected errors against the budget, with its caption."""
    return FigurePlan(
        "answer", lambda: plot_answer(answer, levels),
        lambda: f"Errors ({answer.error_source}) against level {answer.reference} of the best setting (lowest "
        "geometric mean of both errors) within a budget of "
        f"{'computing time for labels' if answer.has_cost else 'configurations'}. "
        f"Brackets and bands: {describe_intervals(results)}. Circles: rows of the table. "
        "Dotted and *: more configurations than were fitted, extrapolated.",
    )  # fmt: skip


def _plan_dots(findings: Sequence[Finding], other_names: Sequence[str], folder: Path) -> list[FigurePlan]:
    """Plan the figure of `Finding.dots` of each finding without another figure, and remove those of all other findings.

    Parameters
    ----------
    findings : sequence of Finding
    other_names : sequence of str
        Names of the other figures of the report.
    folder : Path
        Directory of the figures, from which those of an earlier report are removed.
    """
    dot_plans = {plan.name: plan for plan in plan_finding_figures(findings)}
    shown_names = assign_pictures(findings, {*other_names, *dot_plans}).values()
    for finding in findings:
        if finding.figure_name not in shown_names:
            remove_figure(folder, finding.figure_name)
    return [plan for name, plan in dot_plans.items() if name in shown_names]


def _write_finding_tables(folder: Path, findings: Sequence[Finding]) -> None:
    """Write the table of each finding, or remove the table of an earlier report if the finding has no numbers."""
    for finding in findings:
        name = f"finding_{finding.name}"
        if len(finding.numbers):
            tables.write_table(folder, name, finding.numbers)
        else:
            for kind in ("csv", "md"):
                remove_file(folder / f"{name}.{kind}")


def _check_tables(results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    """Check both tables and the levels, and return the prepared results (see `prepare_results`)."""
    if not levels:
        raise InputError("levels must contain at least one convergence level; got none")
    summaries.check_columns(front, summaries.FRONT_COLUMNS, "front")
    frame = summaries.prepare_results(results, levels)
    if frame.empty:
        raise InputError("the results table has no rows; a report requires at least one fit")
    return frame


def _describe_study(results: pd.DataFrame, joined: JoinedBases, levels: Sequence[str]) -> str:
    """Describe the swept settings, the lowest errors and the front in one paragraph.

    `results` are the joined results of single levels, as prepared by `prepare_results`.
    """
    ratios, sizes = results["weight_ratio"], results["n_train"]
    result_levels = [level for level in levels if level in set(results["level"])]
    settings = (
        f"{format_count(len(results), 'fit')}: convergence {format_levels(result_levels)}, "
        f"2Jmax {join_items(sorted(set(results['twojmax'])))}, w_E/w_F {_format_range(ratios)}, "
        f"{_format_range(sizes)} training configurations, {join_items(summaries.list_sampling_methods(results))} "
        f"sampling, up to {format_count(results['repeat'].nunique(), 'repetition')}."
    )
    front = joined.front
    points = summaries.compute_overall_front(front)
    if "overall" in front:
        points = summaries.drop_duplicate_fits(front[front["overall"]])
    costs = points["label_seconds"]
    models = "bases and 2Jmax" if BASIS_COLUMN in front else "2Jmax"
    objectives = _describe_objectives(joined.objectives)
    cost = f"; its labels cost {format_duration_range(costs.min(), costs.max())}" if len(costs) else ""
    if ASSUMED_COLUMN in results and results[ASSUMED_COLUMN].any():
        cost += " (assumed by the study, not measured)" if cost else ""
    return join_sentences(
        settings,
        f"Errors are medians over repetitions of the RMSE on the test set"
        f"{f'; the reference is level {levels[-1]}' if len(levels) > 1 else ''}.",
        _describe_lowest_errors(summaries.compute_medians(results, levels)),
        f"The front over all {models} in {objectives} has {format_count(len(points), 'point')}{cost}.",
    )


def _describe_objectives(objectives: Sequence[str]) -> str:
    """Describe the quantities that the front minimises, such as ``"energy error, force error and DFT cost"``."""
    return join_items([*(f"{summaries.ERROR_KINDS.get(name, name)} error" for name in objectives), "DFT cost"])


def _describe_lowest_errors(table: pd.DataFrame) -> str:
    """Describe the settings with the lowest energy and force errors in a table of medians; empty without errors."""
    lowest = [
        f"{format_number(row[column])} {UNITS[kind]} (level {row['level']}, "
        f"{f'basis {row[BASIS_COLUMN]}, ' if BASIS_COLUMN in table else ''}2Jmax = {row['twojmax']}, "
        f"w_E/w_F = {format_ratio(row['weight_ratio'])}, {row['n_train']:,} configurations)"
        for column, kind in summaries.ERROR_KINDS.items()
        for _, row in table.dropna(subset=[column]).nsmallest(1, column).iterrows()
    ]
    return f"The lowest median errors are {join_items(lowest)}." if lowest else ""


def _format_range(numbers: "pd.Series[float]") -> str:
    """Format the range of some numbers, such as ``"1 to 150"``, or their only value."""
    low, high = numbers.min(), numbers.max()
    return format_ratio(low) if low == high else f"{format_ratio(low)} to {format_ratio(high)}"


def _plan_figures(
    results: pd.DataFrame, levels: Sequence[str], paths: pd.DataFrame | None, answer: Answer | None
) -> Iterator[FigurePlan]:
    """Plan the figures of the results of single levels, with their captions; `paths` are the continuous curves."""
    largest = summaries.select_largest_subset(summaries.compute_medians(results, levels))
    tradeoff_caption = _describe_tradeoff(largest, levels[-1], has_curves=paths is not None and not paths.empty)
    yield FigurePlan(
        "learning_curves",
        lambda: sweep_figures.plot_learning_curves(results, levels),
        lambda: _describe_learning_curves(results, levels),
    )
    yield FigurePlan(
        "energy_force_by_twojmax",
        lambda: sweep_figures.plot_energy_force_by_twojmax(results, levels, path_table=paths),
        lambda: f"Every 2Jmax. {tradeoff_caption}",
        is_secondary=True,
    )
    yield FigurePlan(
        "energy_force", lambda: sweep_figures.plot_energy_force_tradeoff(results, levels, path_table=paths),
        lambda: f"The largest model, 2Jmax = {largest['twojmax'].max()}. {tradeoff_caption}", is_wide=False,
    )  # fmt: skip
    if answer is not None:
        yield FigurePlan(
            "front_at_budgets", lambda: plot_front_at_budgets(answer),
            lambda: "Lowest energy and force errors that can be reached together within a budget, over all levels, "
            f"2Jmax, weights, sampling methods and numbers of configurations. {OUTSIDE_NOTE}", is_wide=False,
        )  # fmt: skip


def _describe_tradeoff(largest: pd.DataFrame, reference: str, *, has_curves: bool) -> str:
    """Describe, as a caption, the energy and force errors at the largest subset, the rows `largest`."""
    curves = " The lines are fits for all ratios between the points." if has_curves else ""
    line_styles = (
        f"Solid, filled: against level {reference}; dotted, hollow: against the level of the training labels. "
    )
    if set(largest["level"]) == {reference}:
        line_styles = ""
    return (
        f"Energy against force RMSE on the test set for w_E/w_F {_format_range(largest['weight_ratio'])}, trained on "
        f"{summaries.describe_subset(largest)}. {line_styles}The ends of a line are the smallest and largest w_E/w_F."
        f"{curves} {OUTSIDE_NOTE}"
    )


def _describe_learning_curves(results: pd.DataFrame, levels: Sequence[str]) -> str:
    """Describe the learning curves as a caption."""
    rows = sweep_figures.select_learning_rows(results, levels)
    return (
        f"RMSE against the number of training configurations by sampling method, at level {levels[-1]}, 2Jmax = "
        f"{rows['twojmax'].iloc[0]} and w_E/w_F = {format_ratio(rows['weight_ratio'].iloc[0])}: median and 10–90 % "
        f"band over {format_count(rows['repeat'].nunique(), 'repetition')}; a band may extend beyond the axes. This "
        f"2Jmax is the largest for which most of these subsets determine all features. {OUTSIDE_NOTE}"
    )


def _write_tables(
    results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str],
    extra_tables: Mapping[str, pd.DataFrame], leading_tables: Sequence[ReportTable], folder: Path,
) -> Iterator[ReportTable]:  # fmt: skip
    """Write all tables of the report, and yield them for the page, which shows only the errors of the largest 2Jmax.

    `leading_tables` are shown and written before the front, `extra_tables` last.
    """
    errors = tables.tabulate_errors(results, levels)
    tables.write_table(folder, "errors", errors)
    max_twojmax = errors["twojmax"].max()
    shown_errors = errors[errors["twojmax"] == max_twojmax]
    note = (
        f"Median RMSE at 2Jmax = {max_twojmax}, trained on {join_items(sorted(set(shown_errors['n_train'])))} "
        "configurations; the file has the other models, too."
    )
    shown_errors = shown_errors.drop(columns=["twojmax", "n_train"])
    yield ReportTable("Errors by level and weight", note, "errors", shown_errors)
    front_table, costs = tables.tabulate_front(front), tables.tabulate_costs(results, levels)
    report_tables = [
        *leading_tables,
        ReportTable("The front", "Click on a heading to sort.", "front", front_table),
        ReportTable("DFT cost of a level", "Median over subsets of their cost per configuration.", "costs", costs),
    ]
    if "models" not in {table.file_stem for table in leading_tables}:
        report_tables.append(build_model_table(results, levels, pd.DataFrame()))
    used_names = {"errors", *(table.file_stem for table in report_tables)}
    for table in (*report_tables, *_name_extra_tables(extra_tables, used_names)):
        tables.write_table(folder, table.file_stem, table.table)
        yield table


def _name_extra_tables(extra_tables: Mapping[str, pd.DataFrame], used_names: set[str]) -> Iterator[ReportTable]:
    """Yield the extra tables with unique names of files from their titles; these are added to `used_names`."""
    for title, table in extra_tables.items():
        name = re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_") or "table"
        # A table must not overwrite the file of another table or of a finding.
        while name in used_names or name.startswith("finding_"):
            name = f"extra_{name}"
        used_names.add(name)
        yield ReportTable(title, "", name, table)
