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
from scipy.linalg import blas, lapack

from paretofit.core import InputError
from paretofit.linear import column_scales

if TYPE_CHECKING:
    from paretofit.core import Array

MAXVOL_TOLERANCE = 1e-3  # rows are exchanged while that makes the determinant larger by more than this share
INDEPENDENT = 1e-10  # of the largest pivot: below, a column depends on others
BLOCK = 4096  # rows that are worked on at once
FIRST = 3  # times the number of columns: rows that are tried for the active set at once
BESIDE = 1e-7  # of a row's norm that may lie beside what the training set spans
EXTRAPOLATION_GRADE, STRONG_EXTRAPOLATION_GRADE = (
    1 + 2 * MAXVOL_TOLERANCE,
    2.0,
)  # grades from which a configuration is at the edge, and outside


@dataclass(frozen=True)
class TrainingLeverage:
    """Leverage with respect to weighted training rows, for any other row.

    Attributes
    ----------
    retained_columns : (P,) int64
        Columns that the leverage is of.
    R : (P, P) float64
        Triangular factor of the weighted rows.
    """

    retained_columns: Array
    R: Array

    @classmethod
    def from_rows(cls, rows: Array, weights: Array | None = None) -> TrainingLeverage:
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
        if len(rows) < rows.shape[1] or not pivots.min() > INDEPENDENT * pivots.max():
            raise InputError(
                f"{len(rows)} rows do not determine {rows.shape[1]} columns; take a smaller 2Jmax for the grade"
            )
        return cls(np.arange(rows.shape[1]), R * scale)

    def restrict_columns(self, p: int) -> TrainingLeverage:
        """The same for the model of the first `p` columns."""
        size = int(np.searchsorted(self.retained_columns, p))
        return TrainingLeverage(self.retained_columns[:size], self.R[:size, :size])

    def __call__(self, rows: Array, weights: Array | None = None) -> Array:
        """``(m,)``: leverages of other rows ``(m, p)``, each with the weight that it would have."""
        weighted = rows if weights is None else rows * weights[:, None]
        half = scipy.linalg.solve_triangular(
            self.R, weighted[:, self.retained_columns].T, trans="T", check_finite=False
        )
        return np.asarray(np.einsum("ij,ij->j", half, half))


@dataclass(frozen=True)
class ActiveSet:
    """Training rows of (locally) largest determinant.

    Attributes
    ----------
    row_indices : (p,) int64
        Which training rows.
    inverse : (p, p) float64
        A⁻¹.
    """

    row_indices: Array
    inverse: Array

    @classmethod
    def from_rows(cls, rows: Array, initial_rows: Array | None = None) -> ActiveSet:
        """Choose by MaxVol among the rows ``(n, p)`` of the training set, from p of them if `initial_rows` says which.

        Raises
        ------
        InputError
            If they have fewer than p independent ones.

        Notes
        -----
        S. A. Goreinov et al., "How to find a good submatrix" (2010); grades after E. V. Podryabinkin and A. V.
        Shapeev, Comput. Mater. Sci. 140, 171 (2017).
        """
        members = _independent(rows) if initial_rows is None else np.array(initial_rows)
        B = np.ascontiguousarray(scipy.linalg.solve(rows[members].T, rows.T, check_finite=False).T)
        while True:
            i, j = np.unravel_index(int(np.argmax(np.abs(B))), B.shape)
            if abs(B[i, j]) <= 1 + MAXVOL_TOLERANCE:
                break
            step = B[i].copy()
            step[j] -= 1.0
            blas.dger(-1.0 / B[i, j], step, B[:, j].copy(), a=B.T, overwrite_a=1)
            members[j] = i
        return cls(members, np.linalg.inv(rows[members]))

    def grade(self, rows: Array) -> Array:
        """``(m,)``: γ of other rows ``(m, p)``; at most about 1 for every training row."""
        return np.asarray(np.abs(rows @ self.inverse).max(axis=1))


def _independent(rows: Array) -> Array:
    """As many independent rows as there are columns, by Gaussian elimination with row pivoting."""
    n, p = rows.shape
    if n < p:
        raise InputError(f"an active set of {p} columns needs as many rows; there are {n}")
    factor, pivots, info = lapack.dgetrf(rows)
    size = np.abs(np.diag(factor))
    if info > 0 or size.min() < INDEPENDENT * size.max():
        raise InputError(f"the rows are not enough for an active set: {p} columns are not independent in them")
    order = np.arange(n)
    for k, other in enumerate(pivots):
        order[[k, other]] = order[[other, k]]
    return order[:p]


