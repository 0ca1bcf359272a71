"""Construction of a committee potential from a fit: members, calibration on held-out structures, grades of atoms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, cast

import numpy as np
from ase import Atoms, units

from paretofit.core import Array, InputError, RowKind, check_choice
from paretofit.dataset import Dataset
from paretofit.descriptors import AnyBasis, ColumnConstraint, DesignMatrix, ReferencePotential
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

N_FOLDS = 10  # number of folds in the cross-validation of a committee; fewer if the fit has fewer blocks
MIN_CALIBRATION_CONFIGURATIONS = 3  # minimum number of labelled configurations for the slope of a calibration
# Weight of the equations of a constraint in leverages. Products with a power of two have no rounding errors.
CONSTRAINT_WEIGHT = 2.0**50
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
        How the members differ; see `paretofit.uncertainty`.
    coverage : float
        Coverage of the intervals, between 0 and 1.
    seed : int
        Seed of the random numbers that distinguish the members.
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
            Number of groups in the calibration set; None if there is no calibration set.

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


def partition_training_rows(design: DesignMatrix, level: str, positions: Array, n_columns: int) -> list[Part]:
    """Partition the training rows of a design into parts that are reduced in parallel; each part reads its own blocks.

    The training configurations are those at `positions`, ``(n,) int`` in ascending order; the number of a configuration
    in the parts is its index in `positions`. The parts contain the first `n_columns` columns, and the labels at `level`
    as targets.
    """
    is_training = np.zeros(design.n_configurations, dtype=bool)
    is_training[positions] = True

    def read_blocks(row_range: slice) -> Iterator[RowBlock]:
        for window, rows in design.iterate_blocks(row_range=row_range):
            configuration = design.configuration[window]
            is_selected = is_training[configuration]
            if is_selected.any():
                X, Y = rows[is_selected, :n_columns], design.targets[level][window][is_selected, None]
                numbers = np.searchsorted(positions, configuration[is_selected])
                yield RowBlock(X, Y, design.kind[window][is_selected], numbers, np.ones(len(X), dtype=bool))

    return [partial(read_blocks, row_range) for row_range in split_rows(design.n_rows, n_columns)]


@dataclass(frozen=True)
class LabelledStructures:
    """Structures with their labels and groups.

    Attributes
    ----------
    structures : sequence of ase.Atoms
    labels : sequence of StructureLabels
    group : (n,) int, optional
        Group of each structure; by default, every structure is a separate group.
    """

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
        """Select the configurations at `positions` in a dataset, ``(n,) int``, and their labels at one level.

        `group` has the group of every configuration of the dataset, including those that are not selected.
        """
        selection = dataset.select(positions)
        labels = selection.labels(level)
        forces = np.split(labels.forces, labels.offsets[1:-1])
        structure_labels = map(StructureLabels, labels.energy, forces, labels.stress)
        return cls(list(selection), list(structure_labels), None if group is None else group[positions])


def build_committee(
    basis: AnyBasis,
    fit: CommitteeFit,
    settings: CommitteeSettings,
    training_structures: Sequence[Atoms],
    calibration_set: LabelledStructures,
    *,
    centre: Array | None = None,
    reference: ReferencePotential | None = None,
    energy_weight: float = 1.0,
    level: str = "",
    n_columns: int | None = None,
    constraint: ColumnConstraint | None = None,
    context: RunContext,
) -> LinearPotential:
    """Draw the members, calibrate them on held-out structures, and fit the grades of atoms to the training set.

    Parameters
    ----------
    basis : SnapBasis or PodBasis
        Basis with the 2Jmax of the model.
    fit : CommitteeFit
        Fit to the training rows, from which the members are drawn.
    settings : CommitteeSettings
    training_structures : sequence of ase.Atoms
    calibration_set : LabelledStructures
        Held-out structures; without any, the committee has no intervals.
    centre : (p,) float64, optional
        Coefficients to which the mean of the members is shifted, of all columns including those that a constraint
        eliminated; by default those of `fit`.
    reference : ReferencePotential, optional
        Reference potential that was subtracted from the labels.
    energy_weight : float
        Weight w_E of energy rows in the fit, for leverages.
    level : str
        Level of the labels.
    n_columns : int, optional
        Number of leading columns of the fit that belong to the model; the other columns belong to the labels, such as
        offsets of levels. By default, all columns belong to the model.
    constraint : ColumnConstraint, optional
        Constraint by which columns were eliminated before the fit, with values for `level`; `n_columns` counts the
        eliminated columns too.
    context : RunContext

    Returns
    -------
    LinearPotential
        The committee with its uncertainty.

    Raises
    ------
    InputError
        If all members are identical.
    """
    members, leverage = _draw_members(fit, settings, centre, constraint, level)[:, :n_columns], fit.leverage
    if constraint is None:
        leverage = leverage.restrict_columns(members.shape[1])
    else:
        leverage = expand_leverage(leverage, constraint.restrict_columns(members.shape[1]))
    committee = LinearPotential(basis, members, reference)
    calibration, roles = calibrate_committee(committee, training_structures, calibration_set, context)
    grades = fit_linear_grades(basis, training_structures, context)
    uncertainty = Uncertainty(
        settings.method, calibration, grades, leverage, energy_weight, roles, settings.coverage, level
    )
    return replace(committee, uncertainty=uncertainty)


class CrossValidation(NamedTuple):
    """Committees, each of which was fitted without one fold of the training set.

    Attributes
    ----------
    fold : (n,) int64
        Index in `committees` of the committee that was fitted without this training configuration; -1 if there is none,
        because the other folds do not determine the fit.
    committees : list of LinearPotential
        Committees without an uncertainty, one for each fold without which the fit is determined.
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
) -> CrossValidation:
    """Fit, for each fold of the training set, a committee to the other folds.

    The fits use the moments in `fit` instead of the rows. A fold consists of whole blocks of `fit`, so that all
    configurations of a group are in the same fold. The errors of a committee on its fold are therefore those for new
    groups from the same distribution, apart from the effect of the smaller training set.

    Parameters
    ----------
    fit : CommitteeFit
    settings : CommitteeSettings
    potential : LinearPotential
        Committee of the fit, from `build_committee`.
    constraint : ColumnConstraint, optional
        Constraint of the fit, with values for `level`.
    level : str
        Level of the labels; only used with a constraint.
    """
    n_blocks = len(fit.G)
    fold_of_block = np.arange(n_blocks) % min(N_FOLDS, n_blocks)
    n_columns = potential.coefficients.shape[1]
    fit_coefficients = _expand_columns(fit.coefficients, constraint, level)
    committees: list[LinearPotential] = []
    committee_of_block = np.full(n_blocks, -1)
    for fold in range(int(fold_of_block.max()) + 1):
        try:
            remaining_fit = fit.leave_out(np.flatnonzero(fold_of_block == fold))
            members = _draw_members(remaining_fit, settings, None, constraint, level)
        except InputError:  # the other folds do not determine the fit, for example if they lack an element
            continue
        # The mean of `potential` may differ from the fit (`centre` in `build_committee`); members are shifted likewise.
        coefficients = potential.mean_coefficients + (members - fit_coefficients)[:, :n_columns]
        committee_of_block[fold_of_block == fold] = len(committees)
        committees.append(replace(potential, coefficients=coefficients, uncertainty=None))
    return CrossValidation(committee_of_block[fit.block_numbers], committees)


