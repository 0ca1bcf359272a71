"""Strict reader of CSV files.

pandas fills short rows with NaN, turns a surplus field into an index, renames the second of two columns with the same
name, and reads a level called ``01`` as 1. This reader treats the first three cases as errors, and reads the names of
levels as text. It ignores blanks around fields, and also accepts semicolons and tabs as separators, because
spreadsheets write semicolons in countries with a decimal comma.
"""

import csv
import io
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_float_dtype, is_numeric_dtype

from paretofit.core import InputError, restore_formulas

DELIMITERS = (",", ";", "\t")
_ADVICE = "a CSV file with a header line is needed"
# Error messages by the type of the exception. The first matching type is used, so subclasses precede OSError.
_PROBLEMS: dict[type[Exception], str] = {
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
    """Read a CSV file with a header line; columns ``level`` and ``*_level`` are read as text, because levels are names.

    Parameters
    ----------
    path : path-like
        UTF-8 text with fields separated by commas, semicolons or tabs, whichever divides the header into most fields.
        Blanks around a field are removed, as is the apostrophe that `paretofit.core.write_csv` writes before a text
        that a spreadsheet would take for a formula. If the separator is not a comma, numbers may have a decimal comma.
        Empty fields and the usual spellings of a missing value (``nan``, ``NA``, ...) become NaN; blank lines are
        skipped.

    Returns
    -------
    DataFrame, (n_rows, n_columns)
        Rows are numbered from 0 in the index; n_rows may be 0.

    Raises
    ------
    InputError
        If the file is missing, a directory, unreadable, empty, binary, not UTF-8 text or not CSV, if two columns have
        the same name, or if a line has more or fewer fields than the header.
    """
    path = Path(path)
    try:
        # pandas 3.1 makes millions of rows out of a few dozen bare carriage returns.
        content = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\0" in content:  # valid UTF-8, but pandas before 3 truncates a column name at a null byte
            raise InputError(f"{path}: the file is binary, not text; {_ADVICE}")
        delimiter, header = _find_header(content)
        with warnings.catch_warnings():
            # With index_col=False, pandas drops surplus fields and only warns about them.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = _parse_table(content, delimiter, header)
        frame = restore_formulas(_strip_texts(frame))
        _check_header(path, header)
        _check_row_lengths(path, content, frame, delimiter)
    except tuple(_PROBLEMS) as error:
        problem = next(text for kind, text in _PROBLEMS.items() if isinstance(error, kind))
        detail = getattr(error, "strerror", None) or str(error).split("C error: ")[-1].strip()
        raise InputError(f"{path}: {problem.format(detail)}; {_ADVICE}") from None
    return frame


def _parse_table(content: bytes, delimiter: str, header: list[str]) -> pd.DataFrame:
    """Parse CSV text; columns of levels are text, others are numeric if all their fields are numbers within float64.

    pandas silently reads numbers beyond float64 as infinity, or raises OverflowError for long integers. In the first
    case, the columns with infinity are parsed a second time as text, in the second case all columns; such a column is
    then converted only if no number is lost.
    """

    def parse_with_text(text_columns: Iterable[str]) -> pd.DataFrame:
        """Parse the table, with the given columns as text."""
        # low_memory=False, because pandas otherwise infers the type of a column in each chunk of rows separately.
        return pd.read_csv(
            io.BytesIO(content), dtype=dict.fromkeys(text_columns, str), index_col=False, low_memory=False,
            sep=delimiter, skipinitialspace=True, decimal=_find_decimal_mark(content, delimiter),
        )  # fmt: skip

    level_columns = [name for name in header if name.strip() == "level" or name.strip().endswith("_level")]
    try:
        frame = parse_with_text(level_columns)
    except OverflowError:  # an integer of more than 308 digits (pandas 3.0)
        frame = parse_with_text(header)
    else:
        float_columns = [name for name, kind in frame.dtypes.items() if is_float_dtype(kind)]
        infinite_columns = [str(name) for name in float_columns if np.isinf(frame[name].to_numpy()).any()]
        if not infinite_columns:
            return frame
        frame = parse_with_text([*level_columns, *infinite_columns])
    unconverted_columns = [name for name, kind in frame.dtypes.items() if not is_numeric_dtype(kind)]
    for name in unconverted_columns:
        if name in level_columns:
            continue
        with suppress(ValueError, TypeError, OverflowError):
            numbers = pd.to_numeric(frame[name])
            # A column with a number beyond float64 remains text; the word "inf" has no digits and is converted.
            if not frame[name][np.isinf(numbers.to_numpy())].str.contains(r"\d").any():
                frame[name] = numbers
    return frame


def _find_header(content: bytes) -> tuple[str, list[str]]:
    """Return the delimiter that divides the header into the largest number of fields, and these fields.

    The header is the first line that is not blank.
    """
    headers = []
    for delimiter in DELIMITERS:
        lines = (fields for _, fields in _parse_lines(content, delimiter))
        headers.append(next((fields for fields in lines if len(fields) > 1 or "".join(fields).strip()), []))
    header = max(headers, key=len)
    return DELIMITERS[headers.index(header)], header


def _parse_lines(content: bytes, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number in the file (from 1) and the fields of each line that is not empty."""
    stream = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    lines = csv.reader(stream, delimiter=delimiter, skipinitialspace=True)
    for fields in lines:
        if fields:
            yield lines.line_num, fields


def _find_decimal_mark(content: bytes, delimiter: str) -> str:
    """Return a comma if commas do not separate fields and one occurs between digits, otherwise a point."""
    return "," if delimiter != "," and re.search(rb"\d,\d", content) else "."


def _strip_texts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a copy of a table without blanks around its column names and text fields."""
    frame = frame.rename(columns=lambda name: name.strip() if isinstance(name, str) else name)
    for position, kind in enumerate(frame.dtypes):
        if not is_numeric_dtype(kind):
            column = frame.iloc[:, position]
            texts = column.map(lambda value: value.strip() if isinstance(value, str) else value)
            frame.isetitem(position, texts.array)
    return frame


def _check_header(path: Path, header: list[str]) -> None:
    """Check that no two columns have the same name: pandas would rename a second column ``a`` to ``a.1``."""
    names = [name.strip() for name in header]
    for position, name in enumerate(names):
        if name and name in names[:position]:
            raise InputError(f"{path}: {names.count(name)} columns are called '{name}'; give each a unique name")


def _check_row_lengths(path: Path, content: bytes, frame: pd.DataFrame, delimiter: str) -> None:
    """Check that no line has fewer fields than the header: pandas would silently fill the line with NaN.

    Such a line causes a NaN in the last column. A table without NaN in this column is therefore not parsed again.
    """
    if not frame.iloc[:, -1].hasnans:
        return
    width = frame.shape[1]
    for number, fields in _parse_lines(content, delimiter):
        if len(fields) < width:
            raise InputError(
                f"{path}: line {number} has {len(fields)} fields, but the header has {width}; write every "
                "field (an empty field is a missing value)"
            )
