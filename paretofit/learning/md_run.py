"""Input and result of one molecular-dynamics trajectory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms
    from ase.calculators.calculator import Calculator


@dataclass(frozen=True)
class MdEngine:
    """Source of the forces: a LAMMPS potential, an ASE calculator, or the sum of the two.

    Attributes
    ----------
    commands : tuple of str
        ``pair_style`` and ``pair_coeff`` lines, units metal; empty if the calculator computes everything.
    elements : tuple of str
        Elements of the atom types, in order.
    calculator_factory : callable, optional
        Creates an ASE calculator in the process that runs the trajectory; it must be picklable.
    digest : str
        Identifies the calculator's parameters in the record of a finished trajectory.
    """

    commands: tuple[str, ...]
    elements: tuple[str, ...]
    calculator_factory: Callable[[], Calculator] | None = None
    digest: str = ""


@dataclass(frozen=True)
class MdRun:
    """Start structure and conditions of one trajectory.

    Attributes
    ----------
    number : int
        Number of the trajectory in its iteration.
    atoms : ase.Atoms
        Start structure.
    temperature : float
        K.
    pressure : float
        kbar.
    seed : int
        Random seed of the initial velocities.
    """

    number: int
    atoms: Atoms
    temperature: float
    pressure: float
    seed: int


@dataclass(frozen=True)
class Trajectory:
    """Frames of a finished trajectory.

    Attributes
    ----------
    frames : list of ase.Atoms
        In the coordinate frame and with the periodicity of the start structure.
    times : list of float
        ps.
    reason : str
        Why the trajectory ended early; empty if it did not.
    """

    frames: list[Atoms]
    times: list[float]
    reason: str
