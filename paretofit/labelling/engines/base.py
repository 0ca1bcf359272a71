"""Interface of all engines: check what is installed and requested, and compute one label."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

from ase import Atoms
from pydantic import Field

from paretofit.core import Array, InputError, StrictSettings
from paretofit.labelling.ladder import Level


class NotConvergedError(Exception):
    """Self-consistency was not reached; gentler mixing may help."""


class EngineError(Exception):
    """The engine could not compute a label, for a reason that another attempt would not change."""


@dataclass(frozen=True)
class Outcome:
    """Result of one calculation.

    Attributes
    ----------
    energy : float
        eV, total, force-consistent.
    forces : (N, 3) float64
        eV/Å.
    stress : (6,) float64 or None
        eV/Å³, ASE's Voigt order and sign.
    info : dict
        Iterations, Fermi level, ...: anything JSON can hold.
    """

    energy: float
    forces: Array
    stress: Array | None
    info: dict[str, Any] = field(default_factory=dict)


class Engine(StrictSettings, ABC):
    """Settings of an engine and how to run it; frozen, so that it can be sent to worker processes."""

    needs_cell: ClassVar[bool] = False

    name: str
    options: dict[str, Any] = Field({}, description="Further keywords of the calculator, as it documents them.")

    @abstractmethod
    def check(self, elements: Iterable[str]) -> None:
        """Raise `InputError` with what to install, or which file of these elements is missing."""

    def check_level(self, level: Level) -> None:
        """Raise `InputError` with the setting of a level that the engine does not support."""

    def collect_key_settings(self, elements: Iterable[str]) -> dict[str, Any]:
        """Settings that labels depend on besides the level and the engine's name; paths are not among them."""
        del elements
        return self.model_dump(exclude={"name"}, exclude_defaults=True)

    def warm_up(self, level: Level) -> None:
        """Load what a process needs once, so that it does not count as cost of the first label."""

    @property
    def program(self) -> str:
        """Name of the program in one word, the first of `describe_version`."""
        return self.describe_version([]).split()[0]

    def read_cpu_seconds(self, folder: Path) -> float | None:
        """CPU seconds of a calculation on another machine, from its output; None if it does not tell."""
        del folder
        return None

    def read(self, folder: Path, exit_status: int) -> Outcome:
        """Read the output of another machine; errors as of `compute`, or `InputError` without files."""
        del folder, exit_status
        raise InputError(f"the engine '{self.name}' has no output files to read; choose vasp, espresso or abinit")

    def make_level_metadata(self, level: Level) -> dict[str, Any]:
        """The settings of a level that this engine uses, as they are stored with its labels."""
        return level.to_metadata()

    @abstractmethod
    def describe_version(self, elements: Iterable[str]) -> str:
        """Name, version and data of the engine, as stored with the labels."""

    @abstractmethod
    def count_electrons(self, atoms: Atoms) -> float:
        """Number of electrons that are computed explicitly, for the cost estimate."""

    @abstractmethod
    def compute(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> Outcome:
        """Compute one label.

        Parameters
        ----------
        atoms : ase.Atoms
        level : Level
        attempt : int
            0 at first; each further one has gentler mixing and twice as many iterations.
        folder : Path
            Directory for files, which are kept if the label fails.

        Raises
        ------
        NotConvergedError
            If self-consistency was not reached.
        EngineError
            If the engine failed otherwise.
        """

    def write_inputs(self, atoms: Atoms, level: Level, folder: Path) -> list[str]:
        """Write the input files of one label, to be computed on another machine and imported later.

        Parameters
        ----------
        atoms : ase.Atoms
        level : Level
        folder : Path
            Directory of the files; it is created if it is missing.

        Returns
        -------
        list of str
            Files that the user still has to add.

        Raises
        ------
        InputError
            If the engine has no input files, or a file that it needs is missing.
        """
        del atoms, level, folder
        raise InputError(f"the engine '{self.name}' has no input files to write; choose vasp, espresso or abinit")


def require_cutoff(level: Level) -> float:
    """Plane-wave cutoff of a level, eV; `InputError` if it has none."""
    if level.cutoff_ev is None:
        raise InputError(f"level '{level.name}' has no 'cutoff_ev', which plane waves need")
    return level.cutoff_ev


def installed_version(package: str) -> str:
    """Version of an installed package, or 'unknown'."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
