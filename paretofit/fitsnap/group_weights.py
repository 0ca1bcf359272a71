"""Search for the weights of groups: rows of the fit, rows that evaluate the weights, and rows for a final test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from paretofit.core import InputError, RowKind, write_csv
from paretofit.descriptors import GPA_PER_BAR
from paretofit.linear import GroupKind, GroupMoments, OptimisedWeights, optimise_weights, trace_weight_front
from paretofit.pareto import pareto_front

# Fraction of each group's training configurations that evaluate the weights; half as many are the test set.
HELD_OUT_FRACTION = 0.3
FITTED, VALIDATION, TEST, EXCLUDED = range(4)
DIFFERENCE = "difference:"


@dataclass(frozen=True)
class FitRows:
    """Rows of all configurations with their labels, from which the reference potential is subtracted.

    Attributes
    ----------
    X : (n, p) float64
    y : (n,) float64
        eV/atom, eV/Å, GPa.
    kind : (n,) int8
    group : (n,) str
    configuration : (n,) int64
    weight : (n,) float64
    is_training : (n,) bool
    configuration_names : tuple of str
        Names of the configurations' files without suffix.
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
        """Return the rows at these indices, or those of a mask."""
        names = ("X", "y", "kind", "group", "configuration", "weight", "is_training")
        return replace(self, **{name: getattr(self, name)[index] for name in names})


def search_weights(
    rows: FitRows,
    n_excluded_columns: int,
    objectives: Sequence[str],
    regulariser: float,
    seed: int,
    front_path: Path | None = None,
) -> tuple[OptimisedWeights, float]:
    """Optimise weights on held-out configurations; return them, and the error ratio on a test set.

    The test set has configurations that the search does not use; the ratio is NaN if it is empty.
    """
    used = rows.select(rows.is_training & (rows.weight > 0))  # a group without weight is not fitted
    parts = _assign_parts(used, int(rows.configuration.max()) + 1, seed)
    differences = {name: _build_difference(rows, name) for name in objectives if name.startswith(DIFFERENCE)}
    for _, _, pair in differences.values():
        parts[list(pair)] = EXCLUDED  # configurations whose difference is an objective are not fitted in the search
    used = replace(used, weight=np.maximum(used.weight, 1e-12 * used.weight.max()))
    moments, test_moments = (
        _build_moments(used, parts[used.configuration], held_out, n_excluded_columns, differences)
        for held_out in (VALIDATION, TEST)
    )
    start = {part: _compute_mean_weight(rows, part) for part in moments.train}
    importance = _parse_objectives(moments, objectives)
    if front_path is not None:
        _write_front(moments, start, objectives, regulariser, front_path)
    optimised = optimise_weights(moments, start, importance, regulariser=regulariser)
    tested = {part: share for part, share in importance.items() if part in test_moments.held_out}
    before, after = (test_moments.compute_objective(weights, tested)[0] for weights in (start, optimised.weights))
    return optimised, float(np.exp((after - before) / sum(tested.values()))) if tested else float("nan")


def _build_moments(
    used: FitRows,
    row_parts: np.ndarray,
    held_out_part: int,
    n_excluded_columns: int,
    differences: dict[str, tuple[np.ndarray, float, tuple[int, int]]],
) -> GroupMoments:
    """Moments of the fitted rows and of one held-out part, to which the energy differences are added."""
    selected = (row_parts == FITTED) | (row_parts == held_out_part)
    rows, held_out = used.select(selected), row_parts[selected] == held_out_part
    n = len(differences)
    difference_rows = [row for row, _, _ in differences.values()]
    return GroupMoments(
        np.vstack([rows.X, *difference_rows])[:, n_excluded_columns:],
        np.concatenate([rows.y, [label for _, label, _ in differences.values()]]),
        np.concatenate([rows.kind, np.full(n, RowKind.ENERGY)]),
        np.concatenate([rows.group, list(differences)]) if n else rows.group,
        np.concatenate([held_out, np.ones(n, dtype=bool)]),
        np.concatenate([rows.weight, np.ones(n)]),
    )


