"""Generation of the requested number of candidates of all kinds from a few structures.

Each random candidate has a separate random generator, so that it does not depend on the number of attempts for other
candidates. The same settings give exactly the same candidates.
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
    """Generate candidates of all kinds.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        Initial structures. Their periodicity determines whether they are bulk crystals, slabs, sheets, wires or
        molecules.
    names : sequence of str
        Names of the structures, which are stored as ``parent`` or ``input`` of candidates.
    settings : AugmentSettings
    compute_descriptors : callable, optional
        Function that computes the descriptors of a structure, ``(n_features,)``, to detect duplicates; by default, only
        equal geometries are duplicates.
    compute_max_force : callable, optional
        Function that computes the maximum force in eV/Å for ``filters.max_force``; by default, forces are not limited.

    Yields
    ------
    Candidates
        The same object each time: after each accepted supercell, molecule, slab or free atom, and after each random
        candidate, whether it was accepted or not. All candidates accepted so far have been added to it.

    Raises
    ------
    InputError
        If there are no structures, a structure is invalid (for example, atoms overlap, or it has vacuum along a
        periodic direction), a distance for clusters is missing, or the counts exceed ``n_candidates``.
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
    """Add candidates of the random kinds, and replace failed ones; yield, for each, whether it was accepted.

    The iteration also ends when a replacement fails.

    Raises
    ------
    InputError
        If the counts exceed ``n_candidates``.
    """
    settings, candidates = generator.settings, generator.candidates
    counts = generator.allocate_counts()
    _check_total(len(candidates.structures), sum(counts.values()), settings.n_candidates)
    seed_sequence = np.random.SeedSequence(settings.seed)
    for kind, count in counts.items():
        for index in range(count):
            rng = np.random.default_rng(seed_sequence.spawn(1)[0])
            yield _attempt_candidate(generator, candidate_filter, kind, index, rng)
    filler_kind = generator.choose_filler_kind(counts)
    index = counts.get(filler_kind, 0) if filler_kind else 0
    while filler_kind and len(candidates.structures) < settings.n_candidates:  # replaces failed candidates
        rng = np.random.default_rng(seed_sequence.spawn(1)[0])
        if not _attempt_candidate(generator, candidate_filter, filler_kind, index, rng):
            return  # further candidates of this kind would probably fail too
        index += 1
        yield True


def _check_structures(structures: Sequence[Atoms], names: Sequence[str], settings: AugmentSettings) -> None:
    """Raise `InputError` if there are no structures, or if one is invalid, too large or has overlapping atoms."""
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
    """Raise `InputError` if positions or cell are not finite, an atom has no element, or the cell is degenerate."""
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell[:]).all()):
        raise InputError(f"{name} has positions or cell vectors that are not finite numbers; correct the structure")
    if not atoms.numbers.all():
        raise InputError(f"{name} has an atom X, which is not an element; specify the element, or remove the atom")
    vectors = np.array(atoms.cell[atoms.pbc]).reshape(-1, 3)
    if len(vectors) and np.linalg.matrix_rank(vectors, tol=1e-6) < len(vectors):
        raise InputError(f"{name} has cell vectors of zero length or that lie in one plane; correct its cell")


def _check_pairs(elements: Sequence[str], settings: AugmentSettings) -> None:
    """Raise `InputError` if distances for clusters are specified by pair, and a pair of `elements` is missing."""
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
    """Raise `InputError` if the deterministic candidates, or all counts together, exceed `n_candidates`."""
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

    The parent is the name of the input; it is None for free atoms. If a slab cannot be cut, the reason is added to
    `skipped`.
    """
    min_thickness = settings.slabs.min_thickness
    for structure, name in zip(structures, names, strict=True):
        atoms = add_vacuum(structure, settings.vacuum)
        supercell = operations.build_supercell(atoms, settings.min_length, settings.max_atoms)
        kind = "supercell" if atoms.pbc.any() else "molecule"
        made_by = f"{len(supercell) // len(atoms)} times the input{_describe_length(supercell, settings)}"
        yield name, kind, supercell, made_by
        for miller in settings.slabs.miller_indices if atoms.pbc.all() else ():
            try:
                slab = operations.cut_slab(
                    atoms, miller, min_thickness, settings.max_atoms, settings.vacuum, settings.min_length
                )
            except InputError as error:
                skipped[f"slab ({' '.join(map(str, miller))}) of {name}"] = str(error)
                continue
            thickness = measure_thickness(slab)
            note = f"; 'max_atoms' limits the thickness to {thickness:.1f} Å" if thickness < min_thickness else ""
            made_by = f"cut along ({' '.join(map(str, miller))}){note}{_describe_length(slab, settings)}"
            yield name, "slab", slab, made_by
    for symbol in list_elements(structures) if settings.isolated_atoms else ():
        yield None, "isolated", operations.build_isolated_atom(symbol, settings.vacuum), "a free atom"


def _describe_length(atoms: Atoms, settings: AugmentSettings) -> str:
    """Return a note if a structure is shorter than `min_length` because of `max_atoms`, or an empty string if not."""
    lengths = atoms.cell.lengths()[atoms.pbc]
    if not len(lengths) or lengths.min() >= settings.min_length:
        return ""
    return f"; 'max_atoms' limits the length to {lengths.min():.1f} Å, shorter than 'min_length'"


def _attempt_candidate(
    generator: CandidateGenerator, candidate_filter: CandidateFilter, kind: str, index: int, rng: np.random.Generator
) -> bool:
    """Make attempts to generate candidate `index` of a kind, until one is accepted; return whether this succeeded.

    The accepted candidate is added to the candidates of the generator. If every attempt fails, the most frequent reason
    is counted in `Candidates.given_up`.
    """
    earlier_rejections = candidate_filter.rejected.copy()
    for _ in range(generator.settings.max_attempts):
        try:
            atoms, description, parent = generator.generate(kind, index, rng)
        except InputError as error:  # this random draw is impossible, but another draw may be possible
            candidate_filter.rejected[kind, str(error)] += 1
            continue
        atoms = add_vacuum(atoms, generator.settings.vacuum)  # restores the vacuum into which atoms were displaced
        if candidate_filter.accept(atoms, kind):
            generator.candidates.add(atoms, kind, parent, description)
            return True
    new_rejections = candidate_filter.rejected - earlier_rejections
    kind_and_reason, _ = new_rejections.most_common(1)[0]
    generator.candidates.given_up[kind_and_reason] += 1
    return False
