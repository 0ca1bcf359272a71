"""Condition numbers of triangular factors, and fits of deficient rank, without column pivoting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import LinearOperator, eigsh, onenormest

from paretofit.core import Array
from paretofit.linear.factor import compute_column_scales, compute_rank_tolerance, estimate_reciprocal_condition
from paretofit.linear.reduction import native

N_SPARE_VECTORS = 16  # vectors of the iteration in addition to the expected number of null vectors
N_ITERATIONS = 2  # steps of inverse iteration; few suffice, because the null singular values are tiny
MAX_NULL_PIVOT = 1e3  # pivot in units of the tolerance; each smaller diagonal element suggests a null vector


def estimate_condition(triangles: Sequence[Array], scale: Array) -> float:
    """Estimate the condition number of T = R₁ R₂ … D⁻¹ in the 1-norm; infinite if a factor is singular.

    Parameters
    ----------
    triangles : sequence of (P, P) float64
        Upper triangular R₁, R₂, … in Fortran order, of which the leading p × p blocks are used.
    scale : (p,) float64
        Diagonal of D.
    """
    p = len(scale)
    if any((np.diag(R)[:p] == 0).any() for R in triangles):
        return float("inf")

    def multiply(x: Array, *, inverse: bool, transposed: bool) -> Array:
        # D comes first in T x and T⁻ᵀ x, and last in Tᵀ x and T⁻¹ x; the triangles are in reverse order in the former.
        y, is_scaled_first = x.ravel(), inverse == transposed
        factor = scale if inverse else 1 / scale
        y = y * factor if is_scaled_first else y
        for R in reversed(triangles) if is_scaled_first else triangles:
            y = native.apply_triangle(R, y, inverse=inverse, transposed=transposed)
        return np.asarray(y if is_scaled_first else y * factor)

    norms = [
        onenormest(
            LinearOperator(
                (p, p),
                matvec=lambda x, k=inverse: multiply(x, inverse=k, transposed=False),
                rmatvec=lambda x, k=inverse: multiply(x, inverse=k, transposed=True),
                dtype=np.float64,
            ),
            t=1,  # with more vectors, the estimate would begin with random ones
        )
        for inverse in (False, True)
    ]
    condition = float(norms[0] * norms[1])
    return condition if np.isfinite(condition) else float("inf")


def estimate_gram_condition(R: Array) -> float:
    """Estimate the condition number of RᵀR in the 2-norm, its diagonal scaled to one; infinite if it is singular.

    The scale of the columns does not affect the accuracy of Cholesky, so the estimate does not include it (A. van der
    Sluis, Numer. Math. 14, 14 (1969)).

    Parameters
    ----------
    R : (p, p) float64
        Upper triangular.
    """
    R, scale, p = np.asfortranarray(R), compute_column_scales(R), len(R)
    if (np.diag(R) == 0).any():
        return float("inf")
    if p <= 1:
        return 1.0

    def multiply(x: Array, *, inverse: bool) -> Array:
        factor = scale if inverse else 1 / scale
        y = native.apply_triangle(R, x.ravel() * factor, inverse=inverse, transposed=inverse)
        return np.asarray(native.apply_triangle(R, y, inverse=inverse, transposed=not inverse) * factor)

    norms = [
        eigsh(
            LinearOperator((p, p), matvec=lambda x, k=inverse: multiply(x, inverse=k), dtype=np.float64),
            k=1, v0=np.ones(p), tol=0.01, return_eigenvectors=False,
        )[0]
        for inverse in (False, True)
    ]  # fmt: skip
    condition = float(f"{norms[0] * norms[1]:.3g}")  # without the last digits, which depend on addresses in memory
    return condition if np.isfinite(condition) else float("inf")


def invert_reciprocal_condition(reciprocal: float) -> float:
    """Return the condition number for a reciprocal condition number; infinite for zero."""
    return 1 / reciprocal if reciprocal > 0 else float("inf")


def compute_null_vectors(T: Array, tolerance: float) -> Array:
    """Compute orthonormal right singular vectors of T ``(p, p)`` whose singular values are at most `tolerance`.

    Parameters
    ----------
    T : (p, p) float64
        Upper triangular.
    tolerance : float
        In the units of T.

    Returns
    -------
    (p, n_null) float64
        Without columns if T has full rank.

    Notes
    -----
    Inverse iteration with a block of vectors; the block is enlarged until it contains all null vectors. Because
    singular values that are zero to rounding are tiny compared with the others, a few steps suffice, each as cheap as a
    solve, whereas a QR decomposition with column pivoting takes seconds at 1,500 columns. The triangle of [δ 1; T], δ
    being the tolerance, has the same right singular vectors as T, and its inverse does not overflow.
    """
    p = len(T)
    size = N_SPARE_VECTORS + int((np.abs(np.diag(T)) <= MAX_NULL_PIVOT * tolerance).sum())
    shifted = np.asfortranarray(tolerance * np.eye(p))
    native.update_qr(shifted, T, p)
    while True:
        size = min(size, p)
        vectors = np.random.default_rng(0).normal(size=(p, size))
        for _ in range(N_ITERATIONS):
            transposed_solution = scipy.linalg.solve_triangular(shifted, vectors, trans=1, check_finite=False)
            vectors = np.linalg.qr(scipy.linalg.solve_triangular(shifted, transposed_solution, check_finite=False))[0]
        projection = np.zeros((size, size), order="F")
        native.update_qr(projection, np.triu(T) @ vectors)
        values, Vt = np.linalg.svd(np.triu(projection))[1:]
        is_null = values <= tolerance
        if size == p or not is_null.all():
            return np.asarray(vectors @ Vt[is_null].T)
        size *= 4


@dataclass(frozen=True)
class MinimumNormFactor:
    """Factor of rows X ``(n, p)`` of any rank, for fits of minimum norm in scaled columns at any weights.

    With Aᵀ = Q T for A = X D⁻¹, the null vectors N of T are the combinations of rows that vanish, so that a fit can
    reproduce exactly the targets f with Nᵀf = 0. The f that is closest to given targets y at weights W is
    f = y − W⁻²N (NᵀW⁻²N)⁻¹ Nᵀy. With [T; Nᵀ] = [Z; Z'] S, the coefficients of minimum norm are D⁻¹Q Z S⁻ᵀ f. Only f
    depends on the weights, and only if rows are dependent.

    Attributes
    ----------
    scale : (p,) float64
        Diagonal of D.
    null_vectors : (n, n - rank) float64
        N.
    S : (n, n) float64
        Upper triangular.
    Q, Z : Reflectors
        Of the two decompositions.
    """

    scale: Array
    null_vectors: Array
    S: Array
    Q: native.Reflectors
    Z: native.Reflectors

    @classmethod
    def from_rows(cls, X: Array, scale: Array, null_vectors: Array | None = None) -> MinimumNormFactor:
        """Factorise the rows X with columns divided by `scale`; `null_vectors` found at another scale can be reused."""
        A = X / scale
        S = np.zeros((len(A),) * 2, order="F")
        Q = native.update_qr(S, A.T)
        if null_vectors is None:
            tolerance = compute_rank_tolerance(A.shape) * float(compute_column_scales(A.T).max())
            null_vectors = compute_null_vectors(S, tolerance)
        return cls(scale, null_vectors, S, Q, native.update_qr(S, null_vectors.T))

    @property
    def rank(self) -> int:
        """Numerical rank of A."""
        return len(self.S) - int(self.null_vectors.shape[1])

    @property
    def condition(self) -> float:
        """Condition number of the independent rows, estimated in the 1-norm."""
        return invert_reciprocal_condition(estimate_reciprocal_condition(self.S))

    def solve(self, Y: Array, weights: Array) -> Array:
        """Compute coefficients ``(p, n_targets)`` for targets ``(n, n_targets)`` and row weights ``(n,)``."""
        N, f = self.null_vectors, Y
        if N.size:
            scaled_null_vectors = N / weights[:, None] ** 2
            f = Y - scaled_null_vectors @ scipy.linalg.solve(
                N.T @ scaled_null_vectors, N.T @ Y, assume_a="pos", check_finite=False
            )
        x = scipy.linalg.solve_triangular(self.S, f, trans=1, check_finite=False)
        z = native.apply_reflectors(self.Z, x)[0]  # Z x
        # Q was computed from [0; Aᵀ], so that the second block belongs to the rows of Aᵀ.
        return np.asarray(native.apply_reflectors(self.Q, z)[1] / self.scale[:, None])
