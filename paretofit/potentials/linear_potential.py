"""Linear potentials and their committees: predictions, error bars, LAMMPS files and an ASE calculator."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units

from paretofit import descriptors
from paretofit.core import (
    Array,
    InputError,
    copy_without_constraints,
    create_temporary_folder,
    get_shared_lammps,
    join_lines,
    lammps_calculator,
    remove_file,
)
from paretofit.potentials import linear_files
from paretofit.potentials.calculator import CommitteeCalculator
from paretofit.potentials.committee_potential import CommitteePotential
from paretofit.potentials.lammps_words import quote_path
from paretofit.potentials.potential_files import PotentialFiles, resolve_potential_paths
from paretofit.potentials.prediction import Prediction
from paretofit.potentials.training_record import RECORD_SUFFIX, TrainingRecord
from paretofit.uncertainty import COMMITTEE_SUFFIX, Assessment, Uncertainty, read_committee, write_committee

# Maximum difference between the mean of a committee and the coefficients in the LAMMPS files, relative to the largest
# coefficient.
MAX_COEFFICIENT_MISMATCH = 1e-9
MAX_DEVIATION = 1e-8  # difference between LAMMPS and the model, relative to the scale in `check_exported_files`
# Minimum scale relative to the sum of the absolute terms of the model. If the terms cancel, rounding errors are
# proportional to this sum, not to the result.
MIN_SHARE_OF_TERMS = 1e-3
MIN_SCALES = (1.0, 1.0, 0.1)  # minimum scale of energies per atom (eV), forces (eV/Å) and stresses (eV/Å³)
# Replaces ASE's conversion from bar to eV/Å³ in a stress by the less accurate conversion of LAMMPS, as in the model.
LAMMPS_STRESS_FACTOR = 1 / units.bar / descriptors.BAR_PER_EV_A3


@dataclass(frozen=True)
class LinearPotential(CommitteePotential):
    """A linear model of energies in a SNAP or POD basis, with or without a reference potential.

    Attributes
    ----------
    basis : SnapBasis or PodBasis
        Basis with the 2Jmax of the model.
    coefficients : (p,) or (m, p) float64
        Coefficients in nested order. In a committee, each row is a member; the mean of the members is the potential.
    reference : ReferencePotential or None
        Potential that is added to the linear model.
    uncertainty : Uncertainty or None
        Calibration and training set of a committee; None if they are unknown, or for a single potential.
    training_record : TrainingRecord or None
        Training and held-out configurations of a single potential; None if they are unknown.
    """

    basis: descriptors.AnyBasis
    coefficients: Array
    reference: descriptors.ReferencePotential | None = None
    uncertainty: Uncertainty | None = None
    training_record: TrainingRecord | None = None

    @classmethod
    def read(cls, path: Path | str) -> LinearPotential:
        """Read a potential from one of its LAMMPS files, or from their directory.

        If ``NAME.committee.h5`` is in the same directory, the committee is returned; otherwise, the training record
        ``NAME.training.json`` is read if it exists.

        Raises
        ------
        InputError
            If a file is missing or does not belong to a linear potential, or if the committee or the training record
            belongs to another potential.
        """
        basis, coefficients, reference = linear_files.read_linear_potential(Path(path))
        coefficient_file, _, _ = resolve_potential_paths(Path(path))
        committee_file = coefficient_file.with_suffix(COMMITTEE_SUFFIX)
        if not committee_file.is_file():
            record_file = coefficient_file.with_suffix(RECORD_SUFFIX)
            training_record = TrainingRecord.read(record_file, coefficients) if record_file.is_file() else None
            return cls(basis, coefficients, reference, training_record=training_record)
        members, uncertainty = read_committee(committee_file)
        is_match = members.shape[1:] == coefficients.shape
        if is_match:  # with chemflag, the file contains averages of coefficients; both are compared after averaging
            mean_coefficients, stored_coefficients = (
                linear_files.convert_for_comparison(basis, vector) for vector in (members.mean(axis=0), coefficients)
            )
            is_match = bool(
                np.abs(mean_coefficients - stored_coefficients).max()
                <= MAX_COEFFICIENT_MISMATCH * np.abs(stored_coefficients).max()
            )
        if not is_match:
            raise InputError(
                f"{committee_file} does not belong to the potential with the same name; fit again, or remove the file"
            )
        return cls(basis, members, reference, uncertainty)

    def get_member(self, k: int) -> LinearPotential:
        """Return member `k` (from 0) of a committee as a single potential; raise `InputError` if there is none."""
        members = np.atleast_2d(self.coefficients)
        if not 0 <= k < len(members):
            raise InputError(f"unknown member {k}; the committee has members 0 to {len(members) - 1}")
        return LinearPotential(self.basis, members[k], self.reference)

    @property
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols of the elements."""
        return tuple(self.basis.elements)

    @property
    def mean_coefficients(self) -> Array:
        """Coefficients of the potential, or the mean over the members of a committee, ``(p,)``."""
        return np.asarray(self.coefficients if self.coefficients.ndim == 1 else self.coefficients.mean(axis=0))

    def without_uncertainty(self) -> LinearPotential:
        """Return the mean of the committee as a single potential, without uncertainty and training record."""
        return LinearPotential(self.basis, self.mean_coefficients, self.reference)

    def predict(self, atoms: Atoms) -> Prediction:
        """Predict energy, forces and stress of a configuration from its descriptors, with every member at once.

        Raises
        ------
        InputError
            If the potential lacks an element, or LAMMPS cannot compute the descriptors.
        """
        return self._predict_from_rows(atoms, *self._compute_rows(atoms))

    def assess_and_predict(self, atoms: Atoms, coverage: float | None = None) -> tuple[Assessment, Prediction]:
        """Return the result of `assess` and the predictions of every member; errors are those of `assess`."""
        if self.uncertainty is None or self.coefficients.ndim == 1:
            raise InputError("this potential has no calibrated committee; fit it with a committee")
        return super().assess_and_predict(atoms, coverage)

    def compute_descriptors(self, atoms: Atoms) -> Array:
        """Compute the descriptors of each atom, ``(N, K) float64``; see `compute_atom_descriptors`."""
        return descriptors.compute_atom_descriptors(get_shared_lammps(), self.basis, atoms)

    def compute_atom_leverages(self, atoms: Atoms) -> Array:
        """Compute the leverage of the energy of each atom, ``(N,)``, with the weight of energy rows in the fit.

        Raises
        ------
        InputError
            If the potential has no data on its training set, or none for leverages.
        """
        uncertainty = self.require_uncertainty()
        if uncertainty.leverage is None:
            raise InputError("this committee has no data for leverages; fit it again")
        rows = descriptors.compute_atom_rows(get_shared_lammps(), self.basis, atoms)
        return uncertainty.leverage(uncertainty.energy_weight * rows)

    def _predict_with_leverage(self, atoms: Atoms) -> tuple[Prediction, float]:
        """Return the predictions of every member, and the leverage of the energy; NaN without data for leverages."""
        rows = self._compute_rows(atoms)
        uncertainty = self.require_uncertainty()
        leverage = float("nan")
        if uncertainty.leverage is not None:
            leverage = float(uncertainty.leverage(uncertainty.energy_weight * rows[0][None])[0])
        return self._predict_from_rows(atoms, *rows), leverage

    def _compute_rows(self, atoms: Atoms) -> tuple[Array, Array, Array]:
        """Compute the rows of a configuration for `_predict_from_rows`.

        Returns
        -------
        energy_row : (p,) float64
            Energy per atom, eV.
        force_rows : (3N, p) float64
            eV/Å.
        stress_rows : (6, p) float64
            GPa; NaN unless the configuration is periodic in three directions.
        """
        if atoms.pbc.all():
            return descriptors.compute_configuration_rows_with_stress(get_shared_lammps(), self.basis, atoms)
        rows = descriptors.compute_configuration_rows(get_shared_lammps(), self.basis, atoms)
        return *rows, np.full((6, self.basis.n_features), np.nan)

    def _predict_from_rows(self, atoms: Atoms, energy_row: Array, force_rows: Array, stress_rows: Array) -> Prediction:
        """Multiply rows from `_compute_rows` by the coefficients, and add the reference potential, if there is one."""
        beta = np.atleast_2d(self.coefficients).T  # (p, m)
        energy, forces, stress = energy_row @ beta * len(atoms), force_rows @ beta, stress_rows @ beta
        if self.reference is not None:
            reference_energy, reference_forces, reference_stress = descriptors.compute_reference_labels(
                get_shared_lammps(), self.basis, self.reference, atoms
            )
            energy, forces = energy + reference_energy, forces + reference_forces.reshape(-1, 1)
            stress = stress + reference_stress[:, None]
        members = Prediction(energy, forces.T.reshape(-1, len(atoms), 3), stress.T / descriptors.GPA_PER_EV_A3)
        if self.coefficients.ndim > 1:
            return members
        return Prediction(float(energy[0]), members.forces[0], members.stress[0])

    def write(self, folder: Path | str, name: str = "potential") -> PotentialFiles:
        """Write the files of the potential to a directory, and return the paths of the LAMMPS files.

        The LAMMPS files of a committee contain its mean. A committee is also written to ``NAME.committee.h5``, and the
        training record of a single potential, if there is one, to ``NAME.training.json``. Such files of an earlier
        potential with the same name are removed.

        Raises
        ------
        InputError
            As in `write_snap`.
        """
        files = self.write_mean(folder, name)
        committee_file = files.coefficients.with_suffix(COMMITTEE_SUFFIX)
        record_file = files.coefficients.with_suffix(RECORD_SUFFIX)
        remove_file(record_file)  # an existing file would belong to another potential
        if self.coefficients.ndim == 1:
            remove_file(committee_file)
            if self.training_record is not None:
                # The digest must be that of the coefficients that are read from the file.
                _, stored_coefficients, _ = linear_files.read_linear_potential(files.coefficients)
                self.training_record.write(record_file, stored_coefficients)
        else:
            write_committee(committee_file, self.coefficients, self.uncertainty)
        return files

    def write_mean(self, folder: Path | str, name: str = "potential") -> PotentialFiles:
        """Write only the LAMMPS files, which contain the mean of a committee, and return their paths."""
        return linear_files.write_linear_potential(
            Path(folder), name, self.basis, self.mean_coefficients, reference=self.reference
        )

    def create_calculator(self, *, include_members: bool = False) -> LinearCalculator:
        """Create an ASE calculator that uses LAMMPS, so that MD of hundreds of atoms is as fast as in LAMMPS.

        With `include_members`, ``results`` contains the values of every member (see `CommitteeCalculator`); for a
        single potential, this raises an `InputError`.
        """
        return LinearCalculator(self, include_members=include_members)

    calculator = create_calculator  # earlier name, for scripts


