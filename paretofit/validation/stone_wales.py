"""Stone-Wales defects: a bond between two three-coordinated atoms of a sheet, a tube or a fullerene, rotated by 90°.

In graphene, the rotation turns four hexagons into two pentagons and two heptagons (Stone and Wales, 1986). No atom is
added or removed, so that the formation energy does not depend on reservoirs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from paretofit.core import Array
from paretofit.validation.environment import are_equivalent, describe_environments

BOND_RATIO = 1.25  # largest ratio of the length of a bond to the sum of the covalent radii
TILT_A = 0.3  # initial displacement of the two atoms along the normal, in opposite directions
# smallest sum of the angles between the three bonds of an atom: 360 in a plane, 348 in C60, 297 in black phosphorus
MIN_ANGLE_SUM_DEG = 330.0


class RotatableBond(NamedTuple):
    """Bond that can be rotated about the normal of the surface on which its atoms lie.

    Attributes
    ----------
    first, second : int
        Indices of the bonded atoms.
    vector : (3,) float64
        Vector from the first to the second atom, Å.
    normal : (3,) float64
        Unit normal of the surface.
    """

    first: int
    second: int
    vector: Array
    normal: Array


def find_rotatable_bonds(atoms: Atoms) -> list[RotatableBond]:
    """Find one bond of each kind between atoms whose three bonds lie nearly in one plane.

    Two bonds are of the same kind if their midpoints have equivalent environments.

    Parameters
    ----------
    atoms : ase.Atoms
        Supercell that is so large that a defect does not touch its periodic images.

    Returns
    -------
    list of RotatableBond
        Empty if the structure has no such bonds.
    """
    cutoff = 2 * BOND_RATIO * float(covalent_radii[atoms.numbers].max())
    first_atoms, second_atoms, distances, vectors = neighbor_list("ijdD", atoms, cutoff)
    radii = covalent_radii[atoms.numbers]
    is_bond = distances < BOND_RATIO * (radii[first_atoms] + radii[second_atoms])
    first_atoms, second_atoms, vectors = first_atoms[is_bond], second_atoms[is_bond], vectors[is_bond]
    order = np.argsort(first_atoms, kind="stable")  # puts the bonds of an atom next to each other
    first_atoms, second_atoms, vectors = first_atoms[order], second_atoms[order], vectors[order]
    bond_counts = np.bincount(first_atoms, minlength=len(atoms))
    offsets = np.concatenate([[0], np.cumsum(bond_counts)])
    normals = {}
    for atom in np.flatnonzero(bond_counts == 3).tolist():
        normal = _compute_normal(vectors[offsets[atom] : offsets[atom + 1]])
        if normal is not None:
            normals[atom] = normal
    bonds = []
    for first, second, vector in zip(first_atoms.tolist(), second_atoms.tolist(), vectors, strict=True):
        if first < second and first in normals and second in normals:
            # the normals of the two atoms may point to opposite sides of the surface
            normal = normals[first] + np.sign(normals[first] @ normals[second]) * normals[second]
            bonds.append(RotatableBond(first, second, vector, normal / np.linalg.norm(normal)))
    return _drop_equivalent_bonds(atoms, bonds)


def rotate_bond(atoms: Atoms, bond: RotatableBond) -> Atoms:
    """Copy a structure and rotate a bond by 90° about its middle, in the plane perpendicular to the normal.

    The bond is also tilted, because the flat defect is a saddle point: graphene lowers its energy by moving the two
    atoms to opposite sides of the sheet (Ma et al., Phys. Rev. B 80, 033407, 2009); with AIREBO, by 1 eV in a cell of
    12 Å.
    """
    midpoint = atoms.positions[bond.first] + bond.vector / 2
    rotated_vector = np.cross(bond.normal, bond.vector)
    rotated_vector *= np.linalg.norm(bond.vector) / np.linalg.norm(rotated_vector)
    copy: Atoms = atoms.copy()
    copy.positions[[bond.first, bond.second]] = midpoint + np.outer(
        [-0.5, 0.5], rotated_vector + 2 * TILT_A * bond.normal
    )
    return copy


def _compute_normal(vectors: Array) -> Array | None:
    """Compute the unit normal of the plane of three bond vectors (3, 3), Å; None if they are far from a plane."""
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = [directions[0] @ directions[1], directions[1] @ directions[2], directions[2] @ directions[0]]
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))  # rounding errors may exceed 1
    if angles.sum() < MIN_ANGLE_SUM_DEG:
        return None
    normal = np.cross(directions[1] - directions[0], directions[2] - directions[0])
    return np.asarray(normal / np.linalg.norm(normal))


def _drop_equivalent_bonds(atoms: Atoms, bonds: Sequence[RotatableBond]) -> list[RotatableBond]:
    """Return the bonds whose midpoint has a different environment from the midpoints of all earlier bonds."""
    # "X" has the atomic number 0, see `describe_environments`
    probes = Atoms("X" * len(bonds), [atoms.positions[bond.first] + bond.vector / 2 for bond in bonds])
    environments = describe_environments(atoms + probes)[len(atoms) :]
    distinct_indices: list[int] = []
    for bond_index, environment in enumerate(environments):
        if not any(are_equivalent(environments[index], environment) for index in distinct_indices):
            distinct_indices.append(bond_index)
    return [bonds[index] for index in distinct_indices]
