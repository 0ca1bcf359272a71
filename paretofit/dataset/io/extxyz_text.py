"""Reader of extended XYZ from other programs, for files on which ASE's reader stops or loses the cell.

ASE knows ``Lattice``, ``Properties`` and ``pbc`` only in this spelling and treats other spellings, such as
``lattice``, as metadata, whereas GPUMD ignores case. ASE also refuses a ``stress`` or ``virial`` that does not have
nine numbers.
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import ase.io
from ase import Atoms
from ase.io.formats import open_with_compression

from paretofit.core import InputError

CANONICAL_KEYS = {"lattice": "Lattice", "properties": "Properties", "pbc": "pbc"}
CELL_KEYS = {"cell", "box", "unit_cell", "unitcell", "cell_vectors"}  # keys that may hold the cell instead of Lattice
COLUMN_NAMES = {"species": "species", "pos": "pos"}  # names of columns in lower case, and in ASE's spelling
TENSOR_KEYS = {"stress", "virial"}
TENSOR_MARK = "_not_nine_numbers"  # suffix of a key that hides a tensor from ASE's reader
PAIR_PATTERN = re.compile(
    r"""(?P<key>[^\s=,"'{}\[\]]+)(?P<sign>\s*=\s*)"""
    r"""(?P<value>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\{[^}]*\}|\[[^\]]*\]|[^\s"'{}\[\]]+)"""
)
FORCE_COLUMNS = re.compile(r"(?<![^:])((?:f|forces?)_?)x:R:1:\1y:R:1:\1z:R:1(?![^:])", re.IGNORECASE)


def read_extxyz(path: Path) -> list[Atoms]:
    """Read all structures of a file; keys of the cell and names of columns may be in upper or lower case.

    A stress or virial that does not have nine numbers is stored in the info without conversion. Three columns of force
    components become one array, such as ``fx_fy_fz``.

    Raises
    ------
    InputError
        If a structure without a lattice has its cell under another key.
    Exception
        Any exception of ASE's reader, if the file is corrupt.
    """
    source: Path | io.StringIO = path
    if any(_normalise_comment(comment, path) != comment for _, comment in _read_lines(path) if comment):
        source = io.StringIO("".join(line or _normalise_comment(comment, path) for line, comment in _read_lines(path)))
    # Without the last argument, ASE would interpret ``a@1.xyz`` as index 1 of the file ``a``.
    structures = list(ase.io.iread(source, format="extxyz", do_not_split_by_at_sign=True))
    for atoms in structures:
        for key in TENSOR_KEYS:
            if key + TENSOR_MARK in atoms.info:
                atoms.info[key] = atoms.info.pop(key + TENSOR_MARK)
    return structures


def _read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ``("", line)`` for the comment line of each structure, and ``(line, "")`` for all other lines."""
    with open_with_compression(str(path), "rt") as stream:
        for line in stream:
            yield line, ""
            if line.strip().isdigit():
                yield "", stream.readline()
                for _ in range(int(line)):
                    yield stream.readline(), ""


def _normalise_comment(comment: str, path: Path) -> str:
    """Return a comment line with keys that ASE reads; raise `InputError` if the cell is under a key of `CELL_KEYS`."""
    keys = {match["key"].lower(): match for match in PAIR_PATTERN.finditer(comment)}
    cell_key = next((key for key in keys if key in CELL_KEYS and len(keys[key]["value"].split()) in {3, 9}), None)
    if cell_key and "lattice" not in keys:
        name = keys[cell_key]["key"]
        raise InputError(f"{path}: a structure has '{name}' but no 'Lattice'; if '{name}' is its cell, rename it")
    return PAIR_PATTERN.sub(_rewrite_pair, comment)


def _rewrite_pair(match: re.Match[str]) -> str:
    """Return a pair of key and value in the form that ASE reads; a tensor without nine numbers is hidden from ASE."""
    key, value = match["key"], match["value"]
    key = CANONICAL_KEYS.get(key.lower(), key)
    if key == "Properties":
        fields = FORCE_COLUMNS.sub(r"\1x_\1y_\1z:R:3", value.strip("\"'")).split(":")
        # The fields are a name, a type and a number of columns for each property.
        fields[::3] = [COLUMN_NAMES.get(name.lower(), name) for name in fields[::3]]
        value = ":".join(fields)
    if key in TENSOR_KEYS and len(re.findall(r"[^\s,]+", value.strip("\"'{}[]"))) != 9:
        key += TENSOR_MARK
    return f"{key}{match['sign']}{value}"
