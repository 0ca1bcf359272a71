"""A fitted linear model, or a committee of them, as a potential: predictions, LAMMPS files, and an ASE calculator."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units
from ase.calculators.calculator import Calculator, all_changes
from ase.geometry import complete_cell

from paretofit.descriptors.reference import STRESS_UNIT, ReferencePotential, reference_labels
from paretofit.descriptors.rows import (
    BAR_PER_VIRIAL,
    configuration_rows,
    configuration_rows_with_stress,
    with_vacuum_cell,
)
from paretofit.errors import InputError
from paretofit.lammps_library import lammps_calculator, process_lammps
from paretofit.potentials.snap_files import SnapFiles, read_snap, write_snap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from paretofit.descriptors import SnapBasis
    from paretofit.descriptors.basis import Array

REACH = 12.0  # Å, between atoms and their images where nothing is periodic; farther than any pair style here reaches
AGREEMENT = 1e-8  # of the largest force (or energy, or stress) that an exported potential may be off


@dataclass(frozen=True)
class Prediction:
    """What a potential gives for a configuration.

    Attributes
    ----------
    energy : float or (m,) float64
        eV, for each member of a committee.
    forces : (N, 3) or (m, N, 3) float64
        eV/Å.
    stress : (6,) or (m, 6) float64
        eV/Å³ in ASE's sign and Voigt order; NaN where the configuration is not periodic in three directions.
    """

    energy: Any
    forces: Array
    stress: Array


@dataclass(frozen=True)
class LinearPotential:
    """A linear model of energies in a SNAP basis, perhaps on top of a reference potential.

    Attributes
    ----------
    basis : SnapBasis
        Of the model's own 2Jmax.
    coefficients : (p,) or (m, p) float64
        In nested order; several rows are the members of a committee, whose mean is the potential.
    reference : ReferencePotential or None
    """

    basis: SnapBasis
    coefficients: Array
    reference: ReferencePotential | None = None

    @classmethod
    def read(cls, path: Path | str) -> LinearPotential:
        """Read a potential from its LAMMPS files: the ``.mod``, ``.snapcoeff`` or ``.snapparam``, or their folder.

        Raises
        ------
        InputError
            If a file is missing or is not of a SNAP potential.
        """
        basis, coefficients, reference = read_snap(Path(path))
        return cls(basis, coefficients, reference)

    @property
    def mean(self) -> Array:
        """``(p,)``: the coefficients, of a committee their mean."""
        return np.asarray(self.coefficients if self.coefficients.ndim == 1 else self.coefficients.mean(axis=0))

    def predict(self, atoms: Atoms) -> Prediction:
        """Energy, forces and stress of a configuration from descriptors, for every member at once."""
        lammps, periodic = process_lammps(), bool(atoms.pbc.all())
        beta = self.coefficients.T
        if periodic:
            energy_row, force_rows, stress_rows = configuration_rows_with_stress(lammps, self.basis, atoms)
        else:
            energy_row, force_rows = configuration_rows(lammps, self.basis, atoms)
            stress_rows = np.full((6, self.basis.n_features), np.nan)
        energy, forces, stress = energy_row @ beta * len(atoms), force_rows @ beta, stress_rows @ beta
        if self.reference is not None:
            own = reference_labels(lammps, self.basis, self.reference, atoms)
            shape = (slice(None), None) if self.coefficients.ndim > 1 else slice(None)
            energy, forces, stress = energy + own[0], forces + own[1].ravel()[shape], stress + own[2][shape]
        return Prediction(
            energy if self.coefficients.ndim > 1 else float(energy),
            np.moveaxis(forces.reshape(len(atoms), 3, *forces.shape[1:]), -1, 0) if forces.ndim > 1 else
            forces.reshape(-1, 3),
            stress.T / STRESS_UNIT,
        )  # fmt: skip

    def write(self, folder: Path | str, name: str = "potential") -> SnapFiles:
        """Write the LAMMPS files; of a committee those of its mean."""
        return write_snap(Path(folder), name, self.basis, self.mean, reference=self.reference)

    def calculator(self, *, members: bool = False) -> LinearCalculator:
        """An ASE calculator; LAMMPS computes, so that MD of hundreds of atoms is as fast as in LAMMPS.

        With `members` the values of every member of a committee are in its ``results``, see `LinearCalculator`.
        """
        return LinearCalculator(self, members=members)


class LinearCalculator(Calculator):
    """ASE calculator of a `LinearPotential`: energy, forces, stress; of a committee also its members' values.

    ``results`` of a committee also has ``energies_members`` (m,), ``forces_members`` (m, N, 3) and ``stress_members``
    (m, 6) where ``members=True`` was set, which costs descriptors at every step.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012  (ASE's own convention)

    def __init__(self, potential: LinearPotential, *, members: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if members and potential.coefficients.ndim == 1:
            raise InputError("a single potential has no members; give the coefficients of a committee, (m, p)")
        self.potential, self.members = potential, members
        self._folder = tempfile.TemporaryDirectory(prefix="paretofit-potential-")
        files = potential.write(self._folder.name)
        self._elements = ", ".join(files.elements)
        self._lammps = lammps_calculator(files.commands, files.elements)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute with LAMMPS whatever the properties; see ASE."""
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        given: Atoms = self.atoms  # type: ignore[assignment]
        copy: Atoms = given.copy()
        foreign = sorted(set(copy.get_chemical_symbols()) - set(self.potential.basis.elements))
        if foreign:
            raise InputError(f"there is no {foreign[0]} in this potential; it has {self._elements}")
        periodic = bool(copy.pbc.all())
        if not periodic:  # LAMMPS loses atoms that leave a box; this one is wider than anything reaches
            copy.set_cell(complete_cell(with_vacuum_cell(copy, REACH)), scale_atoms=False)
            copy.pbc = True
        copy.calc = self._lammps
        self.results = {"forces": copy.get_forces(), "energy": copy.get_potential_energy()}
        self.results["free_energy"] = self.results["energy"]
        if periodic:
            self.results["stress"] = copy.get_stress()
        if self.members:
            own = self.potential.predict(given)
            self.results |= {
                "energies_members": own.energy,
                "forces_members": own.forces,
                "stress_members": own.stress,
            }


def check_files(files: SnapFiles, potential: LinearPotential, structures: Sequence[Atoms]) -> float:
    """Compare LAMMPS, with exported files, with the model's predictions.

    Parameters
    ----------
    files : SnapFiles
    potential : LinearPotential
    structures : sequence of ase.Atoms

    Returns
    -------
    float
        The largest deviation of an energy per atom, force component or stress component, relative to the largest of
        its kind in the structure (at least 1 eV, 1 eV/Å, 0.1 eV/Å³).

    Raises
    ------
    InputError
        If it is above 1e-8: the files must not be used.
    """
    single = LinearPotential(potential.basis, potential.mean, potential.reference)
    calculator = lammps_calculator(files.commands, files.elements)
    worst, where = 0.0, ""
    for k, atoms in enumerate(structures):
        own = single.predict(atoms)
        copy = atoms.copy()
        copy.calc = calculator
        pairs = [
            (own.energy / len(atoms), copy.get_potential_energy() / len(atoms)),
            (own.forces, copy.get_forces()),
        ]
        if atoms.pbc.all():
            pairs.append((own.stress, copy.get_stress() * LAMMPS_STRESS))
        for (mine, theirs), least in zip(pairs, LEAST, strict=False):
            off = float(np.abs(mine - theirs).max() / max(least, float(np.abs(mine).max())))
            if off > worst:
                worst, where = off, str(atoms.info.get("config_id", k))
    if worst > AGREEMENT:
        raise InputError(
            f"{files.coefficients} gives other numbers in LAMMPS than the model, by {worst:.1e} at configuration "
            f"{where}; do not use it, and report this"
        )
    return worst


LAMMPS_STRESS = 1 / units.bar / BAR_PER_VIRIAL  # ASE turns LAMMPS's bar into eV/Å³ by the exact factor, LAMMPS not
LEAST = (1.0, 1.0, 0.1)  # eV, eV/Å, eV/Å³; below, deviations are absolute
