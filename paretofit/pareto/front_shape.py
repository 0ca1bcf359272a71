"""What a front is made of: its knee, how much of it each group holds, and which point each budget buys.

For any table and any number of objectives, all minimised. Errors and costs span decades, so that distances are between
logarithms, each objective scaled to run from 0 at its lowest to 1 at its highest on the front.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from paretofit.core import InputError
from paretofit.pareto.columns import check_objectives, extract_numbers, find_finite_rows
from paretofit.pareto.front import pareto_front
from paretofit.pareto.hypervolume import dominated_hypervolume

if TYPE_CHECKING:
    from collections.abc import Sequence

HYPERVOLUME_REFERENCE = 1.05  # of the box of a hypervolume, in scaled objectives: the worst points still count


def find_knee(front: pd.DataFrame, objectives: Sequence[str]) -> int:
    """Where a front turns: the position of the row farthest below the plane through its extremes.

    The plane is Σ x = const in scaled logarithms, so that the knee has the lowest sum; for two objectives this is the
    largest distance from the chord.

    Parameters
    ----------
    front : DataFrame
    objectives : sequence of str
        Columns; positive and finite.

    Raises
    ------
    InputError
        If a column is missing or not positive, or there are no rows.
    """
    return int(np.argmin(scale_objectives(front, objectives).sum(axis=1)))


def scale_objectives(front: pd.DataFrame, objectives: Sequence[str]) -> np.ndarray:
    """``(n, m)``: logarithms of the objectives, from 0 at the lowest to 1 at the highest; 0 where all are equal."""
    names = check_objectives(front, objectives)
    values = extract_numbers(front, names)
    find_finite_rows(values, drop_missing=False)
    points = values.to_numpy(dtype=float)
    if (points <= 0).any():
        column = names[int(np.argmax((points <= 0).any(axis=0)))]
        raise InputError(f"'{column}' must be positive everywhere to be compared by its logarithm")
    logs = np.log(points)
    low, span = logs.min(axis=0), np.ptp(logs, axis=0)
    result: np.ndarray = (logs - low) / np.where(span > 0, span, 1.0)
    return result


def compute_front_shares(front: pd.DataFrame, objectives: Sequence[str], by: str) -> pd.DataFrame:
    """How much of a front each value of a column holds.

    Returns
    -------
    DataFrame
        A row for each value: ``points``, ``share`` of the points, and ``volume_lost``: the share of the dominated
        hypervolume (in scaled logarithms) that is gone without it. A value whose points others nearly match holds many
        points and little volume.
    """
    if by not in front.columns:
        raise InputError(f"there is no column '{by}' among {', '.join(map(str, front.columns))}")
    names = list(objectives)
    points = pd.DataFrame(scale_objectives(front, names), columns=names, index=front.index)
    whole = _volume(points)
    rows = []
    for value, part in front.groupby(by, sort=True):
        rest = points.drop(part.index)
        lost = 1.0 - _volume(rest) / whole if len(rest) else 1.0
        rows.append({by: value, "points": len(part), "share": len(part) / len(front), "volume_lost": lost})
    return pd.DataFrame(rows)


def describe_front(front: pd.DataFrame, objectives: Sequence[str], by: Sequence[str]) -> str:
    """Hypervolume, knee and shares of a front as plain text.

    Parameters
    ----------
    front : DataFrame
    objectives : sequence of str
        Columns; positive and finite.
    by : sequence of str
        Columns whose values' shares are shown.
    """
    names = list(objectives)
    points = pd.DataFrame(scale_objectives(front, names), columns=names)
    knee = {str(name): value for name, value in front.iloc[find_knee(front, names)].items()}
    volume = _volume(points) / HYPERVOLUME_REFERENCE ** len(names)
    told = [
        f"hypervolume {volume:.4f} of the box up to {HYPERVOLUME_REFERENCE:g} times the span of each logarithm",
        "knee: " + ", ".join(f"{name} {_shown(knee[name])}" for name in knee),
    ]
    for column in by:
        shares = compute_front_shares(front, names, column)
        told += [shares.to_string(index=False, float_format=lambda value: f"{value:.3f}")]
    return "\n".join(told)


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _volume(points: pd.DataFrame) -> float:
    return dominated_hypervolume(points, list(points.columns), [HYPERVOLUME_REFERENCE] * points.shape[1])


def select_best_by_budget(points: pd.DataFrame, error: str, cost: str) -> pd.DataFrame:
    """Which row has the lowest error at every budget: the staircase of the best so far.

    Parameters
    ----------
    points : DataFrame
        Any rows; those that are dominated in error and cost fall out.
    error, cost : str
        Columns.

    Returns
    -------
    DataFrame
        The rows in order of cost, with ``budget_from`` (its own cost) and ``budget_to`` (where the next takes over;
        infinite for the last).
    """
    stairs = pareto_front(points, [cost, error]).drop_duplicates([cost, error])
    stairs = stairs.sort_values(cost, ignore_index=True)
    ends = [*stairs[cost].iloc[1:], np.inf]
    return stairs.assign(budget_from=stairs[cost], budget_to=ends)


def merge_adjacent_ranges(staircase: pd.DataFrame, by: str) -> pd.DataFrame:
    """Neighbouring rows of a staircase with the same value of a column as one, the last of them standing for all."""
    run = (staircase[by] != staircase[by].shift()).cumsum()
    last = staircase.groupby(run, sort=True).tail(1).reset_index(drop=True)
    starts = staircase.groupby(run, sort=True)["budget_from"].first().to_numpy()
    return last.assign(budget_from=starts)
