"""Small periodic cells that are cut out around an atom of a structure that is too large to label.

The cell is a box along the periodic directions that holds a sphere around the atom. Its lengths are chosen such that
atoms at opposite faces fit together, as in a lattice that repeats; atoms that do not fit are removed. As in the
cut-outs of MLIP-3 (Podryabinkin et al., J. Chem. Phys. 159, 084112 (2023)), the environments at the faces are
artificial, but the labels are computed for this cell, so that a potential can be trained on all of its atoms.
"""

from itertools import product

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from scipy.spatial import cKDTree

from paretofit.core import Array, InputError
from paretofit.structures.geometry import find_shortest_pair_distances

MAX_EXTRA_LENGTH_A = 6.0  # maximum length beyond the sphere and one bond; most lattices of elements repeat within it
LENGTH_STEP_A = 0.02
FACE_WIDTH_A = 3.0  # thickness of the layers that are compared at opposite faces
FACE_MARGIN_A = 0.5  # margin on both sides of a face, because thermal motion decides on which side an atom is
# minimum distance of two elements in the cell, relative to their shortest distance in the structure
DISTANCE_RATIO = 0.9
NEIGHBOUR_CUTOFF_A = 6.0  # radius of the search for the shortest distances


def cut_out_environment(atoms: Atoms, index: int, radius: float) -> Atoms:
    """Cut the environment of an atom out of a structure.

    Parameters
    ----------
    atoms : ase.Atoms
        Structure with at least one periodic direction. Directions that are not periodic keep their vacuum.
    index : int
        Central atom.
    radius : float
        Radius in Å; all atoms within it around the central atom are in the cell, at the same relative positions.

    Returns
    -------
    ase.Atoms
        Rectangular cell with the same periodic directions, atoms in the order of their distance from the central atom.
        A copy of the structure if the cell would not have fewer atoms.

    Raises
    ------
    InputError
        If no direction is periodic, or the radius is not positive.
    """
    periodic_axes = np.flatnonzero(atoms.pbc)
    if not (len(periodic_axes) and radius > 0):
        raise InputError(
            f"a cell can be cut out only along periodic directions, and with a positive radius; got {radius:g} Å and a "
            f"structure with {len(periodic_axes)} periodic directions"
        )
    axes, shortest_distances = _build_axes(atoms), find_shortest_pair_distances(atoms, NEIGHBOUR_CUTOFF_A)
    shortest_length = 2 * radius + max(shortest_distances.values(), default=0.0)
    candidate_lengths = np.arange(shortest_length, shortest_length + MAX_EXTRA_LENGTH_A, LENGTH_STEP_A)
    positions, numbers = _list_images(atoms, index, axes, 0.5 * candidate_lengths[-1] + FACE_WIDTH_A)
    half_lengths = np.full(3, np.inf)
    for axis in periodic_axes:
        is_near = np.all(
            np.abs(np.delete(positions, axis, axis=1)[:, atoms.pbc[np.arange(3) != axis]]) < radius, axis=1
        )
        mismatches = [
            _measure_mismatch(positions[is_near], numbers[is_near], int(axis), length) for length in candidate_lengths
        ]
        # The cube of the length prefers the smaller of similar fits.
        half_lengths[axis] = 0.5 * candidate_lengths[int(np.argmin(mismatches * candidate_lengths**3))]
    is_inside = np.all(np.abs(positions) < half_lengths + FACE_MARGIN_A, axis=1)
    lengths = np.where(atoms.pbc, 2 * half_lengths, np.abs(np.sum(np.asarray(atoms.cell) * axes, axis=1)))
    cell = lengths[:, np.newaxis] * axes
    cutout = Atoms(numbers[is_inside], positions[is_inside] @ axes, cell=cell, pbc=atoms.pbc)
    _remove_close_atoms(cutout, shortest_distances)
    if len(cutout) >= len(atoms):
        copy: Atoms = atoms.copy()
        return copy
    cutout.positions += np.where(atoms.pbc, 0.5 * lengths, axes @ atoms.positions[index]) @ axes
    return cutout


