"""Reading of untrusted HDF5 files.

Such a file may link to other files, declare more data than it stores, have unexpected shapes and types, or be corrupt
in places that HDF5 does not check. Such files are refused before their data are read.
"""

import mmap
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from paretofit.core.arrays import Array

MAX_COMPRESSION_RATIO = 2048  # ratio of declared to stored bytes; gzip achieves at most 1032
MAX_SEARCHED_BYTES = 2 << 30  # size of the largest file whose global heaps are checked
HEAP_SIGNATURE = b"GCOL\1\0\0\0"
HEAP_HEADER_BYTES = 16  # length of the header of a global heap, and of each object in it
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

    Returns
    -------
    (n, *row_shape) array
        The rows, of the type that is stored.

    Raises
    ------
    ValueError
        If the dataset has another type or shape, or fewer rows than the window.
    KeyError, OSError
        As for `get_local_item`; h5py also raises others of `CORRUPT_FILE_ERRORS`.
    """
    dataset = get_local_item(file, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise ValueError("it contains no numbers")
    if dataset.dtype.kind not in dtype_kinds or dataset.ndim != 1 + len(row_shape) or dataset.shape[1:] != row_shape:
        raise ValueError(f"it contains {dataset.dtype} of shape {dataset.shape}")
    rows = np.asarray(dataset[window])
    if window.stop is not None and len(rows) != window.stop - window.start:
        raise ValueError("it is too short")
    return rows


def get_local_item(file: h5py.File, name: str) -> Any:
    """Return a group or dataset by its path in the file, refusing links and data that are stored in other files.

    Raises
    ------
    KeyError
        If the item does not exist.
    OSError
        If the item is a link, or if its data are in another file or larger than this file can contain.
    """
    item: Any = file
    for member in name.split("/"):
        link = item.get(member, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            raise KeyError(f"there is no item '{member}'")
        if not isinstance(link, h5py.HardLink):
            raise OSError("it is a link, which is not followed")
        item = item[member]
    if isinstance(item, h5py.Dataset):
        if item.is_virtual or item.external:
            raise OSError("its data are in another file, which is not read")
        if item.nbytes > MAX_COMPRESSION_RATIO * item.id.get_storage_size():
            raise OSError(f"it declares {item.nbytes} bytes and stores {item.id.get_storage_size()}")
    return item


def check_members(file: h5py.File, group: str = "", max_depth: int = 2) -> None:
    """Check that `get_local_item` accepts every item of a group, and that groups are nested at most `max_depth` deep.

    By default, the group is the root of the file.

    Raises
    ------
    OSError
        If an item is refused or nested too deeply; the message names it.
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
    """Check that no global heap of strings is so corrupt that HDF5 would loop for ever (seen with HDF5 2.0).

    A heap is a sequence of objects, each of which begins with its number and size. HDF5 does not advance if a corrupt
    size is too small, or so large that the position of the next object overflows. Files above `MAX_SEARCHED_BYTES` are
    not checked.

    Raises
    ------
    OSError
        If a heap is corrupt.
    """
    if not 0 < path.stat().st_size <= MAX_SEARCHED_BYTES:  # an empty file cannot be mapped
        return
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        heap_start = content.find(HEAP_SIGNATURE)
        while heap_start >= 0:
            # The header of a heap is its signature, 8 bytes, and its size, 8 bytes.
            heap_end = heap_start + int.from_bytes(content[heap_start + 8 : heap_start + 16], "little")
            if heap_end > len(content):  # HDF5 would allocate that much memory
                raise OSError(CORRUPT_HEAP_MESSAGE)
            position = heap_start + HEAP_HEADER_BYTES
            while position + HEAP_HEADER_BYTES <= heap_end:
                size = int.from_bytes(content[position + 8 : position + 16], "little")
                # The data of an object follow its header and are padded to a multiple of 8 bytes. Object 0 is free
                # space, whose size includes the header.
                is_object = any(content[position : position + 2])
                length = HEAP_HEADER_BYTES + (size + 7) // 8 * 8 if is_object else size
                if not HEAP_HEADER_BYTES <= length <= heap_end - position:
                    raise OSError(CORRUPT_HEAP_MESSAGE)
                position += length
            heap_start = content.find(HEAP_SIGNATURE, heap_start + len(HEAP_SIGNATURE))
