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

from paretofit.errors import InputError
from paretofit.files import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from paretofit.descriptors.basis import Array

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Block:
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
def reading_design(path: Path) -> Iterator[h5py.File]:
    """Open a design file; whatever fails in it becomes one sentence."""
    if not path.is_file():
        raise InputError(f"no design file at {path}; 'paretofit run' or compute_design makes one")
    try:
        with h5py.File(path, "r") as file:
            _check_version(file, path)
            yield file
    except InputError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged or truncated ({one_line(error)}); delete it and make it again") from error


def write_array(file: h5py.File, name: str, array: Array) -> None:
    """Write an array with checksums; HDF5 has none for one without elements."""
    file.create_dataset(name, data=array, fletcher32=True if array.size else None)


def _check_version(file: h5py.File, path: Path) -> None:
    if file.attrs.get("design_version") != SCHEMA_VERSION:
        raise InputError(f"{path} is not a design matrix of this version; make it again")
