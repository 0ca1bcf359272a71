"""Pairs of atoms within a cutoff, the distance of nearest neighbours, and gaps between shells of neighbours."""

from collections.abc import Iterable
from itertools import product

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks
from scipy.spatial import cKDTree

from paretofit.core import Array

MAX_NEIGHBOUR_DISTANCE_A = 7.0
BIN_WIDTH_A = 0.05
SMOOTHING_BINS = 2.0  # standard deviation
MIN_GAP_DEPTH = 0.1  # depth of a gap between shells relative to the mean density of pairs


def find_pairs(atoms: Atoms, cutoff: float) -> tuple[Array, Array, Array]:
    """Return all pairs of an atom i and another atom or image j within the cutoff, and the vectors from i to j.

    The result is i ``(n_pairs,)``, j ``(n_pairs,)`` and r_ij ``(n_pairs, 3)`` in Å. A search tree over the images takes
    a few milliseconds; ASE's neighbour list takes tens of milliseconds.
    """
    cell = complete_cell(atoms.cell)
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)  # distances between opposite faces of the cell
    fractional_positions = atoms.positions @ np.linalg.inv(cell)
    fractional_positions -= np.where(atoms.pbc, np.floor(fractional_positions), 0.0)
    n_images = np.where(atoms.pbc, np.ceil(cutoff / heights), 0).astype(int)
    shifts = np.array(list(product(*(range(-count, count + 1) for count in n_images))))
    images = (fractional_positions + shifts[:, None]).reshape(-1, 3)
    is_near = ((images > -cutoff / heights) & (images < 1 + cutoff / heights) | ~atoms.pbc).all(axis=1)
    image_numbers = np.flatnonzero(is_near)
    home_positions, image_positions = fractional_positions @ cell, images[image_numbers] @ cell
    pairs = cKDTree(home_positions).sparse_distance_matrix(cKDTree(image_positions), cutoff, output_type="ndarray")
    i, k = pairs["i"], pairs["j"]
    is_other = image_numbers[k] != len(shifts) // 2 * len(atoms) + i  # the shift in the middle of the list is zero
    i, k = i[is_other], k[is_other]
    return i, image_numbers[k] % len(atoms), image_positions[k] - home_positions[i]


def compute_neighbour_distance(atoms: Atoms) -> float:
    """Return the mean distance (Å) of atoms to their nearest neighbour within 7 Å; NaN if no atom has a neighbour."""
    i, _, vectors = find_pairs(atoms, MAX_NEIGHBOUR_DISTANCE_A)
    nearest_distances = np.full(len(atoms), np.inf)
    np.minimum.at(nearest_distances, i, np.linalg.norm(vectors, axis=1))
    nearest_distances = nearest_distances[np.isfinite(nearest_distances)]
    return float(nearest_distances.mean()) if len(nearest_distances) else float("nan")


def find_shell_gaps(structures: Iterable[Atoms], max_distance: float) -> Array:
    """Find the distances between shells of neighbours, where the density of pairs has a minimum, ``(n,)``, Å.

    Parameters
    ----------
    structures : iterable of ase.Atoms
    max_distance : float
        Largest distance of a pair, Å.
    """
    edges = np.arange(BIN_WIDTH_A, max_distance + BIN_WIDTH_A, BIN_WIDTH_A)
    centres, counts = (edges[1:] + edges[:-1]) / 2, np.zeros(len(edges) - 1)
    for atoms in structures:
        distances = np.linalg.norm(find_pairs(atoms, max_distance)[2], axis=1)
        counts += np.histogram(distances, edges)[0] / len(atoms)
    density = gaussian_filter1d(counts / centres**2, SMOOTHING_BINS)
    minima, _ = find_peaks(-density, prominence=MIN_GAP_DEPTH * max(float(density.mean()), np.finfo(float).tiny))
    return np.asarray(centres[minima])
