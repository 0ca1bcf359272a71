"""Relaxed structures and results of properties as arrays, for the journals of a validation that can be resumed."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.io.jsonio import decode, encode

from paretofit.core import Array
from paretofit.validation.measurement import PropertyResult
from paretofit.validation.quantity import Quantity


def pack_result(result: PropertyResult) -> list[Array]:
    """Pack the result of a property into a list of one array of bytes; numbers keep all digits."""
    curves = {name: {column: table[column].tolist() for column in table} for name, table in result.curves.items()}
    return [_pack_json([result.values, curves, result.failures, result.notes])]


def unpack_result(arrays: Sequence[Array]) -> PropertyResult:
    """Unpack the result of a property from the arrays of `pack_result`."""
    values, curves, failures, notes = json.loads(arrays[0].tobytes())
    values = [(structure, index, Quantity(*quantity)) for structure, index, quantity in values]
    tables = {name: pd.DataFrame(columns) for name, columns in curves.items()}
    return PropertyResult(values, tables, failures, notes)


def pack_structure(structure: Atoms | str) -> list[Array]:
    """Pack a relaxed structure without its info, or the reason why there is none, into a list of one array of bytes."""
    if isinstance(structure, str):
        return [_pack_json(structure)]
    copy: Atoms = structure.copy()
    copy.info = {}  # the info may contain objects that JSON cannot represent
    return [_pack_json(copy)]


def unpack_structure(arrays: Sequence[Array]) -> Atoms | str:
    """Unpack a structure, or the reason why there is none, from the arrays of `pack_structure`."""
    structure: Atoms | str = decode(arrays[0].tobytes().decode())
    return structure


def _pack_json(content: Any) -> Array:
    """Encode content as JSON, with ASE's extensions, in an array of bytes."""
    return np.frombuffer(encode(content).encode(), dtype=np.uint8)
