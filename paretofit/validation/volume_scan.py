"""Energy against volume, and Birch and Murnaghan's equation of state through its bottom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from ase import units
from ase.eos import EquationOfState
from scipy.optimize import minimize_scalar

from paretofit.validation.crystal import relax_structure
from paretofit.validation.quantity import PropertyError, Quantity

if TYPE_CHECKING:
    from ase import Atoms

    from paretofit.core import Array

SPAN = 0.25  # of the volume, either way: what is drawn
FITTED = 0.06  # of the volume, either way: what the equation of state is fitted to
FIT_POINTS = 9
POINTS = 21
SEARCHED = (0.6, 1.7)  # times the volume at hand, where the minimum of a prototype is looked for


@dataclass(frozen=True)
class BirchMurnaghanCurve:
    """Birch and Murnaghan's equation of state.

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
        """V0, E0, B, B'."""
        return [
            Quantity("V0", "Å³/atom", self.volume),
            Quantity("E0", "eV/atom", self.energy),
            Quantity("B", "GPa", self.bulk_modulus),
            Quantity("B'", "", self.bulk_modulus_derivative),
        ]


def fit_birch_murnaghan(volumes: Array, energies: Array) -> tuple[float, float, float, float]:
    """V0 (Å³), E0 (eV), B (GPa) and B' from `ase.eos`, of energies (n,) in eV at volumes (n,) in Å³.

    Raises
    ------
    PropertyError
        If there is no minimum among the volumes.
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


def compute_equation_of_state(calculator: Any, atoms: Atoms, *, n_points: int = POINTS) -> BirchMurnaghanCurve:
    """Scan the volume at constant shape, positions relaxed at each, and fit the equation of state.

    Parameters
    ----------
    calculator : ase calculator
    atoms : ase.Atoms
        Near its equilibrium volume.
    n_points : int
        Of the scan over ±25 % that is drawn; nine within ±6 % are fitted.

    Raises
    ------
    PropertyError
        If there is no minimum, or positions do not relax.
    """
    near = np.linspace(1 - FITTED, 1 + FITTED, FIT_POINTS)
    far = np.linspace(1 - SPAN, 1 + SPAN, n_points)
    volumes, energies = _scan(calculator, atoms, near)
    found = fit_birch_murnaghan(volumes, energies)
    far_volumes, far_energies = _scan(calculator, atoms, far[np.abs(far - 1) > FITTED])
    curve = pd.DataFrame(
        {"volume": np.append(volumes, far_volumes), "energy": np.append(energies, far_energies)}
    ).sort_values("volume", ignore_index=True)
    return BirchMurnaghanCurve(*found, curve)


def _scan(calculator: Any, atoms: Atoms, factors: Array) -> tuple[Array, Array]:
    """Volumes (Å³/atom) and energies (eV/atom), positions relaxed where symmetry does not hold them."""
    rows = []
    for factor in factors:
        here = _scaled(calculator, atoms, float(factor))
        if np.abs(here.get_forces()).max() > 0.01:
            here = relax_structure(calculator, here, relax_cell=False, fmax=0.01)
        rows.append((here.get_volume() / len(atoms), here.get_potential_energy() / len(atoms)))
    volumes, energies = np.array(rows).T
    return volumes, energies


def scale_to_minimum(calculator: Any, atoms: Atoms) -> Atoms:
    """A copy at the nearest volume where the energy has a minimum, its shape kept: where a prototype's scan is centred.

    The nearest, not the deepest: far from what it was fitted to, a potential may fall below any crystal.

    Raises
    ------
    PropertyError
        If the energy has no minimum between 0.6 and 1.7 times the volume.
    """
    grid = np.linspace(*SEARCHED, 23)
    energies = np.array([_scaled(calculator, atoms, float(x)).get_potential_energy() for x in grid])
    middle = energies[1:-1]
    minima = 1 + np.flatnonzero((middle < energies[:-2]) & (middle <= energies[2:]))
    if not len(minima):
        raise PropertyError("the energy has no minimum between 0.6 and 1.7 times the volume of the structure")
    lowest = int(minima[np.argmin(np.abs(grid[minima] - 1))])
    bounds = float(grid[lowest - 1]), float(grid[lowest + 1])
    best = minimize_scalar(
        lambda x: _scaled(calculator, atoms, float(x)).get_potential_energy(), bounds=bounds, method="bounded"
    )
    return _scaled(calculator, atoms, float(best.x))


def _scaled(calculator: Any, atoms: Atoms, factor: float) -> Atoms:
    copy: Atoms = atoms.copy()
    copy.set_cell(atoms.cell[:] * factor ** (1 / 3), scale_atoms=True)
    copy.calc = calculator
    return copy
