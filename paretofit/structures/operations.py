"""Each kind of augmentation as a function: a structure and a random generator in, a new structure out.

Defaults are those of Bidoggia et al. (2025), section I.A.2. No function changes what it is given, and every one
returns a structure whose directions that are not periodic are as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.build import make_supercell, surface
from ase.data import atomic_numbers

from paretofit.core import Array, InputError
from paretofit.structures.geometry import add_vacuum, measure_thickness, nearest_distance, periodic_projector

MAX_PLACEMENT_ATTEMPTS = 200  # to place an atom of a cluster, before the cluster is begun anew


def build_supercell(atoms: Atoms, min_length: float = 18.0, max_atoms: int = 450) -> Atoms:
    """Repeat a structure until each periodic cell vector is at least `min_length` Å long, within `max_atoms`.

    The shortest vector grows first, so that a cell which the limit stops is as compact as it can be.
    """
    repeats = np.ones(3, dtype=int)
    lengths = atoms.cell.lengths()
    growing = np.array(atoms.pbc)
    while True:
        current = np.where(growing & (repeats * lengths < min_length), repeats * lengths, np.inf)
        if not np.isfinite(current).any():
            break
        axis = int(np.argmin(current))
        larger = repeats + np.eye(3, dtype=int)[axis]
        if len(atoms) * int(np.prod(larger)) > max_atoms:
            growing[axis] = False
        else:
            repeats = larger
    larger_cell: Atoms = make_supercell(atoms, np.diag(repeats))
    return larger_cell


def distort(
    atoms: Atoms, rng: np.random.Generator, fraction: float = 0.3, *, nearest_distance_angstrom: float | None = None
) -> Atoms:
    """Displace every atom at random, by at most a fraction of the nearest-neighbour distance.

    The amplitude itself is uniform between 0 and the largest, so that small distortions occur as well as large ones;
    directions are isotropic, and the mean displacement is zero. A single atom stays where it is: moving all atoms of
    a cell together changes nothing.

    Parameters
    ----------
    atoms : ase.Atoms
    rng : numpy.random.Generator
    fraction : float
    nearest_distance_angstrom : float, optional
        The nearest-neighbour distance, Å, where it is known.
    """
    copy: Atoms = atoms.copy()
    if len(atoms) == 1:
        return copy
    most = (
        fraction
        * (nearest_distance(atoms) if nearest_distance_angstrom is None else nearest_distance_angstrom)
        * rng.uniform()
    )
    directions = rng.normal(size=(len(atoms), 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    moves = directions * rng.uniform(0.0, 1.0, (len(atoms), 1)) * most
    moves -= moves.mean(axis=0)
    moves *= min(1.0, most / max(float(np.linalg.norm(moves, axis=1).max()), 1e-300))
    copy.positions += moves
    return copy


def apply_strain(
    atoms: Atoms,
    rng: np.random.Generator,
    compress: float = 0.2,
    stretch: float = 0.6,
    anisotropic: float = 0.0,
    shear: float = 0.0,
) -> Atoms:
    """Strain a structure along its periodic directions; a vacuum, and what is thick or free, stays as it is.

    Parameters
    ----------
    atoms : ase.Atoms
    rng : numpy.random.Generator
    compress, stretch : float
        Isotropic: lengths times a factor between ``1 - compress`` and ``1 + stretch``.
    anisotropic : float
        Further normal strains, independent in each direction, between plus and minus this.
    shear : float
        Shear strains γ = 2ε between plus and minus this; without rotation.
    """
    factor = rng.uniform(1 - compress, 1 + stretch)
    strain = np.diag(rng.uniform(-anisotropic, anisotropic, 3))
    strain[np.triu_indices(3, 1)] = rng.uniform(-shear, shear, 3)
    strain = (strain + strain.T) / 2
    return deform(atoms, factor * (np.eye(3) + strain))


def deform(atoms: Atoms, gradient: Array) -> Atoms:
    """Apply a symmetric deformation gradient ``(3, 3)`` within the space of the periodic directions."""
    projector = periodic_projector(atoms)
    full = projector @ gradient @ projector + np.eye(3) - projector
    copy: Atoms = atoms.copy()
    cell = np.array(copy.cell[:])
    cell[copy.pbc] = cell[copy.pbc] @ full.T
    copy.set_cell(cell, scale_atoms=False)
    copy.positions = copy.positions @ full.T
    return copy


def create_vacancies(atoms: Atoms, rng: np.random.Generator, n_vacancies: int = 2) -> Atoms:
    """Remove `n_vacancies` atoms at random.

    Raises
    ------
    InputError
        If nothing would be left.
    """
    if n_vacancies >= len(atoms):
        raise InputError(
            f"{n_vacancies} vacancies in {len(atoms)} atoms leave nothing; use larger cells, or fewer vacancies"
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
        In the order in which they are placed.
    rng : numpy.random.Generator
    distance : float or mapping of pair to float
        Å; for each pair of species, in either order.
    vacuum : float
        Å around it.

    Raises
    ------
    InputError
        If no place is found for an atom, however often the cluster is begun anew.
    """
    for _ in range(MAX_PLACEMENT_ATTEMPTS):
        positions = _cluster_positions(symbols, rng, distance)
        if positions is not None:
            return add_vacuum(Atoms(list(symbols), positions, pbc=False), vacuum)
    raise InputError(f"no cluster of {len(symbols)} atoms with the given distances was found; make it smaller")


