"""Structures from files and folders, with the ids and labels that they carry.

One file of any format that ASE reads, ASE databases, FitSNAP JSON and VASP output; or a folder of such files, where
one that cannot be read is counted and named but does not lose the others.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from paretofit.core import InputError
from paretofit.dataset.checks import parse_config_id
from paretofit.dataset.io.folders import read_folder
from paretofit.dataset.io.structure_files import ID_KEYS, Frames, format_notes, read_structures


def read_frames(path: Path, id_key: str | None) -> Frames:
    """Read all structures of a file or folder, and take their ids out of their info.

    Parameters
    ----------
    path : Path
        A file that ASE reads, a FitSNAP JSON file, or a folder: see `paretofit.dataset.io.folders`.
    id_key : str or None
        The key of the ids; by default the first of `ID_KEYS` that all structures carry. Rows of an ASE database
        have their row's number as ``id``.

    Raises
    ------
    InputError
        If the file cannot be read or holds no structures, or ids repeat or are not whole numbers.
    """
    if path.is_dir():
        frames = read_folder(path)
    elif not path.is_file():
        raise InputError(f"no file at {path}")
    else:
        notes: Counter[str] = Counter()
        frames = Frames(path, read_structures(path, notes), None, notes=format_notes(path, notes))
    frames.ids = _take_ids(frames, id_key)
    return frames


def _take_ids(frames: Frames, id_key: str | None) -> list[int] | None:
    keys = ID_KEYS if id_key is None else (id_key,)
    key = next((key for key in keys if all(key in one.info for one in frames.atoms)), None)
    if key is None:
        if id_key is not None:
            raise InputError(f"{frames.path}: not every structure has the id key '{id_key}'")
        return None
    try:
        ids = [parse_config_id(one.info[key]) for one in frames.atoms]
    except InputError as error:
        raise InputError(f"{frames.path}, key '{key}': {error}") from error
    repeated = find_first_duplicate(ids)
    if repeated is not None:
        raise InputError(f"{frames.path}: the id {repeated} appears more than once; ids must be unique")
    for one in frames.atoms:
        del one.info[key]
    return ids


def find_first_duplicate(values: Iterable[int]) -> int | None:
    """The first value that was there before; None where all differ."""
    seen: set[int] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
