"""A page of sections, of a validation or of active learning: numbers and figures in one file that loads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jinja2
import numpy as np

from paretofit.report.tables.table_text import format_heading, format_markdown
from paretofit.report.wording import format_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from paretofit.report.page.sweep_page import ReportFigure

NOISE = 1e-6
CLOSING = "The numbers in full: validation.csv; the curves: tables/; what was asked for: validation.json."


@dataclass(frozen=True)
class PageSection:
    """A part of the page: its title, its numbers, its figures."""

    title: str
    table: pd.DataFrame
    figures: Sequence[ReportFigure]

    @property
    def headings(self) -> list[str]:
        """Of the columns, as people read them."""
        return [format_heading(column) for column in self.table.columns]

    @property
    def rows(self) -> list[list[tuple[str, bool]]]:
        """Texts, and whether each is a number."""
        return [
            [(format_value(value), not isinstance(value, str)) for value in row]
            for row in self.table.itertuples(index=False, name=None)
        ]

    @property
    def markdown(self) -> str:
        """The table in Markdown."""
        return format_markdown(self.table.map(format_value))


def format_value(value: object) -> str:
    """A text as it is, a number with four significant digits; what is below 1e-6 in our units is noise."""
    if isinstance(value, (int, float, np.number)):
        return format_number(0.0 if abs(float(value)) < NOISE else float(value), 4)
    return str(value)


def render_sections(
    *, title: str, opening: str, sections: Sequence[PageSection], failures: Sequence[str], closing: str = CLOSING
) -> str:
    """The HTML of sections; everything that comes from data is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("paretofit", "report/page"),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    template = environment.get_template("sections.html")
    return template.render(title=title, opening=opening, sections=sections, failures=failures, closing=closing)
