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
        Upper triangular.
    is_complete : bool
        Whether M is positive definite.
    """

    R: Array
    is_complete: bool

    @classmethod
    def from_moments(cls, M: Array) -> MomentFactor:
        """Factorise M (upper triangle in Fortran order; overwritten)."""
        R, status = lapack.dpotrf(M, lower=0, clean=1, overwrite_a=1)
        return cls(R, status == 0)

    def estimate_condition(self) -> float:
        """Estimate the 1-norm condition number of M, scaled to a unit diagonal; ∞ if M is not positive definite."""
        reciprocal = estimate_reciprocal_condition(self.R / compute_column_scales(self.R)) if self.is_complete else 0.0
        # squared, because M = RᵀR has about the square of the condition number of R
        return 1.0 / reciprocal**2 if reciprocal > 0 else float("inf")

    def solve(self, c: Array) -> Array:
        """Compute M⁻¹ c, ``(P,)``."""
        return np.asarray(scipy.linalg.cho_solve((self.R, False), c, check_finite=False))
