"""Engines that are external programs: input files are written to a directory, where the program runs.

This module has what such engines share: finding the program and the pseudopotential files, running on one thread, and
the error message of a failed run. Each engine translates a level into the keywords of its program.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
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

MAX_LOG_BYTES = 50 << 20  # larger files are densities and wavefunctions
FUNCTIONAL_ALIASES = {  # names of a functional in the files of different codes
    "pbe": {"slapwpbxpbc", "slapwpbepbe", "gga_x_pbe+gga_c_pbe", "11", "-101130"},
    "pbesol": {"slapwpsxpsc", "gga_x_pbe_sol+gga_c_pbe_sol", "-116133"},
    "lda": {"pz", "pw", "slapznogxnogc", "slapwnogxnogc", "lda_x+lda_c_pw", "2", "7", "-1012"},
}


@dataclass(frozen=True)
class Pseudopotential:
    """Header of a pseudopotential file.

    Attributes
    ----------
    path : Path
    valence_electrons : float
        Electrons that are computed explicitly.
    functional : str
        Functional that it was generated with, as the file names it; empty if it does not.
    kind : str
        "norm-conserving", "ultrasoft" or "paw".
    """

    path: Path
    valence_electrons: float
    functional: str
    kind: str


class ProgramEngine(Engine):
    """An external program with a directory of pseudopotentials."""

    command: str | None = Field(None, description="Command line that starts the program.")
    pseudopotentials: AbsoluteStudyPath | None = Field(None, description="Directory of pseudopotential files.")
    files: dict[str, str] = Field({}, description="File name by element, if the directory has several for it.")

    needs_cell: ClassVar[bool] = True
    title: ClassVar[str]
    install_hint: ClassVar[str]
    log_name: ClassVar[str]
    time_pattern: ClassVar[str]
    arguments: ClassVar[tuple[str, ...]] = ()
    max_smearing_order: ClassVar[int] = 4

    @field_validator("command")
    @classmethod
    def _check_command(cls, value: str | None) -> str | None:
        if value is not None and not shlex.split(value):
            raise ValueError("an empty command starts nothing; remove the key, or name a program")
        return value

    @property
    def program(self) -> str:
        """See `Engine.program`."""
        return self.title

    @property
    def command_line(self) -> list[str]:
        """The command line as a list, with the absolute path of the program, as it is started in another directory."""
        if self.command is None:
            raise InputError(f"the engine '{self.name}' has no 'command'; {self.install_hint}")
        program, *arguments = shlex.split(self.command)
        if (path := shutil.which(program)) is None:
            raise InputError(f"the engine '{self.name}' finds no program '{program}'; {self.install_hint}")
        return [str(Path(path).absolute()), *arguments]

    @abstractmethod
    def find_pseudopotential(self, symbol: str) -> Pseudopotential:
        """Return the pseudopotential of an element; `InputError` with the file that is missing."""

    @abstractmethod
    def version(self) -> str:
        """Version of the program, 'unknown', or '' if the program tells it only in its output."""

    @abstractmethod
    def write(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> list[str]:
        """Write the input of one calculation; return the files that the user still has to add."""

    @abstractmethod
    def read(self, folder: Path, exit_status: int) -> Outcome:
        """Read the result of a program that has ended with this exit status; errors as of `Engine.compute`."""

    def check(self, elements: Iterable[str]) -> None:
        """See `Engine.check`."""
        _ = self.command_line
        for symbol in elements:
            self.find_pseudopotential(symbol)

    def check_level(self, level: Level) -> None:
        """See `Engine.check_level`; some programs do not have Methfessel-Paxton smearing of higher orders."""
        require_cutoff(level)
        smearing = level.smearing
        if smearing.method == "methfessel-paxton" and smearing.order > self.max_smearing_order:
            raise InputError(
                f"level '{level.name}' requests Methfessel-Paxton smearing of order {smearing.order}; the engine "
                f"'{self.name}' has order {self.max_smearing_order}"
            )

    def collect_key_settings(self, elements: Iterable[str]) -> dict[str, Any]:
        """See `Engine.collect_key_settings`; pseudopotentials by their content."""
        settings = self.model_dump(exclude={"name", "command", "pseudopotentials", "files"}, exclude_defaults=True)
        return {**settings, "files": {symbol: self._identify_file(symbol) for symbol in elements}}

    def _identify_file(self, symbol: str) -> str:
        """Return a digest of the pseudopotential file; its name if the file is on another machine."""
        try:
            return short_digest(self.find_pseudopotential(symbol).path)
        except InputError:
            return self.files.get(symbol, symbol)

    def describe_version(self, elements: Iterable[str]) -> str:
        """See `Engine.describe_version`; files by name and the first digits of their SHA-256."""
        paths = [self.find_pseudopotential(symbol).path for symbol in elements]
        files = [f"{file_name(path)} ({short_digest(path)})" for path in paths]
        return ", ".join([f"{self.title} {self.version()}".strip(), *files])

    def count_electrons(self, atoms: Atoms) -> float:
        """See `Engine.count_electrons`."""
        counts = Counter(atoms.get_chemical_symbols())
        return float(sum(n * self.find_pseudopotential(symbol).valence_electrons for symbol, n in counts.items()))

    def compute(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> Outcome:
        """See `Engine.compute`."""
        command_line = [*self.command_line, *self.arguments]
        self.write(make_periodic(atoms), level, attempt, folder)
        return self.read(folder, run_program(command_line, folder, self.log_name))

    def write_inputs(self, atoms: Atoms, level: Level, folder: Path) -> list[str]:
        """See `Engine.write_inputs`."""
        folder.mkdir(parents=True, exist_ok=True)
        return self.write(make_periodic(atoms), level, 0, folder)

    def read_cpu_seconds(self, folder: Path) -> float | None:
        """See `Engine.read_cpu_seconds`: the last time in the program's output."""
        times: list[str] = []
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.stat().st_size < MAX_LOG_BYTES:
                times += re.findall(self.time_pattern, read_if_exists(path))
        return _parse_seconds(times[-1]) if times else None

    def merge_options(self, level: Level) -> dict[str, Any]:
        """Options of the engine, overridden by those of the level; lower-case keys."""
        return {key.lower(): value for key, value in {**self.options, **level.options}.items()}

    def find_pseudopotentials(self, atoms: Atoms, level: Level, functional_option: str) -> dict[str, Pseudopotential]:
        """Pseudopotentials by element, lightest first; `functional_option` sets another functional."""
        symbols = Atoms(sorted(set(atoms.numbers))).get_chemical_symbols()
        potentials = {symbol: self.find_pseudopotential(symbol) for symbol in symbols}
        for symbol, potential in potentials.items():
            is_same = not potential.functional or _unify(potential.functional) == _unify(level.functional)
            if not is_same and functional_option not in self.merge_options(level):
                raise InputError(
                    f"level '{level.name}' requests the functional {level.functional}, {potential.path} was made for "
                    f"{one_line(potential.functional)}; name another file as files: {{{symbol}: FILE}}, or set "
                    f"'{functional_option}' in the engine's options"
                )
        return potentials

    def find_file(self, folder: Path, symbol: str, suffixes: Sequence[str]) -> Path:
        """Find the file of an element: the one under 'files', or the only one whose name begins with the symbol."""
        if not folder.is_dir():
            raise InputError(f"the engine '{self.name}' has its pseudopotentials in {folder}, which is not a folder")
        if symbol in self.files:
            if not (path := folder / self.files[symbol]).is_file():
                raise InputError(f"the engine '{self.name}' has no file {path}, which 'files' names for {symbol}")
            return path
        pattern = re.compile(rf"{symbol}([._-].*)?({'|'.join(map(re.escape, suffixes))})", re.IGNORECASE)
        names = sorted(path.name for path in folder.iterdir() if pattern.fullmatch(path.name))
        if not names:
            expected = " or ".join(f"{symbol}*{suffix}" for suffix in suffixes)
            raise InputError(
                f"the engine '{self.name}' has no pseudopotential for {symbol}: no file {expected} in {folder}; put it "
                f"there, or name one as files: {{{symbol}: FILE}}"
            )
        if len(names) > 1:
            raise InputError(
                f"the engine '{self.name}' finds several pseudopotentials for {symbol} in {folder}: "
                f"{', '.join(names)}; name one as files: {{{symbol}: {names[0]}}}"
            )
        return folder / names[0]

    def capture_output(self, *arguments: str) -> str:
        """Output of the program that is asked for its version; empty if it cannot be run."""
        with TemporaryDirectory() as folder, suppress(OSError, subprocess.TimeoutExpired):  # pw.x leaves files behind
            line = [*self.command_line, *arguments]
            process = subprocess.run(  # noqa: S603  (the user's own command line)
                line, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
            )
            return process.stdout.decode(errors="replace")
        return ""

    def read_outcome(self, path: Path, file_format: str, info: dict[str, Any]) -> Outcome:
        """Read an output file by ASE; the energy is the one whose derivatives are the forces (TS subtracted)."""
        atoms = cast("Atoms", read(path, index=-1, format=file_format))
        energy = atoms.get_potential_energy(force_consistent=True)
        return Outcome(float(energy), atoms.get_forces(), atoms.get_stress(), info)

    def make_error(self, exit_status: int, log_text: str, pattern: str) -> EngineError:
        """The error of a run that failed: the last match of `pattern` in the log, or the last line of it."""
        lines = re.findall(pattern, log_text, re.DOTALL) or [line for line in log_text.splitlines() if line.strip()]
        reason = shorten(one_line(lines[-1] if lines else "no output"), 300)
        return EngineError(f"{self.title} ended with exit status {exit_status}: {reason}")


