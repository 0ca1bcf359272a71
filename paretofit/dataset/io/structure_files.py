"""Structures of one file, in any format that ASE reads, FitSNAP's JSON and VASP's output."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.db
import ase.io
from ase import Atoms
from ase.io.formats import filetype, open_with_compression

from paretofit.core import InputError, one_line
from paretofit.dataset.checks import check_structure
from paretofit.dataset.io.fitsnap_json import is_fitsnap, load_json, parse_fitsnap_structures
from paretofit.dataset.io.vasp import read_vasp_structures

ID_KEYS = ("config_id", "id", "configuration_id")
DATABASES = {"db", "json"}


WIDTHS = re.compile(rb":[RILS]:(\d+)")  # columns of each property of extended XYZ


CUT = "it ends in the middle of a structure"


@dataclass
class Frames:
    """The structures of one file or folder, with their ids where all of them carry one.

    Attributes
    ----------
    path : Path
    atoms : list of ase.Atoms
        Labels in their calculators, info or arrays; the ids are taken out of their info.
    ids : list of int or None
    origins : list of str, optional
        The file of each structure, where the path is a folder.
    skipped : list of str
        A sentence for each file of a folder that could not be read.
    notes : list of str
        What deserves to be said.
    """

    path: Path
    atoms: list[Atoms]
    ids: list[int] | None
    origins: list[str] | None = None
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def describe_frame(self, k: int) -> str:
        """Frame `k` as it is called in messages."""
        place = f"{self.path}: structure {k}" if self.origins is None else self.origins[k]
        return place + ("" if self.ids is None else f" (configuration {self.ids[k]})")


def read_structures(path: Path, notes: Counter[str]) -> list[Atoms]:
    """All structures of one file; what deserves to be said of them is counted in `notes`.

    Raises
    ------
    InputError
        If the file cannot be read, holds no structures, or one of them cannot be (see `check_structure`).
    """
    structures = _structures(path, notes)
    if not structures:
        raise InputError(f"{path} holds no structures")
    for k, atoms in enumerate(structures):
        check_structure(atoms, f"{path}: structure {k}")
    return structures


def _structures(path: Path, notes: Counter[str]) -> list[Atoms]:
    if path.suffix == ".json":
        content = load_json(path)
        if is_fitsnap(content):
            return parse_fitsnap_structures(path, content, notes)
    try:
        kind = filetype(str(path))
        if kind in {"vasp-out", "vasp-xml"}:
            return read_vasp_structures(path, kind, notes)
        if kind == "espresso-out":
            _check_ended(path)
        if kind in {"extxyz", "xyz"}:
            _check_counts(path)
        read = _database_rows(path) if kind in DATABASES else _read(path, kind)
    except InputError:
        raise
    except Exception as error:  # ASE's readers raise whatever their format's parser meets
        cut = "StopIteration" in one_line(error) or isinstance(error, StopIteration)
        reason = CUT if cut else one_line(error) or type(error).__name__
        raise InputError(f"{path} cannot be read by ASE: {reason}") from error
    return list(read) if isinstance(read, list) else [read]


def _read(path: Path, kind: str) -> Any:
    """ASE's reader, which without the last argument opens ``a`` where the name is ``a@1.xyz``."""
    return ase.io.read(path, index=":", format=kind, do_not_split_by_at_sign=True)


def _check_counts(path: Path) -> None:
    """Refuse more atoms than the file has lines, or more columns than a line has characters: ASE tries to read them.

    Raises
    ------
    InputError
        With the number that is too large.
    """
    with open_with_compression(str(path), "rb") as stream:
        while (first := stream.readline()).strip():
            try:
                count = int(first)
            except ValueError:  # lines of a cell may follow a structure; else ASE will say what is wrong
                return
            widest = max(map(int, WIDTHS.findall(stream.readline())), default=0)
            for _ in range(count):
                line = stream.readline()
                if not line:
                    raise InputError(f"{path} cannot be read by ASE: {CUT}, which has {count} atoms")
                if widest > len(line):
                    raise InputError(f"{path}: its 'Properties' name {widest} columns; its lines have fewer")


def _check_ended(path: Path) -> None:
    if "JOB DONE" not in path.read_text(encoding="utf-8", errors="replace"):
        raise InputError(f"{path} is the output of a pw.x run that has not ended; leave it out, or run it to its end")


def format_notes(path: Path, notes: Counter[str]) -> list[str]:
    """Counted notes as lines: ``"folder: stresses that are zero ... (12)"``."""
    return [f"{path}: {text} ({count})" for text, count in notes.items()]


def _database_rows(path: Path) -> list[Atoms]:
    """Rows of an ASE database; their key-value pairs and data become info, their number the ``id``."""
    structures = []
    with ase.db.connect(path, serial=True) as database:
        for row in database.select():
            atoms = row.toatoms()
            atoms.info = {**row.key_value_pairs, **row.data}
            if not set(ID_KEYS) & set(atoms.info):
                atoms.info["id"] = row.id
            structures.append(atoms)
    return structures
