"""Reader of structures from one file: any format that ASE reads, FitSNAP's JSON or VASP's output."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.io.formats import filetype, open_with_compression

from paretofit.core import COMPRESSED_OPENERS, InputError, join_lines, raise_if_system_error
from paretofit.dataset.checks import check_structure
from paretofit.dataset.io.dft_outputs import add_output_details, is_finished, read_vasp_structures
from paretofit.dataset.io.extxyz_text import read_extxyz
from paretofit.dataset.io.fitsnap_json import is_fitsnap, load_json, parse_fitsnap_structures
from paretofit.dataset.io.pymatgen_json import is_pymatgen, parse_pymatgen_structures

ID_KEYS = ("config_id", "id", "configuration_id")
DATABASE_FORMATS = {"db", "json"}  # ASE's names of its database formats
COLUMN_COUNTS = re.compile(rb":[RILS]:(\d+)")  # number of columns of each property in extended XYZ
CONSTRAINT_NOTE = "constraints of atoms ({}, such as selective dynamics) were dropped; all atoms are free"
FLAT_CELL_NOTE = "structures are periodic along zero or dependent cell vectors; nothing can be computed for them"
TRUNCATED_MESSAGE = "it ends in the middle of a structure"


@dataclass
class Frames:
    """Structures of a file or directory, with their ids if every structure has an id.

    Attributes
    ----------
    path : Path
    atoms : list of ase.Atoms
        Structures with labels in their calculators, info or arrays, but without ids in their info.
    ids : list of int or None
        Id of each structure; None if a structure has no id.
    origins : list of str, optional
        File and position of each structure, if `path` is a directory.
    skipped : list of str
        A message for each file of a directory that could not be read.
    notes : list of str
        Messages for the user.
    """

    path: Path
    atoms: list[Atoms]
    ids: list[int] | None
    origins: list[str] | None = None
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def describe_frame(self, k: int) -> str:
        """Describe frame `k` for messages: its file, position and id."""
        origin = f"{self.path}: structure {k}" if self.origins is None else self.origins[k]
        return origin + ("" if self.ids is None else f" (configuration {self.ids[k]})")


def strip_compression(name: str) -> str:
    """Return the name of a file without a suffix such as ``.gz``, if it has one."""
    return name.removesuffix(next((suffix for suffix in COMPRESSED_OPENERS if name.endswith(suffix)), ""))


def read_structures(path: Path, notes: Counter[str]) -> list[Atoms]:
    """Read all structures of a file, without constraints.

    Parameters
    ----------
    path : Path
        File in any format that ASE reads, FitSNAP's JSON or pymatgen's JSON, possibly compressed.
    notes : Counter
        Number of structures to which each message applies, updated in place.

    Raises
    ------
    InputError
        If the file cannot be read or contains no structures, or a structure is invalid (see `check_structure`).
    """
    structures = _parse_structures(path, notes)
    if not structures:
        raise InputError(f"{path} contains no structures")
    for k, atoms in enumerate(structures):
        check_structure(atoms, f"{path}: structure {k}")
        _drop_constraints(atoms, notes)
        periodic_vectors = atoms.cell[atoms.pbc]
        if np.linalg.matrix_rank(periodic_vectors) < len(periodic_vectors):
            notes[FLAT_CELL_NOTE] += 1
    return structures


def _drop_constraints(atoms: Atoms, notes: Counter[str]) -> None:
    """Remove constraints, which would set forces of fixed atoms to zero and hold them in relaxations."""
    if atoms.constraints:
        names = ", ".join(sorted({type(constraint).__name__ for constraint in atoms.constraints}))
        notes[CONSTRAINT_NOTE.format(names)] += 1
        atoms.set_constraint()


def _parse_structures(path: Path, notes: Counter[str]) -> list[Atoms]:
    """Read all structures of a file, and convert any exception of a reader to an `InputError`."""
    if strip_compression(path.name).endswith(".json"):
        content = load_json(path)
        if is_fitsnap(content):
            return parse_fitsnap_structures(path, content, notes)
        if is_pymatgen(content):
            return parse_pymatgen_structures(path, content)
    file_format = ""
    try:
        file_format = filetype(str(path))
        structures = _read_with_ase(path, file_format, notes)
        add_output_details(path, file_format, structures, notes)
    except InputError:
        raise
    except Exception as error:  # ASE's parsers raise exceptions of any type
        raise_if_system_error(error, path)
        # ASE's readers call next() on the lines of a file, which raises StopIteration at its end; inside a generator,
        # Python replaces it by RuntimeError("generator raised StopIteration").
        is_truncated = "StopIteration" in join_lines(error) or isinstance(error, StopIteration)
        reason = TRUNCATED_MESSAGE if is_truncated else _explain_failure(error, file_format)
        raise InputError(f"{path} cannot be read by ASE: {reason}") from error
    return structures


def _explain_failure(error: Exception, file_format: str) -> str:
    """Explain why a file, of ASE's name of a format or of an unknown one, was not read, with ASE's message."""
    message = join_lines(error) or type(error).__name__
    if isinstance(error, ImportError):
        return message
    name = f"the format '{file_format}'" if file_format else "a format that ASE recognises"
    advice = "correct the file, or convert it to extended XYZ"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not text, as {name} requires; {advice} ({message})"
    return f"its content does not have {name}; {advice} ({message})"


def _read_with_ase(path: Path, file_format: str, notes: Counter[str]) -> list[Atoms]:
    """Read a file with ASE's reader of its format, or with a reader of this package if ASE's is not sufficient."""
    if file_format in DATABASE_FORMATS:
        return _read_database(path)
    if file_format in {"vasp-out", "vasp-xml"}:
        return read_vasp_structures(path, file_format, notes)
    if file_format == "espresso-out" and not is_finished(path, file_format):
        raise InputError(f"{path} is the output of an unfinished pw.x run; finish the run, or remove the file")
    if file_format in {"extxyz", "xyz"}:
        _check_declared_sizes(path)
    if file_format == "extxyz":
        return read_extxyz(path)
    # Without the last argument, ASE would interpret ``a@1.xyz`` as index 1 of the file ``a``.
    return list(ase.io.iread(path, format=file_format, do_not_split_by_at_sign=True))


def _check_declared_sizes(path: Path) -> None:
    """Check the declared numbers of atoms and columns against the file, because ASE allocates memory for them.

    Raises
    ------
    InputError
        If more atoms are declared than the file has lines, or more columns than a line has characters.
    """
    with open_with_compression(str(path), "rb") as stream:
        while (first_line := stream.readline()).strip():
            try:
                n_atoms = int(first_line)
            except ValueError:  # XYZ files may end with lines of the cell; any other error is reported by ASE
                return
            n_columns = max(map(int, COLUMN_COUNTS.findall(stream.readline())), default=0)
            for _ in range(n_atoms):
                line = stream.readline()
                if not line:
                    raise InputError(f"{path} cannot be read by ASE: {TRUNCATED_MESSAGE} of {n_atoms} atoms")
                if n_columns > len(line):
                    raise InputError(
                        f"{path}: its 'Properties' declare {n_columns} columns, but its lines have fewer; "
                        "correct the header or the lines"
                    )


def format_notes(path: Path, notes: Counter[str]) -> list[str]:
    """Format notes with their counts, such as ``"folder: stresses that are zero ... (12)"``."""
    return [f"{path}: {text} ({count})" for text, count in notes.items()]


def _read_database(path: Path) -> list[Atoms]:
    """Read the rows of an ASE database; pairs and data become info, with the row number as ``id`` if there is none."""
    structures = []
    with ase.db.connect(path, serial=True) as database:
        for row in database.select():
            atoms = row.toatoms()
            atoms.info = {**row.key_value_pairs, **row.data}
            if not set(ID_KEYS) & set(atoms.info):
                atoms.info["id"] = row.id
            structures.append(atoms)
    return structures
