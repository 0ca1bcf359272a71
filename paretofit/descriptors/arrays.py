"""Anybody's arrays, turned into what a design matrix holds, or refused in one sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paretofit.core import Array, InputError, parse_row_kinds
from paretofit.dataset import abbreviate, as_float_array, check_level_name


def validate_design_rows(rows: Any) -> Array:
    """``(n_rows, n_features) float64``, both at least 1, all finite."""
    matrix = as_float_array(rows, "rows")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(f"rows must have the shape (n_rows, n_features), both at least 1; got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise InputError(f"row {int(np.argmin(np.isfinite(matrix).all(axis=1)))} holds a value that is not finite")
    return matrix


def validate_design_kinds(kind: Any, n: int) -> Array:
    """``(n,) int8`` of `RowKind`."""
    if kind is None or _vector_of(kind).shape != (n,):
        raise InputError(
            f"kind must say 'energy', 'force' or 'stress' for each of the {n} rows, in a list; got {abbreviate(kind)}"
        )
    return parse_row_kinds(kind, n)


def index_configurations(configuration: Any, n: int) -> tuple[Array, Array]:
    """Positions in order of first appearance, and the ids themselves, both int64."""
    values = _vector_of(configuration)
    if values.shape != (n,) or values.dtype.kind not in "iu" or values.max() > np.iinfo(np.int64).max:
        raise InputError(
            f"configuration must be a whole number for each of the {n} rows; got {abbreviate(configuration)}"
        )
    ids, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[inverse].astype(np.int64), ids[order].astype(np.int64)


def validate_design_columns(levels: Any, names: Sequence[str] | None, width: int) -> tuple[Array, list[str]]:
    """Column levels, ``(width,) int64``, and as many names."""
    given = np.zeros(width) if levels is None else as_float_array(levels, "column_levels")
    whole = given.shape == (width,) and np.isfinite(given).all() and (given == np.floor(given)).all()
    if not whole or (np.diff(given) < 0).any():
        raise InputError(
            f"column_levels must be {width} ascending whole numbers, one for each column; got {abbreviate(levels)}"
        )
    if isinstance(names, str):
        raise InputError(f"column_names must be a list of {width} names; got the single text '{names}'")
    labels = [f"column {k}" for k in range(width)] if names is None else [str(name) for name in names]
    if len(labels) != width:
        raise InputError(f"column_names must have {width} names, one for each column; got {len(labels)}")
    if any("\0" in label for label in labels):
        raise InputError("column_names must be text without NUL characters, which no file can hold")
    return given.astype(np.int64), labels


def validate_by_level(values: Any, n: int, argument_name: str) -> dict[str, Array]:
    """For each level's name ``(n,) float64``, from a mapping of anything array-like; None is an empty one."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InputError(
            f"{argument_name} must be a mapping of level to {n} numbers, such as {{'dft': [...]}}; got {abbreviate(values)}"
        )
    checked: dict[str, Array] = {}
    for level, column in values.items():
        name = str(level)
        check_level_name(name)
        if name in checked:
            raise InputError(f"{argument_name} name the level '{name}' twice, as text and as a number; name it once")
        checked[name] = as_float_array(column, f"{argument_name} of level '{name}'", (n,))
    return checked


def _vector_of(values: Any) -> Array:
    """`values` as an array of whatever type; of no dimension where they are ragged."""
    try:
        return np.asarray(values)
    except ValueError:
        return np.empty(())
