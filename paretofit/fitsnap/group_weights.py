"""The search for weights of groups: what is fitted, what judges the weights, and what the search never sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from paretofit.core import InputError, RowKind, atomic_path
from paretofit.descriptors import GPA_PER_BAR
from paretofit.linear import GroupKind, GroupMoments, OptimisedWeights, optimise_weights, trace_weight_front
from paretofit.pareto import pareto_front

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HELD_OUT_FRACTION = (
    0.3  # of each group's training configurations, on which weights are judged; half as many check the outcome
)
FITTED, JUDGED, UNSEEN, APART = range(4)
DIFFERENCE = "difference:"


@dataclass(frozen=True)
class FitRows:
    """Rows of all configurations with their labels, less the reference's.

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
        Of the configurations: their files' names without suffix.
    """

    X: np.ndarray
    y: np.ndarray
    kind: np.ndarray
    group: np.ndarray
    configuration: np.ndarray
    weight: np.ndarray
    is_training: np.ndarray
    configuration_names: tuple[str, ...] = ()


def search_weights(
    rows: FitRows,
    n_excluded_columns: int,
    objectives: Sequence[str],
    regulariser: float,
    seed: int,
    front_path: Path | None = None,
) -> tuple[OptimisedWeights, float]:
    """Weights found on held-out configurations, and what they do to others that the search never saw."""
    own = np.flatnonzero(rows.is_training & (rows.weight > 0))  # a group without weight stays out
    parts = _parts(rows, own, seed)
    differences = {one: _difference(rows, one) for one in objectives if one.startswith(DIFFERENCE)}
    for _, _, members in differences.values():
        parts[list(members)] = APART  # what is judged by their difference is not fitted while weights are searched for
    part = parts[rows.configuration[own]]
    weight = np.maximum(rows.weight[own], 1e-12 * rows.weight[own].max())

    def moments_of(judge: int) -> GroupMoments:
        some = (part == FITTED) | (part == judge)
        used = own[some]
        X, y, kind, group = rows.X[used][:, n_excluded_columns:], rows.y[used], rows.kind[used], rows.group[used]
        n = len(differences)
        if n:
            X = np.vstack([X, [one[0][n_excluded_columns:] for one in differences.values()]])
            y = np.concatenate([y, [one[1] for one in differences.values()]])
            kind = np.concatenate([kind, np.full(n, RowKind.ENERGY)])
            group = np.concatenate([group, list(differences)])
        held_out = np.concatenate([part[some] == judge, np.ones(n, dtype=bool)])
        return GroupMoments(X, y, kind, group, held_out, np.concatenate([weight[some], np.ones(n)]))

    moments, unseen = moments_of(JUDGED), moments_of(UNSEEN)
    start = {one: _mean_weight(rows, one) for one in moments.train}
    importance = _importance(moments, objectives)
    if front_path is not None:
        _write_front(moments, start, objectives, regulariser, front_path)
    found = optimise_weights(moments, start, importance, regulariser=regulariser)
    shared = {one: share for one, share in importance.items() if one in unseen.held_out}
    before, after = (unseen.objective(one, shared)[0] for one in (start, found.weights))
    return found, float(np.exp((after - before) / sum(shared.values()))) if shared else float("nan")


def _write_front(
    moments: GroupMoments, start: dict[GroupKind, float], wanted: Sequence[str], regulariser: float, path: Path
) -> None:
    """Mixtures of two objectives: the held-out errors of each, and the weights that give them."""
    if len(wanted) != 2:
        raise InputError(f"a front is between two objectives, such as energy,force; got {', '.join(wanted) or 'none'}")
    first, second = (_importance(moments, [one]) for one in wanted)
    rows = [
        {"share": share, f"error_{wanted[0]}": errors[0], f"error_{wanted[1]}": errors[1]}
        | {f"{group}:{kind.name.lower()}": weight * (GPA_PER_BAR if kind == RowKind.STRESS else 1.0)
           for (group, kind), weight in best.weights.items()}
        for share, best, errors in trace_weight_front(moments, start, (first, second), regulariser=regulariser)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    table = table.loc[pareto_front(table, list(table.columns[1:3])).index].sort_values("share")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")


def _difference(rows: FitRows, objective: str) -> tuple[np.ndarray, float, tuple[int, int]]:
    """The row of an energy difference per atom, its label, and the two configurations: ``difference:a/b``."""
    first, slash, second = objective.removeprefix(DIFFERENCE).partition("/")
    found = []
    for name in (first, second):
        at = [k for k, one in enumerate(rows.configuration_names) if one == name]
        if not slash or len(at) != 1:
            raise InputError(
                f"'{objective}' must name two structures by their files, {DIFFERENCE}a/b; there "
                f"{'are ' + str(len(at)) if at else 'is none'} called '{name}'"
            )
        found.append(at[0])
    each = [np.flatnonzero((rows.configuration == k) & (rows.kind == RowKind.ENERGY))[0] for k in found]
    X, y = rows.X[each[0]] - rows.X[each[1]], rows.y[each[0]] - rows.y[each[1]]
    return X, float(y), (found[0], found[1])


def _parts(rows: FitRows, own: np.ndarray, seed: int) -> np.ndarray:
    """For each configuration whether it is fitted, judges weights, or is never seen by the search; by group."""
    rng = np.random.default_rng(seed)
    parts = np.full(int(rows.configuration.max()) + 1, FITTED)
    for group in dict.fromkeys(rows.group[own].tolist()):
        members = rng.permutation(np.unique(rows.configuration[own][rows.group[own] == group]))
        judged, unseen = round(HELD_OUT_FRACTION * len(members)), round(HELD_OUT_FRACTION / 2 * len(members))
        if len(members) > 1:
            judged = max(judged, 1)
            parts[members[:judged]] = JUDGED
            parts[members[judged : min(judged + unseen, len(members) - 1)]] = UNSEEN
    return parts


def _mean_weight(rows: FitRows, part: GroupKind) -> float:
    own = rows.is_training & (rows.group == part[0]) & (rows.kind == part[1])
    return float(np.exp(np.log(rows.weight[own]).mean()))


def _importance(moments: GroupMoments, wanted: Sequence[str]) -> dict[GroupKind, float]:
    importance: dict[GroupKind, float] = {}
    names = {kind.name.lower(): kind for kind in RowKind}
    for one in wanted:
        if one.startswith(DIFFERENCE):
            importance[one, RowKind.ENERGY] = 1.0
            continue
        group, _, kind = one.rpartition(":")
        if kind not in names:
            raise InputError(
                f"'{one}' is no objective; it must be energy, force or stress, of a group, Liquid:force, or "
                f"{DIFFERENCE}a/b"
            )
        found = [part for part in moments.held_out if part[1] == names[kind] and group in {"", part[0]}]
        if not found:
            there = ", ".join(dict.fromkeys(part[0] for part in moments.held_out))
            raise InputError(f"'{one}': there are no held-out rows of it; groups are {there}")
        importance |= {part: 1.0 / len(found) for part in found}
    return importance


def replace_weights(rows: FitRows, weights: dict[GroupKind, float]) -> FitRows:
    """All rows with new weights, those of a group and kind that has none as they are."""
    each = rows.weight.copy()
    for (group, kind), weight in weights.items():
        each[(rows.group == group) & (rows.kind == kind)] = weight
    return replace(rows, weight=each)
