"""Cells of structures that are not periodic in three directions, for programs that need a periodic cell."""

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell

from paretofit.core.arrays import Array
from paretofit.core.errors import InputError

MIN_VECTOR_LENGTH_A = 1e-8  # shorter cell vectors count as zero


def build_vacuum_cell(atoms: Atoms, cutoff: float) -> Array:
    """Return the cell of a structure, ``(3, 3) float64``, Å, with a vacuum along each direction that is not periodic.

    The vacuum is wider than twice the cutoff, so that no atom has neighbours in an image along these directions.

    Parameters
    ----------
    atoms : ase.Atoms
    cutoff : float
        Largest distance of neighbours, Å.

    Raises
    ------
    InputError
        If the configuration is periodic along a vector of length zero.
    """
    cell = np.array(atoms.cell[:])
    is_periodic = np.asarray(atoms.pbc)
    if (np.linalg.norm(cell[is_periodic], axis=1) < MIN_VECTOR_LENGTH_A).any():
        name = f"configuration {atoms.info.get('config_id', '?')}"
        raise InputError(
            f"{name} is periodic along a cell vector of length zero; correct the cell, or the periodic directions"
        )
    if is_periodic.all():
        return cell
    cell[~is_periodic] = 0.0
    cell = np.array(complete_cell(cell))  # unit vectors at right angles to the periodic ones
    for axis in np.flatnonzero(~is_periodic):
        unit_vector = cell[axis] / np.linalg.norm(cell[axis])
        extent = np.ptp(atoms.positions @ unit_vector)
        cell[axis] = unit_vector * (extent + 2 * cutoff + 1.0)  # the vacuum is 1 Å wider than twice the cutoff
    return cell
