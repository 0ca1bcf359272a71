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
    """Convert names or numbers of row kinds, ``(n_rows,) str or int``, to the numbers of `RowKind`, ``(n_rows,) int8``.

    Raises
    ------
    InputError
        If the number of kinds is not `n_rows`, or a kind is not "energy", "force" or "stress", or its number.
    """
    kind_array = np.asarray(kinds)
    if kind_array.dtype.kind in "UOS":  # text, also in an array of Python objects
        try:
            kind_array = np.array([RowKind[str(name).upper()] for name in kind_array.tolist()])
        except KeyError as error:
            raise InputError(f"a row's kind must be 'energy', 'force' or 'stress'; got {error}") from error
    if kind_array.shape != (n_rows,) or not np.isin(kind_array, list(RowKind)).all():
        raise InputError(
            f"each of the {n_rows} rows requires a kind 'energy', 'force' or 'stress'; got an array of the shape "
            f"{kind_array.shape} with the kinds {np.unique(kind_array).tolist()[:5]}"
        )
    return kind_array.astype(np.int8)
