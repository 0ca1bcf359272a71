"""The Pareto front of any table: the rows that no other row dominates.

Row x dominates row y if x_k <= y_k for every objective k and x_k < y_k for at least one. Rows that are equal in every
objective do not dominate each other, so all ties are part of the front. All objectives are minimised; to maximise a
column, pass its negative.

moocore computes the dominance in C, in O(n log n) time for up to three objectives and O(n log^(m-2) n) for m > 3
(H. T. Kung, F. Luccio and F. P. Preparata, J. ACM 22, 469 (1975)). A million rows take about a quarter of a second, or
four seconds with four objectives if all rows are on the front. This module checks that the columns are numeric,
aggregates repetitions before the dominance is computed, and counts the rows that it drops.

>>> table = pd.DataFrame({"cost": [1, 1, 2, 3], "error": [5.0, 5.0, 4.0, 4.5]})
>>> pareto_front(table, ["cost", "error"])
   cost  error
0     1    5.0
1     1    5.0
2     2    4.0
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import moocore
import numpy as np
import pandas as pd

from paretofit.core import InputError, check_choice, check_new_paths, list_first, write_csv
from paretofit.pareto.columns import check_column_names, check_objectives, extract_numbers, find_finite_rows
from paretofit.pareto.joined_tables import (
    TABLE_COLUMN,
    add_table_column,
    check_different_files,
    describe_missing_columns,
    describe_shared_settings,
    join_tables,
)
from paretofit.pareto.table import read_table

AGGREGATES = ("median", "mean", "min", "max")
MAX_NAMED_TABLES = 3  # number of tables that an error message names
REPEAT_COUNT_COLUMN = "n_repeats"  # column of an aggregated front: number of repetitions of the point


def pareto_front(
    frame: pd.DataFrame,
    objectives: Sequence[str],
    group_by: Sequence[str] | None = None,
    aggregate: str = "median",
    drop_missing: bool = False,
) -> pd.DataFrame:
    """Select the rows that no other row dominates, with every objective minimised.

    Parameters
    ----------
    frame : DataFrame, (n_rows, n_columns)
        Any table.
    objectives : sequence of str
        Columns to minimise, at least one, with finite values.
    group_by : sequence of str, optional
        Columns that identify repetitions: rows with equal values in all of these columns (NaN equals NaN) are
        aggregated to one point.
    aggregate : {"median", "mean", "min", "max"}
        Method by which each objective is aggregated over repetitions; it has no effect without `group_by`.
    drop_missing : bool
        Whether to drop rows in which an objective is NaN or infinite; otherwise they are an error.

    Returns
    -------
    DataFrame
        Rows of `frame` with their index, sorted by the objectives. With `group_by`, the index is new, and the columns
        are those of `group_by`, the aggregated objectives and ``n_repeats``, the number of repetitions.
        ``attrs["dropped_rows"]`` is the number of rows that were dropped because of `drop_missing`.

    Raises
    ------
    InputError
        If a column of `objectives` or `group_by` is missing or invalid, if there are no objectives or no rows with
        finite values, or if `aggregate` is unknown.
    """
    objectives = check_objectives(frame, objectives)
    groups = _check_group_columns(frame, objectives, group_by)
    check_choice("aggregate", aggregate, AGGREGATES)
    values = extract_numbers(frame, objectives)
    is_finite = find_finite_rows(values, drop_missing)
    n_dropped = len(frame) - int(is_finite.sum())
    if n_dropped:
        frame, values = frame.loc[is_finite], values.loc[is_finite]
    if groups:
        frame = _aggregate_repetitions(frame[groups], values, aggregate)
        values = frame[objectives]
    front = frame.iloc[_locate_front(values)]
    if groups:
        front = front.reset_index(drop=True)
    front.attrs["dropped_rows"] = n_dropped
    return front


def extract_front_from_csv(
    paths: Path | str | Sequence[Path | str],
    objectives: Sequence[str],
    group_by: Sequence[str] | None = None,
    aggregate: str = "median",
    out: Path | str | None = None,
    *,
    pool: bool = False,
    drop_missing: bool = False,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Compute the front of CSV files, as ``paretofit pareto`` does, and write it to a CSV file if `out` is given.

    Parameters
    ----------
    paths : path-like or sequence of path-like
        One CSV file with a header (see `read_table`), or several files, whose rows are compared. Each must have the
        columns of `objectives` and `group_by`. A row that equals a row of an earlier file (apart from the MD cost) is
        omitted.
    objectives, group_by, aggregate, drop_missing
        As in `pareto_front`.
    out : path-like, optional
        CSV file for the front, which is written atomically with ten significant digits.
    pool : bool
        Whether rows of different tables with equal values of `group_by` are repetitions of one setting; by default,
        the setting has a point for each table.
    overwrite : bool
        Whether to replace an existing file `out`.

    Returns
    -------
    DataFrame
        Result of `pareto_front`, not rounded. With several tables, unless they are pooled, the column ``table`` holds
        the path of the table of each point. ``attrs["notes"]`` is a list of messages about omitted rows, missing
        columns, and settings that occur in several tables.

    Raises
    ------
    InputError
        As in `read_table` and `pareto_front`, with the name of the file. Also if there are no tables; if one of several
        tables is given twice or has a column ``table``; if `pool` is set without `group_by`; or if `out` exists and
        `overwrite` is false, is one of the tables, or cannot be written.
    """
    sources = [Path(path) for path in ([paths] if isinstance(paths, Path | str) else paths)]
    if not sources:
        raise InputError("there are no tables; specify at least one CSV file")
    if pool and not group_by:
        raise InputError("pool (--pool) requires the columns of a setting, group_by (--group-by)")
    if out is not None:
        if any(_is_same_file(path, Path(out)) for path in sources):
            raise InputError(f"{out}: the output file is also the input table; choose another output file")
        check_new_paths([out], overwrite=overwrite)
    notes: list[str] = []
    if len(sources) == 1:
        table = read_table(sources[0])
    else:
        table, notes = _read_tables(sources, objectives, group_by, drop_missing=drop_missing)
        if group_by and not pool and TABLE_COLUMN not in group_by:
            notes += describe_shared_settings(table, group_by)
            group_by = [*group_by, TABLE_COLUMN]
    with _name_table(list_first(sources, MAX_NAMED_TABLES)):
        front = pareto_front(table, objectives, group_by, aggregate, drop_missing=drop_missing)
    front.attrs["notes"] = notes
    if out is not None:
        write_csv(front, out)
    return front