def _write_front(
    moments: GroupMoments, start: dict[GroupKind, float], objectives: Sequence[str], regulariser: float, path: Path
) -> None:
    """Write the front between two objectives: the held-out error of each, and the weights."""
    if len(objectives) != 2:
        names = ", ".join(objectives) or "none"
        raise InputError(f"a front is between two objectives, such as energy,force; got {names}")
    first, second = (_parse_objectives(moments, [name]) for name in objectives)
    error_names = [f"error_{name}" for name in objectives]
    rows = []
    for share, optimised, errors in trace_weight_front(moments, start, (first, second), regulariser=regulariser):
        weights = {
            f"{group}:{kind.name.lower()}": weight * (GPA_PER_BAR if kind == RowKind.STRESS else 1.0)
            for (group, kind), weight in optimised.weights.items()
        }
        rows.append({"share": share, error_names[0]: errors[0], error_names[1]: errors[1], **weights})
    table = pd.DataFrame(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(table.loc[pareto_front(table, error_names).index].sort_values("share"), path)


def _build_difference(rows: FitRows, objective: str) -> tuple[np.ndarray, float, tuple[int, int]]:
    """Build the row of an energy difference per atom, its label, and both configurations: ``difference:a/b``."""
    first, slash, second = objective.removeprefix(DIFFERENCE).partition("/")
    pair = []
    for name in (first, second):
        matches = [k for k, configuration in enumerate(rows.configuration_names) if configuration == name]
        if not slash or len(matches) != 1:
            count = f"are {len(matches)}" if matches else "is none"
            raise InputError(
                f"'{objective}' must name two structures by their files, {DIFFERENCE}a/b; there {count} called '{name}'"
            )
        pair.append(matches[0])
    a, b = (np.flatnonzero((rows.configuration == k) & (rows.kind == RowKind.ENERGY))[0] for k in pair)
    return rows.X[a] - rows.X[b], float(rows.y[a] - rows.y[b]), (pair[0], pair[1])


def _assign_parts(used: FitRows, n_configurations: int, seed: int) -> np.ndarray:
    """Assign each configuration to the fitted, validation or test part, by group."""
    rng = np.random.default_rng(seed)
    parts = np.full(n_configurations, FITTED)
    for group in dict.fromkeys(used.group.tolist()):
        members = rng.permutation(np.unique(used.configuration[used.group == group]))
        n_validation, n_test = round(HELD_OUT_FRACTION * len(members)), round(HELD_OUT_FRACTION / 2 * len(members))
        if len(members) > 1:
            n_validation = max(n_validation, 1)
            parts[members[:n_validation]] = VALIDATION
            parts[members[n_validation : min(n_validation + n_test, len(members) - 1)]] = TEST
    return parts


def _compute_mean_weight(rows: FitRows, part: GroupKind) -> float:
    """Geometric mean of the weights of a group's training rows of a kind."""
    selected = rows.is_training & (rows.group == part[0]) & (rows.kind == part[1])
    return float(np.exp(np.log(rows.weight[selected]).mean()))


def _parse_objectives(moments: GroupMoments, objectives: Sequence[str]) -> dict[GroupKind, float]:
    """Parse objectives to the importance of the held-out error of each group and kind."""
    importance: dict[GroupKind, float] = {}
    kinds = {kind.name.lower(): kind for kind in RowKind}
    for objective in objectives:
        if objective.startswith(DIFFERENCE):
            importance[objective, RowKind.ENERGY] = 1.0
            continue
        group, _, kind = objective.rpartition(":")
        if kind not in kinds:
            raise InputError(
                f"'{objective}' is no objective; it must be energy, force or stress, of a group, Liquid:force, or "
                f"{DIFFERENCE}a/b"
            )
        matches = [part for part in moments.held_out if part[1] == kinds[kind] and group in {"", part[0]}]
        if not matches:
            groups = ", ".join(dict.fromkeys(part[0] for part in moments.held_out))
            raise InputError(f"there are no held-out rows of '{objective}'; the groups are {groups}")
        importance |= {part: 1.0 / len(matches) for part in matches}
    return importance


def replace_weights(rows: FitRows, weights: dict[GroupKind, float]) -> FitRows:
    """Replace the weights of all rows whose group and kind have a new one."""
    row_weights = rows.weight.copy()
    for (group, kind), weight in weights.items():
        row_weights[(rows.group == group) & (rows.kind == kind)] = weight
    return replace(rows, weight=row_weights)
