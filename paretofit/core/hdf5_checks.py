"""Reading HDF5 files that anybody may have made.

Such a file may point to other files, claim more than it holds, be of other shapes and types than its readers expect,
or be damaged where HDF5 itself does not look: all of this is refused before it is followed.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from paretofit.core.arrays import Array

LARGEST_PACKING = 2048  # numbers take at most this many times their bytes in the file; gzip gets to 1032
LARGEST_SEARCHED = 2 << 30  # bytes of a file in which heaps are looked at
HEAP = b"GCOL\1\0\0\0"
HEAP_DAMAGED = "a heap of texts in it is damaged"
CORRUPT_FILE_ERRORS = (
    OSError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    MemoryError,
)  # what h5py raises


def read_local_array(file: h5py.File, name: str, window: slice, dtype_kinds: str, row_shape: tuple[int, ...]) -> Array:
    """A window of a dataset of the file, all of it.

    Parameters
    ----------
    dtype_kinds : str
        The kinds of numpy types that will do, such as "fiu".
    row_shape : tuple of int
        Of what there is for each; the dataset has one dimension more.

    Raises
    ------
    ValueError
        If it is of another type or shape, or too short; or as `get_local_item` and h5py.
    """
    stored = get_local_item(file, name)
    if not isinstance(stored, h5py.Dataset) or stored.shape is None:
        raise ValueError("it holds no numbers")
    if stored.dtype.kind not in dtype_kinds or stored.ndim != 1 + len(row_shape) or stored.shape[1:] != row_shape:
        raise ValueError(f"it holds {stored.dtype} of shape {stored.shape}")
    values = np.asarray(stored[window])
    if window.stop is not None and len(values) != window.stop - window.start:
        raise ValueError("it is too short")
    return values


def get_local_item(file: h5py.File, name: str) -> Any:
    """The group or dataset `name`, of which all that it says stands in this very file.

    Raises
    ------
    KeyError
        If it is not there.
    OSError
        If it is a link, or its numbers are in another file, or are more than the file can hold.
    """
    item: Any = file
    for part in name.split("/"):
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            raise KeyError(f"there is no '{part}'")
        if not isinstance(link, h5py.HardLink):
            raise OSError("it is a link to another place, which is not followed")
        item = item[part]
    if isinstance(item, h5py.Dataset):
        if item.is_virtual or item.external:
            raise OSError("its numbers are in another file, which is not read")
        if item.nbytes > LARGEST_PACKING * item.id.get_storage_size():
            raise OSError(f"it claims {item.nbytes} bytes and has {item.id.get_storage_size()}")
    return item


def check_members(file: h5py.File, group: str = "", max_depth: int = 2) -> None:
    """Refuse a file of which anything is not `get_local_item` it, or whose groups are nested more than `max_depth` times.

    Raises
    ------
    OSError
        With the name of what is not.
    """
    for member in get_local_item(file, group) if group else file:
        name = f"{group}/{member}" if group else str(member)
        try:
            item = get_local_item(file, name)
        except OSError as error:
            raise OSError(f"'{name}': {error}") from error
        if isinstance(item, h5py.Group):
            if not max_depth:
                raise OSError(f"'{name}': it is a group, where only numbers were expected")
            check_members(file, name, max_depth - 1)


def check_global_heaps(path: Path) -> None:
    """Refuse a file whose heaps of texts HDF5 would read without end (seen with HDF5 2.0).

    A heap's objects follow each other, each with its number and size; HDF5 goes round and round where damage has made
    one so small, or so large that its end overflows, that the next one is not behind it.

    Raises
    ------
    OSError
        If there is such a heap.
    """
    if not 0 < path.stat().st_size <= LARGEST_SEARCHED:
        return
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(HEAP)
        while start >= 0:
            place, end = start + 16, start + int.from_bytes(content[start + 8 : start + 16], "little")
            if end > len(content):  # HDF5 would take that much memory
                raise OSError(HEAP_DAMAGED)
            while place + 16 <= end:
                size = int.from_bytes(content[place + 8 : place + 16], "little")
                numbered = any(content[place : place + 2])  # object 0 is what is free, its header included
                length = 16 + (size + 7) // 8 * 8 if numbered else size
                if not 16 <= length <= end - place:
                    raise OSError(HEAP_DAMAGED)
                place += length
            start = content.find(HEAP, start + 8)
