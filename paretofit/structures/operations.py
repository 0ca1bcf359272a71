"""Operations that generate the structures of each kind of candidate.

Default values are those of Bidoggia et al. (2025), section I.A.2. No function changes its arguments. Only
`cut_slab` returns a structure with other periodic directions than those of its argument.
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

MAX_PLACEMENT_ATTEMPTS = 200  # maximum number of attempts to place an atom of a cluster, and to start a cluster


def build_supercell(atoms: Atoms, min_length: float = 18.0, max_atoms: int = 450) -> Atoms:
    """Repeat a structure until each periodic cell vector has a length of at least `min_length` Å.

    The repetition ends before the supercell has more than `max_atoms` atoms, so that vectors may remain shorter. The
    shortest vector is repeated first, so that such a supercell is as compact as possible.
    """
    repeats, lengths = np.ones(3, dtype=int), atoms.cell.lengths()
    can_grow = np.array(atoms.pbc)
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

    The maximum displacement of the structure is drawn uniformly between 0 and this limit, so that small and large
    distortions occur. Directions are isotropic, and the mean displacement is zero. In a structure of one atom, the atom
    is not displaced, because a translation does not change the structure.

    Parameters
    ----------
    atoms : ase.Atoms
    rng : numpy.random.Generator
    fraction : float
        Limit of the maximum displacement relative to the nearest-neighbour distance.
    nearest_distance_angstrom : float, optional
        Nearest-neighbour distance in Å; by default, it is computed.
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
    # After the subtraction of the mean, a displacement may exceed the maximum. 1e-300 avoids a division by zero.
    largest_displacement = max(float(np.linalg.norm(displacements, axis=1).max()), 1e-300)
    displacements *= min(1.0, amplitude / largest_displacement)
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
    """Apply a random strain along the periodic directions; the vacuum and the thickness of slabs do not change.

    Parameters
    ----------
    atoms : ase.Atoms
    rng : numpy.random.Generator
    compress, stretch : float
        Limits of the isotropic strain: lengths are multiplied by a factor between ``1 - compress`` and ``1 + stretch``.
    anisotropic : float
        Maximum absolute value of the additional normal strains, which are drawn independently for each direction.
    shear : float
        Maximum absolute value of the shear strains γ = 2ε; the deformation contains no rotation.
    """
    factor = rng.uniform(1 - compress, 1 + stretch)
    strain = np.diag(rng.uniform(-anisotropic, anisotropic, 3))
    strain[np.triu_indices(3, 1)] = rng.uniform(-shear, shear, 3)
    strain = (strain + strain.T) / 2  # halves γ to ε
    return deform(atoms, factor * (np.eye(3) + strain))


def deform(atoms: Atoms, deformation_gradient: Array) -> Atoms:
    """Return a copy that is deformed within the span of the periodic cell vectors.

    `deformation_gradient` is symmetric, ``(3, 3)``; its components along the other directions are ignored.
    """
    projector = compute_periodic_projector(atoms)
    transformation = projector @ deformation_gradient @ projector + np.eye(3) - projector
    copy: Atoms = atoms.copy()
    cell = np.array(copy.cell[:])
    cell[copy.pbc] = cell[copy.pbc] @ transformation.T
    copy.set_cell(cell, scale_atoms=False)
    copy.positions = copy.positions @ transformation.T
    return copy


def create_vacancies(atoms: Atoms, rng: np.random.Generator, n_vacancies: int = 2) -> Atoms:
    """Return a copy without `n_vacancies` random atoms; raise `InputError` if no atom would remain."""
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
    """Build a free cluster, atom by atom.

    Each new atom is placed between 1 and √3 times the minimum distance from a random earlier atom, and at least at the
    minimum distance from all of them.

    Parameters
    ----------
    symbols : sequence of str
        Elements in the order in which they are placed.
    rng : numpy.random.Generator
    distance : float or mapping of pair to float
        Minimum distance in Å, for all pairs of atoms or by pair of elements (in either order).
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
    """Draw the positions of a cluster, ``(N, 3)`` in Å; return None if an atom cannot be placed."""
    positions = np.zeros((1, 3))
    for k in range(1, len(symbols)):
        min_distances = np.array([get_pair_distance(distance, symbols[k], symbol) for symbol in symbols[:k]])
        for _ in range(MAX_PLACEMENT_ATTEMPTS):
            neighbour = int(rng.integers(k))
            direction = rng.normal(size=3)
            bond_length = min_distances[neighbour] * rng.uniform(1.0, np.sqrt(3.0))
            trial_position = positions[neighbour] + bond_length * direction / np.linalg.norm(direction)
            if (np.linalg.norm(positions - trial_position, axis=1) / min_distances).min() >= 1.0:
                positions = np.vstack([positions, trial_position])
                break
        else:
            return None
    return positions