def make_periodic(atoms: Atoms) -> Atoms:
    """The same crystal as plane-wave codes need it: periodic along three right-handed cell vectors.

    Reversing all three vectors does not change the lattice, its k-points, the forces or the stress.
    """
    volume = np.linalg.det(atoms.cell[:])
    if volume == 0:
        raise EngineError("plane waves need three cell vectors; give the configuration a cell with vacuum around it")
    return Atoms(atoms.numbers, atoms.positions, cell=np.sign(volume) * atoms.cell[:], pbc=True)


def run_program(command_line: list[str], folder: Path, log_name: str) -> int:
    """Run a program in a directory, on one thread unless the environment says otherwise; return its exit status."""
    if setpriv := shutil.which("setpriv"):  # a worker that is killed cannot end its program itself
        command_line = [setpriv, "--pdeathsig", "TERM", *command_line]
    with (folder / log_name).open("wb") as log:
        return subprocess.call(  # noqa: S603  (the user's own command line)
            command_line,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**SINGLE_THREAD_ENV, **os.environ},
        )


def read_if_exists(path: Path) -> str:
    """Text of an output file; empty if the program ended before writing it."""
    return path.read_text(errors="replace") if path.is_file() else ""


def file_name(path: Path) -> str:
    """Name of a pseudopotential file; for a POTCAR, that of its directory."""
    return path.parent.name if path.name == "POTCAR" else path.name


def short_digest(path: Path) -> str:
    """First 8 hex digits of the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def parse_xml_attributes(text: str, tag: str) -> dict[str, str]:
    """Attributes of the first element with a tag; pseudopotential files are often not well-formed XML."""
    match = re.search(rf"<{tag}\b([^>]*)>", text)
    return dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', match[1])) if match else {}


def _parse_seconds(text: str) -> float:
    """Seconds of a time such as 12.3, 1m 2.5s or 1h 3m."""
    units = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
    parts = re.findall(r"([\d.]+)\s*([dhms])", text)
    return sum(float(number) * units[unit] for number, unit in parts) if parts else float(text)


def _unify(functional: str) -> str:
    """Return the same name for all aliases of a functional."""
    name = "".join(functional.lower().split())
    return next((plain_name for plain_name, aliases in FUNCTIONAL_ALIASES.items() if name in aliases), name)
