"""Selection of numeric columns of a table; every error message says what would be valid."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pandas.api import types

from paretofit.core import InputError, one_line, suggest_match


def check_objectives(frame: pd.DataFrame, objectives: Sequence[str]) -> list[str]:
    """Check that there is at least one objective and one row, and return the objectives as a list."""
    names = check_column_names(frame, objectives, "objectives")
    if not names:
        raise InputError("there are no objectives; name at least one column to minimise")
    if frame.empty:
        raise InputError("the table has no rows; a front needs at least one")
    return names


def check_column_names(frame: pd.DataFrame, names: Sequence[str], argument: str) -> list[str]:
    """Check that each name is that of exactly one column and is given once, and return the names as a list.

    Parameters
    ----------
    argument
        What the names are for ("objectives"), for the message.

    Raises
    ------
    InputError
        If `names` is a single string, names a column twice, or names one that is missing or ambiguous.
    """
    if isinstance(names, str):
        raise InputError(f"{argument} must be a list of column names; got the single string '{names}'")
    names = list(names)
    for position, name in enumerate(names):
        count = int((frame.columns == name).sum())
        if count == 0:
            columns = [one_line(column) for column in frame.columns]
            raise InputError(
                f"there is no column '{name}' among {', '.join(columns)}{suggest_match(str(name), columns)}"
            )
        if count > 1:
            raise InputError(f"{count} columns are called '{name}'; {argument} need one of that name")
        if name in names[:position]:
            raise InputError(f"'{name}' is named twice in {argument}; name it once")
    return names


def extract_numbers(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Convert columns to int64, uint64 or float64, with NaN where a value is missing; the index stays.

    Text columns are accepted if every field is a number; True and False count as 1 and 0.

    Raises
    ------
    InputError
        If a column has a value that is not a number; the message names the first one and its row.
    """
    return pd.DataFrame({name: _convert_to_numbers(frame[name]) for name in names}, index=frame.index)


def find_finite_rows(values: pd.DataFrame, drop_missing: bool) -> np.ndarray:
    """Return which rows have only finite values, (n_rows,) bool; raise unless all have or `drop_missing` is set."""
    finite_values = np.isfinite(values.to_numpy(dtype=np.float64))
    finite: np.ndarray = finite_values.all(axis=1)
    if drop_missing and not finite.any():
        raise InputError(
            f"every one of the {len(values)} rows is NaN or infinite in an objective; at least one row with finite "
            "values is needed"
        )
    if not drop_missing and not finite.all():
        names = ", ".join(f"'{name}'" for name in values.columns[~finite_values.all(axis=0)])
        raise InputError(
            f"{np.count_nonzero(~finite)} of {len(values)} rows are NaN or infinite in {names}, the first "
            f"is {_name_first_row(~finite)}; fill them in or leave them out with drop_missing (--drop-missing)"
        )
    return finite


def _convert_to_numbers(column: pd.Series) -> np.ndarray:
    if types.is_object_dtype(column) or types.is_string_dtype(column):
        numbers = pd.to_numeric(column, errors="coerce")
        invalid = (numbers.isna() & column.notna()).to_numpy()
        if invalid.any():
            value = column.iloc[int(np.argmax(invalid))]
            raise InputError(
                f"column '{column.name}' must hold numbers; got {str(value)!r} in {_name_first_row(invalid)}"
            )
    elif types.is_bool_dtype(column) or types.is_integer_dtype(column) or types.is_float_dtype(column):
        numbers = column
    else:
        raise InputError(f"column '{column.name}' must hold numbers; it holds {column.dtype} values")
    if types.is_float_dtype(numbers) or numbers.hasnans:
        return np.asarray(numbers.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.asarray(numbers.to_numpy(dtype=np.uint64 if types.is_unsigned_integer_dtype(numbers) else np.int64))


def _name_first_row(mask: np.ndarray) -> str:
    """Name the first row where `mask`, (n_rows,) bool, is true; rows count from 1 under the header."""
    return f"data row {int(np.argmax(mask)) + 1}"
