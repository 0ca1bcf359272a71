"""The file of a design matrix: what goes into it, opening it, and arrays with checksums in it.

Rows are read as they are needed, long after the file was opened, and a flipped bit of one would change a fit without a
word. HDF5's Fletcher-32 of every chunk makes it an error. On one core, from memory, it takes writing from 3.6 to
1.3 GB/s and reading from 11 to 3.7 GB/s, where descriptors come at some 10 MB/s and a pass of the reduction at less
than 1 GB/s.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from paretofit.core import (
    CORRUPT_FILE_ERRORS,
    InputError,
    RowKind,
    check_global_heaps,
    check_members,
    one_line,
    read_local_array,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from paretofit.core import Array

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class DesignBlock:
    """Some rows on their way into a design matrix.

    Attributes
    ----------
    rows : (n, p) float64
    kind : (n,) RowKind, or their names
        "energy", "force" or "stress".
    configuration : (n,) int
        The id of each row's configuration.
    targets : mapping of level to (n,) float64
        Labels, in eV/atom, eV/Å or GPa; NaN where missing.
    """

    rows: Array
    kind: Any
    configuration: Any
    targets: Mapping[str, Array] = field(default_factory=dict)


@contextmanager
def open_design_file(path: Path) -> Iterator[h5py.File]:
    """Open a design file; whatever fails in it becomes one sentence."""
    if not path.is_file():
        raise InputError(f"no design file at {path}; 'paretofit run' or compute_design makes one")
    try:
        with h5py.File(path, "r") as file:
            _check_version(file, path)
            yield file
    except InputError:
        raise
    except CORRUPT_FILE_ERRORS as error:
        raise InputError(f"{path} is damaged or truncated ({one_line(error)}); delete it and make it again") from error


def read_design_index(path: Path) -> dict[str, Any]:
    """All but the rows of a design file, by the names that `paretofit.descriptors.design.DesignMatrix` has for it.

    Raises
    ------
    InputError
        If anything of it is missing, of another length than the rows ask for, or in another file.
    """
    with open_design_file(path) as file:
        check_global_heaps(path)
        check_members(file)
        n, p = file["rows"].shape

        def numbers(name: str, kinds: str, length: int | None = None) -> Array:
            values = read_local_array(file, name, slice(0, length), kinds, ())
            if len(values) < len(file[name]):
                raise ValueError(f"'{name}' is longer than the {length} that the rows ask for")
            return values

        def by_level(name: str, length: int) -> dict[str, Array]:
            return {level: numbers(f"{name}/{level}", "f", length) for level in file.get(name, {})}

        ids, names = numbers("ids", "iu"), numbers("column_names", "O", p)
        kind, owners = numbers("kind", "iu", n), numbers("configuration", "iu", n)
        if n and not (owners.min() >= 0 and owners.max() < len(ids) and set(np.unique(kind)) <= set(RowKind)):
            raise ValueError("a row is of no configuration or of no kind")
        attributes = {key: str(value) for key, value in file.attrs.items() if key != "design_version"}
        int(attributes.get("constant_columns", 0))
        return {
            "kind": kind, "configuration": owners, "ids": ids, "column_levels": numbers("column_levels", "iu", p),
            "column_names": [name.decode() for name in names], "targets": by_level("targets", n),
            "seconds": by_level("seconds", len(ids)), "attributes": attributes,
        }  # fmt: skip


def write_array(file: h5py.File, name: str, array: Array) -> None:
    """Write an array with checksums; HDF5 has none for one without elements."""
    file.create_dataset(name, data=array, fletcher32=True if array.size else None)


def _check_version(file: h5py.File, path: Path) -> None:
    if file.attrs.get("design_version") != SCHEMA_VERSION:
        raise InputError(f"{path} is not a design matrix of this version; make it again")
