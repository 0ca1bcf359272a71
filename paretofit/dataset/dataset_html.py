"""HTML summary of a dataset for notebooks.

The summary must appear immediately, so geometries and labels are checked only in small datasets. All text from the
file is escaped.
"""

from collections import Counter

import numpy as np

from paretofit.core import MAX_SHOWN_ITEMS, InputError, escape_text, list_first, render_list, render_table
from paretofit.dataset.quality.summary import apply_to_finite, describe_dataset, list_differing_keys
from paretofit.dataset.stored_dataset import StoredDataset

NO_WARNINGS = "<p>no warnings; <code>paretofit info</code> checks labels and near-duplicates, too</p>"
MAX_CHECKED_CONFIGURATIONS = 1000  # checking them takes about two seconds


def render_dataset(dataset: StoredDataset) -> str:
    """Render tables of the configurations and levels of a dataset, and its warnings.

    Parameters
    ----------
    dataset : Dataset
        A dataset or a selection.

    Returns
    -------
    str
        HTML of the tables, or of the error message if the dataset cannot be read (closed or corrupt).
    """
    try:
        return _render_summary(dataset)
    except InputError as error:
        return f"<p>{escape_text(dataset)}: {escape_text(error)}</p>"


def _render_summary(dataset: StoredDataset) -> str:
    """Render the tables and warnings of a dataset; raise `InputError` if it cannot be read."""
    n_atoms = dataset.n_atoms
    atoms_range = f" ({n_atoms.min()} to {n_atoms.max()} in each)" if len(n_atoms) else ""
    elements: Counter[str] = Counter()
    config_types: Counter[str] = Counter()
    for atoms in dataset:
        elements.update(atoms.get_chemical_symbols())
        config_types[str(atoms.info.get("config_type", "-"))] += 1
    rows = [
        ("configurations", f"{len(dataset):,}"),
        ("atoms", f"{n_atoms.sum():,}{atoms_range}"),
        ("elements", _format_counts(elements)),
        ("kinds (config_type)", _format_counts(config_types)),
    ]
    title = f"<p><b>Dataset</b> {escape_text(dataset.path)}</p>"
    return title + render_table((), rows) + _render_levels(dataset) + _render_warnings(dataset)


def _render_levels(dataset: StoredDataset) -> str:
    """Render a row per level: the counts and mean cost of its labels, and the scalar settings that differ."""
    if not dataset.levels:
        return "<p>no convergence levels: no configuration is labelled yet</p>"
    settings = [dataset.settings(level) for level in dataset.levels]
    differing_keys = [
        key  # only scalars fit into a table cell
        for key in list_differing_keys(settings)
        if not any(isinstance(level_settings.get(key), dict | list) for level_settings in settings)
    ]
    rows = []
    for level, level_settings in zip(dataset.levels, settings, strict=True):
        labels = dataset.labels(level)
        counts = int(labels.is_complete.sum()), int(labels.is_failed.sum())
        cells = (level_settings.get(key, "") for key in differing_keys)
        rows.append((level, *counts, apply_to_finite(np.mean, labels.seconds), *cells))
    return render_table(("level", "labels", "failed", "mean s", *differing_keys), rows)


def _render_warnings(dataset: StoredDataset) -> str:
    """Render the warnings of `describe_dataset`, or a hint if the dataset is too large for an immediate check."""
    if len(dataset) > MAX_CHECKED_CONFIGURATIONS:
        size = f"{MAX_CHECKED_CONFIGURATIONS:,} configurations"
        return f"<p>More than {size}: use <code>describe_dataset</code> to check them.</p>"
    warnings = describe_dataset(dataset).warnings
    return f"<p>Warnings:</p>{render_list(warnings)}" if warnings else NO_WARNINGS


def _format_counts(counts: Counter[str]) -> str:
    """List the most common names with their counts, such as ``"Be 1,200, O 30"``; "none" without names."""
    return list_first([f"{name} {count:,}" for name, count in counts.most_common()], MAX_SHOWN_ITEMS) or "none"
