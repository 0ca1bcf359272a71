"""One trajectory of molecular dynamics: what to run, by what, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms
    from ase.calculators.calculator import Calculator


@dataclass(frozen=True)
class MdEngine:
    """What forces are computed by: LAMMPS, a calculator, or the sum of both.

    Attributes
    ----------
    commands : tuple of str
        ``pair_style`` and ``pair_coeff`` lines, units metal; empty where a calculator computes by itself.
    elements : tuple of str
        Of the atom types, in order.
    calculator_factory : callable, optional
        Makes an ASE calculator, in the process that runs the trajectory; it can be pickled.
    digest : str
        Names what the calculator computes by, for the record of a finished trajectory.
    """

    commands: tuple[str, ...]
    elements: tuple[str, ...]
    calculator_factory: Callable[[], Calculator] | None = None
    digest: str = ""


@dataclass(frozen=True)
class MdRun:
    """One trajectory to run.

    Attributes
    ----------
    number : int
    atoms : ase.Atoms
    temperature : float
        K.
    pressure : float
        kbar.
    seed : int
    """

    number: int
    atoms: Atoms
    temperature: float
    pressure: float
    seed: int


@dataclass(frozen=True)
class Trajectory:
    """What became of a run.

    Attributes
    ----------
    frames : list of ase.Atoms
        In the frame and with the periodicity of the start.
    times : list of float
        ps.
    reason : str
        Why it ended early; empty where it did not.
    """

    frames: list[Atoms]
    times: list[float]
    reason: str
