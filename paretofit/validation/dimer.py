"""Cold curve of two atoms down to short distance: is it repulsive where nothing was trained?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from paretofit.validation.quantity import Quantity

BOX = 40.0  # Å
NEAREST, FARTHEST = 0.3, 6.0  # Å


@dataclass(frozen=True)
class DimerCurve:
    """Energy of two atoms.

    Attributes
    ----------
    curve : DataFrame
        ``distance`` (Å) and ``energy`` (eV, from atoms apart).
    covalent_distance : float
        Sum of the covalent radii, Å.
    """

    curve: pd.DataFrame
    covalent_distance: float

    @property
    def minimum_index(self) -> int:
        """The row of the lowest energy outside of half the sum of the covalent radii."""
        outside = self.curve["distance"].to_numpy() >= self.covalent_distance / 2
        energy = np.where(outside, self.curve["energy"].to_numpy(), np.inf)
        return int(np.argmin(energy))

    @property
    def inner_turning_distance(self) -> float:
        """Å: coming from the minimum inwards, where the energy first falls again; 0 where it never does."""
        inwards = self.curve.iloc[: self.minimum_index + 1].iloc[::-1]
        falls = np.flatnonzero(np.diff(inwards["energy"].to_numpy()) < 0)
        return float(inwards["distance"].iloc[falls[0]]) if len(falls) else 0.0

    @property
    def quantities(self) -> list[Quantity]:
        """Distance and depth of the minimum, the wall at half the covalent distance, and where it turns attractive."""
        lowest = self.curve.iloc[self.minimum_index]
        wall = float(np.interp(self.covalent_distance / 2, self.curve["distance"], self.curve["energy"]))
        return [
            Quantity("bond length", "Å", float(lowest["distance"])),
            Quantity("depth", "eV", float(-lowest["energy"])),
            Quantity("energy at half the covalent distance", "eV", wall),
            Quantity("attractive again below", "Å", self.inner_turning_distance),
        ]


def compute_dimer_curve(calculator: Any, first: str, second: str, *, n_points: int = 115) -> DimerCurve:
    """Energy (eV) of two atoms from 0.3 to 6 Å, less that of each alone, in a periodic box of 40 Å."""
    alone = {symbol: _energy(calculator, Atoms(symbol, positions=[[0, 0, 0]])) for symbol in {first, second}}
    distances = np.linspace(NEAREST, FARTHEST, n_points)
    apart = alone[first] + alone[second]
    energies = [
        _energy(calculator, Atoms([first, second], positions=[[0, 0, 0], [d, 0, 0]])) - apart for d in distances
    ]
    bond = covalent_radii[[atomic_numbers[first], atomic_numbers[second]]].sum()
    return DimerCurve(pd.DataFrame({"distance": distances, "energy": energies}), float(bond))


def _energy(calculator: Any, atoms: Atoms) -> float:
    atoms.set_cell([BOX] * 3)
    atoms.pbc = True
    atoms.positions += BOX / 4
    atoms.calc = calculator
    return float(atoms.get_potential_energy())