@dataclass(frozen=True)
class EnvironmentGrade:
    """Grades of atoms by what the model sees of them, whatever the rank of the training set.

    A row holds a constant, the descriptors of an atom and, of a quadratic model, their products. Directions in which
    the training set has nothing are kept apart: an atom that has something there is infinitely far outside.

    Attributes
    ----------
    quadratic : bool
    scale : (p,) float64
        Root mean square of each column.
    coefficient_map : (p, r) float64
        Takes a scaled row to its coefficients in the active set.
    span_basis : (p, r) float64
        Orthonormal axes of what the training set spans; (p, 0) where that is everything.
    """

    quadratic: bool
    scale: Array
    coefficient_map: Array
    span_basis: Array

    @classmethod
    def from_descriptors(cls, descriptors: Array, *, quadratic: bool = False) -> EnvironmentGrade:
        """Choose the active set among the atoms ``(n, K)`` of the training set.

        Rows are whitened, those of the highest leverage are tried first, and then those that turn out to be outside,
        until all are inside.
        """
        blocks = [slice(k, k + BLOCK) for k in range(0, len(descriptors), BLOCK)]
        squares = sum(np.einsum("ij,ij->j", one, one) for one in (_features(descriptors[k], quadratic) for k in blocks))
        scale = np.sqrt(squares / len(descriptors))
        scale[scale == 0] = 1.0
        R = np.zeros((0, len(scale)))
        for k in blocks:  # a QR of the rows, block by block
            stacked = np.vstack([R, _features(descriptors[k], quadratic) / scale])
            R = scipy.linalg.qr(stacked, mode="r", check_finite=False)[0][: len(scale)]
        whitening, spanned = _whitening(R)
        rank = whitening.shape[1]

        def white(which: slice | Array) -> Array:
            return np.asarray(_features(descriptors[which], quadratic) / scale @ whitening)

        leverage = np.concatenate([np.einsum("ij,ij->i", one, one) for one in map(white, blocks)])
        tried = np.argsort(-leverage, kind="stable")[: FIRST * rank]
        try:
            active = ActiveSet.from_rows(white(tried))
        except InputError:  # too much alike: all atoms together do span the space
            tried = np.arange(len(descriptors))
            active = ActiveSet.from_rows(white(tried))
        chosen = tried[active.row_indices]
        while True:
            grades = np.concatenate([active.grade(white(k)) for k in blocks])
            outside = np.flatnonzero(grades > 1 + 2 * MAXVOL_TOLERANCE)
            if not len(outside):
                break
            more = outside[np.argsort(-grades[outside], kind="stable")][: FIRST * rank]
            tried = np.concatenate([chosen, np.setdiff1d(more, chosen)])
            active = ActiveSet.from_rows(white(tried), np.arange(rank))
            chosen = tried[active.row_indices]
        return cls(quadratic, scale, whitening @ active.inverse, spanned)

    def __call__(self, descriptors: Array) -> Array:
        """``(m,)``: γ of other atoms ``(m, K)``."""
        rows = _features(descriptors, self.quadratic) / self.scale
        grade = np.abs(rows @ self.coefficient_map).max(axis=1)
        if self.span_basis.shape[1]:
            beside = np.linalg.norm(rows - rows @ self.span_basis @ self.span_basis.T, axis=1)
            grade[beside > BESIDE * np.linalg.norm(rows, axis=1)] = np.inf
        return np.asarray(grade)


def _whitening(R: Array) -> tuple[Array, Array]:
    """What makes rows with the factor R orthonormal, ``(p, r)``; what they span, ``(p, 0)`` if that is everything."""
    p = R.shape[1]
    if len(R) == p and lapack.dtrcon(np.asfortranarray(R), norm="1", uplo="U")[0] > INDEPENDENT:
        return np.asarray(lapack.dtrtri(np.asfortranarray(R), lower=0)[0]), np.zeros((p, 0))
    _, values, axes = scipy.linalg.svd(R, check_finite=False)
    rank = int((values > INDEPENDENT * values[0]).sum())
    return np.asarray(axes[:rank].T / values[:rank]), np.asarray(axes[:rank].T if rank < p else np.zeros((p, 0)))


def _features(descriptors: Array, quadratic: bool) -> Array:
    """Rows of atoms: a constant, descriptors and, perhaps, their products."""
    n, K = descriptors.shape
    parts = [np.ones((n, 1)), descriptors]
    if quadratic:
        rows, columns = np.triu_indices(K)
        parts.append(descriptors[:, rows] * descriptors[:, columns])
    return np.hstack(parts)


def classify_grade(grade: float) -> str:
    """``"inside"``, ``"at the edge"`` or ``"outside"``."""
    if grade <= EXTRAPOLATION_GRADE:
        return "inside"
    return "at the edge" if grade <= STRONG_EXTRAPOLATION_GRADE else "outside"
