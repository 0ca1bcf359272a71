"""Optimisation of group weights, with separate configurations for the fit, the validation and a final test."""

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
HELD_OUT_FRACTION = 0.3
FITTED, VALIDATION, TEST, EXCLUDED = range(4)
DIFFERENCE = "difference:"
Target = tuple[np.ndarray, np.ndarray]  # rows, (m, p), and labels, (m,), of an objective that is linear in coefficients


@dataclass(frozen=True)
class FitRows:
    """Rows of all configurations, with labels from which the reference potential is subtracted.

    Attributes
    ----------
    X : (n, p) float64
    y : (n,) float64
        Labels in eV/atom, eV/Å or GPa.
    kind : (n,) int8
    group : (n,) str
    configuration : (n,) int64
    weight : (n,) float64
    is_training : (n,) bool
    configuration_names : tuple of str
        Name of the file of each configuration, without suffix.
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
        """Return the rows at the given indices, or the rows selected by a mask."""
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
    """Optimise group weights on a validation set; return them, and the ratio of the new to the old test error.

    The test set contains configurations that are not used in the search. The ratio is NaN if the test set has no rows
    for the objectives. With `front_path`, the Pareto front of two objectives is also written to this file. `targets`
    are further objectives by name, such as properties, in units in which an error of 1e-4 is negligible.
    """
    search_rows = rows.select(rows.is_training & (rows.weight > 0))  # groups with zero weight are not fitted
    parts = _assign_parts(search_rows, int(rows.configuration.max()) + 1, seed)
    differences = {name: _build_difference(rows, name) for name in objectives if name.startswith(DIFFERENCE)}
    targets = dict(targets or {})
    for name, (row, label, pair) in differences.items():
        parts[list(pair)] = EXCLUDED  # configurations whose difference is an objective are not fitted in the search
        targets[name] = row[None], np.array([label])
    search_rows = replace(search_rows, weight=np.maximum(search_rows.weight, 1e-12 * search_rows.weight.max()))
    moments, test_moments = (
        _build_moments(search_rows, parts[search_rows.configuration], held_out_part, n_excluded_columns, targets)
        for held_out_part in (VALIDATION, TEST)
    )
    start_weights = {part: _compute_mean_weight(rows, part) for part in moments.train_sums}
    importance = _parse_objectives(moments, objectives, targets)
    if front_path is not None:
        _write_front(moments, start_weights, objectives, targets, regulariser, front_path)
    optimised_weights = optimise_weights(moments, start_weights, importance, regulariser=regulariser)
    test_shares = {part: share for part, share in importance.items() if part in test_moments.held_out_sums}
    if not test_shares:
        return optimised_weights, float("nan")
    start_loss, end_loss = (
        test_moments.compute_objective(weights, test_shares)[0]
        for weights in (start_weights, optimised_weights.weights)
    )
    return optimised_weights, float(np.exp((end_loss - start_loss) / sum(test_shares.values())))


def _build_moments(
    search_rows: FitRows,
    row_parts: np.ndarray,
    held_out_part: int,
    n_excluded_columns: int,
    targets: Mapping[str, Target],
) -> GroupMoments:
    """Compute the moments of the fitted rows and a held-out part; each target is a held-out group of energies."""
    is_selected = (row_parts == FITTED) | (row_parts == held_out_part)
    rows, is_held_out = search_rows.select(is_selected), row_parts[is_selected] == held_out_part
    names = [name for name, (_, labels) in targets.items() for _ in labels]
    n = len(names)
    return GroupMoments(
        np.vstack([rows.X, *(target_rows for target_rows, _ in targets.values())])[:, n_excluded_columns:],
        np.concatenate([rows.y, *(labels for _, labels in targets.values())]),
        np.concatenate([rows.kind, np.full(n, RowKind.ENERGY)]),
        np.concatenate([rows.group, names]) if n else rows.group,
        np.concatenate([is_held_out, np.ones(n, dtype=bool)]),
        np.concatenate([rows.weight, np.ones(n)]),
    )


def _write_front(
    moments: GroupMoments,
    start: dict[GroupKind, float],
    objectives: Sequence[str],
    targets: Mapping[str, Target],
    regulariser: float,
    path: Path,
) -> None:
    """Write a CSV file with the front of two objectives: the held-out errors and the weights of each point."""
    if len(objectives) != 2:
        names = ", ".join(objectives) or "none"
        raise InputError(f"a front requires two objectives, such as energy,force; got {names}")
    importances = (
        _parse_objectives(moments, objectives[:1], targets), _parse_objectives(moments, objectives[1:], targets)
    )  # fmt: skip
    error_names = [f"error_{name}" for name in objectives]
    rows = []
    for share, optimum, errors in trace_weight_front(moments, start, importances, regulariser=regulariser):
        # Rows are in GPa; weights in the table are for stresses in bar, as in FitSNAP's input.
        weights = {
            f"{group}:{kind.name.lower()}": weight * (GPA_PER_BAR if kind == RowKind.STRESS else 1.0)
            for (group, kind), weight in optimum.weights.items()
        }
        rows.append({"share": share, error_names[0]: errors[0], error_names[1]: errors[1], **weights})
    table = pd.DataFrame(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(table.loc[pareto_front(table, error_names).index].sort_values("share"), path)


def _build_difference(rows: FitRows, objective: str) -> tuple[np.ndarray, float, tuple[int, int]]:
    """Return the row and label of the energy difference per atom ``difference:a/b``, and the indices of a and b."""
    first_name, slash, second_name = objective.removeprefix(DIFFERENCE).partition("/")
    pair = []
    for name in (first_name, second_name):
        matches = [k for k, configuration in enumerate(rows.configuration_names) if configuration == name]
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
    """Assign the configurations of each group at random to the fitted, validation and test parts."""
    rng = np.random.default_rng(seed)
    parts = np.full(n_configurations, FITTED)
    for group in dict.fromkeys(rows.group.tolist()):
        members = rng.permutation(np.unique(rows.configuration[rows.group == group]))
        n_validation, n_test = round(HELD_OUT_FRACTION * len(members)), round(HELD_OUT_FRACTION / 2 * len(members))
        if len(members) > 1:
            n_validation = max(n_validation, 1)
            parts[members[:n_validation]] = VALIDATION
            parts[members[n_validation : min(n_validation + n_test, len(members) - 1)]] = TEST
    return parts


def _compute_mean_weight(rows: FitRows, part: GroupKind) -> float:
    """Compute the geometric mean of the weights of the training rows of a group and kind."""
    is_selected = rows.is_training & (rows.group == part[0]) & (rows.kind == part[1])
    return float(np.exp(np.log(rows.weight[is_selected]).mean()))


def _parse_objectives(
    moments: GroupMoments, objectives: Sequence[str], targets: Mapping[str, Target]
) -> dict[GroupKind, float]:
    """Convert objectives to the importance of each group and kind.

    Each objective has the importance 1, divided equally among the groups that it matches. If several objectives match
    the same group and kind, the last one sets its importance.
    """
    importance: dict[GroupKind, float] = {}
    kinds = {kind.name.lower(): kind for kind in RowKind}
    for objective in objectives:
        if objective in targets:
            importance[objective, RowKind.ENERGY] = 1.0
            continue
        group, _, kind = objective.rpartition(":")
        if kind not in kinds:
            raise InputError(
                f"'{objective}' is not an objective; use energy, force or stress, optionally of a group, such as "
                f"Liquid:force, {DIFFERENCE}a/b in a FitSNAP input, or a property in a study"
            )
        matches = [
            (name, row_kind)
            for name, row_kind in moments.held_out_sums
            if row_kind == kinds[kind] and group in {"", name}
        ]
        if not matches:
            groups = ", ".join(dict.fromkeys(name for name, _ in moments.held_out_sums))
            raise InputError(f"the validation set has no rows for '{objective}'; available groups: {groups}")
        importance |= {match: 1.0 / len(matches) for match in matches}
    return importance


def replace_weights(rows: FitRows, weights: dict[GroupKind, float]) -> FitRows:
    """Return the rows with the new weights; rows whose group and kind have no new weight do not change."""
    row_weights = rows.weight.copy()
    for (group, kind), weight in weights.items():
        row_weights[(rows.group == group) & (rows.kind == kind)] = weight
    return replace(rows, weight=row_weights)
