"""Writer of all CSV tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from paretofit.core.files import atomic_path


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
        table.to_csv(temporary_path, index=False, float_format=float_format, lineterminator="\n")
