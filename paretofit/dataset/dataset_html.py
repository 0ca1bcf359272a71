"""A dataset as a notebook shows it: a few small tables in HTML.

It must come at once, so that geometries and labels are looked at for trouble only where there are few of them.
Everything that comes from the file is escaped.
"""

from __future__ import annotations

import re
from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from paretofit.core import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from paretofit.core import Array
    from paretofit.dataset.dataset import Dataset

CHECKED = 1000  # configurations up to which the checks of `Dataset.info` are made: about two seconds
SHOWN = 8  # kinds, elements and warnings of each sort
LONGEST = 200  # characters of a text from the file
NUMBER = re.compile(r"-?[0-9.,]+(e[+-]?[0-9]+)?|–")


def dataset_html(dataset: Dataset) -> str:
    """Configurations, elements, kinds, levels with what their labels cost, and warnings.

    Parameters
    ----------
    dataset : Dataset
        Also a selection.

    Returns
    -------
    str
        HTML. Of a dataset that cannot be read (closed, damaged) the sentence that says so.
    """
    try:
        return _summary(dataset)
    except InputError as error:
        return f"<p>{text(dataset)}: {text(error)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
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


def text(value: Any) -> str:
    """Any value as escaped text, cut where it is endless."""
    words = str(value)
    return escape(words if len(words) <= LONGEST else f"{words[:LONGEST]} …")


def listing(items: Sequence[str]) -> str:
    """An HTML list of sentences, escaped; the first few and how many more."""
    more = [f"and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
    return f"<ul>{''.join(f'<li>{text(item)}</li>' for item in [*items[:SHOWN], *more])}</ul>"


def _words(value: Any) -> str:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return "–"
    if isinstance(value, float | np.floating):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int | np.integer) and not isinstance(value, bool) else str(value)


def _cell(words: str, tag: str, numbers_right: bool = True) -> str:
    side = "right" if tag == "td" and numbers_right and NUMBER.fullmatch(words) else "left"
    return f'<{tag} style="text-align:{side}">{text(words)}</{tag}>'


def _summary(dataset: Dataset) -> str:
    sizes = dataset.n_atoms
    each = f" ({sizes.min()} to {sizes.max()} in each)" if len(sizes) else ""
    elements: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for atoms in dataset:
        elements.update(atoms.get_chemical_symbols())
        kinds[str(atoms.info.get("config_type", "-"))] += 1
    facts = [
        ("configurations", f"{len(dataset):,}"),
        ("atoms", f"{sizes.sum():,}{each}"),
        ("elements", _counts(elements)),
        ("kinds (config_type)", _counts(kinds)),
    ]
    return f"<p><b>Dataset</b> {text(dataset.path)}</p>{table((), facts)}{_levels(dataset)}{_warnings(dataset)}"


def _levels(dataset: Dataset) -> str:
    if not dataset.levels:
        return "<p>no convergence levels: nothing is labelled yet</p>"
    settings = [_plain_settings(dataset.settings(level)) for level in dataset.levels]
    differing = [key for key in dict.fromkeys(key for one in settings for key in one) if _differs(key, settings)]
    rows = [
        (level, *_label_counts(dataset, level), *(own.get(key, "") for key in differing))
        for level, own in zip(dataset.levels, settings, strict=True)
    ]
    return table(("level", "labels", "failed", "mean s", *differing), rows)


def _label_counts(dataset: Dataset, level: str) -> tuple[int, int, float]:
    labels = dataset.labels(level)
    return int(labels.complete.sum()), int((labels.status == 2).sum()), _mean(labels.seconds)


def _plain_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Those that fit into a cell."""
    return {key: value for key, value in settings.items() if not isinstance(value, dict | list)}


def _differs(key: str, settings: Sequence[dict[str, Any]]) -> bool:
    return len({repr(own.get(key)) for own in settings}) > 1


def _mean(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _warnings(dataset: Dataset) -> str:
    if len(dataset) > CHECKED:
        return f"<p>More than {CHECKED:,} configurations: <code>info()</code> looks for trouble.</p>"
    warnings = dataset.info().warnings
    return f"<p>Warnings:</p>{listing(warnings)}" if warnings else "<p>no warnings</p>"


def _counts(counts: Counter[str]) -> str:
    shown = [f"{name} {count:,}" for name, count in counts.most_common(SHOWN)]
    return ", ".join(shown) + (f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else "") or "none"
