"""Disordered configurations: atoms at random in a random cell, none closer than a limit."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from paretofit.core import InputError
from paretofit.structures.filters import get_radius, is_too_close

if TYPE_CHECKING:
    from paretofit.core import Array
    from paretofit.structures.augment_settings import EntropySettings

PLACES = 30  # tried for each atom, before it is put into the best of them and pushed
PUSHES = 100  # steps that push atoms apart, before the configuration is begun anew
BEGINNINGS = 20
DENSEST = 0.74  # share of space that spheres can fill; no use to try above it
SHEAR = 0.25  # largest shear, and stretch, of the cubic cell
IMAGES = np.array(list(product((-1, 0, 1), repeat=3)))


def generate_random_configuration(
    settings: EntropySettings, rng: np.random.Generator, radii: dict[str, float] | None = None
) -> Atoms:
    """Atoms put one by one at random into a random cell, and pushed apart where that is too dense.

    Parameters
    ----------
    settings : EntropySettings
        Elements and their shares, ranges of volume and size, the closest distance.
    rng : numpy.random.Generator
    radii : mapping of symbol to float, optional
        Å; covalent radii where not given.

    Raises
    ------
    InputError
        If that fails again and again: the cell is too small for them.
    """
    check_packing(settings, radii)
    for _ in range(BEGINNINGS):
        size = int(rng.integers(settings.n_atoms_range[0], settings.n_atoms_range[1] + 1))
        volume = size * rng.uniform(*settings.volume_per_atom)
        cell = np.eye(3) + rng.uniform(-SHEAR, SHEAR, (3, 3))
        cell *= (volume / np.linalg.det(cell)) ** (1 / 3)
        shares = list(settings.composition.values())
        symbols = rng.choice(list(settings.composition), size, p=np.array(shares) / sum(shares)).tolist()
        reach = settings.min_distance_ratio * np.array([get_radius(symbol, radii) for symbol in symbols])
        if 4 / 3 * np.pi * (reach**3).sum() > DENSEST * volume:
            continue
        atoms = Atoms(symbols, _places(cell, reach, rng), cell=cell, pbc=True)
        if _pushed_apart(atoms, settings.min_distance_ratio, radii or {}):
            return atoms
    raise InputError(
        f"atoms cannot be kept apart at {settings.volume_per_atom[0]:g} to {settings.volume_per_atom[1]:g} Å³ for each atom; raise "
        "'entropy.volume_per_atom', or lower 'entropy.min_distance_ratio'"
    )


def check_packing(settings: EntropySettings, radii: dict[str, float] | None = None) -> None:
    """Raise `InputError` where spheres as large as the closest distance do not fit into the smallest volume."""
    shares = settings.composition
    each = sum(share * get_radius(symbol, radii) ** 3 for symbol, share in shares.items()) / sum(shares.values())
    least = 4 / 3 * np.pi * settings.min_distance_ratio**3 * each / DENSEST
    if settings.volume_per_atom[0] < least:
        raise InputError(
            f"'entropy.volume_per_atom' begins at {settings.volume_per_atom[0]:g} Å³ for each atom, where atoms cannot be kept apart; "
            f"raise it to {least:.3g} at least, or lower 'entropy.min_distance_ratio'"
        )


def _places(cell: Array, reach: Array, rng: np.random.Generator) -> Array:
    """``(N, 3)``, Å: each atom at the first random place where it has room, else at the roomiest."""
    shifts = IMAGES @ cell
    placed = np.empty((0, 3))
    for k, own in enumerate(reach):
        trials = rng.uniform(size=(PLACES, 3)) @ cell
        away = trials[:, None, None] - placed[None, :, None] - shifts[None, None]
        room = (np.linalg.norm(away, axis=3).min(axis=2) / (own + reach[:k])).min(axis=1, initial=np.inf)
        best = int(np.argmax(room >= 1)) if (room >= 1).any() else int(np.argmax(room))
        placed = np.vstack([placed, trials[best]])
    return placed


def _pushed_apart(atoms: Atoms, closest: float, radii: dict[str, float]) -> bool:
    """Move atoms along the forces of Σ (1 − r/r₀)² until none are too close; whether that came to an end."""
    margin = 1.05
    for _ in range(PUSHES):
        first, ratio, limit, vectors = find_close_pairs(atoms, closest, radii, margin)
        if not (ratio <= 1).any():
            return not is_too_close(atoms, closest, radii)
        away = (ratio / margin - 1) / np.maximum(ratio * limit, 1e-6)
        moves = np.zeros((len(atoms), 3))
        np.add.at(moves, first, away[:, None] * vectors)
        atoms.positions += 0.4 * float(limit.max()) * moves
    return False


def find_close_pairs(
    atoms: Atoms, min_distance_ratio: float, radii: dict[str, float], range_factor: float
) -> tuple[Array, Array, Array, Array]:
    """Pairs of atoms, each both ways, closer than `range_factor` times the closest distance that is allowed.

    Parameters
    ----------
    atoms : ase.Atoms
    min_distance_ratio : float
        Share of the sum of two radii.
    radii : mapping of symbol to float
        Å; covalent radii where not given.
    range_factor : float

    Returns
    -------
    first : (n,) int
    ratio : (n,) float64
        Distance over the closest distance allowed.
    limit : (n,) float64
        That distance, Å.
    vectors : (n, 3) float64
        To the other atom, Å.
    """
    radius = min_distance_ratio * np.array([get_radius(symbol, radii) for symbol in atoms.get_chemical_symbols()])
    first, second, distances, vectors = neighbor_list("ijdD", atoms, 2 * range_factor * float(radius.max()))
    limit = radius[first] + radius[second]
    near = distances < range_factor * limit
    return first[near], distances[near] / limit[near], limit[near], vectors[near]
