"""Rank-revealing orthogonal factorisation that uses pivoting only if the rank is in doubt.

The factorisation of a tall matrix A = Q R or of a wide matrix A = Rᵀ Qᵀ leads to a triangular matrix of the smaller
dimension. If its condition number, estimated in the 1-norm, shows full rank, a triangular solve is sufficient.
Otherwise QR with column pivoting reveals the rank, and a second QR completes the orthogonal decomposition, which gives
the minimum-norm solution (Golub and Van Loan, Matrix Computations, section 5.5; LAPACK's gelsy). At 1,500 columns this
method is seven times faster than a singular value decomposition.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from paretofit.core import Array

FACTOR, RANK_REVEALING = "factor", "rank-revealing"  # names of solvers in results, from `name_solver`


@dataclass(frozen=True)
class TriangularFactor:
    """Triangular matrix T and, if its rank is in doubt, its decomposition T = U Sᵀ Vᵀ with S triangular of full rank.

    Attributes
    ----------
    T : (k, k) float64
        Upper triangular.
    rank : int
        Numerical rank.
    condition : float
        1-norm estimate of the condition number of T, or of S if T is decomposed; infinite if the rank is zero.
    complete_decomposition : tuple of arrays or None
        U (k, rank), S (rank, rank) upper triangular, V (k, rank); U and V have orthonormal columns.
    """

    T: Array
    rank: int
    condition: float
    complete_decomposition: tuple[Array, Array, Array] | None

    @classmethod
    def from_triangle(cls, T: Array, tolerance: float) -> "TriangularFactor":
        """Determine the rank of an upper triangular T, and decompose T if its rank is in doubt.

        T has full rank if its reciprocal condition number exceeds `tolerance`. Otherwise, pivots of QR with column
        pivoting count as zero below `tolerance` times the largest pivot.
        """
        reciprocal = estimate_reciprocal_condition(T)
        if reciprocal > tolerance:
            return cls(T, len(T), 1.0 / reciprocal, None)
        Q, R, order = scipy.linalg.qr(np.triu(T), pivoting=True, check_finite=False)
        pivots = np.abs(np.diag(R))
        rank = int((pivots > tolerance * pivots[0]).sum())
        Z, S = scipy.linalg.qr(R[:rank].T, mode="economic", check_finite=False)
        V = np.empty_like(Z)
        V[order] = Z
        reciprocal = estimate_reciprocal_condition(S) if rank else 0.0
        condition = 1.0 / reciprocal if reciprocal > 0 else float("inf")
        return cls(T, rank, condition, (Q[:, :rank], S, V))

    def solve(self, rhs: Array, *, transposed: bool = False) -> Array:
        """Compute the minimum-norm least-squares solution x of T x = rhs, or of Tᵀ x = rhs; both are ``(k, m)``."""
        if self.complete_decomposition is None:
            return np.asarray(scipy.linalg.solve_triangular(self.T, rhs, trans=int(transposed), check_finite=False))
        if self.rank == 0:
            return np.zeros((len(self.T), rhs.shape[1]))
        U, S, V = self.complete_decomposition
        rhs_basis, x_basis = (V, U) if transposed else (U, V)
        reduced_x = scipy.linalg.solve_triangular(S, rhs_basis.T @ rhs, trans=int(not transposed), check_finite=False)
        return np.asarray(x_basis @ reduced_x)


def estimate_reciprocal_condition(R: Array) -> float:
    """Estimate 1 / condition number of an upper triangular matrix in the 1-norm; 0 if the matrix is singular.

    The estimate is rounded to six digits, because the last digits of LAPACK's sums depend on the address of its work
    array in memory.
    """
    return float(f"{lapack.dtrcon(np.asfortranarray(R), norm='1', uplo='U')[0]:.6g}")  # [0]: without LAPACK's status


def compute_column_scales(A: Array) -> Array:
    """Compute the Euclidean norms of the columns, ``(p,)``; 1 for a column of zeros."""
    scale = np.sqrt(np.einsum("ij,ij->j", A, A))
    scale[scale == 0] = 1.0
    return np.asarray(scale)


def name_solver(rank: int, n_columns: int) -> str:
    """Return the name of the solver of a fit: "factor", or "rank-revealing" if the rank is below the columns."""
    return FACTOR if rank == n_columns else RANK_REVEALING


def compute_rank_tolerance(shape: tuple[int, ...]) -> float:
    """Compute the relative size below which pivots of a matrix are rounding errors: max(n, p) times epsilon."""
    return float(max(shape) * np.finfo(np.float64).eps)