def get_pair_distance(
    distance: float | Mapping[tuple[str, str], float], first_element: str, second_element: str
) -> float:
    """Return the distance in Å of a pair of elements, in either order; raise `InputError` if it is missing."""
    if not isinstance(distance, Mapping):
        return distance
    pair = (first_element, second_element)
    if pair not in distance:
        pair = (second_element, first_element)
    if pair not in distance:
        raise InputError(f"no distance is specified for the pair {first_element}-{second_element}; add it")
    return distance[pair]


def cut_slab(
    bulk: Atoms,
    miller: Sequence[int],
    min_thickness: float = 10.0,
    max_atoms: int = 450,
    vacuum: float = 15.0,
    min_length: float = 0.0,
) -> Atoms:
    """Cut a slab with a thickness of at least `min_thickness` or, if it would have too many atoms, a thinner one.

    A common factor of the Miller indices is removed, so that (0 2 2) gives the plane (0 1 1): ASE's `surface` (version
    3.29) loses atoms if the indices are not coprime.

    Parameters
    ----------
    bulk : ase.Atoms
        Periodic in three directions.
    miller : three int
        Miller indices, which refer to the cell vectors of `bulk`.
    min_thickness, vacuum : float
        Minimum thickness, and width of the vacuum, in Å.
    max_atoms : int
        Maximum number of atoms.
    min_length : float
        Length in Å until which the in-plane vectors are repeated, within `max_atoms`.

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
    """Build a single atom in a cubic box whose sides have the length `vacuum`, in Å."""
    return add_vacuum(Atoms(symbol, [[0.0, 0.0, 0.0]], pbc=False), vacuum)


def swap_atoms(atoms: Atoms, rng: np.random.Generator, fraction: float = 0.2) -> Atoms:
    """Return a copy with swapped pairs of atoms of different elements.

    The number of pairs is half of `fraction` times the number of atoms, but at least 1. Each atom is swapped at most
    once, so that there are fewer pairs if all remaining atoms have the same element.

    Raises
    ------
    InputError
        If there is only one element, because swaps would not change the structure.
    """
    numbers = np.array(atoms.numbers)
    unswapped_atoms = np.arange(len(numbers))
    if len(set(numbers.tolist())) < 2:
        raise InputError(
            f"{atoms.get_chemical_formula()} has a single element, so swaps would not change the structure"
        )
    for _ in range(max(1, round(fraction * len(atoms) / 2))):
        first_atom = int(rng.choice(unswapped_atoms))
        second_atom = int(rng.choice(unswapped_atoms[numbers[unswapped_atoms] != numbers[first_atom]]))
        numbers[[first_atom, second_atom]] = numbers[[second_atom, first_atom]]
        unswapped_atoms = unswapped_atoms[(unswapped_atoms != first_atom) & (unswapped_atoms != second_atom)]
        if len(set(numbers[unswapped_atoms].tolist())) < 2:  # no further pair of different elements
            break
    copy: Atoms = atoms.copy()
    copy.numbers = numbers
    return copy


def randomise_species(atoms: Atoms, rng: np.random.Generator, elements: Sequence[str]) -> Atoms:
    """Return a copy whose sites are occupied at random by `elements`, at a random composition.

    If there are fewer than two elements, an `InputError` is raised.
    """
    if len(set(elements)) < 2:
        raise InputError(f"an alloy requires at least two elements; got {', '.join(elements) or 'none'}")
    shares = rng.dirichlet(np.ones(len(elements)))
    copy: Atoms = atoms.copy()
    copy.numbers = rng.choice([atomic_numbers[symbol] for symbol in elements], len(atoms), p=shares)
    return copy
