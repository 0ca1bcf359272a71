"""Small periodic cells that are cut out around an atom of a structure that is too large to label.

The cell is a box along the periodic directions that contains a sphere around the atom. Its lengths are chosen such that
the atoms at opposite faces match as well as possible, as they do if the structure is a lattice; atoms that do not match
are removed. As in the cells of MLIP-3 (Podryabinkin et al., J. Chem. Phys. 159, 084112 (2023)), the environments at the
faces are artificial. The labels are computed for this cell, however, so that all of its atoms can be used for training.
"""

from itertools import product

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from scipy.spatial import cKDTree

from paretofit.core import Array, InputError
from paretofit.structures.geometry import find_shortest_pair_distances

# Maximum length of the cell beyond the sphere and one bond. Most lattices of the elements have periods below 6 Å.
MAX_EXTRA_LENGTH_A = 6.0
LENGTH_STEP_A = 0.02  # resolution of the search for the best length
FACE_WIDTH_A = 3.0  # thickness of the layers that are compared at opposite faces
FACE_MARGIN_A = 0.5  # tolerance for atoms that thermal motion displaces to the other side of a face
# Minimum distance of two elements in the cell, relative to their shortest distance in the structure.
MIN_DISTANCE_RATIO = 0.9
NEIGHBOUR_CUTOFF_A = 6.0  # radius of the search for the shortest distances of elements