def check_exported_files(files: PotentialFiles, potential: LinearPotential, structures: Sequence[Atoms]) -> float:
    """Check that LAMMPS with the ``.mod`` file gives the energies, forces and stresses of the model.

    Stresses are only compared in structures that are periodic in three directions.

    Parameters
    ----------
    files : PotentialFiles
        Written files of the potential.
    potential : LinearPotential
        Potential from which the files were written; a committee is represented by its mean.
    structures : sequence of ase.Atoms

    Returns
    -------
    float
        Maximum deviation of an energy per atom, force component or stress component, relative to a scale for its kind
        and structure. The scale is the largest of three values: the largest absolute value of the model; 1 eV, 1 eV/Å
        or 0.1 eV/Å³; and `MIN_SHARE_OF_TERMS` times the largest sum of absolute terms of the linear model (for
        stresses, this sum is in GPa).

    Raises
    ------
    InputError
        If LAMMPS cannot read the files, or the maximum deviation is above `MAX_DEVIATION` or not a number; the files
        must then not be used.
    """
    with contextlib.chdir(files.include.parent):  # the .mod file contains the names of the other files without a path
        try:
            max_deviation, config_id = _measure_deviation(files, potential, structures)
        except Exception as error:  # LAMMPS raises its own exceptions
            raise InputError(
                f"LAMMPS cannot use {files.include}: {join_lines(error)}; do not use the written files"
            ) from error
    if not max_deviation <= MAX_DEVIATION:  # also true for NaN
        raise InputError(
            f"LAMMPS with {files.include} deviates from the model by {max_deviation:.1e} for configuration "
            f"{config_id}; do not use the file, and report this error"
        )
    return max_deviation


