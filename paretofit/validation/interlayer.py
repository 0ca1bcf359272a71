"""Energy of a layered crystal against the distance of its layers (paper 1, Fig. 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from ase.data import covalent_radii

from paretofit.validation.quantity import PropertyError, Quantity

if TYPE_CHECKING:
    from ase import Atoms

    from paretofit.core import Array

WIDE = 1.3  # times the sum of the facing atoms' covalent radii: a gap between planes that no bond crosses
FARTHEST = 12.0  # Å: the layers are taken to be apart


@dataclass(frozen=True)
class InterlayerScan:
    """A scan of the distance between layers.

    Attributes
    ----------
    curve : DataFrame
        ``distance`` (Å, of the planes that face each other) and ``energy`` (meV/atom, from layers far apart).
    """

    curve: pd.DataFrame

    @property
    def quantities(self) -> list[Quantity]:
        """Distance and depth of the minimum; NaN where the layers do not bind."""
        distance, energy = self.curve.to_numpy().T
        lowest = int(np.argmin(energy))
        if lowest in {0, len(energy) - 1} or energy[lowest] >= 0:
            return [Quantity("interlayer distance", "Å", float("nan")), Quantity("binding", "meV/atom", 0.0)]
        a, b, c = np.polyfit(distance[lowest - 1 : lowest + 2], energy[lowest - 1 : lowest + 2], 2)
        return [
            Quantity("interlayer distance", "Å", float(-b / (2 * a))),
            Quantity("binding", "meV/atom", float(b**2 / (4 * a) - c)),
        ]


def find_layer_gaps(atoms: Atoms) -> tuple[Array, Array]:
    """Gaps between atomic planes along the third cell vector that no bond crosses.

    Returns
    -------
    layer : (N,) int
        The layer of each atom, counted upwards, the first above the first gap.
    widths : (n_layers,) float64
        Å, of the gap below each layer; empty where the structure is not layered.
    """
    cell = atoms.cell[:]
    normal = np.cross(cell[0], cell[1])
    height = float(abs(cell[2] @ normal) / np.linalg.norm(normal))
    z = atoms.get_scaled_positions()[:, 2] * height
    order = np.argsort(z)
    below = np.diff(np.concatenate([[z[order[-1]] - height], z[order]]))
    radii = covalent_radii[atoms.numbers[order]]
    wide = below > WIDE * (radii + np.roll(radii, 1))
    layer = np.empty(len(atoms), dtype=int)
    layer[order] = (np.cumsum(wide) - 1) % max(1, int(wide.sum()))
    return layer, below[wide]


def scan_interlayer_distance(calculator: Any, atoms: Atoms, *, n_points: int = 30) -> InterlayerScan:
    """Energy against the distance of layers, everything within a layer kept.

    Parameters
    ----------
    calculator : ase calculator
    atoms : ase.Atoms
        Layers are stacked along its third vector.
    n_points : int
        Between 0.8 and 2.2 times the distance at hand.

    Raises
    ------
    PropertyError
        If it has no layers.
    """
    layer, widths = find_layer_gaps(atoms)
    if not len(widths):
        raise PropertyError("the structure has no layers along its third cell vector")
    middle = float(widths.mean())
    distances = np.append(np.linspace(0.8, 2.2, n_points) * middle, max(FARTHEST, 3 * middle))
    energies = np.array([_energy(calculator, atoms, layer, widths, distance) for distance in distances])
    energies = 1e3 * (energies - energies[-1]) / len(atoms)
    return InterlayerScan(pd.DataFrame({"distance": distances[:-1], "energy": energies[:-1]}))


def _energy(calculator: Any, atoms: Atoms, layer: Array, widths: Array, distance: float) -> float:
    """With every gap `distance` wide."""
    cell = atoms.cell[:]
    normal = np.cross(cell[0], cell[1])
    normal *= np.sign(cell[2] @ normal) / np.linalg.norm(normal)
    shift = np.concatenate([[0.0], np.cumsum(distance - widths[1:])])
    moved: Atoms = atoms.copy()
    scaled = atoms.get_scaled_positions()
    first = scaled[layer == 0, 2]
    wrapped = scaled[:, 2] < first.min() - 1e-9  # what lies under the first gap belongs to the last layer's top
    scaled[wrapped & (layer == len(widths) - 1), 2] += 1.0
    moved.positions = scaled @ cell + shift[layer][:, None] * normal
    moved.set_cell(np.array([cell[0], cell[1], cell[2] + (distance * len(widths) - widths.sum()) * normal]))
    moved.calc = calculator
    return float(moved.get_potential_energy())
