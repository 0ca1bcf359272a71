"""Strict reader of CSV files.

pandas fills short rows with NaN, turns a surplus field into an index, renames the second of two columns with the same
name, and reads a level called ``01`` as 1. This reader treats the first three cases as errors, and reads the names of
levels as text.
"""

import csv
import io
import warnings
from pathlib import Path

import pandas as pd

from paretofit.core import InputError, restore_formulas

_ADVICE = "a CSV file with a header line is needed"
_PROBLEMS: dict[type[Exception], str] = {  # the first type that matches is used
    FileNotFoundError: "there is no such file",
    IsADirectoryError: "the path is a directory",
    OSError: "the file cannot be read ({})",
    UnicodeDecodeError: "the file is not UTF-8 text",
    pd.errors.EmptyDataError: "the file is empty",
    pd.errors.ParserWarning: "the rows have more fields than the header",
    pd.errors.ParserError: "the file is not a valid CSV ({})",
    csv.Error: "the file is not a valid CSV ({})",
}


def read_table(path: Path | str) -> pd.DataFrame:
    """Read a CSV file with a header line; a column ``level`` is read as text, because levels are names.

    Parameters
    ----------
    path : path-like
        UTF-8 text with fields separated by commas. Empty fields and the usual spellings of a missing value
        (``nan``, ``NA``, ...) become NaN; blank lines are skipped.

    Returns
    -------
    DataFrame, (n_rows, n_columns)
        Rows are numbered from 0 in the index; n_rows may be 0.

    Raises
    ------
    InputError
        If the file is missing, a directory, unreadable, empty, not UTF-8 text or not CSV, if two columns have the same
        name, or if a line has more or fewer fields than the header.
    """
    path = Path(path)
    try:
        # pandas 3.1 makes millions of rows out of a few dozen bare carriage returns.
        content = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\0" in content:  # valid UTF-8, but pandas before 3 truncates a column name at a null byte
            raise InputError(f"{path}: the file is binary, not text; {_ADVICE}")
        with warnings.catch_warnings():
            # With index_col=False, pandas drops surplus fields and only warns about them.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(io.BytesIO(content), dtype={"level": str}, index_col=False, low_memory=False)
            frame = restore_formulas(frame)
        _check_header(path, content)
        _check_row_lengths(path, content, frame)
    except tuple(_PROBLEMS) as error:
        problem = next(text for kind, text in _PROBLEMS.items() if isinstance(error, kind))
        detail = getattr(error, "strerror", None) or str(error).split("C error: ")[-1].strip()
        raise InputError(f"{path}: {problem.format(detail)}; {_ADVICE}") from None
    return frame


def _check_header(path: Path, content: bytes) -> None:
    """Check that no two columns have the same name: pandas would rename the second one to ``a.1``."""
    lines = csv.reader(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline=""))
    header = next((fields for fields in lines if len(fields) > 1 or "".join(fields).strip()), [])
    for position, name in enumerate(header):
        if name and name in header[:position]:
            raise InputError(f"{path}: {header.count(name)} columns are called '{name}'; give each a unique name")


def _check_row_lengths(path: Path, content: bytes, frame: pd.DataFrame) -> None:
    """Check that no line has fewer fields than the header: pandas would silently fill it with NaN.

    Such a line causes a NaN in the last column, so tables without one are not parsed a second time.
    """
    if not frame.iloc[:, -1].hasnans:
        return
    width = frame.shape[1]
    lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    for fields in lines:
        if fields and len(fields) < width:
            raise InputError(
                f"{path}: line {lines.line_num} has {len(fields)} fields, but the header has {width}; write every "
                "field (an empty field is a missing value)"
            )
