"""Inside, at the edge, or outside of what a linear model was trained on: leverage and the D-optimality grade.

Leverage h = x (XᵀX)⁻¹ xᵀ is below 1 for every training row, and says by how much a prediction may move for a unit of
error in all labels. The grade γ = max |x A⁻¹| is over an active set A of training rows with the largest determinant: a
row with γ ≤ 1 is a combination of active rows with coefficients of at most 1 (interpolation), γ > 1 extrapolates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from paretofit.errors import InputError
from paretofit.linear.factor import column_scales

if TYPE_CHECKING:
    from paretofit.linear.factor import Array

TOLERANCE = 1e-3  # rows are exchanged while that makes the determinant larger by more than this share
INDEPENDENT = 1e-10  # of the largest pivot: below, a column depends on others
BESIDE = 1e-7  # of a row's norm that may lie beside what the training set spans
EDGE, OUTSIDE = 1.0, 2.0  # grades from which a configuration is at the edge, and outside


@dataclass(frozen=True)
class TrainingLeverage:
    """Leverage with respect to weighted training rows, for any other row.

    Attributes
    ----------
    kept : (P,) int64
        Columns that the leverage is of.
    R : (P, P) float64
        Triangular factor of the weighted rows.
    """

    kept: Array
    R: Array

    @classmethod
    def of(cls, rows: Array, weights: Array | None = None) -> TrainingLeverage:
        """Factorise the training rows ``(n, p)``, each multiplied by its weight.

        Raises
        ------
        InputError
            If they do not determine all columns: leverage is then infinite in some direction.
        """
        weighted = rows if weights is None else rows * weights[:, None]
        scale = column_scales(weighted)
        R = scipy.linalg.qr(weighted / scale, mode="r", check_finite=False)[0][: rows.shape[1]]
        pivots = np.abs(np.diag(R))
        if len(rows) < rows.shape[1] or pivots.min() < INDEPENDENT * pivots.max():
            raise InputError(
                f"{len(rows)} rows do not determine {rows.shape[1]} columns; take a smaller 2Jmax for the grade"
            )
        return cls(np.arange(rows.shape[1]), R * scale)

    def __call__(self, rows: Array, weights: Array | None = None) -> Array:
        """``(m,)``: leverages of other rows ``(m, p)``, each with the weight that it would have."""
        weighted = rows if weights is None else rows * weights[:, None]
        half = scipy.linalg.solve_triangular(self.R, weighted[:, self.kept].T, trans="T", check_finite=False)
        return np.asarray(np.einsum("ij,ij->j", half, half))


@dataclass(frozen=True)
class ActiveSet:
    """Training rows of (locally) largest determinant.

    Attributes
    ----------
    members : (p,) int64
        Which training rows.
    inverse : (p, p) float64
        A⁻¹.
    """

    members: Array
    inverse: Array

    @classmethod
    def of(cls, rows: Array) -> ActiveSet:
        """Choose by MaxVol among the rows ``(n, p)`` of the training set.

        Raises
        ------
        InputError
            If they have fewer than p independent ones.

        Notes
        -----
        S. A. Goreinov et al., "How to find a good submatrix" (2010); grades after E. V. Podryabinkin and A. V.
        Shapeev, Comput. Mater. Sci. 140, 171 (2017).
        """
        n, p = rows.shape
        if n < p:
            raise InputError(f"an active set of {p} columns needs as many rows; there are {n}")
        triangle, order = scipy.linalg.qr(rows.T, mode="r", pivoting=True, check_finite=False)
        pivots = np.abs(np.diag(triangle))
        if len(pivots) < p or pivots[p - 1] < INDEPENDENT * pivots[0]:
            raise InputError(f"the rows are not enough for an active set: {p} columns are not independent in them")
        members = np.array(order[:p])
        B = scipy.linalg.solve(rows[members].T, rows.T, check_finite=False).T
        while True:
            i, j = np.unravel_index(int(np.argmax(np.abs(B))), B.shape)
            if abs(B[i, j]) <= 1 + TOLERANCE:
                break
            step = B[i].copy()
            step[j] -= 1.0
            B -= np.outer(B[:, j], step / B[i, j])
            members[j] = i
        return cls(members, np.linalg.inv(rows[members]))

    def grade(self, rows: Array) -> Array:
        """``(m,)``: γ of other rows ``(m, p)``; at most about 1 for every training row."""
        return np.asarray(np.abs(rows @ self.inverse).max(axis=1))


@dataclass(frozen=True)
class EnvironmentGrade:
    """Grades of atoms by their descriptors, whatever the rank of the training set's.

    A row is a constant and the descriptors of an atom, in units of the training set's root mean square. Directions in
    which the training set has nothing are kept apart: an atom that has something there is infinitely far outside.

    Attributes
    ----------
    scale : (1 + K,) float64
    axes : (1 + K, r) float64
        Orthonormal; what the training set spans.
    inverse : (r, r) float64
        A⁻¹ of the active set in these axes.
    """

    scale: Array
    axes: Array
    inverse: Array

    @classmethod
    def of(cls, descriptors: Array) -> EnvironmentGrade:
        """Choose the active set among the atoms ``(n, K)`` of the training set."""
        rows = _with_constant(descriptors)
        scale = column_scales(rows) / np.sqrt(len(rows))
        rows = rows / scale
        _, R = np.linalg.qr(rows)
        _, values, axes = np.linalg.svd(R)
        spanned = axes[: len(values)][values > INDEPENDENT * values[0]].T
        return cls(scale, spanned, ActiveSet.of(rows @ spanned).inverse)

    def __call__(self, descriptors: Array) -> Array:
        """``(m,)``: γ of other atoms ``(m, K)``."""
        rows = _with_constant(descriptors) / self.scale
        along = rows @ self.axes
        grade = np.abs(along @ self.inverse).max(axis=1)
        beside = np.linalg.norm(rows - along @ self.axes.T, axis=1)
        grade[beside > BESIDE * np.linalg.norm(rows, axis=1)] = np.inf
        return np.asarray(grade)


def _with_constant(descriptors: Array) -> Array:
    return np.hstack([np.ones((len(descriptors), 1)), descriptors])


def verdict(grade: float) -> str:
    """``"inside"``, ``"at the edge"`` or ``"outside"``."""
    if grade <= EDGE:
        return "inside"
    return "at the edge" if grade <= OUTSIDE else "outside"
