"""Relaxed structures and results of properties as arrays, for the journals of a validation that can be resumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms

from paretofit.core import Array
from paretofit.validation.measurement import PropertyResult
from paretofit.validation.quantity import Quantity


def pack_result(result: PropertyResult) -> list[Array]:
    """Pack the result of a property into an array of bytes; numbers keep all digits."""
    curves = {name: {column: table[column].tolist() for column in table} for name, table in result.curves.items()}
    return [_pack_json([result.values, curves, result.failures, result.notes])]


def unpack_result(arrays: Sequence[Array]) -> PropertyResult:
    """Unpack a result from `pack_result`."""
    values, curves, failures, notes = _unpack_json(arrays[0])
    return PropertyResult(
        [(structure, index, Quantity(*quantity)) for structure, index, quantity in values],
        {name: pd.DataFrame(columns) for name, columns in curves.items()},
        failures,
        notes,
    )


def pack_structure(structure: Atoms | str) -> list[Array]:
    """Pack a relaxed structure, or the reason why there is none, into arrays."""
    if isinstance(structure, str):
        return [_pack_json(structure)]
    arrays = {name: values for name, values in structure.arrays.items() if name not in {"numbers", "positions"}}
    basic_arrays = [structure.numbers, structure.positions, structure.cell[:], structure.pbc]
    return [_pack_json(sorted(arrays)), *basic_arrays, *(arrays[name] for name in sorted(arrays))]


def unpack_structure(arrays: Sequence[Array]) -> Atoms | str:
    """Unpack a structure, or a reason, from `pack_structure`."""
    content = _unpack_json(arrays[0])
    if isinstance(content, str):
        return content
    numbers, positions, cell, pbc, *others = arrays[1:]
    structure = Atoms(numbers, positions, cell=cell, pbc=pbc)
    for name, values in zip(content, others, strict=True):
        structure.set_array(name, values)
    return structure


def _pack_json(content: Any) -> Array:
    text = json.dumps(content, default=lambda number: number.item())
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _unpack_json(array: Array) -> Any:
    return json.loads(array.tobytes())
