"""Errors of a committee on the labelled configurations, by set and by member."""

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
from paretofit.learning.selection import PROPERTIES
from paretofit.learning.sets import TEST, TRAIN, VALIDATE
from paretofit.potentials import LabelledStructures, StructureLabels, tabulate_components

SET_NAMES = (TRAIN, VALIDATE, TEST)
MAX_MEMBER_ERROR_RATIO = 2.0
FIRST_TEST = "first_test"  # test set of the first iteration: unlike the full test set, it is the same in all iterations


@dataclass(frozen=True)
class CommitteeErrors:
    """Errors of a committee on labelled configurations.

    Attributes
    ----------
    table : DataFrame
        A row per configuration: ``id, set, iteration, n_atoms, extrapolation_grade``, and by property ``*_std``
        (disagreement), ``*_committee_error`` (equation 2 of Bidoggia et al., 2025) and ``*_error`` (root mean square
        error of the mean); meV/atom, meV/Å, meV/Å³; NaN without a label.
    components : DataFrame
        A row per label component of the validation and test sets: ``configuration`` (row of the table), ``quantity,
        label, prediction, error``.
    rmse : dict of str to dict
        Root mean square errors by set and property: ``value`` of the potential (the mean of the members), and
        ``members`` and ``spread``, the mean and standard deviation of the errors of the individual members, and
        ``by_member``, their errors.
    """

    table: pd.DataFrame
    components: pd.DataFrame
    rmse: dict[str, dict[str, dict[str, Any]]]


class _Comparison(NamedTuple):
    """Comparison of a committee with the labels of one structure; columns are `PROPERTIES`."""

    squared_errors: Array  # (n_members, 3), means over components
    counts: list[int]  # (3,) labelled components
    spread: list[float]  # (3,)
    error: list[float]  # (3,)
    grade: float
    components: pd.DataFrame


def evaluate_committee(
    committee: Committee,
    labelled: LabelledStructures,
    records: pd.DataFrame,
    context: RunContext,
) -> CommitteeErrors:
    """Compute the errors of a committee on labelled structures.

    Parameters
    ----------
    committee : Committee
    labelled : LabelledStructures
        Structures with labels on the energy scale of the best level.
    records : DataFrame
        ``id, set, iteration`` of each structure.
    context : RunContext
    """
    pairs = list(zip(labelled.structures, labelled.labels, strict=True))
    comparisons = map_structures(_compare_with_labels, committee, pairs, "errors", context)
    n = len(comparisons)
    squared_errors = np.array([row.squared_errors for row in comparisons]).reshape(n, -1, len(PROPERTIES))
    counts = np.array([row.counts for row in comparisons]).reshape(n, len(PROPERTIES))
    table = records.reset_index(drop=True).assign(n_atoms=[len(atoms) for atoms in labelled.structures])
    table["extrapolation_grade"] = [row.grade for row in comparisons]
    for k, name in enumerate(PROPERTIES):
        table[f"{name}_std"] = [row.spread[k] for row in comparisons]
        table[f"{name}_committee_error"] = 1000 * np.sqrt(squared_errors[:, :, k].mean(axis=1))
        table[f"{name}_error"] = [row.error[k] for row in comparisons]
    errors = table[[f"{name}_error" for name in PROPERTIES]].to_numpy()
    rmse = {}
    for name in (*SET_NAMES, FIRST_TEST):
        is_in_set = (table["set"] == name.removeprefix("first_")).to_numpy()
        if name == FIRST_TEST:
            is_in_set = is_in_set & (table["iteration"] == 1).to_numpy()
        rmse[name] = _compute_rmse(squared_errors[is_in_set], errors[is_in_set], counts[is_in_set])
    tables = [row.components.assign(configuration=k) for k, row in enumerate(comparisons) if table["set"][k] != TRAIN]
    components = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"quantity": []})
    return CommitteeErrors(table, components, rmse)


def _compute_rmse(squared_errors: Array, errors: Array, counts: Array) -> dict[str, dict[str, Any]]:
    """Compute the root mean square errors of a set, weighted by the number of labelled components; NaN without labels.

    Parameters
    ----------
    squared_errors : (n, n_members, 3) float64
    errors : (n, 3) float64
        Errors of the mean of the members, meV.
    counts : (n, 3) int
        Numbers of labelled components.
    """
    totals = counts.sum(axis=0)

    def average(values: Array, weights: Array) -> Array:
        mean_square = np.nansum(values * weights, axis=0) / np.maximum(totals, 1)
        return np.where(totals > 0, np.sqrt(mean_square), np.nan)

    member_rmse = 1000 * average(squared_errors, counts[:, None, :])
    mean_rmse = average(errors**2, counts)
    return {
        name: {
            "value": float(mean_rmse[k]),
            "members": float(values.mean()),
            "spread": float(values.std()),
            "by_member": values.tolist(),
        }
        for k, (name, values) in enumerate(zip(PROPERTIES, member_rmse.T, strict=True))
    }


def find_usual_members(rmse: dict[str, dict[str, Any]]) -> list[int]:
    """Find the members whose training errors are at most `MAX_MEMBER_ERROR_RATIO` times the smallest of all members.

    Parameters
    ----------
    rmse : dict of str to dict
        Errors on the training set by property, as in `CommitteeErrors`.
    """
    errors = np.array([rmse[name]["by_member"] for name in ("energy", "forces")])
    with np.errstate(invalid="ignore"):
        ratios = errors / errors.min(axis=1, keepdims=True)
    return np.flatnonzero(~(ratios > MAX_MEMBER_ERROR_RATIO).any(axis=0)).tolist() or [int(errors[1].argmin())]


def _compare_with_labels(committee: Committee, pair: tuple[Atoms, StructureLabels]) -> _Comparison:
    """Compare the predictions for one structure with its labels, in a worker process."""
    atoms, label = pair
    assessment, members = committee.assess_members(atoms)
    n = len(atoms)
    predictions = (members.energy[:, None] / n, members.forces.reshape(len(members.forces), -1), members.stress)
    targets = (np.atleast_1d(label.energy) / n, np.ravel(label.forces), np.ravel(label.stress))
    squared_errors, counts, spread, error = [], [], [], []
    for prediction, target in zip(predictions, targets, strict=True):
        is_finite = np.isfinite(prediction).all(axis=0)
        is_labelled = np.isfinite(target) & is_finite
        has_label = is_labelled.any()
        deviation = (prediction - target)[:, is_labelled]
        mean_deviation = (prediction.mean(axis=0) - target)[is_labelled]
        counts.append(int(is_labelled.sum()))
        squared_errors.append((deviation**2).mean(axis=1) if has_label else np.full(len(prediction), np.nan))
        error.append(1000 * float(np.sqrt(np.mean(mean_deviation**2))) if has_label else np.nan)
        spread.append(1000 * float(np.sqrt(prediction[:, is_finite].var(axis=0).mean())) if is_finite.any() else np.nan)
    components = tabulate_components(label, assessment, n)
    return _Comparison(np.transpose(squared_errors), counts, spread, error, assessment.grade, components)
