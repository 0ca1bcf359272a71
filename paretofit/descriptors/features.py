"""Features of atoms: components and, in a quadratic basis, their products; their sums over the atoms of an element."""

import numpy as np

from paretofit.core import Array
from paretofit.descriptors.linear_basis import LinearBasis


def sum_features(basis: LinearBasis, B: Array, types: Array) -> Array:
    """Sum the features of all atoms by element, ``(n_features - n_elements,)`` in nested order."""
    sums = []
    for element in range(1, len(basis.elements) + 1):
        element_B = B[types == element]
        sums.append(element_B.sum(axis=0))
        if basis.has_products:
            sums.append(pack_triangle((element_B.T @ element_B)[None])[0])
    return np.concatenate(sums)[basis.column_order]


def pack_triangle(matrices: Array) -> Array:
    """Pack the upper triangles of ``(n, K, K)`` symmetric matrices row by row, with halved diagonals."""
    K = matrices.shape[1]
    rows, columns = np.triu_indices(K)
    packed_matrices = matrices.reshape(len(matrices), -1)[:, rows * K + columns]
    packed_matrices[:, rows == columns] *= 0.5
    return np.asarray(packed_matrices)
