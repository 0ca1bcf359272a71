"""Checks of the columns of a table, and their conversion to numbers; error messages say what would be valid."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from paretofit.core import InputError, join_lines, suggest_match

MAX_QUOTED_CHARACTERS = 60  # length to which an error message truncates an invalid value


def check_objectives(frame: pd.DataFrame, objectives: Sequence[str]) -> list[str]:
    """Check that a table has the objectives as columns, and return them as a list.

    Raises
    ------
    InputError
        As in `check_column_names`, or if there are no objectives or the table has no rows.
    """
    names = check_column_names(frame, objectives, "objectives")
    if not names:
        raise InputError("there are no objectives; specify at least one column to minimise")
    if frame.empty:
        raise InputError("the table has no rows; a front requires at least one")
    return names


def check_column_names(frame: pd.DataFrame, names: Sequence[str], argument: str) -> list[str]:
    """Check that each name refers to exactly one column and occurs only once, and return the names as a list.

    Parameters
    ----------
    frame : DataFrame
    names : sequence of str
    argument : str
        Name of the argument in error messages, such as "objectives".

    Raises
    ------
    InputError
        If `names` is a single string, or contains a name twice, an unknown name, or the name of several columns.
    """
    if isinstance(names, str):
        raise InputError(f"{argument} must be a list of column names; got the single string '{names}'")
    names = list(names)
    for position, name in enumerate(names):
        count = int((frame.columns == name).sum())
        if count == 0:
            columns = [join_lines(column) for column in frame.columns]
            hint = suggest_match(str(name), columns)
            raise InputError(f"unknown column '{name}' in {argument}; available: {', '.join(columns)}{hint}")
        if count > 1:
            raise InputError(f"{count} columns are called '{name}'; rename all but one, to use it in {argument}")
        if name in names[:position]:
            raise InputError(f"'{name}' occurs twice in {argument}; specify it once")
    return names


def extract_numbers(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Convert columns to int64, uint64 or float64, with NaN where a value is missing, under the same index.

    Text columns are accepted if every field is a number or missing; True and False count as 1 and 0. A number beyond
    the range of float64, such as an integer of 400 digits, becomes the largest float64 with the same sign.

    Raises
    ------
    InputError
        If a column has a value that is not a number; the message quotes the first such text and names its row, or names
        the type of a column that is neither text nor numbers, such as dates.
    """
    return pd.DataFrame({name: _convert_to_numbers(frame[name]) for name in names}, index=frame.index)


def find_finite_rows(values: pd.DataFrame, drop_missing: bool) -> np.ndarray:
    """Return a mask of the rows in which all values are finite, ``(n_rows,) bool``.

    Parameters
    ----------
    values : DataFrame, (n_rows, n_objectives)
        Numeric columns.
    drop_missing : bool
        Whether the caller drops rows with NaN or infinity; otherwise, they are an error.

    Raises
    ------
    InputError
        If a value is NaN or infinite and `drop_missing` is false, or if no row has only finite values.
    """
    is_finite_value = np.isfinite(values.to_numpy(dtype=np.float64))
    is_finite: np.ndarray = is_finite_value.all(axis=1)
    if drop_missing and not is_finite.any():
        raise InputError(
            f"every one of the {len(values)} rows is NaN or infinite in an objective; at least one row with finite "
            "values is needed"
        )
    if not drop_missing and not is_finite.all():
        names = ", ".join(f"'{name}'" for name in values.columns[~is_finite_value.all(axis=0)])
        raise InputError(
            f"{np.count_nonzero(~is_finite)} of {len(values)} rows are NaN or infinite in {names}, the first "
            f"is {_name_first_row(~is_finite)}; fill them in, or drop them with drop_missing (--drop-missing)"
        )
    return is_finite


def _convert_to_numbers(column: pd.Series) -> np.ndarray:
    """Convert one column as described in `extract_numbers`, ``(n_rows,)`` int64, uint64 or float64."""
    if types.is_object_dtype(column) or types.is_string_dtype(column):
        column = column.astype(object).map(_limit_number)
        numbers = pd.to_numeric(column, errors="coerce")
        is_invalid = (numbers.isna() & column.notna()).to_numpy()
        if is_invalid.any():
            value = column.iloc[int(np.argmax(is_invalid))]
            raise InputError(
                f"column '{column.name}' must contain numbers; got {str(value)[:MAX_QUOTED_CHARACTERS]!r} in "
                f"{_name_first_row(is_invalid)}"
            )
    elif types.is_bool_dtype(column) or types.is_integer_dtype(column) or types.is_float_dtype(column):
        numbers = column
    else:
        raise InputError(f"column '{column.name}' must contain numbers; got values of type {column.dtype}")
    if types.is_float_dtype(numbers) or numbers.hasnans:
        return np.asarray(numbers.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.asarray(numbers.to_numpy(dtype=np.uint64 if types.is_unsigned_integer_dtype(numbers) else np.int64))


def _limit_number(value: Any) -> Any:
    """Replace an integer or numeric text beyond float64 by the largest float64 of its sign; keep any other value."""
    if not isinstance(value, int | str):
        return value
    try:
        # A number such as 1e400 is parsed as infinity; only an explicit "inf" remains infinite.
        is_too_large = math.isinf(float(value)) and not str(value).strip("+- ").lower().startswith("inf")
    except OverflowError:
        is_too_large = True
    except ValueError:  # text that is not a number, for which the caller raises an error
        return value
    return (-1 if str(value).strip().startswith("-") else 1) * sys.float_info.max if is_too_large else value


def _name_first_row(mask: np.ndarray) -> str:
    """Name the first row at which a mask is true, such as ``"data row 1"``, the row below the header."""
    return f"data row {int(np.argmax(mask)) + 1}"
