"""Input, state and result of a molecular-dynamics trajectory, and the box in which every program integrates.

All programs use the same box. Its first cell vectors are the periodic ones (the first along x, the second in the xy
plane). The box is periodic in all directions, with vacuum along the directions in which the start structure is not
periodic. Calculators can therefore always compute a volume and a stress, and barostats along x, y and z do not change
the vacuum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from paretofit.core import Array, build_vacuum_cell

HALF_VACUUM_A = 12.0  # along non-periodic directions, `build_vacuum_cell` adds twice this length plus 1 Å
SURFACE_THICKNESS_A = 3.4  # thickness of a flat sheet of atoms: the distance of the layers of graphite
THERMOSTAT_TIME_PS, BAROSTAT_TIME_PS = 0.1, 1.0  # damping times
MIN_TEMPERATURE_K = 1.0  # replaces lower temperatures, because a thermostat at 0 K divides by zero
RESCALING_STEPS = 2  # number of steps between two rescalings of the velocities in the equilibration
MAX_VOLUME_RATIO = 3.0  # a trajectory is stopped if its volume grows or shrinks by this factor


@dataclass(frozen=True)
class MdEngine:
    """Source of the forces: a LAMMPS potential, an ASE calculator, or the sum of the two.

    Attributes
    ----------
    commands : tuple of str
        ``pair_style`` and ``pair_coeff`` lines in units metal; empty if the calculator computes all forces.
    elements : tuple of str
        Elements of LAMMPS's atom types, in their order.
    calculator_factory : callable, optional
        Picklable function that creates an ASE calculator in the process that runs the trajectory; by default, there is
        no calculator.
    digest : str
        Digest of the calculator's parameters; if it changes, finished trajectories are repeated.
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
        Temperature, K.
    pressure : float
        Pressure on the material along periodic directions, kbar.
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
    """Frames of a trajectory, and the reason why it ended early.

    Attributes
    ----------
    frames : list of ase.Atoms
        Structures in the coordinate frame and with the periodicity of the start structure.
    times : list of float
        Times of the frames, ps.
    reason : str
        Reason why the trajectory ended early; empty if it is complete.
    """

    frames: list[Atoms]
    times: list[float]
    reason: str


@dataclass(frozen=True)
class MdSnapshot:
    """State of a running trajectory.

    Attributes
    ----------
    atoms : ase.Atoms
        Atoms in the coordinate frame and with the periodicity of the start structure.
    temperature : float
        Temperature of the 3N - 3 degrees of freedom, K.
    energy : float
        Potential energy, eV.
    volume_ratio : float
        Volume of the box divided by its initial volume.
    """

    atoms: Atoms
    temperature: float
    energy: float
    volume_ratio: float


@dataclass
class Dynamics(ABC):
    """Integration of one trajectory by a program, LAMMPS or ASE.

    The methods are called in this order: `start`, `equilibrate` any number of times, `start_sampling`, `advance` any
    number of times, and `close`. In the equilibration, the potential energy of a distorted structure would heat it to
    many thousand kelvin; `equilibrate` therefore rescales the velocities every `RESCALING_STEPS` steps.

    Attributes
    ----------
    run : MdRun
        Start structure and conditions.
    engine : MdEngine
        Source of the forces.
    timestep : float
        Time step, ps.
    max_temperature : float
        Temperature (K) above which `advance` returns early.
    temperature : float
        Temperature of the run, but at least `MIN_TEMPERATURE_K`.
    """

    run: MdRun
    engine: MdEngine
    timestep: float
    max_temperature: float

    def __post_init__(self) -> None:
        self.temperature = max(self.run.temperature, MIN_TEMPERATURE_K)

    @abstractmethod
    def start(self) -> None:
        """Set up atoms, potential and initial velocities."""

    @abstractmethod
    def equilibrate(self, steps: int) -> MdSnapshot:
        """Integrate a number of steps at constant volume, with velocities rescaled to the requested temperature."""

    @abstractmethod
    def start_sampling(self) -> None:
        """Set up the dynamics after the equilibration: NPT, or NVT for structures without periodic directions."""

    @abstractmethod
    def advance(self, steps: int) -> MdSnapshot:
        """Integrate a number of steps, or fewer if the trajectory becomes unphysical."""

    @abstractmethod
    def close(self) -> None:
        """Release the resources of the program."""


