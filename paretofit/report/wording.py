"""Numbers, times and lists as text, for the findings, tables and figures."""

import math
from collections.abc import Iterable, Sequence

from paretofit.core import format_count as format_count  # noqa: PLC0414  (part of this module)

_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86400.0


def format_number(value: float, digits: int = 3) -> str:
    """Format a number with `digits` significant digits, or as an integer if it has at least as many before the point.

    Numbers from 0.0001 to a million have no exponent; NaN is shown as –, infinity as ∞ or −∞.

    >>> format_number(4217.7), format_number(5.051), format_number(0.01234), format_number(float("nan"))
    ('4,218', '5.05', '0.0123', '–')
    """
    value = float(value)
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if 10 ** (digits - 1) <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def format_signed(value: float, digits: int = 3) -> str:
    """Format a number as `format_number` does, with a minus sign instead of a hyphen."""
    return format_number(value, digits).replace("-", "−")


def format_ratio(ratio: float) -> str:
    """Format a weight ratio w_E/w_F with at most six significant digits, so that 12.25 is not rounded."""
    return f"{float(ratio):.6g}"


def format_duration(seconds: float) -> str:
    """Format a time (s) in the largest of the units day, h and min in which it is at least 2, otherwise in s.

    NaN gives ``"an unknown time"``.

    >>> format_duration(12.34), format_duration(600), format_duration(7560), format_duration(400_000)
    ('12.3 s', '10 min', '2.1 h', '4.63 days')
    """
    seconds = float(seconds)
    if math.isnan(seconds):
        return "an unknown time"
    for unit, name in ((_DAY_S, "days"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= 2 * unit:
            return f"{format_number(seconds / unit)} {name}"
    return f"{format_number(seconds)} s"


def format_duration_range(low: float, high: float) -> str:
    """Format a range of times: ``"from 10 min to 2.1 h"``, or ``"at 10 min"`` if both ends give the same text."""
    shortest, longest = format_duration(low), format_duration(high)
    return f"at {shortest}" if shortest == longest else f"from {shortest} to {longest}"


def choose_time_unit(seconds: float) -> tuple[float, str]:
    """Choose h, min or s for an axis with times of about `seconds`; return the length of the unit (s) and its name."""
    if seconds >= 2 * _HOUR_S:
        return _HOUR_S, "h"
    return (_MINUTE_S, "min") if seconds >= 2 * _MINUTE_S else (1.0, "s")


def join_items(items: Iterable[object]) -> str:
    """Join items into an enumeration for a sentence: ``"a, b and c"``; no items give an empty string."""
    texts = [str(item) for item in items]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def join_sentences(*sentences: str) -> str:
    """Join sentences into a paragraph; empty sentences are omitted."""
    return " ".join(filter(None, sentences))


def format_count_range(counts: Iterable[int], noun: str) -> str:
    """Format the range of one or more counts: ``"12 steps"`` or ``"10 to 12 steps"``."""
    counts = list(counts)
    low, high = min(counts), max(counts)
    return format_count(int(high), noun) if low == high else f"{int(low):,} to {format_count(int(high), noun)}"


def format_levels(names: Sequence[str]) -> str:
    """Format names of convergence levels: ``"level 3"`` or ``"levels 3, 4 and 5"``."""
    return f"{'level' if len(names) == 1 else 'levels'} {join_items(names)}"


def capitalise_sentence(text: str) -> str:
    """Return a text with a capital letter at its beginning and one full stop at its end, without outer blanks."""
    text = text.strip()
    return text[:1].upper() + text[1:].rstrip(".") + "."
