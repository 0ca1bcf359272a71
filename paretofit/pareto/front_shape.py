"""Analysis of a front: its knee, its hypervolume, the share of each group, and the best point for each budget.

The functions accept any table and any number of objectives, all of which are minimised. Because errors and costs span
decades, distances are computed between the logarithms of the objectives. The logarithms of each objective are scaled
so that its lowest value on the front is 0 and its highest value is 1.
"""

from collections.abc import Sequence

import moocore
import numpy as np
import pandas as pd

from paretofit.core import InputError
from paretofit.pareto.columns import check_objectives, extract_numbers, find_finite_rows
from paretofit.pareto.front import pareto_front

# Every coordinate of the reference point, in scaled logarithms. Above 1, so that the extreme points also contribute.
HYPERVOLUME_REFERENCE = 1.05


def find_knee(front: pd.DataFrame, objectives: Sequence[str]) -> int:
    """Find the knee of a front: return the position of the row farthest below the plane through the extreme points.

    In scaled logarithms x_k, this plane is Σ x_k = const, so the knee is the row with the lowest sum. With two
    objectives, it is the row with the largest distance from the chord between the two ends of the front.

    Parameters
    ----------
    front : DataFrame
        Points of a front; of several rows with the lowest sum, the first is the knee.
    objectives : sequence of str
        Columns with positive finite values.

    Raises
    ------
    InputError
        If a column is missing or has a value that is not positive and finite, or if there are no objectives or rows.
    """
    return int(np.argmin(scale_objectives(front, objectives).sum(axis=1)))


def scale_objectives(front: pd.DataFrame, objectives: Sequence[str]) -> np.ndarray:
    """Scale the logarithm of each objective to the range from 0 (lowest value) to 1 (highest value).

    Parameters
    ----------
    front : DataFrame, (n_rows, n_columns)
    objectives : sequence of str
        Columns with positive finite values.

    Returns
    -------
    (n_rows, n_objectives) float64
        A column is 0 everywhere if all values of its objective are equal.

    Raises
    ------
    InputError
        As in `find_knee`.
    """
    names = check_objectives(front, objectives)
    values = extract_numbers(front, names)
    find_finite_rows(values, drop_missing=False)  # raises InputError if a value is NaN or infinite
    points = values.to_numpy(dtype=float)
    if (points <= 0).any():
        column = names[int(np.argmax((points <= 0).any(axis=0)))]
        raise InputError(f"column '{column}' must be positive in every row, because its logarithm is used")
    logs = np.log(points)
    minima, spans = logs.min(axis=0), np.ptp(logs, axis=0)
    return np.asarray((logs - minima) / np.where(spans > 0, spans, 1.0))


def compute_front_shares(front: pd.DataFrame, objectives: Sequence[str], by: str) -> pd.DataFrame:
    """Compute how much the points with each value of a column contribute to a front.

    Parameters
    ----------
    front : DataFrame
        Points of a front, with a unique index.
    objectives : sequence of str
        Columns with positive finite values.
    by : str
        Column whose values divide the points into groups, such as ``level``. Points with NaN are in no group.

    Returns
    -------
    DataFrame
        A row for each value of `by`, in ascending order: the value, the number of its ``points``, their ``share`` of
        all points (0 to 1), and ``volume_lost``, the fraction of the dominated hypervolume (in scaled logarithms) that
        is lost without these points. This fraction is small if the points of other groups are almost as good.

    Raises
    ------
    InputError
        As in `find_knee`, or if there is no column `by`.
    """
    if by not in front.columns:
        raise InputError(f"unknown column '{by}'; available: {', '.join(map(str, front.columns))}")
    names = list(objectives)
    points = pd.DataFrame(scale_objectives(front, names), columns=names, index=front.index)
    total_volume = _compute_volume(points)
    rows = []
    for value, group in front.groupby(by, sort=True):
        others = points.drop(group.index)
        volume_lost = 1.0 - _compute_volume(others) / total_volume if len(others) else 1.0
        rows.append({by: value, "points": len(group), "share": len(group) / len(front), "volume_lost": volume_lost})
    return pd.DataFrame(rows)


