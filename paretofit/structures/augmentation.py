"""From a handful of structures to as many candidates of all kinds as are asked for.

Every candidate has a random generator of its own, so that none depends on how often another had to be tried, and
the same settings give the same candidates to the last bit.
"""

from __future__ import annotations

from functools import partial
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from paretofit.core import Array, InputError
from paretofit.structures import operations as kinds
from paretofit.structures.candidates import Candidates, Draw
from paretofit.structures.filters import CandidateFilter, is_too_close
from paretofit.structures.geometry import add_vacuum, list_elements, nearest_distance, widest_gap
from paretofit.structures.maker import CandidateGenerator, ParentStructure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from paretofit.structures.augment_settings import AugmentSettings

EMPTY = 8.0  # Å between planes of atoms; more than layers of any crystal are apart
ORDINALS = ("first", "second", "third")


def generate_candidates(
    structures: Sequence[Atoms],
    names: Sequence[str],
    settings: AugmentSettings,
    *,
    compute_descriptors: Callable[[Atoms], Array] | None = None,
    compute_max_force: Callable[[Atoms], float] | None = None,
) -> Iterator[Candidates]:
    """Make candidates of all kinds; yields the same growing object after each, made or given up, for progress.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        Bulk, slabs, sheets, wires, molecules: their periodicity says which.
    names : sequence of str
        Of the structures, for ``parent``.
    settings : AugmentSettings
    compute_descriptors : callable, optional
        Descriptors by which duplicates are found; without, only equal geometries are duplicates.
    compute_max_force : callable, optional
        For ``filters.max_force``.

    Raises
    ------
    InputError
        If there are no structures, one of them has overlapping atoms or a vacuum where it is said to be periodic,
        or a limit cannot be met.
    """
    _check_cells(structures, names)
    _check(structures, names, settings)
    _check_pairs(list_elements(structures), settings)
    gate = CandidateFilter(settings.filters, settings.max_atoms, compute_descriptors, compute_max_force)
    found = Candidates(rejected=gate.rejected)
    seeds = np.random.SeedSequence(settings.seed)
    pool: list[ParentStructure] = []
    for base, kind, atoms, how in _without_chance(structures, names, settings):
        if gate.accept(atoms, kind):
            _keep(found, atoms, kind, base, how)
            if base is not None:
                identity = len(found.structures) - 1
                pool.append(ParentStructure(atoms, base, f"{kind} {identity}", nearest_distance(atoms)))
            yield found
    if len(found.structures) > settings.n_candidates:
        raise InputError(
            f"'n_candidates' is {settings.n_candidates}, but supercells, slabs and free atoms alone are {len(found.structures)}; raise 'n_candidates', "
            "or leave out slabs"
        )
    maker = CandidateGenerator(pool, settings, found, list_elements(structures))
    counts = maker.allocate_counts()
    if (given := len(found.structures) + sum(counts.values())) > settings.n_candidates:
        raise InputError(
            f"'n_candidates' is {settings.n_candidates}, but the counts of the kinds come to {given}; raise 'n_candidates', or lower them"
        )
    for kind, count in counts.items():
        for number in range(count):
            rng = np.random.default_rng(seeds.spawn(1)[0])
            _attempt(found, gate, kind, partial(maker.generate, kind, number), rng, settings)
            yield found
    filler = maker.choose_filler_kind(counts)
    number = counts.get(filler, 0) if filler else 0
    while filler and len(found.structures) < settings.n_candidates:  # in place of what was given up
        rng = np.random.default_rng(seeds.spawn(1)[0])
        before = len(found.structures)
        _attempt(found, gate, filler, partial(maker.generate, filler, number), rng, settings)
        if len(found.structures) == before:
            return
        number += 1
        yield found


def _check(structures: Sequence[Atoms], names: Sequence[str], settings: AugmentSettings) -> None:
    if not structures:
        raise InputError("there are no structures to begin from; name at least one under 'augmentation.structures'")
    for atoms, name in zip(structures, names, strict=True):
        if len(atoms) > settings.max_atoms:
            raise InputError(f"{name} has {len(atoms)} atoms, more than 'max_atoms', {settings.max_atoms}; raise it")
        if is_too_close(atoms, settings.filters.min_distance_ratio, settings.filters.radii):
            raise InputError(
                f"{name} has overlapping atoms: the shortest distance is {nearest_distance(atoms):.3g} Å, below "
                f"{settings.filters.min_distance_ratio:g} of the sum of the radii; correct it, or lower 'filters.min_distance_ratio'"
            )
        gap, axis = widest_gap(atoms)
        if gap > EMPTY:
            raise InputError(
                f"{name} is periodic along its {ORDINALS[axis]} cell vector across {gap:.1f} Å of empty space; write "
                'it as a file that says which directions are periodic, such as extended XYZ with pbc="T T F"'
            )


