"""Cholesky factor of whitened moments, from which a committee member is computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from paretofit.core import Array
from paretofit.linear import compute_column_scales, estimate_reciprocal_condition


@dataclass(frozen=True)
class MomentFactor:
    """Cholesky factor M = RᵀR of whitened moments.

    Attributes
    ----------
    R : (P, P) float64
        Upper triangular; valid only if M is positive definite.
    is_positive_definite : bool
        Whether M is positive definite.
    """

    R: Array
    is_positive_definite: bool

    @classmethod
    def from_moments(cls, M: Array) -> MomentFactor:
        """Factorise the symmetric matrix M, ``(P, P)``, whose upper triangle is given in Fortran order.

        M is overwritten.
        """
        R, status = lapack.dpotrf(M, lower=0, clean=1, overwrite_a=1)
        return cls(R, status == 0)

    def estimate_condition(self) -> float:
        """Estimate the 1-norm condition number of M, scaled to a unit diagonal; ∞ if M is not positive definite."""
        if not self.is_positive_definite:
            return float("inf")
        reciprocal_condition = estimate_reciprocal_condition(self.R / compute_column_scales(self.R))
        # squared, because the condition number of M = RᵀR is about the square of that of R
        return 1.0 / reciprocal_condition**2 if reciprocal_condition > 0 else float("inf")

    def solve(self, c: Array) -> Array:
        """Compute M⁻¹c, ``(P,)``, for a vector c, ``(P,)``; M must be positive definite."""
        return np.asarray(scipy.linalg.cho_solve((self.R, False), c, check_finite=False))
