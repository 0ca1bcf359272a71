"""Report of a sweep as a single HTML file that contains all images and scripts, so that it works offline."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from paretofit.report.findings.finding import Finding
from paretofit.report.page.explorer import embed_explorer_data
from paretofit.report.page.templates import render_template
from paretofit.report.tables.table_text import format_cell, format_heading

PAPER = (
    "I. Baghishov, J. Janssen, G. Henkelman, D. Perez, Application-specific machine-learned interatomic "
    "potentials: exploring the trade-off between DFT convergence, MLIP expressivity, and computational cost, "
    "Digital Discovery (2025), doi 10.1039/d5dd00294j"
)
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
    links: Sequence[tuple[str, str]] = (),
) -> str:
    """Render the HTML of a report.

    Parameters
    ----------
    title, opening : heading and first paragraph
    findings, figures, tables : content, shown in the given order
    summary : description of how the results were computed, with a line for each entry
    warnings : sentences for the last section
    explorer : data from `paretofit.report.page.explorer.build_explorer_data`; None omits the interactive part
    links : relative paths and titles of further pages, in the navigation

    Returns
    -------
    The whole page as text.
    """
    return render_template(
        "report.html",
        title=title,
        opening=opening,
        findings=[(finding, _format_rows(finding.numbers, _MAX_FINDING_ROWS)) for finding in findings],
        figures=figures,
        tables=[(table, _format_rows(table.table)) for table in tables],
        summary=summary,
        warnings=warnings,
        links=links,
        explorer=None if explorer is None else embed_explorer_data(explorer),
        paper=PAPER if any(finding.published_result for finding in findings) else "",
    )


def _format_rows(table: pd.DataFrame, max_rows: float = float("inf")) -> dict[str, Any]:
    """Format a table for the template: headings, rows of pairs (text, number for sorting or None), and length.

    If the table has more than `max_rows` rows, none of them is formatted.
    """
    shown = table if len(table) <= max_rows else table.iloc[:0]
    rows = [
        [(format_cell(column, value), _get_sort_key(value)) for column, value in zip(table.columns, row, strict=True)]
        for row in shown.itertuples(index=False, name=None)
    ]
    headings = [_split_unit(format_heading(column)) for column in table.columns]
    return {"headings": headings, "rows": rows, "length": len(table)}


def _split_unit(text: str) -> tuple[str, str]:
    """Split ``"force (meV/Å)"`` into name and unit, so that a line break cannot divide the unit."""
    name, bracket, unit = text.rpartition(" (")
    return (name, f"({unit}") if bracket and unit.endswith(")") else (text, "")


def _get_sort_key(value: object) -> float | None:
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return float(value)
    return None
