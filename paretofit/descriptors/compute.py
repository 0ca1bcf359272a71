"""Descriptors of a whole dataset, once, at the largest 2Jmax, in parallel, into one design file."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.core import InputError, RowKind, get_shared_lammps, track
from paretofit.dataset import Dataset
from paretofit.descriptors.basis import SnapBasis
from paretofit.descriptors.design import DesignMatrix
from paretofit.descriptors.design_file import DesignBlock
from paretofit.descriptors.rows import compute_configuration_rows, compute_configuration_rows_with_stress
from paretofit.execution import parallel_map

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH_ATOMS = 64  # atoms handed to a worker at once: tens of milliseconds of work, a few MB of rows


def compute_design(
    dataset: Dataset,
    basis: SnapBasis,
    path: Path | str,
    *,
    stress: bool = False,
    jobs: int = 1,
    progress: bool = False,
) -> DesignMatrix:
    """Compute the energy and force rows of every configuration and write them to a design file.

    Parameters
    ----------
    dataset : Dataset
        Its labels are attached with `DesignMatrix.with_labels`; descriptors need only the structures.
    basis : SnapBasis
    path : path-like
        The HDF5 file to write, whole or not at all.
    stress : bool
        Also six stress rows for each configuration, all of which must be periodic in three directions.
    jobs : int
        Processes.
    progress : bool
        Show a bar.

    Returns
    -------
    DesignMatrix
        ``1 + 3N`` rows for each configuration in the dataset's order, or ``7 + 3N``; columns in nested order.

    Raises
    ------
    InputError
        If the dataset is empty, a configuration cannot be described (the message names it), `jobs` is
        not at least 1, or the file cannot be written.
    """
    if jobs < 1:
        raise InputError(f"jobs must be at least 1; got {jobs}")
    if len(dataset) == 0:
        raise InputError(f"{dataset.path} holds no configurations to describe")
    _check_elements(dataset, basis)
    batches = list(_batches(dataset))
    place = str(dataset.path.absolute())
    describe = partial(_describe, path=place, basis_json=basis.model_dump_json(), stress=stress)
    blocks = parallel_map(describe, (dataset.ids[batch].tolist() for batch in batches), jobs)
    return DesignMatrix.from_blocks(
        track(blocks, len(batches), "descriptors", enabled=progress),
        path,
        column_levels=basis.column_levels,
        column_names=basis.column_names,
        attributes={
            "basis": basis.model_dump_json(),
            "structures": dataset.hash_structures(),
            "constant_columns": str(len(basis.elements)),
        },
    )


def _check_elements(dataset: Dataset, basis: SnapBasis) -> None:
    """Fail before the first expensive step: every element must have SNAP parameters."""
    for atoms in dataset:
        foreign = set(atoms.get_chemical_symbols()) - set(basis.elements)
        if foreign:
            raise InputError(
                f"{dataset.path}: configuration {atoms.info['config_id']} has {min(foreign)}, an element without "
                f"SNAP parameters; the basis has {', '.join(basis.elements)}: add it to 'elements'"
            )


def _batches(dataset: Dataset) -> Iterator[np.ndarray[Any, Any]]:
    """Positions of consecutive configurations with about BATCH_ATOMS atoms in all."""
    number = np.cumsum(dataset.n_atoms) // BATCH_ATOMS
    return iter(np.split(np.arange(len(number)), np.flatnonzero(np.diff(number)) + 1))


@cache
def _process_dataset(path: str, written: tuple[int, ...]) -> Dataset:
    """One open dataset for each process, and another once the file is written anew.

    `written` is its time and its inode: clocks jump, but a file that is replaced while it is open gets another inode.
    """
    del written
    return Dataset(path)


def _describe(ids: list[int], path: str, basis_json: str, stress: bool) -> DesignBlock:
    """Describe some configurations; runs in a worker."""
    basis = SnapBasis.model_validate_json(basis_json)
    file = Path(path).stat()
    written = (file.st_mtime_ns, file.st_ino, file.st_size)
    rows, kinds, numbers = [], [], []
    with threadpool_limits(1):
        for identity, atoms in zip(ids, _process_dataset(path, written).select_ids(ids), strict=True):
            make = compute_configuration_rows_with_stress if stress else compute_configuration_rows
            energy_row, *others = make(get_shared_lammps(), basis, atoms)
            rows += [energy_row[None], *others]
            kinds += [RowKind.ENERGY] + [RowKind.FORCE] * (3 * len(atoms)) + [RowKind.STRESS] * (6 * stress)
            numbers += [identity] * (1 + 3 * len(atoms) + 6 * stress)
    return DesignBlock(np.concatenate(rows), np.array(kinds), np.array(numbers))
