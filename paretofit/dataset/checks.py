"""What may name a level, be an id or be a number: the same rules for every file and every array."""

from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from paretofit.core import Array, InputError

SHORTEST, LONGEST = 1e-6, 1e9  # Å; beyond, geometry is lost in rounding and LAPACK's loops may not end
LONGEST_NAME = 200  # characters; a level names files, which can have 255 bytes


def check_level_name(name: Any) -> None:
    """Refuse what cannot name a group of an HDF5 file, or what nobody could read in a table.

    Raises
    ------
    InputError
        If it is not text, blank, ``.`` or ``..``, longer than 200 bytes, or has a slash or a character that cannot
        be printed.
    """
    text = name if isinstance(name, str) else ""
    if not text.strip() or "/" in text or text in {".", ".."} or not text.isprintable():
        raise InputError(f"{abbreviate(name)} cannot name a convergence level: use letters, digits, '-', '_' or '.'")
    if len(text.encode()) > LONGEST_NAME:
        raise InputError(f"{abbreviate(name)} cannot name a convergence level: use at most {LONGEST_NAME} letters")


def parse_config_id(value: Any) -> int:
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
        raise InputError(f"a configuration's id must be a whole number; got {abbreviate(value)}")
    return number


def check_structure(atoms: Atoms, context: str) -> None:
    """Refuse what cannot be a structure.

    Parameters
    ----------
    atoms : ase.Atoms
    context : str
        Begins the sentence of an error: "configuration 7".

    Raises
    ------
    InputError
        If there are no atoms, an atomic number is no element's, or positions or cell vectors are not finite or beyond
        1e9 Å, or a cell vector is shorter than 1e-6 Å but not zero.
    """
    if len(atoms) == 0:
        raise InputError(f"{context} has no atoms")
    if atoms.numbers.min() < 0 or atoms.numbers.max() >= len(chemical_symbols):
        raise InputError(
            f"{context} has atomic numbers that are no element's; they must be 1 to {len(chemical_symbols) - 1}"
        )
    cell = np.array(atoms.cell[:])
    values = np.concatenate([atoms.positions.ravel(), cell.ravel()])
    if not np.isfinite(values).all():
        raise InputError(f"{context} has positions or cell vectors that are not finite")
    if (largest := np.abs(values).max()) > LONGEST:
        raise InputError(
            f"{context} has positions or cell vectors of {largest:.3g} Å; they must be below {LONGEST:g} Å"
        )
    lengths = np.linalg.norm(cell, axis=1)
    if (cell.any(axis=1) & (lengths < SHORTEST)).any():
        raise InputError(
            f"{context} has a cell vector shorter than {SHORTEST:g} Å; give its length in Å, or zeros for none"
        )


def as_float_array(value: Any, name: str, shape: tuple[int, ...] | None = None) -> Array:
    """Take anything array-like as real numbers, float64; None becomes NaN.

    Parameters
    ----------
    value
        Text and complex numbers are refused, not converted.
    name
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
    except (TypeError, ValueError, OverflowError):  # lists of unequal length, no numbers, or too large
        array = None
    if array is None:
        single = shape == ()
        raise InputError(
            f"{name} must be {'a real number' if single else 'real numbers in rows of equal length'}; "
            f"got {abbreviate(value)}"
        )
    if shape is not None and array.shape != shape:
        raise InputError(f"{name} must have the shape {shape}; got {array.shape}")
    return array


def abbreviate(value: Any, max_length: int = 40) -> str:
    """What was given, on one line and at most about `max_length` characters long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= max_length else f"{text[:max_length]}..."
