"""Functions that make new structures of each kind.

Default values are those of Bidoggia et al. (2025), section I.A.2. No function changes its arguments.
Only `cut_slab` changes the periodicity.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.build import make_supercell, surface
from ase.data import atomic_numbers

from paretofit.core import Array, InputError
from paretofit.structures.geometry import (
    add_vacuum,
    compute_periodic_projector,
    find_nearest_distance,
    measure_thickness,
)

MAX_PLACEMENT_ATTEMPTS = 200  # attempts to place each atom of a cluster, and to restart the cluster


def build_supercell(atoms: Atoms, min_length: float = 18.0, max_atoms: int = 450) -> Atoms:
    """Repeat a structure until each periodic cell vector is at least `min_length` Å long, within `max_atoms`.

    The shortest vector grows first, so that a cell that reaches the limit is as compact as possible.
    """
    repeats, lengths, can_grow = np.ones(3, dtype=int), atoms.cell.lengths(), np.array(atoms.pbc)
    while (can_grow := can_grow & (repeats * lengths < min_length)).any():
        axis = int(np.argmin(np.where(can_grow, repeats * lengths, np.inf)))
        new_repeats = repeats + np.eye(3, dtype=int)[axis]
        if len(atoms) * int(np.prod(new_repeats)) > max_atoms:
            can_grow[axis] = False
        else:
            repeats = new_repeats
    supercell: Atoms = make_supercell(atoms, np.diag(repeats))
    return supercell


def distort(
    atoms: Atoms, rng: np.random.Generator, fraction: float = 0.3, *, nearest_distance_angstrom: float | None = None
) -> Atoms:
    """Displace every atom at random, by at most a fraction of the nearest-neighbour distance.

    The maximum displacement of a structure is drawn uniformly between 0 and this limit, so that small and large
    distortions occur. Directions are isotropic, and the mean displacement is zero. A single atom is not displaced,
    because a translation of all atoms does not change the structure.

    Parameters
    ----------
    atoms : ase.Atoms
    rng : numpy.random.Generator
    fraction : float
        Maximum displacement relative to the nearest-neighbour distance.
    nearest_distance_angstrom : float, optional
        Nearest-neighbour distance in Å; computed by default.
    """
    copy: Atoms = atoms.copy()
    if len(atoms) == 1:
        return copy
    neighbour_distance = (
        find_nearest_distance(atoms) if nearest_distance_angstrom is None else nearest_distance_angstrom
    )
    amplitude = fraction * neighbour_distance * rng.uniform()
    directions = rng.normal(size=(len(atoms), 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    displacements = directions * rng.uniform(0.0, 1.0, (len(atoms), 1)) * amplitude
    displacements -= displacements.mean(axis=0)
    # Without the mean, a displacement may exceed the maximum. 1e-300 avoids a division by zero.
    displacements *= min(1.0, amplitude / max(float(np.linalg.norm(displacements, axis=1).max()), 1e-300))
    copy.positions += displacements
    return copy


def apply_strain(
    atoms: Atoms,
    rng: np.random.Generator,
    compress: float = 0.2,
    stretch: float = 0.6,
    anisotropic: float = 0.0,
    shear: float = 0.0,
) -> Atoms:
    """Strain a structure along its periodic directions; the vacuum and the thickness of slabs do not change.

    Parameters
    ----------
    atoms : ase.Atoms
    rng : numpy.random.Generator
    compress, stretch : float
        Isotropic strain: lengths are multiplied by a factor between ``1 - compress`` and ``1 + stretch``.
    anisotropic : float
        Maximum absolute value of additional normal strains, which are independent in each direction.
    shear : float
        Maximum absolute value of the shear strains γ = 2ε, without rotation.
    """
    factor = rng.uniform(1 - compress, 1 + stretch)
    strain = np.diag(rng.uniform(-anisotropic, anisotropic, 3))
    strain[np.triu_indices(3, 1)] = rng.uniform(-shear, shear, 3)
    strain = (strain + strain.T) / 2
    return deform(atoms, factor * (np.eye(3) + strain))


def deform(atoms: Atoms, deformation_gradient: Array) -> Atoms:
    """Apply a symmetric deformation gradient ``(3, 3)`` within the span of the periodic cell vectors."""
    projector = compute_periodic_projector(atoms)
    transformation = projector @ deformation_gradient @ projector + np.eye(3) - projector
    copy: Atoms = atoms.copy()
    cell = np.array(copy.cell[:])
    cell[copy.pbc] = cell[copy.pbc] @ transformation.T
    copy.set_cell(cell, scale_atoms=False)
    copy.positions = copy.positions @ transformation.T
    return copy


def create_vacancies(atoms: Atoms, rng: np.random.Generator, n_vacancies: int = 2) -> Atoms:
    """Remove `n_vacancies` atoms at random; raise `InputError` if no atom would remain."""
    if n_vacancies >= len(atoms):
        raise InputError(
            f"{n_vacancies} vacancies in {len(atoms)} atoms leave no atom; use larger cells, or fewer vacancies"
        )
    copy: Atoms = atoms.copy()
    del copy[sorted(rng.choice(len(atoms), n_vacancies, replace=False).tolist(), reverse=True)]
    return copy


def build_cluster(
    symbols: Sequence[str],
    rng: np.random.Generator,
    distance: float | Mapping[tuple[str, str], float] = 1.5,
    vacuum: float = 15.0,
) -> Atoms:
    """Assemble atoms one by one, each between 1 and √3 times `distance` from its nearest neighbour.

    Parameters
    ----------
    symbols : sequence of str
        Elements in the order in which they are placed.
    rng : numpy.random.Generator
    distance : float or mapping of pair to float
        Minimum distance in Å, of all atoms or for each pair of elements, in either order.
    vacuum : float
        Empty space in Å between periodic images of the cluster.

    Raises
    ------
    InputError
        If every attempt fails, because an atom cannot be placed.
    """
    for _ in range(MAX_PLACEMENT_ATTEMPTS):
        positions = _draw_cluster_positions(symbols, rng, distance)
        if positions is not None:
            return add_vacuum(Atoms(list(symbols), positions, pbc=False), vacuum)
    raise InputError(f"no cluster of {len(symbols)} atoms with these distances was found; use fewer atoms")


def _draw_cluster_positions(
    symbols: Sequence[str], rng: np.random.Generator, distance: float | Mapping[tuple[str, str], float]
) -> Array | None:
    """Draw ``(N, 3)`` positions in Å; return None if an atom cannot be placed."""
    positions = np.zeros((1, 3))
    for k in range(1, len(symbols)):
        min_distances = np.array([get_pair_distance(distance, symbols[k], symbol) for symbol in symbols[:k]])
        for _ in range(MAX_PLACEMENT_ATTEMPTS):
            partner = int(rng.integers(k))
            direction = rng.normal(size=3)
            radius = min_distances[partner] * rng.uniform(1.0, np.sqrt(3.0))
            trial = positions[partner] + radius * direction / np.linalg.norm(direction)
            if (np.linalg.norm(positions - trial, axis=1) / min_distances).min() >= 1.0:
                positions = np.vstack([positions, trial])
                break
        else:
            return None
    return positions


def get_pair_distance(distance: float | Mapping[tuple[str, str], float], first: str, second: str) -> float:
    """Return the distance of a pair of elements, in either order."""
    if not isinstance(distance, Mapping):
        return distance
    pair = (first, second) if (first, second) in distance else (second, first)
    if pair not in distance:
        raise InputError(f"no distance is specified for the pair {first}-{second}; add it")
    return distance[pair]


def cut_slab(
    bulk: Atoms,
    miller: Sequence[int],
    min_thickness: float = 10.0,
    max_atoms: int = 450,
    vacuum: float = 15.0,
    min_length: float = 0.0,
) -> Atoms:
    """Cut a slab of at least `min_thickness` Å, or the thickest one that `max_atoms` allows.

    Miller indices refer to the cell vectors of `bulk`.

    A common factor of the indices is removed, so that (0 2 2) gives the plane (0 1 1), because ASE's `surface` (3.29)
    loses atoms if the indices are not coprime.

    Parameters
    ----------
    bulk : ase.Atoms
        Periodic in three directions.
    miller : three int
    min_thickness, vacuum : float
        Minimum thickness and vacuum in Å.
    max_atoms : int
        Maximum number of atoms.
    min_length : float
        Length in Å to which in-plane vectors are repeated, within `max_atoms`.

    Raises
    ------
    InputError
        If `bulk` is not periodic in three directions, the indices are all zero, or no slab has at most `max_atoms`
        atoms.
    """
    name = "(" + " ".join(str(index) for index in miller) + ")"
    if not bulk.pbc.all():
        raise InputError(f"a slab {name} requires a structure that is periodic in three directions")
    if len(miller) != 3 or not any(miller):
        raise InputError(f"Miller indices must be three whole numbers, not all zero; got {name}")
    coprime_indices = tuple(int(index) // math.gcd(*map(int, miller)) for index in miller)
    thickest_slab = None
    for n_layers in range(1, max_atoms + 1):
        slab = surface(bulk, coprime_indices, n_layers)
        if len(slab) > max_atoms:
            break
        slab.pbc = (True, True, False)
        thickest_slab = slab
        if measure_thickness(slab) >= min_thickness:
            break
    if thickest_slab is None:
        raise InputError(f"no slab {name} has at most {max_atoms} atoms; raise 'max_atoms'")
    return add_vacuum(build_supercell(thickest_slab, min_length, max_atoms), vacuum)


def build_isolated_atom(symbol: str, vacuum: float = 15.0) -> Atoms:
    """Build a single atom in a cubic box."""
    return add_vacuum(Atoms(symbol, [[0.0, 0.0, 0.0]], pbc=False), vacuum)


def swap_atoms(atoms: Atoms, rng: np.random.Generator, fraction: float = 0.2) -> Atoms:
    """Swap pairs of atoms of different elements until a fraction of all atoms has been swapped, each at most once.

    Raises
    ------
    InputError
        If there is only one element, because swaps would not change the structure.
    """
    numbers = np.array(atoms.numbers)
    candidates = np.arange(len(numbers))
    if len(set(numbers.tolist())) < 2:
        raise InputError(
            f"{atoms.get_chemical_formula()} has a single element, so swaps would not change the structure"
        )
    for _ in range(max(1, round(fraction * len(atoms) / 2))):
        first_atom = int(rng.choice(candidates))
        second_atom = int(rng.choice(candidates[numbers[candidates] != numbers[first_atom]]))
        numbers[[first_atom, second_atom]] = numbers[[second_atom, first_atom]]
        candidates = candidates[(candidates != first_atom) & (candidates != second_atom)]
        if len(set(numbers[candidates].tolist())) < 2:  # no further pair of different elements
            break
    copy: Atoms = atoms.copy()
    copy.numbers = numbers
    return copy


def randomise_species(atoms: Atoms, rng: np.random.Generator, elements: Sequence[str]) -> Atoms:
    """Occupy the sites at random at a random composition; raise `InputError` for fewer than two elements."""
    if len(set(elements)) < 2:
        raise InputError(f"an alloy requires at least two elements; got {', '.join(elements) or 'none'}")
    shares = rng.dirichlet(np.ones(len(elements)))
    copy: Atoms = atoms.copy()
    copy.numbers = rng.choice([atomic_numbers[symbol] for symbol in elements], len(atoms), p=shares)
    return copy
