"""What the engines of molecular dynamics share: frame, constants of the ensemble, and what they tell.

Every engine runs in the same box, whose first vectors are the periodic ones (the first along x, the second in the
xy plane), and which is periodic in all directions, with vacuum where the start is not. So a calculator has a volume
and a stress whatever it makes of missing periodicity, and barostats along x, y and z leave the vacuum as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from ase import Atoms

from paretofit.descriptors import build_vacuum_cell

if TYPE_CHECKING:
    from paretofit.core import Array

VACUUM = 12.0  # Å beside what is not periodic
THERMOSTAT_TIME_PS, BAROSTAT_TIME_PS = 0.1, 1.0  # ps
MIN_TEMPERATURE_K = 1.0  # K: what "0 K" is run at
SWOLLEN = 3.0  # times the volume of the start, or a share of it, at which a trajectory is stopped


@dataclass(frozen=True)
class MdSnapshot:
    """What an engine tells of the atoms as they are now.

    Attributes
    ----------
    atoms : ase.Atoms
        In the frame and with the periodicity of the start.
    temperature : float
        K, of 3N - 3 degrees of freedom.
    energy : float
        Potential energy, eV.
    volume_ratio : float
        Volume of the box, relative to that of the start.
    """

    atoms: Atoms
    temperature: float
    energy: float
    volume_ratio: float


class Dynamics(Protocol):
    """An engine with one trajectory in it."""

    def start(self) -> None:
        """Set everything up; whatever raises here is the reason why there is no trajectory."""

    def advance(self, steps: int) -> MdSnapshot:
        """Go on by some steps, or by fewer where things go wrong."""

    def close(self) -> None:
        """Give back what is held."""


@dataclass
class MdFrame:
    """A start in the frame of the dynamics, and the way back.

    Attributes
    ----------
    start_structure : ase.Atoms
    order : list of int
        Of the start's cell vectors: the periodic ones first.
    rotation : (3, 3) float64
        Positions of the start times this are positions of the dynamics.
    shift : (3,) float64
        Å, added then: the atoms lie in the middle of the box.
    cell : (3, 3) float64
        Å, of the box at the start; a vector a row, lower triangular.
    positions : (N, 3) float64
        Å, from the box's corner: those of the last look.
    """

    start_structure: Atoms
    order: list[int]
    rotation: Array
    shift: Array
    cell: Array
    positions: Array

    @classmethod
    def from_structure(cls, atoms: Atoms) -> MdFrame:
        """The frame for a start.

        Raises
        ------
        InputError
            If a periodic cell vector has no length.
        """
        order = [*np.flatnonzero(atoms.pbc).tolist(), *np.flatnonzero(~np.asarray(atoms.pbc)).tolist()]
        cell = build_vacuum_cell(atoms, VACUUM)[order]
        if np.linalg.det(cell) < 0:  # right-handed: turn the last axis round, which is vacuum or any
            cell[2] *= -1
        q, r = np.linalg.qr(cell.T)
        signs = np.sign(np.diag(r))
        rotation, box = q * signs, np.tril(r.T * signs)
        turned = atoms.positions @ rotation
        shift = 0.5 * box.sum(axis=0) - turned.mean(axis=0)
        return cls(atoms, order, rotation, shift, box, turned + shift)

    @property
    def n_periodic(self) -> int:
        """Directions in which the start is periodic: the first of x, y and z."""
        return int(np.sum(self.start_structure.pbc))

    def compute_volume_ratio(self, cell: Array) -> float:
        """The volume of a box, relative to that of the start."""
        return float(abs(np.linalg.det(cell) / np.linalg.det(self.cell)))

    def to_start_frame(self, positions: Array, cell: Array) -> Atoms:
        """The atoms in the frame of the start; along directions that are not periodic they are followed across the box.

        Parameters
        ----------
        positions : (N, 3) float64
            Å, from the box's corner; any image.
        cell : (3, 3) float64
            Å, of the box.
        """
        moved = np.linalg.solve(cell.T, (positions - self.positions).T).T
        self.positions = self.positions + (moved - np.round(moved)) @ cell
        made = np.array(self.start_structure.cell[:])
        turned = cell @ self.rotation.T
        for place, axis in enumerate(self.order):
            if self.start_structure.pbc[axis]:
                made[axis] = turned[place]
        x = (self.positions - self.shift) @ self.rotation.T
        atoms = Atoms(self.start_structure.numbers, x, cell=made, pbc=self.start_structure.pbc)
        atoms.wrap()
        return atoms


def describe_volume_problem(volume_ratio: float) -> str:
    """What is wrong with a volume, relative to that of the start; empty where nothing is."""
    fine = 1 / SWOLLEN < volume_ratio < SWOLLEN
    return "" if fine else f"the volume reached {volume_ratio:.2g} times that of the start"
