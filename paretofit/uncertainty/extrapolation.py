"""Extrapolation grades of a linear model: leverage and the D-optimality (MaxVol) grade.

The leverage h = x (XᵀX)⁻¹ xᵀ of a row x with respect to the training rows X is at most 1 for every training row. It is
the variance of the prediction if the labels have independent errors of variance 1. The grade γ = max |x A⁻¹| refers to
an active set A, the square matrix of training rows with the largest determinant. A row with γ ≤ 1 is a combination of
active rows with coefficients between -1 and 1 (interpolation); a row with γ > 1 extrapolates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.linalg import blas, lapack

from paretofit.core import Array, InputError
from paretofit.linear import compute_column_scales, estimate_reciprocal_condition

MAXVOL_TOLERANCE = 1e-3  # relative increase of the determinant, below which rows are not exchanged
# ratio to the largest pivot or singular value; below it, columns are linearly dependent
MIN_RELATIVE_PIVOT = 1e-10
ROWS_PER_BLOCK = 4096  # number of rows of atoms that are computed at once, to limit the memory
CANDIDATES_PER_COLUMN = 3  # number of candidate rows for the active set, for each column
MAX_RELATIVE_RESIDUAL = 1e-7  # fraction of a row's norm that may be orthogonal to the span of the training set
# atoms with a higher grade extrapolate; it exceeds 1, because MaxVol leaves training rows with grades slightly above 1
EXTRAPOLATION_GRADE = 1 + 2 * MAXVOL_TOLERANCE
STRONG_EXTRAPOLATION_GRADE = 2.0  # atoms with a higher grade extrapolate strongly


@dataclass(frozen=True)
class TrainingLeverage:
    """Function that computes the leverage of any row with respect to weighted training rows.

    Attributes
    ----------
    retained_columns : (P,) int64
        Columns from which the leverage is computed, in ascending order.
    R : (P, P) float64
        Triangular factor of these columns of the weighted rows.
    """

    retained_columns: Array
    R: Array

    @classmethod
    def from_rows(cls, rows: Array, weights: Array | None = None) -> TrainingLeverage:
        """Factorise the training rows ``(n, p)``, each multiplied by its weight if `weights` ``(n,)`` are given.

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
            raise InputError(f"{len(rows)} rows do not determine {rows.shape[1]} columns; use a smaller 2Jmax")
        return cls(np.arange(rows.shape[1]), R * scale)

    def restrict_columns(self, p: int) -> TrainingLeverage:
        """Return the function that computes the leverage in a model with the first `p` columns only."""
        # the retained columns are sorted, and a leading block of R is the factor of the leading columns
        n_retained = int(np.searchsorted(self.retained_columns, p))
        return TrainingLeverage(self.retained_columns[:n_retained], self.R[:n_retained, :n_retained])

    def __call__(self, rows: Array, weights: Array | None = None) -> Array:
        """Compute the leverages, ``(m,)``, of rows ``(m, p)``, multiplied by `weights` ``(m,)`` if they are given."""
        weighted_rows = rows[:, self.retained_columns]
        if weights is not None:
            weighted_rows = weighted_rows * weights[:, None]
        # h = |R⁻ᵀxᵀ|², because XᵀX = RᵀR
        whitened_columns = scipy.linalg.solve_triangular(self.R, weighted_rows.T, trans="T", check_finite=False)
        return np.asarray(np.einsum("ij,ij->j", whitened_columns, whitened_columns))


@dataclass(frozen=True)
class ActiveSet:
    """Set of p training rows whose determinant no exchange of a single row increases noticeably.

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
            Positions of independent rows with which the search starts; by default, Gaussian elimination selects them.

        Raises
        ------
        InputError
            If `initial_rows` is None, and there are fewer than p independent rows.

        Notes
        -----
        S. A. Goreinov et al., "How to find a good submatrix" (2010); grades after E. V. Podryabinkin and A. V.
        Shapeev, Comput. Mater. Sci. 140, 171 (2017).
        """
        positions = _select_independent_rows(rows) if initial_rows is None else np.array(initial_rows)
        # B = XA⁻¹, with the rows X and the active rows A
        B = np.ascontiguousarray(scipy.linalg.solve(rows[positions].T, rows.T, check_finite=False).T)
        while True:
            i, j = np.unravel_index(int(np.argmax(np.abs(B))), B.shape)
            if abs(B[i, j]) <= 1 + MAXVOL_TOLERANCE:
                return cls(positions, np.linalg.inv(rows[positions]))
            # the exchange of active row j for row i multiplies the determinant by B[i, j], and is a rank-one update of
            # B, in place: B.T is in Fortran order
            step = B[i].copy()
            step[j] -= 1.0
            blas.dger(-1.0 / B[i, j], step, B[:, j].copy(), a=B.T, overwrite_a=1)
            positions[j] = i

    def grade(self, rows: Array) -> Array:
        """Compute the grades γ, ``(m,)``, of rows ``(m, p)``; they are at most about 1 for training rows."""
        return np.asarray(np.abs(rows @ self.inverse).max(axis=1))


