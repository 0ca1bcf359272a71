"""Elastic constants from differences of the stresses of strained cells with relaxed positions.

The constants of crystals are in GPa; those of sheets, for strains in the plane, are in N/m; a wire has a single
constant, its stiffness, in nN.
"""

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.core import Array
from paretofit.properties import apply_voigt_strain
from paretofit.validation import periodicity
from paretofit.validation.crystal import CRYSTAL_FORCE_TOLERANCE, relax_positions_if_needed
from paretofit.validation.quantity import Quantity

STRAIN = 0.005  # magnitude of each strain, dimensionless
MIN_CONSTANT_RATIO = 0.01  # ratio to the largest constant; smaller constants are zero by symmetry, or noise
# Voigt pairs of the constants that no crystal system makes zero by symmetry; they are shown even if small.
ALWAYS_SHOWN = {(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2), (3, 3), (4, 4), (5, 5)}


@dataclass(frozen=True)
class ElasticTensor:
    """Elastic tensor of a crystal, a sheet or a wire.

    Attributes
    ----------
    constants : (6, 6), (3, 3) or (1, 1) float64
        Symmetrised elastic constants for engineering shear strains: of a crystal in Voigt's order xx, yy, zz, yz, xz,
        xy, GPa; of a sheet, xx, yy, xy, N/m; of a wire, xx, nN. The axes are those of `orient_structure`.
    asymmetry : float
        Largest |C_ij - C_ji| before symmetrisation, a measure of the numerical error, in the unit of the constants.
    n_periodic : int
        Number of periodic directions.
    """

    constants: Array
    asymmetry: float
    n_periodic: int = 3

    @property
    def voigt_moduli(self) -> tuple[float, float]:
        """Voigt averages of the bulk and the shear modulus of a crystal, GPa."""
        C = self.constants
        diagonal, coupling, shear = np.trace(C[:3, :3]), C[0, 1] + C[0, 2] + C[1, 2], np.trace(C[3:, 3:])
        return float((diagonal + 2 * coupling) / 9), float((diagonal - coupling + 3 * shear) / 15)

    @property
    def reuss_moduli(self) -> tuple[float, float]:
        """Reuss averages of the bulk and the shear modulus of a crystal, GPa.

        This bulk modulus applies to hydrostatic pressure.
        """
        S = np.linalg.inv(self.constants)
        diagonal, coupling, shear = np.trace(S[:3, :3]), S[0, 1] + S[0, 2] + S[1, 2], np.trace(S[3:, 3:])
        return float(1 / (diagonal + 2 * coupling)), float(15 / (4 * (diagonal - coupling) + 3 * shear))

    @property
    def is_stable(self) -> bool:
        """Whether every strain raises the energy, so that the tensor is positive definite."""
        return bool(np.linalg.eigvalsh(self.constants)[0] > 0)

    @property
    def quantities(self) -> list[Quantity]:
        """Constants, moduli and lowest eigenvalue of the tensor, and Poisson's ratio of a sheet.

        Constants that are not in `ALWAYS_SHOWN` are omitted if they are at most `MIN_CONSTANT_RATIO` times the largest.
        The lowest eigenvalue is positive for stable structures. Quantities from the inverse of an unstable tensor are
        omitted, because they would have no meaning. The stiffness is the only quantity of a wire.
        """
        C, components = self.constants, periodicity.STRAINED_COMPONENTS[self.n_periodic]
        if self.n_periodic == 1:
            return [Quantity(periodicity.MEASURES[1].modulus, periodicity.MEASURES[1].modulus_unit, float(C[0, 0]))]
        values_by_name = {
            f"C{components[i] + 1}{components[j] + 1}": C[i, j]
            for i, j in combinations_with_replacement(range(len(components)), 2)
            if (components[i], components[j]) in ALWAYS_SHOWN or abs(C[i, j]) > MIN_CONSTANT_RATIO * abs(C).max()
        }
        values_by_name |= self._moduli_of_crystal if self.n_periodic == 3 else self._moduli_of_sheet
        unit = periodicity.MEASURES[self.n_periodic].modulus_unit
        quantities = [Quantity(name, unit, float(value)) for name, value in values_by_name.items()]
        problem = "" if self.is_stable else "a strain lowers the energy: the structure is not stable"
        quantities.append(Quantity("lowest eigenvalue of C", unit, float(np.linalg.eigvalsh(C)[0]), problem))
        if self.n_periodic == 2 and self.is_stable:
            S = np.linalg.inv(C)
            quantities.append(Quantity("Poisson's ratio along x", "", float(-S[0, 1] / S[0, 0])))
        return quantities

    @property
    def _moduli_of_crystal(self) -> dict[str, float]:
        """Voigt and, if the crystal is stable, Reuss averages of the bulk and shear moduli by name, GPa."""
        moduli = dict(zip(("B Voigt", "G Voigt"), self.voigt_moduli, strict=True))
        if self.is_stable:
            moduli |= dict(zip(("B Reuss", "G Reuss"), self.reuss_moduli, strict=True))
        return moduli

    @property
    def _moduli_of_sheet(self) -> dict[str, float]:
        """Layer modulus and, if the sheet is stable, Young's modulus along x by name, N/m.

        The layer modulus applies to equal strains along x and y.
        """
        C = self.constants
        moduli = {periodicity.MEASURES[2].modulus: (C[0, 0] + C[1, 1] + 2 * C[0, 1]) / 4}
        if self.is_stable:
            moduli["Young's modulus along x"] = 1 / np.linalg.inv(C)[0, 0]
        return moduli


def compute_elastic_constants(calculator: Any, atoms: Atoms, *, strain: float = STRAIN) -> ElasticTensor:
    """Compute C_ij = ∂σ_i/∂ε_j by central differences, with positions relaxed in each strained cell.

    C_ij and C_ji come from different strains, and are averaged. The stress of a sheet is a force per length (N/m), and
    that of a wire a force (nN), so that neither depends on the vacuum.

    Parameters
    ----------
    calculator : ase calculator
        Calculator with stresses.
    atoms : ase.Atoms
        Crystal, sheet or wire with relaxed cell and positions, because the constants are defined at zero stress.
    strain : float
        Magnitude of each Voigt strain, applied with both signs; shear strains are engineering strains, 2ε.

    Returns
    -------
    ElasticTensor

    Raises
    ------
    PropertyError
        If the positions cannot be relaxed, or the structure is a molecule.
    """
    n_periodic, measure = periodicity.count_periodic(atoms), periodicity.get_measure(atoms)
    components = list(periodicity.STRAINED_COMPONENTS[n_periodic])
    C = np.empty((len(components), len(components)))
    for k, component in enumerate(components):
        stress_plus, stress_minus = (_compute_stress(calculator, atoms, component, sign * strain) for sign in (1, -1))
        C[:, k] = (stress_plus - stress_minus)[components] / (2 * strain)
    # the calculator divides by the volume, including the vacuum, instead of the area of a sheet or the length of a wire
    C *= atoms.get_volume() / periodicity.measure_cell(atoms) / measure.modulus_factor
    return ElasticTensor((C + C.T) / 2, float(np.abs(C - C.T).max()), n_periodic)


def _compute_stress(calculator: Any, atoms: Atoms, component: int, strain: float) -> Array:
    """Compute the stress, ``(6,)`` eV/Å³, with relaxed positions at a strain of the Voigt component `component`."""
    strained_structure = apply_voigt_strain(atoms, component, strain)
    return np.asarray(relax_positions_if_needed(calculator, strained_structure, CRYSTAL_FORCE_TOLERANCE).get_stress())
