"""Cells that properties are computed in: relaxed, in the standard setting, repeated; and prototypes of an element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.data import covalent_radii
from ase.filters import FrechetCellFilter
from ase.neighborlist import neighbor_list
from ase.optimize import BFGS

from paretofit.validation.quantity import PropertyError, Quantity

if TYPE_CHECKING:
    from paretofit.core import Array

FMAX = 1e-3  # eV/Å; of the cell's degrees of freedom as ASE's FrechetCellFilter scales them
STEPS = 400
TOO_CLOSE = 0.5  # of the sum of the covalent radii
SWOLLEN = 2.0  # a relaxation that changes the volume by this factor has left the crystal
SYMMETRY = 1e-3  # Å
HEXAGONAL_SPACE_GROUPS = range(143, 195)  # numbers of the trigonal and hexagonal space groups
PROTOTYPES = ("fcc", "bcc", "hcp", "sc", "diamond")


def relax_structure(calculator: Any, atoms: Atoms, *, relax_cell: bool, fmax: float = FMAX) -> Atoms:
    """A copy with relaxed positions, and cell where asked for, that still has its calculator.

    Raises
    ------
    PropertyError
        If it does not converge in 400 steps, the volume changes by more than a factor of two, or atoms come closer
        than half the sum of their covalent radii.
    """
    copy: Atoms = atoms.copy()
    copy.calc = calculator
    moving: Any = FrechetCellFilter(copy) if relax_cell else copy
    optimizer = BFGS(moving, logfile=None)
    for _ in optimizer.irun(fmax=fmax, steps=STEPS):
        swollen = copy.get_volume() / atoms.get_volume()
        if not 1 / SWOLLEN < swollen < SWOLLEN:
            raise PropertyError(f"the relaxation changes the volume by a factor of {swollen:.2g}")
        if not np.isfinite(copy.get_potential_energy()):
            raise PropertyError("the energy is not finite in the relaxation")
    if not optimizer.converged():
        raise PropertyError(f"the relaxation has not converged to {fmax:g} eV/Å in {STEPS} steps")
    closest = find_overlap_distance(copy)
    if closest is not None:
        raise PropertyError(f"atoms fall into one another in the relaxation, to {closest:.2g} Å")
    return copy


def find_overlap_distance(atoms: Atoms) -> float | None:
    """The smallest distance (Å) of two atoms, where one is below half the sum of their covalent radii."""
    radii = covalent_radii[atoms.numbers]
    i, j, distance = neighbor_list("ijd", atoms, 2 * TOO_CLOSE * float(radii.max()))
    close = distance < TOO_CLOSE * (radii[i] + radii[j])
    return float(distance[close].min()) if close.any() else None


def find_symmetry(atoms: Atoms) -> Any:
    """Spglib's dataset, within 1e-3 Å."""
    import spglib  # noqa: PLC0415  (an extra)

    found = spglib.get_symmetry_dataset(_as_tuple(atoms), symprec=SYMMETRY)
    if found is None:
        raise PropertyError("spglib finds no symmetry, not even the translations")
    return found


def standardize_cell(atoms: Atoms) -> Atoms:
    """The conventional standard cell of spglib: what Miller indices and elastic constants refer to."""
    import spglib  # noqa: PLC0415  (an extra)

    found = spglib.standardize_cell(_as_tuple(atoms), symprec=SYMMETRY)
    if found is None:
        raise PropertyError("spglib finds no standard cell")
    cell, scaled, numbers = found
    return Atoms(numbers, cell=cell, scaled_positions=scaled, pbc=True)


def _as_tuple(atoms: Atoms) -> Any:
    """As spglib takes a crystal."""
    return atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers


def compute_cell_heights(atoms: Atoms) -> Array:
    """``(3,)``: distances between opposite faces of the cell, Å."""
    return np.asarray(1 / np.linalg.norm(atoms.cell.reciprocal()[:], axis=1))


def compute_repeats(atoms: Atoms, min_length: float) -> Array:
    """``(3,)`` int: repetitions that make every distance between opposite faces at least `min_length` (Å)."""
    return np.asarray(np.maximum(1, np.ceil(min_length / compute_cell_heights(atoms) - 1e-6)).astype(int))


def repeat_to_length(atoms: Atoms, min_length: float) -> Atoms:
    """Repeated to `min_length`, see `compute_repeats`."""
    larger: Atoms = make_supercell(atoms, np.diag(compute_repeats(atoms, min_length)))
    return larger


def build_prototype(name: str, symbol: str, volume_per_atom: float) -> Atoms:
    """A crystal of one element at a volume (Å³/atom); hcp with the ideal c/a."""
    atoms = bulk(symbol, name, a=3.0, c=3.0 * np.sqrt(8 / 3)) if name == "hcp" else bulk(symbol, name, a=3.0)
    scale = (volume_per_atom * len(atoms) / atoms.get_volume()) ** (1 / 3)
    atoms.set_cell(atoms.cell[:] * scale, scale_atoms=True)
    return atoms


def compute_lattice_quantities(atoms: Atoms) -> list[Quantity]:
    """Lattice constants of the conventional cell, c/a where a = b ≠ c, and volume per atom."""
    a, b, c, *angles = atoms.cell.cellpar()
    found = [Quantity("a", "Å", a)]
    if abs(b - a) > SYMMETRY:
        found.append(Quantity("b", "Å", b))
    if abs(c - a) > SYMMETRY:
        found.append(Quantity("c", "Å", c))
    if len(found) == 2 and abs(c - a) > SYMMETRY:
        found.append(Quantity("c/a", "", c / a))
    found += [
        Quantity(name, "°", angle)
        for name, angle in zip(("alpha", "beta", "gamma"), angles, strict=True)
        if min(abs(angle - 90), abs(angle - 120)) > 0.01
    ]
    return [*found, Quantity("volume", "Å³/atom", atoms.get_volume() / len(atoms))]
