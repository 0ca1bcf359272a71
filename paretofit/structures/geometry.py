"""Lengths, directions and distances of structures that may be periodic in any number of directions.

Cell vectors are rows. Along directions that are not periodic, cell vectors only describe the vacuum, and results do not
depend on their length.
"""

from collections.abc import Iterable

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from ase.neighborlist import neighbor_list

from paretofit.core import Array, InputError

MAX_GAP_A = 8.0  # maximum gap between planes of atoms in a crystal; even layered crystals have smaller gaps
ORDINALS = ("first", "second", "third")
INITIAL_RADIUS_A = 3.0  # initial radius of the search for neighbours


def list_elements(structures: Iterable[Atoms]) -> list[str]:
    """List the symbols of all elements in the structures, in alphabetical order."""
    return sorted({symbol for atoms in structures for symbol in atoms.get_chemical_symbols()})


def drop_vacuum_vectors(atoms: Atoms) -> Atoms:
    """Return a copy with zero cell vectors along non-periodic directions, because distances do not depend on them."""
    copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    copy.cell[~copy.pbc] = 0.0
    return copy


def find_nearest_distance(atoms: Atoms) -> float:
    """Find the shortest distance in Å between two atoms, or an atom and its image; infinite for a single free atom.

    The radius of the search is doubled until a neighbour is found.
    """
    copy = drop_vacuum_vectors(atoms)
    sum_of_periods = float(np.linalg.norm(np.array(copy.cell[copy.pbc]).reshape(-1, 3), axis=1).sum())
    extent = float(np.linalg.norm(np.ptp(copy.positions, axis=0)))
    radius = INITIAL_RADIUS_A
    while True:
        distances = neighbor_list("d", copy, radius)
        if len(distances):
            return float(distances.min())
        if radius > sum_of_periods + extent + INITIAL_RADIUS_A:  # farther than any other atom or image
            return float("inf")
        radius *= 2


def find_shortest_pair_distances(atoms: Atoms, max_distance: float) -> dict[tuple[int, int], float]:
    """Find the shortest distance in Å for each pair of elements, including distances of an atom to its images.

    Keys are pairs of atomic numbers in ascending order. Pairs without a distance below `max_distance` (Å) are omitted.
    """
    first_atoms, second_atoms, distances = neighbor_list("ijd", drop_vacuum_vectors(atoms), max_distance)
    shortest_distances: dict[tuple[int, int], float] = {}
    for i, j, distance in zip(atoms.numbers[first_atoms], atoms.numbers[second_atoms], distances, strict=True):
        pair = (min(int(i), int(j)), max(int(i), int(j)))
        shortest_distances[pair] = min(shortest_distances.get(pair, np.inf), float(distance))
    return shortest_distances


def compute_periodic_projector(atoms: Atoms) -> Array:
    """Compute the projector ``(3, 3)`` onto the space spanned by the periodic cell vectors."""
    vectors = np.array(atoms.cell[atoms.pbc]).reshape(-1, 3)
    basis, _ = np.linalg.qr(vectors.T)
    return np.asarray(basis @ basis.T)


def add_vacuum(atoms: Atoms, vacuum: float) -> Atoms:
    """Return a copy with `vacuum` Å of empty space along each non-periodic direction, and with the atoms in the middle.

    The cell vectors of these directions become perpendicular to the periodic vectors and to each other, so that the
    empty space has the requested width even in a triclinic cell.
    """
    copy: Atoms = atoms.copy()
    cell = _complete_cell(copy)
    for axis in np.flatnonzero(~copy.pbc):
        unit_vector = cell[axis] / np.linalg.norm(cell[axis])
        heights = copy.positions @ unit_vector
        length = float(np.ptp(heights)) + vacuum
        cell[axis] = unit_vector * length
        copy.positions += (length - heights.max() - heights.min()) / 2 * unit_vector
    copy.cell[:] = cell
    return copy


def find_widest_gap(atoms: Atoms) -> tuple[float, int]:
    """Find the widest gap in Å between adjacent planes of atoms along a periodic direction, and its cell vector.

    The planes are parallel to the other two cell vectors. Return the gap and the index of the cell vector; both are 0
    if no direction is periodic.
    """
    cell = _complete_cell(atoms)
    widest_gap = 0.0, 0
    for axis in np.flatnonzero(atoms.pbc).tolist():
        normal = np.cross(cell[axis - 2], cell[axis - 1])
        height = abs(float(cell[axis] @ normal)) / float(np.linalg.norm(normal))
        fractional_coordinates = np.sort(np.linalg.solve(cell.T, atoms.positions.T)[axis] % 1.0)
        gaps = np.diff(fractional_coordinates, append=fractional_coordinates[0] + 1.0)
        widest_gap = max(widest_gap, (float(gaps.max()) * height, axis))
    return widest_gap


def check_empty_space(atoms: Atoms, name: str) -> None:
    """Raise `InputError` if a structure has vacuum along a periodic direction; `name` is used in the message."""
    gap, axis = find_widest_gap(atoms)
    if gap > MAX_GAP_A:
        raise InputError(
            f"{name} is periodic along its {ORDINALS[axis]} cell vector across {gap:.1f} Å of empty space; specify "
            'the periodic directions in the file, such as extended XYZ with pbc="T T F"'
        )


def measure_thickness(atoms: Atoms) -> float:
    """Measure the largest extent in Å of the atoms along a non-periodic direction; 0 if all directions are periodic."""
    vectors = _complete_cell(atoms)[~atoms.pbc]
    extents = [float(np.ptp(atoms.positions @ (vector / np.linalg.norm(vector)))) for vector in vectors]
    return max(extents, default=0.0)


def _complete_cell(atoms: Atoms) -> Array:
    """Return the cell, ``(3, 3)`` in Å, with perpendicular unit vectors in place of the non-periodic vectors."""
    cell = np.array(drop_vacuum_vectors(atoms).cell)
    cell[~atoms.pbc] = complete_cell(cell)[~atoms.pbc]  # complete_cell adds rounding errors to periodic vectors
    return cell