def _measure_deviation(
    files: PotentialFiles, potential: LinearPotential, structures: Sequence[Atoms]
) -> tuple[float, str]:
    """Return the maximum relative deviation of LAMMPS from the model, and the id of the structure in which it occurs.

    The id is ``config_id`` or, if there is none, the index of the structure. The working directory must be that of the
    files.

    A deviation that is not a number counts as the maximum.
    """
    mean_potential = potential.without_uncertainty()
    calculator = lammps_calculator([f"include {quote_path(files.include.name)}"], files.elements)
    max_deviation, config_id = 0.0, ""
    for k, atoms in enumerate(structures):
        rows = mean_potential._compute_rows(atoms)  # noqa: SLF001  (of the same module)
        prediction = mean_potential._predict_from_rows(atoms, *rows)  # noqa: SLF001  (as above)
        # sums of the absolute terms of the energy per atom (eV), force components (eV/Å) and stress components (GPa)
        term_sums = [np.abs(kind_rows) @ np.abs(mean_potential.mean_coefficients) for kind_rows in rows]
        copy = copy_without_constraints(atoms)
        copy.calc = calculator
        with descriptors.translate_lammps_errors(atoms):
            energies = prediction.energy / len(atoms), copy.get_potential_energy() / len(atoms)
            pairs = [energies, (prediction.forces, copy.get_forces())]
            if atoms.pbc.all():
                pairs.append((prediction.stress, copy.get_stress() * LAMMPS_STRESS_FACTOR))
        # The pairs may lack the stress, which is then not compared.
        for (model_values, lammps_values), term_sum, min_scale in zip(pairs, term_sums, MIN_SCALES, strict=False):
            scale = max(min_scale, float(np.abs(model_values).max()), MIN_SHARE_OF_TERMS * float(np.max(term_sum)))
            deviation = float(np.abs(model_values - lammps_values).max() / scale)
            if not deviation <= max_deviation:  # also true for NaN
                max_deviation, config_id = deviation, str(atoms.info.get("config_id", k))
            if np.isnan(deviation):
                return max_deviation, config_id
    return max_deviation, config_id


class LinearCalculator(CommitteeCalculator):
    """ASE calculator of a `LinearPotential` that computes the mean with LAMMPS; see `CommitteeCalculator`."""

    def __init__(self, potential: LinearPotential, *, include_members: bool = False) -> None:
        if include_members and potential.coefficients.ndim == 1:
            raise InputError("a single potential has no members; use a potential with a committee")
        super().__init__(potential, include_members=include_members)
        self._folder = create_temporary_folder("potential")  # must exist until LAMMPS reads the files
        files = potential.write_mean(self._folder.name)
        self._lammps = lammps_calculator(files.commands, files.elements)

    def _compute_mean(self, atoms: Atoms) -> dict[str, object]:
        """Compute energy, forces and, if the structure is periodic in three directions, stress with LAMMPS."""
        copy: Atoms = copy_without_constraints(atoms)
        copy.calc = self._lammps
        forces, energy = copy.get_forces(), copy.get_potential_energy()
        results: dict[str, object] = {"forces": forces, "energy": energy, "free_energy": energy}
        return results | ({"stress": copy.get_stress()} if copy.pbc.all() else {})
