"""Pairs of atoms within a cutoff, distances of nearest neighbours, and gaps between shells of neighbours."""

from collections.abc import Iterable
from itertools import product

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks
from scipy.spatial import cKDTree

from paretofit.core import Array

MAX_NEIGHBOUR_DISTANCE_A = 7.0  # Å; search radius for the nearest neighbour
BIN_WIDTH_A = 0.05  # Å; bins of the histogram of pair distances
SMOOTHING_BINS = 2.0  # standard deviation of the Gaussian that smooths the histogram, in bins
MIN_GAP_DEPTH = 0.1  # depth of a gap between shells, relative to the mean density of pairs


def find_pairs(atoms: Atoms, cutoff: float) -> tuple[Array, Array, Array]:
    """Find all pairs of atoms, or of an atom and a periodic image of any atom, within a cutoff.

    Each pair is listed twice, once from either atom. A search tree over the images takes a few milliseconds; ASE's
    neighbour list takes tens of milliseconds.

    Parameters
    ----------
    atoms : ase.Atoms
    cutoff : float
        Largest distance of a pair, Å.

    Returns
    -------
    i, j : (n_pairs,) int64
        Indices of the two atoms; a periodic image has the index of its atom.
    vectors : (n_pairs, 3) float64
        Vectors from i to j or its image, Å.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the cell vectors are linearly dependent.
    """
    cell = complete_cell(atoms.cell)
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)  # distances between opposite faces of the cell
    fractional_positions = atoms.positions @ np.linalg.inv(cell)
    fractional_positions -= np.where(atoms.pbc, np.floor(fractional_positions), 0.0)
    n_images = np.where(atoms.pbc, np.ceil(cutoff / heights), 0).astype(int)
    shifts = np.array(list(product(*(range(-count, count + 1) for count in n_images))))
    images = (fractional_positions + shifts[:, None]).reshape(-1, 3)
    # Only images within the cutoff of a face of the cell can form pairs; the others would slow down the search.
    is_near = ((images > -cutoff / heights) & (images < 1 + cutoff / heights) | ~atoms.pbc).all(axis=1)
    image_numbers = np.flatnonzero(is_near)
    home_positions, image_positions = fractional_positions @ cell, images[image_numbers] @ cell
    pairs = cKDTree(home_positions).sparse_distance_matrix(cKDTree(image_positions), cutoff, output_type="ndarray")
    i, k = pairs["i"], pairs["j"]
    is_other = image_numbers[k] != len(shifts) // 2 * len(atoms) + i  # the shift in the middle of the list is zero
    i, k = i[is_other], k[is_other]
    return i, image_numbers[k] % len(atoms), image_positions[k] - home_positions[i]


def compute_neighbour_distance(atoms: Atoms) -> float:
    """Return the mean distance (Å) to the nearest neighbour of the atoms that have one within 7 Å; NaN without any."""
    i, _, vectors = find_pairs(atoms, MAX_NEIGHBOUR_DISTANCE_A)
    nearest_distances = np.full(len(atoms), np.inf)
    np.minimum.at(nearest_distances, i, np.linalg.norm(vectors, axis=1))
    nearest_distances = nearest_distances[np.isfinite(nearest_distances)]
    return float(nearest_distances.mean()) if len(nearest_distances) else float("nan")


def find_shell_gaps(structures: Iterable[Atoms], max_distance: float) -> Array:
    """Find the gaps between shells of neighbours: the distances at which the density of pairs has a deep minimum.

    The prominence of the minimum must be at least 10 % of the mean density.

    Parameters
    ----------
    structures : iterable of ase.Atoms
    max_distance : float
        Largest distance of a pair, Å.

    Returns
    -------
    (n_gaps,) float64
        Distances in ascending order, Å.
    """
    edges = np.arange(BIN_WIDTH_A, max_distance + BIN_WIDTH_A, BIN_WIDTH_A)
    centres, counts = (edges[1:] + edges[:-1]) / 2, np.zeros(len(edges) - 1)
    for atoms in structures:
        distances = np.linalg.norm(find_pairs(atoms, max_distance)[2], axis=1)
        counts += np.histogram(distances, edges)[0] / len(atoms)
    density = gaussian_filter1d(counts / centres**2, SMOOTHING_BINS)  # per volume of a shell, up to a factor
    # The required prominence is positive even without pairs, because a constant density has no gaps.
    min_prominence = MIN_GAP_DEPTH * max(float(density.mean()), np.finfo(float).tiny)
    minima, _ = find_peaks(-density, prominence=min_prominence)
    return np.asarray(centres[minima])
