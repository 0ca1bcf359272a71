"""Structures that are periodic in zero to three directions: molecules, wires, sheets and crystals.

Every structure is brought into the same orientation: its n periodic cell vectors come first and span the first n
Cartesian axes; the other vectors, which only contain vacuum, lie along the other axes. Strains, supercells and wave
vectors of a crystal and a sheet then differ only in n, and the vacuum is never strained.
"""

from dataclasses import dataclass
from itertools import chain

import numpy as np
from ase import Atoms, units

from paretofit.core import Array, copy_without_constraints
from paretofit.validation.quantity import PropertyError

MIN_VACUUM_A = 10.0  # empty space between images; cell vectors with less are replaced by vectors with VACUUM_A
VACUUM_A = 20.0
NEWTON = units.J / (1e10 * units.Angstrom)  # eV/Å

STRAINED_COMPONENTS = {3: (0, 1, 2, 3, 4, 5), 2: (0, 1, 5), 1: (0,), 0: ()}  # Voigt indices, by number of directions
KINDS = ("molecule", "wire", "sheet", "crystal")  # names by the number of periodic directions


@dataclass(frozen=True)
class CellMeasure:
    """Volume, area or length of a cell, and the modulus K = M d²E/dM² that belongs to it.

    Attributes
    ----------
    name, symbol, unit : str
        Such as ``volume``, ``V`` and ``Å³``.
    modulus, modulus_derivative, modulus_unit : str
        Name of K and of dK/dP in tables, and the unit of K.
    modulus_factor : float
        Unit of K in eV per unit of the measure.
    """

    name: str
    symbol: str
    unit: str
    modulus: str
    modulus_derivative: str
    modulus_unit: str
    modulus_factor: float


MEASURES = {
    3: CellMeasure("volume", "V", "Å³", "B", "B'", "GPa", units.GPa),
    2: CellMeasure("area", "A", "Å²", "layer modulus", "layer modulus'", "N/m", NEWTON / (1e10 * units.Angstrom)),
    1: CellMeasure("length", "L", "Å", "stiffness", "stiffness'", "nN", 1e-9 * NEWTON),
}


def count_periodic(atoms: Atoms) -> int:
    """Count the periodic directions."""
    return int(np.sum(atoms.pbc))


def get_measure(atoms: Atoms) -> CellMeasure:
    """Return the measure of the cell of a structure; raise a `PropertyError` for molecules, which have none."""
    if not atoms.pbc.any():
        raise PropertyError("a molecule has no periodic direction that could be strained")
    return MEASURES[count_periodic(atoms)]


def measure_cell(atoms: Atoms) -> float:
    """Compute the volume (Å³), area (Å²) or length (Å) that the periodic cell vectors span."""
    vectors = atoms.cell[atoms.pbc]
    return float(np.sqrt(np.linalg.det(vectors @ vectors.T)))  # Gram determinant; 1 without vectors


def orient_structure(atoms: Atoms) -> Atoms:
    """Copy a structure with its periodic cell vectors first, along the first Cartesian axes; crystals stay as they are.

    The first periodic vector lies along x, and a second one in the xy plane. Along each other axis, the length of the
    cell is kept if at least 10 Å of it are empty; otherwise, it is set so that 20 Å are empty. The atoms are centred
    along these axes.

    Raises
    ------
    PropertyError
        If periodic vectors are linearly dependent.
    """
    copy: Atoms = copy_without_constraints(atoms)
    if copy.pbc.all():
        return copy
    n, vectors = count_periodic(atoms), np.array(atoms.cell[atoms.pbc]).reshape(-1, 3)
    axes = _complete_axes(vectors, np.array(atoms.cell[~atoms.pbc]))
    cell = np.zeros((3, 3))
    cell[:n] = np.tril(vectors @ axes.T) if n else cell[:n]  # tril sets rounding errors to zero
    positions = atoms.positions @ axes.T
    extents = np.ptp(positions, axis=0)
    heights = np.abs(np.array(atoms.cell[~atoms.pbc]) @ axes[n:].T)
    for axis in range(n, 3):
        height = float(heights[:, axis - n].max())
        cell[axis, axis] = height if height - extents[axis] > MIN_VACUUM_A - 1e-3 else extents[axis] + VACUUM_A
        positions[:, axis] += cell[axis, axis] / 2 - (positions[:, axis].max() + positions[:, axis].min()) / 2
    copy.set_cell(cell)
    copy.positions = positions
    copy.pbc = np.arange(3) < n
    return copy


def _complete_axes(periodic_vectors: Array, other_vectors: Array) -> Array:
    """Compute orthonormal, right-handed axes (3, 3) as rows; the first n axes span the n periodic vectors."""
    axes: list[Array] = []
    for k, vector in enumerate(chain(periodic_vectors, other_vectors, np.eye(3))):
        remainder = vector - sum((vector @ axis * axis for axis in axes), np.zeros(3))
        length = float(np.linalg.norm(remainder))
        if length > 1e-3 * max(float(np.linalg.norm(vector)), 1e-6):
            axes.append(remainder / length)
        elif k < len(periodic_vectors):
            raise PropertyError("its periodic cell vectors are zero or linearly dependent")
        if len(axes) == 2:
            axes.append(np.cross(axes[0], axes[1]))
            break
    return np.array(axes)


def widen_vacuum(atoms: Atoms, vacuum: float) -> Atoms:
    """Copy an oriented structure, make it periodic in all directions, and widen its vacuum to at least `vacuum` (Å)."""
    copy: Atoms = atoms.copy()
    cell = np.array(copy.cell[:])
    extents = np.ptp(copy.positions, axis=0)
    for axis in range(count_periodic(atoms), 3):
        cell[axis, axis] = max(cell[axis, axis], extents[axis] + vacuum)
    copy.set_cell(cell)
    copy.pbc = True
    return copy


def scale_measure(atoms: Atoms, factor: float) -> Atoms:
    """Copy an oriented structure and multiply its volume, area or length by `factor`; the vacuum is unchanged."""
    n = count_periodic(atoms)
    scale = np.where(np.arange(3) < n, float(factor) ** (1 / n), 1.0)
    copy: Atoms = atoms.copy()
    copy.set_cell(atoms.cell[:] * scale, scale_atoms=True)
    return copy


def reduce_to_primitive(atoms: Atoms, primitive_vectors: Array, representatives: Array) -> Atoms:
    """Reduce an oriented sheet or wire to its primitive cell, with the shortest vector first and no acute angle.

    Parameters
    ----------
    atoms : ase.Atoms
    primitive_vectors : (3, 3) float64
        Primitive cell of the structure with its vacuum, Å; each vector is parallel or perpendicular to the vacuum.
    representatives : (n_primitive,) int
        Index in `atoms` of one atom for each atom of the primitive cell.
    """
    n = count_periodic(atoms)
    # the vectors along the vacuum are at least MIN_VACUUM_A long
    is_periodic = np.linalg.norm(primitive_vectors[:, n:], axis=1) < MIN_VACUUM_A / 2
    vectors = primitive_vectors[is_periodic]
    cell = np.array(atoms.cell[:])
    # lengths are rounded, so that equal vectors keep their order
    cell[:n] = vectors[np.argsort(np.round(np.linalg.norm(vectors, axis=1), 3), kind="stable")]
    if n == 2 and cell[0] @ cell[1] > 0:  # hexagonal cells have an angle of 120°, as in crystals
        cell[1] *= -1
    primitive_cell: Atoms = atoms[representatives]
    primitive_cell.set_cell(cell)
    primitive_cell.wrap()  # along periodic directions
    return orient_structure(primitive_cell)
