"""Recognition of training structures by a digest of their geometry.

The digest does not depend on the id, the order of the atoms, the orientation, the origin or the choice of the cell,
because other programs and files change these. It is a hash of rounded sums over pairs of atoms, which are smooth
functions of the positions. After the positions were written with few digits, a sum that is close to a rounding boundary
may be rounded to the other side; the search therefore also tries the digest with this other integer.
"""

from collections.abc import Mapping
from itertools import product

import numpy as np
from ase import Atoms

from paretofit.core import Array, hash_array
from paretofit.dataset.quality import find_pairs

TRAIN, HELD_OUT = "train", "held out"  # roles of the known structures of a potential
CUTOFF_A, MOLECULE_CUTOFF_A = 5.0, 15.0  # cutoffs of pairs, in periodic and in isolated structures
SUM_STEP, LENGTH_STEP = 1e-5, 1e-4  # rounding steps of sums (dimensionless, or Å³ per atom) and of asymmetries
ROUNDING_TOLERANCE = 0.2  # fraction of a step; it covers the precision of positions with six or more decimal places
MAX_AMBIGUOUS_VALUES = 6  # number of sums near a rounding boundary that are rounded to both sides: 2⁶ digests


def hash_structure(atoms: Atoms) -> str:
    """Return the digest of the geometry of a structure, 16 hexadecimal digits."""
    return _hash_integers(atoms, np.rint(_compute_invariants(atoms)))


def find_role(roles: Mapping[str, str], atoms: Atoms) -> str | None:
    """Return the role of a structure, "train" or "held out"; None if the structure is not known.

    `roles` are the roles of the known structures by the digest of `hash_structure`. Of the sums near a rounding
    boundary, the `MAX_AMBIGUOUS_VALUES` closest to it are tried with both integers.
    """
    invariants = _compute_invariants(atoms)
    nearest_integers = np.rint(invariants)
    boundary_distances = 0.5 - np.abs(invariants - nearest_integers)  # distances from the nearest rounding boundary
    ambiguous_positions = np.argsort(boundary_distances)[:MAX_AMBIGUOUS_VALUES]
    ambiguous_positions = ambiguous_positions[boundary_distances[ambiguous_positions] < ROUNDING_TOLERANCE]
    steps = np.where(invariants > nearest_integers, 1, -1)[ambiguous_positions]  # to the second nearest integers
    for is_shifted in product((False, True), repeat=len(ambiguous_positions)):
        integers = nearest_integers.copy()
        integers[ambiguous_positions] += np.array(is_shifted) * steps
        if (role := roles.get(_hash_integers(atoms, integers))) is not None:
            return role
    return None


def _hash_integers(atoms: Atoms, integers: Array) -> str:
    """Hash the atomic numbers, the number of periodic directions and the rounded invariants of a structure."""
    header = [*sorted(atoms.numbers.tolist()), -1, int(atoms.pbc.sum())]  # -1 ends the list of atomic numbers
    return hash_array(np.concatenate([header, integers + 0.0]))[:16]  # + 0.0 turns -0.0 into 0.0


def _compute_invariants(atoms: Atoms) -> Array:
    """Compute sums that do not depend on the description of a structure, in units of their rounding steps.

    The first of the 1 + 4 n_elements numbers is the volume per atom; it is 0 unless the structure is periodic in three
    directions. Four numbers follow for each element: the sums over its atoms i of Σ_j w Z_j, Σ_j w³ Z_j and
    (Σ_j w Z_j)², per atom of the structure, and the root of the sum of |Σ_j w³ r_ij|². This root is linear in the
    displacement of an atom from a symmetric site. The sums over j run over the neighbours of atom i within the cutoff
    r_c, with the weight w(r) = (1 - r²/r_c²)³. Z_j is the atomic number divided by the largest one in the structure, so
    that the sums change if two elements are exchanged.
    """
    cutoff = CUTOFF_A if atoms.pbc.any() else MOLECULE_CUTOFF_A
    i, j, vectors = find_pairs(atoms, cutoff)
    n, w = len(atoms), (1 - (vectors**2).sum(axis=1) / cutoff**2) ** 3
    Z = atoms.numbers / max(int(atoms.numbers.max(initial=1)), 1)
    neighbour_sums, close_neighbour_sums = (np.bincount(i, weights * Z[j], n) for weights in (w, w**3))
    asymmetries = np.stack([np.bincount(i, w**3 * vectors[:, k], n) for k in range(3)], axis=1)
    invariants = [atoms.cell.volume / max(n, 1) / SUM_STEP if atoms.pbc.all() else 0.0]
    for number in np.unique(atoms.numbers):
        mask = atoms.numbers == number
        sums = [neighbour_sums[mask].sum(), close_neighbour_sums[mask].sum(), (neighbour_sums[mask] ** 2).sum()]
        invariants += [*(np.array(sums) / n / SUM_STEP), np.linalg.norm(asymmetries[mask]) / LENGTH_STEP]
    return np.array(invariants)