def _build_axes(atoms: Atoms) -> Array:
    """Build orthonormal axes, ``(3, 3)`` rows; those of the periodic directions span the periodic cell vectors."""
    order = [*np.flatnonzero(atoms.pbc), *np.flatnonzero(~np.asarray(atoms.pbc))]
    rotation, triangle = np.linalg.qr(atoms.cell.complete()[order].T)
    axes = np.empty((3, 3))
    axes[order] = (rotation * np.sign(np.diag(triangle))).T
    return axes


def _list_images(atoms: Atoms, index: int, axes: Array, half_length: float) -> tuple[Array, Array]:
    """Return the positions and atomic numbers of all atoms and images in a box around an atom, by distance from it.

    Positions are relative to this atom, with components along `axes`. Directions that are not periodic have no limit.
    """
    vectors = np.array(atoms.cell[atoms.pbc]).reshape(-1, 3)
    inverse = np.linalg.pinv(vectors)  # columns have the lengths of reciprocal vectors, without 2π
    offsets = atoms.positions - atoms.positions[index]
    offsets = offsets - np.round(offsets @ inverse) @ vectors
    # distance of the corners of the box, plus the maximum offset within a cell
    reach = half_length * np.sqrt(len(vectors)) + np.linalg.norm(vectors, axis=1).sum()
    counts = np.ceil(reach * np.linalg.norm(inverse, axis=0)).astype(int)
    images = np.array(list(product(*(range(-count, count + 1) for count in counts)))) @ vectors
    positions = (offsets[:, np.newaxis] + images).reshape(-1, 3) @ axes.T
    numbers = np.repeat(atoms.numbers, len(images))
    rows = np.flatnonzero(np.all((np.abs(positions) < half_length) | ~np.asarray(atoms.pbc), axis=1))
    rows = rows[np.argsort(np.linalg.norm(positions[rows], axis=1), kind="stable")]
    return positions[rows], numbers[rows]


def _measure_mismatch(positions: Array, numbers: Array, axis: int, length: float) -> float:
    """Return the mean squared distance, Å², from atoms outside the faces to the nearest image that would replace them.

    `length` is the length of the box along `axis`. Atoms of different elements count as `FACE_WIDTH_A` apart.
    """
    points, squares = np.column_stack([positions, FACE_WIDTH_A * numbers]), [np.empty(0)]
    for side in (-1.0, 1.0):
        depths = side * positions[:, axis] - 0.5 * length  # distances from the face, positive outside it
        images, image_depths = points + side * length * np.eye(4)[axis], depths + length
        lost_points = points[(depths >= 0) & (depths < FACE_WIDTH_A)]
        candidates = images[(image_depths > -FACE_MARGIN_A) & (image_depths < FACE_WIDTH_A + FACE_MARGIN_A)]
        distances = cKDTree(candidates).query(lost_points)[0] if len(candidates) else np.full(len(lost_points), np.inf)
        squares.append(np.minimum(distances, FACE_WIDTH_A) ** 2)
    return float(np.mean(np.concatenate(squares))) if sum(map(len, squares)) else 0.0


def _remove_close_atoms(cutout: Atoms, shortest_distances: dict[tuple[int, int], float]) -> None:
    """Remove the later atom of each pair closer than `DISTANCE_RATIO` times its value in `shortest_distances`."""
    cutoffs = {pair: DISTANCE_RATIO * distance for pair, distance in shortest_distances.items()}
    first_atoms, second_atoms = neighbor_list("ij", cutout, cutoffs)
    removed_atoms: set[int] = set()
    for i, j in sorted(
        zip(np.maximum(first_atoms, second_atoms).tolist(), np.minimum(first_atoms, second_atoms).tolist(), strict=True)
    ):
        if i not in removed_atoms and j not in removed_atoms:
            removed_atoms.add(i)
    del cutout[sorted(removed_atoms)]
