"""Validation of user-supplied arrays for a design matrix."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paretofit.core import Array, InputError, parse_row_kinds
from paretofit.dataset import abbreviate, as_float_array, check_level_name


def validate_design_rows(rows: Any) -> Array:
    """Return the rows as ``(n_rows, n_features) float64``; raise InputError if they are empty or not finite."""
    matrix = as_float_array(rows, "rows")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(f"rows must have the shape (n_rows, n_features), both at least 1; got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise InputError(
            f"row {int(np.argmin(np.isfinite(matrix).all(axis=1)))} contains a value that is not finite; "
            "correct or remove the row"
        )
    return matrix


def validate_design_kinds(kind: Any, n: int) -> Array:
    """Return the kinds of the rows as ``(n,) int8`` of `RowKind`; raise `InputError` if they are not valid."""
    if kind is None or _to_array(kind).shape != (n,):
        raise InputError(
            f"kind must be a list with 'energy', 'force' or 'stress' for each of the {n} rows; got {abbreviate(kind)}"
        )
    return parse_row_kinds(kind, n)


def index_configurations(configuration: Any, n: int) -> tuple[Array, Array]:
    """Return the position of each row's id among the distinct ids, and these ids by first appearance, both int64."""
    values = _to_array(configuration)
    if values.shape != (n,) or values.dtype.kind not in "iu" or values.max() > np.iinfo(np.int64).max:
        raise InputError(
            f"configuration must be a whole number for each of the {n} rows; got {abbreviate(configuration)}"
        )
    ids, first_rows, inverse = np.unique(values, return_index=True, return_inverse=True)
    appearance_order = np.argsort(first_rows)
    return np.argsort(appearance_order)[inverse].astype(np.int64), ids[appearance_order].astype(np.int64)


def validate_design_columns(levels: Any, names: Sequence[str] | None, width: int) -> tuple[Array, list[str]]:
    """Return the column levels, ``(width,) int64``, and the column names, with defaults for None."""
    values = np.zeros(width) if levels is None else as_float_array(levels, "column_levels")
    is_whole = values.shape == (width,) and np.isfinite(values).all() and (values == np.floor(values)).all()
    if not is_whole or (np.diff(values) < 0).any():
        raise InputError(
            f"column_levels must be {width} ascending whole numbers, one for each column; got {abbreviate(levels)}"
        )
    if isinstance(names, str):
        raise InputError(f"column_names must be a list of {width} names; got the single string '{names}'")
    labels = [f"column {k}" for k in range(width)] if names is None else [str(name) for name in names]
    if len(labels) != width:
        raise InputError(f"column_names must have {width} names, one for each column; got {len(labels)}")
    if any("\0" in label for label in labels):
        raise InputError("column_names must not contain NUL characters, which HDF5 cannot store")
    return values.astype(np.int64), labels


def validate_by_level(values: Any, n: int, argument_name: str) -> dict[str, Array]:
    """Convert the array-like values of a mapping of levels to ``(n,) float64``; None becomes an empty mapping."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InputError(
            f"{argument_name} must be a mapping of level to {n} numbers, such as {{'dft': [...]}}; "
            f"got {abbreviate(values)}"
        )
    arrays: dict[str, Array] = {}
    for level, column in values.items():
        name = str(level)
        check_level_name(name)
        if name in arrays:
            raise InputError(f"{argument_name} has the level '{name}' twice, as a string and as a number; remove one")
        arrays[name] = as_float_array(column, f"{argument_name} of level '{name}'", (n,))
    return arrays


def _to_array(values: Any) -> Array:
    """Convert values to an array of any type; ragged values become a 0-dimensional array, which no check accepts."""
    try:
        return np.asarray(values)
    except ValueError:
        return np.empty(())
