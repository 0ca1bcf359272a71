"""Energy of a layered crystal as a function of the interlayer distance (Bidoggia et al., 2025, Fig. 6)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.data import covalent_radii

from paretofit.core import Array
from paretofit.validation.crystal import compute_energy
from paretofit.validation.quantity import PropertyError, Quantity

MIN_GAP_RATIO = 1.3  # ratio of a gap to the sum of the facing atoms' covalent radii; no bond crosses wider gaps
SEPARATED_DISTANCE_A = 12.0  # layers at this distance do not interact


@dataclass(frozen=True)
class InterlayerScan:
    """Energy as a function of the distance between layers.

    Attributes
    ----------
    curve : DataFrame
        ``distance`` (Å, between facing planes) and ``energy`` (meV/atom, relative to separated layers).
    """

    curve: pd.DataFrame

    @property
    def quantities(self) -> list[Quantity]:
        """Distance and depth of the minimum; empty if the layers do not bind."""
        distances, energies = self.curve[["distance", "energy"]].to_numpy().T
        lowest_index = int(np.argmin(energies))
        if not (0 < lowest_index < len(energies) - 1 and energies[lowest_index] < 0):
            return []
        # the parabola a d² + b d + c through the lowest point and its neighbours; separated layers have zero energy
        near_minimum = slice(lowest_index - 1, lowest_index + 2)
        a, b, c = np.polyfit(distances[near_minimum], energies[near_minimum], 2)
        return [
            Quantity("interlayer distance", "Å", float(-b / (2 * a))),
            Quantity("binding", "meV/atom", float(b**2 / (4 * a) - c)),
        ]


def find_layer_gaps(atoms: Atoms) -> tuple[Array, Array]:
    """Find the layers that are stacked along the third cell vector, and the gaps between them, which no bond crosses.

    Returns
    -------
    layer_indices : (n_atoms,) int
        Layer of each atom, counted upwards from the layer above the first gap; 0 if the structure is not layered.
    widths : (n_layers,) float64
        Width (Å) of the gap below each layer, Å; empty if the structure is not layered.
    """
    cell_height = float(atoms.cell[2] @ _compute_normal(atoms))
    heights = atoms.get_scaled_positions()[:, 2] * cell_height
    order = np.argsort(heights)
    # the atom below the lowest one is the periodic image of the highest one
    spacings = np.diff(np.concatenate([[heights[order[-1]] - cell_height], heights[order]]))
    radii = covalent_radii[atoms.numbers[order]]
    is_gap = spacings > MIN_GAP_RATIO * (radii + np.roll(radii, 1))
    layer_indices = np.empty(len(atoms), dtype=int)
    # the modulo assigns atoms below the first gap, with -1, to the last layer, which crosses the boundary of the cell
    layer_indices[order] = (np.cumsum(is_gap) - 1) % max(1, int(is_gap.sum()))
    return layer_indices, spacings[is_gap]


def scan_interlayer_distance(calculator: Any, atoms: Atoms, *, n_points: int = 30) -> InterlayerScan:
    """Compute the energy as a function of the distance between rigid layers.

    Parameters
    ----------
    calculator : ase calculator
    atoms : ase.Atoms
        Crystal with layers stacked along the third cell vector.
    n_points : int
        Number of distances in the curve, from 0.8 to 2.2 times the mean width of the gaps in `atoms`.

    Raises
    ------
    PropertyError
        If the structure has no layers.
    """
    layer_indices, widths = find_layer_gaps(atoms)
    if not len(widths):
        raise PropertyError("the structure has no layers along its third cell vector")
    mean_width = float(widths.mean())
    distances = np.append(np.linspace(0.8, 2.2, n_points) * mean_width, max(SEPARATED_DISTANCE_A, 3 * mean_width))
    structures = (_set_layer_distance(atoms, layer_indices, widths, distance) for distance in distances)
    energies = np.array([compute_energy(structure, calculator) for structure in structures])
    # the layers are separated at the last distance
    relative_energies = 1e3 * (energies - energies[-1]) / len(atoms)
    return InterlayerScan(pd.DataFrame({"distance": distances[:-1], "energy": relative_energies[:-1]}))


def _compute_normal(atoms: Atoms) -> Array:
    """Compute the unit normal, ``(3,)``, of the plane of the first two cell vectors, on the side of the third one."""
    normal = np.cross(atoms.cell[0], atoms.cell[1])
    return np.asarray(normal * (np.sign(atoms.cell[2] @ normal) / np.linalg.norm(normal)))


def _set_layer_distance(atoms: Atoms, layer_indices: Array, widths: Array, distance: float) -> Atoms:
    """Copy a structure, shift its rigid layers, and adapt the cell, so that every gap is `distance` (Å) wide.

    `layer_indices` and `widths` are those of `find_layer_gaps`.
    """
    cell, normal = atoms.cell[:], _compute_normal(atoms)
    shifts = np.concatenate([[0.0], np.cumsum(distance - widths[1:])])  # of each layer, relative to the first one
    scaled_positions = atoms.get_scaled_positions()
    first_layer_bottom = scaled_positions[layer_indices == 0, 2].min()
    # atoms below the first gap are periodic images of the top of the last layer; 1e-9 allows for rounding errors
    is_wrapped = (scaled_positions[:, 2] < first_layer_bottom - 1e-9) & (layer_indices == len(widths) - 1)
    scaled_positions[is_wrapped, 2] += 1.0
    copy: Atoms = atoms.copy()
    copy.positions = scaled_positions @ cell + shifts[layer_indices][:, None] * normal
    copy.set_cell(np.array([cell[0], cell[1], cell[2] + (distance * len(widths) - widths.sum()) * normal]))
    return copy
