"""Interface of all engines: checks of the installation and of levels, and computation or import of one label."""

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
    """Failure to reach self-consistency; gentler mixing may help."""


class EngineError(Exception):
    """Failure of an engine for a reason that another attempt would not remove."""


@dataclass(frozen=True)
class Outcome:
    """Result of one calculation.

    Attributes
    ----------
    energy : float
        Total force-consistent energy in eV.
    forces : (N, 3) float64
        Forces in eV/Å.
    stress : (6,) float64 or None
        Stress in eV/Å³, with ASE's Voigt order and sign.
    info : dict
        Further results that can be stored as JSON, such as the number of iterations and the Fermi level.
    """

    energy: float
    forces: Array
    stress: Array | None
    info: dict[str, Any] = field(default_factory=dict)


class Engine(StrictSettings, ABC):
    """Settings of an engine, and methods to run it. Instances can be sent to worker processes.

    Attributes
    ----------
    needs_cell : bool
        Whether the engine uses plane waves, which require three cell vectors and a k-point mesh.
    """

    needs_cell: ClassVar[bool] = False

    name: str
    options: dict[str, Any] = Field({}, description="Further keywords of the calculator, as documented there.")

    @abstractmethod
    def check(self, elements: Iterable[str]) -> None:
        """Raise `InputError` if the engine is not installed, or a file for one of the elements is missing."""

    def check_level(self, level: Level) -> None:
        """Raise `InputError` if the engine does not support a setting of the level; by default, all are supported."""

    def collect_key_settings(self, elements: Iterable[str]) -> dict[str, Any]:
        """Return the engine settings on which labels of some elements depend, as JSON types; paths are excluded.

        The name of the engine is not among them.
        """
        del elements
        return self.model_dump(exclude={"name"}, exclude_defaults=True)

    def warm_up(self, level: Level) -> None:
        """Import the engine in a worker process, so that the import does not count as cost of the first label.

        By default, nothing is imported.
        """

    @property
    def program(self) -> str:
        """Name of the program: the first word of `describe_version`."""
        return self.describe_version([]).split()[0]

    def read_cpu_seconds(self, folder: Path) -> float | None:
        """Read the CPU seconds of a calculation from its output files; None if they contain none."""
        del folder
        return None

    def read(self, folder: Path, exit_status: int) -> Outcome:
        """Read the output files of a calculation.

        Parameters
        ----------
        folder : Path
            Directory of the output files.
        exit_status : int
            Exit status of the program; 0 if it is not known, because the calculation ran on another machine.

        Raises
        ------
        NotConvergedError, EngineError
            As in `compute`.
        InputError
            If the engine has no output files.
        """
        del folder, exit_status
        raise InputError(f"the engine '{self.name}' has no output files to read; choose vasp, espresso or abinit")

    def make_level_metadata(self, level: Level) -> dict[str, Any]:
        """Return the settings of a level that this engine uses, for storage with its labels."""
        return level.to_metadata()

    @abstractmethod
    def describe_version(self, elements: Iterable[str]) -> str:
        """Describe the engine for storage with its labels: name, version, and data for some elements.

        Raises
        ------
        InputError
            If the data of an element are missing.
        """

    @abstractmethod
    def count_electrons(self, atoms: Atoms) -> float:
        """Return the number of electrons (of PAW or pseudopotentials: valence electrons), for the cost estimate.

        Raises
        ------
        InputError
            If the data of an element are missing.
        """

    @abstractmethod
    def compute(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> Outcome:
        """Compute one label.

        Parameters
        ----------
        atoms : ase.Atoms
        level : Level
        attempt : int
            0 for the first attempt; each further attempt has gentler mixing and twice as many iterations.
        folder : Path
            Directory for the files of the engine, which are kept only if the label fails.

        Raises
        ------
        NotConvergedError
            If self-consistency was not reached.
        EngineError
            If the engine failed for another reason; engines may also raise errors of other types.
        InputError
            If the input cannot be written, or the program or a file is missing.
        """

    def write_inputs(self, atoms: Atoms, level: Level, folder: Path) -> list[str]:
        """Write the input files of a label that will be computed on another machine and imported later.

        Parameters
        ----------
        atoms : ase.Atoms
        level : Level
        folder : Path
            Directory of the files, which is created if it does not exist.

        Returns
        -------
        list of str
            Names of files that the user still has to add.

        Raises
        ------
        InputError
            If the engine has no input files, or a required file is missing.
        """
        del atoms, level, folder
        raise InputError(f"the engine '{self.name}' has no input files to write; choose vasp, espresso or abinit")


def require_cutoff(level: Level) -> float:
    """Return the plane-wave cutoff of a level in eV; raise `InputError` if the level has none."""
    if level.cutoff_ev is None:
        raise InputError(f"level '{level.name}' has no 'cutoff_ev'; specify it, because the engine uses plane waves")
    return level.cutoff_ev


def get_installed_version(package: str) -> str:
    """Return the version of a package, or "unknown" if it is not installed as a distribution of this name."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
