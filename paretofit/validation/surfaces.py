"""Surface energies of slabs with two equivalent faces."""

from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import surface

from paretofit.validation.crystal import (
    FORCE_TOLERANCE,
    HEXAGONAL_SPACE_GROUPS,
    compute_cell_heights,
    compute_energy,
    find_symmetry,
    relax_structure,
)

MIN_SLAB_THICKNESS_A = 12.0
VACUUM_PER_SIDE_A = 8.0  # empty space on each side of a slab
JOULE_PER_SQUARE_METRE = 1e20 / units.J  # J/m² per eV/Å²

Miller = tuple[int, int, int]


def choose_miller_indices(crystal: Atoms) -> list[Miller]:
    """Choose low Miller indices: (001), (100), (110) for hexagonal conventional cells, (100), (110), (111) for others.

    Raises
    ------
    PropertyError
        If spglib finds no symmetry.
    """
    if find_symmetry(crystal).number in HEXAGONAL_SPACE_GROUPS:
        return [(0, 0, 1), (1, 0, 0), (1, 1, 0)]
    return [(1, 0, 0), (1, 1, 0), (1, 1, 1)]


def compute_surface_energy(
    calculator: Any,
    crystal: Atoms,
    miller_indices: Miller,
    *,
    thickness: float = MIN_SLAB_THICKNESS_A,
    relax: bool = True,
) -> float:
    """Compute the surface energy γ = (E(slab) - N E(crystal)/N₀) / 2A, J/m².

    The slab has N atoms and two faces of area A each; the crystal has N₀ atoms.

    Parameters
    ----------
    calculator : ase calculator
    crystal : ase.Atoms
        Relaxed conventional cell; the indices refer to it.
    miller_indices : (h, k, l)
        Indices of the surface; three, not four, for hexagonal cells as well.
    thickness : float
        Smallest thickness of the slab, Å.
    relax : bool
        Whether the positions of the slab are relaxed; otherwise, they are those of the crystal.

    Raises
    ------
    PropertyError
        If the slab cannot be relaxed.
    """
    energy_per_atom = compute_energy(crystal, calculator) / len(crystal)
    layer_height = compute_cell_heights(surface(crystal, miller_indices, 1, periodic=True))[2]
    n_layers = max(2, -int(-thickness // layer_height))  # at least two; the division is rounded up
    slab = surface(crystal, miller_indices, n_layers, vacuum=VACUUM_PER_SIDE_A, periodic=True)
    if relax:
        slab = relax_structure(calculator, slab, relax_cell=False, fmax=FORCE_TOLERANCE)
    area = float(np.linalg.norm(np.cross(slab.cell[0], slab.cell[1])))
    excess_energy = compute_energy(slab, calculator) - len(slab) * energy_per_atom
    return excess_energy / (2 * area) * JOULE_PER_SQUARE_METRE
