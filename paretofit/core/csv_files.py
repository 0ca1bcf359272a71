"""Writing of CSV tables in which no text is a spreadsheet formula.

Spreadsheets execute cells that begin with ``=``, ``+``, ``-`` or ``@``, and the names of levels, groups and files come
from other people. Such a name is prefixed with an apostrophe, which makes a spreadsheet show it as text; numbers are
written unchanged.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from paretofit.core.files import atomic_path

FORMULA = re.compile("'*[=+\\-@\t\r＝＋－＠]")  # also the full-width signs of Japanese keyboards
ESCAPED_FORMULA = re.compile("'+[=+\\-@\t\r＝＋－＠]")


def write_csv(table: pd.DataFrame, path: Path | str, digits: int | None = 10) -> None:
    """Write a table to a CSV file atomically, without its index and with Unix line ends.

    Parameters
    ----------
    table : pandas.DataFrame
    path : path-like
    digits : int, optional
        Number of significant digits of floats; None writes as many as are needed to restore each value exactly.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    float_format = None if digits is None else f"%.{digits}g"
    with atomic_path(path) as temporary_path:
        escape_formulas(table).to_csv(temporary_path, index=False, float_format=float_format, lineterminator="\n")


def escape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Return a copy with an apostrophe before text cells and column names that a spreadsheet would execute."""
    return _map_text(table, _escape_text)


def restore_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Return a copy of a table from a CSV file without the apostrophes of `escape_formulas`."""
    return _map_text(table, lambda text: text[1:] if ESCAPED_FORMULA.match(text) else text)


def _escape_text(text: str) -> str:
    if not FORMULA.match(text) or text == "-":  # a dash stands for an empty cell
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _map_text(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Return a copy with `change` applied to text cells and column names; unchanged columns keep their type."""
    result = table.rename(columns=lambda name: change(name) if isinstance(name, str) else name)
    for position in range(table.shape[1]):
        column = table.iloc[:, position]
        if pd.api.types.is_numeric_dtype(column.dtype):
            continue
        old_cells: list[Any] = column.tolist()
        cells = [change(cell) if isinstance(cell, str) else cell for cell in old_cells]
        if any(cell is not old_cell for cell, old_cell in zip(cells, old_cells, strict=True)):
            text_type = column.dtype if isinstance(column.dtype, pd.StringDtype) else object
            result.isetitem(position, pd.array(cells, dtype=text_type))
    return result