def _read_tables(
    sources: Sequence[Path], objectives: Sequence[str], group_by: Sequence[str] | None, *, drop_missing: bool
) -> tuple[pd.DataFrame, list[str]]:
    """Read several tables, check the columns of each, and join them; return the joined table and messages about it."""
    # The column ``table``, by which the caller may group, does not exist before `add_table_column`.
    frames, groups = [], group_by and [name for name in group_by if name != TABLE_COLUMN]
    for path in sources:
        frame = read_table(path)
        with _name_table(path):
            _check_columns(frame, objectives, groups, drop_missing=drop_missing)
            frames.append(add_table_column(frame, path))
    check_different_files(sources)
    table, notes = join_tables(frames)
    # With groups, the front has no columns but those that each table was checked to have.
    return table, notes + ([] if group_by else describe_missing_columns(frames))


@contextmanager
def _name_table(name: object) -> Iterator[None]:
    """Prefix the message of an `InputError` with the name of the table."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _check_columns(
    frame: pd.DataFrame, objectives: Sequence[str], group_by: Sequence[str] | None, *, drop_missing: bool
) -> None:
    """Check the columns and values of a table before it is joined with others, while a message can still name it.

    Values that are not finite are an error unless `drop_missing` is true.
    """
    names = check_objectives(frame, objectives)
    _check_group_columns(frame, names, group_by)
    values = extract_numbers(frame, names)
    if not drop_missing:
        find_finite_rows(values, drop_missing=False)  # raises InputError if a value is NaN or infinite


def _check_group_columns(frame: pd.DataFrame, objectives: Sequence[str], group_by: Sequence[str] | None) -> list[str]:
    """Check the columns that identify repetitions, and return them as a list, which is empty if there are none."""
    names = check_column_names(frame, group_by or [], "group_by")
    for name in names:
        if name in objectives:
            raise InputError(f"'{name}' occurs both in objectives and in group_by; remove it from one of them")
    if names and REPEAT_COUNT_COLUMN in (*names, *objectives):
        raise InputError(f"'{REPEAT_COUNT_COLUMN}' is reserved for the number of repetitions; rename this column")
    return names


def _aggregate_repetitions(keys: pd.DataFrame, values: pd.DataFrame, aggregate: str) -> pd.DataFrame:
    """Return one row for each distinct row of `keys`, with the keys, the aggregated values and ``n_repeats``."""
    groups = list(keys.columns)
    grouped_rows = pd.concat([keys, values], axis=1).groupby(groups, dropna=False, observed=True)
    table = grouped_rows[list(values.columns)].agg(aggregate)
    table[REPEAT_COUNT_COLUMN] = grouped_rows.size()
    return table.reset_index()


def _locate_front(values: pd.DataFrame) -> np.ndarray:
    """Return the positions of the front's rows in `values`, sorted by the objectives, ``(n_front,) int64``."""
    points = np.column_stack([_convert_to_float64(values[name].to_numpy()) for name in values.columns])
    # keep_weakly, because ties are part of the front; [::-1], because the last key of lexsort is the primary one.
    positions = np.flatnonzero(moocore.is_nondominated(points, keep_weakly=True))
    return np.asarray(positions[np.lexsort(points[positions].T[::-1])])


def _convert_to_float64(column: np.ndarray) -> np.ndarray:
    """Convert a column to float64 without changing its order or its ties.

    Different integers above 2^53, such as time stamps in nanoseconds, can be equal after rounding, so they are replaced
    by their ranks. A front does not change if a monotonic function is applied to an objective.
    """
    if column.dtype.kind in "iu" and max(-int(column.min()), int(column.max())) > 2**53:
        column = np.unique(column, return_inverse=True)[1]
    return column.astype(np.float64)


def _is_same_file(path: Path, out: Path) -> bool:
    """Return whether two paths lead to the same file; false if one of them does not exist."""
    try:
        return out.samefile(path)
    except (OSError, ValueError):  # a missing or invalid path causes an error later, when it is read or written
        return False
