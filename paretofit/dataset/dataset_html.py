"""A dataset as a notebook shows it: a few small tables in HTML.

It must come at once, so that geometries and labels are looked at for trouble only where there are few of them.
Everything that comes from the file is escaped.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from paretofit.core import MAX_SHOWN_ITEMS, InputError, escape_text, render_list, render_table
from paretofit.dataset.quality.summary import describe_dataset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paretofit.core import Array
    from paretofit.dataset.labelled import LabelledStructures

MAX_CHECKED_CONFIGURATIONS = 1000  # configurations up to which the checks of `Dataset.info` are made: about two seconds


def render_dataset(dataset: LabelledStructures) -> str:
    """Configurations, elements, kinds, levels with what their labels cost, and warnings.

    Parameters
    ----------
    dataset : LabelledStructures
        Also a selection.

    Returns
    -------
    str
        HTML. Of a dataset that cannot be read (closed, damaged) the sentence that says so.
    """
    try:
        return _summary(dataset)
    except InputError as error:
        return f"<p>{escape_text(dataset)}: {escape_text(error)}</p>"


def _summary(dataset: LabelledStructures) -> str:
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
    return f"<p><b>Dataset</b> {escape_text(dataset.path)}</p>{render_table((), facts)}{_levels(dataset)}{_warnings(dataset)}"


def _levels(dataset: LabelledStructures) -> str:
    if not dataset.levels:
        return "<p>no convergence levels: nothing is labelled yet</p>"
    settings = [_plain_settings(dataset.settings(level)) for level in dataset.levels]
    differing = [key for key in dict.fromkeys(key for one in settings for key in one) if _differs(key, settings)]
    rows = [
        (level, *_label_counts(dataset, level), *(own.get(key, "") for key in differing))
        for level, own in zip(dataset.levels, settings, strict=True)
    ]
    return render_table(("level", "labels", "failed", "mean s", *differing), rows)


def _label_counts(dataset: LabelledStructures, level: str) -> tuple[int, int, float]:
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


def _warnings(dataset: LabelledStructures) -> str:
    if len(dataset) > MAX_CHECKED_CONFIGURATIONS:
        return f"<p>More than {MAX_CHECKED_CONFIGURATIONS:,} configurations: <code>info()</code> looks for trouble.</p>"
    warnings = describe_dataset(dataset).warnings
    return f"<p>Warnings:</p>{render_list(warnings)}" if warnings else "<p>no warnings</p>"


def _counts(counts: Counter[str]) -> str:
    shown = [f"{name} {count:,}" for name, count in counts.most_common(MAX_SHOWN_ITEMS)]
    return (
        ", ".join(shown) + (f" and {len(counts) - MAX_SHOWN_ITEMS} more" if len(counts) > MAX_SHOWN_ITEMS else "")
        or "none"
    )
