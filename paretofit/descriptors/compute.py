"""Parallel computation of the descriptors of a dataset, at the largest 2Jmax, and their storage in a design file."""

from functools import cache, partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.core import Array, InputError, RowKind, get_shared_lammps, hash_json, remove_file
from paretofit.dataset import Dataset
from paretofit.descriptors.any_basis import AnyBasis
from paretofit.descriptors.design import DesignMatrix
from paretofit.descriptors.design_file import DesignBlock
from paretofit.descriptors.lammps_frame import check_elements
from paretofit.descriptors.rows import compute_configuration_rows, compute_configuration_rows_with_stress
from paretofit.execution import RunContext, map_with_journal

BATCH_ATOMS = 64  # number of atoms that are passed to a worker at once: tens of milliseconds of work, a few MB of rows


def compute_design(
    dataset: Dataset,
    basis: AnyBasis,
    path: Path | str,
    *,
    stress: bool = False,
    jobs: int = 1,
    progress: bool = False,
) -> DesignMatrix:
    """Compute the rows of every configuration, write them to a design file, and return the design.

    Parameters
    ----------
    dataset : Dataset
    basis : SnapBasis or PodBasis
    path : path-like
        HDF5 file, which is written atomically. Until it is complete, finished rows are in a file of the same name with
        the suffix ``.partial``, from which the next call with the same arguments resumes.
    stress : bool
        Whether to also compute six stress rows of each configuration, which must be periodic in three directions.
    jobs : int
        Number of processes.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    DesignMatrix
        ``1 + 3N`` rows for each configuration, or ``7 + 3N`` with stress, in the dataset's order; columns in nested
        order.

    Raises
    ------
    InputError
        If the dataset is empty, the basis lacks an element, LAMMPS fails for a configuration, `jobs` is below 1, or the
        file cannot be written.
    ExecutionError
        If a process is killed, or the disk is full.
    """
    if jobs < 1:
        raise InputError(f"jobs must be at least 1; got {jobs}")
    if len(dataset) == 0:
        raise InputError(f"{dataset.path} contains no configurations; import configurations first")
    for atoms in dataset:  # fail before the first expensive step
        check_elements(atoms, basis, f"{dataset.path}: ")
    batches = _split_batches(dataset)
    compute_block = partial(_compute_block, path=str(dataset.path.absolute()), basis=basis, stress=stress)
    ids = [dataset.ids[batch].tolist() for batch in batches]
    digest = hash_json([basis.model_dump_json(), dataset.hash_structures(), stress, ids])
    journal = Path(path).with_suffix(".partial")
    rows = map_with_journal(RunContext(jobs, progress), compute_block, ids, "descriptors", journal, digest)
    design = DesignMatrix.from_blocks(
        (DesignBlock(X, kinds, configurations) for X, kinds, configurations in rows),
        path,
        column_levels=basis.column_levels,
        column_names=basis.column_names,
        attributes={
            "basis": basis.model_dump_json(),
            "structures": dataset.hash_structures(),
            "constant_columns": str(len(basis.elements)),
        },
    )
    remove_file(journal)
    return design


def _split_batches(dataset: Dataset) -> list[Array]:
    """Split the positions of the configurations into consecutive batches of about `BATCH_ATOMS` atoms each."""
    batch_numbers = np.cumsum(dataset.n_atoms) // BATCH_ATOMS
    return np.split(np.arange(len(batch_numbers)), np.flatnonzero(np.diff(batch_numbers)) + 1)


@cache
def _open_dataset(path: str, file_version: tuple[int, ...]) -> Dataset:
    """Open a dataset once in each process, and again after its file has been replaced.

    `file_version` consists of the modification time, inode and size of the file. The time alone is not reliable,
    because clocks can be set back, but a file that replaces an open file gets another inode.
    """
    del file_version
    return Dataset(path)


def _compute_block(ids: list[int], path: str, basis: AnyBasis, stress: bool) -> tuple[Array, Array, Array]:
    """Compute, in a worker, the rows of a batch of configurations.

    Returns the rows, ``(n, n_features)``, and the kind and configuration id of each row, ``(n,)``.
    """
    status = Path(path).stat()
    dataset = _open_dataset(path, (status.st_mtime_ns, status.st_ino, status.st_size))
    compute_rows = compute_configuration_rows_with_stress if stress else compute_configuration_rows
    rows, kinds, configurations = [], [], []
    with threadpool_limits(1):
        for config_id, atoms in zip(ids, dataset.select_ids(ids), strict=True):
            energy_row, *other_rows = compute_rows(get_shared_lammps(), basis, atoms)
            rows += [energy_row[None], *other_rows]
            kinds += [RowKind.ENERGY] + [RowKind.FORCE] * (3 * len(atoms)) + [RowKind.STRESS] * (6 * stress)
            configurations += [config_id] * (1 + 3 * len(atoms) + 6 * stress)
    return np.concatenate(rows), np.array(kinds), np.array(configurations)
