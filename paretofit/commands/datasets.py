"""Import and description of a dataset, with checks of its labels against its structures."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from paretofit.consistency import check_labels
from paretofit.dataset import Dataset, DatasetSummary, ImportSummary, describe_dataset, import_dataset
from paretofit.dataset.quality import compute_level_errors
from paretofit.report.findings import MIN_GRID, assess_grid
from paretofit.structures import describe_near_duplicates


def inspect_dataset(path: Path | str) -> DatasetSummary:
    """Summarize a dataset, check its labels, and count near-duplicates.

    The warnings are those of `paretofit.dataset.describe_dataset`, `paretofit.consistency.check_labels` and
    `paretofit.structures.describe_near_duplicates`. If the levels are a grid of cutoffs and k-point spacings, the
    summary also says which of the two limits the accuracy (`paretofit.report.findings.assess_grid`).

    Raises
    ------
    InputError
        If the dataset cannot be read.
    """
    with Dataset(path) as dataset:
        summary = describe_dataset(dataset)
        return replace(
            summary,
            warnings=[*check_labels(dataset), *summary.warnings, *filter(None, [describe_near_duplicates(dataset)])],
            grid=_describe_grid(dataset),
        )


def _describe_grid(dataset: Dataset) -> str:
    """Describe what limits the accuracy of the levels; empty unless they are a grid of cutoffs and k-point spacings."""
    settings = [dataset.settings(level) for level in dataset.levels]
    cutoffs = {level_settings.get("cutoff_ev") for level_settings in settings}
    spacings = {level_settings.get("kspacing_per_angstrom") for level_settings in settings}
    if min(len(cutoffs), len(spacings)) < MIN_GRID or len(cutoffs) * len(spacings) != len(settings):
        return ""
    finding = assess_grid(compute_level_errors(dataset, dataset.levels))
    return "" if finding is None else finding.answer


def import_labels(output: Path | str, sources: Mapping[str, Path | str] | Path | str, **options: Any) -> ImportSummary:
    """Import labelled structures into a dataset file, and check the labels.

    Parameters
    ----------
    output, sources, options
        As `paretofit.dataset.import_dataset`.

    Raises
    ------
    InputError
        As `paretofit.dataset.import_dataset`.
    """
    return check_import(import_dataset(output, sources, **options))


def check_import(summary: ImportSummary) -> ImportSummary:
    """Return the summary of an import with the warnings of `paretofit.consistency.check_labels` added."""
    with Dataset(summary.path) as dataset:
        return replace(summary, warnings=[*summary.warnings, *check_labels(dataset)])
