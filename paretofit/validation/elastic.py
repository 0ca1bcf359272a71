"""Elastic constants from differences of the stresses of strained cells with relaxed positions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from ase import Atoms, units

from paretofit.core import Array
from paretofit.validation.crystal import CRYSTAL_FORCE_TOLERANCE, relax_positions_if_needed
from paretofit.validation.quantity import Quantity

STRAIN = 0.005
MIN_CONSTANT_RATIO = 0.01  # to the largest constant; smaller constants are zero by symmetry, or noise
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # tensor indices of each Voigt index
ALWAYS_SHOWN = {(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2), (3, 3), (4, 4), (5, 5)}


@dataclass(frozen=True)
class ElasticTensor:
    """Elastic tensor of a crystal.

    Attributes
    ----------
    constants : (6, 6) float64
        Symmetrised elastic constants in Voigt's order xx, yy, zz, yz, xz, xy, for engineering shear strains, GPa.
    asymmetry : float
        Largest |C_ij - C_ji| before symmetrisation, which measures the numerical error, GPa.
    """

    constants: Array
    asymmetry: float

    @property
    def voigt(self) -> tuple[float, float]:
        """Voigt averages of the bulk and the shear modulus, GPa."""
        C = self.constants
        diagonal, coupling, shear = np.trace(C[:3, :3]), C[0, 1] + C[0, 2] + C[1, 2], np.trace(C[3:, 3:])
        return float((diagonal + 2 * coupling) / 9), float((diagonal - coupling + 3 * shear) / 15)

    @property
    def reuss(self) -> tuple[float, float]:
        """Reuss averages of the bulk and the shear modulus, GPa; this bulk modulus applies to hydrostatic pressure."""
        S = np.linalg.inv(self.constants)
        diagonal, coupling, shear = np.trace(S[:3, :3]), S[0, 1] + S[0, 2] + S[1, 2], np.trace(S[3:, 3:])
        return float(1 / (diagonal + 2 * coupling)), float(15 / (4 * (diagonal - coupling) + 3 * shear))

    @property
    def quantities(self) -> list[Quantity]:
        """Constants that are not zero by symmetry, moduli, and the lowest eigenvalue (positive for stable crystals)."""
        C = self.constants
        values = {
            f"C{i + 1}{j + 1}": C[i, j]
            for i, j in combinations_with_replacement(range(6), 2)
            if (i, j) in ALWAYS_SHOWN or abs(C[i, j]) > MIN_CONSTANT_RATIO * abs(C).max()
        }
        values |= dict(zip(("B Voigt", "G Voigt", "B Reuss", "G Reuss"), (*self.voigt, *self.reuss), strict=True))
        values["lowest eigenvalue of C"] = np.linalg.eigvalsh(C)[0]
        return [Quantity(name, "GPa", float(value)) for name, value in values.items()]


def compute_elastic_constants(calculator: Any, atoms: Atoms, *, strain: float = STRAIN) -> ElasticTensor:
    """Compute C_ij = ∂σ_i/∂ε_j (GPa) by central differences, with positions relaxed in each strained cell.

    The result is symmetrised: C_ij and C_ji come from different strains and are averaged.

    Parameters
    ----------
    calculator : ase calculator
        Calculator with stresses.
    atoms : ase.Atoms
        Crystal with relaxed cell and positions, because the constants are defined at zero stress.
    strain : float
        Magnitude of each Voigt strain, applied with both signs; shear strains are engineering strains, 2ε.

    Returns
    -------
    ElasticTensor

    Raises
    ------
    PropertyError
        If the positions cannot be relaxed.
    """
    C = np.empty((6, 6))
    for column in range(6):
        plus, minus = (_compute_stress(calculator, atoms, column, sign * strain) for sign in (1, -1))
        C[:, column] = (plus - minus) / (2 * strain)
    C /= units.GPa
    return ElasticTensor((C + C.T) / 2, float(np.abs(C - C.T).max()))


def apply_voigt_strain(atoms: Atoms, column: int, strain: float) -> Atoms:
    """Copy a structure and multiply cell and positions by 1 + ε, with the symmetric strain ε of a Voigt component."""
    i, j = VOIGT[column]
    deformation = np.eye(3)
    deformation[i, j] = deformation[j, i] = 1 + strain if i == j else strain / 2
    copy: Atoms = atoms.copy()
    copy.set_cell(atoms.cell[:] @ deformation, scale_atoms=True)
    return copy


def _compute_stress(calculator: Any, atoms: Atoms, column: int, strain: float) -> Array:
    strained = apply_voigt_strain(atoms, column, strain)
    return np.asarray(relax_positions_if_needed(calculator, strained, CRYSTAL_FORCE_TOLERANCE).get_stress())
