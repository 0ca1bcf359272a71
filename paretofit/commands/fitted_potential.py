"""Fits to labelled rows, and output of the potentials, for `fit`, `fit --fitsnap` and `export`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from ase import Atoms

from paretofit import potentials
from paretofit.core import FIT_COPIES, Array, ExecutionError, InputError, list_first
from paretofit.descriptors import AnyBasis, DesignMatrix, require_descriptors
from paretofit.execution import RunContext
from paretofit.linear import Fit, fit_wls
from paretofit.study import PreparedStudy
from paretofit.sweep import MixtureDraw, fit_mixture_rows
from paretofit.uncertainty import CommitteeFit


@dataclass(frozen=True)
class FittedPotential:
    """Potential that was fitted and written for LAMMPS.

    Attributes
    ----------
    potential : LinearPotential
    files : PotentialFiles
        Paths of the files for LAMMPS.
    deviation : float
        Largest relative deviation between LAMMPS with these files and the model; NaN if the comparison failed.
    summary : list of str
        Lines about the fit and its errors.
    notes : list of str
        Notes for the user.
    check_problem : str
        Why the written files must not be used unchecked; empty if LAMMPS agrees with the model.
    """

    potential: potentials.LinearPotential
    files: potentials.PotentialFiles
    deviation: float
    summary: list[str]
    notes: list[str] = field(default_factory=list, kw_only=True)
    check_problem: str = field(default="", kw_only=True)

    def require_agreement(self) -> None:
        """Raise an error unless LAMMPS reproduced the model with the written files.

        Raises
        ------
        ExecutionError
            If the comparison failed; the message is `check_problem`.
        """
        if self.check_problem:
            raise ExecutionError(self.check_problem)

    @property
    def text(self) -> str:
        """Summary, committee, check with LAMMPS, files and notes, as plain text."""
        check = f"LAMMPS reproduces the model's energies, forces and stresses within {self.deviation:.1e}"
        if self.check_problem:  # the reason is in the error of `require_agreement`
            check = "the check of the written potential failed; do not use its files"
        committee = [] if self.potential.uncertainty is None else [potentials.format_committee(self.potential)]
        files = self.files.coefficients, self.files.parameters, self.files.include
        notes = (f"note: {note}" for note in self.notes)
        return "\n".join([*self.summary, *committee, check, *map(str, files), *notes])


@dataclass(frozen=True)
class DesignFit:
    """Fit of a model to the labelled rows of a design matrix.

    Attributes
    ----------
    prepared : PreparedStudy
        Study with the basis, the dataset and the groups.
    design : DesignMatrix
        Design matrix with labels, constrained by the energies of free atoms.
    level : str
        Level of the labels.
    twojmax : int
    training_set : ndarray of int
        Positions of the configurations in the training set.
    weights : (float, float)
        w_E and w_F.
    mixture : MixtureDraw, optional
        Configurations at each level of a mixture, whose top level is `level`; None for labels at one level.
    """

    prepared: PreparedStudy
    design: DesignMatrix
    level: str
    twojmax: int
    training_set: Array
    weights: tuple[float, float]
    mixture: MixtureDraw | None = None

    @property
    def basis(self) -> AnyBasis:
        """Basis at the 2Jmax of the model."""
        return require_descriptors(self.prepared.study.basis).resize(self.twojmax)

    def fit_single(self, ridge: float = 0.0) -> Fit:
        """Fit a single model, with a ridge penalty of the scaled coefficients; a mixture is fitted without penalty.

        Raises
        ------
        InputError
            If the rows of the training set do not fit into memory.
        """
        design, (energy_weight, force_weight) = self.design, self.weights
        if self.mixture is not None:
            return fit_mixture_rows(design, self.mixture, design.count_columns_up_to(self.twojmax), self.weights)
        rows = np.flatnonzero(np.isin(design.configuration, self.training_set))
        X = design.read_rows(rows, design.count_columns_up_to(self.twojmax), memory_copies=FIT_COPIES)
        y, kind = design.targets[self.level][rows], design.kind[rows]
        return fit_wls(
            X, y, kind, energy_weight=energy_weight, force_weight=force_weight, ridge=ridge,
            n_unpenalised=design.n_constant,
        )  # fmt: skip

    def build_potential(self, fit: Fit) -> potentials.LinearPotential:
        """Build the potential from the fit of a single model."""
        coefficients = np.asarray(fit.coefficients)
        return potentials.LinearPotential(self.basis, self.design.expand_coefficients(coefficients, self.level))

    def fit_potential(
        self, committee: potentials.CommitteeSettings | None, context: RunContext, ridge: float = 0.0
    ) -> potentials.LinearPotential:
        """Fit a committee with the given settings; if they are None, fit a single model with a ridge penalty."""
        if committee is None:
            return self.build_potential(self.fit_single(ridge))
        return self.fit_committee(committee, context)

    @property
    def training_structures(self) -> list[Atoms]:
        """Structures of the training set, and the isolated atoms whose energies the model reproduces exactly."""
        return [*self.prepared.dataset.select(self.training_set), *self.prepared.reference_energies.isolated_atoms]

    def fit_committee(
        self, settings: potentials.CommitteeSettings, context: RunContext, centre: Array | None = None
    ) -> potentials.LinearPotential:
        """Fit a committee, with whole groups drawn for each member, and calibrate it on the test set, if any.

        The mean of the members has the coefficients `centre`, ``(p,)``, by default those of the fit to all rows of the
        training set.
        """
        dataset, split = self.prepared.dataset, self.prepared.split
        n_columns = self.design.count_columns_up_to(self.twojmax)
        parts = potentials.partition_training_rows(self.design, self.level, self.training_set, n_columns)
        rng = np.random.default_rng([settings.seed, 0])
        groups, row_weights = split.groups[self.training_set], np.array([*self.weights, 1.0])  # w_S is not used
        fit = CommitteeFit.from_parts(parts, groups, row_weights, rng, threads=context.jobs)
        calibration_set = potentials.LabelledStructures.from_dataset(dataset, self.level, split.test, split.groups)
        return potentials.build_committee(
            self.basis, fit, settings, self.training_structures, calibration_set, centre=centre,
            energy_weight=self.weights[0], level=self.level, constraint=self.design.constraint, context=context,
        )  # fmt: skip

    def write(
        self, potential: potentials.LinearPotential, out: Path | str, name: str, n_checked: int
    ) -> tuple[potentials.PotentialFiles, float, str]:
        """Write a potential for LAMMPS; return its files, and the deviation and problem of `compare_with_lammps`.

        LAMMPS is compared with the model on at most `n_checked` configurations of the test set or, without a test
        set, of the training set.

        Raises
        ------
        InputError
            If an element of the basis is in no training configuration, so that its coefficients would be zero.
        """
        split, dataset = self.prepared.split, self.prepared.dataset
        trained_elements = {
            symbol for atoms in dataset.select(self.training_set) for symbol in atoms.get_chemical_symbols()
        }
        missing_elements = [symbol for symbol in self.basis.elements if symbol not in trained_elements]
        if missing_elements:
            raise InputError(
                f"none of the {len(self.training_set)} training configurations contains "
                f"{list_first(missing_elements, 5)}, so that its coefficients would be zero; use a larger "
                "training set, or remove the element from the basis"
            )
        positions = split.test if len(split.test) else split.train
        structures = list(dataset.select(positions[select_evenly_spaced(len(positions), n_checked)]))
        if potential.uncertainty is None:
            sets = self.training_structures, dataset.select(split.test)
            potential = replace(potential, training_record=potentials.TrainingRecord.from_structures(*sets, self.level))
        files = potential.write(out, name)
        return files, *compare_with_lammps(files, potential, structures)


def compare_with_lammps(
    files: potentials.PotentialFiles, potential: potentials.LinearPotential, structures: Sequence[Atoms]
) -> tuple[float, str]:
    """Compare LAMMPS with the model; a failure is returned, not raised, because the files have been written already.

    Returns
    -------
    deviation : float
        As in `check_exported_files`; NaN if the comparison failed.
    problem : str
        Reason for the failure, or an empty string.
    """
    try:
        return potentials.check_exported_files(files, potential, structures), ""
    except InputError as error:
        return float("nan"), f"the check of the written potential failed: {error}"


def check_committee_size(settings: potentials.CommitteeSettings, prepared: PreparedStudy) -> None:
    """Check that the settings of a committee are valid, and that the test set has enough groups for its calibration.

    With an empty test set, the committee is not calibrated.

    Raises
    ------
    InputError
        If a setting is not valid, or the test set has too few groups; the message contains the required number.
    """
    settings.check(len(np.unique(prepared.split.groups[prepared.split.test])) or None)  # None: no calibration


def select_evenly_spaced(n: int, limit: int) -> Array:
    """Return at most `limit` evenly spaced indices from 0 to `n` - 1, ``(m,) int``; `n` must be at least 1."""
    return np.unique(np.linspace(0, n - 1, limit).astype(int))
