"""What may name a level, be an id or be a number: the same rules for every file and every array."""

from typing import Any

import numpy as np

from paretofit.errors import InputError

Array = np.ndarray[Any, np.dtype[Any]]


def check_level_name(name: Any) -> None:
    """Refuse what cannot name a group of an HDF5 file, or what nobody could read in a table.

    Raises
    ------
    InputError
        If it is not text, blank, ``.`` or ``..``, or has a slash or a character that cannot be printed.
    """
    if not isinstance(name, str) or not name.strip() or "/" in name or name in {".", ".."} or not name.isprintable():
        raise InputError(f"{name!r} cannot name a convergence level: use letters, digits, '-', '_' or '.'")


def whole_number(value: Any) -> int:
    """Take an id as it stands: 7, 7.0 and "7" are the id 7; 1.7 is none.

    Raises
    ------
    InputError
        If it is not a whole number between -2^63 and 2^63 - 1.
    """
    try:
        number = int(value)
        whole = isinstance(value, str) or bool(number == value)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole or not -(2**63) <= number < 2**63:
        raise InputError(f"a configuration's id must be a whole number; got {value!r}")
    return number


def real_numbers(value: Any, what: str, shape: tuple[int, ...] | None = None) -> Array:
    """Take anything array-like as real numbers, float64; None becomes NaN.

    Parameters
    ----------
    value
        Text and complex numbers are refused, not converted.
    what
        Begins the sentence of an error: "targets of level 'a'".
    shape
        The shape that it must have, if it must have one.

    Raises
    ------
    InputError
        If it is not real numbers, or of another shape.
    """
    try:
        given = np.asarray(value)
        held = {type(one) for one in given.ravel()} if given.dtype.kind == "O" else set()
        text = any(issubclass(one, str | bytes) for one in held)
        array = given.astype(np.float64, copy=False) if given.dtype.kind in "biufO" and not text else None
    except (TypeError, ValueError):  # lists of unequal length, or things that are not numbers
        array = None
    if array is None:
        single = shape == ()
        raise InputError(
            f"{what} must be {'a real number' if single else 'real numbers in rows of equal length'}; "
            f"got {shortened(value)}"
        )
    if shape is not None and array.shape != shape:
        raise InputError(f"{what} must have the shape {shape}; got {array.shape}")
    return array


def shortened(value: Any, most: int = 40) -> str:
    """What was given, on one line and at most about `most` characters long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= most else f"{text[:most]}..."
