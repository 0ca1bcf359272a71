"""Extrapolation grades of a linear model: leverage and the D-optimality (MaxVol) grade.

Leverage h = x (XᵀX)⁻¹ xᵀ is at most 1 for every training row, and is the variance of a prediction if the labels have
independent errors of variance 1. The grade γ = max |x A⁻¹| refers to an active set A of training rows with the largest
determinant. A row with γ ≤ 1 is a combination of active rows with coefficients of at most 1 (interpolation); a row with
γ > 1 extrapolates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.linalg import blas, lapack

from paretofit.core import Array, InputError
from paretofit.linear import compute_column_scales, estimate_reciprocal_condition

MAXVOL_TOLERANCE = 1e-3  # rows are exchanged while an exchange increases the determinant by more than this share
MIN_RELATIVE_PIVOT = 1e-10  # ratio to the largest pivot; a column with a smaller pivot depends on others
ROWS_PER_BLOCK = 4096  # number of rows of atoms that are processed at once
CANDIDATES_PER_COLUMN = 3  # number of candidate rows for the active set, for each column
MAX_RELATIVE_RESIDUAL = 1e-7  # fraction of a row's norm that may be orthogonal to the span of the training set
# atoms with a higher grade extrapolate; MaxVol leaves grades slightly above 1 in the training set
EXTRAPOLATION_GRADE = 1 + 2 * MAXVOL_TOLERANCE
STRONG_EXTRAPOLATION_GRADE = 2.0  # atoms with a higher grade extrapolate strongly


@dataclass(frozen=True)
class TrainingLeverage:
    """Function that computes the leverage of any row with respect to weighted training rows.

    Attributes
    ----------
    retained_columns : (P,) int64
        Columns from which the leverage is computed.
    R : (P, P) float64
        Triangular factor of these columns of the weighted rows.
    """

    retained_columns: Array
    R: Array

    @classmethod
    def from_rows(cls, rows: Array, weights: Array | None = None) -> TrainingLeverage:
        """Factorise the training rows ``(n, p)``, each multiplied by its weight.

        Raises
        ------
        InputError
            If the rows do not determine all columns; leverages would be infinite in some direction.
        """
        weighted_rows = rows if weights is None else rows * weights[:, None]
        scale = compute_column_scales(weighted_rows)
        # with mode="r", scipy returns the tuple (R,), and R has as many rows as there are training rows
        R = scipy.linalg.qr(weighted_rows / scale, mode="r", check_finite=False)[0][: rows.shape[1]]
        pivots = np.abs(np.diag(R))
        if len(rows) < rows.shape[1] or not pivots.min() > MIN_RELATIVE_PIVOT * pivots.max():
            raise InputError(
                f"{len(rows)} rows do not determine {rows.shape[1]} columns; use a smaller 2Jmax for the grade"
            )
        return cls(np.arange(rows.shape[1]), R * scale)

    def restrict_columns(self, p: int) -> TrainingLeverage:
        """Return the function that computes the leverage in a model with the first `p` columns only."""
        size = int(np.searchsorted(self.retained_columns, p))
        return TrainingLeverage(self.retained_columns[:size], self.R[:size, :size])

    def __call__(self, rows: Array, weights: Array | None = None) -> Array:
        """Compute the leverages, ``(m,)``, of rows ``(m, p)``, each multiplied by its weight if `weights` are given."""
        X = rows[:, self.retained_columns] if weights is None else rows[:, self.retained_columns] * weights[:, None]
        whitened_rows = scipy.linalg.solve_triangular(self.R, X.T, trans="T", check_finite=False)
        return np.asarray(np.einsum("ij,ij->j", whitened_rows, whitened_rows))


@dataclass(frozen=True)
class ActiveSet:
    """Set of p training rows with the (locally) largest determinant.

    Attributes
    ----------
    row_indices : (p,) int64
        Positions of the active rows among the training rows.
    inverse : (p, p) float64
        A⁻¹, where the rows of A are the active rows.
    """

    row_indices: Array
    inverse: Array

    @classmethod
    def from_rows(cls, rows: Array, initial_rows: Array | None = None) -> ActiveSet:
        """Select an active set by MaxVol.

        Parameters
        ----------
        rows : (n, p) float64
            Training rows.
        initial_rows : (p,) int, optional
            Positions of independent rows at which the search starts; by default they are found by elimination.

        Raises
        ------
        InputError
            If there are fewer than p independent rows.

        Notes
        -----
        S. A. Goreinov et al., "How to find a good submatrix" (2010); grades after E. V. Podryabinkin and A. V.
        Shapeev, Comput. Mater. Sci. 140, 171 (2017).
        """
        positions = _select_independent_rows(rows) if initial_rows is None else np.array(initial_rows)
        B = np.ascontiguousarray(scipy.linalg.solve(rows[positions].T, rows.T, check_finite=False).T)
        while True:
            i, j = np.unravel_index(int(np.argmax(np.abs(B))), B.shape)
            if abs(B[i, j]) <= 1 + MAXVOL_TOLERANCE:
                return cls(positions, np.linalg.inv(rows[positions]))
            # exchange active row j for row i: a rank-one update of B = XA⁻¹
            step = B[i].copy()
            step[j] -= 1.0
            blas.dger(-1.0 / B[i, j], step, B[:, j].copy(), a=B.T, overwrite_a=1)
            positions[j] = i

    def grade(self, rows: Array) -> Array:
        """Compute γ, ``(m,)``, of other rows ``(m, p)``; it is at most about 1 for every training row."""
        return np.asarray(np.abs(rows @ self.inverse).max(axis=1))


def _select_independent_rows(rows: Array) -> Array:
    """Select as many independent rows as there are columns, by Gaussian elimination with row pivoting."""
    n, p = rows.shape
    if n < p:
        raise InputError(f"an active set of {p} columns requires as many rows; there are {n}")
    positions, _, U = scipy.linalg.lu(rows, p_indices=True, check_finite=False)
    pivots = np.abs(np.diag(U))
    if not pivots.min() > MIN_RELATIVE_PIVOT * pivots.max():
        raise InputError(f"the rows do not suffice for an active set: {p} columns are not independent in them")
    return np.argsort(positions)[:p]


@dataclass(frozen=True)
class EnvironmentGrade:
    """Function that grades atoms by their descriptors, for a training set of any rank.

    The row of an atom consists of a constant, the descriptors and, for a quadratic model, their products. An atom with
    a component in a direction that the training set does not span has an infinite grade.

    Attributes
    ----------
    quadratic : bool
        Whether rows contain products.
    scale : (p,) float64
        Root mean square of each column.
    coefficient_map : (p, r) float64
        Maps a scaled row to its coefficients in the active set.
    span_basis : (p, r) float64
        Orthonormal axes of the span of the training set; (p, 0) if it is the whole space.
    """

    quadratic: bool
    scale: Array
    coefficient_map: Array
    span_basis: Array

    @classmethod
    def from_descriptors(cls, descriptors: Array, *, quadratic: bool = False) -> EnvironmentGrade:
        """Select the active set among the atoms of the training set, given by their descriptors ``(n, K)``.

        Rows are whitened. The rows with the highest leverage are the first candidates. Rows that extrapolate from the
        resulting active set are added to the candidates until no atom extrapolates.
        """
        training_atoms = _TrainingAtoms(descriptors, quadratic=quadratic)
        leverage = training_atoms.map_blocks(lambda rows: np.einsum("ij,ij->i", rows, rows))
        n_candidates = CANDIDATES_PER_COLUMN * training_atoms.rank
        candidates = np.argsort(-leverage, kind="stable")[:n_candidates]
        try:
            active_set = ActiveSet.from_rows(training_atoms.whiten(candidates))
        except InputError:  # the candidates are too similar, but all atoms together span the space
            candidates = np.arange(len(descriptors))
            active_set = ActiveSet.from_rows(training_atoms.whiten(candidates))
        while ((grades := training_atoms.map_blocks(active_set.grade)) > EXTRAPOLATION_GRADE).any():
            active_atoms = candidates[active_set.row_indices]
            extrapolating_atoms = np.flatnonzero(grades > EXTRAPOLATION_GRADE)
            new_atoms = extrapolating_atoms[np.argsort(-grades[extrapolating_atoms], kind="stable")][:n_candidates]
            candidates = np.concatenate([active_atoms, np.setdiff1d(new_atoms, active_atoms)])
            active_set = ActiveSet.from_rows(training_atoms.whiten(candidates), np.arange(training_atoms.rank))
        return cls(
            quadratic, training_atoms.scale, training_atoms.whitening @ active_set.inverse, training_atoms.span_basis
        )

    def __call__(self, descriptors: Array) -> Array:
        """Compute γ, ``(m,)``, of other atoms with descriptors ``(m, K)``."""
        rows = _build_rows(descriptors, quadratic=self.quadratic) / self.scale
        grade = np.abs(rows @ self.coefficient_map).max(axis=1)
        if self.span_basis.shape[1]:
            residual = np.linalg.norm(rows - rows @ self.span_basis @ self.span_basis.T, axis=1)
            grade[residual > MAX_RELATIVE_RESIDUAL * np.linalg.norm(rows, axis=1)] = np.inf
        return np.asarray(grade)


class _TrainingAtoms:
    """Rows of the atoms of a training set, computed block by block, with their scale and whitening."""

    def __init__(self, descriptors: Array, *, quadratic: bool) -> None:
        self.descriptors, self.quadratic = descriptors, quadratic
        self.blocks = [slice(start, start + ROWS_PER_BLOCK) for start in range(0, len(descriptors), ROWS_PER_BLOCK)]
        squares = sum(np.einsum("ij,ij->j", rows, rows) for rows in map(self._build, self.blocks))
        self.scale = np.sqrt(squares / len(descriptors))
        self.scale[self.scale == 0] = 1.0
        R = np.zeros((0, len(self.scale)))
        for block in self.blocks:  # R of all rows, updated block by block to limit the memory
            stacked_rows = np.vstack([R, self._build(block) / self.scale])
            R = scipy.linalg.qr(stacked_rows, mode="r", check_finite=False)[0][: len(self.scale)]
        self.whitening, self.span_basis = _compute_whitening(R)
        self.rank = self.whitening.shape[1]

    def _build(self, atoms: slice | Array) -> Array:
        return _build_rows(self.descriptors[atoms], quadratic=self.quadratic)

    def whiten(self, atoms: slice | Array) -> Array:
        """Compute the whitened rows of the given atoms, ``(n, r)``."""
        return np.asarray(self._build(atoms) / self.scale @ self.whitening)

    def map_blocks(self, function: Callable[[Array], Array]) -> Array:
        """Apply a function to the whitened rows of all atoms."""
        return np.concatenate([function(self.whiten(block)) for block in self.blocks])


def _compute_whitening(R: Array) -> tuple[Array, Array]:
    """Compute the matrix ``(p, r)`` that makes rows with the factor R orthonormal, and the `span_basis` of the rows."""
    p = R.shape[1]
    if len(R) == p and estimate_reciprocal_condition(R) > MIN_RELATIVE_PIVOT:
        return np.asarray(lapack.dtrtri(np.asfortranarray(R), lower=0)[0]), np.zeros((p, 0))
    _, singular_values, axes = scipy.linalg.svd(R, check_finite=False)
    rank = int((singular_values > MIN_RELATIVE_PIVOT * singular_values[0]).sum())
    return np.asarray(axes[:rank].T / singular_values[:rank]), np.asarray(
        axes[:rank].T if rank < p else np.zeros((p, 0))
    )


def _build_rows(descriptors: Array, *, quadratic: bool) -> Array:
    """Build the rows of atoms from a constant, their descriptors and, for a quadratic model, the products."""
    columns = [np.ones((len(descriptors), 1)), descriptors]
    if quadratic:
        first_columns, second_columns = np.triu_indices(descriptors.shape[1])
        columns.append(descriptors[:, first_columns] * descriptors[:, second_columns])
    return np.hstack(columns)


def classify_grade(grade: float) -> str:
    """Classify a grade as ``"interpolation"``, ``"extrapolation"`` or ``"strong extrapolation"``."""
    if grade <= EXTRAPOLATION_GRADE:
        return "interpolation"
    return "extrapolation" if grade <= STRONG_EXTRAPOLATION_GRADE else "strong extrapolation"
