"""Writing of CSV tables whose text cells cannot be executed as spreadsheet formulas.

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

# Text with leading apostrophes matches too, because `restore_formulas` would otherwise remove one that was not added.
FORMULA = re.compile("'*[=+\\-@\t\r＝＋－＠]")  # also the full-width signs of Japanese keyboards
ESCAPED_FORMULA = re.compile("'+[=+\\-@\t\r＝＋－＠]")


def write_csv(table: pd.DataFrame, path: Path | str, digits: int | None = 10) -> None:
    """Write a table to a CSV file atomically, with escaped formulas, without its index and with Unix line ends.

    Parameters
    ----------
    table : pandas.DataFrame
    path : path-like
    digits : int, optional
        Number of significant digits of floats; with None, as many as are needed to restore each number exactly.

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
    return _map_text(table, _restore_text)


def _restore_text(text: str) -> str:
    """Return the text without the apostrophe that `_escape_text` has added."""
    return text[1:] if ESCAPED_FORMULA.match(text) else text


def _escape_text(text: str) -> str:
    """Return the text with an apostrophe before it if it is a formula, but neither a number nor a single dash."""
    if not FORMULA.match(text) or text == "-":  # a dash stands for an empty cell
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _map_text(table: pd.DataFrame, convert: Callable[[str], str]) -> pd.DataFrame:
    """Return a copy with `convert` applied to text cells and column names; unchanged columns keep their type."""
    converted_table = table.rename(columns=lambda name: convert(name) if isinstance(name, str) else name)
    for position in range(table.shape[1]):  # by position, because columns may have equal names
        column = table.iloc[:, position]
        if pd.api.types.is_numeric_dtype(column.dtype):
            continue
        old_cells: list[Any] = column.tolist()
        cells = [convert(cell) if isinstance(cell, str) else cell for cell in old_cells]
        if any(cell is not old_cell for cell, old_cell in zip(cells, old_cells, strict=True)):
            text_type = column.dtype if isinstance(column.dtype, pd.StringDtype) else object
            converted_table.isetitem(position, pd.array(cells, dtype=text_type))
    return converted_table
