"""Small HTML tables and lists with escaped text."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

MAX_SHOWN_ITEMS = 8  # number of configuration types, elements or warnings in a list
MAX_TEXT_LENGTH = 200  # number of characters of a cell or list item
NUMBER = re.compile(r"-?[0-9.,]+(e[+-]?[0-9]+)?|–")


def render_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Render an HTML table with escaped cells; if it has a header, numbers are right-aligned.

    Parameters
    ----------
    header : sequence of str
        Empty for a table without a header.
    rows : iterable of sequences
        Floats are written with four significant digits, missing values as a dash.
    """
    head = "".join(_render_cell(name, "th") for name in header)
    cells = ((_render_cell(_format_value(value), "td", bool(header)) for value in row) for row in rows)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if header else ''}<tbody>{body}</tbody></table>"


def escape_text(value: Any) -> str:
    """Return a value as escaped text of limited length."""
    text = str(value)
    return escape(text if len(text) <= MAX_TEXT_LENGTH else f"{text[:MAX_TEXT_LENGTH]} …")


def render_list(items: Sequence[str]) -> str:
    """Render the first few items as an HTML list with escaped text, followed by the number of further items."""
    remainder_item = [f"and {len(items) - MAX_SHOWN_ITEMS} more"] if len(items) > MAX_SHOWN_ITEMS else []
    return (
        f"<ul>{''.join(f'<li>{escape_text(item)}</li>' for item in [*items[:MAX_SHOWN_ITEMS], *remainder_item])}</ul>"
    )


def _format_value(value: Any) -> str:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return "–"
    if isinstance(value, float | np.floating):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int | np.integer) and not isinstance(value, bool) else str(value)


def _render_cell(text: str, tag: str, align_numbers: bool = True) -> str:
    side = "right" if tag == "td" and align_numbers and NUMBER.fullmatch(text) else "left"
    return f'<{tag} style="text-align:{side}">{escape_text(text)}</{tag}>'
