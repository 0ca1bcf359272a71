"""Small tables and lists in HTML, every text in them escaped."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_SHOWN_ITEMS = 8  # kinds, elements and warnings of each sort
LONGEST = 200  # characters of a text from the file
NUMBER = re.compile(r"-?[0-9.,]+(e[+-]?[0-9]+)?|–")


def render_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """An HTML table, every cell of it escaped; under a header, numbers stand on the right.

    Parameters
    ----------
    header : sequence of str
        Empty for none.
    rows : iterable of sequences
        Floats are written with four digits; what is not there as a dash.
    """
    top = "".join(_cell(name, "th") for name in header)
    body = "".join(f"<tr>{''.join(_cell(_words(value), 'td', bool(header)) for value in row)}</tr>" for row in rows)
    return f"<table>{f'<thead><tr>{top}</tr></thead>' if header else ''}<tbody>{body}</tbody></table>"


def escape_text(value: Any) -> str:
    """Any value as escaped text, cut where it is endless."""
    words = str(value)
    return escape(words if len(words) <= LONGEST else f"{words[:LONGEST]} …")


def render_list(items: Sequence[str]) -> str:
    """An HTML list of sentences, escaped; the first few and how many more."""
    more = [f"and {len(items) - MAX_SHOWN_ITEMS} more"] if len(items) > MAX_SHOWN_ITEMS else []
    return f"<ul>{''.join(f'<li>{escape_text(item)}</li>' for item in [*items[:MAX_SHOWN_ITEMS], *more])}</ul>"


def _words(value: Any) -> str:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return "–"
    if isinstance(value, float | np.floating):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int | np.integer) and not isinstance(value, bool) else str(value)


def _cell(words: str, tag: str, numbers_right: bool = True) -> str:
    side = "right" if tag == "td" and numbers_right and NUMBER.fullmatch(words) else "left"
    return f'<{tag} style="text-align:{side}">{escape_text(words)}</{tag}>'
