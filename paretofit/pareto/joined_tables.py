"""Several tables as one: the rows of two studies are compared on one front.

Equal values of level, sampling or number of configurations mean something else in a study of other data. Therefore,
a column has the name of the table of each row, and rows of different tables are repetitions of one setting only if the
caller pools them. A row that an earlier table has, too, describes the same fit and counts once; the time of molecular
dynamics is not compared, because every run measures it again.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from paretofit.core import InputError, list_first
from paretofit.pareto.planner import MD_COST_COLUMN

TABLE_COLUMN = "table"


def add_table_column(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return a copy whose first column, ``table``, holds the path of the table.

    Raises
    ------
    InputError
        If the table has a column of this name.
    """
    if TABLE_COLUMN in frame.columns:
        raise InputError(f"'{TABLE_COLUMN}' is reserved for the name of the table; rename this column")
    result = frame.copy()
    result.insert(0, TABLE_COLUMN, str(path))
    return result


def check_different_files(paths: Sequence[Path]) -> None:
    """Check that no table is given twice; a copy under another name is found by `join_tables`."""
    resolved_paths = [path.resolve() for path in paths]
    for position, path in enumerate(paths):
        if resolved_paths[position] in resolved_paths[:position]:
            raise InputError(f"{path} is given twice, so its rows would count twice; specify it once")


def join_tables(frames: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, list[str]]:
    """Join tables with a column ``table``, without the rows that are equal to a row of an earlier table.

    Parameters
    ----------
    frames : sequence of DataFrame
        Results of `add_table_column`; they may have different columns.

    Returns
    -------
    table : DataFrame
        Rows of all tables in their order, with NaN in the columns that a table lacks.
    notes : list of str
        Messages about merged rows, with their number.
    """
    table = pd.concat(frames, ignore_index=True)
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
    """Return a message for each table that lacks columns of another table."""
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
    """Return a message if several tables have rows of a setting, with equal values of the columns `groups`."""
    n_tables = table.groupby(list(groups), dropna=False, observed=True)[TABLE_COLUMN].nunique()
    n_shared = int((n_tables > 1).sum())
    if not n_shared:
        return []
    share = f"{n_shared} of {len(n_tables)} settings"
    return [f"{share} occur in several tables and have a point for each table; --pool (pool) makes them repetitions"]