def describe_front(front: pd.DataFrame, objectives: Sequence[str], by: Sequence[str]) -> str:
    """Describe a front in lines of plain text: its hypervolume, its knee, and the share of each value of some columns.

    Parameters
    ----------
    front : DataFrame
    objectives : sequence of str
        Columns with positive finite values.
    by : sequence of str
        Columns for which a table of `compute_front_shares` is appended.

    Raises
    ------
    InputError
        As in `compute_front_shares`.
    """
    names = list(objectives)
    knee = front.iloc[find_knee(front, names)]
    knee_texts = [
        f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}" for name, value in knee.items()
    ]
    volume = compute_hypervolume_share(front, names)
    lines = [
        f"hypervolume {volume:.4f} of the box up to {HYPERVOLUME_REFERENCE:g} times the span of each logarithm",
        "knee: " + ", ".join(knee_texts),
    ]
    for column in by:
        shares = compute_front_shares(front, names, column)
        lines.append(shares.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    return "\n".join(lines)


def compute_hypervolume_share(front: pd.DataFrame, objectives: Sequence[str]) -> float:
    """Compute the share (0 to 1) of a box that a front dominates.

    In the scaled logarithms of `scale_objectives`, the box extends from 0 to `HYPERVOLUME_REFERENCE` in each objective.

    Parameters
    ----------
    front : DataFrame
    objectives : sequence of str
        Columns with positive finite values.

    Raises
    ------
    InputError
        As in `find_knee`.
    """
    names = list(objectives)
    points = pd.DataFrame(scale_objectives(front, names), columns=names)
    return _compute_volume(points) / HYPERVOLUME_REFERENCE ** len(names)


def compute_hypervolume(frame: pd.DataFrame, objectives: Sequence[str], reference: Sequence[float]) -> float:
    """Compute the volume between a front and a reference point; a larger volume means a better front.

    The volume is the Lebesgue measure of {z : x <= z <= r for some row x}, where r is the reference point. Rows that
    are dominated, or worse than the reference in some objective, do not contribute.

    Parameters
    ----------
    frame : DataFrame, (n_rows, n_columns)
        Any table, not necessarily a front.
    objectives : sequence of str
        Columns to minimise, with finite values.
    reference : sequence of float
        Reference point, in the order and the units of `objectives`.

    Returns
    -------
    float
        Volume in the product of the objectives' units; 0.0 if no row is below the reference.

    Raises
    ------
    InputError
        As in `pareto_front`, or if the reference does not consist of one finite number for each objective.

    Notes
    -----
    E. Zitzler and L. Thiele, IEEE Trans. Evol. Comput. 3, 257 (1999); computed by moocore, in
    O(n log n) for three objectives or fewer, O(n^2) for four, and O(n^(m-2)) at worst above, where n is the number of
    rows of the front.

    Examples
    --------
    >>> table = pd.DataFrame({"cost": [1.0, 2.0], "error": [2.0, 1.0]})
    >>> compute_hypervolume(table, ["cost", "error"], [3.0, 3.0])
    3.0
    """
    objectives = check_objectives(frame, objectives)
    corner = _check_reference_point(reference, objectives)
    values = extract_numbers(frame, objectives)
    find_finite_rows(values, drop_missing=False)
    points = values.to_numpy(dtype=np.float64)
    # The volume does not depend on dominated rows, but the time to compute it does.
    points = points[moocore.is_nondominated(points, keep_weakly=False)]
    return float(moocore.hypervolume(points, ref=corner))


def _check_reference_point(reference: Sequence[float], objectives: Sequence[str]) -> np.ndarray:
    """Return the reference point as ``(n_objectives,) float64``, checked to have one finite number per objective."""
    try:
        corner = np.asarray(reference, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"the reference point must consist of numbers; got {reference!r}") from None
    if corner.shape != (len(objectives),):
        raise InputError(
            f"the reference point must have one number for each of the {len(objectives)} objectives "
            f"({', '.join(objectives)}); got {corner.size}"
        )
    if not np.isfinite(corner).all():
        raise InputError(f"the reference point must be finite; got {corner.tolist()}")
    return corner


def _compute_volume(points: pd.DataFrame) -> float:
    """Compute the hypervolume of points that are scaled by `scale_objectives`, with all columns as objectives."""
    return compute_hypervolume(points, list(points.columns), [HYPERVOLUME_REFERENCE] * points.shape[1])


def select_best_by_budget(points: pd.DataFrame, error: str, cost: str) -> pd.DataFrame:
    """Select, for every budget, the row with the lowest error.

    Parameters
    ----------
    points : DataFrame
        A row for each setting.
    error, cost : str
        Columns with the error and the cost of each row, which are finite.

    Returns
    -------
    DataFrame
        The rows that are not dominated in error and cost (the first of several equal ones), in ascending order of cost
        and with a new index. A row has the lowest error for budgets from ``budget_from``, its own cost, to
        ``budget_to``, the cost of the next row (infinite for the last row).

    Raises
    ------
    InputError
        As in `pareto_front`.
    """
    best_rows = pareto_front(points, [cost, error]).drop_duplicates([cost, error])
    best_rows = best_rows.sort_values(cost, ignore_index=True)
    ends = [*best_rows[cost].iloc[1:], np.inf]
    return best_rows.assign(budget_from=best_rows[cost], budget_to=ends)


def merge_adjacent_ranges(ranges: pd.DataFrame, by: str) -> pd.DataFrame:
    """Merge adjacent budget ranges that have the same value in a column.

    Parameters
    ----------
    ranges : DataFrame
        From `select_best_by_budget`, in ascending order of ``budget_from``.
    by : str
        Column whose values are compared.

    Returns
    -------
    DataFrame
        For each run of equal values, its last row, with the ``budget_from`` of its first row.
    """
    range_numbers = (ranges[by] != ranges[by].shift()).cumsum()
    last_rows = ranges.groupby(range_numbers, sort=True).tail(1).reset_index(drop=True)
    starts = ranges.groupby(range_numbers, sort=True)["budget_from"].first().to_numpy()
    return last_rows.assign(budget_from=starts)


def drop_similar_ranges(ranges: pd.DataFrame, by: str, max_ranges: int, max_ratio: float) -> pd.DataFrame:
    """Drop the budget ranges that improve least on the preceding range, until at most `max_ranges` remain.

    If a range is dropped, the setting of the preceding range also has to serve the budgets of the dropped one.

    Parameters
    ----------
    ranges : DataFrame
        From `merge_adjacent_ranges`, with the lowest ``score`` within each range.
    by : str
        Column whose values differ between adjacent ranges. If ranges with the same value become adjacent, they are
        merged.
    max_ranges : int
        Maximum number of ranges. The first and the last range are never dropped, even if it is lower than 2.
    max_ratio : float
        Largest factor by which dropping a range may increase the score. If every range exceeds it, more than
        `max_ranges` remain.

    Returns
    -------
    DataFrame
        The remaining rows; ``budget_to``, if there is such a column, is not updated.
    """
    while len(ranges) > max(max_ranges, 2):
        scores = ranges["score"].to_numpy(dtype=float)
        ratios = scores[:-2] / scores[1:-1]  # factor by which the score rises if a range between the ends is dropped
        position = 1 + int(ratios.argmin())
        if ratios[position - 1] > max_ratio:
            break
        ranges = merge_adjacent_ranges(ranges.drop(index=ranges.index[position]), by)
    return ranges
