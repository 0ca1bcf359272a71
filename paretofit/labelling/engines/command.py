"""Engines that are external programs: input files are written to a directory, where the program runs.

This module finds the program and the pseudopotential files, runs the program (by default on one thread), and builds the
error message of a failed run. Each engine translates levels to the keywords of its program.
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
MAX_REASON_LENGTH = 300  # number of characters of the reason in an error message
MAX_LOG_BYTES = 50 << 20  # larger files contain densities or wavefunctions, and are not searched for times
FUNCTIONAL_ALIASES = {  # names of each functional in the pseudopotential files of different codes
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
    """External program with a directory of pseudopotentials.

    Attributes
    ----------
    title : str
        Name of the program in messages and datasets.
    install_hint : str
        What to do if the program is missing, for error messages.
    log_name : str
        Name of the file to which the output of the program is written.
    time_pattern : str
        Regular expression of the CPU time in an output file.
    arguments : tuple of str
        Arguments that are added to the command line.
    max_smearing_order : int
        Largest order of Methfessel-Paxton smearing that the program supports.
    """

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
    def _check_command(cls, command: str | None) -> str | None:
        """Raise ValueError for an empty command."""
        if command is not None and not shlex.split(command):
            raise ValueError("the command is empty; remove the key, or specify a program")
        return command

    @property
    def program(self) -> str:
        """See `Engine.program`."""
        return self.title

    @property
    def command_line(self) -> list[str]:
        """Command line as a list, with the absolute path of the program, which is started in another directory.

        Raises
        ------
        InputError
            If no command is set, or the program is missing.
        """
        if self.command is None:
            raise InputError(f"the engine '{self.name}' has no 'command'; {self.install_hint}")
        program, *arguments = shlex.split(self.command)
        if (path := shutil.which(program)) is None:
            raise InputError(f"the program '{program}' of the engine '{self.name}' is missing; {self.install_hint}")
        return [str(Path(path).absolute()), *arguments]

    @abstractmethod
    def find_pseudopotential(self, symbol: str) -> Pseudopotential:
        """Return the header of an element's pseudopotential; raise `InputError` if there is no valid file."""

    @abstractmethod
    def get_version(self) -> str:
        """Return the version of the program; "unknown" if it is not printed, or "" if only output files contain it."""

    @abstractmethod
    def write(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> list[str]:
        """Write the input files of one calculation; return the names of files that the user still has to add.

        `atoms` is the result of `make_periodic`; the other parameters and the errors are those of `Engine.compute`.
        """

    @abstractmethod
    def read(self, folder: Path, exit_status: int) -> Outcome:
        """See `Engine.read`."""

    def check(self, elements: Iterable[str]) -> None:
        """See `Engine.check`."""
        _ = self.command_line
        for symbol in elements:
            self.find_pseudopotential(symbol)

    def check_level(self, level: Level) -> None:
        """See `Engine.check_level`; a cutoff is required, and the order of Methfessel-Paxton smearing is limited."""
        require_cutoff(level)
        smearing = level.smearing
        if smearing.method == "methfessel-paxton" and smearing.order > self.max_smearing_order:
            raise InputError(
                f"level '{level.name}' requests Methfessel-Paxton smearing of order {smearing.order}; the engine "
                f"'{self.name}' supports at most order {self.max_smearing_order}; lower 'smearing.order', or choose "
                "another engine"
            )

    def collect_key_settings(self, elements: Iterable[str]) -> dict[str, Any]:
        """See `Engine.collect_key_settings`; pseudopotentials are identified by their content, not by their paths."""
        settings = self.model_dump(exclude={"name", "command", "pseudopotentials", "files"}, exclude_defaults=True)
        return {**settings, "files": {symbol: self._identify_file(symbol) for symbol in elements}}

    def _identify_file(self, symbol: str) -> str:
        """Return a digest of an element's pseudopotential file, or, if the file is on another machine, its name."""
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
        electrons = [n * self.find_pseudopotential(symbol).valence_electrons for symbol, n in counts.items()]
        return float(sum(electrons))

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
        """See `Engine.read_cpu_seconds`; of several times, the last one in the last file is used."""
        times: list[str] = []
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.stat().st_size < MAX_LOG_BYTES:
                times += re.findall(self.time_pattern, read_if_exists(path))
        return _parse_seconds(times[-1]) if times else None

    def merge_options(self, level: Level) -> dict[str, Any]:
        """Merge the options of the engine with those of a level, which have priority; keys become lower-case."""
        return {key.lower(): value for key, value in {**self.options, **level.options}.items()}

    def find_pseudopotentials(self, atoms: Atoms, level: Level, functional_option: str) -> dict[str, Pseudopotential]:
        """Return the pseudopotentials of a structure by element, lightest first, and check their functional.

        Parameters
        ----------
        atoms : ase.Atoms
        level : Level
        functional_option : str
            Option that sets the functional of the program. If it is set, pseudopotentials may be for any functional.

        Raises
        ------
        InputError
            If a file is missing, or was generated for another functional than that of the level.
        """
        symbols = Atoms(sorted(set(atoms.numbers))).get_chemical_symbols()
        potentials = {symbol: self.find_pseudopotential(symbol) for symbol in symbols}
        level_functional = _normalise_functional(level.functional)
        for symbol, potential in potentials.items():
            is_compatible = not potential.functional or _normalise_functional(potential.functional) == level_functional
            if not is_compatible and functional_option not in self.merge_options(level):
                raise InputError(
                    f"level '{level.name}' requests the functional {level.functional}, but {potential.path} was made "
                    f"for {join_lines(potential.functional)}; specify another file as files: {{{symbol}: FILE}}, or "
                    f"set '{functional_option}' in the engine's options"
                )
        return potentials

    def find_file(self, folder: Path, symbol: str, suffixes: Sequence[str]) -> Path:
        """Find the pseudopotential file of an element in a directory.

        The file is that in 'files', or the only file SYMBOL<suffix>, SYMBOL.*<suffix>, SYMBOL_*<suffix> or
        SYMBOL-*<suffix> with one of `suffixes`, in upper or lower case.

        Raises
        ------
        InputError
            If the directory or the file is missing, or there are several files.
        """
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
        """Run the program, such as to print its version, and return its standard output.

        The output is empty if the program cannot be started or does not end within a minute.

        Raises
        ------
        InputError
            If no command is set, or the program is missing.
        """
        # in a temporary directory, because pw.x writes files
        with TemporaryDirectory() as folder, suppress(OSError, subprocess.TimeoutExpired):
            command_line = [*self.command_line, *arguments]
            process = subprocess.run(  # noqa: S603  (the user's own command line)
                command_line, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
            )
            return process.stdout.decode(errors="replace")
        return ""

    def read_outcome(self, path: Path, file_format: str, info: dict[str, Any]) -> Outcome:
        """Read the last step of an output file with ASE; the energy is force-consistent (the free energy E - TS)."""
        atoms = cast("Atoms", read(path, index=-1, format=file_format))
        energy = atoms.get_potential_energy(force_consistent=True)
        return Outcome(
            float(energy), atoms.get_forces(apply_constraint=False), atoms.get_stress(apply_constraint=False), info
        )

    def build_error(self, exit_status: int, log_text: str, pattern: str) -> EngineError:
        """Build the error of a failed run from the last match of `pattern` in its log, or else from the last line."""
        messages = re.findall(pattern, log_text, re.DOTALL) or [line for line in log_text.splitlines() if line.strip()]
        reason = shorten(join_lines(messages[-1] if messages else "no output"), MAX_REASON_LENGTH)
        return EngineError(f"{self.title} ended with exit status {exit_status}: {reason}")


def make_periodic(atoms: Atoms) -> Atoms:
    """Convert a structure for plane-wave codes: a copy that is periodic along three right-handed cell vectors.

    The vectors of a left-handed cell are reversed; the lattice, the k-points, the forces and the stress are unchanged.

    Raises
    ------
    EngineError
        If the cell has no volume.
    """
    volume = np.linalg.det(atoms.cell[:])
    if volume == 0:
        raise EngineError("plane waves require three cell vectors; set a cell with vacuum around the atoms")
    return Atoms(atoms.numbers, atoms.positions, cell=np.sign(volume) * atoms.cell[:], pbc=True)


def run_program(command_line: list[str], folder: Path, log_name: str) -> int:
    """Run a program in a directory, with its output in `log_name`, and return its exit status.

    The program uses one thread, unless the environment sets another number.
    """
    if setpriv := shutil.which("setpriv"):  # util-linux: ends the program if the worker is killed
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
    """Return the text of an output file, or an empty text if the file does not exist."""
    return path.read_text(errors="replace") if path.is_file() else ""


def get_file_name(path: Path) -> str:
    """Return the name of a pseudopotential file; for a POTCAR, the name of its directory."""
    return path.parent.name if path.name == "POTCAR" else path.name


def parse_xml_attributes(text: str, tag: str) -> dict[str, str]:
    """Return the attributes of the first XML element with a tag; empty if there is none.

    An XML parser is not used, because pseudopotential files are often not well-formed.
    """
    match = re.search(rf"<{tag}\b([^>]*)>", text)
    return dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', match[1])) if match else {}


def _parse_seconds(text: str) -> float:
    """Convert a time such as "12.3" (s), "1m 2.5s" or "1h 3m" to seconds."""
    units = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
    times = re.findall(r"([\d.]+)\s*([dhms])", text)
    return sum(float(number) * units[unit] for number, unit in times) if times else float(text)


def _normalise_functional(functional: str) -> str:
    """Return the key of `FUNCTIONAL_ALIASES` for a functional, or else its name in lower case and without spaces."""
    name = "".join(functional.lower().split())
    return next((plain_name for plain_name, aliases in FUNCTIONAL_ALIASES.items() if name in aliases), name)
