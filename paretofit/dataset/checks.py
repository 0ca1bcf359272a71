"""Validation of level names, ids, structures and arrays, the same for every file format."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from paretofit.core import Array, InputError, join_lines

T = TypeVar("T")

MIN_CELL_VECTOR_LENGTH = 1e-6  # Å
MAX_COORDINATE = 1e9  # Å; beyond this limit, rounding destroys the geometry, and LAPACK iterations may not end
MAX_LEVEL_NAME_BYTES = 200  # file names contain the level name, and most file systems limit them to 255 bytes
VOIGT_INDICES = [0, 4, 8, 5, 2, 1]  # positions of xx, yy, zz, yz, xz, xy in a flattened 3 x 3 tensor


def check_level_name(name: Any) -> None:
    """Check that a name can be used for an HDF5 group, in file names and in tables.

    Raises
    ------
    InputError
        If the name is not text, is blank, ``.`` or ``..``, is longer than 200 bytes, or contains a slash or an
        unprintable character.
    """
    text = name if isinstance(name, str) else ""
    message = f"{abbreviate(name)} is not a valid name for a convergence level; use"
    if not text.strip() or "/" in text or text in {".", ".."} or not text.isprintable():
        raise InputError(f"{message} letters, digits, '-', '_' or '.'")
    if len(text.encode()) > MAX_LEVEL_NAME_BYTES:
        raise InputError(f"{message} at most {MAX_LEVEL_NAME_BYTES} bytes")


def parse_config_id(value: Any) -> int:
    """Convert an id to an integer; 7, 7.0 and "7" all give 7.

    Raises
    ------
    InputError
        If the id is not a whole number (as 1.7), or not between -2^63 and 2^63 - 1.
    """
    try:
        number = int(value)
        is_whole = isinstance(value, str) or bool(number == value)
    except (TypeError, ValueError, OverflowError):
        is_whole = False
    if not is_whole or not -(2**63) <= number < 2**63:
        raise InputError(f"a configuration id must be a whole number; got {abbreviate(value)}")
    return number


def find_first_duplicate(values: Iterable[T]) -> T | None:
    """Return the first value that occurs more than once, or None if all values differ."""
    return next((value for value, count in Counter(values).items() if count > 1), None)


def check_structure(atoms: Atoms, context: str) -> None:
    """Check that a structure has valid elements, positions and cell vectors.

    Parameters
    ----------
    atoms : ase.Atoms
    context : str
        Prefix of the error message, such as "configuration 7".

    Raises
    ------
    InputError
        If there are no atoms, an atomic number is not 1 to 118, positions or cell vectors are not finite or exceed
        1e9 Å, or a cell vector is shorter than 1e-6 Å but not zero.
    """
    if len(atoms) == 0:
        raise InputError(f"{context} has no atoms; remove this structure")
    if atoms.numbers.min() < 1 or atoms.numbers.max() >= len(chemical_symbols):  # 0 is ASE's placeholder "X"
        raise InputError(f"{context} has invalid atomic numbers; they must be 1 to {len(chemical_symbols) - 1}")
    cell = np.array(atoms.cell[:])
    coordinates = np.concatenate([atoms.positions.ravel(), cell.ravel()])
    if not np.isfinite(coordinates).all():
        raise InputError(
            f"{context} has positions or cell vectors that are not finite; correct or remove this structure"
        )
    if (largest := np.abs(coordinates).max()) > MAX_COORDINATE:
        raise InputError(f"{context} has coordinates of {largest:.3g} Å; they must be below {MAX_COORDINATE:g} Å")
    lengths = np.linalg.norm(cell, axis=1)
    if (cell.any(axis=1) & (lengths < MIN_CELL_VECTOR_LENGTH)).any():
        limit = f"shorter than {MIN_CELL_VECTOR_LENGTH:g} Å"
        raise InputError(f"{context} has a cell vector {limit}; specify it in Å, or as zeros if there is no vector")


def as_float_array(value: Any, name: str, shape: tuple[int, ...] | None = None) -> Array:
    """Convert an array-like value to float64, without a copy if it is float64 already; None becomes NaN.

    Parameters
    ----------
    value : array-like
        Real numbers; text and complex numbers raise an error.
    name : str
        Description of the value for the error message, such as "targets of level 'a'".
    shape : tuple of int, optional
        Required shape; any shape is accepted by default.

    Returns
    -------
    array of float64

    Raises
    ------
    InputError
        If the values are not real numbers or have another shape.
    """
    try:
        original = np.asarray(value)
        has_text = original.dtype.kind == "O" and any(isinstance(entry, str | bytes) for entry in original.flat)
        is_real = original.dtype.kind in "biufO" and not has_text
        array = original.astype(np.float64, copy=False) if is_real else None
    except (TypeError, ValueError, OverflowError):  # lists of unequal length, or huge integers
        array = None
    if array is None:
        expected_form = "a real number" if shape == () else "real numbers in rows of equal length"
        raise InputError(f"{name} must be {expected_form}; got {abbreviate(value)}")
    if shape is not None and array.shape != shape:
        raise InputError(f"{name} must have the shape {shape}; got {array.shape}")
    return array


def convert_to_voigt(tensor: Array, context: str, tolerance: float) -> Array:
    """Convert a symmetric ``(3, 3)`` tensor to ``(6,)`` in ASE's Voigt order (xx, yy, zz, yz, xz, xy); NaN stays NaN.

    Components that differ within the tolerance, such as xy and yx, are averaged.

    Parameters
    ----------
    tensor : (3, 3) float64
        Tensor in any unit.
    context : str
        Prefix of the error message.
    tolerance : float
        Maximum difference between the tensor and its transpose, relative to the component of largest magnitude.

    Returns
    -------
    (6,) float64

    Raises
    ------
    InputError
        If the tensor is not symmetric within the tolerance; a tensor with a NaN is not checked.
    """
    if np.abs(tensor - tensor.T).max() > tolerance * np.abs(tensor).max():
        raise InputError(f"{context} must be a symmetric 3 x 3 tensor; got {abbreviate(tensor.tolist())}")
    return np.asarray(((tensor + tensor.T) / 2).ravel()[VOIGT_INDICES])


def abbreviate(value: Any, max_length: int = 40) -> str:
    """Return the repr of a value on one line, truncated to `max_length` characters and an ellipsis."""
    text = join_lines(repr(value))
    return text if len(text) <= max_length else f"{text[:max_length]}..."
