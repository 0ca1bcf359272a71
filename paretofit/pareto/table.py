"""Reading any CSV, without guessing.

A reader that guesses fills short rows with NaN, turns a surplus field into an index, renames the second of
two columns with one name and reads a level called ``01`` as 1. This one refuses the first three and keeps
the fourth as it is written.
"""

import csv
import io
import warnings
from pathlib import Path

import pandas as pd

from paretofit.core import InputError


def read_table(path: Path | str) -> pd.DataFrame:
    """Read a CSV with a header line; a column ``level`` is read as text, because levels are names.

    Parameters
    ----------
    path
        UTF-8 text, fields separated by commas. Empty fields and the usual spellings of "no value"
        (``nan``, ``NA``, ...) become NaN; blank lines are skipped.

    Returns
    -------
    DataFrame, (n_rows, n_columns)
        Rows are numbered from 0 in the index; n_rows may be 0.

    Raises
    ------
    InputError
        The file is missing, a folder, unreadable, empty, not UTF-8 text or not a CSV, a column's name
        stands twice in the header, or a line has more or fewer fields than the header.
    """
    path = Path(path)
    wanted = "a CSV file with a header line is needed"
    try:
        # Of a few dozen bare carriage returns pandas's parser makes millions of rows (seen with pandas 3.1).
        content = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\0" in content:  # valid UTF-8, but pandas before 3 cuts a column name off there
            raise InputError(f"{path}: is binary, not text; {wanted}")
        with warnings.catch_warnings():
            # With index_col=False pandas cuts surplus fields off and only warns about it.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(io.BytesIO(content), dtype={"level": str}, index_col=False, low_memory=False)
        _refuse_repeated_names(path, content)
        _refuse_short_rows(path, content, frame)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; {wanted}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; {wanted}") from None
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror}); {wanted}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text; {wanted}") from None
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: is empty; {wanted}") from None
    except pd.errors.ParserWarning:
        raise InputError(f"{path}: the rows have more fields than the header; {wanted}") from None
    except (pd.errors.ParserError, csv.Error) as problem:
        detail = str(problem).split("C error: ")[-1].strip()
        raise InputError(f"{path}: is not a proper CSV ({detail}); {wanted}") from None
    return frame


def _refuse_repeated_names(path: Path, content: bytes) -> None:
    """Refuse a header that names a column twice: pandas would call the second one ``a.1``."""
    lines = csv.reader(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline=""))
    header = next((fields for fields in lines if len(fields) > 1 or "".join(fields).strip()), [])
    for position, name in enumerate(header):
        if name and name in header[:position]:
            raise InputError(f"{path}: {header.count(name)} columns are called '{name}'; give each a name of its own")


def _refuse_short_rows(path: Path, content: bytes, frame: pd.DataFrame) -> None:
    """Refuse a line with fewer fields than the header, which pandas fills with NaN in silence.

    Such a line leaves NaN in the last column, so most tables are not parsed twice.
    """
    if not frame.iloc[:, -1].hasnans:
        return
    width = frame.shape[1]
    lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    for fields in lines:
        if fields and len(fields) < width:
            raise InputError(
                f"{path}: line {lines.line_num} has {len(fields)} fields where the header has "
                f"{width}; write every line in full (an empty field is a missing value)"
            )
