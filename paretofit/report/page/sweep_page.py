"""The page: one HTML file that holds its pictures, loads nothing and works without a network.

Everything that comes from data or from the caller passes through jinja2's escaping.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from paretofit.report.findings.finding import Finding
from paretofit.report.page.explorer import embed_explorer_data
from paretofit.report.tables.table_text import format_cell, format_heading

PAPER = (
    "I. Baghishov, J. Janssen, G. Henkelman, D. Perez, Application-specific machine-learned interatomic "
    "potentials: exploring the trade-off between DFT convergence, MLIP expressivity, and computational cost, "
    "Digital Discovery (2025), doi 10.1039/d5dd00294j"
)
_LONGEST = 150  # rows of a table behind a finding that are shown in the page; a longer one is a file


@dataclass(frozen=True)
class ReportFigure:
    """A figure on the page: its caption, and either its picture or why there is none."""

    name: str
    caption: str
    image: bytes = b""
    mime: str = "image/svg+xml"
    location: str = ""
    missing_reason: str = ""
    wide: bool = True

    @property
    def data_uri(self) -> str:
        """The picture as a data URI."""
        return f"data:{self.mime};base64," + base64.b64encode(self.image).decode("ascii")


@dataclass(frozen=True)
class ReportTable:
    """A table on the page: its title, a sentence on what it holds, and the file that has it in full."""

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
) -> str:
    """The HTML of a report.

    Parameters
    ----------
    title, opening : heading and first paragraph
    findings, figures, tables : shown in the order given
    summary : how it was computed, a line for each entry
    warnings : shown where there are any
    explorer : what `paretofit.report.page.explorer.build_explorer_data` gives; None leaves the interactive part out

    Returns
    -------
    The whole page as text.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("paretofit", "report/page"),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html").render(
        title=title,
        opening=opening,
        findings=[(finding, _table(finding.numbers, _LONGEST)) for finding in findings],
        figures=figures,
        tables=[(table, _table(table.table)) for table in tables],
        summary=summary,
        warnings=warnings,
        explorer=None if explorer is None else embed_explorer_data(explorer),
        paper=PAPER,
    )


def _table(table: pd.DataFrame, longest: int | None = None) -> dict[str, Any]:
    """What the template needs: headings, and rows of (text, number to sort by or None)."""
    rows: list[list[tuple[str, float | None]]] = []
    if longest is None or len(table) <= longest:
        rows = [
            [(format_cell(column, value), _sort_key(value)) for column, value in zip(table.columns, row, strict=True)]
            for row in table.itertuples(index=False, name=None)
        ]
    headings = [_name_and_unit(format_heading(column)) for column in table.columns]
    return {"headings": headings, "rows": rows, "length": len(table)}


def _name_and_unit(text: str) -> tuple[str, str]:
    """``"force (meV/Å)"`` as its two parts, so that no line breaks within the unit."""
    name, bracket, unit = text.rpartition(" (")
    return (name, f"({unit}") if bracket and unit.endswith(")") else (text, "")


def _sort_key(value: object) -> float | None:
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return float(value)
    return None
