"""HTML page of sections with tables and figures, for validation and active learning."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from paretofit.report.page.sweep_page import ReportFigure
from paretofit.report.page.templates import render_template
from paretofit.report.tables.table_text import format_heading, format_markdown
from paretofit.report.wording import format_number

MIN_SHOWN_VALUE = 1e-6  # smaller numbers are shown as zero
CLOSING = "All numbers are in validation.csv, the curves in tables/, and the settings in validation.json."


@dataclass(frozen=True)
class PageSection:
    """A section of the page: title, table, figures, text above them, and whether the section is folded."""

    title: str
    table: pd.DataFrame
    figures: Sequence[ReportFigure]
    note: str = ""
    is_folded: bool = False

    @property
    def headings(self) -> list[str]:
        """Headings of the columns."""
        return [format_heading(column) for column in self.table.columns]

    @property
    def rows(self) -> list[list[tuple[str, bool]]]:
        """Text of each cell, and whether the cell contains a number."""
        return [
            [(format_value(value), not isinstance(value, str)) for value in row]
            for row in self.table.itertuples(index=False, name=None)
        ]

    @property
    def markdown(self) -> str:
        """Table in Markdown."""
        return format_markdown(self.table.map(format_value))


def format_value(value: object) -> str:
    """Format a value: text unchanged, numbers with four significant digits, and zero for numbers below 1e-6."""
    if isinstance(value, (int, float, np.number)):
        return format_number(0.0 if abs(float(value)) < MIN_SHOWN_VALUE else float(value), 4)
    return str(value)


def render_sections(
    *,
    title: str,
    opening: str,
    sections: Sequence[PageSection],
    failures: Sequence[str],
    facts: Sequence[tuple[str, str]] = (),
    links: Sequence[tuple[str, str]] = (),
    closing: str = CLOSING,
) -> str:
    """Render the HTML page of sections; all text from data is escaped.

    Parameters
    ----------
    title, opening, closing : str
        Heading, first and last paragraph.
    sections : sequence of PageSection
    failures : sequence of str
    facts : sequence of (str, str)
        Questions and answers at the top of the page.
    links : sequence of (str, str)
        Relative paths of further pages, and what they show.
    """
    return render_template(
        "sections.html",
        title=title,
        opening=opening,
        facts=facts,
        links=links,
        sections=sections,
        failures=failures,
        closing=closing,
    )