def _cluster_positions(
    symbols: Sequence[str], rng: np.random.Generator, distance: float | Mapping[tuple[str, str], float]
) -> Array | None:
    placed = np.zeros((1, 3))
    for k in range(1, len(symbols)):
        least = np.array([get_pair_distance(distance, symbols[k], other) for other in symbols[:k]])
        for _ in range(MAX_PLACEMENT_ATTEMPTS):
            partner = int(rng.integers(k))
            direction = rng.normal(size=3)
            radius = least[partner] * rng.uniform(1.0, np.sqrt(3.0))
            trial = placed[partner] + radius * direction / np.linalg.norm(direction)
            ratios = np.linalg.norm(placed - trial, axis=1) / least
            if ratios.min() >= 1.0:
                placed = np.vstack([placed, trial])
                break
        else:
            return None
    return placed


def get_pair_distance(distance: float | Mapping[tuple[str, str], float], first: str, second: str) -> float:
    """The distance of a pair of species, whichever way round it is given."""
    if not isinstance(distance, Mapping):
        return distance
    found = distance.get((first, second), distance.get((second, first)))
    if found is None:
        raise InputError(f"no distance is given for the pair {first}-{second}; add it")
    return found


def cut_slab(
    bulk: Atoms,
    miller: Sequence[int],
    min_thickness: float = 10.0,
    max_atoms: int = 450,
    vacuum: float = 15.0,
    min_length: float = 0.0,
) -> Atoms:
    """Cut a slab of at least `min_thickness` Å; Miller indices refer to the cell vectors of `bulk`.

    Parameters
    ----------
    bulk : ase.Atoms
        Periodic in three directions.
    miller : three int
    min_thickness, vacuum : float
        Å.
    max_atoms : int
    min_length : float
        Å; in-plane vectors are repeated up to this, within `max_atoms`.

    Raises
    ------
    InputError
        If `bulk` is not a bulk, the indices are all zero, or no slab thick enough has so few atoms.
    """
    name = "(" + " ".join(str(index) for index in miller) + ")"
    if not bulk.pbc.all():
        raise InputError(f"a slab {name} needs a structure that is periodic in three directions")
    if len(miller) != 3 or not any(miller):
        raise InputError(f"Miller indices must be three whole numbers, not all zero; got {name}")
    for layers in range(1, max_atoms + 1):
        cut = surface(bulk, tuple(int(index) for index in miller), layers)
        if len(cut) > max_atoms:
            break
        cut.pbc = (True, True, False)
        if measure_thickness(cut) >= min_thickness:
            return add_vacuum(build_supercell(cut, min_length, max_atoms), vacuum)
    raise InputError(
        f"no slab {name} of at least {min_thickness:g} Å has at most {max_atoms} atoms; raise the atom limit or "
        "lower the thickness"
    )


def build_isolated_atom(symbol: str, vacuum: float = 15.0) -> Atoms:
    """One atom alone in a cubic box."""
    return add_vacuum(Atoms(symbol, [[0.0, 0.0, 0.0]], pbc=False), vacuum)


def swap_atoms(atoms: Atoms, rng: np.random.Generator, fraction: float = 0.2) -> Atoms:
    """Swap pairs of atoms of different elements, until a fraction of all atoms has moved; none moves twice.

    Raises
    ------
    InputError
        If there is only one element: swaps would give the same structure again.
    """
    numbers = np.array(atoms.numbers)
    waiting = np.arange(len(numbers))
    if len(set(numbers.tolist())) < 2:
        raise InputError(f"{atoms.get_chemical_formula()} has a single element: swapping its atoms changes nothing")
    for _ in range(max(1, round(fraction * len(atoms) / 2))):
        first = int(rng.choice(waiting))
        others = waiting[numbers[waiting] != numbers[first]]
        second = int(rng.choice(others))
        numbers[[first, second]] = numbers[[second, first]]
        waiting = waiting[(waiting != first) & (waiting != second)]
        if len(set(numbers[waiting].tolist())) < 2:  # the rarer element has moved altogether
            break
    copy: Atoms = atoms.copy()
    copy.numbers = numbers
    return copy


def randomise_species(atoms: Atoms, rng: np.random.Generator, elements: Sequence[str]) -> Atoms:
    """Occupy the sites at random by several elements, in a composition that is itself random.

    Raises
    ------
    InputError
        If fewer than two elements are given.
    """
    if len(set(elements)) < 2:
        raise InputError(f"an alloy needs two elements or more; got {', '.join(elements) or 'none'}")
    shares = rng.dirichlet(np.ones(len(elements)))
    copy: Atoms = atoms.copy()
    copy.numbers = rng.choice([atomic_numbers[symbol] for symbol in elements], len(atoms), p=shares)
    return copy
