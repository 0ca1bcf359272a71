"""Energy of two atoms down to short distances, at which a potential without training data may be attractive."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from paretofit.validation.crystal import compute_energy
from paretofit.validation.quantity import Quantity

BOX_LENGTH_A = 40.0
MIN_DISTANCE_A, MAX_DISTANCE_A = 0.3, 6.0  # limits of the curve


@dataclass(frozen=True)
class DimerCurve:
    """Energy of two atoms as a function of their distance.

    Attributes
    ----------
    curve : DataFrame
        ``distance`` (Å) and ``energy`` (eV, relative to separated atoms).
    covalent_distance : float
        Sum of the covalent radii, Å.
    """

    curve: pd.DataFrame
    covalent_distance: float

    @property
    def minimum_index(self) -> int:
        """Index of the lowest energy at distances above half the sum of the covalent radii."""
        is_physical = self.curve["distance"].to_numpy() >= self.covalent_distance / 2
        return int(np.argmin(np.where(is_physical, self.curve["energy"].to_numpy(), np.inf)))

    @property
    def inner_turning_distance(self) -> float:
        """Distance (Å) at which, from the minimum inwards, the energy first decreases again; 0 if it never does."""
        inner_curve = self.curve.iloc[: self.minimum_index + 1].iloc[::-1]
        decrease_indices = np.flatnonzero(np.diff(inner_curve["energy"].to_numpy()) < 0)
        return float(inner_curve["distance"].iloc[decrease_indices[0]]) if len(decrease_indices) else 0.0

    @property
    def is_bound(self) -> bool:
        """Whether the energy has a minimum, below that of separated atoms, inside the curve."""
        return self.minimum_index < len(self.curve) - 1 and float(self.curve["energy"].iloc[self.minimum_index]) < 0

    @property
    def quantities(self) -> list[Quantity]:
        """Distance and depth of the minimum, if any, energy at half the covalent distance, inner turning distance."""
        minimum = self.curve.iloc[self.minimum_index]
        wall_energy = float(np.interp(self.covalent_distance / 2, self.curve["distance"], self.curve["energy"]))
        problem, turning_distance = "", self.inner_turning_distance
        if turning_distance > 0:
            barrier = float(np.interp(turning_distance, self.curve["distance"], self.curve["energy"]))
            event = f"atoms that collide with more than {barrier:.3g} eV" if barrier > 0 else "atoms that come closer"
            problem = f"{event} collapse; add a core repulsion (ZBL)"
        quantities = [
            Quantity("energy at half the covalent distance", "eV", wall_energy),
            Quantity("inner turning distance", "Å", turning_distance, problem),
        ]
        if not self.is_bound:
            return quantities
        length, depth = float(minimum["distance"]), float(-minimum["energy"])
        return [Quantity("bond length", "Å", length), Quantity("depth", "eV", depth), *quantities]


def compute_dimer_curve(calculator: Any, first: str, second: str, *, n_points: int = 115) -> DimerCurve:
    """Compute the energy (eV) of two atoms at 0.3 to 6 Å, relative to separated atoms, in a periodic box of 40 Å."""

    def compute_energy_in_box(symbols: list[str], distance: float) -> float:
        positions = [[BOX_LENGTH_A / 4 + k * distance, *[BOX_LENGTH_A / 4] * 2] for k in range(len(symbols))]
        return compute_energy(Atoms(symbols, positions=positions, cell=[BOX_LENGTH_A] * 3, pbc=True), calculator)

    separated_energy = sum(compute_energy_in_box([symbol], 0.0) for symbol in (first, second))
    distances = np.linspace(MIN_DISTANCE_A, MAX_DISTANCE_A, n_points)
    energies = [compute_energy_in_box([first, second], distance) - separated_energy for distance in distances]
    covalent_distance = covalent_radii[[atomic_numbers[first], atomic_numbers[second]]].sum()
    return DimerCurve(pd.DataFrame({"distance": distances, "energy": energies}), float(covalent_distance))
