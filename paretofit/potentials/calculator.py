"""ASE calculators of potentials: energy, forces and stress from LAMMPS or MACE, and error bars from a committee."""

from collections.abc import Sequence

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from paretofit.core import copy_without_constraints
from paretofit.potentials.committee_potential import CommitteePotential
from paretofit.potentials.prediction import check_elements

GRADES = ("extrapolation_grade", "extrapolation_grades")
ERROR_BARS = ("energy_std", "forces_std", "stress_std", "energy_interval", "forces_interval", "stress_interval")


class CommitteeCalculator(Calculator):
    """ASE calculator of a single potential or a committee; subclasses compute the mean of the committee.

    A committee with an uncertainty has further properties, which are computed only when
    ``calculator.get_property(name, atoms)`` requests them:

    ``energy_std`` (eV/atom), ``forces_std`` (N, 3) and ``stress_std`` (6,)
        Standard deviations over the members; forces in eV/Å, stress in eV/Å³. The energy is per atom, because the
        deviation of total energies grows with the cell.
    ``energy_interval``, ``forces_interval``, ``stress_interval``
        Half widths of the conformal intervals, in the same units; NaN without a calibration.
    ``extrapolation_grade``, ``extrapolation_grades`` (N,)
        The largest grade, and the grade of each atom; a grade above 1 means extrapolation. Grades are much cheaper than
        the other properties and can be computed every few steps of MD.

    Parameters
    ----------
    potential : CommitteePotential
    include_members : bool
        Whether ``results`` also contains, at every step, ``energies_members`` (m,), ``forces_members`` (m, N, 3),
        ``stress_members`` (m, 6) and, with an uncertainty, the standard deviations and intervals.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012  (ASE's convention)

    def __init__(self, potential: CommitteePotential, *, include_members: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.potential, self.include_members = potential, include_members
        if potential.uncertainty is not None:
            self.implemented_properties = [*self.implemented_properties, *ERROR_BARS, *GRADES]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute the requested properties and store them in ``results``; see ASE's `Calculator.calculate`.

        Raises
        ------
        InputError
            If the potential lacks an element.
        """
        structure = self.atoms if atoms is None else atoms
        # Constraints must not change the forces here, because `Atoms.get_forces` applies them afterwards.
        structure = copy_without_constraints(structure)
        super().calculate(structure, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        check_elements(structure, self.potential.elements)
        if system_changes:
            self.results = {}  # otherwise, results of the previous structure would remain
        requested_properties = set(properties)
        if requested_properties & set(GRADES):
            grades = self.potential.compute_grades(structure)
            self.results |= {"extrapolation_grades": grades, "extrapolation_grade": float(grades.max())}
        if self.include_members or requested_properties & set(ERROR_BARS):
            self.results |= self._compute_error_bars(structure)
        if requested_properties - {*ERROR_BARS, *GRADES}:
            self.results |= self._compute_mean(structure)

    def _compute_error_bars(self, atoms: Atoms) -> dict[str, object]:
        """Compute the error bars, if there is an uncertainty, and with `include_members` the values of every member."""
        results: dict[str, object] = {}
        if self.potential.uncertainty is None:
            members = self.potential.predict(atoms)
        else:
            assessment, members = self.potential.assess_and_predict(atoms)
            results = {name: getattr(assessment, name) for name in ERROR_BARS}
        if self.include_members:
            energies, forces, stress = members
            results |= {"energies_members": energies, "forces_members": forces, "stress_members": stress}
        return results

    def _compute_mean(self, atoms: Atoms) -> dict[str, object]:
        """Compute the mean energy and forces and, if the structure is periodic in three directions, the mean stress."""
        raise NotImplementedError
