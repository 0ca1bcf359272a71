"""The HDF5 file of a design matrix: blocks of rows, the index of the rows, and arrays with checksums.

Rows are read when they are needed, long after the file was opened, and a flipped bit would silently change a fit. The
Fletcher-32 checksum of every chunk turns such a bit into an error. On one core, from memory, the checksums lower
the rate of writing from 3.6 to 1.3 GB/s and the rate of reading from 11 to 3.7 GB/s. Both rates are high enough:
descriptors are computed at about 10 MB/s, and a pass of the reduction reads less than 1 GB/s.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from paretofit.core import (
    CORRUPT_FILE_ERRORS,
    Array,
    InputError,
    RowKind,
    check_global_heaps,
    check_members,
    join_lines,
    raise_if_system_error,
    read_local_array,
)

SCHEMA_VERSION = 1  # version of the file format


@dataclass(frozen=True)
class DesignBlock:
    """Block of rows to be written to a design file.

    Attributes
    ----------
    rows : (n_rows, n_features) float64
    kind : (n_rows,) int or str
        `RowKind` of each row, or its name: "energy", "force" or "stress".
    configuration : (n_rows,) int
        The id of each row's configuration.
    targets : mapping of level to (n_rows,) float64
        Labels, in eV/atom, eV/Å or GPa; NaN where missing.
    """

    rows: Array
    kind: Any
    configuration: Any
    targets: Mapping[str, Array] = field(default_factory=dict)


@contextmanager
def open_design_file(path: Path) -> Iterator[h5py.File]:
    """Open a design file for reading; errors of reading inside the `with` block become an `InputError`.

    Raises
    ------
    InputError
        If the file is missing, corrupt, or not a design file; the message names it.
    ExecutionError
        If the system prevents reading.
    """
    if not path.is_file():
        raise InputError(f"there is no design file at {path}; 'paretofit run' or compute_design writes one")
    try:
        with h5py.File(path, "r") as file:
            _check_version(file, path)
            yield file
    except InputError:
        raise
    except CORRUPT_FILE_ERRORS as error:
        raise_if_system_error(error, path)
        raise InputError(f"{path} is corrupt or truncated ({join_lines(error)}); delete it and run again") from error


def read_design_index(path: Path) -> dict[str, Any]:
    """Read everything but the rows of a design file, as keyword arguments of `DesignMatrix`.

    Raises
    ------
    InputError
        As for `open_design_file`, and if an array is missing, has a length that does not match the rows, or is stored
        in another file.
    """
    with open_design_file(path) as file:
        check_global_heaps(path)
        check_members(file)
        n_rows, n_columns = file["rows"].shape

        def read_array(name: str, dtype_kinds: str, length: int | None = None) -> Array:
            """Read a one-dimensional array; raise ValueError if its length is not `length`."""
            array = read_local_array(file, name, slice(0, length), dtype_kinds, ())
            if len(array) < len(file[name]):
                raise ValueError(f"'{name}' has more than the {length} values that match the rows")
            return array

        def read_arrays_by_level(group: str, length: int) -> dict[str, Array]:
            """Read the array of each level in a group; empty if the file lacks the group."""
            return {level: read_array(f"{group}/{level}", "f", length) for level in file.get(group, {})}

        ids, names = read_array("ids", "iu"), read_array("column_names", "O", n_columns)
        kind, positions = read_array("kind", "iu", n_rows), read_array("configuration", "iu", n_rows)
        has_valid_positions = not n_rows or (positions.min() >= 0 and positions.max() < len(ids))
        if not (has_valid_positions and set(np.unique(kind)) <= set(RowKind)):
            raise ValueError("a row has no valid configuration or no valid kind")
        attributes = {key: str(value) for key, value in file.attrs.items() if key != "design_version"}
        int(attributes.get("constant_columns", 0))  # raises ValueError if the attribute is corrupt
        return {
            "kind": kind, "configuration": positions, "ids": ids,
            "column_levels": read_array("column_levels", "iu", n_columns),
            "column_names": [name.decode() for name in names], "targets": read_arrays_by_level("targets", n_rows),
            "seconds": read_arrays_by_level("seconds", len(ids)), "attributes": attributes,
        }  # fmt: skip


def write_array(file: h5py.File, name: str, array: Array) -> None:
    """Write an array, with checksums unless it is empty, because HDF5 does not support checksums of empty arrays."""
    file.create_dataset(name, data=array, fletcher32=True if array.size else None)


def _check_version(file: h5py.File, path: Path) -> None:
    """Raise `InputError` if a file is not a design file of this version of the format."""
    if file.attrs.get("design_version") != SCHEMA_VERSION:
        raise InputError(f"{path} is not a design file of this version of paretofit; compute it again")
