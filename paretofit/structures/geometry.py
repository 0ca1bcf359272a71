"""Lengths, directions and distances of structures that may be periodic in any number of directions.

Cell vectors are rows. Along directions that are not periodic a cell vector only says where the vacuum is; nothing
here depends on its length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from ase.neighborlist import neighbor_list

if TYPE_CHECKING:
    from collections.abc import Iterable

    from paretofit.core import Array


FIRST_REACH = 3.0  # Å; the first radius in which neighbours are looked for


def list_elements(structures: Iterable[Atoms]) -> list[str]:
    """Symbols of all elements that occur, in alphabetical order."""
    return sorted({symbol for atoms in structures for symbol in atoms.get_chemical_symbols()})


def spanned(atoms: Atoms) -> Atoms:
    """A copy whose cell has only its periodic vectors, which is all that distances depend on."""
    copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    copy.cell[~copy.pbc] = 0.0
    return copy


def nearest_distance(atoms: Atoms) -> float:
    """Shortest distance between two atoms, or an atom and its own image, Å; infinite for a single free atom."""
    copy = spanned(atoms)
    longest = float(np.linalg.norm(np.array(copy.cell[copy.pbc]).reshape(-1, 3), axis=1).sum())
    extent = float(np.linalg.norm(np.ptp(copy.positions, axis=0)))
    reach = FIRST_REACH
    while True:
        distances = neighbor_list("d", copy, reach)
        if len(distances):
            return float(distances.min())
        if reach > longest + extent + FIRST_REACH:
            return float("inf")
        reach *= 2


def shortest_pair_distances(atoms: Atoms, reach: float) -> dict[tuple[int, int], float]:
    """Shortest distance by pair of atomic numbers, Å, among pairs closer than `reach`."""
    first, second, distances = neighbor_list("ijd", spanned(atoms), reach)
    shortest: dict[tuple[int, int], float] = {}
    for i, j, distance in zip(atoms.numbers[first], atoms.numbers[second], distances, strict=True):
        pair = (min(int(i), int(j)), max(int(i), int(j)))
        shortest[pair] = min(shortest.get(pair, np.inf), float(distance))
    return shortest


def periodic_projector(atoms: Atoms) -> Array:
    """``(3, 3)``: the projection onto the space that the periodic cell vectors span."""
    vectors = np.array(atoms.cell[atoms.pbc]).reshape(-1, 3)
    if not len(vectors):
        return np.zeros((3, 3))
    basis, _ = np.linalg.qr(vectors.T)
    return np.asarray(basis @ basis.T)


def add_vacuum(atoms: Atoms, vacuum: float) -> Atoms:
    """A copy with `vacuum` Å of empty space along every direction that is not periodic, atoms in its middle.

    Those cell vectors stand at right angles to the periodic ones and to each other, whatever the cell was before, so
    that the space between images is what is asked for in a triclinic cell, too.
    """
    copy: Atoms = atoms.copy()
    if copy.pbc.all():
        return copy
    cell = np.array(copy.cell[:])
    cell[~copy.pbc] = 0.0
    cell[~copy.pbc] = np.array(complete_cell(cell))[~copy.pbc]  # unit vectors at right angles
    for axis in np.flatnonzero(~copy.pbc):
        unit = cell[axis] / np.linalg.norm(cell[axis])
        heights = copy.positions @ unit
        length = float(np.ptp(heights)) + vacuum
        cell[axis] = unit * length
        copy.positions += (length - heights.max() - heights.min()) / 2 * unit
    copy.cell[:] = cell
    return copy


def widest_gap(atoms: Atoms) -> tuple[float, int]:
    """Widest empty space between planes of atoms along a periodic direction, Å, and the number of that cell vector.

    Measured at right angles to the other two cell vectors; 0 where nothing is periodic.
    """
    cell = np.array(complete_cell(spanned(atoms).cell))
    widest = 0.0, 0
    for axis in np.flatnonzero(atoms.pbc).tolist():
        normal = np.cross(cell[axis - 2], cell[axis - 1])
        height = abs(float(cell[axis] @ normal)) / float(np.linalg.norm(normal))
        places = np.sort(np.linalg.solve(cell.T, atoms.positions.T)[axis] % 1.0)
        gaps = np.diff(places, append=places[0] + 1.0)
        widest = max(widest, (float(gaps.max()) * height, axis))
    return widest


def measure_thickness(atoms: Atoms) -> float:
    """Largest extent of the atoms along a direction that is not periodic, Å; 0 where all are."""
    cell = np.array(atoms.cell[:])
    cell[~atoms.pbc] = 0.0
    cell = np.array(complete_cell(cell))
    extents = [float(np.ptp(atoms.positions @ (v / np.linalg.norm(v)))) for v in cell[~atoms.pbc]]
    return max(extents, default=0.0)