def cut_out_environment(atoms: Atoms, index: int, radius: float) -> Atoms:
    """Cut the environment of an atom out of a structure, as a smaller periodic structure.

    Parameters
    ----------
    atoms : ase.Atoms
        Structure with at least one periodic direction. Directions that are not periodic keep their vacuum.
    index : int
        Index of the central atom.
    radius : float
        Radius in Å. All atoms within this radius of the central atom are in the cell, at the same relative positions.

    Returns
    -------
    ase.Atoms
        Rectangular cell with the same periodic directions, and with atoms in the order of their distance from the
        central atom. If the cell would not have fewer atoms than the structure, a copy of the structure is returned.

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
        other_periodic_axes = [other_axis for other_axis in periodic_axes if other_axis != axis]
        is_near = np.all(np.abs(positions[:, other_periodic_axes]) < radius, axis=1)  # in the column around the sphere
        mismatches = [
            _measure_mismatch(positions[is_near], numbers[is_near], int(axis), length) for length in candidate_lengths
        ]
        # The factor prefers the shorter of two lengths with similar mismatches.
        half_lengths[axis] = 0.5 * candidate_lengths[int(np.argmin(mismatches * candidate_lengths**3))]
    is_inside = np.all(np.abs(positions) < half_lengths + FACE_MARGIN_A, axis=1)
    lengths = np.where(atoms.pbc, 2 * half_lengths, np.abs(np.sum(np.asarray(atoms.cell) * axes, axis=1)))
    cell = lengths[:, np.newaxis] * axes
    cutout = Atoms(numbers[is_inside], positions[is_inside] @ axes, cell=cell, pbc=atoms.pbc)
    _remove_close_atoms(cutout, shortest_distances)
    if len(cutout) >= len(atoms):
        copy: Atoms = atoms.copy()
        return copy
    # Move the central atom to the middle of the cell along periodic axes; the other coordinates are those in `atoms`.
    cutout.positions += np.where(atoms.pbc, 0.5 * lengths, axes @ atoms.positions[index]) @ axes
    return cutout


def _build_axes(atoms: Atoms) -> Array:
    """Build orthonormal axes, the rows of a ``(3, 3)`` array, one for each cell vector.

    The axes of the periodic directions span the same space as the periodic cell vectors.
    """
    order = [*np.flatnonzero(atoms.pbc), *np.flatnonzero(~np.asarray(atoms.pbc))]
    rotation, triangle = np.linalg.qr(atoms.cell.complete()[order].T)
    axes = np.empty((3, 3))
    axes[order] = (rotation * np.sign(np.diag(triangle))).T  # signs along the cell vectors
    return axes


def _list_images(atoms: Atoms, index: int, axes: Array, half_length: float) -> tuple[Array, Array]:
    """List all atoms and images in a box around an atom, in the order of their distance from this atom.

    The box extends by `half_length` to both sides along each periodic axis, and has no limits along the other axes.

    Returns
    -------
    positions : (n, 3) float64
        Positions in Å relative to the atom, with components along `axes`.
    numbers : (n,) int64
        Atomic numbers.
    """
    vectors = np.array(atoms.cell[atoms.pbc]).reshape(-1, 3)
    inverse = np.linalg.pinv(vectors)  # its columns are the reciprocal vectors, without 2π
    offsets = atoms.positions - atoms.positions[index]
    offsets = offsets - np.round(offsets @ inverse) @ vectors
    # Images are required up to the distance of the corners of the box, plus the maximum offset within a cell.
    max_distance = half_length * np.sqrt(len(vectors)) + np.linalg.norm(vectors, axis=1).sum()
    counts = np.ceil(max_distance * np.linalg.norm(inverse, axis=0)).astype(int)
    translations = np.array(list(product(*(range(-count, count + 1) for count in counts)))) @ vectors
    positions = (offsets[:, np.newaxis] + translations).reshape(-1, 3) @ axes.T
    numbers = np.repeat(atoms.numbers, len(translations))
    is_in_box = np.all((np.abs(positions) < half_length) | ~np.asarray(atoms.pbc), axis=1)
    rows = np.flatnonzero(is_in_box)
    rows = rows[np.argsort(np.linalg.norm(positions[rows], axis=1), kind="stable")]
    return positions[rows], numbers[rows]


def _measure_mismatch(positions: Array, numbers: Array, axis: int, length: float) -> float:
    """Measure how well the atoms match if the structure is repeated with a period of `length` along `axis`.

    Return the mean squared distance, in Å², of the atoms in a layer outside each face from the nearest image of an atom
    inside the opposite face. Distances above `FACE_WIDTH_A`, and those of different elements, count as `FACE_WIDTH_A`.
    """
    # The fourth coordinate separates different elements by at least the largest distance that counts.
    points = np.column_stack([positions, FACE_WIDTH_A * numbers])
    squared_distances = [np.empty(0)]
    for side in (-1.0, 1.0):
        depths = side * positions[:, axis] - 0.5 * length  # distances from the face, positive outside it
        images, image_depths = points + side * length * np.eye(4)[axis], depths + length
        outer_points = points[(depths >= 0) & (depths < FACE_WIDTH_A)]
        outer_images = images[(image_depths > -FACE_MARGIN_A) & (image_depths < FACE_WIDTH_A + FACE_MARGIN_A)]
        if len(outer_images):
            distances = cKDTree(outer_images).query(outer_points)[0]
        else:
            distances = np.full(len(outer_points), np.inf)
        squared_distances.append(np.minimum(distances, FACE_WIDTH_A) ** 2)
    all_squared_distances = np.concatenate(squared_distances)
    return float(np.mean(all_squared_distances)) if len(all_squared_distances) else 0.0


def _remove_close_atoms(cutout: Atoms, shortest_distances: dict[tuple[int, int], float]) -> None:
    """Remove the later atom of each pair of atoms that are too close, unless one is already removed; change `cutout`.

    The minimum distance of two elements is `MIN_DISTANCE_RATIO` times their entry in `shortest_distances`, in Å.
    """
    cutoffs = {pair: MIN_DISTANCE_RATIO * distance for pair, distance in shortest_distances.items()}
    first_atoms, second_atoms = neighbor_list("ij", cutout, cutoffs)
    removed_atoms: set[int] = set()
    later_atoms, earlier_atoms = np.maximum(first_atoms, second_atoms), np.minimum(first_atoms, second_atoms)
    for later_atom, earlier_atom in sorted(zip(later_atoms.tolist(), earlier_atoms.tolist(), strict=True)):
        if later_atom not in removed_atoms and earlier_atom not in removed_atoms:
            removed_atoms.add(later_atom)
    del cutout[sorted(removed_atoms)]
