"""Result of a run, with representations as text and as HTML for notebooks; text from data is escaped in HTML."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from rich.text import Text

from paretofit.core import escape_text, render_list, render_table
from paretofit.pareto import BASIS_COLUMN, format_size
from paretofit.report import (
    Answer,
    format_answer_table,
    format_budget_option,
    format_count,
    format_duration,
    format_number,
    format_ratio,
    join_items,
    render_answer,
    render_text,
)
from paretofit.study.further_bases import has_potentials

MAX_FRONT_ROWS = 8
SETTING_COLUMNS = ("level", "configurations", "2Jmax", "w_E/w_F", "sampling", "meV/atom", "meV/Å", "cost of the labels")


@dataclass(frozen=True)
class RunResult:
    """Result of a run.

    Attributes
    ----------
    folder : Path
        Run folder.
    results : DataFrame
        Table of ``results.csv``, a row per fit.
    front : DataFrame
        Points on the front of each 2Jmax and basis, see `paretofit.study.study_front.find_study_front`.
    report : Path
        HTML report.
    warnings : list of str
    stage_seconds : dict of str to float
        Wall time of each stage, s.
    answer : Answer or None
        Best setting for any budget; None if no setting can be recommended.
    """

    folder: Path
    results: pd.DataFrame
    front: pd.DataFrame
    report: Path
    warnings: list[str]
    stage_seconds: dict[str, float]
    answer: Answer | None = None

    @property
    def text(self) -> str:
        """Warnings, answer, path of the report and next commands, as text for the terminal."""
        seconds = sum(self.stage_seconds.values())
        has_bases = self.answer is not None and BASIS_COLUMN in self.answer.table
        scope = " of the first basis" if has_bases else ""
        counts = f"{format_count(len(self.results), 'fit')}{scope} in {format_duration(seconds)}"
        return describe_outcome(self.report, self.warnings, self.answer, counts)

    def to_dict(self) -> dict[str, Any]:
        """Convert the result to a mapping of its attributes, with the answer as a mapping or None."""
        fields = {name: getattr(self, name) for name in ("folder", "results", "front", "report", "warnings")}
        answer = None if self.answer is None else self.answer.to_dict()
        return {**fields, "stage_seconds": self.stage_seconds, "answer": answer}

    def __repr__(self) -> str:
        """Format the folder, the numbers of fits and front points, and the lowest errors, on one line."""
        front, n_fits = self.front, format_count(len(self.results), "fit")
        error_text = ""
        if len(front):
            energy, force = format_number(front["ref_energy"].min()), format_number(front["ref_force"].min())
            error_text = f", lowest errors {energy} meV/atom and {force} meV/Å"
        return f"RunResult('{self.folder}', {n_fits}, {len(front)} on the fronts{error_text})"

    def _repr_html_(self) -> str:
        """Format a link to the report, the settings, the answer, the overall front and the warnings as HTML."""
        front = self.front[self.front["overall"]]
        listed_points = front.sort_values("ref_force").head(MAX_FRONT_ROWS)
        level = escape_text(self.results["level"].iloc[-1])
        elements = [
            f"<p><b>Run</b> {escape_text(self.folder.name)}: {_format_report_link(self.report)}</p>",
            render_table((), _list_settings(self)),
            *_render_answer(self.answer),
            f"<p>Lowest errors against level {level}, medians over repetitions:</p>",
            render_table(("lowest", *SETTING_COLUMNS), _list_lowest_errors(front)),
            f"<p>{_format_heading(len(front))}</p>",
            render_table(SETTING_COLUMNS, (_format_point(row) for _, row in listed_points.iterrows())),
        ]
        return "".join(elements) + (f"<p>Warnings:</p>{render_list(self.warnings)}" if self.warnings else "")


def describe_outcome(report: Path, warnings: Sequence[str], answer: Answer | None, counts: str = "") -> str:
    """Describe warnings, the answer, the path of the report and the next commands, wrapped to the terminal.

    Parameters
    ----------
    report : Path
        HTML report in the run folder.
    warnings : sequence of str
    answer : Answer or None
        None if no setting can be recommended.
    counts : str
        What was computed, such as "120 fits in 30 s"; empty if nothing was computed.
    """
    notes = [Text(f"warning: {warning}") for warning in warnings]
    heading = f"{counts}. Answer, figures and tables:" if counts else "Answer, figures and tables:"
    budget = "1h"  # an example, if no budget of the answer can be used
    if answer is not None and answer.has_cost:
        budget = format_budget_option(answer.table["budget"].iloc[len(answer.table) // 2])
    has_bases = answer is not None and BASIS_COLUMN in answer.table
    commands = [
        (f"paretofit report {report.parent} --open", "show the page"),
        (f"paretofit plan {report.parent} --budget {budget}", "reasons and alternatives for a budget"),
    ]
    if has_bases or has_potentials(report.parent):
        commands.append((f"paretofit export {report.parent} --front", "write the potentials of the front"))
    steps = [f"  {command}\n      {purpose}" for command, purpose in commands]
    paragraphs: list[Text | str] = [*notes, *([] if answer is None else ["", render_answer(answer)]), "", heading]
    # the path and the commands are not wrapped, so that they can be copied
    return "\n".join([render_text(paragraphs), str(report), render_text(["", "Next:"]), *steps])


def _render_answer(answer: Answer | None) -> list[str]:
    """Render the sentence, the table of budgets and the notes of an answer as HTML elements; none without an answer."""
    if answer is None:
        return []
    table = format_answer_table(answer)
    rows = table.itertuples(index=False, name=None)
    elements = [
        f"<p><b>{escape_text(answer.sentence)}</b> {escape_text(answer.certainty)}</p>",
        render_table(list(table.columns), rows),
    ]
    return [*elements, *(f"<p>{escape_text(note)}</p>" for note in answer.notes)]


def _list_settings(run: RunResult) -> list[tuple[str, str]]:
    """List the factors of a run, as pairs of name and values, for a table."""
    results = run.results
    ratios = sorted(set(results["w_energy"] / results["w_force"]))
    seconds = sum(run.stage_seconds.values())
    return [
        ("fits", f"{len(results):,} in {format_duration(seconds)}"),
        ("levels", join_items(results["level"].unique())),
        ("2Jmax", join_items(sorted(results["twojmax"].unique()))),
        ("w_E/w_F", join_items(format_ratio(ratio) for ratio in ratios)),
        ("configurations", join_items(sorted(results["n_train"].unique()))),
        ("samplings", join_items(results["sampling"].unique())),
        ("repetitions", f"{results['repeat'].nunique()}"),
    ]


def _list_lowest_errors(front: pd.DataFrame) -> list[tuple[str, ...]]:
    """List the points with the lowest energy error and the lowest force error, as rows of a table."""
    if front.empty:
        return []
    columns = (("energy error", "ref_energy"), ("force error", "ref_force"))
    return [(name, *_format_point(front.iloc[int(front[column].argmin())])) for name, column in columns]


def _format_heading(count: int) -> str:
    """Format the heading of the table of `count` front points, which lists at most `MAX_FRONT_ROWS` of them."""
    note = f"; the {MAX_FRONT_ROWS} with the lowest force errors" if count > MAX_FRONT_ROWS else ""
    return f"Front of energy error, force error and cost: {format_count(count, 'point')}{note}:"


def _format_point(row: pd.Series) -> Sequence[str]:
    """Format the columns `SETTING_COLUMNS` of a front point."""
    errors = format_number(row["ref_energy"]), format_number(row["ref_force"])
    return (*format_setting_cells(row), *errors, format_duration(row["label_seconds"]))


def format_setting_cells(row: pd.Series) -> Sequence[str]:
    """Format level, configurations, 2Jmax (after the basis, if any), weight ratio and sampling of a table's row."""
    ratio = format_ratio(row["w_energy"] / row["w_force"])
    basis = f"{row[BASIS_COLUMN]} " if BASIS_COLUMN in row.index else ""
    return (str(row["level"]), format_size(row), f"{basis}{int(row['twojmax'])}", ratio, str(row["sampling"]))


def _format_report_link(report: Path) -> str:
    """Format a link to a report: relative below the working directory, which Jupyter serves, otherwise a file URI."""
    path = report.resolve()
    is_below = path.is_relative_to(Path.cwd())
    target = Path(os.path.relpath(path)).as_posix() if is_below else path.as_uri()
    return f'<a href="{escape(target)}" target="_blank">{escape_text(report)}</a>'
