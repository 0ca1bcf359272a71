"""A folder as one source of structures: calculations, a FitSNAP tree, or files of structures.

Folders of VASP calculations have an OUTCAR or vasprun.xml in each subfolder; where the subfolders are named by whole
numbers these are the ids. A FitSNAP tree has a subfolder for each group. Files are taken in natural order of their
names, so that nothing depends on the listing of a directory.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms

from paretofit.core import InputError
from paretofit.dataset.io.structure_files import Frames, format_notes, read_structures
from paretofit.dataset.io.vasp import add_outcar_details

XML, OUTCAR = "vasprun.xml", "OUTCAR"
COMPRESSED = ("", ".gz", ".bz2", ".xz")
PWSCF = "Program PWSCF"  # in the first lines of an output of pw.x, whatever its name
STRUCTURES = {".extxyz", ".xyz", ".traj", ".db"}


def read_folder(path: Path) -> Frames:
    """Read every calculation, JSON file or file of structures under a folder.

    Each structure's info gets its file as ``source``, and in a FitSNAP tree its group as ``config_type``. Files that
    cannot be read are skipped and named in ``skipped``.

    Raises
    ------
    InputError
        If the folder holds nothing that can be read, or JSON files beside files of structures.
    """
    files = sorted((one for one in path.rglob("*") if _visible(one, path)), key=lambda one: _natural(one, path))
    calculations = _calculations(files)
    json = [one for one in files if one.suffix == ".json"]
    plain = [one for one in files if one.suffix in STRUCTURES]
    if calculations:
        wanted, called = calculations, f"{OUTCAR}, {XML} or output of pw.x"
    elif json and plain:
        raise InputError(f"{path} holds JSON files and other structures ({plain[0]}); give each a folder of its own")
    else:
        wanted, called = [[one] for one in json or plain], "JSON file" if json else "structures"
    if not wanted:
        raise InputError(
            f"{path} holds no structures: a folder needs calculations ({OUTCAR}, {XML}, outputs of pw.x), FitSNAP's "
            f"JSON files or files of structures ({', '.join(sorted(STRUCTURES))})"
        )
    frames = _read_all(path, wanted)
    if calculations:
        _number(frames, path)
    elif json:
        for atoms in frames.atoms:
            group = str(Path(atoms.info["source"]).parent)
            atoms.info.setdefault("config_type", group if group != "." else path.name)
    empty = _without(path, [one[0] for one in wanted])
    if empty:
        frames.skipped += [f"{one}: no {called}" for one in empty]
    return frames


def _read_all(path: Path, wanted: Sequence[Sequence[Path]]) -> Frames:
    """Each entry's structures from the first of its files that can be read."""
    notes: Counter[str] = Counter()
    frames = Frames(path, [], None, origins=[])
    origins: list[str] = []
    for candidates in wanted:
        problems = []
        for file in candidates:
            try:
                structures = read_structures(file, notes)
            except InputError as error:
                problems.append(str(error))
                continue
            _describe(structures, file, path, notes)
            frames.atoms += structures
            multiple = len(structures) > 1
            origins += [f"{file}: structure {k}" if multiple else str(file) for k in range(len(structures))]
            break
        frames.skipped += problems
    if not frames.atoms:
        raise InputError(f"none of the {len(wanted)} files in {path} can be read; the first: {frames.skipped[0]}")
    frames.origins = origins
    frames.notes = format_notes(path, notes)
    return frames


def _describe(structures: list[Atoms], file: Path, path: Path, notes: Counter[str]) -> None:
    """Where each structure is from, and what only the OUTCAR beside a vasprun.xml says."""
    source = file.relative_to(path).as_posix()
    if file.name.startswith(XML) and (beside := file.with_name(OUTCAR)).is_file():
        add_outcar_details(beside, structures, notes)
    for atoms in structures:
        atoms.info.setdefault("source", source)
        if len(structures) > 1:
            atoms.info.setdefault("trajectory", source)


def _calculations(files: Sequence[Path]) -> list[list[Path]]:
    """For each folder of a calculation its vasprun.xml, which has more digits, and its OUTCAR; every output of pw.x."""
    folders: dict[Path, list[Path]] = {}
    for name in (XML, OUTCAR):
        for file in files:
            if file.name in {name + ending for ending in COMPRESSED}:
                folders.setdefault(file.parent, []).append(file)
    order = {file.parent: k for k, file in reversed(list(enumerate(files)))}
    espresso = [[file] for file in files if file.suffix in {".out", ".pwo"} and _is_pwscf(file)]
    return [folders[folder] for folder in sorted(folders, key=order.__getitem__)] + espresso


def _is_pwscf(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return PWSCF.encode() in stream.read(4096)
    except OSError:
        return False


def _number(frames: Frames, path: Path) -> None:
    """Ids from the names of the calculations' folders, where all are whole numbers and each holds one structure."""
    names = [(path / atoms.info["source"]).parent.name for atoms in frames.atoms]
    if all(re.fullmatch(r"\d+", name) for name in names) and len({int(name) for name in names}) == len(names):
        for atoms, name in zip(frames.atoms, names, strict=True):
            atoms.info.setdefault("config_id", int(name))


def _without(path: Path, wanted: Sequence[Path]) -> list[Path]:
    """Folders that hold none of the wanted files at any depth; of nested ones the outermost."""
    needed = {folder for file in wanted for folder in file.parents}
    direct = {file.parent for file in wanted} - {path}  # what a calculation keeps in folders of its own is its own
    folders = [one for one in path.rglob("*") if one.is_dir() and one not in needed and _shown(one, path)]
    return sorted((one for one in folders if one.parent in needed - direct), key=lambda one: _natural(one, path))


def _visible(file: Path, path: Path) -> bool:
    return file.is_file() and _shown(file, path)


def _shown(one: Path, path: Path) -> bool:
    return not any(part.startswith(".") for part in one.relative_to(path).parts)


def _natural(file: Path, path: Path) -> list[tuple[int, int, str]]:
    """Sort key in which Be_9 stands before Be_10."""
    parts = re.split(r"(\d+)", file.relative_to(path).as_posix())
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in parts]
