"""Cholesky factor of Gram matrices, whose leading blocks are the factors of all smaller models."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from paretofit.core import Array
from paretofit.linear.factor import compute_column_scales, estimate_reciprocal_condition
from paretofit.linear.reduction import linalg
from paretofit.linear.reduction.linalg import to_numpy


@dataclass(frozen=True)
class NestedFactor:
    """Cholesky factor RᵀR of weighted moments; its leading blocks are the factors of all smaller models.

    Attributes
    ----------
    R : (P, P) float64
        Upper triangular; valid up to `valid_size` rows and columns.
    valid_size : int
        Size of the largest leading block that is positive definite.
    """

    R: Any
    valid_size: int

    @classmethod
    def from_moments(cls, M: Any) -> "NestedFactor":
        """Factorise M (upper triangle; overwritten)."""
        return cls(*linalg.factorise_cholesky(M))

    @cached_property
    def _R_on_cpu(self) -> Array:
        return to_numpy(self.R)

    def estimate_condition(self, p: int) -> float:
        """Estimate the condition number of the leading p × p block of M in the 1-norm, its diagonal scaled to one.

        The scale of the columns does not affect the accuracy of Cholesky, so the estimate does not include it (A. van
        der Sluis, Numer. Math. 14, 14 (1969)).
        """
        if p > self.valid_size:
            return float("inf")
        R = self._R_on_cpu[:p, :p]
        reciprocal = estimate_reciprocal_condition(R / compute_column_scales(R))
        return float(1.0 / reciprocal**2) if reciprocal > 0 else float("inf")

    def solve(self, c: Any) -> Any:
        """Compute M_pp⁻¹ c for right-hand sides c, ``(p, n)``."""
        p = len(c)
        return linalg.solve_factored(self.R[:p, :p], c)
