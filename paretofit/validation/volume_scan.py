"""Energy as a function of volume, and the Birch-Murnaghan equation of state around its minimum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms, units
from ase.eos import EquationOfState
from scipy.optimize import minimize_scalar

from paretofit.core import Array
from paretofit.validation.crystal import FORCE_TOLERANCE, compute_energy, relax_positions_if_needed
from paretofit.validation.quantity import PropertyError, Quantity

SCAN_RANGE = 0.25  # relative change of the volume, in both directions, of the curve that is drawn
FIT_RANGE = 0.06  # relative change of the volume, in both directions, of the points that are fitted
FIT_POINTS = 9
SCAN_POINTS = 21
SEARCH_RANGE = (0.6, 1.7)  # times the present volume: where the minimum of a prototype is searched
SEARCH_POINTS = 23


@dataclass(frozen=True)
class BirchMurnaghanCurve:
    """Birch-Murnaghan equation of state.

    Attributes
    ----------
    volume, energy : float
        V0 (Å³/atom) and E0 (eV/atom).
    bulk_modulus, bulk_modulus_derivative : float
        B (GPa) and B'.
    curve : DataFrame
        ``volume`` (Å³/atom) and ``energy`` (eV/atom) of the scan, ±25 %.
    """

    volume: float
    energy: float
    bulk_modulus: float
    bulk_modulus_derivative: float
    curve: pd.DataFrame

    @property
    def quantities(self) -> list[Quantity]:
        """V0, E0, B and B'."""
        return [
            Quantity("V0", "Å³/atom", self.volume),
            Quantity("E0", "eV/atom", self.energy),
            Quantity("B", "GPa", self.bulk_modulus),
            Quantity("B'", "", self.bulk_modulus_derivative),
        ]


def fit_birch_murnaghan(volumes: Array, energies: Array) -> tuple[float, float, float, float]:
    """Fit V0 (Å³), E0 (eV), B (GPa) and B' with `ase.eos` to energies (n,) in eV at volumes (n,) in Å³.

    Raises
    ------
    PropertyError
        If there is no minimum inside the range of volumes.
    """
    lowest = int(np.argmin(energies))
    if not np.isfinite(energies).all() or lowest in {0, len(energies) - 1}:
        raise PropertyError(f"the energy has no minimum between {min(volumes):.4g} and {max(volumes):.4g} Å³/atom")
    equation = EquationOfState(volumes, energies, eos="birchmurnaghan")
    try:
        volume, energy, modulus = equation.fit(warn=False)
    except (RuntimeError, ValueError) as error:
        raise PropertyError(f"no equation of state fits: {error}") from error
    return float(volume), float(energy), float(modulus / units.GPa), float(equation.eos_parameters[2])


def compute_equation_of_state(calculator: Any, atoms: Atoms, *, n_points: int = SCAN_POINTS) -> BirchMurnaghanCurve:
    """Scan the volume at constant shape, with positions relaxed at each volume, and fit the equation of state.

    Parameters
    ----------
    calculator : ase calculator
    atoms : ase.Atoms
        Near its equilibrium volume.
    n_points : int
        Number of volumes of the scan over ±25 % that is drawn; nine volumes within ±6 % are fitted.

    Raises
    ------
    PropertyError
        If there is no minimum, or positions cannot be relaxed.
    """
    fitted = _scan_volumes(calculator, atoms, np.linspace(1 - FIT_RANGE, 1 + FIT_RANGE, FIT_POINTS))
    parameters = fit_birch_murnaghan(*fitted.to_numpy().T)
    factors = np.linspace(1 - SCAN_RANGE, 1 + SCAN_RANGE, n_points)
    outer = _scan_volumes(calculator, atoms, factors[np.abs(factors - 1) > FIT_RANGE])
    return BirchMurnaghanCurve(*parameters, pd.concat([fitted, outer]).sort_values("volume", ignore_index=True))


def _scan_volumes(calculator: Any, atoms: Atoms, factors: Array) -> pd.DataFrame:
    """Tabulate ``volume`` (Å³/atom) and ``energy`` (eV/atom), with relaxed positions, at factors of the volume."""
    rows = []
    for factor in factors:
        relaxed = relax_positions_if_needed(calculator, _scale_volume(atoms, factor), FORCE_TOLERANCE)
        rows.append((relaxed.get_volume() / len(atoms), relaxed.get_potential_energy() / len(atoms)))
    return pd.DataFrame(rows, columns=["volume", "energy"])


def scale_to_minimum(calculator: Any, atoms: Atoms) -> Atoms:
    """Scale a structure to the nearest volume at which the energy has a minimum, at constant shape.

    The volume is the centre of a prototype's scan. The nearest minimum is used, not the deepest: far from its training
    data, a potential may have an energy below that of any crystal.

    Raises
    ------
    PropertyError
        If the energy has no minimum between 0.6 and 1.7 times the volume.
    """

    def compute_energy_at(factor: float) -> float:
        return compute_energy(_scale_volume(atoms, factor), calculator)

    grid = np.linspace(*SEARCH_RANGE, SEARCH_POINTS)
    energies = np.array([compute_energy_at(factor) for factor in grid])
    middle = energies[1:-1]
    minima = 1 + np.flatnonzero((middle < energies[:-2]) & (middle <= energies[2:]))
    if not len(minima):
        raise PropertyError("the energy has no minimum between 0.6 and 1.7 times the volume of the structure")
    nearest = int(minima[np.argmin(np.abs(grid[minima] - 1))])
    bounds = float(grid[nearest - 1]), float(grid[nearest + 1])
    minimum = minimize_scalar(compute_energy_at, bounds=bounds, method="bounded")
    return _scale_volume(atoms, minimum.x)


def _scale_volume(atoms: Atoms, factor: float) -> Atoms:
    copy: Atoms = atoms.copy()
    copy.set_cell(atoms.cell[:] * float(factor) ** (1 / 3), scale_atoms=True)
    return copy
