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
PICTURES_BY_FINDING = {  # name of a finding to the name of the figure that shows it, if it is not that of its dots
    "labels": "level_rmsd",
    "grid": "level_grid",
    "learning": "learning_curves",
    "weights": "energy_force",
    "sampling": "learning_curves",
    "front": "front_at_budgets",
    "networks": "networks",
}
_ANSWER_HEADINGS = {
    "meV/atom": "energy error (meV/atom)",
    "meV/Å": "force error (meV/Å)",
    "MD speed": "MD speed (atom-steps/s)",
}
_MAX_FINDING_ROWS = 150  # longer tables of findings are only in their files, not on the page


@dataclass(frozen=True)
class ReportFigure:
    """A figure on the page: its caption, and its image or the reason why it is missing.

    `location` is the path of its files without suffix, if they are not in ``figures/``; `wide` figures fill the page.
    """

    name: str
    caption: str
    image: bytes = b""
    mime: str = "image/svg+xml"
    location: str = ""
    missing_reason: str = ""
    wide: bool = True

    @property
    def data_uri(self) -> str:
        """Image as a data URI."""
        return f"data:{self.mime};base64," + base64.b64encode(self.image).decode("ascii")


@dataclass(frozen=True)
class ReportTable:
    """A table on the page: its title, a note about its content, and the stem of its file."""

    title: str
    note: str
    file_stem: str
    table: pd.DataFrame


@dataclass(frozen=True)
class AnswerSection:
    """The answer at the top of the page: its sentences, picture, table, YAML texts, and how sure it is."""

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
        """Build the section from the answer and its drawn figure; `source` is the run folder in commands."""
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
    title, opening : heading, and first paragraph of the details
    findings, figures, tables : content, shown in the given order; figures of a finding are shown below it
    summary : description of how the results were computed, with a line for each entry
    warnings : sentences that are folded below the answer
    explorer : data from `paretofit.report.page.explorer.build_explorer_data`; None omits the interactive part
    answer : content of the top of the page
    missing_answer : reason why there is no answer
    undrawn, folder : names of the figures that are drawn on request only, and the run folder for the command
    links : relative paths and titles of further pages, in the navigation

    Returns
    -------
    The whole page as text.
    """
    by_name = {figure.name: figure for figure in figures if figure.image}
    names = assign_pictures(findings, by_name)
    items = [_build_finding_item(finding, by_name.get(names.get(finding.name, ""))) for finding in findings]
    return render_template(
        "report.html",
        title=title,
        opening=opening,
        findings=items,
        figures=[figure for figure in figures if figure.name not in names.values()],
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
    """Assign a figure to each finding, so that none shows two: that of `PICTURES_BY_FINDING`, or else that of its dots.

    Returns
    -------
    dict of str to str
        Name of the figure by name of the finding; findings without a figure are left out.
    """
    assigned: dict[str, str] = {}
    for finding in findings:
        for name in (PICTURES_BY_FINDING.get(finding.name, ""), finding.figure_name):
            if name in figure_names and name not in assigned.values() and finding.name not in assigned:
                assigned[finding.name] = name
    return assigned


def _build_finding_item(finding: Finding, figure: ReportFigure | None) -> dict[str, Any]:
    """Build a finding for the template: its first sentence, the others, its figure, and its numbers."""
    headline, *remainder = re.split(r"(?<=[a-z0-9)%Å])\. (?=[A-Z])", finding.answer, maxsplit=1)
    return {
        "finding": finding, "headline": headline if not remainder else f"{headline}.", "remainder": "".join(remainder),
        "figure": figure,
        "data": _format_rows(finding.numbers, _MAX_FINDING_ROWS),
    }  # fmt: skip


def _format_rows(table: pd.DataFrame, max_rows: float = float("inf")) -> dict[str, Any]:
    """Format a table for the template: headings, rows of pairs (text, number for sorting or None), and length.

    If the table has more than `max_rows` rows, none of them is formatted.
    """
    shown = table if len(table) <= max_rows else table.iloc[:0]
    headings, cells = format_cells(shown)
    rows = [[(text, _get_sort_key(value)) for text, value in row] for row in cells]
    return {"headings": [_split_unit(heading) for heading in headings], "rows": rows, "length": len(table)}


def _split_unit(text: str) -> tuple[str, str]:
    """Split ``"force (meV/Å)"`` into name and unit, so that a line break cannot divide the unit."""
    name, bracket, unit = text.rpartition(" (")
    return (name, f"({unit}") if bracket and unit.endswith(")") else (text, "")


def _get_sort_key(value: object) -> float | None:
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return float(value)
    return None
