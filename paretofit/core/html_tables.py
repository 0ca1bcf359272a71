"""Small HTML tables and lists with escaped text."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

MAX_SHOWN_ITEMS = 8  # number of configuration types, elements or warnings in a list
MAX_TEXT_LENGTH = 200  # number of characters of a cell or list item
NUMBER = re.compile(r"-?[0-9.,]+(e[+-]?[0-9]+)?|–")  # matches a formatted number, or the dash of a missing one


def render_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Render an HTML table with escaped cells; if it has a header, numbers are right-aligned.

    Parameters
    ----------
    header : sequence of str
        Empty for a table without a header.
    rows : iterable of sequences
        Cells of each row; floats are written with four significant digits, None and NaN as a dash.
    """
    head = "".join(_render_cell(name, "th") for name in header)
    rendered_rows = ([_render_cell(_format_value(value), "td", bool(header)) for value in row] for row in rows)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rendered_rows)
    thead = f"<thead><tr>{head}</tr></thead>" if header else ""
    return f"<table>{thead}<tbody>{body}</tbody></table>"


def escape_text(value: Any) -> str:
    """Return the text of a value, escaped for HTML and cut after `MAX_TEXT_LENGTH` characters."""
    text = str(value)
    return escape(text if len(text) <= MAX_TEXT_LENGTH else f"{text[:MAX_TEXT_LENGTH]} …")


def render_list(items: Sequence[str]) -> str:
    """Render up to `MAX_SHOWN_ITEMS` items as an HTML list of escaped text, and the number of further items."""
    shown_items = list(items[:MAX_SHOWN_ITEMS])
    if len(items) > MAX_SHOWN_ITEMS:
        shown_items.append(f"and {len(items) - MAX_SHOWN_ITEMS} more")
    return f"<ul>{''.join(f'<li>{escape_text(item)}</li>' for item in shown_items)}</ul>"


def _format_value(value: Any) -> str:
    """Format a number with thousands separators, None and NaN as a dash, and any other value as its text."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return "–"
    if isinstance(value, float | np.floating):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int | np.integer) and not isinstance(value, bool) else str(value)


def _render_cell(text: str, tag: str, align_numbers: bool = True) -> str:
    """Render a cell ``th`` or ``td``; with `align_numbers`, a number in a ``td`` cell is right-aligned."""
    side = "right" if tag == "td" and align_numbers and NUMBER.fullmatch(text) else "left"
    return f'<{tag} style="text-align:{side}">{escape_text(text)}</{tag}>'
