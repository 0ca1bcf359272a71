"""Condition numbers and null spaces of triangular factors without a decomposition of their rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import LinearOperator, onenormest

from paretofit.core import Array
from paretofit.linear.reduction import native

FIRST_BLOCK, N_ITERATIONS = 32, 3  # null vectors that are sought at first, and steps of the inverse iteration


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

    def apply(x: Array, *, inverse: bool, transposed: bool) -> Array:
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
                matvec=lambda x, k=inverse: apply(x, inverse=k, transposed=False),
                rmatvec=lambda x, k=inverse: apply(x, inverse=k, transposed=True),
                dtype=np.float64,
            ),
            t=1,
        )
        for inverse in (False, True)
    ]
    condition = float(norms[0] * norms[1])
    return condition if np.isfinite(condition) else float("inf")


def compute_null_vectors(T: Array, tolerance: float) -> Array:
    """Compute orthonormal right singular vectors of T ``(p, p)`` whose singular values are at most `tolerance`.

    Parameters
    ----------
    T : (p, p) float64
        Upper triangular, with columns of about unit norm.
    tolerance : float

    Returns
    -------
    (p, k) float64

    Notes
    -----
    Inverse iteration with a block of vectors, which is enlarged until it contains all of them. Because singular values
    that are zero to rounding are tiny compared with the others, a few steps suffice, each as cheap as a solve, whereas
    a QR decomposition with column pivoting takes seconds at 1,500 columns. The triangle of [δ 1; T], with δ equal to
    the tolerance, has the same singular vectors as T, and its inverse does not overflow.
    """
    p, size = len(T), FIRST_BLOCK
    shifted = np.asfortranarray(tolerance * np.eye(p))
    native.update_qr(shifted, T, p)
    while True:
        size = min(size, p)
        vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(p, size)))[0]
        for _ in range(N_ITERATIONS):
            half = scipy.linalg.solve_triangular(shifted, vectors, trans=1, check_finite=False)
            vectors = np.linalg.qr(scipy.linalg.solve_triangular(shifted, half, check_finite=False))[0]
        values, Vt = np.linalg.svd(np.triu(T) @ vectors, full_matrices=False)[1:]
        is_null = values <= tolerance
        if size == p or not is_null.all():
            return np.asarray(vectors @ Vt[is_null].T)
        size *= 4
