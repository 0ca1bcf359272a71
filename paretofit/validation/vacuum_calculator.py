"""Calculator for structures with vacuum, around a calculator that may support only periodic cells."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.fd import calculate_numerical_stress

from paretofit.core import Array
from paretofit.validation.periodicity import STRAINED_COMPONENTS, count_periodic, widen_vacuum

LOCAL_VACUUM_A = 40.0  # vacuum wider than the largest cutoff, the 30 Å of dispersion
STRESS_STRAIN = 5e-4  # strain for differences of energies, which may have single precision in networks
MIN_CHECKED_STRESS = 1e-4  # eV/Å³; a smaller stress does not show whether it refers to the volume of the cell
MAX_STRESS_DEVIATION = 0.05  # largest deviation from differences of energies, relative to the largest component


class VacuumCalculator(Calculator):
    """Calculator of oriented structures (`orient_structure`) that are periodic in fewer than three directions.

    LAMMPS loses atoms that leave a box that is not periodic, and networks have no stress without a periodic cell. For
    such local potentials, the structure is therefore replaced by one that is periodic in all directions, with so much
    vacuum that no images interact. Other calculators compute the structure as it is.

    The stress refers to the volume of the structure's own cell. Calculators that are not local may divide by another
    volume, because there is no convention without a periodic cell (`mace.calculators` 0.3 uses an internal cell). Their
    stress is therefore compared with finite differences of energies; if it deviates, the differences are used instead.

    Parameters
    ----------
    calculator : ase calculator
        Inner calculator.
    is_local : bool
        Whether the energy is independent of the width of the vacuum above 40 Å, so that the vacuum may be widened.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012  (ASE's convention)

    def __init__(self, calculator: Any, *, is_local: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calculator, self._is_local = calculator, is_local
        # whether the stress of the inner calculator can be used, and whether this is certain; a local potential is
        # computed in a periodic cell, to whose volume its stress refers, so that no check is needed
        self._has_stress, self._is_checked = True, is_local

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Store the energy and forces of a structure and, if requested, its stress in `results`."""
        structure: Any = self.atoms if atoms is None else atoms
        super().calculate(structure, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        copy = widen_vacuum(structure, LOCAL_VACUUM_A) if self._is_local else structure.copy()
        copy.calc = self._calculator
        energy = float(copy.get_potential_energy())
        self.results = {"energy": energy, "free_energy": energy, "forces": copy.get_forces()}
        if "stress" in properties:
            volume_ratio = copy.get_volume() / structure.get_volume()
            self.results["stress"] = self._compute_stress(copy) * volume_ratio

    def _compute_stress(self, atoms: Atoms) -> Array:
        """Compute the stress (6,) in eV/Å³, from differences of energies unless the calculator's stress is valid.

        The stress of the calculator is checked for the first structure whose stress is large enough. The outcome
        applies to all later structures.
        """
        stress = np.zeros(6)
        if self._has_stress:
            try:
                stress = np.asarray(atoms.get_stress())
            except PropertyNotImplementedError:
                self._has_stress = False
        if self._has_stress and self._is_checked:
            return stress
        differences = np.asarray(calculate_numerical_stress(atoms, STRESS_STRAIN, force_consistent=False))
        components = list(STRAINED_COMPONENTS[count_periodic(atoms)])
        scale = float(np.abs(differences[components]).max(initial=0.0))
        if scale > MIN_CHECKED_STRESS:
            deviation = float(np.abs(stress - differences)[components].max())
            self._has_stress = self._has_stress and deviation < MAX_STRESS_DEVIATION * scale
            self._is_checked = True
        return differences