def _expand_columns(coefficients: Array, constraint: ColumnConstraint | None, level: str) -> Array:
    """Insert the coefficients of the columns that the constraint, if there is one, eliminated."""
    return coefficients if constraint is None else constraint.expand(coefficients, level)


def _draw_members(
    fit: CommitteeFit,
    settings: CommitteeSettings,
    centre: Array | None,
    constraint: ColumnConstraint | None,
    level: str,
) -> Array:
    """Draw the members, ``(m, p)`` with the eliminated columns, and shift their mean to `centre`.

    If `centre` is None, the mean is shifted to the coefficients of the fit. If all members are identical, an
    `InputError` is raised.
    """
    method = cast("CommitteeMethod", settings.method)
    members = fit.draw_members(settings.members, np.random.default_rng(settings.seed), method=method)
    if np.ptp(members, axis=0).max() <= 0:
        raise InputError(
            "all members of the committee are identical, so their spread contains no information; add training "
            "configurations"
        )
    members = _expand_columns(members, constraint, level)
    if centre is None:
        centre = _expand_columns(fit.coefficients, constraint, level)
    return np.asarray(members + (centre - members.mean(axis=0)))


def expand_leverage(leverage: TrainingLeverage, constraint: ColumnConstraint) -> TrainingLeverage:
    """Convert the leverage for rows of the retained columns of a constraint to one for rows of all columns.

    The equations of the constraint are treated as training rows with a very large weight, so that the leverage of a row
    does not change.
    """
    retained_leverage = leverage.restrict_columns(len(constraint.retained_columns))
    n_eliminated, retained_columns = len(constraint.eliminated_columns), retained_leverage.retained_columns
    n_columns = n_eliminated + len(retained_columns)
    R = np.zeros((n_columns, n_columns))  # triangular factor of all rows, in the order eliminated, retained
    R[:n_eliminated, :n_eliminated] = CONSTRAINT_WEIGHT * np.eye(n_eliminated)
    R[:n_eliminated, n_eliminated:] = -CONSTRAINT_WEIGHT * constraint.matrix[:, retained_columns]
    R[n_eliminated:, n_eliminated:] = retained_leverage.R
    return TrainingLeverage(
        np.concatenate([constraint.eliminated_columns, constraint.retained_columns[retained_columns]]), R
    )


