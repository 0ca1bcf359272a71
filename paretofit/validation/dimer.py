"""Energy of two atoms down to short distances, at which a potential without training data may be attractive."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from paretofit.validation.crystal import compute_energy
from paretofit.validation.quantity import Quantity

BOX_LENGTH_A = 40.0  # edge of the periodic box, in which images are beyond the largest cutoff, 30 Å
MIN_DISTANCE_A, MAX_DISTANCE_A = 0.3, 6.0  # limits of the curve
N_POINTS = 115  # number of distances; their spacing is 0.05 Å


@dataclass(frozen=True)
class DimerCurve:
    """Energy of two atoms as a function of their distance.

    Attributes
    ----------
    curve : DataFrame
        ``distance`` (Å, ascending) and ``energy`` (eV, relative to separated atoms).
    covalent_distance : float
        Sum of the covalent radii, Å.
    """

    curve: pd.DataFrame
    covalent_distance: float

    @property
    def minimum_index(self) -> int:
        """Index of the lowest energy at distances of at least half the sum of the covalent radii.

        Shorter distances are excluded, because a potential that lacks training data may have its lowest energy there.
        """
        is_physical = self.curve["distance"].to_numpy() >= self.covalent_distance / 2
        return int(np.argmin(np.where(is_physical, self.curve["energy"].to_numpy(), np.inf)))

    @property
    def inner_turning_distance(self) -> float:
        """Largest distance (Å) inside the minimum at which a further approach lowers the energy; 0 if there is none."""
        inner_curve = self.curve.iloc[: self.minimum_index + 1].iloc[::-1]
        decrease_indices = np.flatnonzero(np.diff(inner_curve["energy"].to_numpy()) < 0)
        return float(inner_curve["distance"].iloc[decrease_indices[0]]) if len(decrease_indices) else 0.0

    @property
    def is_bound(self) -> bool:
        """Whether the lowest energy is below that of separated atoms and not at the last distance of the curve."""
        return self.minimum_index < len(self.curve) - 1 and float(self.curve["energy"].iloc[self.minimum_index]) < 0

    @property
    def quantities(self) -> list[Quantity]:
        """Length and depth of the bond, if any, energy at half the covalent distance, and inner turning distance."""
        wall_energy = float(np.interp(self.covalent_distance / 2, self.curve["distance"], self.curve["energy"]))
        problem, turning_distance = "", self.inner_turning_distance
        if turning_distance > 0:
            barrier = float(np.interp(turning_distance, self.curve["distance"], self.curve["energy"]))
            subject = f"atoms that collide with more than {barrier:.3g} eV" if barrier > 0 else "atoms that come closer"
            problem = f"{subject} collapse; add a core repulsion (ZBL)"
        quantities = [
            Quantity("energy at half the covalent distance", "eV", wall_energy),
            Quantity("inner turning distance", "Å", turning_distance, problem),
        ]
        if not self.is_bound:
            return quantities
        minimum = self.curve.iloc[self.minimum_index]
        bond_length, depth = float(minimum["distance"]), float(-minimum["energy"])
        return [Quantity("bond length", "Å", bond_length), Quantity("depth", "eV", depth), *quantities]


def compute_dimer_curve(
    calculator: Any, first_symbol: str, second_symbol: str, *, n_points: int = N_POINTS
) -> DimerCurve:
    """Compute the energy (eV) of two atoms, relative to separated atoms, in a periodic box of 40 Å.

    Parameters
    ----------
    calculator : ase calculator
    first_symbol, second_symbol : str
        Elements of the atoms.
    n_points : int
        Number of evenly spaced distances from 0.3 to 6 Å.
    """

    def compute_energy_in_box(symbols: list[str], distance: float) -> float:
        """Compute the energy of one atom, or of two atoms along x, in the box."""
        offset = BOX_LENGTH_A / 4
        positions = [[offset + index * distance, offset, offset] for index in range(len(symbols))]
        return compute_energy(Atoms(symbols, positions=positions, cell=[BOX_LENGTH_A] * 3, pbc=True), calculator)

    symbols = [first_symbol, second_symbol]
    separated_energy = sum(compute_energy_in_box([symbol], 0.0) for symbol in symbols)
    distances = np.linspace(MIN_DISTANCE_A, MAX_DISTANCE_A, n_points)
    energies = [compute_energy_in_box(symbols, distance) - separated_energy for distance in distances]
    covalent_distance = covalent_radii[[atomic_numbers[symbol] for symbol in symbols]].sum()
    return DimerCurve(pd.DataFrame({"distance": distances, "energy": energies}), float(covalent_distance))