def _check_cells(structures: Sequence[Atoms], names: Sequence[str]) -> None:
    """Cells and positions with which nothing can be done."""
    for atoms, name in zip(structures, names, strict=True):
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell[:]).all()):
            raise InputError(f"{name} has positions or cell vectors that are not finite numbers; correct it")
        if not atoms.numbers.all():
            raise InputError(f"{name} has an atom X, which is no element; give it one, or take it out")
        vectors = np.array(atoms.cell[atoms.pbc]).reshape(-1, 3)
        if len(vectors) and np.linalg.matrix_rank(vectors, tol=1e-6) < len(vectors):
            raise InputError(f"{name} has cell vectors of zero length or that lie in one plane; correct its cell")


def _check_pairs(elements: Sequence[str], settings: AugmentSettings) -> None:
    """Clusters need a distance for every pair of elements."""
    given = settings.clusters.get_pair_distances()
    if settings.clusters.count == 0 or not isinstance(given, dict):
        return
    for first, second in combinations_with_replacement(elements, 2):
        if not {(first, second), (second, first)} & given.keys():
            raise InputError(
                f"'augmentation.clusters.distance' has no distance for the pair {first}-{second}; add it, in Å"
            )


def _without_chance(
    structures: Sequence[Atoms], names: Sequence[str], settings: AugmentSettings
) -> Iterator[tuple[str | None, str, Atoms, str]]:
    """Parent, kind, structure and how it was made: supercells and slabs of each input, and free atoms."""
    for one, name in zip(structures, names, strict=True):
        atoms = add_vacuum(one, settings.vacuum)
        larger = kinds.build_supercell(atoms, settings.min_length, settings.max_atoms)
        kind = "supercell" if atoms.pbc.any() else "molecule"
        yield name, kind, larger, f"{len(larger) // len(atoms)} times the input{_short_of(larger, settings)}"
        for miller in settings.slabs.miller_indices if atoms.pbc.all() else ():
            sizes = settings.slabs.min_thickness, settings.max_atoms, settings.vacuum, settings.min_length
            try:
                cut = kinds.cut_slab(atoms, miller, *sizes)
            except InputError as error:
                raise InputError(f"{name}: {error}, or do without slabs (slabs: {{millers: []}})") from error
            yield name, "slab", cut, f"cut along ({' '.join(map(str, miller))}){_short_of(cut, settings)}"
    if settings.isolated_atoms:
        for symbol in list_elements(structures):
            yield None, "isolated", kinds.build_isolated_atom(symbol, settings.vacuum), "a free atom"


def _short_of(atoms: Atoms, settings: AugmentSettings) -> str:
    """A note where `max_atoms` has kept a structure from its length."""
    lengths = atoms.cell.lengths()[atoms.pbc]
    if not len(lengths) or lengths.min() >= settings.min_length:
        return ""
    return f"; 'max_atoms' keeps it at {lengths.min():.1f} Å, shorter than 'min_length'"


def _keep(found: Candidates, atoms: Atoms, kind: str, parent: str | int | None, how: str) -> None:
    own = len(found.structures)
    info = {"config_id": own, "config_type": kind, "made_by": how}
    info |= {} if parent is None else {"parent": parent}
    info["family"] = found.structures[parent].info["family"] if isinstance(parent, int) else own
    kept = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=info)
    found.structures.append(kept)


def _attempt(
    found: Candidates,
    gate: CandidateFilter,
    kind: str,
    make: Callable[[np.random.Generator], Draw],
    rng: np.random.Generator,
    settings: AugmentSettings,
) -> None:
    before = gate.rejected.copy()
    for _ in range(settings.max_attempts):
        try:
            atoms, how, parent = make(rng)
        except InputError as error:  # this draw cannot be made; another may
            gate.rejected[kind, str(error)] += 1
            continue
        atoms = add_vacuum(atoms, settings.vacuum)  # displaced atoms reach into it
        if gate.accept(atoms, kind):
            _keep(found, atoms, kind, parent, how)
            return
    last = next(iter((gate.rejected - before).most_common(1)))[0]
    found.given_up[last] += 1