@dataclass
class MdBox:
    """Box in which a program integrates, and its transformation to the coordinate frame of the start structure.

    Attributes
    ----------
    start_structure : ase.Atoms
    order : list of int
        Order of the start structure's cell vectors in the box, periodic vectors first.
    rotation : (3, 3) float64
        Rotation matrix; row vectors of the start structure times this matrix are vectors in the box.
    shift : (3,) float64
        Translation after the rotation, Å; it centres the atoms in the box.
    cell : (3, 3) float64
        Cell vectors of the initial box as rows, Å; lower triangular.
    positions : (N, 3) float64
        Unwrapped positions relative to the corner of the box, Å; `restore_orientation` updates them.
    """

    start_structure: Atoms
    order: list[int]
    rotation: Array
    shift: Array
    cell: Array
    positions: Array

    @classmethod
    def from_structure(cls, atoms: Atoms) -> MdBox:
        """Build the box for a start structure.

        Raises
        ------
        InputError
            If a periodic cell vector has no length.
        """
        order = [*np.flatnonzero(atoms.pbc).tolist(), *np.flatnonzero(~np.asarray(atoms.pbc)).tolist()]
        cell = build_vacuum_cell(atoms, HALF_VACUUM_A)[order]
        if np.linalg.det(cell) < 0:  # make the cell right-handed; both signs of a vector span the same lattice
            cell[2] *= -1
        # the decomposition is C = RᵀQᵀ, with the lower triangular box Rᵀ; the signs make its diagonal positive
        Q, R = np.linalg.qr(cell.T)
        signs = np.sign(np.diag(R))
        rotation, box_cell = Q * signs, np.tril(R.T * signs)
        rotated_positions = atoms.positions @ rotation
        shift = 0.5 * box_cell.sum(axis=0) - rotated_positions.mean(axis=0)
        return cls(atoms, order, rotation, shift, box_cell, rotated_positions + shift)

    @property
    def n_periodic(self) -> int:
        """Number of periodic directions of the start structure; these are the first axes of the box."""
        return int(np.sum(self.start_structure.pbc))

    def scale_pressure(self, pressure: float) -> float:
        """Scale a pressure on the material to a pressure on the box, which is lower because the box contains vacuum.

        The result has the unit of `pressure`. The material is assumed to extend by `SURFACE_THICKNESS_A` in total
        beyond its outermost atoms along each non-periodic direction.
        """
        extents = np.ptp(self.positions, axis=0) + SURFACE_THICKNESS_A
        filled_fractions = np.minimum(extents / np.diag(self.cell), 1.0)[self.n_periodic :]
        return float(pressure * np.prod(filled_fractions))

    def compute_volume_ratio(self, cell: Array) -> float:
        """Compute the volume of a box with the cell vectors `cell`, ``(3, 3)``, divided by the initial volume."""
        return float(abs(np.linalg.det(cell) / np.linalg.det(self.cell)))

    def restore_orientation(self, positions: Array, cell: Array) -> Atoms:
        """Transform atoms from the box to the coordinate frame of the start structure, and wrap them into its cell.

        Positions are first unwrapped relative to those of the previous call, so that no atom jumps along a non-periodic
        direction; the unwrapped positions are stored in `positions`.

        Parameters
        ----------
        positions : (N, 3) float64
            Positions relative to the corner of the box, in any periodic image, Å.
        cell : (3, 3) float64
            Current cell vectors of the box as rows, Å.
        """
        # displacements since the previous call, in units of the cell vectors
        scaled_steps = np.linalg.solve(cell.T, (positions - self.positions).T).T
        self.positions = self.positions + (scaled_steps - np.round(scaled_steps)) @ cell
        start_cell, pbc = np.array(self.start_structure.cell[:]), self.start_structure.pbc
        rotated_cell = cell @ self.rotation.T
        for row, axis in enumerate(self.order):
            if pbc[axis]:  # vectors along other directions remain those of the start structure, without vacuum
                start_cell[axis] = rotated_cell[row]
        start_positions = (self.positions - self.shift) @ self.rotation.T
        atoms = Atoms(self.start_structure.numbers, start_positions, cell=start_cell, pbc=pbc)
        atoms.wrap()
        return atoms


def describe_volume_problem(volume_ratio: float) -> str:
    """Describe an unphysical volume ratio; return an empty string if the volume is acceptable."""
    if 1 / MAX_VOLUME_RATIO < volume_ratio < MAX_VOLUME_RATIO:
        return ""
    return f"the volume reached {volume_ratio:.2g} times the start volume"
