"""Rows of a user's own linear model as the design of a study: checks, and a copy in the order of the dataset."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from paretofit.core import InputError, hash_file
from paretofit.dataset import Dataset
from paretofit.descriptors import DesignBlock, DesignMatrix, RowsBasis, StudyBasis

ROWS_HASH = "rows_sha256"  # attribute of the copy: SHA-256 of the file from which the rows were copied


def check_given_rows(basis: RowsBasis, sizes: list[int], dataset: Dataset, *, has_free_atoms: bool) -> None:
    """Check that a design file has the rows of all configurations, and columns for all sizes.

    Parameters
    ----------
    basis : RowsBasis
    sizes : list of int
        The 2Jmax of the study.
    dataset : Dataset
        Configurations of the study.
    has_free_atoms : bool
        Whether models must reproduce energies of free atoms exactly, which given rows do not support.

    Raises
    ------
    InputError
        If the file cannot be read, `has_free_atoms` is true, or rows or columns are missing or have a wrong number.
    """
    design = DesignMatrix.open(basis.rows)
    if has_free_atoms:
        raise InputError(
            f"{basis.rows}: exact energies of free atoms require descriptors, which are not known for given rows; set "
            "'reference_energies: fitted'"
        )
    if missing_ids := sorted(set(dataset.ids.tolist()) - set(design.ids.tolist())):
        raise InputError(
            f"{basis.rows} has no rows of configuration {missing_ids[0]} of {dataset.path} ({len(missing_ids)} of "
            f"{len(dataset)} are missing); write the rows of all configurations, with their ids"
        )
    column_sizes = design.column_levels  # smallest size of a model that has the column, ascending; 0: in all models
    for size in sizes:
        has_no_columns = design.count_columns_up_to(size) <= design.n_constant
        if has_no_columns or (column_sizes.any() and size > column_sizes[-1]):
            available_sizes = sorted(set(column_sizes[design.n_constant :].tolist()))
            raise InputError(f"{basis.rows} has no model of size {size}; its 'column_levels' are {available_sizes}")
    positions = np.flatnonzero(np.isin(design.ids, dataset.ids))
    n_rows = np.bincount(design.configuration, minlength=design.n_configurations)[positions]
    n_atoms = dataset.select_ids(design.ids[positions]).n_atoms
    has_wrong_count = (n_rows != 1 + 3 * n_atoms) & (n_rows != 7 + 3 * n_atoms)
    if has_wrong_count.any():
        k = int(np.flatnonzero(has_wrong_count)[0])
        raise InputError(
            f"{basis.rows} has {n_rows[k]} rows of configuration {design.ids[positions[k]]}, which has {n_atoms[k]} "
            f"atoms; write its energy, {3 * n_atoms[k]} forces in the order of the atoms, and 6 stresses or none"
        )


def copy_given_rows(dataset: Dataset, basis: RowsBasis, path: Path) -> DesignMatrix:
    """Copy the rows of the configurations in `dataset`, in its order, to a design file at `path`.

    The copy has the columns of the largest model of the basis.
    """
    return DesignMatrix.from_blocks(
        _iterate_blocks(DesignMatrix.open(basis.rows), dataset, basis.n_features),
        path,
        column_levels=basis.column_levels,
        column_names=basis.column_names,
        attributes={
            "basis": basis.model_dump_json(),
            "structures": dataset.hash_structures(),
            "constant_columns": str(DesignMatrix.open(basis.rows).n_constant),
            ROWS_HASH: hash_file(basis.rows),
        },
    )


def has_current_rows(design: DesignMatrix, basis: StudyBasis) -> bool:
    """Check whether a design is a copy of the current file of given rows; true for bases whose rows are computed."""
    return not isinstance(basis, RowsBasis) or design.attributes.get(ROWS_HASH) == hash_file(basis.rows)


def _iterate_blocks(design: DesignMatrix, dataset: Dataset, n_columns: int) -> Iterator[DesignBlock]:
    """Yield the rows of each configuration of `dataset` from `design`, where rows and configurations have any order."""
    order = np.argsort(design.configuration, kind="stable")
    block_starts = np.searchsorted(design.configuration[order], np.arange(design.n_configurations + 1))
    position_by_id = {int(config_id): k for k, config_id in enumerate(design.ids)}
    for config_id in dataset.ids.tolist():
        position = position_by_id[config_id]
        rows = order[block_starts[position] : block_starts[position + 1]]
        yield DesignBlock(design.read_rows(rows, n_columns), design.kind[rows], np.full(len(rows), config_id))
