"""Short lists and counts for messages, and the order of names that contain numbers."""

import re
from collections.abc import Iterable


def list_first(items: Iterable[object], limit: int = 5) -> str:
    """List the first `limit` items and the number of further items, such as ``"a, b, c and 4 more"``."""
    texts = [str(item) for item in items]
    n_omitted = len(texts) - limit
    return ", ".join(texts[:limit]) + (f" and {n_omitted} more" if n_omitted > 0 else "")


def format_count(count: int, noun: str, plural: str | None = None) -> str:
    """Format a count with its noun: ``"1 step"``, ``"12 steps"``; by default, the plural is the noun with an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def get_natural_sort_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that compares digits as numbers, so that ``"run2"`` comes before ``"run10"``.

    Each run of digits gives (0, number, digits), and any other text (1, 0, text), so that digits come first.
    """
    pieces = re.split(r"(\d+)", text)
    return [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in pieces]
