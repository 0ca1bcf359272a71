"""HTML page of sections with tables and figures, for validation and active learning."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from paretofit.report.page.sweep_page import ReportFigure
from paretofit.report.page.templates import render_template
from paretofit.report.tables.table_text import format_heading, format_markdown
from paretofit.report.wording import format_number

MIN_SHOWN_VALUE = 1e-6  # numbers of smaller magnitude are shown as zero, in the unit of their column
CLOSING = "All numbers are in validation.csv, the curves in tables/, and the settings in validation.json."


@dataclass(frozen=True)
class PageSection:
    """A section of the page.

    Attributes
    ----------
    title : str
    table : DataFrame
        Numbers and text with the column names of the results; may be empty.
    figures : sequence of ReportFigure
    note : str
        Text above the table and the figures.
    is_folded : bool
        Whether the section is collapsed until the reader opens it.
    """

    title: str
    table: pd.DataFrame
    figures: Sequence[ReportFigure]
    note: str = ""
    is_folded: bool = False

    @property
    def headings(self) -> list[str]:
        """Headings of the columns of the table, with units."""
        return [format_heading(column) for column in self.table.columns]

    @property
    def rows(self) -> list[list[tuple[str, bool]]]:
        """Text of each cell, and whether the cell contains a number instead of text."""
        return [
            [(format_value(value), not isinstance(value, str)) for value in row]
            for row in self.table.itertuples(index=False, name=None)
        ]

    @property
    def markdown(self) -> str:
        """Text of the table in Markdown."""
        return format_markdown(self.table.map(format_value))


def format_value(value: object) -> str:
    """Format a cell: numbers with four significant digits, or as zero if below 1e-6 in magnitude; others by `str`."""
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
    """Render the HTML page of sections; all texts are escaped.

    Parameters
    ----------
    title, opening, closing : str
        Heading, first paragraph and last paragraph.
    sections : sequence of PageSection
    failures : sequence of str
        Messages about calculations that failed.
    facts : sequence of (str, str)
        Pairs of a question and its answer, at the top of the page.
    links : sequence of (str, str)
        Pairs of the relative path of a further page and a description of its content.

    Returns
    -------
    str
        The whole page.
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
