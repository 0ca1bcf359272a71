"""A fitted linear model, or a committee of them, as a potential: predictions, error bars, and LAMMPS files."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import units
from ase.geometry import complete_cell

from paretofit.core import InputError, get_shared_lammps, lammps_calculator, remove_file
from paretofit.descriptors import (
    BAR_PER_EV_A3,
    GPA_PER_EV_A3,
    ReferencePotential,
    build_vacuum_cell,
    compute_atom_descriptors,
    compute_atom_rows,
    compute_configuration_rows,
    compute_configuration_rows_with_stress,
    compute_reference_labels,
)
from paretofit.potentials.calculator import REACH, CommitteeCalculator
from paretofit.potentials.prediction import Prediction
from paretofit.potentials.snap_format import (
    SnapFiles,
    read_snap,
    resolve_snap_paths,
    to_lammps_coefficients,
    write_snap,
)
from paretofit.uncertainty import (
    COMMITTEE_SUFFIX,
    Assessment,
    Uncertainty,
    build_assessment,
    read_committee,
    write_committee,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from paretofit.core import Array
    from paretofit.descriptors import SnapBasis

BELONGS = 1e-9  # relative: the mean of a committee's members and the coefficients in the LAMMPS files
AGREEMENT = 1e-8  # of the largest force (or energy, or stress) that an exported potential may be off


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
    uncertainty : Uncertainty or None
        Of a committee: its calibration, and what it was trained on.
    """

    basis: SnapBasis
    coefficients: Array
    reference: ReferencePotential | None = None
    uncertainty: Uncertainty | None = None

    @classmethod
    def read(cls, path: Path | str) -> LinearPotential:
        """Read a potential from its LAMMPS files: the ``.mod``, ``.snapcoeff`` or ``.snapparam``, or their folder.

        With ``NAME.committee.h5`` beside them it is the committee.

        Raises
        ------
        InputError
            If a file is missing or is not of a SNAP potential, or the committee is that of another one.
        """
        basis, coefficients, reference = read_snap(Path(path))
        committee = resolve_snap_paths(Path(path))[0].with_suffix(COMMITTEE_SUFFIX)
        if not committee.is_file():
            return cls(basis, coefficients, reference)
        members, uncertainty = read_committee(committee)
        own, files = members.mean(axis=0), coefficients
        same = own.shape == files.shape
        if same:  # in LAMMPS's form, for with chemflag several coefficients are one there
            mine, theirs = (to_lammps_coefficients(basis, one) for one in (own, files))
            same = bool(np.abs(mine - theirs).max() <= BELONGS * np.abs(theirs).max())
        if not same:
            raise InputError(
                f"{committee} belongs to another potential than the files beside it; fit again, or remove it"
            )
        return cls(basis, members, reference, uncertainty)

    def member(self, k: int) -> LinearPotential:
        """One member of a committee as a potential of its own, for LAMMPS or ASE."""
        if not 0 <= k < len(np.atleast_2d(self.coefficients)):
            raise InputError(f"there is no member {k}; the committee has {len(np.atleast_2d(self.coefficients))}")
        return LinearPotential(self.basis, np.atleast_2d(self.coefficients)[k], self.reference)

    @property
    def elements(self) -> tuple[str, ...]:
        """That it is for."""
        return tuple(self.basis.elements)

    @property
    def mean_coefficients(self) -> Array:
        """``(p,)``: the coefficients, of a committee their mean."""
        return np.asarray(self.coefficients if self.coefficients.ndim == 1 else self.coefficients.mean(axis=0))

    def without_uncertainty(self) -> LinearPotential:
        """The potential without its committee."""
        return LinearPotential(self.basis, self.mean_coefficients, self.reference)

    def predict(self, atoms: Atoms) -> Prediction:
        """Energy, forces and stress of a configuration from descriptors, for every member at once."""
        return self._predicted(atoms, *self._rows(atoms))

    def assess(self, atoms: Atoms, *, coverage: float | None = None) -> Assessment:
        """Energy, forces and stress of a committee's mean, with their standard deviations, intervals and grades.

        Parameters
        ----------
        atoms : ase.Atoms
        coverage : float, optional
            Of the intervals; by default what the fit says, 0.9.

        Raises
        ------
        InputError
            If it is no committee, it knows nothing of its training set, or the coverage cannot be had.
        """
        return self.assess_and_predict(atoms, coverage)[0]

    def assess_and_predict(self, atoms: Atoms, coverage: float | None = None) -> tuple[Assessment, Prediction]:
        """`assess`, and what each member predicts."""
        own = self.uncertainty
        if own is None or self.coefficients.ndim == 1:
            raise InputError("this potential has no committee to assess by; fit it with a committee")
        rows = self._rows(atoms)
        members = self._predicted(atoms, *rows)
        leverage = float("nan")
        if own.leverage is not None:
            leverage = float(own.leverage(own.energy_weight * rows[0][None])[0])
        return build_assessment(members, own, self.compute_grades(atoms), leverage, coverage), members

    def compute_grades(self, atoms: Atoms) -> Array:
        """``(N,)``: how far each atom is outside of the training set (γ > 1); a fraction of the cost of forces.

        Raises
        ------
        InputError
            If the potential knows nothing of its training set.
        """
        if self.uncertainty is None:
            raise InputError("this potential knows nothing of its training set; fit it with a committee")
        return self.uncertainty.compute_grades(atoms, compute_atom_descriptors(get_shared_lammps(), self.basis, atoms))

    def compute_atom_leverages(self, atoms: Atoms) -> Array:
        """``(N,)``: leverage of each atom's own energy, weighted as an energy row of the training set.

        Raises
        ------
        InputError
            If the potential knows nothing of its training set.
        """
        if self.uncertainty is None or self.uncertainty.leverage is None:
            raise InputError("this potential knows nothing of its training set; fit it with a committee")
        rows = compute_atom_rows(get_shared_lammps(), self.basis, atoms)
        return self.uncertainty.leverage(self.uncertainty.energy_weight * rows)

    def _rows(self, atoms: Atoms) -> tuple[Array, Array, Array]:
        """Energy row, force rows and stress rows; the last NaN where it is not periodic in three directions."""
        if atoms.pbc.all():
            return compute_configuration_rows_with_stress(get_shared_lammps(), self.basis, atoms)
        rows = compute_configuration_rows(get_shared_lammps(), self.basis, atoms)
        return *rows, np.full((6, self.basis.n_features), np.nan)

    def _predicted(self, atoms: Atoms, energy_row: Array, force_rows: Array, stress_rows: Array) -> Prediction:
        beta = self.coefficients.T
        energy, forces, stress = energy_row @ beta * len(atoms), force_rows @ beta, stress_rows @ beta
        if self.reference is not None:
            own = compute_reference_labels(get_shared_lammps(), self.basis, self.reference, atoms)
            shape = (slice(None), None) if self.coefficients.ndim > 1 else slice(None)
            energy, forces, stress = energy + own[0], forces + own[1].ravel()[shape], stress + own[2][shape]
        return Prediction(
            energy if self.coefficients.ndim > 1 else float(energy),
            np.moveaxis(forces.reshape(len(atoms), 3, *forces.shape[1:]), -1, 0) if forces.ndim > 1 else
            forces.reshape(-1, 3),
            stress.T / GPA_PER_EV_A3,
        )  # fmt: skip

    def write(self, folder: Path | str, name: str = "potential") -> SnapFiles:
        """Write the LAMMPS files; of a committee those of its mean, and ``NAME.committee.h5``."""
        files = self.write_mean(folder, name)
        committee = files.coefficients.with_suffix(COMMITTEE_SUFFIX)
        if self.coefficients.ndim == 1:
            remove_file(committee)  # it would be another potential's
        else:
            write_committee(committee, self.coefficients, self.uncertainty)
        return files

    def write_mean(self, folder: Path | str, name: str = "potential") -> SnapFiles:
        """Write the LAMMPS files only."""
        return write_snap(Path(folder), name, self.basis, self.mean_coefficients, reference=self.reference)

    def calculator(self, *, include_members: bool = False) -> LinearCalculator:
        """An ASE calculator; LAMMPS computes, so that MD of hundreds of atoms is as fast as in LAMMPS.

        With `include_members` the values of every member of a committee are in its ``results``, see `LinearCalculator`.
        """
        return LinearCalculator(self, include_members=include_members)


