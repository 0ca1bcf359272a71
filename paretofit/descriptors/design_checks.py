"""Validation of user-supplied arrays for a design matrix."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paretofit.core import Array, InputError, parse_row_kinds
from paretofit.dataset import abbreviate, as_float_array, check_level_name


def validate_design_rows(rows: Any) -> Array:
    """Return the rows as ``(n_rows, n_features) float64``; raise `InputError` if they are empty or not finite."""
    matrix = as_float_array(rows, "rows")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(f"rows must have the shape (n_rows, n_features), both at least 1; got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise InputError(
            f"row {int(np.argmin(np.isfinite(matrix).all(axis=1)))} contains a value that is not finite; "
            "correct or remove the row"
        )
    return matrix


def validate_design_kinds(kind: Any, n_rows: int) -> Array:
    """Return the kinds of the rows as ``(n_rows,) int8`` of `RowKind`; raise `InputError` if they are not valid."""
    if kind is None or _convert_to_array(kind).shape != (n_rows,):
        raise InputError(
            f"kind must be a list with 'energy', 'force' or 'stress' for each of the {n_rows} rows; "
            f"got {abbreviate(kind)}"
        )
    return parse_row_kinds(kind, n_rows)


def index_configurations(configuration: Any, n_rows: int) -> tuple[Array, Array]:
    """Index the configuration ids of the rows.

    Raises `InputError` if `configuration`, the id of each row, does not consist of `n_rows` whole numbers.

    Returns
    -------
    positions : (n_rows,) int64
        Position of each row's id in `ids`.
    ids : (n_configurations,) int64
        Distinct ids, by first appearance.
    """
    row_ids = _convert_to_array(configuration)
    if row_ids.shape != (n_rows,) or row_ids.dtype.kind not in "iu" or row_ids.max() > np.iinfo(np.int64).max:
        raise InputError(
            f"configuration must be a whole number for each of the {n_rows} rows; got {abbreviate(configuration)}"
        )
    sorted_ids, first_rows, sorted_positions = np.unique(row_ids, return_index=True, return_inverse=True)
    appearance_order = np.argsort(first_rows)
    positions = np.argsort(appearance_order)[sorted_positions]  # the argsort of a permutation is its inverse
    return positions.astype(np.int64), sorted_ids[appearance_order].astype(np.int64)


def validate_design_columns(levels: Any, names: Sequence[str] | None, n_columns: int) -> tuple[Array, list[str]]:
    """Return the column levels, ``(n_columns,) int64``, and the column names; raise `InputError` if one is not valid.

    By default, all levels are 0, and the names are "column 0", "column 1", ...
    """
    level_array = np.zeros(n_columns) if levels is None else as_float_array(levels, "column_levels")
    has_right_length = level_array.shape == (n_columns,)
    is_whole = np.isfinite(level_array).all() and (level_array == np.floor(level_array)).all()
    if not (has_right_length and is_whole) or (np.diff(level_array) < 0).any():
        raise InputError(
            f"column_levels must be {n_columns} ascending whole numbers, one for each column; got {abbreviate(levels)}"
        )
    if isinstance(names, str):
        raise InputError(f"column_names must be a list of {n_columns} names; got the single string '{names}'")
    column_names = [f"column {k}" for k in range(n_columns)] if names is None else [str(name) for name in names]
    if len(column_names) != n_columns:
        raise InputError(f"column_names must have {n_columns} names, one for each column; got {len(column_names)}")
    if any("\0" in name for name in column_names):
        raise InputError("column_names must not contain NUL characters, which HDF5 cannot store")
    return level_array.astype(np.int64), column_names


def validate_by_level(arrays_by_level: Any, length: int, argument_name: str) -> dict[str, Array]:
    """Convert the array of each level to ``(length,) float64``; None becomes an empty mapping.

    Raises `InputError`, with the name of the argument, if `arrays_by_level` is not a mapping of levels to such arrays.
    """
    if arrays_by_level is None:
        return {}
    if not isinstance(arrays_by_level, Mapping):
        raise InputError(
            f"{argument_name} must be a mapping of level to {length} numbers, such as {{'dft': [...]}}; "
            f"got {abbreviate(arrays_by_level)}"
        )
    arrays: dict[str, Array] = {}
    for level, array in arrays_by_level.items():
        name = str(level)
        check_level_name(name)
        if name in arrays:
            raise InputError(f"{argument_name} has the level '{name}' twice, as a string and as a number; remove one")
        arrays[name] = as_float_array(array, f"{argument_name} of level '{name}'", (length,))
    return arrays


def _convert_to_array(sequence: Any) -> Array:
    """Convert a sequence to an array; a ragged one becomes a 0-dimensional array, which no check accepts."""
    try:
        return np.asarray(sequence)
    except ValueError:
        return np.empty(())
