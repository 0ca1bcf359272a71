"""What every engine does: say whether it can, and compute one label."""

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
    """What one calculation gave.

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
    """Settings of an engine and the way to use it; frozen, so that it travels to worker processes."""

    needs_cell: ClassVar[bool] = False

    name: str
    options: dict[str, Any] = Field({}, description="further keywords for the calculator, as it documents them")

    @abstractmethod
    def check(self, elements: Iterable[str]) -> None:
        """Find out whether the engine is installed and has its data for these elements.

        Raises
        ------
        InputError
            With what to install, or which file is missing.
        """

    def check_level(self, level: Level) -> None:
        """Find out whether the engine can do what a level asks for.

        Raises
        ------
        InputError
            With the setting that it lacks.
        """

    def collect_key_settings(self, elements: Iterable[str]) -> dict[str, Any]:
        """What labels depend on besides the level and the engine's name; where programs and files lie is not."""
        del elements
        return self.model_dump(exclude={"name"}, exclude_defaults=True)

    def warm_up(self, level: Level) -> None:
        """Load what a process needs once, so that its first label does not pay for it."""

    @property
    def program(self) -> str:
        """The program that computes, in one word: the first of `description`."""
        return self.describe_version([]).split()[0]

    def read_cpu_seconds(self, folder: Path) -> float | None:
        """CPU seconds that a calculation elsewhere took, as its output says; None where it does not."""
        del folder
        return None

    def read(self, folder: Path, exit_status: int) -> Outcome:
        """Read the output of a calculation that was run elsewhere; errors as those of `compute`.

        Raises
        ------
        InputError
            If the engine has no output files.
        """
        del folder, exit_status
        raise InputError(f"the engine '{self.name}' has no output files to read; choose vasp, espresso or abinit")

    def make_level_metadata(self, level: Level) -> dict[str, Any]:
        """The settings of a level that this engine follows, as they are kept with its labels."""
        return level.to_metadata()

    @abstractmethod
    def describe_version(self, elements: Iterable[str]) -> str:
        """Name, version and data, as it is kept with the labels."""

    @abstractmethod
    def count_electrons(self, atoms: Atoms) -> float:
        """Electrons that are computed explicitly; what the cost is estimated from."""

    @abstractmethod
    def compute(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> Outcome:
        """Compute one label.

        Parameters
        ----------
        atoms : ase.Atoms
        level : Level
        attempt : int
            0 at first; with each further one mixing is gentler and there are twice as many iterations.
        folder : Path
            For files; the engine's own log is kept from there if the label fails.

        Raises
        ------
        NotConvergedError
            If self-consistency was not reached.
        EngineError
            If the engine failed otherwise.
        """

    def write_inputs(self, atoms: Atoms, level: Level, folder: Path) -> list[str]:
        """Write the input files of one label, to be computed elsewhere and imported later.

        Parameters
        ----------
        atoms : ase.Atoms
        level : Level
        folder : Path
            Where the files go; it is made if it is missing.

        Returns
        -------
        list of str
            What the user still has to put there.

        Raises
        ------
        InputError
            If the engine has no input files, or lacks what it writes them from.
        """
        del atoms, level, folder
        raise InputError(f"the engine '{self.name}' has no input files to write; choose vasp, espresso or abinit")


def require_cutoff(level: Level) -> float:
    """Plane-wave cutoff of a level, eV.

    Raises
    ------
    InputError
        If it has none.
    """
    if level.cutoff_ev is None:
        raise InputError(f"level '{level.name}' has no 'cutoff_ev', which plane waves need")
    return level.cutoff_ev


def installed_version(package: str) -> str:
    """Version of an installed package, or 'unknown'."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
