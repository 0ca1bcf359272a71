"""One orthogonal factorisation, with the numerical rank decided by singular values.

A tall matrix A = Q R and a wide one A = Rᵀ Qᵀ both leave a triangular matrix of the smaller dimension. If
its condition number, estimated in the 1-norm, leaves no doubt about full rank, a triangular solve is all
that is needed; otherwise its singular values decide, and give the minimum-norm solution.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class TriangularFactor:
    """A triangular matrix T and, where its rank is in doubt, its singular value decomposition.

    Attributes
    ----------
    T : (k, k) float64
        Upper triangular.
    rank : int
    condition : float
        The estimate of the 1-norm condition number if `svd` is None; else the ratio of the largest to
        the smallest singular value kept.
    svd : tuple of arrays or None
        U (k, rank), s (rank,), Vᵀ (rank, k).
    """

    T: Array
    rank: int
    condition: float
    svd: tuple[Array, Array, Array] | None

    @classmethod
    def of(cls, T: Array, tolerance: float) -> "TriangularFactor":
        """Decide the rank of T; singular values below ``tolerance * largest`` count as zero."""
        reciprocal, _ = lapack.dtrcon(T, norm="1", uplo="U")
        if reciprocal > tolerance:
            return cls(T, len(T), 1.0 / reciprocal, None)
        U, s, Vt = _svd(T)
        rank = int((s > tolerance * s[0]).sum()) if s.size else 0
        condition = float(s[0] / s[rank - 1]) if rank else float("inf")
        return cls(T, rank, condition, (U[:, :rank], s[:rank], Vt[:rank]))

    def solve(self, rhs: Array, *, transposed: bool = False) -> Array:
        """Minimum-norm least-squares solution of T x = rhs, or Tᵀ x = rhs."""
        if self.svd is None:
            solution = scipy.linalg.solve_triangular(self.T, rhs, trans=int(transposed), check_finite=False)
        else:
            U, s, Vt = self.svd
            left, right = (Vt.T, U.T) if transposed else (U, Vt)
            solution = right.T @ ((left.T @ rhs) / s[:, None])
        return np.asarray(solution)


def _svd(T: Array) -> tuple[Array, Array, Array]:
    """Singular value decomposition of T made upper triangular; divide and conquer can fail to converge."""
    try:
        U, s, Vt = scipy.linalg.svd(np.triu(T), check_finite=False)
    except scipy.linalg.LinAlgError:
        U, s, Vt = scipy.linalg.svd(np.triu(T), check_finite=False, lapack_driver="gesvd")
    return U, s, Vt


def column_scales(A: Array) -> Array:
    """``(p,)``: Euclidean norms of the columns; 1 for a column of zeros."""
    scale = np.sqrt(np.einsum("ij,ij->j", A, A))
    scale[scale == 0] = 1.0
    return np.asarray(scale)


def rank_tolerance(shape: tuple[int, ...]) -> float:
    """Singular values smaller than this times the largest are rounding errors: max(n, p) times epsilon."""
    return float(max(shape) * np.finfo(np.float64).eps)
