"""Label errors on a grid of cutoffs and k-point spacings, from the study's dataset or the one in 'grid_labels'."""

from pathlib import Path

from paretofit.core import InputError
from paretofit.dataset import Dataset
from paretofit.dataset.quality import LevelErrors, compute_level_errors
from paretofit.report.findings import assess_grid
from paretofit.study.schema import Study


def compute_grid_errors(study: Study, errors: LevelErrors) -> LevelErrors:
    """Compute the errors of the levels of the dataset in 'grid_labels'; if the study has none, return `errors`.

    Raises
    ------
    InputError
        If the dataset cannot be read.
    """
    return errors if study.grid_labels is None else _read_errors(study.grid_labels)


def _read_errors(path: Path) -> LevelErrors:
    """Compute the errors of all levels of the dataset in 'grid_labels'; messages of InputErrors begin with this key."""
    try:
        with Dataset(path) as dataset:
            return compute_level_errors(dataset, dataset.levels)
    except InputError as error:
        raise InputError(f"'grid_labels': {error}") from error


def check_grid_labels(study: Study) -> None:
    """Raise InputError if the dataset in 'grid_labels' cannot be read, or its levels form no grid."""
    if study.grid_labels is not None and assess_grid(_read_errors(study.grid_labels)) is None:
        raise InputError(
            f"'grid_labels': the levels of {study.grid_labels} form no grid of at least two cutoffs and two k-point "
            "spacings whose last level is the finest in both; 'paretofit label' with a 'ladder: {grid: ...}' writes one"
        )