def _select_independent_rows(rows: Array) -> Array:
    """Select as many independent rows as there are columns, by Gaussian elimination; return their positions, ``(p,)``.

    Raises an `InputError` if there are fewer independent rows than columns.
    """
    n, p = rows.shape
    if n < p:
        raise InputError(f"an active set of {p} columns requires as many rows; there are {n}")
    # pivot_positions[k] is the position in the pivoted matrix of row k, so that argsort lists the rows by pivot
    pivot_positions, _, U = scipy.linalg.lu(rows, p_indices=True, check_finite=False)
    pivots = np.abs(np.diag(U))
    if not pivots.min() > MIN_RELATIVE_PIVOT * pivots.max():
        raise InputError(f"the rows do not suffice for an active set: {p} columns are not independent in them")
    return np.argsort(pivot_positions)[:p]


@dataclass(frozen=True)
class EnvironmentGrade:
    """Function that grades atoms by their descriptors, for a training set of any rank.

    The row of an atom consists of a constant, the K descriptors and, for a quadratic model, their products: p columns.
    The rows of the training set span r dimensions. An atom has an infinite grade if its row has a component in a
    direction that the training set does not span.

    Attributes
    ----------
    quadratic : bool
        Whether rows contain products of descriptors.
    scale : (p,) float64
        Root mean square of each column over the training set, by which rows are divided.
    coefficient_map : (p, r) float64
        Maps a scaled row to its coefficients in the active set.
    span_basis : (p, r) float64
        Orthonormal axes of the span of the training set; (p, 0) if the training set spans the whole space.
    """

    quadratic: bool
    scale: Array
    coefficient_map: Array
    span_basis: Array

    @classmethod
    def from_descriptors(cls, descriptors: Array, *, quadratic: bool = False) -> EnvironmentGrade:
        """Select the active set among the atoms of the training set, given by their descriptors ``(n, K)``.

        Rows are whitened, so that their squared norms are leverages. The rows with the highest leverages are the first
        candidates. While atoms of the training set extrapolate from the active set, it is selected again from its rows
        and those of the atoms with the highest grades.
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
        """Compute the grades γ, ``(m,)``, of atoms with descriptors ``(m, K)``."""
        rows = _build_rows(descriptors, quadratic=self.quadratic) / self.scale
        grade = np.abs(rows @ self.coefficient_map).max(axis=1)
        if self.span_basis.shape[1]:
            # norm of the component of each row outside the span of the training set
            residual = np.linalg.norm(rows - rows @ self.span_basis @ self.span_basis.T, axis=1)
            grade[residual > MAX_RELATIVE_RESIDUAL * np.linalg.norm(rows, axis=1)] = np.inf
        return np.asarray(grade)


class _TrainingAtoms:
    """Rows of the atoms of a training set, computed block by block, with their scale and whitening."""

    def __init__(self, descriptors: Array, *, quadratic: bool) -> None:
        self.descriptors, self.quadratic = descriptors, quadratic
        first_atoms = range(0, len(descriptors), ROWS_PER_BLOCK)
        self.blocks = [slice(first_atom, first_atom + ROWS_PER_BLOCK) for first_atom in first_atoms]
        squares = sum(np.einsum("ij,ij->j", rows, rows) for rows in map(self._build, self.blocks))
        self.scale = np.sqrt(squares / len(descriptors))
        self.scale[self.scale == 0] = 1.0  # columns of zeros would be divided by zero
        R = np.zeros((0, len(self.scale)))
        for block in self.blocks:  # R of all rows, updated block by block to limit the memory
            stacked_rows = np.vstack([R, self._build(block) / self.scale])
            R = scipy.linalg.qr(stacked_rows, mode="r", check_finite=False)[0][: len(self.scale)]
        self.whitening, self.span_basis = _compute_whitening(R)
        self.rank = self.whitening.shape[1]

    def _build(self, atoms: slice | Array) -> Array:
        """Build the rows of the selected atoms, ``(n, p)``."""
        return _build_rows(self.descriptors[atoms], quadratic=self.quadratic)

    def whiten(self, atoms: slice | Array) -> Array:
        """Compute the whitened rows of the selected atoms, ``(n, r)``."""
        return np.asarray(self._build(atoms) / self.scale @ self.whitening)

    def map_blocks(self, function: Callable[[Array], Array]) -> Array:
        """Apply a function to the whitened rows of all atoms, block by block, and concatenate its results."""
        return np.concatenate([function(self.whiten(block)) for block in self.blocks])


def _compute_whitening(R: Array) -> tuple[Array, Array]:
    """Compute the whitening ``(p, r)`` and the basis of the span of rows with the triangular factor R.

    Rows times the whitening have orthonormal columns. The basis is described in `EnvironmentGrade.span_basis`.
    """
    p = R.shape[1]
    if len(R) == p and estimate_reciprocal_condition(R) > MIN_RELATIVE_PIVOT:
        return np.asarray(lapack.dtrtri(np.asfortranarray(R), lower=0)[0]), np.zeros((p, 0))  # R⁻¹
    _, singular_values, axes = scipy.linalg.svd(R, check_finite=False)
    rank = int((singular_values > MIN_RELATIVE_PIVOT * singular_values[0]).sum())
    spanned_axes = axes[:rank].T
    span_basis = spanned_axes if rank < p else np.zeros((p, 0))
    return np.asarray(spanned_axes / singular_values[:rank]), span_basis


def _build_rows(descriptors: Array, *, quadratic: bool) -> Array:
    """Build the rows ``(n, p)`` of atoms: a constant, the descriptors ``(n, K)`` and, if quadratic, their products."""
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
