"""The Pareto front of any table: which rows are not beaten by another row in every objective at once.

Everything is minimised; to maximise a column, hand in its negative. Nothing here knows what the columns
mean, and nothing is drawn. Dominance itself is moocore's, in C; this module sees to it that what goes in
is numbers, that repetitions are aggregated first, and that nothing is lost unseen.
"""

from collections.abc import Sequence
from pathlib import Path

import moocore
import numpy as np
import pandas as pd

from paretofit.core import InputError, atomic_path, suggest_match
from paretofit.pareto.columns import check_column_names, check_objectives, extract_numbers, find_finite_rows
from paretofit.pareto.table import read_table

AGGREGATES = ("median", "mean", "min", "max")
REPEAT_COUNT_COLUMN = "n_repeats"


def pareto_front(
    frame: pd.DataFrame,
    objectives: Sequence[str],
    group_by: Sequence[str] | None = None,
    aggregate: str = "median",
    drop_missing: bool = False,
) -> pd.DataFrame:
    """The rows that no other row dominates, every objective minimised.

    Row x dominates row y where x_k <= y_k for every objective k and x_k < y_k for at least one. Rows
    that are equal in every objective do not dominate one another, so ties all stay.

    Parameters
    ----------
    frame : (n_rows, n_columns)
        Any table.
    objectives : (m,)
        Columns to minimise, m >= 1. Every value must be finite.
    group_by
        Rows that are equal in all of these columns are repetitions of one another: they are aggregated
        to one point before the front is taken. NaN equals NaN here. None or empty: every row is a point.
    aggregate : {"median", "mean", "min", "max"}
        How repetitions become one point, objective by objective. Without `group_by` it has no effect.
    drop_missing
        Leave out rows in which an objective is NaN or infinite, instead of refusing them.

    Returns
    -------
    DataFrame
        Sorted by the objectives in the order given, ties in the order of `frame` (of the groups).
        Without `group_by`: rows of `frame`, with all of its columns and its index. With it: the
        `group_by` columns, the aggregated objectives, and ``n_repeats``, the rows behind each point.
        ``front.attrs["dropped_rows"]`` is the number of rows that `drop_missing` left out.

    Raises
    ------
    InputError
        A column is missing, named twice or not numeric; there are no objectives or no rows; an
        objective is NaN or infinite; the aggregate is unknown.

    Notes
    -----
    O(n log n) up to three objectives, O(n log^(m-2) n) above, by H. T. Kung, F. Luccio and
    F. P. Preparata, J. ACM 22, 469 (1975), as implemented in moocore. A million rows take about a
    quarter of a second; at four objectives, four seconds if all of them are on the front.

    Examples
    --------
    >>> table = pd.DataFrame({"cost": [1, 1, 2, 3], "error": [5.0, 5.0, 4.0, 4.5]})
    >>> pareto_front(table, ["cost", "error"])
       cost  error
    0     1    5.0
    1     1    5.0
    2     2    4.0
    """
    objectives = check_objectives(frame, objectives)
    groups = _group_names(frame, objectives, group_by)
    _check_aggregate(aggregate)
    values = extract_numbers(frame, objectives)
    finite = find_finite_rows(values, drop_missing)
    dropped = len(frame) - int(finite.sum())
    if dropped:
        frame, values = frame.loc[finite], values.loc[finite]
    if groups:
        frame = _aggregated(frame[groups], values, aggregate)
        values = frame[objectives]
    front = frame.iloc[_front_positions(values)]
    if groups:
        front = front.reset_index(drop=True)
    front.attrs["dropped_rows"] = dropped
    return front


def extract_front_from_csv(
    path: Path | str,
    objectives: Sequence[str],
    group_by: Sequence[str] | None = None,
    aggregate: str = "median",
    out: Path | str | None = None,
    *,
    drop_missing: bool = False,
) -> pd.DataFrame:
    """Read a CSV, take its front, and write that as a CSV if `out` is given: ``paretofit pareto``.

    Parameters
    ----------
    path
        The table; see `read_table`.
    objectives, group_by, aggregate, drop_missing
        As in `pareto_front`.
    out
        The CSV to write, whole or not at all, ten significant digits; replaces a file of that name.

    Returns
    -------
    DataFrame
        As `pareto_front` returns it, unrounded.

    Raises
    ------
    InputError
        As `read_table` and `pareto_front`, with the file's name; or `out` cannot be written.
    """
    if out is not None and _is_same_file(Path(path), Path(out)):
        raise InputError(f"{out}: is the table itself; write the front to another file")
    frame = read_table(path)
    try:
        front = pareto_front(frame, objectives, group_by, aggregate, drop_missing=drop_missing)
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None
    if out is not None:
        with atomic_path(out) as temporary:
            front.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")
    return front


def _group_names(frame: pd.DataFrame, objectives: Sequence[str], group_by: Sequence[str] | None) -> list[str]:
    names = check_column_names(frame, group_by or [], "group_by")
    for name in names:
        if name in objectives:
            raise InputError(f"'{name}' is both an objective and in group_by; leave it out of one of the two")
    if names and REPEAT_COUNT_COLUMN in (*names, *objectives):
        raise InputError(f"'{REPEAT_COUNT_COLUMN}' is the name of the count of repetitions; rename that column")
    return names


def _check_aggregate(aggregate: str) -> None:
    if aggregate not in AGGREGATES:
        near = suggest_match(str(aggregate), AGGREGATES)
        raise InputError(f"aggregate must be one of {', '.join(AGGREGATES)}; got '{aggregate}'{near}")


def _aggregated(keys: pd.DataFrame, values: pd.DataFrame, aggregate: str) -> pd.DataFrame:
    """One row for each distinct row of `keys`: the keys, the aggregated values and ``n_repeats``."""
    groups = list(keys.columns)
    grouped = pd.concat([keys, values], axis=1).groupby(groups, dropna=False, observed=True)
    table = grouped[list(values.columns)].agg(aggregate)
    table[REPEAT_COUNT_COLUMN] = grouped.size()
    return table.reset_index()


def _front_positions(values: pd.DataFrame) -> np.ndarray:
    """Where the front's rows are in `values`, sorted by the objectives in order; (n_front,) int64."""
    points = np.column_stack([_order_in_float64(values[name].to_numpy()) for name in values.columns])
    positions = np.flatnonzero(moocore.is_nondominated(points, keep_weakly=True))
    order = np.lexsort(points[positions].T[::-1])
    front: np.ndarray = positions[order]
    return front


def _order_in_float64(column: np.ndarray) -> np.ndarray:
    """A float64 column in the same order and with the same ties.

    Integers above 2^53 (time stamps in nanoseconds) would tie when rounded, so their ranks stand for
    them; a front does not change under a monotone map of one objective.
    """
    if column.dtype.kind in "iu" and max(-int(column.min()), int(column.max())) > 2**53:
        column = np.unique(column, return_inverse=True)[1]
    return column.astype(np.float64)


def _is_same_file(path: Path, out: Path) -> bool:
    try:
        return out.samefile(path)
    except (OSError, ValueError):  # one of them does not exist or cannot be looked at: reading or writing says so
        return False
