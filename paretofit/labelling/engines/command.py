"""Engines that are external programs: input files are written to a directory, where the program runs.

This module contains the common parts of these engines: search for the program and the pseudopotential files, execution
on one thread, and the error message of a failed run. Each engine translates a level to the keywords of its program.
"""

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

from paretofit.core import AbsoluteStudyPath, InputError, hash_file, join_lines
from paretofit.execution import SINGLE_THREAD_ENV
from paretofit.labelling.engines.base import Engine, EngineError, Outcome, require_cutoff
from paretofit.labelling.ladder import Level

N_DIGEST_DIGITS = 8  # number of hexadecimal digits of the SHA-256 of a pseudopotential file
MAX_LOG_BYTES = 50 << 20  # size above which files contain densities or wavefunctions
FUNCTIONAL_ALIASES = {  # names of each functional in the files of different codes
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
        Number of electrons that are computed explicitly.
    functional : str
        Functional for which the file was generated, by its name in the file; empty if the file does not contain it.
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
    files: dict[str, str] = Field({}, description="File name by element, if the directory has several files for it.")

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
            raise ValueError("the command is empty; remove the key, or specify a program")
        return value

    @property
    def program(self) -> str:
        """See `Engine.program`."""
        return self.title

    @property
    def command_line(self) -> list[str]:
        """Command line as a list, with the absolute path of the program, because it is started in another directory."""
        if self.command is None:
            raise InputError(f"the engine '{self.name}' has no 'command'; {self.install_hint}")
        program, *arguments = shlex.split(self.command)
        if (path := shutil.which(program)) is None:
            raise InputError(f"the program '{program}' of the engine '{self.name}' is missing; {self.install_hint}")
        return [str(Path(path).absolute()), *arguments]

    @abstractmethod
    def find_pseudopotential(self, symbol: str) -> Pseudopotential:
        """Return the pseudopotential of an element; raise `InputError` if its file is missing."""

    @abstractmethod
    def get_version(self) -> str:
        """Return the version of the program, "unknown", or "" if only output files contain the version."""

    @abstractmethod
    def write(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> list[str]:
        """Write the input files of one calculation; return the names of files that the user still has to add."""

    @abstractmethod
    def read(self, folder: Path, exit_status: int) -> Outcome:
        """Read the result of a program that ended with `exit_status`; raise the same errors as `Engine.compute`."""

    def check(self, elements: Iterable[str]) -> None:
        """See `Engine.check`."""
        _ = self.command_line
        for symbol in elements:
            self.find_pseudopotential(symbol)

    def check_level(self, level: Level) -> None:
        """See `Engine.check_level`; some programs do not support higher-order Methfessel-Paxton smearing."""
        require_cutoff(level)
        smearing = level.smearing
        if smearing.method == "methfessel-paxton" and smearing.order > self.max_smearing_order:
            raise InputError(
                f"level '{level.name}' requests Methfessel-Paxton smearing of order {smearing.order}; the engine "
                f"'{self.name}' supports at most order {self.max_smearing_order}; lower 'smearing.order', or choose "
                "another engine"
            )

    def collect_key_settings(self, elements: Iterable[str]) -> dict[str, Any]:
        """See `Engine.collect_key_settings`; pseudopotentials are identified by their content."""
        settings = self.model_dump(exclude={"name", "command", "pseudopotentials", "files"}, exclude_defaults=True)
        return {**settings, "files": {symbol: self._identify_file(symbol) for symbol in elements}}

    def _identify_file(self, symbol: str) -> str:
        """Return a digest of the pseudopotential file, or its name or the symbol if the file is on another machine."""
        try:
            return hash_file(self.find_pseudopotential(symbol).path)[:N_DIGEST_DIGITS]
        except InputError:
            return self.files.get(symbol, symbol)

    def describe_version(self, elements: Iterable[str]) -> str:
        """See `Engine.describe_version`; files are described by name and the first digits of their SHA-256."""
        paths = [self.find_pseudopotential(symbol).path for symbol in elements]
        files = [f"{get_file_name(path)} ({hash_file(path)[:N_DIGEST_DIGITS]})" for path in paths]
        return ", ".join([f"{self.title} {self.get_version()}".strip(), *files])

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
        """See `Engine.read_cpu_seconds`; the last time in the output files is used."""
        times: list[str] = []
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.stat().st_size < MAX_LOG_BYTES:
                times += re.findall(self.time_pattern, read_if_exists(path))
        return _parse_seconds(times[-1]) if times else None

    def merge_options(self, level: Level) -> dict[str, Any]:
        """Merge the options of the engine with those of the level, which have priority; keys become lower-case."""
        return {key.lower(): value for key, value in {**self.options, **level.options}.items()}

    def find_pseudopotentials(self, atoms: Atoms, level: Level, functional_option: str) -> dict[str, Pseudopotential]:
        """Return the pseudopotentials by element, lightest first, and check their functional.

        Raises
        ------
        InputError
            If a file is missing. Also if it was generated for another functional than that of the level, unless the
            option `functional_option` sets the functional of the program.
        """
        symbols = Atoms(sorted(set(atoms.numbers))).get_chemical_symbols()
        potentials = {symbol: self.find_pseudopotential(symbol) for symbol in symbols}
        for symbol, potential in potentials.items():
            is_compatible = not potential.functional or _normalise_functional(
                potential.functional
            ) == _normalise_functional(level.functional)
            if not is_compatible and functional_option not in self.merge_options(level):
                raise InputError(
                    f"level '{level.name}' requests the functional {level.functional}, but {potential.path} was made "
                    f"for {join_lines(potential.functional)}; specify another file as files: {{{symbol}: FILE}}, or "
                    f"set '{functional_option}' in the engine's options"
                )
        return potentials

    def find_file(self, folder: Path, symbol: str, suffixes: Sequence[str]) -> Path:
        """Find the file of an element: the file under 'files', or the only file whose name begins with the symbol."""
        if not folder.is_dir():
            raise InputError(
                f"the 'pseudopotentials' of the engine '{self.name}', {folder}, are not a directory; correct the path"
            )
        if symbol in self.files:
            if not (path := folder / self.files[symbol]).is_file():
                raise InputError(
                    f"the engine '{self.name}' has no file {path}, which 'files' lists for {symbol}; "
                    "correct the path, or remove the entry"
                )
            return path
        pattern = re.compile(rf"{symbol}([._-].*)?({'|'.join(map(re.escape, suffixes))})", re.IGNORECASE)
        names = sorted(path.name for path in folder.iterdir() if pattern.fullmatch(path.name))
        if not names:
            expected_names = " or ".join(f"{symbol}*{suffix}" for suffix in suffixes)
            raise InputError(
                f"the engine '{self.name}' has no pseudopotential for {symbol}: no file {expected_names} in {folder}; "
                f"add the file, or specify another as files: {{{symbol}: FILE}}"
            )
        if len(names) > 1:
            raise InputError(
                f"the engine '{self.name}' has several pseudopotentials for {symbol} in {folder}: "
                f"{', '.join(names)}; choose one, such as files: {{{symbol}: {names[0]}}}"
            )
        return folder / names[0]

    def capture_output(self, *arguments: str) -> str:
        """Run the program with arguments that print its version; return the output, empty if it cannot be run."""
        with TemporaryDirectory() as folder, suppress(OSError, subprocess.TimeoutExpired):  # pw.x leaves files behind
            command_line = [*self.command_line, *arguments]
            process = subprocess.run(  # noqa: S603  (the user's own command line)
                command_line, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
            )
            return process.stdout.decode(errors="replace")
        return ""

    def read_outcome(self, path: Path, file_format: str, info: dict[str, Any]) -> Outcome:
        """Read an output file with ASE; the energy is force-consistent (with smearing, the free energy E - TS)."""
        atoms = cast("Atoms", read(path, index=-1, format=file_format))
        energy = atoms.get_potential_energy(force_consistent=True)
        return Outcome(
            float(energy), atoms.get_forces(apply_constraint=False), atoms.get_stress(apply_constraint=False), info
        )

    def make_error(self, exit_status: int, log_text: str, pattern: str) -> EngineError:
        """Build the error of a failed run from the last match of `pattern` in the log, or else its last line."""
        lines = re.findall(pattern, log_text, re.DOTALL) or [line for line in log_text.splitlines() if line.strip()]
        reason = shorten(join_lines(lines[-1] if lines else "no output"), 300)
        return EngineError(f"{self.title} ended with exit status {exit_status}: {reason}")


def make_periodic(atoms: Atoms) -> Atoms:
    """Convert a structure for plane-wave codes: periodic along three right-handed cell vectors.

    All vectors of a left-handed cell are reversed; lattice, k-points, forces and stress remain the same.
    """
    volume = np.linalg.det(atoms.cell[:])
    if volume == 0:
        raise EngineError("plane waves require three cell vectors; set a cell with vacuum around the atoms")
    return Atoms(atoms.numbers, atoms.positions, cell=np.sign(volume) * atoms.cell[:], pbc=True)


def run_program(command_line: list[str], folder: Path, log_name: str) -> int:
    """Run a program in a directory, on one thread unless the environment sets more; return its exit status."""
    if setpriv := shutil.which("setpriv"):  # ends the program if the worker is killed
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
    """Return the text of an output file; empty if the program ended before writing the file."""
    return path.read_text(errors="replace") if path.is_file() else ""


def get_file_name(path: Path) -> str:
    """Return the name of a pseudopotential file; for a POTCAR, the name of its directory."""
    return path.parent.name if path.name == "POTCAR" else path.name


def parse_xml_attributes(text: str, tag: str) -> dict[str, str]:
    """Return the attributes of the first element with a tag.

    An XML parser is not used, because pseudopotential files are often not well-formed.
    """
    match = re.search(rf"<{tag}\b([^>]*)>", text)
    return dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', match[1])) if match else {}


def _parse_seconds(text: str) -> float:
    """Convert a time such as 12.3, 1m 2.5s or 1h 3m to seconds."""
    units = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
    times = re.findall(r"([\d.]+)\s*([dhms])", text)
    return sum(float(number) * units[unit] for number, unit in times) if times else float(text)


def _normalise_functional(functional: str) -> str:
    """Return the common name of a functional; if it is not a known alias, in lower case and without spaces."""
    name = "".join(functional.lower().split())
    return next((plain_name for plain_name, aliases in FUNCTIONAL_ALIASES.items() if name in aliases), name)
