"""Detection of atoms that are too close to each other, or to their periodic images."""

from itertools import product

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from ase.neighborlist import natural_cutoffs, neighbor_list
from scipy.spatial import cKDTree

from paretofit.core import Array

MIN_DISTANCE_RATIO = 0.6  # distance between two atoms, relative to the sum of their covalent radii
MAX_DISTANCE_MATRIX_ATOMS = 64  # up to this size, computing all distances is faster than a neighbour list


def has_close_atoms(atoms: Atoms, min_distance_ratio: float = MIN_DISTANCE_RATIO) -> bool:
    """Return whether two atoms, or an atom and its periodic image, are too close to each other.

    Parameters
    ----------
    atoms : ase.Atoms
    min_distance_ratio : float
        Ratio of a distance to the sum of the covalent radii below which the atoms are too close.
    """
    structure = _copy_geometry(atoms)
    radii = np.array(natural_cutoffs(atoms, mult=min_distance_ratio))
    if _is_crowded(structure, radii):
        return True
    if len(structure) > MAX_DISTANCE_MATRIX_ATOMS:
        return len(neighbor_list("i", structure, radii)) > 0  # pairs that are closer than the sum of their radii
    is_close = structure.get_all_distances(mic=True) < radii[:, None] + radii
    np.fill_diagonal(is_close, val=False)  # the images of an atom are too distant, because the structure is not crowded
    return bool(is_close.any())


def measure_shortest_distance(atoms: Atoms) -> float:
    """Measure the shortest distance in Å between two atoms, or an atom and its periodic image; 0 in a flat cell."""
    structure = _copy_geometry(atoms)
    images = structure.positions[None]
    if structure.pbc.any():
        try:
            structure.set_cell(minkowski_reduce(structure.cell, structure.pbc)[0])
        except RuntimeError:  # the reduction does not converge for a cell that is numerically flat
            return 0.0
        structure.wrap()
        # The nearest images of wrapped atoms are in the neighbouring cells, because the cell is reduced.
        shifts = np.array(list(product(*([-1, 0, 1] if is_periodic else [0] for is_periodic in structure.pbc))))
        images = structure.positions + (shifts @ structure.cell[:])[:, None]
    return float(cKDTree(images.reshape(-1, 3)).query(structure.positions, k=2)[0][:, 1].min())


def _copy_geometry(atoms: Atoms) -> Atoms:
    """Copy a structure without cell vectors along directions that are not periodic, which may be arbitrary."""
    structure = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    structure.cell[~atoms.pbc] = 0.0
    return structure


def _is_crowded(atoms: Atoms, radii: Array) -> bool:
    """Return whether atoms are so close that a neighbour list could exhaust the memory, or the cell is flat.

    Atoms closer than the sum of their `radii`, ``(N,)``, Å, are too close. If false is returned, lattice vectors and
    nearest-neighbour distances are long enough for a short neighbour list, and the cell of `atoms` has been reduced and
    the atoms wrapped in place.
    """
    if atoms.pbc.any():
        try:
            cell = minkowski_reduce(atoms.cell, atoms.pbc)[0]
        except RuntimeError:  # the reduction does not converge for a cell that is numerically flat
            return True
        if np.linalg.norm(cell[atoms.pbc], axis=1).min() < 2 * radii.max(initial=0.0):
            return True
        atoms.set_cell(cell)
        atoms.wrap()
    distances = cKDTree(atoms.positions).query(atoms.positions, k=2)[0][:, 1]
    return bool(distances.min(initial=np.inf) < 2 * radii.min(initial=np.inf))
