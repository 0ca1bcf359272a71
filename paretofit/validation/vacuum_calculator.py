"""Calculator for structures with vacuum, whose inner calculator may support periodic cells only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.fd import calculate_numerical_stress

from paretofit.validation.periodicity import widen_vacuum

LOCAL_VACUUM_A = 40.0  # more than the largest cutoff here, which is that of dispersion, 30 Å
STRESS_STRAIN = 1e-5  # of the differences of energies where the inner calculator has no stress


class VacuumCalculator(Calculator):
    """Calculator of oriented structures (`orient_structure`) that are periodic in fewer than three directions.

    LAMMPS loses atoms that leave a box that is not periodic, and networks have no stress without a periodic cell. Such
    local potentials compute a cell that is periodic in all directions, with so much vacuum that no images interact;
    other calculators compute the structure as it is. The stress refers to the volume of the structure's own cell.

    Parameters
    ----------
    calculator : ase calculator
        Inner calculator.
    is_local : bool
        Whether the energy does not depend on a vacuum above 40 Å.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012  (ASE's convention)

    def __init__(self, calculator: Any, *, is_local: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calculator, self._is_local = calculator, is_local

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute the energy and the requested properties of a structure."""
        structure: Any = self.atoms if atoms is None else atoms
        super().calculate(structure, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        copy = widen_vacuum(structure, LOCAL_VACUUM_A) if self._is_local else structure.copy()
        copy.calc = self._calculator
        energy = float(copy.get_potential_energy())
        self.results = {"energy": energy, "free_energy": energy, "forces": copy.get_forces()}
        if "stress" in properties:
            volume_ratio = copy.get_volume() / structure.get_volume()
            self.results["stress"] = _compute_stress(copy) * volume_ratio


def _compute_stress(atoms: Atoms) -> Any:
    """Compute the stress (6,) in eV/Å³; with differences of energies if the calculator does not implement it."""
    try:
        return atoms.get_stress()
    except PropertyNotImplementedError:
        return calculate_numerical_stress(atoms, STRESS_STRAIN, force_consistent=False)