def check_exported_files(files: SnapFiles, potential: LinearPotential, structures: Sequence[Atoms]) -> float:
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
    single = potential.without_uncertainty()
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


LAMMPS_STRESS = 1 / units.bar / BAR_PER_EV_A3  # ASE turns LAMMPS's bar into eV/Å³ by the exact factor, LAMMPS not
LEAST = (1.0, 1.0, 0.1)  # eV, eV/Å, eV/Å³; below, deviations are absolute


class LinearCalculator(CommitteeCalculator):
    """ASE calculator of a `LinearPotential`; LAMMPS computes its mean. See `CommitteeCalculator`."""

    def __init__(self, potential: LinearPotential, *, include_members: bool = False) -> None:
        if include_members and potential.coefficients.ndim == 1:
            raise InputError("a single potential has no members; give the coefficients of a committee, (m, p)")
        super().__init__(potential, include_members=include_members)
        self._folder = tempfile.TemporaryDirectory(prefix="paretofit-potential-")
        files = potential.write_mean(self._folder.name)
        self._lammps = lammps_calculator(files.commands, files.elements)

    def _of_mean(self, given: Atoms) -> dict[str, object]:
        copy: Atoms = given.copy()
        periodic = bool(copy.pbc.all())
        if not periodic:  # LAMMPS loses atoms that leave a box; this one is wider than anything reaches
            copy.set_cell(complete_cell(build_vacuum_cell(copy, REACH)), scale_atoms=False)
            copy.pbc = True
        copy.calc = self._lammps
        forces, energy = copy.get_forces(), copy.get_potential_energy()
        found: dict[str, object] = {"forces": forces, "energy": energy, "free_energy": energy}
        return found | ({"stress": copy.get_stress()} if periodic else {})
