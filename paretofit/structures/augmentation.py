"""Generation of the requested number of candidates of all kinds from a few structures.

Each candidate has a separate random generator, so that no candidate depends on the number of attempts for another. The
same settings give exactly the same candidates.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms

from paretofit.core import Array, InputError, copy_without_constraints
from paretofit.structures import operations
from paretofit.structures.augment_settings import AugmentSettings
from paretofit.structures.candidates import Candidates
from paretofit.structures.filters import CandidateFilter, is_too_close
from paretofit.structures.geometry import (
    add_vacuum,
    check_empty_space,
    find_nearest_distance,
    list_elements,
    measure_thickness,
)
from paretofit.structures.maker import CandidateGenerator, ParentStructure


def generate_candidates(
    structures: Sequence[Atoms],
    names: Sequence[str],
    settings: AugmentSettings,
    *,
    compute_descriptors: Callable[[Atoms], Array] | None = None,
    compute_max_force: Callable[[Atoms], float] | None = None,
) -> Iterator[Candidates]:
    """Generate candidates of all kinds; yield the same growing result after each candidate, accepted or not.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        Initial structures. Their periodicity determines whether they are bulk crystals, slabs, sheets, wires or
        molecules.
    names : sequence of str
        Names of the structures, which are stored as ``parent`` of candidates.
    settings : AugmentSettings
    compute_descriptors : callable, optional
        Function that computes descriptors to detect duplicates; by default only equal geometries are duplicates.
    compute_max_force : callable, optional
        Function that computes the maximum force in eV/Å for ``filters.max_force``.

    Raises
    ------
    InputError
        If there are no structures, one of them is invalid (such as overlapping atoms, or a vacuum along a periodic
        direction), a distance for clusters is missing, or the counts exceed ``n_candidates``.
    """
    structures = list(map(copy_without_constraints, structures))  # constraints would fix atoms when a cell is strained
    elements = list_elements(structures)
    _check_structures(structures, names, settings)
    _check_pairs(elements, settings)
    candidate_filter = CandidateFilter(settings.filters, settings.max_atoms, compute_descriptors, compute_max_force)
    candidates = Candidates(rejected=candidate_filter.rejected)
    pool: list[ParentStructure] = []
    for parent, kind, atoms, made_by in _build_fixed_candidates(structures, names, settings, candidates.skipped):
        if candidate_filter.accept(atoms, kind):
            candidate = candidates.add(atoms, kind, parent, made_by)
            if parent is not None:
                description = f"{kind} {candidate.info['config_id']}"
                pool.append(ParentStructure(atoms, parent, description, find_nearest_distance(atoms)))
            yield candidates
    generator = CandidateGenerator(pool, settings, candidates, elements)
    for _ in _generate_random_candidates(generator, candidate_filter):
        yield candidates


def _generate_random_candidates(generator: CandidateGenerator, candidate_filter: CandidateFilter) -> Iterator[bool]:
    """Add candidates of the random kinds, and replace failed ones; yield for each whether it was accepted."""
    settings, candidates = generator.settings, generator.candidates
    counts = generator.allocate_counts()
    _check_total(len(candidates.structures), sum(counts.values()), settings.n_candidates)
    seeds = np.random.SeedSequence(settings.seed)
    for kind, count in counts.items():
        for index in range(count):
            yield _attempt_candidate(generator, candidate_filter, kind, index, np.random.default_rng(seeds.spawn(1)[0]))
    filler_kind = generator.choose_filler_kind(counts)
    index = counts.get(filler_kind, 0) if filler_kind else 0
    while filler_kind and len(candidates.structures) < settings.n_candidates:  # replaces failed candidates
        if not _attempt_candidate(
            generator, candidate_filter, filler_kind, index, np.random.default_rng(seeds.spawn(1)[0])
        ):
            return
        index += 1
        yield True


def _check_structures(structures: Sequence[Atoms], names: Sequence[str], settings: AugmentSettings) -> None:
    for atoms, name in zip(structures, names, strict=True):
        _check_cell(atoms, name)
    if not structures:
        raise InputError("no initial structures; specify at least one under 'augmentation.structures'")
    filters = settings.filters
    for atoms, name in zip(structures, names, strict=True):
        if len(atoms) > settings.max_atoms:
            raise InputError(
                f"{name} has {len(atoms)} atoms, more than 'max_atoms', {settings.max_atoms}; raise the limit"
            )
        if is_too_close(atoms, filters.min_distance_ratio, filters.radii):
            raise InputError(
                f"{name} has overlapping atoms: the shortest distance is {find_nearest_distance(atoms):.3g} Å, below "
                f"{filters.min_distance_ratio:g} times the sum of the radii; correct the structure, or lower "
                "'filters.min_distance_ratio'"
            )
        check_empty_space(atoms, name)


def _check_cell(atoms: Atoms, name: str) -> None:
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell[:]).all()):
        raise InputError(f"{name} has positions or cell vectors that are not finite numbers; correct the structure")
    if not atoms.numbers.all():
        raise InputError(f"{name} has an atom X, which is not an element; specify the element, or remove the atom")
    vectors = np.array(atoms.cell[atoms.pbc]).reshape(-1, 3)
    if len(vectors) and np.linalg.matrix_rank(vectors, tol=1e-6) < len(vectors):
        raise InputError(f"{name} has cell vectors of zero length or that lie in one plane; correct its cell")


def _check_pairs(elements: Sequence[str], settings: AugmentSettings) -> None:
    """Raise `InputError` if distances for clusters are given by pair and a pair of elements is missing."""
    distances = settings.clusters.get_pair_distances()
    if settings.clusters.count == 0 or not isinstance(distances, dict):
        return
    for first_element, second_element in combinations_with_replacement(elements, 2):
        if not {(first_element, second_element), (second_element, first_element)} & distances.keys():
            raise InputError(
                f"'augmentation.clusters.distance' has no distance for the pair {first_element}-{second_element}; "
                "add it, in Å"
            )


def _check_total(n_deterministic: int, n_random: int, n_candidates: int) -> None:
    if n_deterministic > n_candidates:
        raise InputError(
            f"'n_candidates' is {n_candidates}, but there are already {n_deterministic} supercells, slabs and free "
            "atoms; raise 'n_candidates', or omit slabs"
        )
    if n_deterministic + n_random > n_candidates:
        raise InputError(
            f"'n_candidates' is {n_candidates}, but the counts of all kinds add up to {n_deterministic + n_random}; "
            "raise 'n_candidates', or lower the counts"
        )


def _build_fixed_candidates(
    structures: Sequence[Atoms], names: Sequence[str], settings: AugmentSettings, skipped: dict[str, str]
) -> Iterator[tuple[str | None, str, Atoms, str]]:
    """Yield ``(parent, kind, structure, description)`` of the supercell and slabs of each input, then of free atoms.

    If a slab cannot be cut, the reason is added to `skipped`.
    """
    slab_limits = settings.slabs.min_thickness, settings.max_atoms, settings.vacuum, settings.min_length
    for structure, name in zip(structures, names, strict=True):
        atoms = add_vacuum(structure, settings.vacuum)
        supercell = operations.build_supercell(atoms, settings.min_length, settings.max_atoms)
        kind = "supercell" if atoms.pbc.any() else "molecule"
        made_by = f"{len(supercell) // len(atoms)} times the input{_note_length(supercell, settings)}"
        yield name, kind, supercell, made_by
        for miller in settings.slabs.miller_indices if atoms.pbc.all() else ():
            try:
                slab = operations.cut_slab(atoms, miller, *slab_limits)
            except InputError as error:
                skipped[f"slab ({' '.join(map(str, miller))}) of {name}"] = str(error)
                continue
            thickness = measure_thickness(slab)
            note = f"; 'max_atoms' limits the thickness to {thickness:.1f} Å" if thickness < slab_limits[0] else ""
            yield name, "slab", slab, f"cut along ({' '.join(map(str, miller))}){note}{_note_length(slab, settings)}"
    for symbol in list_elements(structures) if settings.isolated_atoms else ():
        yield None, "isolated", operations.build_isolated_atom(symbol, settings.vacuum), "a free atom"


def _note_length(atoms: Atoms, settings: AugmentSettings) -> str:
    """Return a note if a structure is shorter than `min_length` because of `max_atoms`, or an empty string."""
    lengths = atoms.cell.lengths()[atoms.pbc]
    if not len(lengths) or lengths.min() >= settings.min_length:
        return ""
    return f"; 'max_atoms' limits the length to {lengths.min():.1f} Å, shorter than 'min_length'"


def _attempt_candidate(
    generator: CandidateGenerator, candidate_filter: CandidateFilter, kind: str, index: int, rng: np.random.Generator
) -> bool:
    """Attempt to generate a candidate until one is accepted and added; return whether any was.

    If every attempt fails, the most frequent reason is counted in `Candidates.given_up`.
    """
    earlier_rejections = candidate_filter.rejected.copy()
    for _ in range(generator.settings.max_attempts):
        try:
            atoms, description, parent = generator.generate(kind, index, rng)
        except InputError as error:  # this random draw is impossible, but another draw may be possible
            candidate_filter.rejected[kind, str(error)] += 1
            continue
        atoms = add_vacuum(atoms, generator.settings.vacuum)  # displaced atoms may extend into the vacuum
        if candidate_filter.accept(atoms, kind):
            generator.candidates.add(atoms, kind, parent, description)
            return True
    (kind_and_reason, _), *_ = (candidate_filter.rejected - earlier_rejections).most_common(1)
    generator.candidates.given_up[kind_and_reason] += 1
    return False
