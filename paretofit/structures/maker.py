"""Candidates of each random kind: how many of them, from which structure, with which settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from paretofit.core import InputError
from paretofit.structures import operations as kinds
from paretofit.structures.filters import get_radius

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ase import Atoms

    from paretofit.structures.augment_settings import AugmentSettings
    from paretofit.structures.candidates import Candidates, Draw

SHARES = {"distorted": 4.0, "strained": 2.0, "cluster": 1.0, "alloy": 1.0}


@dataclass(frozen=True)
class ParentStructure:
    """A structure that others are made from.

    Attributes
    ----------
    atoms : ase.Atoms
    input_name : str
        Of the input that it comes from.
    description : str
        Its own kind and ``config_id``.
    nearest_distance : float
        Nearest-neighbour distance, Å.
    """

    atoms: Atoms
    input_name: str
    description: str
    nearest_distance: float


class CandidateGenerator:
    """Draws candidates of each kind from a pool of supercells, slabs and molecules.

    Parameters
    ----------
    pool : sequence of Base
    settings : AugmentSettings
    found : Candidates
        What was made so far; vacancies and substitutions are made from it.
    elements : sequence of str
        Of clusters.
    """

    def __init__(
        self,
        pool: Sequence[ParentStructure],
        settings: AugmentSettings,
        candidates: Candidates,
        elements: Sequence[str],
    ) -> None:
        self._settings, self._found, self._elements = settings, candidates, list(elements)
        self._movable = [one for one in pool if len(one.atoms) > 1]
        self._periodic = [one for one in pool if one.atoms.pbc.any()]
        self._mixed = [one for one in pool if _is_mixed(one.atoms)]
        self._parents: dict[str, list[Atoms]] = {}

    def allocate_counts(self) -> dict[str, int]:
        """How many of each kind make up the number that is asked for, in the order in which they are made."""
        settings = self._settings
        given = {
            "distorted": settings.distorted.count,
            "strained": settings.strained.count,
            "cluster": settings.clusters.count,
            "alloy": settings.alloys.count,
        }
        possible = {
            "distorted": bool(self._movable),
            "strained": bool(self._periodic),
            "cluster": True,
            "alloy": bool(self._movable if len(settings.alloys.elements) > 1 else self._mixed),
        }
        roomy = any(len(one.atoms) > settings.vacancies.n_vacancies for one in self._movable)
        if settings.vacancies.share and not roomy:
            self._found.skipped["vacancy"] = (
                f"no structure has more than {settings.vacancies.n_vacancies} atoms; raise 'min_length', or lower "
                "'vacancies.n_vacancies'"
            )
        if settings.alloys.count and not possible["alloy"]:
            self._found.skipped["alloy"] = "no structure has two elements; name them under 'alloys.elements'"
        lost = settings.vacancies.share if roomy else 0.0
        swapped = settings.substitutions.share if self._mixed or possible["alloy"] else 0.0
        left = (settings.n_candidates - len(self._found.structures)) / (1 + swapped)
        children = {kind: 1 + (lost if kind == "distorted" else 0.0) for kind in given}
        left -= sum(children[kind] * count for kind, count in given.items() if count is not None)
        open_kinds = {kind: SHARES[kind] for kind, count in given.items() if count is None and possible[kind]}
        unit = max(left, 0.0) / max(sum(children[kind] * share for kind, share in open_kinds.items()), 1e-9)
        counts = {
            kind: int(open_kinds.get(kind, 0.0) * unit) if count is None else count for kind, count in given.items()
        }
        counts = {kind: count if possible[kind] else 0 for kind, count in counts.items()}
        counts["vacancy"] = int(lost * counts["distorted"])
        made = sum(counts.values())
        counts["substituted"] = int(swapped * (made + len(self._found.structures)))
        short = settings.n_candidates - len(self._found.structures) - sum(counts.values())
        filler = next((kind for kind in open_kinds if counts[kind]), None)  # what rounding has left over
        if filler is not None:
            counts[filler] += max(short, 0)
        return counts

    def choose_filler_kind(self, counts: dict[str, int]) -> str | None:
        """The kind that takes the place of what was given up: one whose count was not given, if it is made at all."""
        settings = self._settings
        free = {"distorted": settings.distorted.count, "strained": settings.strained.count}
        return next((kind for kind, count in free.items() if count is None and counts[kind]), None)

    def generate(self, kind: str, index: int, rng: np.random.Generator) -> Draw:
        """One attempt at candidate `index` of a kind; `InputError` if this draw cannot be made."""
        return {
            "distorted": self._distorted,
            "strained": self._strained,
            "cluster": self._cluster,
            "alloy": self._alloy,
            "vacancy": self._vacancy,
            "substituted": self._substituted,
        }[kind](index, rng)

    def _distorted(self, number: int, rng: np.random.Generator) -> Draw:
        base, fraction = self._movable[number % len(self._movable)], self._settings.distorted.fraction
        atoms = kinds.distort(base.atoms, rng, fraction, nearest_distance_angstrom=base.nearest_distance)
        largest = float(np.linalg.norm(atoms.positions - base.atoms.positions, axis=1).max())
        return atoms, f"{base.description} displaced by up to {largest:.3f} Å", base.input_name

    def _strained(self, number: int, rng: np.random.Generator) -> Draw:
        base, chosen = self._periodic[number % len(self._periodic)], self._settings.strained
        atoms = kinds.apply_strain(base.atoms, rng, chosen.compress, chosen.stretch, chosen.anisotropic, chosen.shear)
        axis = int(np.argmax(base.atoms.pbc))
        factor = atoms.cell.lengths()[axis] / base.atoms.cell.lengths()[axis]
        how = f"{base.description} strained; first periodic length times {factor:.4f}"
        if not chosen.fraction:
            return atoms, how, base.input_name
        return kinds.distort(atoms, rng, chosen.fraction), f"{how}; displaced", base.input_name

    def _cluster(self, number: int, rng: np.random.Generator) -> Draw:
        del number
        chosen, filters = self._settings.clusters, self._settings.filters
        largest = min(chosen.max_atoms, self._settings.max_atoms)
        size = int(rng.integers(min(chosen.min_atoms, largest), largest + 1))
        symbols = [str(symbol) for symbol in rng.choice(self._elements, size)]
        given = chosen.get_pair_distances()
        radius = {symbol: get_radius(symbol, filters.radii) for symbol in symbols}
        distances = {  # not below what the filter lets through
            (a, b): max(
                kinds.get_pair_distance(given, a, b), 1.001 * filters.min_distance_ratio * (radius[a] + radius[b])
            )
            for a in radius
            for b in radius
        }
        atoms = kinds.build_cluster(symbols, rng, distances, self._settings.vacuum)
        return atoms, f"{size} atoms one by one", None

    def _alloy(self, number: int, rng: np.random.Generator) -> Draw:
        elements = self._settings.alloys.elements
        pool = self._movable if len(elements) > 1 else self._mixed
        base = pool[number % len(pool)]
        atoms = kinds.randomise_species(base.atoms, rng, elements or sorted(set(base.atoms.get_chemical_symbols())))
        return atoms, f"sites of {base.description} occupied at random: {atoms.get_chemical_formula()}", base.input_name

    def _vacancy(self, number: int, rng: np.random.Generator) -> Draw:
        del number
        n = self._settings.vacancies.n_vacancies
        parents = self._parents_of("vacancy", lambda one: one.info["config_type"] == "distorted" and len(one) > n)
        if not parents:
            raise InputError("no distorted structure was made to remove atoms from")
        parent = parents[int(rng.integers(len(parents)))]
        return kinds.create_vacancies(parent, rng, n), f"{n} atoms removed", int(parent.info["config_id"])

    def _substituted(self, number: int, rng: np.random.Generator) -> Draw:
        del number
        parents = self._parents_of("substituted", _is_mixed)
        if not parents:
            raise InputError("no structure has two elements to swap")
        parent = parents[int(rng.integers(len(parents)))]
        atoms = kinds.swap_atoms(parent, rng, self._settings.substitutions.swapped_fraction)
        moved = int((atoms.numbers != parent.numbers).sum())
        return atoms, f"{moved} atoms swapped", int(parent.info["config_id"])

    def _parents_of(self, kind: str, fit: Callable[[Atoms], bool]) -> list[Atoms]:
        """What was there that fits, when the first of a kind was made."""
        if kind not in self._parents:
            self._parents[kind] = [one for one in self._found.structures if fit(one)]
        return self._parents[kind]


def _is_mixed(atoms: Atoms) -> bool:
    return len(set(atoms.numbers.tolist())) > 1
