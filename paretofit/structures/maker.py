"""Numbers of candidates of each random kind, and their generation from a pool of parent structures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from ase import Atoms

from paretofit.core import InputError
from paretofit.structures import operations
from paretofit.structures.augment_settings import AugmentSettings
from paretofit.structures.candidates import Candidates, Draw
from paretofit.structures.filters import get_radius
from paretofit.structures.geometry import list_elements

# Shares of the kinds without a requested count, relative to each other.
DEFAULT_WEIGHTS = {"distorted": 4.0, "strained": 2.0, "cluster": 1.0, "alloy": 1.0}


@dataclass(frozen=True)
class ParentStructure:
    """A structure from which candidates are made.

    Attributes
    ----------
    atoms : ase.Atoms
    input_name : str
        Name of the input from which the structure was made.
    description : str
        Kind and ``config_id`` of the structure.
    nearest_distance : float
        Nearest-neighbour distance in Å.
    """

    atoms: Atoms
    input_name: str
    description: str
    nearest_distance: float


class CandidateGenerator:
    """Generator of candidates of each kind from a pool of supercells, slabs and molecules.

    Parameters
    ----------
    pool : sequence of ParentStructure
    settings : AugmentSettings
    candidates : Candidates
        Candidates generated so far, from which structures with vacancies and substitutions are made. Reasons why a kind
        is impossible are added to its `skipped`.
    elements : sequence of str
        Elements of clusters.
    """

    def __init__(
        self,
        pool: Sequence[ParentStructure],
        settings: AugmentSettings,
        candidates: Candidates,
        elements: Sequence[str],
    ) -> None:
        self.settings, self.candidates, self._elements = settings, candidates, list(elements)
        self._movable_parents = [parent for parent in pool if len(parent.atoms) > 1]
        self._periodic_parents = [parent for parent in pool if parent.atoms.pbc.any()]
        self._mixed_parents = [parent for parent in pool if _is_mixed(parent.atoms)]
        self._alloy_parents = self._movable_parents if len(settings.alloys.elements) > 1 else self._mixed_parents
        # Parents of vacancies and substitutions by kind; see `_draw_parent`.
        self._candidate_parents: dict[str, list[Atoms]] = {}

    def allocate_counts(self) -> dict[str, int]:
        """Return the number of candidates of each randomly generated kind, in the order of generation.

        Kinds without a requested count divide the remaining candidates in proportion to `DEFAULT_WEIGHTS`; the first of
        them gets the remainder. Reasons why kinds are impossible are added to `skipped` of the candidates.
        """
        settings, n_deterministic = self.settings, len(self.candidates.structures)
        requested_counts = {
            "distorted": settings.distorted.count,
            "strained": settings.strained.count,
            "cluster": settings.clusters.count,
            "alloy": settings.alloys.count,
        }
        n_vacancy_per_distorted, n_substituted_per_candidate, possible_kinds = self._find_possible_kinds()
        # The division leaves room for the substituted copies of all candidates.
        n_available = (settings.n_candidates - n_deterministic) / (1 + n_substituted_per_candidate)
        # Each distorted candidate requires further room for structures with vacancies.
        n_per_candidate = {
            kind: 1 + (n_vacancy_per_distorted if kind == "distorted" else 0.0) for kind in requested_counts
        }
        n_available -= sum(
            n_per_candidate[kind] * count for kind, count in requested_counts.items() if count is not None
        )
        kind_weights = {kind: DEFAULT_WEIGHTS[kind] for kind in possible_kinds if requested_counts[kind] is None}
        total_weight = sum(n_per_candidate[kind] * weight for kind, weight in kind_weights.items())
        # 1e-9 avoids a division by zero if every possible kind has a requested count.
        count_per_weight = max(n_available, 0.0) / max(total_weight, 1e-9)
        counts = dict.fromkeys(requested_counts, 0)
        for kind in possible_kinds:
            count = requested_counts[kind]
            counts[kind] = int(kind_weights[kind] * count_per_weight) if count is None else count
        counts["vacancy"] = int(n_vacancy_per_distorted * counts["distorted"])
        counts["substituted"] = int(n_substituted_per_candidate * (n_deterministic + sum(counts.values())))
        # This is not zero because of rounding, impossible kinds, and substituted copies of deterministic candidates.
        remainder = settings.n_candidates - n_deterministic - sum(counts.values())
        filler_kind = next((kind for kind in kind_weights if counts[kind]), None)
        if filler_kind is not None:
            counts[filler_kind] = max(counts[filler_kind] + remainder, 0)
        return counts

    def _find_possible_kinds(self) -> tuple[float, float, list[str]]:
        """Find the kinds that can be generated from the pool.

        If vacancies or requested alloys are impossible, the reason is added to `skipped` of the candidates.

        Returns
        -------
        n_vacancy_per_distorted, n_substituted_per_candidate : float
            Numbers of structures with vacancies and with substitutions for each candidate; 0 if they are impossible.
        possible_kinds : list of str
            Other kinds that are possible.
        """
        settings, candidates = self.settings, self.candidates
        n_vacancies, n_vacancy_per_distorted = settings.vacancies.n_vacancies, settings.vacancies.share
        if not any(len(parent.atoms) > n_vacancies for parent in self._movable_parents):
            if n_vacancy_per_distorted:
                candidates.skipped["vacancy"] = (
                    f"no structure has more than {n_vacancies} atoms; raise 'min_length', or lower "
                    "'vacancies.n_vacancies'"
                )
            n_vacancy_per_distorted = 0.0
        if settings.alloys.count and not self._alloy_parents:
            candidates.skipped["alloy"] = "no structure has two elements; specify them under 'alloys.elements'"
        pools = {
            "distorted": self._movable_parents,
            "strained": self._periodic_parents,
            "cluster": [True],  # requires no parent
            "alloy": self._alloy_parents,
        }
        n_substituted_per_candidate = (
            settings.substitutions.share if self._mixed_parents or self._alloy_parents else 0.0
        )
        return n_vacancy_per_distorted, n_substituted_per_candidate, [kind for kind, pool in pools.items() if pool]

    def choose_filler_kind(self, counts: dict[str, int]) -> str | None:
        """Choose the kind that replaces failed candidates: "distorted" or "strained".

        It is the first of the two that has no requested count, but an allocated one in `counts`; None if neither has.
        """
        requested_counts = {"distorted": self.settings.distorted.count, "strained": self.settings.strained.count}
        return next((kind for kind, count in requested_counts.items() if count is None and counts[kind]), None)

    def generate(self, kind: str, index: int, rng: np.random.Generator) -> Draw:
        """Generate candidate `index` of a kind.

        Raises
        ------
        InputError
            If the structure cannot be generated with these random numbers; another draw may succeed.
        """
        return {
            "distorted": self._distort,
            "strained": self._strain,
            "cluster": self._build_cluster,
            "alloy": self._randomise_species,
            "vacancy": self._create_vacancies,
            "substituted": self._swap_atoms,
        }[kind](index, rng)

    def _distort(self, index: int, rng: np.random.Generator) -> Draw:
        """Displace the atoms of a parent; the parents take turns."""
        parent, fraction = self._movable_parents[index % len(self._movable_parents)], self.settings.distorted.fraction
        atoms = operations.distort(parent.atoms, rng, fraction, nearest_distance_angstrom=parent.nearest_distance)
        largest_displacement = float(np.linalg.norm(atoms.positions - parent.atoms.positions, axis=1).max())
        return atoms, f"{parent.description} displaced by up to {largest_displacement:.3f} Å", parent.input_name

    def _strain(self, index: int, rng: np.random.Generator) -> Draw:
        """Strain a parent and, with ``strained.fraction``, displace its atoms; the parents take turns."""
        parent, strain = self._periodic_parents[index % len(self._periodic_parents)], self.settings.strained
        limits = strain.compress, strain.stretch, strain.anisotropic, strain.shear
        atoms = operations.apply_strain(parent.atoms, rng, *limits)
        axis = int(np.argmax(parent.atoms.pbc))
        factor = atoms.cell.lengths()[axis] / parent.atoms.cell.lengths()[axis]
        made_by = f"{parent.description} strained; first periodic length times {factor:.4f}"
        if not strain.fraction:
            return atoms, made_by, parent.input_name
        return operations.distort(atoms, rng, strain.fraction), f"{made_by}; displaced", parent.input_name

    def _build_cluster(self, _index: int, rng: np.random.Generator) -> Draw:
        """Build a cluster with a random number of atoms of random elements."""
        clusters, filters = self.settings.clusters, self.settings.filters
        max_atoms = min(clusters.max_atoms, self.settings.max_atoms)
        n_atoms = int(rng.integers(min(clusters.min_atoms, max_atoms), max_atoms + 1))
        symbols = [str(symbol) for symbol in rng.choice(self._elements, n_atoms)]
        pair_distances = clusters.get_pair_distances()
        radii = {symbol: get_radius(symbol, filters.radii) for symbol in symbols}
        distances = {}
        for first_element, second_element in product(radii, repeat=2):
            # The factor of 1.001 prevents a rejection by the filter because of rounding errors.
            min_distance = 1.001 * filters.min_distance_ratio * (radii[first_element] + radii[second_element])
            distances[first_element, second_element] = max(
                operations.get_pair_distance(pair_distances, first_element, second_element), min_distance
            )
        atoms = operations.build_cluster(symbols, rng, distances, self.settings.vacuum)
        return atoms, f"{n_atoms} atoms placed one by one", None

    def _randomise_species(self, index: int, rng: np.random.Generator) -> Draw:
        """Occupy the sites of a parent at random; the parents take turns."""
        parent = self._alloy_parents[index % len(self._alloy_parents)]
        elements = self.settings.alloys.elements or list_elements([parent.atoms])
        atoms = operations.randomise_species(parent.atoms, rng, elements)
        made_by = f"sites of {parent.description} occupied at random: {atoms.get_chemical_formula()}"
        return atoms, made_by, parent.input_name

    def _create_vacancies(self, _index: int, rng: np.random.Generator) -> Draw:
        """Remove atoms of a random distorted candidate."""
        n_vacancies = self.settings.vacancies.n_vacancies
        parent = self._draw_parent(
            "vacancy",
            lambda atoms: atoms.info["config_type"] == "distorted" and len(atoms) > n_vacancies,
            "no distorted structure was made to remove atoms from",
            rng,
        )
        atoms = operations.create_vacancies(parent, rng, n_vacancies)
        return atoms, f"{n_vacancies} atoms removed", int(parent.info["config_id"])

    def _swap_atoms(self, _index: int, rng: np.random.Generator) -> Draw:
        """Swap atoms of a random candidate with several elements."""
        parent = self._draw_parent("substituted", _is_mixed, "no structure has two elements to swap", rng)
        atoms = operations.swap_atoms(parent, rng, self.settings.substitutions.swapped_fraction)
        n_swapped = int((atoms.numbers != parent.numbers).sum())
        return atoms, f"{n_swapped} atoms swapped", int(parent.info["config_id"])

    def _draw_parent(
        self, kind: str, is_parent: Callable[[Atoms], bool], error: str, rng: np.random.Generator
    ) -> Atoms:
        """Draw a parent at random from the candidates for which `is_parent` is true.

        The parents are listed when a kind is first generated, so that its later candidates are not parents themselves.
        If there are none, an `InputError` with the message `error` is raised.
        """
        if kind not in self._candidate_parents:
            self._candidate_parents[kind] = [atoms for atoms in self.candidates.structures if is_parent(atoms)]
        if not self._candidate_parents[kind]:
            raise InputError(error)
        parents = self._candidate_parents[kind]
        return parents[int(rng.integers(len(parents)))]


def _is_mixed(atoms: Atoms) -> bool:
    """Return whether a structure has at least two elements."""
    return len(set(atoms.numbers.tolist())) > 1
