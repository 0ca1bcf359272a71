"""Report of a sweep as a single HTML file that contains all images and scripts, so that it works offline."""

import base64
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from paretofit.report.answer import Answer, format_answer_table
from paretofit.report.budgets import format_budget_option
from paretofit.report.findings.finding import Finding
from paretofit.report.page.explorer import embed_explorer_data
from paretofit.report.page.templates import render_template
from paretofit.report.rivals import describe_rivals
from paretofit.report.tables.table_text import format_cells

PAPER = (
    "I. Baghishov, J. Janssen, G. Henkelman, D. Perez, Application-specific machine-learned interatomic "
    "potentials: exploring the trade-off between DFT convergence, MLIP expressivity, and computational cost, "
    "Digital Discovery (2025), doi 10.1039/d5dd00294j"
)
PICTURES_BY_FINDING = {  # figure to show below a finding, instead of that of `Finding.dots`; names by name
    "labels": "level_rmsd",
    "grid": "level_grid",
    "learning": "learning_curves",
    "weights": "energy_force",
    "sampling": "learning_curves",
    "front": "front_at_budgets",
    "networks": "networks",
}
_ANSWER_HEADINGS = {  # headings on the page by the column of `format_answer_table`
    "meV/atom": "energy error (meV/atom)",
    "meV/Å": "force error (meV/Å)",
    "MD speed": "MD speed (atom-steps/s)",
}
_MAX_FINDING_ROWS = 150  # number of rows; a longer table of a finding is only in its file, not on the page


@dataclass(frozen=True)
class ReportFigure:
    """A figure on the page.

    Attributes
    ----------
    name : str
        Stem of the name of its files.
    caption : str
    image : bytes
        Content of the image file; empty if the figure is missing.
    mime : str
        MIME type of the image.
    location : str
        Path of its files without suffix, relative to the page; by default, they are in ``figures/``.
    missing_reason : str
        Reason why the figure is missing.
    is_wide : bool
        Whether the figure is as wide as the page.
    """

    name: str
    caption: str
    image: bytes = b""
    mime: str = "image/svg+xml"
    location: str = ""
    missing_reason: str = ""
    is_wide: bool = True

    @property
    def data_uri(self) -> str:
        """Image as a data URI."""
        return f"data:{self.mime};base64," + base64.b64encode(self.image).decode("ascii")


@dataclass(frozen=True)
class ReportTable:
    """A table on the page: its title, a note about its content, the stem of the name of its files, and its content."""

    title: str
    note: str
    file_stem: str
    table: pd.DataFrame


@dataclass(frozen=True)
class AnswerSection:
    """The answer at the top of the page.

    Attributes
    ----------
    sentence, certainty, notes
        As in `Answer`.
    figure : ReportFigure
        Expected errors of the best settings against the budget.
    headings : list of (str, str)
        Names and units of the columns of the table.
    rows : list of list of str
        Texts of the cells, with a row for each budget.
    studies : list of str
        YAML of a study for each row, with commands in comments.
    rivals : list of str
        For each row, a sentence about how clearly its setting is the best.
    error_headings : tuple of str
        Names of the columns that a narrow screen emphasises.
    """

    sentence: str
    certainty: str
    figure: ReportFigure
    headings: list[tuple[str, str]]
    rows: list[list[str]]
    studies: list[str]
    rivals: list[str]
    notes: tuple[str, ...]
    error_headings: tuple[str, ...] = ("energy error", "force error")

    @classmethod
    def build(cls, answer: Answer, figure: ReportFigure, source: str) -> "AnswerSection":
        """Build the section from an answer and its figure, with commands for the run folder `source`."""
        table = format_answer_table(answer)
        headings = [_split_unit(_ANSWER_HEADINGS.get(name, name)) for name in table.columns]
        studies = [
            f"# save as setting.yaml, then: paretofit run setting.yaml\n"
            f"# reasons and alternatives: paretofit plan {source} --budget {format_budget_option(row['budget'])}\n"
            f"{text}"
            for (_, row), text in zip(answer.table.iterrows(), answer.studies, strict=True)
        ]
        rivals = [
            describe_rivals(row, answer.rivals, answer.compared, has_cost=answer.has_cost)
            for _, row in answer.table.iterrows()
        ]
        rows: list[list[str]] = table.to_numpy().tolist()
        return cls(answer.sentence, answer.certainty, figure, headings, rows, studies, rivals, answer.notes)


