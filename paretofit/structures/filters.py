"""Conditions that a candidate must meet: limits of distances, number of atoms and forces, and no duplicates."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from paretofit.core import Array, InputError
from paretofit.dataset.quality import fingerprint_geometry
from paretofit.structures.augment_settings import FilterSettings
from paretofit.structures.geometry import find_shortest_pair_distances


@dataclass
class CandidateFilter:
    """Filter that accepts or rejects candidates one by one, and counts rejected candidates.

    Attributes
    ----------
    settings : FilterSettings
    max_atoms : int
        Maximum number of atoms of a candidate.
    compute_descriptors : callable or None
        Function that returns the descriptors of a structure, ``(n_features,)``; structures with equal formulas and
        descriptors are duplicates. If None, only equal geometries are duplicates.
    compute_max_force : callable or None
        Function that returns the maximum force in eV/Å, from a cheap reference; if it raises an error other than
        `InputError`, the candidate is rejected for this reason. If None, forces are not limited.
    rejected : Counter
        Number of rejected candidates, by kind and reason.
    """

    settings: FilterSettings
    max_atoms: int
    compute_descriptors: Callable[[Atoms], Array] | None = None
    compute_max_force: Callable[[Atoms], float] | None = None
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)
    _fingerprints: set[str] = field(default_factory=set)
    _descriptors: dict[str, list[Array]] = field(default_factory=dict)

    def accept(self, atoms: Atoms, kind: str) -> bool:
        """Return whether a candidate meets all conditions; store it to detect duplicates, or count the rejection."""
        reason = self._find_rejection_reason(atoms)
        if reason is not None:
            self.rejected[kind, reason] += 1
        return reason is None

    def _find_rejection_reason(self, atoms: Atoms) -> str | None:
        """Return the reason why a candidate is rejected; if there is none, store its fingerprint and return None."""
        if len(atoms) > self.max_atoms:
            return "too many atoms"
        if is_too_close(atoms, self.settings.min_distance_ratio, self.settings.radii):
            return "atoms too close"
        fingerprint = fingerprint_geometry(atoms)
        if fingerprint in self._fingerprints or self._has_known_descriptors(atoms):
            return "duplicate"
        if self.settings.max_force is not None and self.compute_max_force is not None:
            try:
                max_force = self.compute_max_force(atoms)
            except InputError:
                raise
            except Exception as error:  # noqa: BLE001  (calculators raise any error, which becomes the reason)
                cause = f"{type(error).__name__} {str(error).partition(chr(10))[0][:80]}"
                return f"the reference could not compute it: {cause}".strip()
            if not max_force <= self.settings.max_force:  # also true for NaN
                return "forces too large under the reference"
        self._fingerprints.add(fingerprint)
        return None

    def _has_known_descriptors(self, atoms: Atoms) -> bool:
        """Return whether an earlier structure with the same formula has equal descriptors; otherwise, store them.

        Without a function for descriptors, or with a tolerance of zero, nothing is compared, and False is returned.
        """
        if self.compute_descriptors is None or self.settings.duplicate_tolerance == 0:
            return False
        descriptors = self.compute_descriptors(atoms)
        stored_descriptors = self._descriptors.setdefault(atoms.get_chemical_formula(), [])
        if stored_descriptors:
            distances = np.linalg.norm(np.array(stored_descriptors) - descriptors, axis=1)
            if (distances < self.settings.duplicate_tolerance * np.linalg.norm(descriptors)).any():
                return True
        stored_descriptors.append(descriptors)
        return False


def is_too_close(atoms: Atoms, min_distance_ratio: float, radii: Mapping[str, float] | None = None) -> bool:
    """Return whether two atoms, or an atom and its image, are closer than a fraction of the sum of their radii.

    Parameters
    ----------
    atoms : ase.Atoms
    min_distance_ratio : float
        Fraction of the sum of the radii.
    radii : mapping of symbol to float, optional
        Radii in Å; other elements have their covalent radii.
    """
    radius_by_number = {
        atomic_numbers[symbol]: get_radius(symbol, radii) for symbol in set(atoms.get_chemical_symbols())
    }
    # 1e-9 keeps the search radius positive for a ratio of 0.
    distances = find_shortest_pair_distances(atoms, 2 * min_distance_ratio * max(radius_by_number.values()) + 1e-9)
    return any(
        distance < min_distance_ratio * (radius_by_number[i] + radius_by_number[j])
        for (i, j), distance in distances.items()
    )


def get_radius(symbol: str, radii: Mapping[str, float] | None) -> float:
    """Return the radius of an element in Å from `radii`, or its covalent radius if `radii` is None or lacks it."""
    return (radii or {}).get(symbol, float(covalent_radii[atomic_numbers[symbol]]))
