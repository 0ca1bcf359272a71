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

SCAN_RANGE = 0.25  # largest relative change of the volume in the curve
FIT_RANGE = 0.06  # largest relative change of the volume in the fit of the equation of state
FIT_POINTS = 9  # number of volumes
SCAN_POINTS = 21  # number of volumes
SEARCH_RANGE = (0.6, 1.7)  # volumes relative to the initial one in the search for the minimum of a prototype
SEARCH_POINTS = 23  # number of volumes


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
        ``volume`` (Å³/atom) and ``energy`` (eV/atom), within ±25 % of the initial volume.
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
        If the energy has no minimum within the volumes, or the fit fails.
    """
    lowest = int(np.argmin(energies))
    if not np.isfinite(energies).all() or lowest in {0, len(energies) - 1}:
        raise PropertyError(f"the energy has no minimum between {min(volumes):.4g} and {max(volumes):.4g} Å³/atom")
    equation = EquationOfState(volumes, energies, eos="birchmurnaghan")
    try:
        volume, energy, modulus = equation.fit(warn=False)
    except (RuntimeError, ValueError) as error:
        raise PropertyError(f"the fit of the equation of state failed: {error}") from error
    return float(volume), float(energy), float(modulus / units.GPa), float(equation.eos_parameters[2])


def compute_equation_of_state(calculator: Any, atoms: Atoms, *, n_points: int = SCAN_POINTS) -> BirchMurnaghanCurve:
    """Fit the equation of state to energies at constant cell shape, with positions relaxed at each volume.

    Nine volumes within ±6 % are fitted; the curve extends to ±25 %.

    Parameters
    ----------
    calculator : ase calculator
    atoms : ase.Atoms
        Crystal near its equilibrium volume.
    n_points : int
        Number of evenly spaced volumes within ±25 %; those within ±6 % are replaced by the fitted volumes.

    Raises
    ------
    PropertyError
        If there is no minimum, or positions cannot be relaxed.
    """
    fit_points = _scan_volumes(calculator, atoms, np.linspace(1 - FIT_RANGE, 1 + FIT_RANGE, FIT_POINTS))
    parameters = fit_birch_murnaghan(*fit_points.to_numpy().T)
    factors = np.linspace(1 - SCAN_RANGE, 1 + SCAN_RANGE, n_points)
    outer_points = _scan_volumes(calculator, atoms, factors[np.abs(factors - 1) > FIT_RANGE])
    curve = pd.concat([fit_points, outer_points]).sort_values("volume", ignore_index=True)
    return BirchMurnaghanCurve(*parameters, curve)


def _scan_volumes(calculator: Any, atoms: Atoms, factors: Array) -> pd.DataFrame:
    """Tabulate ``volume`` (Å³/atom) and ``energy`` (eV/atom) with relaxed positions at multiples of the volume."""
    rows = []
    for factor in factors:
        relaxed = relax_positions_if_needed(calculator, _scale_volume(atoms, factor), FORCE_TOLERANCE)
        rows.append((relaxed.get_volume() / len(atoms), relaxed.get_potential_energy() / len(atoms)))
    return pd.DataFrame(rows, columns=["volume", "energy"])


def scale_to_minimum(calculator: Any, atoms: Atoms) -> Atoms:
    """Scale a structure, at constant shape, to the nearest volume at which the energy has a minimum.

    The nearest minimum is used instead of the deepest, because far from its training data, a potential may have an
    energy below that of any real crystal.

    Raises
    ------
    PropertyError
        If the energy has no minimum between 0.6 and 1.7 times the volume.
    """

    def compute_energy_at(factor: float) -> float:
        return compute_energy(_scale_volume(atoms, factor), calculator)

    grid = np.linspace(*SEARCH_RANGE, SEARCH_POINTS)
    energies = np.array([compute_energy_at(factor) for factor in grid])
    inner_energies = energies[1:-1]
    minima = 1 + np.flatnonzero((inner_energies < energies[:-2]) & (inner_energies <= energies[2:]))
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
