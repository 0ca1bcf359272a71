"""Structures that are periodic in zero to three directions: molecules, wires, sheets and crystals.

`orient_structure` brings every structure into the same orientation: its n periodic cell vectors come first and span the
first n Cartesian axes; the other vectors, along which there is vacuum, lie along the other axes. Strains, supercells
and wave vectors of crystals and sheets then differ only in n, and the vacuum is never strained.
"""

from dataclasses import dataclass
from itertools import chain

import numpy as np
from ase import Atoms, units

from paretofit.core import Array, copy_without_constraints
from paretofit.validation.quantity import PropertyError

MIN_VACUUM_A = 10.0  # empty space between images; cell vectors with less are replaced by vectors with VACUUM_A
VACUUM_A = 20.0
NEWTON = units.J / (1e10 * units.Angstrom)  # 1 N = 1 J/m in eV/Å

STRAINED_COMPONENTS = {3: (0, 1, 2, 3, 4, 5), 2: (0, 1, 5), 1: (0,), 0: ()}  # Voigt indices, by number of directions
KINDS = ("molecule", "wire", "sheet", "crystal")  # names by the number of periodic directions


@dataclass(frozen=True)
class CellMeasure:
    """Volume, area or length M of a cell, and the modulus K = M d²E/dM² that belongs to it.

    Attributes
    ----------
    name, symbol, unit : str
        Name, symbol and unit of M, such as ``volume``, ``V`` and ``Å³``.
    modulus, modulus_derivative, modulus_unit : str
        Names of K and of dK/dP in tables, and unit of K.
    modulus_factor : float
        Unit of K, in eV per `unit`.
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
    """Count the periodic directions of a structure."""
    return int(np.sum(atoms.pbc))


def get_measure(atoms: Atoms) -> CellMeasure:
    """Return the measure of the cell: volume, area or length; raise a `PropertyError` for a molecule."""
    if not atoms.pbc.any():
        raise PropertyError("a molecule has no periodic direction that could be strained")
    return MEASURES[count_periodic(atoms)]


def measure_cell(atoms: Atoms) -> float:
    """Compute the volume (Å³), area (Å²) or length (Å) that the periodic cell vectors span; 1 for a molecule."""
    vectors = atoms.cell[atoms.pbc]
    return float(np.sqrt(np.linalg.det(vectors @ vectors.T)))  # the Gram determinant is 1 without vectors


def orient_structure(atoms: Atoms) -> Atoms:
    """Copy a structure with its periodic cell vectors first, along the first Cartesian axes; crystals are not rotated.

    The first periodic vector lies along x, and a second one in the xy plane. Along each other axis, the length of the
    cell is kept if at least 10 Å of it are empty; otherwise, it is set so that 20 Å are empty. The atoms are centred
    along these other axes. Constraints are dropped.

    Raises
    ------
    PropertyError
        If the periodic vectors are zero or linearly dependent.
    """
    copy: Atoms = copy_without_constraints(atoms)
    if copy.pbc.all():
        return copy
    n_periodic = count_periodic(atoms)
    periodic_vectors, other_vectors = (np.array(atoms.cell[mask]).reshape(-1, 3) for mask in (atoms.pbc, ~atoms.pbc))
    axes = _complete_axes(periodic_vectors, other_vectors)
    cell = np.zeros((3, 3))
    if n_periodic:
        cell[:n_periodic] = np.tril(periodic_vectors @ axes.T)  # tril sets rounding errors to zero
    positions = atoms.positions @ axes.T
    extents = np.ptp(positions, axis=0)
    # along each axis without periodicity, the length of the cell is the largest projection of a vector
    lengths = np.abs(other_vectors @ axes.T).max(axis=0)
    for axis in range(n_periodic, 3):
        has_vacuum = lengths[axis] - extents[axis] > MIN_VACUUM_A - 1e-3  # the tolerance is for rounding errors
        cell[axis, axis] = lengths[axis] if has_vacuum else extents[axis] + VACUUM_A
        positions[:, axis] += cell[axis, axis] / 2 - (positions[:, axis].max() + positions[:, axis].min()) / 2
    copy.set_cell(cell)
    copy.positions = positions
    copy.pbc = np.arange(3) < n_periodic
    return copy


def _complete_axes(periodic_vectors: Array, other_vectors: Array) -> Array:
    """Compute orthonormal, right-handed axes, ``(3, 3)`` as rows, by Gram-Schmidt orthogonalisation.

    The first n axes span the n periodic vectors. Other vectors that are zero or depend on earlier ones are skipped, and
    the Cartesian axes replace them.

    Raises
    ------
    PropertyError
        If the periodic vectors are zero or linearly dependent.
    """
    axes: list[Array] = []
    for index, vector in enumerate(chain(periodic_vectors, other_vectors, np.eye(3))):
        orthogonal_part = vector - sum((vector @ axis * axis for axis in axes), np.zeros(3))
        length = float(np.linalg.norm(orthogonal_part))
        # vectors within 1e-3 rad of the span of earlier ones, or shorter than 1e-9 Å, add no direction
        if length > 1e-3 * max(float(np.linalg.norm(vector)), 1e-6):
            axes.append(orthogonal_part / length)
        elif index < len(periodic_vectors):
            raise PropertyError("the periodic cell vectors are zero or linearly dependent")
        if len(axes) == 2:  # the third axis is then determined
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
    """Copy an oriented crystal, sheet or wire and multiply its volume, area or length by `factor`, not its vacuum."""
    n_periodic = count_periodic(atoms)
    axis_scales = np.where(np.arange(3) < n_periodic, float(factor) ** (1 / n_periodic), 1.0)
    copy: Atoms = atoms.copy()
    copy.set_cell(atoms.cell[:] * axis_scales, scale_atoms=True)
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
    n_periodic = count_periodic(atoms)
    # the vectors along the vacuum are at least MIN_VACUUM_A long, and the periodic ones have no component along it
    is_periodic = np.linalg.norm(primitive_vectors[:, n_periodic:], axis=1) < MIN_VACUUM_A / 2
    periodic_vectors = primitive_vectors[is_periodic]
    # lengths are rounded, so that vectors that are equal except for rounding errors keep their order
    order = np.argsort(np.round(np.linalg.norm(periodic_vectors, axis=1), 3), kind="stable")
    cell = np.array(atoms.cell[:])
    cell[:n_periodic] = periodic_vectors[order]
    if n_periodic == 2 and cell[0] @ cell[1] > 0:  # hexagonal cells have an angle of 120°, as in crystals
        cell[1] *= -1
    primitive_cell: Atoms = atoms[representatives]
    primitive_cell.set_cell(cell)
    primitive_cell.wrap()  # only along periodic directions
    return orient_structure(primitive_cell)