def calibrate_committee(
    committee: CommitteePotential,
    training_structures: Sequence[Atoms],
    calibration_set: LabelledStructures,
    context: RunContext,
) -> tuple[dict[RowKind, CalibrationData], dict[str, str]]:
    """Collect the spreads and residuals of a committee on held-out structures, and the role of each structure.

    Parameters
    ----------
    committee : LinearPotential or MacePotential
        Committee with or without an uncertainty.
    training_structures : sequence of ase.Atoms
    calibration_set : LabelledStructures
        Held-out structures; may be empty.
    context : RunContext

    Returns
    -------
    calibration : dict of RowKind to CalibrationData
        Without kinds for which fewer than `MIN_CALIBRATION_CONFIGURATIONS` structures have a label.
    roles : dict of str to str
        "train" or "held out" by the digest of `hash_structure`; a structure in both sets is a training structure.
    """
    held_out_structures = calibration_set.structures
    roles = {hash_structure(atoms): HELD_OUT for atoms in held_out_structures}
    roles |= {hash_structure(atoms): TRAIN for atoms in training_structures}
    predictions = predict_spreads(committee, held_out_structures, context)
    n_atoms = [len(atoms) for atoms in held_out_structures]
    calibration = collect_calibration_data(predictions, calibration_set.labels, n_atoms, calibration_set.groups)
    n_labelled = {kind: len(np.unique(data.configuration)) for kind, data in calibration.items()}
    kinds = [kind for kind, count in n_labelled.items() if count >= MIN_CALIBRATION_CONFIGURATIONS]
    return {kind: calibration[kind] for kind in kinds}, roles


def format_committee(potential: LinearPotential) -> str:
    """Format the calibration of a committee as lines of plain text, with notes on what is not calibrated."""
    uncertainty = potential.uncertainty
    if uncertainty is None:
        return "no committee"
    coverage = f"{100 * uncertainty.coverage:g} % intervals"
    lines = [f"committee of {len(potential.coefficients)} by {uncertainty.method}"]
    for kind, calibration_data in uncertainty.calibration_data.items():
        factor, unit = DISPLAY_UNITS[kind]
        line, interval = uncertainty.fit_calibration(kind), uncertainty.fit_interval(kind)
        rmse = factor * float(np.sqrt(np.mean(calibration_data.residual**2)))
        interval_text = f"too few for {coverage}"
        if interval is not None:
            half_width = factor * float(np.median(interval.compute_half_width(calibration_data.spread)))
            interval_text = f"median half width of the {coverage} {half_width:.4g} {unit}"
        lines.append(
            f"{kind.name.lower():6} held out: rmse {rmse:.4g} {unit} on "
            f"{len(np.unique(calibration_data.configuration))} configurations; {interval_text}; "
            f"disagreement = {line.slope:.3g} ± {line.slope_half_width:.2g} × error"
        )
    if uncertainty.calibration_data and RowKind.STRESS not in uncertainty.calibration_data:
        lines.append("stresses are not calibrated: too few held-out configurations have a stress label")
    if potential.basis.has_products and not all(grade.quadratic for grade in uncertainty.environment_grades.values()):
        lines.append("grades use linear descriptors only, because there are fewer than two training atoms per column")
    if not uncertainty.calibration_data:
        lines.append(
            "standard deviations and grades only: without held-out configurations, intervals are not calibrated"
        )
    return "\n".join(lines)
