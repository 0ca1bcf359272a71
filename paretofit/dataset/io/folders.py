"""Reader of a directory of structures: calculations, a FitSNAP tree, or structure files.

A directory of VASP calculations has an OUTCAR or vasprun.xml in each subdirectory; if each has one structure and the
names of all subdirectories are different whole numbers, these become the ids. A FitSNAP tree has a subdirectory for
each group. Files are sorted by name in natural order, so that results do not depend on the order in which the file
system lists them.
"""

import re
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms
from ase.io.formats import open_with_compression

from paretofit.core import ExecutionError, InputError, get_natural_sort_key, list_first
from paretofit.dataset.io.dft_outputs import add_output_details
from paretofit.dataset.io.structure_files import Frames, format_notes, read_structures, strip_compression

XML, OUTCAR = "vasprun.xml", "OUTCAR"
PWSCF_SIGNATURE = b"Program PWSCF"  # text in the first lines of any output of pw.x
SIGNATURE_SEARCH_BYTES = 4096  # length of the beginning of a file that is searched for the signature
MAX_LISTED_FILES = 5  # number of unread files that a note lists by name
STRUCTURE_SUFFIXES = {".extxyz", ".xyz", ".traj", ".db"}


def read_folder(path: Path) -> Frames:
    """Read every calculation, or else every JSON file or structure file, in a directory and its subdirectories.

    The path of the file is stored in the info of each structure as ``source``, that of a file with several structures
    also as ``trajectory``, and the group of a FitSNAP tree as ``config_type``. Names of directories may become ids.
    Files that cannot be read are skipped and listed in ``skipped``; files and links that were ignored are described in
    ``notes``.

    Raises
    ------
    InputError
        If the directory contains no readable file, or both JSON files and other structure files.
    """
    entries, links = _list_visible_entries(path)
    files = [entry for entry in entries if entry.is_file()]
    calculations = _find_calculations(files)
    suffixes = {file: Path(strip_compression(file.name)).suffix for file in files}
    json_files = [file for file in files if suffixes[file] == ".json"]
    structure_files = [file for file in files if suffixes[file] in STRUCTURE_SUFFIXES]
    if calculations:
        sources, file_kind = calculations, f"{OUTCAR}, {XML} or output of pw.x"
    elif json_files and structure_files:
        raise InputError(f"{path} contains JSON files and other structures ({structure_files[0]}); separate them")
    else:
        sources = [[file] for file in json_files or structure_files]
        file_kind = "JSON file" if json_files else "structures"
    if not sources:
        raise InputError(
            f"{path} contains no structures: a directory requires calculations ({OUTCAR}, {XML}, outputs of pw.x), "
            f"FitSNAP's JSON files or structure files ({', '.join(sorted(STRUCTURE_SUFFIXES))})"
        )
    frames = _read_sources(path, sources)
    if calculations:
        _assign_ids(frames, path)
    elif json_files:
        for atoms in frames.atoms:
            group = str(Path(atoms.info["source"]).parent)
            atoms.info.setdefault("config_type", group if group != "." else path.name)
    folders = [entry for entry in entries if entry.is_dir()]
    empty_folders = _find_empty_folders(path, folders, [files[0] for files in sources])
    frames.skipped += [f"{folder}: no {file_kind}" for folder in empty_folders]
    unread_files = [] if calculations else sorted({*files} - {file for source in sources for file in source})
    if unread_files:
        file_list = _list_unread_files(path, unread_files)
        frames.notes.append(
            f"{path}: {len(unread_files)} files are not structures by their names and were not read: {file_list}"
        )
    if links:
        link_list = list_first([link.relative_to(path).as_posix() for link in links])
        frames.notes.append(
            f"{path}: links to directories that are read under another name were not followed: {link_list}"
        )
    return frames


def _list_unread_files(path: Path, files: Sequence[Path]) -> str:
    """List the file names or, if there are more than `MAX_LISTED_FILES`, the number of files with each suffix."""
    if len(files) <= MAX_LISTED_FILES:
        return ", ".join(file.relative_to(path).as_posix() for file in files)
    counts = Counter("".join(file.suffixes) or file.name for file in files)
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.items())


