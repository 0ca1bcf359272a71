"""ASE calculators of potentials: energy, forces, stress by LAMMPS or MACE, and a committee's error bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ase.calculators.calculator import Calculator, all_changes

from paretofit.core import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from paretofit.core import Array
    from paretofit.potentials.prediction import Prediction
    from paretofit.uncertainty import Assessment, Uncertainty


REACH = 12.0  # Å, between atoms and their images where nothing is periodic; farther than any pair style here reaches
GRADES = ("extrapolation_grade", "extrapolation_grades")
STDS = ("energy_std", "forces_std", "stress_std", "energy_interval", "forces_interval", "stress_interval")


class CommitteePotential(Protocol):
    """Potential of any kind that a calculator evaluates."""

    @property
    def elements(self) -> Sequence[str]:
        """Symbols of the elements."""

    @property
    def uncertainty(self) -> Uncertainty | None:
        """Calibration of a committee; None of a single potential."""

    def compute_grades(self, atoms: Atoms) -> Array:
        """Extrapolation grade of each atom, (N,)."""

    def predict(self, atoms: Atoms) -> Prediction:
        """Energy, forces and stress, of each member."""

    def assess_and_predict(self, atoms: Atoms) -> tuple[Assessment, Prediction]:
        """Error bars, and what each member predicts."""


class CommitteeCalculator(Calculator):
    """ASE calculator of a potential that may be a committee; what computes its mean is a subclass's.

    Of a committee that was trained by paretofit these can be asked for, too, by ``calculator.get_property(name,
    atoms)``, and are computed only then:

    ``energy_std`` (eV/atom), ``forces_std`` (N, 3) and ``stress_std`` (6,)
        Standard deviations over the members; of the energy per atom, for a total energy's would grow with the cell.
    ``energy_interval``, ``forces_interval``, ``stress_interval``
        Half widths of the conformal intervals, in the same units; NaN where not calibrated.
    ``extrapolation_grade``, ``extrapolation_grades`` (N,)
        The highest grade of an atom, and each atom's: above 1 outside of the training set. Much cheaper than the
        others; for every few steps of MD.

    With ``members=True`` the standard deviations and ``energies_members`` (m,), ``forces_members`` (m, N, 3) and
    ``stress_members`` (m, 6) are in ``results`` at every step.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012  (ASE's own convention)

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
        """Compute energy, forces and stress, and of the committee what is asked for; see ASE."""
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        given: Atoms = self.atoms  # type: ignore[assignment]
        foreign = sorted(set(given.get_chemical_symbols()) - set(self.potential.elements))
        if foreign:
            known = ", ".join(self.potential.elements)
            raise InputError(f"there is no {foreign[0]} in this potential; it has {known}")
        if system_changes:
            self.results = {}
        asked = set(properties)
        if asked & set(GRADES):
            grades = self.potential.compute_grades(given)
            self.results |= {"extrapolation_grades": grades, "extrapolation_grade": float(grades.max())}
        if self.include_members or asked & set(STDS):
            self.results |= self._of_members(given)
        if asked - {*STDS, *GRADES}:
            self.results |= self._of_mean(given)

    def _of_members(self, given: Atoms) -> dict[str, object]:
        """Values of every member and, where they are calibrated, what they stand for."""
        if self.potential.uncertainty is None:
            own, found = self.potential.predict(given), {}
        else:
            assessed, own = self.potential.assess_and_predict(given)
            found = {name: getattr(assessed, name) for name in STDS}
        members = {"energies_members": own.energy, "forces_members": own.forces, "stress_members": own.stress}
        return {**found, **(members if self.include_members else {})}

    def _of_mean(self, given: Atoms) -> dict[str, object]:
        """Energy, forces and, of what is periodic, stress."""
        raise NotImplementedError
