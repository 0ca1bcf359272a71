"""Sums of the features of atoms: of components and, in a quadratic basis, of products of components."""

import numpy as np

from paretofit.core import Array
from paretofit.descriptors.linear_basis import LinearBasis


def sum_features(basis: LinearBasis, B: Array, types: Array) -> Array:
    """Sum the features of all atoms by element; return ``(n_features - n_elements,)`` in nested order.

    The sums do not include the constants. B, ``(N, K)``, contains the components of each atom in the order of
    `basis.component_names`, and `types`, ``(N,)``, LAMMPS's type of each atom, counted from 1.
    """
    sums = []
    for element_type in range(1, len(basis.elements) + 1):
        element_B = B[types == element_type]
        sums.append(element_B.sum(axis=0))
        if basis.has_products:
            sums.append(pack_triangle((element_B.T @ element_B)[None])[0])
    return np.concatenate(sums)[basis.column_order]


def pack_triangle(matrices: Array) -> Array:
    """Pack the upper triangles of symmetric matrices ``(n, K, K)`` row by row, ``(n, K (K + 1) / 2)``.

    Diagonals are halved: the features are B_k B_l for k < l, and B_k²/2.
    """
    K = matrices.shape[1]
    rows, columns = np.triu_indices(K)
    packed_matrices = matrices.reshape(len(matrices), -1)[:, rows * K + columns]
    packed_matrices[:, rows == columns] *= 0.5
    return np.asarray(packed_matrices)
