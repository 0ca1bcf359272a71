"""Reader of structures with their ids and labels from files and directories.

The input is a file in any format that ASE reads, an ASE database, FitSNAP JSON or VASP output, or a directory of such
files. Files in a directory that cannot be read are skipped and reported.
"""

from collections import Counter
from pathlib import Path

from paretofit.core import InputError
from paretofit.dataset.checks import find_first_duplicate, parse_config_id
from paretofit.dataset.io.folders import read_folder
from paretofit.dataset.io.structure_files import ID_KEYS, Frames, format_notes, read_structures

NAME_KEY = "config_name"  # info key under which textual ids are stored, because `config_id` must be a number


def read_frames(path: Path, id_key: str | None) -> Frames:
    """Read all structures of a file or directory, and move ids from the info of the structures to `Frames.ids`.

    Parameters
    ----------
    path : Path
        A file that ASE reads, a FitSNAP JSON file, or a directory (see `paretofit.dataset.io.folders`).
    id_key : str or None
        Key of the ids; by default the first of `ID_KEYS` that all structures have. In an ASE database, the ``id`` is
        the row number.

    Raises
    ------
    InputError
        If the file cannot be read or contains no structures, a structure lacks the `id_key`, or ids are repeated or are
        not whole numbers.
    """
    if path.is_dir():
        frames = read_folder(path)
    elif not path.is_file():
        raise InputError(f"no file at {path}; correct the path")
    else:
        notes: Counter[str] = Counter()
        frames = Frames(path, read_structures(path, notes), None, notes=format_notes(path, notes))
    frames.ids = _pop_ids(frames, id_key)
    return frames


def _pop_ids(frames: Frames, id_key: str | None) -> list[int] | None:
    """Remove the ids from the info of the structures and return them; None if a structure has no id or ids are text.

    Text is accepted only by default, and moved to `NAME_KEY`; under an `id_key` of the user, it raises an `InputError`.
    """
    keys = ID_KEYS if id_key is None else (id_key,)
    key = next((key for key in keys if all(key in atoms.info for atoms in frames.atoms)), None)
    if key is None:
        if id_key is not None:
            raise InputError(f"{frames.path}: not every structure has the id key '{id_key}'")
        return None
    try:
        ids = [parse_config_id(atoms.info[key]) for atoms in frames.atoms]
    except InputError as error:
        if id_key is None and any(isinstance(atoms.info[key], str) for atoms in frames.atoms):
            _store_names(frames, key)
            return None
        raise InputError(f"{frames.path}, key '{key}': {error}") from error
    if (duplicate_id := find_first_duplicate(ids)) is not None:
        raise InputError(f"{frames.path}: the id {duplicate_id} appears more than once; ids must be unique")
    for atoms in frames.atoms:
        del atoms.info[key]
    return ids


def _store_names(frames: Frames, key: str) -> None:
    """Store textual ids as metadata of the configurations, because ids must be numbers, and add a note."""
    example = next(atoms.info[key] for atoms in frames.atoms if isinstance(atoms.info[key], str))
    for atoms in frames.atoms:
        atoms.info[NAME_KEY] = str(atoms.info.pop(key))
    frames.notes.append(
        f"{frames.path}: '{key}' has text, such as '{example}', and was stored as metadata '{NAME_KEY}'; "
        "configurations are numbered, and matched by their geometries"
    )