def _list_visible_entries(path: Path) -> tuple[list[Path], list[Path]]:
    """List all files and directories that are not hidden, recursively, and the links that were not followed.

    Both lists are in natural order. So that no file is listed twice, symbolic links to directories are followed only
    when all other directories have been listed, and only if the target was not listed before and does not contain
    `path`.
    """
    root = path.resolve()
    visited_folders, entries, skipped_links = {root, *root.parents}, [], []
    folders, links = [path], deque[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        if folder != path:
            if (target := folder.resolve()) in visited_folders:
                skipped_links.append(folder)
                continue
            visited_folders.add(target)
            entries.append(folder)
        folder_entries = sorted(
            (entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=_get_sort_key
        )
        entries += [entry for entry in folder_entries if not entry.is_dir()]
        folders += [entry for entry in folder_entries if entry.is_dir() and not entry.is_symlink()]
        links += [entry for entry in folder_entries if entry.is_dir() and entry.is_symlink()]
    return sorted(entries, key=_get_sort_key), sorted(skipped_links, key=_get_sort_key)


def _get_sort_key(path: Path) -> list[tuple[int, int, str]]:
    """Return the key that sorts paths in natural order: ``run2`` before ``run10``."""
    return get_natural_sort_key(path.as_posix())


def _read_sources(path: Path, sources: Sequence[Sequence[Path]]) -> Frames:
    """Read the structures of each source, a list of alternative files, from the first of them that can be read.

    Files that cannot be read are listed in ``skipped``; raise `InputError` if no file can be read.
    """
    notes: Counter[str] = Counter()
    frames = Frames(path, [], None)
    origins: list[str] = []
    for files in sources:
        problems = []
        for file in files:
            try:
                structures = read_structures(file, notes)
            except ExecutionError:  # an error of the system, not of the file
                raise
            except InputError as error:
                problems.append(str(error))
                continue
            _add_source_info(structures, file, path, notes)
            frames.atoms += structures
            is_trajectory = len(structures) > 1
            origins += [f"{file}: structure {k}" if is_trajectory else str(file) for k in range(len(structures))]
            break
        frames.skipped += problems
    if not frames.atoms:
        raise InputError(f"none of the {len(sources)} files in {path} can be read; first error: {frames.skipped[0]}")
    frames.origins = origins
    frames.notes = format_notes(path, notes)
    return frames


def _add_source_info(structures: list[Atoms], file: Path, path: Path, notes: Counter[str]) -> None:
    """Add the source of each structure to its info and, for a vasprun.xml, details from the OUTCAR next to it."""
    source = file.relative_to(path).as_posix()
    if file.name.startswith(XML) and (outcar := file.with_name(OUTCAR)).is_file():
        add_output_details(outcar, "vasp-out", structures, notes)
    for atoms in structures:
        atoms.info.setdefault("source", source)
        if len(structures) > 1:
            atoms.info.setdefault("trajectory", source)


def _find_calculations(files: Sequence[Path]) -> list[list[Path]]:
    """Return the files of each calculation: vasprun.xml and OUTCAR of a directory, or an output of pw.x.

    A vasprun.xml precedes the OUTCAR and is read instead of it, because its numbers have more digits.
    """
    folders: dict[Path, list[Path]] = {file.parent: [] for file in files}  # folders in order of appearance
    for name in (XML, OUTCAR):
        for file in files:
            if strip_compression(file.name) == name:
                folders[file.parent].append(file)
    outputs = [file for file in files if Path(strip_compression(file.name)).suffix in {".out", ".pwo"}]
    espresso_calculations = [[file] for file in outputs if _is_pwscf_output(file)]
    return [*filter(None, folders.values()), *espresso_calculations]


def _is_pwscf_output(file: Path) -> bool:
    """Return whether a file, possibly compressed, begins like an output of pw.x; False if it cannot be read."""
    try:
        with open_with_compression(str(file), "rb") as stream:
            return PWSCF_SIGNATURE in stream.read(SIGNATURE_SEARCH_BYTES)
    except (OSError, EOFError):
        return False


def _assign_ids(frames: Frames, path: Path) -> None:
    """Use the names of the directories as ids if all are different whole numbers, one for each structure."""
    names = [(path / atoms.info["source"]).parent.name for atoms in frames.atoms]
    if all(re.fullmatch(r"\d+", name) for name in names) and len({int(name) for name in names}) == len(names):
        for atoms, name in zip(frames.atoms, names, strict=True):
            atoms.info.setdefault("config_id", int(name))


def _find_empty_folders(path: Path, folders: Sequence[Path], files: Sequence[Path]) -> list[Path]:
    """Return the outermost directories that contain none of the files at any depth, except those next to a file."""
    ancestors = {folder for file in files for folder in file.parents}
    parents = {file.parent for file in files} - {path}  # subdirectories of a calculation belong to it
    return [folder for folder in folders if folder not in ancestors and folder.parent in ancestors - parents]
