"""Disordered configurations: atoms at random positions in a random cell, with a minimum distance."""

from itertools import product

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from paretofit.core import Array, InputError
from paretofit.structures.augment_settings import EntropySettings
from paretofit.structures.filters import get_radius, is_too_close

N_PLACEMENT_TRIALS = 30  # number of random positions for each atom; if all are too close to others, the best is used
MAX_RELAXATION_STEPS = 100  # maximum number of steps that push atoms apart, before a new configuration is drawn
MAX_ATTEMPTS = 20  # maximum number of configurations that are drawn
MAX_PACKING_FRACTION = 0.74  # that of close-packed equal spheres; denser configurations are not attempted
MAX_SHEAR = 0.25  # maximum strain components of the cubic cell
IMAGE_SHIFTS = np.array(list(product((-1, 0, 1), repeat=3)))  # a cell and its 26 neighbours
TARGET_RATIO = 1.05  # distance to which atoms are pushed apart, relative to the minimum distance
PUSH_FRACTION = 0.4  # factor of the steps that push atoms apart; see `_push_apart`


def generate_random_configuration(
    settings: EntropySettings, rng: np.random.Generator, radii: dict[str, float] | None = None
) -> Atoms:
    """Generate a configuration: place atoms one by one at random in a random cell, and push apart those that are close.

    Parameters
    ----------
    settings : EntropySettings
        Composition, ranges of volume and number of atoms, and minimum distance.
    rng : numpy.random.Generator
        Generator for the numbers of atoms, elements, cells and positions.
    radii : mapping of symbol to float, optional
        Radii in Å; other elements have their covalent radii.

    Raises
    ------
    InputError
        If the minimum volume is too small for the atoms (see `check_packing`), or all attempts fail.
    """
    check_packing(settings, radii)
    shares = np.array(list(settings.composition.values()))
    for _ in range(MAX_ATTEMPTS):
        n_atoms = int(rng.integers(settings.n_atoms_range[0], settings.n_atoms_range[1] + 1))
        volume = n_atoms * rng.uniform(*settings.volume_per_atom)
        cell = np.eye(3) + rng.uniform(-MAX_SHEAR, MAX_SHEAR, (3, 3))
        cell *= (volume / np.linalg.det(cell)) ** (1 / 3)
        symbols = rng.choice(list(settings.composition), n_atoms, p=shares / shares.sum()).tolist()
        core_radii = settings.min_distance_ratio * np.array([get_radius(symbol, radii) for symbol in symbols])
        if 4 / 3 * np.pi * (core_radii**3).sum() > MAX_PACKING_FRACTION * volume:
            continue
        atoms = Atoms(symbols, _draw_positions(cell, core_radii, rng), cell=cell, pbc=True)
        if _push_apart(atoms, settings.min_distance_ratio, radii or {}):
            return atoms
    low, high = settings.volume_per_atom
    raise InputError(
        f"atoms would overlap at volumes of {low:g} to {high:g} Å³ per atom; raise 'entropy.volume_per_atom', or "
        "lower 'entropy.min_distance_ratio'"
    )


def check_packing(settings: EntropySettings, radii: dict[str, float] | None = None) -> None:
    """Raise `InputError` if spheres with the minimum distance as their diameter do not fit into the minimum volume."""
    shares = settings.composition
    mean_cubed_radius = sum(share * get_radius(symbol, radii) ** 3 for symbol, share in shares.items()) / sum(
        shares.values()
    )
    min_volume = 4 / 3 * np.pi * settings.min_distance_ratio**3 * mean_cubed_radius / MAX_PACKING_FRACTION
    if settings.volume_per_atom[0] < min_volume:
        raise InputError(
            f"atoms would overlap at the minimum 'entropy.volume_per_atom', {settings.volume_per_atom[0]:g} Å³; raise "
            f"it to at least {min_volume:.3g}, or lower 'entropy.min_distance_ratio'"
        )


def _draw_positions(cell: Array, core_radii: Array, rng: np.random.Generator) -> Array:
    """Draw the positions of all atoms in a cell, ``(N, 3)`` in Å.

    An atom has the first of `N_PLACEMENT_TRIALS` random positions that is far enough from the earlier atoms or, if none
    is, the position with the most space. The minimum distance of two atoms is the sum of their `core_radii`.
    """
    shifts = IMAGE_SHIFTS @ cell
    positions = np.empty((0, 3))
    for k in range(len(core_radii)):
        trials = rng.uniform(size=(N_PLACEMENT_TRIALS, 3)) @ cell
        vectors = trials[:, None, None] - positions[None, :, None] - shifts[None, None]
        ratios = np.linalg.norm(vectors, axis=3).min(axis=2) / (core_radii[k] + core_radii[:k])
        smallest_ratios = ratios.min(axis=1, initial=np.inf)
        # argmax returns the first of equal maxima, which is the first trial with a ratio of at least 1.
        best_trial = int(np.argmax(np.minimum(smallest_ratios, 1.0)))
        positions = np.vstack([positions, trials[best_trial]])
    return positions


def _push_apart(atoms: Atoms, min_distance_ratio: float, radii: dict[str, float]) -> bool:
    """Move atoms apart, in place, until none are too close; return whether this succeeded.

    In each step, every pair at a distance r below r₀, which is `TARGET_RATIO` times its minimum distance, displaces its
    atoms away from each other, each by (1 − r/r₀) times `PUSH_FRACTION` times the largest minimum distance.
    """
    for _ in range(MAX_RELAXATION_STEPS):
        first_atoms, ratios, min_distances, vectors = find_close_pairs(atoms, min_distance_ratio, radii, TARGET_RATIO)
        if not (ratios <= 1).any():
            return not is_too_close(atoms, min_distance_ratio, radii)
        # 1e-6 Å avoids a division by zero if two atoms coincide.
        weights = (ratios / TARGET_RATIO - 1) / np.maximum(ratios * min_distances, 1e-6)
        displacements = np.zeros((len(atoms), 3))
        np.add.at(displacements, first_atoms, weights[:, None] * vectors)
        atoms.positions += PUSH_FRACTION * float(min_distances.max()) * displacements
    return False


def find_close_pairs(
    atoms: Atoms, min_distance_ratio: float, radii: dict[str, float], range_factor: float
) -> tuple[Array, Array, Array, Array]:
    """Find the pairs of atoms that are closer than `range_factor` times their minimum distance.

    Parameters
    ----------
    atoms : ase.Atoms
    min_distance_ratio : float
        Minimum distance as a fraction of the sum of two radii.
    radii : mapping of symbol to float
        Radii in Å; other elements have their covalent radii.
    range_factor : float
        Range of the search, relative to the minimum distance of a pair.

    Returns
    -------
    first_atoms : (n,) int64
        Index of the first atom of each pair; pairs are listed in both directions.
    ratios : (n,) float64
        Distance divided by the minimum distance.
    min_distances : (n,) float64
        Minimum distance in Å.
    vectors : (n, 3) float64
        Vectors in Å from the first to the second atom.
    """
    core_radii = min_distance_ratio * np.array([get_radius(symbol, radii) for symbol in atoms.get_chemical_symbols()])
    first_atoms, second_atoms, distances, vectors = neighbor_list(
        "ijdD", atoms, 2 * range_factor * float(core_radii.max())
    )
    min_distances = core_radii[first_atoms] + core_radii[second_atoms]
    is_close = distances < range_factor * min_distances
    return (
        first_atoms[is_close],
        distances[is_close] / min_distances[is_close],
        min_distances[is_close],
        vectors[is_close],
    )
