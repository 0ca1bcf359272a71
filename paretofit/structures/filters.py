"""What a candidate must not be: too close, too hot, too large, or there already. Refusals are counted by reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers, covalent_radii

from paretofit.core import Array, InputError
from paretofit.dataset.quality import fingerprint_geometry
from paretofit.structures.geometry import shortest_pair_distances

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ase import Atoms

    from paretofit.structures.augment_settings import FilterSettings

TOO_CLOSE = "atoms too close"
TOO_MANY = "too many atoms"
DUPLICATE = "duplicate"
TOO_HOT = "forces too large under the reference"
NOT_COMPUTED = "the reference could not compute it"


@dataclass
class CandidateFilter:
    """Lets candidates through one by one, and counts the others.

    Attributes
    ----------
    settings : Filters
    max_atoms : int
    compute_descriptors : callable or None
        Descriptors of a structure, ``(n_features,)``; structures are the same if theirs agree.
    compute_max_force : callable or None
        eV/Å under a cheap reference; what it raises becomes the reason of the refusal.
    rejected : Counter
        How many were refused, by kind and reason.
    """

    settings: FilterSettings
    max_atoms: int
    compute_descriptors: Callable[[Atoms], Array] | None = None
    compute_max_force: Callable[[Atoms], float] | None = None
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)
    _seen: set[str] = field(default_factory=set)
    _described: dict[str, list[Array]] = field(default_factory=dict)

    def accept(self, atoms: Atoms, kind: str) -> bool:
        """Whether a candidate passes; if so, it is remembered."""
        reason = self._reason(atoms)
        if reason is not None:
            self.rejected[kind, reason] += 1
        return reason is None

    def _reason(self, atoms: Atoms) -> str | None:
        if len(atoms) > self.max_atoms:
            return TOO_MANY
        if is_too_close(atoms, self.settings.min_distance_ratio, self.settings.radii):
            return TOO_CLOSE
        fingerprint = fingerprint_geometry(atoms)
        if fingerprint in self._seen or self._is_known(atoms):
            return DUPLICATE
        if self.settings.max_force is not None and self.compute_max_force is not None:
            try:
                force = self.compute_max_force(atoms)
            except InputError:
                raise
            except Exception as error:  # noqa: BLE001  (whatever the calculator raises; it becomes the reason)
                return f"{NOT_COMPUTED}: {type(error).__name__} {str(error).partition(chr(10))[0][:80]}".strip()
            if not force <= self.settings.max_force:
                return TOO_HOT
        self._seen.add(fingerprint)
        return None

    def _is_known(self, atoms: Atoms) -> bool:
        """Whether a structure of the same composition and size has the same descriptors; remembers them if not."""
        if self.compute_descriptors is None or self.settings.duplicate_tolerance == 0:
            return False
        own = self.compute_descriptors(atoms)
        others = self._described.setdefault(atoms.get_chemical_formula(), [])
        if others:
            distances = np.linalg.norm(np.array(others) - own, axis=1)
            if (distances < self.settings.duplicate_tolerance * np.linalg.norm(own)).any():
                return True
        others.append(own)
        return False


def is_too_close(atoms: Atoms, min_distance_ratio: float, radii: Mapping[str, float] | None = None) -> bool:
    """Whether two atoms, or an atom and its image, are closer than a share of the sum of their radii.

    Parameters
    ----------
    atoms : ase.Atoms
    min_distance_ratio : float
    radii : mapping of symbol to float
        Å; covalent radii for elements that are not in it.
    """
    symbols = set(atoms.get_chemical_symbols())
    reach = {atomic_numbers[symbol]: get_radius(symbol, radii) for symbol in symbols}
    found = shortest_pair_distances(atoms, 2 * min_distance_ratio * max(reach.values()) + 1e-9)
    return any(distance < min_distance_ratio * (reach[i] + reach[j]) for (i, j), distance in found.items())


def get_radius(symbol: str, radii: Mapping[str, float] | None) -> float:
    """Å: as given, or the covalent radius."""
    return (radii or {}).get(symbol, float(covalent_radii[atomic_numbers[symbol]]))
