"""Weights of groups of configurations in a study: as given, or searched for on its training set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from paretofit.core import InputError, RowKind, suggest_match
from paretofit.fitsnap import FitRows, search_weights

if TYPE_CHECKING:
    from paretofit.descriptors import DesignMatrix
    from paretofit.study.preparation import PreparedStudy

Factors = dict[tuple[str, RowKind], float]


def compute_group_factors(prepared: PreparedStudy, design: DesignMatrix) -> np.ndarray | None:
    """``(n_rows,)``: factors of the training rows by group and kind; None where the study has none.

    Parameters
    ----------
    prepared : Prepared
    design : DesignMatrix
        With labels.

    Raises
    ------
    InputError
        If a group is not there, or factors are to be searched for and the training set does not determine a model.
    """
    chosen = prepared.study.group_weights
    if not (chosen.energy or chosen.force or chosen.objectives):
        return None
    names = np.array([str(record.get(chosen.group_key)) for record in prepared.dataset.info_records])
    for group in {**chosen.energy, **chosen.force}:
        if group not in names:
            raise InputError(
                f"'group_weights' names the group '{group}', but no configuration of {prepared.study.dataset} has "
                f"{chosen.group_key} {group}; there are {', '.join(sorted(set(names.tolist())))}{suggest_match(group, names)}"
            )
    given: Factors = {(name, RowKind.ENERGY): factor for name, factor in chosen.energy.items()}
    given |= {(name, RowKind.FORCE): factor for name, factor in chosen.force.items()}
    factors = searched_factors(prepared, design, names, given) if chosen.objectives else given
    groups = names[design.configuration]
    each = np.ones(design.n_rows)
    train = np.isin(design.configuration, prepared.split.train)
    for (name, kind), factor in factors.items():
        each[train & (design.kind == kind) & (groups == name)] = factor
    return each


def searched_factors(prepared: PreparedStudy, design: DesignMatrix, names: np.ndarray, given: Factors) -> Factors:
    """Factors that make the held-out errors of the training set small, at the reference level and first weights."""
    chosen, study = prepared.study.group_weights, prepared.study
    twojmax = min(study.twojmax) if chosen.twojmax is None else chosen.twojmax
    rows = np.flatnonzero(np.isin(design.configuration, prepared.split.train))
    kind, configuration = design.kind[rows], design.configuration[rows]
    base = np.array([*study.weights[0], 1.0])[kind]
    group = names[configuration]
    start = np.array([given.get((name, RowKind(number)), 1.0) for name, number in zip(group, kind, strict=True)])
    fitted = FitRows(
        design.take(rows, design.columns_up_to(twojmax)),
        design.targets[prepared.grid.levels[-1]][rows],
        kind,
        group,
        configuration,
        base * start,
        np.ones(len(rows), dtype=bool),
    )
    try:
        found, _ = search_weights(fitted, 0, chosen.objectives, chosen.regulariser, study.seed)
    except InputError as error:
        raise InputError(f"'group_weights.objectives' at 2Jmax = {twojmax}: {error}") from error
    weight = dict(zip((RowKind.ENERGY, RowKind.FORCE), study.weights[0], strict=True))
    return {part: value / weight[part[1]] for part, value in found.weights.items() if part[1] in weight}
