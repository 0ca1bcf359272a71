"""Building a committee potential from a fit: members, calibration on held-out structures, and grades of atoms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, cast

import numpy as np
from ase import Atoms, units

from paretofit.core import Array, InputError, RowKind, check_choice
from paretofit.dataset import Dataset
from paretofit.descriptors import ColumnConstraint, DesignMatrix, ReferencePotential, SnapBasis
from paretofit.execution import RunContext
from paretofit.linear.reduction import Part, RowBlock, split_rows
from paretofit.potentials.assessment import collect_calibration_data, fit_linear_grades, predict_spreads
from paretofit.potentials.committee_potential import CommitteePotential
from paretofit.potentials.linear_potential import LinearPotential
from paretofit.potentials.prediction import StructureLabels
from paretofit.uncertainty import (
    COMMITTEE_METHODS,
    HELD_OUT,
    TRAIN,
    CalibrationData,
    CommitteeFit,
    CommitteeMethod,
    TrainingLeverage,
    Uncertainty,
    get_min_calibration_size,
    hash_structure,
)

N_FOLDS = 10  # of the cross-validation of a committee
MIN_CALIBRATION_CONFIGURATIONS = 3  # labelled configurations required for the slope of a calibration
CONSTRAINT_WEIGHT = 2.0**50  # of equations in leverages; a power of two multiplies without rounding
DISPLAY_UNITS = {  # factor from eV, eV/Å and eV/Å³, and the name of the unit
    RowKind.ENERGY: (1000.0, "meV/atom"),
    RowKind.FORCE: (1000.0, "meV/Å"),
    RowKind.STRESS: (1 / units.GPa, "GPa"),
}


@dataclass(frozen=True)
class CommitteeSettings:
    """Settings of a committee.

    Attributes
    ----------
    members : int
        Number of members, at least two.
    method : {"bootstrap", "subset", "posterior", "pops"}
    coverage : float
        Coverage of the intervals.
    seed : int
    """

    members: int
    method: str = "bootstrap"
    coverage: float = 0.9
    seed: int = 1

    def check(self, n_calibration_groups: int | None) -> None:
        """Check the settings before anything is computed.

        Parameters
        ----------
        n_calibration_groups : int or None
            Number of groups in the calibration set; None if there is no calibration.

        Raises
        ------
        InputError
            If there are fewer than two members, the method or coverage is invalid, or the calibration set is too small.
        """
        if self.members < 2:
            raise InputError(f"a committee requires at least two members; got {self.members}")
        check_choice("the method of a committee", self.method, COMMITTEE_METHODS)
        if not 0 < self.coverage < 1:
            raise InputError(f"the coverage must lie between 0 and 1; got {self.coverage:g}")
        min_groups = get_min_calibration_size(self.coverage)
        if n_calibration_groups is not None and n_calibration_groups < min_groups:
            raise InputError(
                f"a coverage of {self.coverage:g} requires {min_groups} held-out configurations or groups for its "
                f"calibration, but there are {n_calibration_groups}; hold out more, or lower the coverage"
            )


def partition_training_rows(design: DesignMatrix, level: str, positions: Array, columns: int) -> list[Part]:
    """Partition the rows of the training configurations at one level, for a reduction in parallel.

    `positions` must be in ascending order. Each row is numbered by the index of its configuration in `positions`.
    """
    is_training = np.zeros(design.n_configurations, dtype=bool)
    is_training[positions] = True

    def read_blocks(part: slice) -> Iterator[RowBlock]:
        for window, rows in design.blocks(row_range=part):
            configuration = design.configuration[window]
            is_selected = is_training[configuration]
            if is_selected.any():
                yield RowBlock(
                    rows[is_selected, :columns],
                    design.targets[level][window][is_selected, None],
                    design.kind[window][is_selected],
                    np.searchsorted(positions, configuration[is_selected]),
                    np.ones(int(is_selected.sum()), dtype=bool),
                )

    return [partial(read_blocks, part) for part in split_rows(design.n_rows, columns)]


@dataclass(frozen=True)
class LabelledStructures:
    """Structures with their labels and groups; by default, every structure is a separate group."""

    structures: Sequence[Atoms]
    labels: Sequence[StructureLabels]
    group: Array | None = None

    @property
    def groups(self) -> Array:
        """Group of each structure, ``(n,) int``."""
        return np.arange(len(self.structures)) if self.group is None else np.asarray(self.group)

    def select(self, mask: Array) -> LabelledStructures:
        """Select structures by a mask ``(n,) bool``."""
        indices = np.flatnonzero(mask).tolist()
        structures, labels = [self.structures[k] for k in indices], [self.labels[k] for k in indices]
        return LabelledStructures(structures, labels, self.groups[mask])

    @classmethod
    def from_dataset(
        cls, dataset: Dataset, level: str, positions: Array, group: Array | None = None
    ) -> LabelledStructures:
        """Select configurations of a dataset at one level; `group` contains the group of each of its configurations."""
        selection = dataset.select(positions)
        labels = selection.labels(level)
        forces = np.split(labels.forces, labels.offsets[1:-1])
        structure_labels = map(StructureLabels, labels.energy, forces, labels.stress)
        return cls(list(selection), list(structure_labels), None if group is None else group[positions])


def build_committee(
    basis: SnapBasis,
    fit: CommitteeFit,
    settings: CommitteeSettings,
    training: Sequence[Atoms],
    calibration_set: LabelledStructures,
    *,
    centre: Array | None = None,
    reference: ReferencePotential | None = None,
    energy_weight: float = 1.0,
    level: str = "",
    columns: int | None = None,
    constraint: ColumnConstraint | None = None,
    context: RunContext,
) -> LinearPotential:
    """Draw the members, calibrate them on the held-out structures, and fit grades of atoms to the training set.

    Parameters
    ----------
    basis : SnapBasis
        Basis with the 2Jmax of the model.
    fit : CommitteeFit
    settings : CommitteeSettings
    training : sequence of ase.Atoms
    calibration_set : LabelledStructures
        Held-out structures; if it is empty, there are no intervals.
    centre : (p,) float64, optional
        Coefficients to which the mean of the members is shifted; by default those of `fit`.
    reference : ReferencePotential, optional
    energy_weight : float
        Weight w_E of energies, for leverages.
    level : str
        Level of the labels.
    columns : int, optional
        Number of leading columns of the fit that belong to the model; the others belong to the labels, such as offsets
        of levels.
    constraint : ColumnConstraint, optional
        Constraint that eliminated columns before the fit, with values for `level`; `columns` includes these columns.
    context : RunContext
    """
    members, leverage = _draw_members(fit, settings, centre, constraint, level)[:, :columns], fit.leverage
    if constraint is None:
        leverage = leverage.restrict_columns(members.shape[1])
    else:
        leverage = expand_leverage(leverage, constraint.restrict_columns(members.shape[1]))
    committee = LinearPotential(basis, members, reference)
    calibration, roles = calibrate_committee(committee, training, calibration_set, context)
    grades = fit_linear_grades(basis, training, context)
    uncertainty = Uncertainty(
        settings.method, calibration, grades, leverage, energy_weight, roles, settings.coverage, level
    )
    return replace(committee, uncertainty=uncertainty)


class CrossValidation(NamedTuple):
    """Committees that were each fitted without a part of the training set.

    Attributes
    ----------
    fold : (n,) int64
        Fold of each training configuration; -1 if the others do not determine the fit.
    committees : list of LinearPotential
        The committee of each fold, fitted without its configurations, and without an uncertainty.
    """

    fold: Array
    committees: list[LinearPotential]


def cross_validate_committee(
    fit: CommitteeFit,
    settings: CommitteeSettings,
    potential: LinearPotential,
    *,
    constraint: ColumnConstraint | None = None,
    level: str = "",
    n_folds: int = N_FOLDS,
) -> CrossValidation:
    """Fit committees without each fold of the training set, from the moments of the fit.

    The groups of a block of `fit`, and so all configurations of a group, are in the same fold. Predictions of the
    committee of a fold for its configurations have the errors of new groups of the same distribution, except that the
    training set is smaller by a fold.

    Parameters
    ----------
    fit : CommitteeFit
    settings : CommitteeSettings
    potential : LinearPotential
        Committee of the fit, from `build_committee`.
    constraint : ColumnConstraint, optional
        Constraint of the fit, with values for `level`.
    level : str
    n_folds : int
        Largest number of folds.
    """
    n_blocks = len(fit.G)
    fold_of_block = np.arange(n_blocks) % min(n_folds, n_blocks)
    n_columns = potential.coefficients.shape[1]
    mean = _expand(fit.coefficients, constraint, level)
    committees: list[LinearPotential] = []
    number_of_block = np.full(n_blocks, -1)
    for fold in range(int(fold_of_block.max()) + 1):
        try:
            part = fit.leave_out(np.flatnonzero(fold_of_block == fold))
            members = _draw_members(part, settings, None, constraint, level)
        except InputError:  # a group that alone determines a coefficient, such as the only one with an element
            continue
        coefficients = potential.mean_coefficients + (members - mean)[:, :n_columns]
        number_of_block[fold_of_block == fold] = len(committees)
        committees.append(replace(potential, coefficients=coefficients, uncertainty=None))
    return CrossValidation(number_of_block[fit.block_numbers], committees)


def _expand(coefficients: Array, constraint: ColumnConstraint | None, level: str) -> Array:
    return coefficients if constraint is None else constraint.expand(coefficients, level)


def _draw_members(
    fit: CommitteeFit,
    settings: CommitteeSettings,
    centre: Array | None,
    constraint: ColumnConstraint | None,
    level: str,
) -> Array:
    """Draw all coefficients of the members, ``(m, p)``; shift their mean to `centre`, by default that of the fit."""
    method = cast("CommitteeMethod", settings.method)
    members = fit.draw_members(settings.members, np.random.default_rng(settings.seed), method=method)
    if np.ptp(members, axis=0).max() <= 0:
        raise InputError(
            "all members of the committee are identical, so their spread contains no information; add training "
            "configurations"
        )
    members = _expand(members, constraint, level)
    mean = _expand(fit.coefficients, constraint, level) if centre is None else centre
    return np.asarray(members + (mean - members.mean(axis=0)))


def expand_leverage(leverage: TrainingLeverage, constraint: ColumnConstraint) -> TrainingLeverage:
    """Convert the leverage in the retained columns of a constraint to the leverage in all columns.

    The equations are training rows of nearly infinite weight, so that a row has the leverage of its reduced row.
    """
    reduced = leverage.restrict_columns(len(constraint.retained))
    n, retained = len(constraint.eliminated), reduced.retained_columns
    R = np.zeros((n + len(retained), n + len(retained)))
    R[:n, :n] = CONSTRAINT_WEIGHT * np.eye(n)
    R[:n, n:] = -CONSTRAINT_WEIGHT * constraint.matrix[:, retained]
    R[n:, n:] = reduced.R
    return TrainingLeverage(np.concatenate([constraint.eliminated, constraint.retained[retained]]), R)


def calibrate_committee(
    committee: CommitteePotential,
    training: Sequence[Atoms],
    calibration_set: LabelledStructures,
    context: RunContext,
) -> tuple[dict[RowKind, CalibrationData], dict[str, str]]:
    """Collect spreads and residuals of quantities with enough held-out labels, and the role of each structure.

    Parameters
    ----------
    committee : LinearPotential or MacePotential
        The committee; it does not have to contain an uncertainty.
    training : sequence of ase.Atoms
    calibration_set : LabelledStructures
        Held-out structures; may be empty.
    context : RunContext
    """
    held_out = calibration_set.structures
    roles = {hash_structure(atoms): HELD_OUT for atoms in held_out}
    roles |= {hash_structure(atoms): TRAIN for atoms in training}
    predicted = predict_spreads(committee, held_out, context)
    n_atoms = [len(atoms) for atoms in held_out]
    calibration = collect_calibration_data(predicted, calibration_set.labels, n_atoms, calibration_set.groups)
    return {
        kind: data
        for kind, data in calibration.items()
        if len(np.unique(data.configuration)) >= MIN_CALIBRATION_CONFIGURATIONS
    }, roles


def format_committee(potential: LinearPotential) -> str:
    """Format the calibration of a committee as plain text."""
    uncertainty = potential.uncertainty
    if uncertainty is None:
        return "no committee"
    coverage = f"{100 * uncertainty.coverage:g} % intervals"
    lines = [f"committee of {len(potential.coefficients)} by {uncertainty.method}"]
    for kind, held_out in uncertainty.held_out.items():
        factor, unit = DISPLAY_UNITS[kind]
        line, interval = uncertainty.fit_calibration(kind), uncertainty.fit_interval(kind)
        rmse = factor * float(np.sqrt(np.mean(held_out.residual**2)))
        interval_text = f"too few for {coverage}"
        if interval is not None:
            half_width = factor * float(np.median(interval.compute_half_width(held_out.spread)))
            interval_text = f"median half width of the {coverage} {half_width:.4g} {unit}"
        lines.append(
            f"{kind.name.lower():6} held out: rmse {rmse:.4g} {unit} on {len(np.unique(held_out.configuration))} "
            f"configurations; {interval_text}; disagreement = {line.slope:.3g} ± {line.slope_half_width:.2g} × error"
        )
    if uncertainty.held_out and RowKind.STRESS not in uncertainty.held_out:
        lines.append("stresses are not calibrated: too few held-out configurations have a stress label")
    if potential.basis.quadratic and not all(grade.quadratic for grade in uncertainty.environments.values()):
        lines.append("grades use linear descriptors only, because there are fewer than two training atoms per column")
    if not uncertainty.held_out:
        lines.append(
            "standard deviations and grades only: without held-out configurations, intervals are not calibrated"
        )
    return "\n".join(lines)
