"""Writer of all CSV tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from paretofit.core.files import atomic_path


def write_csv(table: pd.DataFrame, path: Path | str, digits: int | None = 10) -> None:
    """Write a table to a CSV file atomically, without its index and with the line end of Unix.

    Parameters
    ----------
    table : pandas.DataFrame
    path : path-like
    digits : int, optional
        Significant digits of floats; None for as many as restore each value exactly.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    float_format = None if digits is None else f"%.{digits}g"
    with atomic_path(path) as temporary_path:
        table.to_csv(temporary_path, index=False, float_format=float_format, lineterminator="\n")
