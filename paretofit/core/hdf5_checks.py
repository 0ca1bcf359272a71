"""Reading of untrusted HDF5 files.

Such a file may link to other files, declare more data than it stores, have unexpected shapes and types, or be corrupt
in places that HDF5 does not check. All of these are refused before the data are read.
"""

import mmap
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from paretofit.core.arrays import Array

MAX_COMPRESSION_RATIO = 2048  # ratio of declared to stored bytes; gzip reaches 1032
MAX_SEARCHED_BYTES = 2 << 30  # size of the largest file whose global heaps are checked
HEAP_SIGNATURE = b"GCOL\1\0\0\0"
CORRUPT_HEAP_MESSAGE = "a global heap of strings is corrupt"
# Exceptions that h5py raises when it reads a corrupt file.
CORRUPT_FILE_ERRORS = (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError, MemoryError)


def read_local_array(file: h5py.File, name: str, window: slice, dtype_kinds: str, row_shape: tuple[int, ...]) -> Array:
    """Read a window of rows of an HDF5 dataset, after checking its type and shape.

    Parameters
    ----------
    file : h5py.File
    name : str
        Path of the dataset in the file.
    window : slice
        Rows to read.
    dtype_kinds : str
        Accepted kinds of numpy types, such as "fiu".
    row_shape : tuple of int
        Shape of a row; the dataset must have one more dimension.

    Raises
    ------
    ValueError
        If the dataset has another type or shape, or fewer rows; `get_local_item` and h5py raise further errors.
    """
    dataset = get_local_item(file, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise ValueError("it contains no numbers")
    if dataset.dtype.kind not in dtype_kinds or dataset.ndim != 1 + len(row_shape) or dataset.shape[1:] != row_shape:
        raise ValueError(f"it contains {dataset.dtype} of shape {dataset.shape}")
    values = np.asarray(dataset[window])
    if window.stop is not None and len(values) != window.stop - window.start:
        raise ValueError("it is too short")
    return values


def get_local_item(file: h5py.File, name: str) -> Any:
    """Return a group or dataset, refusing links and data stored in other files.

    Raises
    ------
    KeyError
        If the item does not exist.
    OSError
        If the item is a link, or if its data are in another file or larger than this file can contain.
    """
    item: Any = file
    for part in name.split("/"):
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            raise KeyError(f"there is no item '{part}'")
        if not isinstance(link, h5py.HardLink):
            raise OSError("it is a link, which is not followed")
        item = item[part]
    if isinstance(item, h5py.Dataset):
        if item.is_virtual or item.external:
            raise OSError("its data are in another file, which is not read")
        if item.nbytes > MAX_COMPRESSION_RATIO * item.id.get_storage_size():
            raise OSError(f"it declares {item.nbytes} bytes and stores {item.id.get_storage_size()}")
    return item


def check_members(file: h5py.File, group: str = "", max_depth: int = 2) -> None:
    """Check that `get_local_item` accepts every item of a group, and that groups are nested at most `max_depth` deep.

    Raises
    ------
    OSError
        If an item is refused; the message names it.
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
    """Refuse a file whose global heaps of strings would put HDF5 into an endless loop (seen with HDF5 2.0).

    A heap is a sequence of objects, each of which starts with its number and size. HDF5 loops for ever if an object's
    corrupt size places the next object at or before it: a size that is too small, or so large that its end overflows.
    Files above `MAX_SEARCHED_BYTES` are not checked.

    Raises
    ------
    OSError
        If a heap is corrupt.
    """
    if not 0 < path.stat().st_size <= MAX_SEARCHED_BYTES:
        return
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(HEAP_SIGNATURE)
        while start >= 0:
            # A heap has a header of 16 bytes: its signature, then its size.
            position, end = start + 16, start + int.from_bytes(content[start + 8 : start + 16], "little")
            if end > len(content):  # HDF5 would allocate that much memory
                raise OSError(CORRUPT_HEAP_MESSAGE)
            while position + 16 <= end:
                size = int.from_bytes(content[position + 8 : position + 16], "little")
                # The data of an object follow a header of 16 bytes and are padded to a multiple of 8. Object 0 is free
                # space, whose size includes the header.
                is_object = any(content[position : position + 2])
                length = 16 + (size + 7) // 8 * 8 if is_object else size
                if not 16 <= length <= end - position:
                    raise OSError(CORRUPT_HEAP_MESSAGE)
                position += length
            start = content.find(HEAP_SIGNATURE, start + 8)
