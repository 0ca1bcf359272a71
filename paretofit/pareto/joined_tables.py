"""Joining of several tables of results, so that the rows of two studies can be compared on one front.

In studies of different data, the same level, sampling method or number of configurations means different things.
Therefore, a column names the table of each row, and rows of different tables are repetitions of one setting only if the
caller pools them. A row that equals a row of an earlier table describes the same fit and counts once; the MD cost is
not compared, because every run measures it again.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from paretofit.core import InputError, list_first
from paretofit.pareto.planner import MD_COST_COLUMN

TABLE_COLUMN = "table"


def add_table_column(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return a copy of a table whose first column, ``table``, holds `path`, from which the table was read.

    Raises
    ------
    InputError
        If the table already has a column of this name.
    """
    if TABLE_COLUMN in frame.columns:
        raise InputError(f"'{TABLE_COLUMN}' is reserved for the name of the table; rename this column")
    labelled_table = frame.copy()
    labelled_table.insert(0, TABLE_COLUMN, str(path))
    return labelled_table


def check_different_files(paths: Sequence[Path]) -> None:
    """Raise `InputError` if two paths lead to the same file; `join_tables` omits the rows of a copy of a file."""
    resolved_paths = [path.resolve() for path in paths]
    for position, path in enumerate(paths):
        if resolved_paths[position] in resolved_paths[:position]:
            raise InputError(f"{path} is given twice, so its rows would count twice; specify it once")


def join_tables(frames: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, list[str]]:
    """Join tables, without the rows that equal a row of an earlier table in all columns but the MD cost.

    Parameters
    ----------
    frames : sequence of DataFrame
        Tables from `add_table_column`, which may have different columns.

    Returns
    -------
    table : DataFrame
        Rows of all tables in the given order, with NaN in the columns that a table lacks.
    notes : list of str
        A message for each table with omitted rows, with their number.
    """
    table = pd.concat(frames, ignore_index=True)
    # The MD cost is compared only if the tables have no other column.
    columns = [name for name in table.columns if name not in {TABLE_COLUMN, MD_COST_COLUMN}] or [MD_COST_COLUMN]
    # Equal rows within a table remain: without a column of repetitions, they can be different measurements.
    first_tables = table.groupby(columns, dropna=False, sort=False)[TABLE_COLUMN].transform("first")
    is_repeated = table[TABLE_COLUMN] != first_tables
    notes = [
        f"{count} rows of {path} are equal to rows of an earlier table; each of them counts once"
        for path, count in table.loc[is_repeated, TABLE_COLUMN].value_counts(sort=False).items()
    ]
    return table[~is_repeated].reset_index(drop=True), notes


def describe_missing_columns(frames: Sequence[pd.DataFrame]) -> list[str]:
    """Return a message for each table (not empty, from `add_table_column`) that lacks columns of another table."""
    names = list(dict.fromkeys(name for frame in frames for name in frame.columns))
    notes = []
    for frame in frames:
        if missing_names := [f"'{name}'" for name in names if name not in frame.columns]:
            path = frame[TABLE_COLUMN].iloc[0]
            notes.append(
                f"{path} lacks columns of other tables, which are empty in its rows: {list_first(missing_names)}"
            )
    return notes


def describe_shared_settings(table: pd.DataFrame, groups: Sequence[str]) -> list[str]:
    """Return one message with the number of settings that occur in several tables, or no message if there are none.

    Parameters
    ----------
    table : DataFrame
        From `join_tables`.
    groups : sequence of str
        Columns that identify a setting.
    """
    n_tables = table.groupby(list(groups), dropna=False, observed=True)[TABLE_COLUMN].nunique()
    n_shared = int((n_tables > 1).sum())
    if not n_shared:
        return []
    share = f"{n_shared} of {len(n_tables)} settings"
    return [f"{share} occur in several tables and have a point for each table; --pool (pool) makes them repetitions"]
