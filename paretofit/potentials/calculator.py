"""ASE calculators of potentials: energy, forces and stress from LAMMPS or MACE, and error bars from a committee."""

from collections.abc import Sequence

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from paretofit.core import copy_without_constraints
from paretofit.potentials.committee_potential import CommitteePotential
from paretofit.potentials.prediction import check_elements

GRADES = ("extrapolation_grade", "extrapolation_grades")
STDS = ("energy_std", "forces_std", "stress_std", "energy_interval", "forces_interval", "stress_interval")


class CommitteeCalculator(Calculator):
    """ASE calculator of a single potential or a committee; subclasses compute the mean of the committee.

    A committee that was trained by paretofit has further properties. They are computed only when
    ``calculator.get_property(name, atoms)`` requests them:

    ``energy_std`` (eV/atom), ``forces_std`` (N, 3) and ``stress_std`` (6,)
        Standard deviations over the members. That of the energy is per atom, because total energies grow with the cell.
    ``energy_interval``, ``forces_interval``, ``stress_interval``
        Half widths of the conformal intervals, in the same units; NaN without a calibration.
    ``extrapolation_grade``, ``extrapolation_grades`` (N,)
        The largest grade, and the grade of each atom; an atom with a grade above 1 is outside the training set. Grades
        are much cheaper than the other properties and can be computed every few steps of MD.

    With ``include_members=True``, the standard deviations and ``energies_members`` (m,), ``forces_members`` (m, N, 3)
    and ``stress_members`` (m, 6) are in ``results`` at every step.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012  (ASE's convention)

    def __init__(self, potential: CommitteePotential, *, include_members: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.potential, self.include_members = potential, include_members
        if potential.uncertainty is not None:
            self.implemented_properties = [*self.implemented_properties, *STDS, *GRADES]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute the requested properties and store them in ``results``; see ASE's `Calculator.calculate`."""
        structure = self.atoms if atoms is None else atoms
        structure = copy_without_constraints(structure)  # `Atoms.get_forces` applies the constraints of the caller
        super().calculate(structure, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        check_elements(structure, self.potential.elements)
        if system_changes:
            self.results = {}  # drop those of the previous structure
        requested_properties = set(properties)
        if requested_properties & set(GRADES):
            grades = self.potential.compute_grades(structure)
            self.results |= {"extrapolation_grades": grades, "extrapolation_grade": float(grades.max())}
        if self.include_members or requested_properties & set(STDS):
            self.results |= self._compute_spread(structure)
        if requested_properties - {*STDS, *GRADES}:
            self.results |= self._compute_mean(structure)

    def _compute_spread(self, atoms: Atoms) -> dict[str, object]:
        """Compute error bars, if the committee is calibrated, and with `include_members` the values of every member."""
        results: dict[str, object] = {}
        if self.potential.uncertainty is None:
            members = self.potential.predict(atoms)
        else:
            assessment, members = self.potential.assess_and_predict(atoms)
            results = {name: getattr(assessment, name) for name in STDS}
        if self.include_members:
            energies, forces, stress = members
            results |= {"energies_members": energies, "forces_members": forces, "stress_members": stress}
        return results

    def _compute_mean(self, atoms: Atoms) -> dict[str, object]:
        """Compute energy, forces and, if the structure is periodic in three directions, stress."""
        raise NotImplementedError
