"""Numbers and lists as a reader would write them: used by the findings, the tables and the figures."""

import math
from collections.abc import Iterable, Sequence

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


def format_number(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits and no exponent between 0.001 and a million.

    >>> format_number(4217.7), format_number(5.051), format_number(0.01234), format_number(float("nan"))
    ('4,218', '5.05', '0.0123', '–')
    """
    value = float(value)
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size >= 10 ** (digits - 1) and size < 1e6:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def format_ratio(ratio: float) -> str:
    """A weight ratio w_E/w_F as the user wrote it: 12.25 stays 12.25."""
    return f"{float(ratio):.6g}"


def format_duration(seconds: float) -> str:
    """A time for humans.

    >>> format_duration(12.34), format_duration(600), format_duration(7560), format_duration(400_000)
    ('12.3 s', '10 min', '2.1 h', '4.63 days')
    """
    seconds = float(seconds)
    if math.isnan(seconds):
        return "an unknown time"
    for unit, name in ((_DAY, "days"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{format_number(seconds / unit)} {name}"
    return f"{format_number(seconds)} s"


def format_duration_range(low: float, high: float) -> str:
    """``"from 10 min to 2.1 h"``, or ``"at 10 min"`` where both read the same."""
    first, last = format_duration(low), format_duration(high)
    return f"at {first}" if first == last else f"from {first} to {last}"


def choose_time_unit(seconds: float) -> tuple[float, str]:
    """The unit that suits a time, as (its length in seconds, its name): for axes and colour bars."""
    if seconds >= 2 * _HOUR:
        return _HOUR, "h"
    return (_MINUTE, "min") if seconds >= 2 * _MINUTE else (1.0, "s")


def join_items(words: Iterable[object]) -> str:
    """``"a, b and c"``."""
    items = [str(word) for word in words]
    return items[0] if len(items) == 1 else " and ".join([", ".join(items[:-1]), items[-1]]) if items else ""


def format_count(count: int, noun: str, plural: str | None = None) -> str:
    """``"1 step"``, ``"12 steps"``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def format_levels(names: Sequence[str]) -> str:
    """``"level 3"`` or ``"levels 3, 4 and 5"``."""
    return f"{'level' if len(names) == 1 else 'levels'} {join_items(names)}"


def capitalise_sentence(text: str) -> str:
    """`text` with a capital first letter and one full stop at its end."""
    text = text.strip()
    return text[:1].upper() + text[1:].rstrip(".") + "."
