"""Errors of a committee on the labelled configurations, by set and by member.

Errors and disagreements are in meV/atom, meV/Å and GPa. `evaluate_cross_validation` computes them for configurations of
the training set, each with a committee that was not trained on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from ase import Atoms

from paretofit.core import Array
from paretofit.descriptors import map_structures
from paretofit.execution import RunContext
from paretofit.learning.model import Committee
from paretofit.learning.selection import PROPERTIES, SCALES
from paretofit.learning.set_balance import TEST, TRAIN, VALIDATE
from paretofit.potentials import (
    CrossValidation,
    LabelledStructures,
    LinearPotential,
    StructureLabels,
    tabulate_components,
)

SET_NAMES = (TRAIN, VALIDATE, TEST)
MAX_MEMBER_ERROR_RATIO = 2.0  # ratio of a typical member's training error to the smallest training error of a member
FIRST_TEST = "first_test"  # test set of the first iteration: unlike the full test set, it is the same in all iterations


@dataclass(frozen=True)
class CommitteeErrors:
    """Errors of a committee on labelled configurations.

    Attributes
    ----------
    table : DataFrame
        A row per configuration: the columns of the table of configurations, ``n_atoms, periodic`` (number of periodic
        directions), ``extrapolation_grade``, and by property ``*_std`` (disagreement), ``*_committee_error`` (equation
        2 of Bidoggia et al., 2025) and ``*_error`` (root mean square error of the mean prediction); meV/atom, meV/Å,
        GPa; NaN if unknown.
    components : DataFrame
        A row per label component of the validation and test sets: ``configuration`` (row of the table) and the columns
        of `paretofit.potentials.tabulate_components`.
    rmse : dict of str to dict
        Root mean square errors by set (`SET_NAMES` and `FIRST_TEST`) and property, NaN without labels. ``value``: error
        of the potential, which is the mean of the members. ``weighted``: the same with the weights of the training,
        which are lower for structures far above equilibrium. ``by_member``: error of each member. ``members``,
        ``spread``: mean and standard deviation of ``by_member``. ``labels``: number of configurations with a label.
    """

    table: pd.DataFrame
    components: pd.DataFrame
    rmse: dict[str, dict[str, dict[str, Any]]]


class _Comparison(NamedTuple):
    """Comparison of a committee with the labels of one structure, by property; meV/atom, meV/Å, GPa; NaN if unknown."""

    squared_errors: Array  # (n_members, 3): squared errors of each member, averaged over components
    counts: list[int]  # (3,): numbers of labelled components
    disagreements: list[float]  # (3,): disagreements between the members
    errors: list[float]  # (3,): root mean square errors of the mean prediction

    @property
    def committee_error(self) -> Array:
        """Error of the members by property, ``(3,)``: equation 2 of Bidoggia et al. (2025)."""
        return np.asarray(np.sqrt(self.squared_errors.mean(axis=0)))


def evaluate_committee(
    committee: Committee,
    labelled: LabelledStructures,
    configuration_table: pd.DataFrame,
    context: RunContext,
) -> CommitteeErrors:
    """Compute the errors of a committee on labelled structures.

    Parameters
    ----------
    committee : Committee
    labelled : LabelledStructures
        Structures with labels on the energy scale of the best level.
    configuration_table : DataFrame
        A row per structure with at least ``id, set, iteration``; ``weight`` is 1 if the column is missing.
    context : RunContext
        Number of processes, and progress.

    Raises
    ------
    InputError
        If the committee has no data on its training set.
    """
    pairs = list(zip(labelled.structures, labelled.labels, strict=True))
    evaluations = map_structures(_assess_and_compare, committee, pairs, "errors", context)
    comparisons = [comparison for comparison, _, _ in evaluations]
    n = len(comparisons)
    # the shapes are stated, because arrays from empty lists have one dimension
    squared_errors = np.array([row.squared_errors for row in comparisons]).reshape(n, -1, len(PROPERTIES))
    counts = np.array([row.counts for row in comparisons]).reshape(n, len(PROPERTIES))
    table = configuration_table.reset_index(drop=True).assign(n_atoms=[len(atoms) for atoms in labelled.structures])
    table["periodic"] = [int(atoms.pbc.sum()) for atoms in labelled.structures]
    table["extrapolation_grade"] = [grade for _, grade, _ in evaluations]
    _add_columns(table, comparisons)
    errors = table[[f"{name}_error" for name in PROPERTIES]].to_numpy()
    weights = table["weight"].to_numpy() if "weight" in table else np.ones(n)
    rmse = {}
    for name in (*SET_NAMES, FIRST_TEST):
        is_in_set = (table["set"] == (TEST if name == FIRST_TEST else name)).to_numpy()
        if name == FIRST_TEST:
            is_in_set = is_in_set & (table["iteration"] == 1).to_numpy()
        rmse[name] = _compute_rmse(squared_errors[is_in_set], errors[is_in_set], counts[is_in_set], weights[is_in_set])
    component_tables = [
        component_table.assign(configuration=row)
        for row, (_, _, component_table) in enumerate(evaluations)
        if table["set"][row] != TRAIN
    ]
    components = pd.concat(component_tables, ignore_index=True) if component_tables else pd.DataFrame({"quantity": []})
    return CommitteeErrors(table, components, rmse)


def evaluate_cross_validation(
    cross_validation: CrossValidation, labelled: LabelledStructures, context: RunContext
) -> pd.DataFrame:
    """Compute disagreements and errors of training configurations with committees that were not trained on them.

    Parameters
    ----------
    cross_validation : CrossValidation
    labelled : LabelledStructures
        All structures of the training data, in their order, with labels on the energy scale of the best level.
    context : RunContext

    Returns
    -------
    DataFrame
        ``*_std``, ``*_committee_error`` and ``*_error`` of the structures that belong to a fold; the index is the
        position of the structure in `labelled`. Empty if there are no committees.
    """
    fold_tables = []
    for number, committee in enumerate(cross_validation.committees):
        indices = np.flatnonzero(cross_validation.fold == number)
        pairs = [(labelled.structures[index], labelled.labels[index]) for index in indices.tolist()]
        comparisons = map_structures(_predict_and_compare, committee, pairs, "cross-validation", context)
        fold_tables.append(_add_columns(pd.DataFrame(index=indices), comparisons))
    return pd.concat(fold_tables).sort_index() if fold_tables else pd.DataFrame()


def _add_columns(table: pd.DataFrame, comparisons: list[_Comparison]) -> pd.DataFrame:
    """Add the columns ``*_std``, ``*_committee_error`` and ``*_error`` to a table in place, and return the table."""
    for column, name in enumerate(PROPERTIES):
        table[f"{name}_std"] = [comparison.disagreements[column] for comparison in comparisons]
        table[f"{name}_committee_error"] = [comparison.committee_error[column] for comparison in comparisons]
        table[f"{name}_error"] = [comparison.errors[column] for comparison in comparisons]
    return table


def _compute_rmse(squared_errors: Array, errors: Array, counts: Array, weights: Array) -> dict[str, dict[str, Any]]:
    """Compute the root mean square errors of a set over all labelled components; NaN without labels.

    The last axis of the arrays is that of `PROPERTIES`. The result is described in `CommitteeErrors.rmse`.

    Parameters
    ----------
    squared_errors : (n, n_members, 3) float64
        Squared errors of each member, averaged over the components of a configuration.
    errors : (n, 3) float64
        Root mean square errors of the mean of the members.
    counts : (n, 3) int
        Numbers of labelled components.
    weights : (n,) float64
        Weights of the rows of the configurations in the training.
    """

    def compute_rms(squares: Array, factors: Array) -> Array:
        """Compute the root of the mean of `squares` over the configurations, the first axis, weighted by `factors`."""
        totals = factors.sum(axis=0)
        mean_square = np.nansum(squares * factors, axis=0) / np.where(totals > 0, totals, 1.0)
        return np.where(totals > 0, np.sqrt(mean_square), np.nan)

    member_rmse = compute_rms(squared_errors, counts[:, None, :])
    # weights multiply rows, so squared errors are multiplied by the squares of the weights
    mean_rmse = compute_rms(errors**2, counts)
    weighted_rmse = compute_rms(errors**2, weights[:, None] ** 2 * counts)
    return {
        name: {
            "value": float(mean_rmse[column]),
            "weighted": float(weighted_rmse[column]),
            "members": float(member_rmse[:, column].mean()),
            "spread": float(member_rmse[:, column].std()),
            "by_member": member_rmse[:, column].tolist(),
            "labels": int((counts[:, column] > 0).sum()),
        }
        for column, name in enumerate(PROPERTIES)
    }


def find_typical_members(rmse: dict[str, dict[str, Any]]) -> list[int]:
    """List the members with typical training errors of energies and forces.

    A typical error is at most `MAX_MEMBER_ERROR_RATIO` times the smallest error of a member. If no member is typical,
    the list contains the member with the smallest force error. A property with unknown errors is ignored.

    Parameters
    ----------
    rmse : dict of str to dict
        Errors on the training set by property, as in `CommitteeErrors`.
    """
    errors = np.array([rmse[name]["by_member"] for name in ("energy", "forces")])
    with np.errstate(invalid="ignore"):  # NaN, from 0 / 0 or missing labels, counts as typical
        ratios = errors / errors.min(axis=1, keepdims=True)
    typical_members = np.flatnonzero(~(ratios > MAX_MEMBER_ERROR_RATIO).any(axis=0)).tolist()
    return typical_members or [int(errors[1].argmin())]


def _assess_and_compare(
    committee: Committee, pair: tuple[Atoms, StructureLabels]
) -> tuple[_Comparison, float, pd.DataFrame]:
    """Compare a committee with the labels of one structure; also return its grade and the table of its components."""
    atoms, label = pair
    assessment, members = committee.assess_members(atoms)
    components = tabulate_components(label, assessment, len(atoms))
    return _compare(members, label, len(atoms)), assessment.grade, components


def _predict_and_compare(committee: LinearPotential, pair: tuple[Atoms, StructureLabels]) -> _Comparison:
    """Compare a committee with the labels of one structure, without its extrapolation grade."""
    atoms, label = pair
    return _compare(committee.predict(atoms), label, len(atoms))


def _compare(members: Any, label: StructureLabels, n_atoms: int) -> _Comparison:
    """Compare the predictions of the members for a structure of `n_atoms` atoms with its labels.

    `members` has the attributes ``energy`` (m,), ``forces`` (m, N, 3) and ``stress`` (m, 6), in eV and Å; components
    that are not finite, such as stresses of structures that are not periodic in three directions, are not used.
    """
    predictions = (members.energy[:, None] / n_atoms, members.forces.reshape(len(members.forces), -1), members.stress)
    targets = (np.atleast_1d(label.energy) / n_atoms, np.ravel(label.forces), np.ravel(label.stress))
    squared_errors, counts, disagreements, errors = [], [], [], []
    for prediction, target, scale in zip(predictions, targets, SCALES, strict=True):
        is_finite = np.isfinite(prediction).all(axis=0)
        is_labelled = np.isfinite(target) & is_finite
        has_label = is_labelled.any()
        member_errors = scale * (prediction - target)[:, is_labelled]
        mean_errors = member_errors.mean(axis=0)  # errors of the mean prediction
        counts.append(int(is_labelled.sum()))
        squared_errors.append((member_errors**2).mean(axis=1) if has_label else np.full(len(prediction), np.nan))
        errors.append(float(np.sqrt(np.mean(mean_errors**2))) if has_label else np.nan)
        variances = prediction[:, is_finite].var(axis=0)
        disagreements.append(scale * float(np.sqrt(variances.mean())) if variances.size else np.nan)
    return _Comparison(np.transpose(squared_errors), counts, disagreements, errors)
