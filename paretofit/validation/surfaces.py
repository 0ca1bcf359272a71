"""Surface energies: a slab's energy above that of as many atoms in the crystal, over its two faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ase import units
from ase.build import surface

from paretofit.validation.crystal import HEXAGONAL_SPACE_GROUPS, compute_cell_heights, find_symmetry, relax_structure

if TYPE_CHECKING:
    from ase import Atoms

THICKNESS = 12.0  # Å
VACUUM = 8.0  # Å on each side
FMAX = 0.01  # eV/Å
JOULE_PER_SQUARE_METRE = 1e20 / units.J  # eV/Å² is divided by units.J / 1e20

Miller = tuple[int, int, int]


def choose_miller_indices(crystal: Atoms) -> list[Miller]:
    """Low Miller indices of a conventional cell: (001), (100), (110) of a hexagonal one, else (100), (110), (111)."""
    if find_symmetry(crystal).number in HEXAGONAL_SPACE_GROUPS:
        return [(0, 0, 1), (1, 0, 0), (1, 1, 0)]
    return [(1, 0, 0), (1, 1, 0), (1, 1, 1)]


def compute_surface_energy(
    calculator: Any, crystal: Atoms, miller_indices: Miller, *, thickness: float = THICKNESS, relax: bool = True
) -> float:
    """γ = (E(slab) - N E(crystal)/N₀) / 2A in J/m².

    Parameters
    ----------
    calculator : ase calculator
    crystal : ase.Atoms
        Relaxed conventional cell, which the indices refer to; three indices also for hexagonal cells.
    miller_indices : (h, k, l)
    thickness : float
        Of the slab at least, Å.
    relax : bool
        Relax the positions; else the crystal is cut and left as it is.

    Raises
    ------
    PropertyError
        If the slab does not relax.
    """
    bulk = crystal.copy()
    bulk.calc = calculator
    per_atom = bulk.get_potential_energy() / len(bulk)
    one = surface(crystal, miller_indices, 1, periodic=True)
    layers = max(2, -int(-thickness // compute_cell_heights(one)[2]))
    slab = surface(crystal, miller_indices, layers, vacuum=VACUUM, periodic=True)
    slab.calc = calculator
    final = relax_structure(calculator, slab, relax_cell=False, fmax=FMAX) if relax else slab
    a, b = final.cell[0], final.cell[1]
    area = float((sum(x**2 for x in _cross(a, b))) ** 0.5)
    return float((final.get_potential_energy() - len(final) * per_atom) / (2 * area) * JOULE_PER_SQUARE_METRE)


def _cross(a: Any, b: Any) -> tuple[float, float, float]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
