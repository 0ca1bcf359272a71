"""ASE calculators of potentials: energy, forces and stress by LAMMPS or MACE, and error bars of a committee."""

from __future__ import annotations

from collections.abc import Sequence

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from paretofit.potentials.committee_potential import CommitteePotential
from paretofit.potentials.prediction import check_elements

# Distance between atoms and their images in directions that are not periodic, Å; beyond the cutoff of any pair style.
VACUUM_CUTOFF_A = 12.0
GRADES = ("extrapolation_grade", "extrapolation_grades")
STDS = ("energy_std", "forces_std", "stress_std", "energy_interval", "forces_interval", "stress_interval")


class CommitteeCalculator(Calculator):
    """ASE calculator of a potential that may be a committee; subclasses compute its mean.

    A committee that was trained by paretofit has further properties. ``calculator.get_property(name, atoms)`` returns
    them, and they are computed only on request:

    ``energy_std`` (eV/atom), ``forces_std`` (N, 3) and ``stress_std`` (6,)
        Standard deviations over the members; of the energy per atom, as that of a total energy grows with the cell.
    ``energy_interval``, ``forces_interval``, ``stress_interval``
        Half widths of the conformal intervals, in the same units; NaN where not calibrated.
    ``extrapolation_grade``, ``extrapolation_grades`` (N,)
        The highest grade of an atom, and the grade of each; above 1 outside the training set. They are much cheaper
        than the others and can be computed every few steps of MD.

    With ``include_members=True`` the standard deviations and ``energies_members`` (m,), ``forces_members`` (m, N, 3)
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
        """Compute energy, forces and stress, and the requested properties of the committee; see ASE."""
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        current: Atoms = self.atoms  # type: ignore[assignment]
        check_elements(current, self.potential.elements)
        if system_changes:
            self.results = {}
        requested = set(properties)
        if requested & set(GRADES):
            grades = self.potential.compute_grades(current)
            self.results |= {"extrapolation_grades": grades, "extrapolation_grade": float(grades.max())}
        if self.include_members or requested & set(STDS):
            self.results |= self._compute_spread(current)
        if requested - {*STDS, *GRADES}:
            self.results |= self._compute_mean(current)

    def _compute_spread(self, atoms: Atoms) -> dict[str, object]:
        """Error bars of a committee that has them and, with `include_members`, the values of every member."""
        results: dict[str, object] = {}
        if self.potential.uncertainty is None:
            members = self.potential.predict(atoms)
        else:
            assessment, members = self.potential.assess_and_predict(atoms)
            results = {name: getattr(assessment, name) for name in STDS}
        if self.include_members:
            results |= {
                "energies_members": members.energy,
                "forces_members": members.forces,
                "stress_members": members.stress,
            }
        return results

    def _compute_mean(self, atoms: Atoms) -> dict[str, object]:
        """Energy, forces and, where the structure is periodic in three directions, stress."""
        raise NotImplementedError
