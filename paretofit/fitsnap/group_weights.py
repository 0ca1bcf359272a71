"""Optimisation of group weights, with different configurations for the fits, the validation and a final test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from paretofit.core import InputError, RowKind, write_csv
from paretofit.descriptors import GPA_PER_BAR
from paretofit.linear import GroupKind, GroupMoments, OptimisedWeights, optimise_weights, trace_weight_front
from paretofit.pareto import pareto_front

# Fraction of each group's training configurations in the validation set; the test set has half as many.
VALIDATION_FRACTION = 0.3
FITTED, VALIDATION, TEST, EXCLUDED = range(4)  # parts of the training configurations
DIFFERENCE = "difference:"  # prefix of objectives that are energy differences of two configurations
# Rows, (m, p), and labels, (m,), of a quantity that is linear in the coefficients, such as an elastic constant.
Target = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class FitRows:
    """Rows of all configurations, with labels from which the reference potential is subtracted.

    Attributes
    ----------
    X : (n, p) float64
        Rows of the design matrix, without weights.
    y : (n,) float64
        Labels in eV/atom, eV/Å or GPa.
    kind : (n,) int8
        `RowKind` of each row.
    group : (n,) str
        Name of the group of each row.
    configuration : (n,) int64
        Index of the configuration of each row, from 0.
    weight : (n,) float64
        Factor of the residual of each row in the loss, in the inverse unit of the label.
    is_training : (n,) bool
    configuration_names : tuple of str
        Name of the file of each configuration, without suffix; empty if the names are unknown.
    """

    X: np.ndarray
    y: np.ndarray
    kind: np.ndarray
    group: np.ndarray
    configuration: np.ndarray
    weight: np.ndarray
    is_training: np.ndarray
    configuration_names: tuple[str, ...] = ()

    def select(self, index: np.ndarray) -> Self:
        """Return the rows at indices ``(m,) int`` or selected by a mask ``(n,) bool``."""
        names = ("X", "y", "kind", "group", "configuration", "weight", "is_training")
        return replace(self, **{name: getattr(self, name)[index] for name in names})


def search_weights(
    rows: FitRows,
    n_excluded_columns: int,
    objectives: Sequence[str],
    regulariser: float,
    seed: int,
    front_path: Path | None = None,
    targets: Mapping[str, Target] | None = None,
) -> tuple[OptimisedWeights, float]:
    """Optimise the weights of groups and kinds of rows for the errors of a validation set.

    Parameters
    ----------
    rows : FitRows
        Only training rows with positive weights are used; the weights are those from which the search starts.
    n_excluded_columns : int
        Number of leading columns that are not fitted.
    objectives : sequence of str
        Errors to minimise: ``energy``, ``force``, ``stress``, one of these for a group (``Liquid:force``), an energy
        difference (``difference:a/b``), or a name in `targets`.
    regulariser : float
        As in `optimise_weights`.
    seed : int
        Seed of the split into fitted, validation and test configurations.
    front_path : Path, optional
        CSV file to which the Pareto front of two objectives is written; by default none is written.
    targets : mapping of str to Target, optional
        Further objectives by name, such as properties, in units in which an error of 1e-4 is negligible.

    Returns
    -------
    optimised_weights : OptimisedWeights
    test_ratio : float
        Ratio of the test error with the optimised weights to that with the initial weights. The test error is the
        geometric mean of the errors of the objectives, measured with configurations that the search does not use.
        NaN if there are no test rows for the objectives.

    Raises
    ------
    InputError
        If an objective is unknown or has no validation rows, or a front is requested of other than two objectives.
    """
    search_rows = rows.select(rows.is_training & (rows.weight > 0))  # groups with zero weight are not fitted
    parts = _assign_parts(search_rows, int(rows.configuration.max()) + 1, seed)
    targets = dict(targets or {})
    for name in objectives:
        if name.startswith(DIFFERENCE):
            row, label, pair = _build_difference(rows, name)
            parts[list(pair)] = EXCLUDED  # otherwise, the search could fit the difference itself
            targets[name] = row[None], np.array([label])
    # Without this limit, columns that only rows of extremely small weight determine would appear linearly dependent.
    search_rows = replace(search_rows, weight=np.maximum(search_rows.weight, 1e-12 * search_rows.weight.max()))
    moments, test_moments = (
        _build_moments(search_rows, parts[search_rows.configuration], held_out_part, n_excluded_columns, targets)
        for held_out_part in (VALIDATION, TEST)
    )
    initial_weights = {group_kind: _compute_mean_weight(rows, group_kind) for group_kind in moments.train_sums}
    importance = _parse_objectives(moments, objectives, targets)
    if front_path is not None:
        _write_front(moments, initial_weights, objectives, targets, regulariser, front_path)
    optimised_weights = optimise_weights(moments, initial_weights, importance, regulariser=regulariser)
    test_importance = {key: share for key, share in importance.items() if key in test_moments.held_out_sums}
    if not test_importance:
        return optimised_weights, float("nan")
    # The objective is a weighted sum of the logarithms of errors.
    initial_objective, final_objective = (
        test_moments.compute_objective(weights, test_importance)[0]
        for weights in (initial_weights, optimised_weights.weights)
    )
    return optimised_weights, float(np.exp((final_objective - initial_objective) / sum(test_importance.values())))


def _build_moments(
    search_rows: FitRows,
    row_parts: np.ndarray,
    held_out_part: int,
    n_excluded_columns: int,
    targets: Mapping[str, Target],
) -> GroupMoments:
    """Compute the moments of the fitted rows, and of the rows of a held-out part and of the targets.

    `row_parts` has the part of each row, ``(n,) int``. Each target is treated as a held-out group of energy rows.
    """
    is_selected = (row_parts == FITTED) | (row_parts == held_out_part)
    rows, is_held_out = search_rows.select(is_selected), row_parts[is_selected] == held_out_part
    target_names = [name for name, (_, labels) in targets.items() for _ in labels]  # the group of each target row
    n_target_rows = len(target_names)
    return GroupMoments(
        np.vstack([rows.X, *(target_rows for target_rows, _ in targets.values())])[:, n_excluded_columns:],
        np.concatenate([rows.y, *(labels for _, labels in targets.values())]),
        np.concatenate([rows.kind, np.full(n_target_rows, RowKind.ENERGY)]),
        np.concatenate([rows.group, target_names]) if n_target_rows else rows.group,
        np.concatenate([is_held_out, np.ones(n_target_rows, dtype=bool)]),
        np.concatenate([rows.weight, np.ones(n_target_rows)]),
    )


def _write_front(
    moments: GroupMoments,
    initial_weights: dict[GroupKind, float],
    objectives: Sequence[str],
    targets: Mapping[str, Target],
    regulariser: float,
    path: Path,
) -> None:
    """Write a CSV file with the Pareto front of two objectives; its directory is created if it does not exist.

    Each row has the ``share`` of the second objective, the held-out errors ``error_OBJECTIVE`` in the units of rows,
    and the weights ``GROUP:KIND``.

    Raises
    ------
    InputError
        If there are not exactly two objectives, or one of them is invalid.
    """
    if len(objectives) != 2:
        names = ", ".join(objectives) or "none"
        raise InputError(f"a front requires two objectives, such as energy,force; got {names}")
    importances = (
        _parse_objectives(moments, objectives[:1], targets), _parse_objectives(moments, objectives[1:], targets)
    )  # fmt: skip
    error_names = [f"error_{name}" for name in objectives]
    points = []
    for share, optimum, errors in trace_weight_front(moments, initial_weights, importances, regulariser=regulariser):
        # Rows are in GPa; weights in the table are for stresses in bar, as in FitSNAP's input.
        weights = {
            f"{group}:{kind.name.lower()}": weight * (GPA_PER_BAR if kind == RowKind.STRESS else 1.0)
            for (group, kind), weight in optimum.weights.items()
        }
        points.append({"share": share, error_names[0]: errors[0], error_names[1]: errors[1], **weights})
    table = pd.DataFrame(points)
    path.parent.mkdir(parents=True, exist_ok=True)
    front = table.loc[pareto_front(table, error_names).index]
    write_csv(front.sort_values("share"), path)


def _build_difference(rows: FitRows, objective: str) -> tuple[np.ndarray, float, tuple[int, int]]:
    """Return the row and label of the energy difference per atom ``difference:a/b``, and the indices of a and b.

    Raises
    ------
    InputError
        If the objective does not contain a slash, or a name does not belong to exactly one configuration.
    """
    first_name, slash, second_name = objective.removeprefix(DIFFERENCE).partition("/")
    pair = []
    for name in (first_name, second_name):
        matches = [k for k, configuration_name in enumerate(rows.configuration_names) if configuration_name == name]
        if not slash or len(matches) != 1:
            raise InputError(
                f"'{objective}' must name two structures by their files, as in {DIFFERENCE}a/b; {len(matches)} "
                f"structures are called '{name}'"
            )
        pair.append(matches[0])
    # Each configuration has a single energy row.
    first_row, second_row = (np.flatnonzero((rows.configuration == k) & (rows.kind == RowKind.ENERGY))[0] for k in pair)
    return rows.X[first_row] - rows.X[second_row], float(rows.y[first_row] - rows.y[second_row]), (pair[0], pair[1])


def _assign_parts(rows: FitRows, n_configurations: int, seed: int) -> np.ndarray:
    """Assign the configurations of each group at random to the fitted, validation and test parts.

    Returns
    -------
    (n_configurations,) int64
        `FITTED`, `VALIDATION` or `TEST`; at least one configuration of each group is fitted, and a group of two or more
        has at least one validation configuration.
    """
    rng = np.random.default_rng(seed)
    parts = np.full(n_configurations, FITTED)
    for group in dict.fromkeys(rows.group.tolist()):
        members = rng.permutation(np.unique(rows.configuration[rows.group == group]))
        n_validation, n_test = round(VALIDATION_FRACTION * len(members)), round(VALIDATION_FRACTION / 2 * len(members))
        if len(members) > 1:
            n_validation = max(n_validation, 1)
            parts[members[:n_validation]] = VALIDATION
            parts[members[n_validation : min(n_validation + n_test, len(members) - 1)]] = TEST
    return parts


def _compute_mean_weight(rows: FitRows, group_kind: GroupKind) -> float:
    """Compute the geometric mean of the weights of the training rows of a group and kind."""
    group, kind = group_kind
    is_selected = rows.is_training & (rows.group == group) & (rows.kind == kind)
    return float(np.exp(np.log(rows.weight[is_selected]).mean()))


def _parse_objectives(
    moments: GroupMoments, objectives: Sequence[str], targets: Mapping[str, Target]
) -> dict[GroupKind, float]:
    """Convert objectives to the importance of each group and kind.

    Each objective has an importance of 1, divided equally among the groups that it matches. If several objectives match
    the same group and kind, the last one sets its importance.

    Raises
    ------
    InputError
        If an objective is unknown, or matches no rows of the validation set.
    """
    importance: dict[GroupKind, float] = {}
    kinds = {kind.name.lower(): kind for kind in RowKind}  # by the name that objectives use
    for objective in objectives:
        if objective in targets:
            importance[objective, RowKind.ENERGY] = 1.0
            continue
        group, _, kind_name = objective.rpartition(":")  # the group is empty for all groups
        if kind_name not in kinds:
            raise InputError(
                f"'{objective}' is not an objective; use energy, force or stress, optionally of a group, such as "
                f"Liquid:force, {DIFFERENCE}a/b in a FitSNAP input, or a property in a study"
            )
        matches = [
            (name, row_kind)
            for name, row_kind in moments.held_out_sums
            if row_kind == kinds[kind_name] and group in {"", name}
        ]
        if not matches:
            groups = ", ".join(dict.fromkeys(name for name, _ in moments.held_out_sums))
            raise InputError(f"the validation set has no rows for '{objective}'; available groups: {groups}")
        importance |= {match: 1.0 / len(matches) for match in matches}
    return importance


def replace_weights(rows: FitRows, weights: dict[GroupKind, float]) -> FitRows:
    """Return a copy of the rows with new weights; rows whose group and kind have no new weight keep theirs."""
    row_weights = rows.weight.copy()
    for (group, kind), weight in weights.items():
        row_weights[(rows.group == group) & (rows.kind == kind)] = weight
    return replace(rows, weight=row_weights)
