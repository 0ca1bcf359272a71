"""The kinds of rows in a linear model of energies."""

from enum import IntEnum
from typing import Any

import numpy as np

from paretofit.core.errors import InputError


class RowKind(IntEnum):
    """Quantity of a row: an energy per atom (eV), a force component (eV/Å) or a stress component (GPa)."""

    ENERGY = 0
    FORCE = 1
    STRESS = 2


def parse_row_kinds(kinds: Any, n_rows: int) -> np.ndarray[Any, np.dtype[np.int8]]:
    """Convert names or numbers of row kinds to `RowKind` values, ``(n_rows,) int8``.

    Raises
    ------
    InputError
        If the number of kinds is not `n_rows`, or a kind is not "energy", "force" or "stress".
    """
    values = np.asarray(kinds)
    if values.dtype.kind in "UOS":
        try:
            values = np.array([RowKind[str(value).upper()] for value in values.tolist()])
        except KeyError as error:
            raise InputError(f"a row's kind must be 'energy', 'force' or 'stress'; got {error}") from error
    if values.shape != (n_rows,) or not np.isin(values, list(RowKind)).all():
        raise InputError(f"each of the {n_rows} rows requires a kind 'energy', 'force' or 'stress'; got {values.shape}")
    return values.astype(np.int8)
