"""Engines that are programs of their own: input files go into a folder, the program runs there, its output is read.

What such engines share is here: finding the program and the pseudopotential files, running with one thread, and the
last words of a run that failed. What a level means in the program's own keywords is each engine's.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any, ClassVar, cast

import numpy as np
from ase import Atoms
from ase.io import read
from pydantic import Field, field_validator

from paretofit.core import AbsoluteStudyPath, InputError, one_line
from paretofit.execution import SINGLE_THREAD_ENV
from paretofit.labelling.engines.base import Engine, EngineError, Outcome, require_cutoff
from paretofit.labelling.ladder import Level

MOST_TEXT = 50 << 20  # bytes; larger files are densities and wavefunctions
FUNCTIONALS = {  # one functional under the names that files of different codes give it
    "pbe": {"slapwpbxpbc", "slapwpbepbe", "gga_x_pbe+gga_c_pbe", "11", "-101130"},
    "pbesol": {"slapwpsxpsc", "gga_x_pbe_sol+gga_c_pbe_sol", "-116133"},
    "lda": {"pz", "pw", "slapznogxnogc", "slapwnogxnogc", "lda_x+lda_c_pw", "2", "7", "-1012"},
}


@dataclass(frozen=True)
class Pseudopotential:
    """What a pseudopotential file says of itself.

    Attributes
    ----------
    path : Path
    valence_electrons : float
        Electrons that are computed explicitly.
    functional : str
        The functional it was made for, as the file names it; empty if it does not.
    kind : str
        "norm-conserving", "ultrasoft" or "paw".
    """

    path: Path
    valence_electrons: float
    functional: str
    kind: str


class ProgramEngine(Engine):
    """A program, the folder of its pseudopotentials, and the way from a level to a result."""

    command: str | None = Field(None, description="command line that starts the program")
    pseudopotentials: AbsoluteStudyPath | None = Field(None, description="folder of pseudopotential files")
    files: dict[str, str] = Field({}, description="file name by element, where the folder has several for one")

    needs_cell: ClassVar[bool] = True
    title: ClassVar[str]
    install_hint: ClassVar[str]
    log_name: ClassVar[str]
    time_pattern: ClassVar[str]
    arguments: ClassVar[tuple[str, ...]] = ()

    @field_validator("command")
    @classmethod
    def _words(cls, value: str | None) -> str | None:
        if value is not None and not shlex.split(value):
            raise ValueError("an empty command starts nothing; leave the key out, or name a program")
        return value

    @property
    def program(self) -> str:
        """See `Engine.program`."""
        return self.title

    @property
    def command_line(self) -> list[str]:
        """The command line in words, the program by its whole path, as it is started from another folder."""
        if self.command is None:
            raise InputError(f"the engine '{self.name}' has no 'command'; {self.install_hint}")
        program, *words = shlex.split(self.command)
        if (path := shutil.which(program)) is None:
            raise InputError(f"the engine '{self.name}' finds no program '{program}'; {self.install_hint}")
        return [str(Path(path).absolute()), *words]

    @abstractmethod
    def find_pseudopotential(self, symbol: str) -> Pseudopotential:
        """The pseudopotential of an element; `InputError` with the file that is missing."""

    @abstractmethod
    def version(self) -> str:
        """The program's version, 'unknown', or nothing if the program does not tell beforehand."""

    @abstractmethod
    def write(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> list[str]:
        """Write the input of one calculation; return what a user still has to add."""

    @abstractmethod
    def read(self, folder: Path, exit_status: int) -> Outcome:
        """Read the result of a program that has ended with this exit status; errors as those of `Engine.compute`."""

    def check(self, elements: Iterable[str]) -> None:
        """See `Engine.check`."""
        _ = self.command_line
        for symbol in elements:
            self.find_pseudopotential(symbol)

    def check_level(self, level: Level) -> None:
        """See `Engine.check_level`."""
        require_cutoff(level)

    def collect_key_settings(self, elements: Iterable[str]) -> dict[str, Any]:
        """See `Engine.identity`; pseudopotentials by their content."""
        kept = self.model_dump(exclude={"name", "command", "pseudopotentials", "files"}, exclude_defaults=True)
        return {**kept, "files": {symbol: self._file_identity(symbol) for symbol in elements}}

    def _file_identity(self, symbol: str) -> str:
        """The file's content; its name where the file lies on another machine."""
        try:
            return short_digest(self.find_pseudopotential(symbol).path)
        except InputError:
            return self.files.get(symbol, symbol)

    def describe_version(self, elements: Iterable[str]) -> str:
        """See `Engine.description`; files by name and the first digits of their SHA-256."""
        paths = [self.find_pseudopotential(symbol).path for symbol in elements]
        files = [f"{file_name(path)} ({short_digest(path)})" for path in paths]
        return ", ".join([f"{self.title} {self.version()}".strip(), *files])

    def count_electrons(self, atoms: Atoms) -> float:
        """See `Engine.electrons`."""
        symbols = atoms.get_chemical_symbols()
        return float(
            sum(symbols.count(symbol) * self.find_pseudopotential(symbol).valence_electrons for symbol in set(symbols))
        )

    def compute(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> Outcome:
        """See `Engine.compute`."""
        line = self.command_line
        self.write(periodic(atoms), level, attempt, folder)
        return self.read(folder, run_program([*line, *self.arguments], folder, self.log_name))

    def write_inputs(self, atoms: Atoms, level: Level, folder: Path) -> list[str]:
        """See `Engine.write_inputs`."""
        folder.mkdir(parents=True, exist_ok=True)
        return self.write(periodic(atoms), level, 0, folder)

    def read_cpu_seconds(self, folder: Path) -> float | None:
        """See `Engine.seconds`: the last time that the program's output states."""
        texts = [
            read_text_if_exists(path)
            for path in sorted(folder.iterdir())
            if path.is_file() and path.stat().st_size < MOST_TEXT
        ]
        found = [match for text in texts for match in re.findall(self.time_pattern, text)]
        return _seconds(found[-1]) if found else None

    def merge_options(self, level: Level) -> dict[str, Any]:
        """The engine's options and the level's own, which win; lower-case keys."""
        return {key.lower(): value for key, value in {**self.options, **level.options}.items()}

    def find_pseudopotentials(self, atoms: Atoms, level: Level, functional_option: str) -> dict[str, Pseudopotential]:
        """Pseudopotentials by element, lightest first; `functional_option` is the option that sets another functional."""
        found = {
            symbol: self.find_pseudopotential(symbol)
            for symbol in Atoms(sorted(set(atoms.numbers))).get_chemical_symbols()
        }
        for symbol, one in found.items():
            if functional_option not in self.merge_options(level) and not _same_functional(
                one.functional, level.functional
            ):
                raise InputError(
                    f"level '{level.name}' asks for the functional {level.functional}, {one.path} was made for "
                    f"{one_line(one.functional)}; name another file as files: {{{symbol}: FILE}}, or set '{functional_option}' "
                    "in the engine's options"
                )
        return found

    def find_file(self, folder: Path, symbol: str, suffixes: Sequence[str]) -> Path:
        """The file of an element in a folder: the one under 'files', or the one whose name begins with the symbol."""
        if not folder.is_dir():
            raise InputError(f"the engine '{self.name}' has its pseudopotentials in {folder}, which is not a folder")
        if symbol in self.files:
            if not (path := folder / self.files[symbol]).is_file():
                raise InputError(f"the engine '{self.name}' has no file {path}, which 'files' names for {symbol}")
            return path
        endings = "|".join(map(re.escape, suffixes))
        named = re.compile(rf"{symbol}([._-].*)?({endings})", re.IGNORECASE)
        found = sorted(path for path in folder.iterdir() if named.fullmatch(path.name))
        if len(found) == 1:
            return found[0]
        if not found:
            wanted = " or ".join(f"{symbol}*{suffix}" for suffix in suffixes)
            raise InputError(
                f"the engine '{self.name}' has no pseudopotential for {symbol}: no file {wanted} in {folder}; put it "
                f"there, or name one as files: {{{symbol}: FILE}}"
            )
        raise InputError(
            f"the engine '{self.name}' finds several pseudopotentials for {symbol} in {folder}: "
            f"{', '.join(path.name for path in found)}; name one as files: {{{symbol}: {found[0].name}}}"
        )


def periodic(atoms: Atoms) -> Atoms:
    """The same crystal as plane-wave codes take it: periodic along three right-handed cell vectors.

    Turning all three vectors round leaves the lattice, its k-points, the forces and the stress as they are.
    """
    volume = np.linalg.det(atoms.cell[:])
    if volume == 0:
        raise EngineError("plane waves need three cell vectors; give the configuration a cell with vacuum around it")
    return Atoms(atoms.numbers, atoms.positions, cell=np.sign(volume) * atoms.cell[:], pbc=True)


def run_program(line: list[str], folder: Path, log: str) -> int:
    """Run a program in a folder, one thread unless the environment says otherwise; return its exit status."""
    if guard := shutil.which("setpriv"):  # a worker that is killed cannot end its program itself
        line = [guard, "--pdeathsig", "TERM", *line]
    with (folder / log).open("wb") as stream:
        done = subprocess.run(  # noqa: S603  (the user's own command line)
            line,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**SINGLE_THREAD_ENV, **os.environ},
            check=False,
        )
    return done.returncode


def capture_output(command_line: list[str]) -> str:
    """What a program prints when it is asked for its version; empty if it cannot be run."""
    with TemporaryDirectory() as folder:  # pw.x leaves files behind
        try:
            done = subprocess.run(  # noqa: S603  (the user's own command line)
                command_line, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
    return done.stdout.decode(errors="replace")


def read_outcome(path: Path, file_format: str, info: dict[str, Any]) -> Outcome:
    """What ASE reads from an output file, with the energy that forces are the derivative of (TS subtracted)."""
    atoms = cast("Atoms", read(path, index=-1, format=file_format))
    energy = atoms.get_potential_energy(force_consistent=True)
    return Outcome(float(energy), atoms.get_forces(), atoms.get_stress(), info)


def check_smearing_order(engine: Engine, level: Level) -> None:
    """Refuse Methfessel-Paxton smearing of higher orders, which some programs lack."""
    smearing = level.smearing
    if smearing.method == "methfessel-paxton" and smearing.order != 1:
        raise InputError(
            f"level '{level.name}' asks for Methfessel-Paxton smearing of order {smearing.order}; the engine "
            f"'{engine.name}' has order 1"
        )


def read_text_if_exists(path: Path) -> str:
    """The text of an output file; empty if the program did not get as far as writing it."""
    return path.read_text(errors="replace") if path.is_file() else ""


def make_engine_error(program: str, exit_status: int, log_text: str, pattern: str) -> EngineError:
    """The error of a run that failed: what `pattern` finds last in the log, or the last line of it."""
    found = re.findall(pattern, log_text, re.DOTALL)
    said = found[-1] if found else next((line for line in reversed(log_text.splitlines()) if line.strip()), "no output")
    return EngineError(f"{program} ended with exit status {exit_status}: {shorten(one_line(said), 300)}")


def file_name(path: Path) -> str:
    """The name of a pseudopotential file; a POTCAR's is that of its folder."""
    return path.parent.name if path.name == "POTCAR" else path.name


def short_digest(path: Path) -> str:
    """First 8 hex digits of the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def parse_xml_attributes(text: str, tag: str) -> dict[str, str]:
    """Attributes of the first XML element of a name; pseudopotential files are too loose for an XML parser."""
    found = re.search(rf"<{tag}\b([^>]*)>", text)
    return dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', found[1])) if found else {}


def _seconds(text: str) -> float:
    """Seconds of a time such as 12.3, 1m 2.5s or 1h 3m."""
    units = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
    parts = re.findall(r"([\d.]+)\s*([dhms])", text)
    return sum(float(number) * units[unit] for number, unit in parts) if parts else float(text)


def _same_functional(of_file: str, of_level: str) -> bool:
    return not of_file or _plain(of_file) == _plain(of_level)


def _plain(functional: str) -> str:
    name = "".join(functional.lower().split())
    return next((plain for plain, others in FUNCTIONALS.items() if name in others), name)
