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


UNKNOWN_KIND = -1  # number that no kind of row has
NUMBERS_BY_NAME = {kind.name.lower(): int(kind) for kind in RowKind}


def parse_row_kinds(kinds: Any, n_rows: int) -> np.ndarray[Any, np.dtype[np.int8]]:
    """Convert names or numbers of row kinds to the numbers of `RowKind`.

    Parameters
    ----------
    kinds : (n_rows,) str, bytes or int
        "energy", "force" or "stress", whose case does not matter, or numbers of `RowKind`; an array of Python objects
        may contain names and numbers.
    n_rows : int

    Returns
    -------
    (n_rows,) int8

    Raises
    ------
    InputError
        If there is not one kind for each row, or a kind is unknown.
    """
    kind_array = np.asarray(kinds)
    if kind_array.shape != (n_rows,):
        raise InputError(f"kind must have one entry for each of the {n_rows} rows; got the shape {kind_array.shape}")
    numbers = kind_array
    if kind_array.dtype.kind in "SUO":  # bytes, text or Python objects
        numbers = np.array([_find_kind_number(kind) for kind in kind_array.tolist()])
    is_known = np.isin(numbers, list(RowKind))
    if not is_known.all():
        row = int(np.argmin(is_known))
        raise InputError(
            f"the kind of row {row} must be 'energy', 'force' or 'stress', or a number from 0 to {int(max(RowKind))} "
            f"(see RowKind); got {kind_array.tolist()[row]!r}"
        )
    return numbers.astype(np.int8)


def _find_kind_number(kind: Any) -> int:
    """Return the number of a kind from its name, as text or bytes, or from its number; `UNKNOWN_KIND` if unknown."""
    name = kind.decode(errors="replace") if isinstance(kind, bytes) else kind
    if isinstance(name, str):
        return NUMBERS_BY_NAME.get(name.lower(), UNKNOWN_KIND)
    try:
        return int(RowKind(name))
    except ValueError:
        return UNKNOWN_KIND
