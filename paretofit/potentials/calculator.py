"""ASE calculators of potentials: energy, forces, stress by LAMMPS or MACE, and a committee's error bars."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from ase.calculators.calculator import Calculator, all_changes
from ase.geometry import complete_cell

from paretofit.core import InputError, lammps_calculator
from paretofit.descriptors import with_vacuum_cell
from paretofit.potentials.mace.loading import evaluated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from paretofit.potentials.linear_potential import LinearPotential
    from paretofit.potentials.mace.mace_potential import MacePotential

REACH = 12.0  # Å, between atoms and their images where nothing is periodic; farther than any pair style here reaches
GRADES = ("extrapolation_grade", "extrapolation_grades")
STDS = ("energy_std", "forces_std", "stress_std", "energy_interval", "forces_interval", "stress_interval")


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

    def __init__(self, potential: LinearPotential | MacePotential, *, members: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.potential, self.members = potential, members
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
            grades = self.potential.grades(given)
            self.results |= {"extrapolation_grades": grades, "extrapolation_grade": float(grades.max())}
        if self.members or asked & set(STDS):
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
        return {**found, **(members if self.members else {})}

    def _of_mean(self, given: Atoms) -> dict[str, object]:
        """Energy, forces and, of what is periodic, stress."""
        raise NotImplementedError


class LinearCalculator(CommitteeCalculator):
    """ASE calculator of a `LinearPotential`; LAMMPS computes its mean. See `CommitteeCalculator`."""

    def __init__(self, potential: LinearPotential, *, members: bool = False) -> None:
        if members and potential.coefficients.ndim == 1:
            raise InputError("a single potential has no members; give the coefficients of a committee, (m, p)")
        super().__init__(potential, members=members)
        self._folder = tempfile.TemporaryDirectory(prefix="paretofit-potential-")
        files = potential.write_mean(self._folder.name)
        self._lammps = lammps_calculator(files.commands, files.elements)

    def _of_mean(self, given: Atoms) -> dict[str, object]:
        copy: Atoms = given.copy()
        periodic = bool(copy.pbc.all())
        if not periodic:  # LAMMPS loses atoms that leave a box; this one is wider than anything reaches
            copy.set_cell(complete_cell(with_vacuum_cell(copy, REACH)), scale_atoms=False)
            copy.pbc = True
        copy.calc = self._lammps
        forces, energy = copy.get_forces(), copy.get_potential_energy()
        found: dict[str, object] = {"forces": forces, "energy": energy, "free_energy": energy}
        return found | ({"stress": copy.get_stress()} if periodic else {})


class MaceCalculator(CommitteeCalculator):
    """ASE calculator of a `MacePotential`; MACE's own computes its mean. See `CommitteeCalculator`."""

    def __init__(self, potential: MacePotential, *, members: bool = False) -> None:
        super().__init__(potential, members=members)
        self._mace = potential.calculator_factory()()

    def _of_mean(self, given: Atoms) -> dict[str, object]:
        found = evaluated(self._mace, given)
        names = ("energy", "forces", *(("stress",) if given.pbc.all() else ()))
        return {name: found[name] for name in names} | {"free_energy": found["energy"]}
