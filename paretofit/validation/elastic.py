"""Elastic constants from stress differences of strained cells whose positions are relaxed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units

from paretofit.validation.crystal import relax_structure
from paretofit.validation.quantity import Quantity

if TYPE_CHECKING:
    from ase import Atoms

    from paretofit.core import Array

STRAIN = 0.005
FMAX = 1e-3  # eV/Å
SMALL = 0.01  # of the largest constant: one that is below is zero by symmetry, or noise
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
ALWAYS = {(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2), (3, 3), (4, 4), (5, 5)}


@dataclass(frozen=True)
class ElasticTensor:
    """The elastic tensor.

    Attributes
    ----------
    constants : (6, 6) float64
        GPa, Voigt's order xx, yy, zz, yz, xz, xy, engineering shear strains, symmetric.
    asymmetry : float
        Largest |C_ij - C_ji| before it was made symmetric, GPa: how good the differences are.
    """

    constants: Array
    asymmetry: float

    @property
    def voigt(self) -> tuple[float, float]:
        """Voigt's bulk and shear modulus, GPa."""
        C = self.constants
        trace, rest, shear = np.trace(C[:3, :3]), C[0, 1] + C[0, 2] + C[1, 2], np.trace(C[3:, 3:])
        return float((trace + 2 * rest) / 9), float((trace - rest + 3 * shear) / 15)

    @property
    def reuss(self) -> tuple[float, float]:
        """Reuss's bulk and shear modulus, GPa; the bulk modulus is that under hydrostatic pressure."""
        S = np.linalg.inv(self.constants)
        trace, rest, shear = np.trace(S[:3, :3]), S[0, 1] + S[0, 2] + S[1, 2], np.trace(S[3:, 3:])
        return float(1 / (trace + 2 * rest)), float(15 / (4 * (trace - rest) + 3 * shear))

    @property
    def quantities(self) -> list[Quantity]:
        """The constants that are not zero by symmetry, moduli, and the lowest eigenvalue (Born: it is positive)."""
        C = self.constants
        wanted = [
            (i, j)
            for i, j in combinations_with_replacement(range(6), 2)
            if (i, j) in ALWAYS or abs(C[i, j]) > SMALL * abs(C).max()
        ]
        found = [Quantity(f"C{i + 1}{j + 1}", "GPa", float(C[i, j])) for i, j in wanted]
        names = ("B Voigt", "G Voigt", "B Reuss", "G Reuss")
        found += [Quantity(name, "GPa", value) for name, value in zip(names, (*self.voigt, *self.reuss), strict=True)]
        return [*found, Quantity("lowest eigenvalue of C", "GPa", float(np.linalg.eigvalsh(C)[0]))]


def compute_elastic_constants(calculator: Any, atoms: Atoms, *, strain: float = STRAIN) -> ElasticTensor:
    """C_ij = ∂σ_i/∂ε_j by central differences, positions relaxed in each strained cell.

    Parameters
    ----------
    calculator : ase calculator
        With stress.
    atoms : ase.Atoms
        Relaxed, cell too: the constants are those at zero stress.
    strain : float
        Of each Voigt component, either way; shear strains are engineering ones, 2ε.

    Raises
    ------
    PropertyError
        If positions do not relax.
    """
    C = np.empty((6, 6))
    for column in range(6):
        plus, minus = (_stress(calculator, atoms, column, sign * strain) for sign in (1, -1))
        C[:, column] = (plus - minus) / (2 * strain)
    C /= units.GPa
    return ElasticTensor((C + C.T) / 2, float(np.abs(C - C.T).max()))


def apply_voigt_strain(atoms: Atoms, column: int, strain: float) -> Atoms:
    """A copy under one Voigt strain: cell and positions times 1 + ε, ε symmetric."""
    i, j = VOIGT[column]
    deformation = np.eye(3)
    if i == j:
        deformation[i, i] += strain
    else:
        deformation[i, j] = deformation[j, i] = strain / 2
    copy: Atoms = atoms.copy()
    copy.set_cell(atoms.cell[:] @ deformation, scale_atoms=True)
    return copy


def _stress(calculator: Any, atoms: Atoms, column: int, strain: float) -> Array:
    here = apply_voigt_strain(atoms, column, strain)
    here.calc = calculator
    if np.abs(here.get_forces()).max() > FMAX:
        here = relax_structure(calculator, here, relax_cell=False, fmax=FMAX)
    return np.asarray(here.get_stress())