def render_report(
    *,
    title: str,
    opening: str,
    findings: Sequence[Finding],
    figures: Sequence[ReportFigure],
    tables: Sequence[ReportTable],
    summary: Mapping[str, str],
    warnings: Sequence[str],
    explorer: Mapping[str, Any] | None = None,
    answer: AnswerSection | None = None,
    missing_answer: str = "",
    undrawn: Sequence[str] = (),
    folder: str = "RUN",
    links: Sequence[tuple[str, str]] = (),
) -> str:
    """Render the HTML of a report.

    Parameters
    ----------
    title, opening : heading of the page, and first paragraph of the details
    findings, figures, tables : content, shown in the given order; the figure of a finding is shown below the finding
    summary : entries of a list that describes how the results were computed, by their titles
    warnings : sentences that are folded below the answer
    explorer : data from `paretofit.report.page.explorer.build_explorer_data`; None omits the interactive part
    answer : content of the top of the page; None if there is no answer
    missing_answer : sentence with the reason why there is no answer
    undrawn : names of the figures that are only drawn on request
    folder : run folder in the command that draws them
    links : pairs of the relative path of a further page and its title, for the navigation

    Returns
    -------
    The whole page as text.
    """
    drawn_figures = {figure.name: figure for figure in figures if figure.image}
    picture_names = assign_pictures(findings, drawn_figures)
    shown_findings = [
        _convert_finding(finding, drawn_figures.get(picture_names.get(finding.name, ""))) for finding in findings
    ]
    return render_template(
        "report.html",
        title=title,
        opening=opening,
        findings=shown_findings,
        figures=[figure for figure in figures if figure.name not in picture_names.values()],
        tables=[(table, _format_rows(table.table)) for table in tables],
        summary=summary,
        warnings=warnings,
        links=links,
        explorer=None if explorer is None else embed_explorer_data(explorer),
        answer=answer,
        missing_answer=missing_answer,
        undrawn=undrawn,
        folder=folder,
        paper=PAPER if any(finding.published_result for finding in findings) else "",
    )


def assign_pictures(findings: Sequence[Finding], figure_names: Collection[str]) -> dict[str, str]:
    """Assign a figure to each finding, and each figure to at most one finding.

    The figure of a finding is that of `PICTURES_BY_FINDING` or, if this is not available, that of `Finding.dots`.
    Findings that come first have precedence.

    Parameters
    ----------
    findings : sequence of Finding
    figure_names : collection of str
        Names of the available figures.

    Returns
    -------
    dict of str to str
        Name of the figure by the name of the finding, without findings that have no figure.
    """
    assigned: dict[str, str] = {}
    for finding in findings:
        for name in (PICTURES_BY_FINDING.get(finding.name, ""), finding.figure_name):
            if name in figure_names and name not in assigned.values() and finding.name not in assigned:
                assigned[finding.name] = name
    return assigned


def _convert_finding(finding: Finding, figure: ReportFigure | None) -> dict[str, Any]:
    """Convert a finding to variables of the template: its first sentence, remaining text, figure and numbers."""
    # A sentence ends with a full stop that follows a lower-case letter, digit, unit or bracket, unlike "G. Henkelman".
    headline, *remainder = re.split(r"(?<=[a-z0-9)%Å])\. (?=[A-Z])", finding.answer, maxsplit=1)
    return {
        "finding": finding, "headline": headline if not remainder else f"{headline}.", "remainder": "".join(remainder),
        "figure": figure,
        "data": _format_rows(finding.numbers, _MAX_FINDING_ROWS),
    }  # fmt: skip


def _format_rows(table: pd.DataFrame, max_rows: float = float("inf")) -> dict[str, Any]:
    """Format a table for the template.

    Returns
    -------
    dict
        ``headings``, pairs of name and unit; ``rows``, lists of pairs of a text and the number by which it is sorted
        (None for text); and ``length``, the number of rows of the table. If this is above `max_rows`, ``rows`` is
        empty.
    """
    shown = table if len(table) <= max_rows else table.iloc[:0]
    headings, cells = format_cells(shown)
    rows = [[(text, _get_sort_key(value)) for text, value in row] for row in cells]
    return {"headings": [_split_unit(heading) for heading in headings], "rows": rows, "length": len(table)}


def _split_unit(text: str) -> tuple[str, str]:
    """Split ``"force (meV/Å)"`` into its name and ``"(meV/Å)"``, so that a line break cannot divide the unit."""
    name, bracket, unit = text.rpartition(" (")
    return (name, f"({unit}") if bracket and unit.endswith(")") else (text, "")


def _get_sort_key(value: object) -> float | None:
    """Return the number by which the page sorts a cell; None for text and Booleans, which are sorted as text."""
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return float(value)
    return None
