"""Fits of one set of rows at given weights: one triangle serves all levels and all smaller models.

The factors of the kinds of rows are stacked at their weights, R = fold(w_E R_E, w_F R_F, w_S R_S). The leading blocks
of R are the factors of all smaller models, and its right-hand sides those of all levels, so that a fit is a triangular
solve. With a ridge, the same triangle is expressed in raw columns of unit norm, T = R R₀ D⁻¹. Where the rank of a model
is in doubt, or the rows are fewer than the columns, the fit of minimum norm needs only few rows that are equivalent to
all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg

from paretofit.core import Array, RowKind
from paretofit.linear.factor import (
    FACTOR,
    compute_column_scales,
    compute_rank_tolerance,
    estimate_reciprocal_condition,
    name_solver,
)
from paretofit.linear.loo import compute_loo_residuals
from paretofit.linear.reduction import linalg, native
from paretofit.linear.reduction.conditioning import MinimumNormFactor, estimate_condition, invert_reciprocal_condition
from paretofit.linear.reduction.linalg import to_numpy
from paretofit.linear.reduction.row_factor import RowFactor
from paretofit.linear.reduction.whitening import WhitenedBasis

# diagonal element of a triangle relative to the norm of its column: far above rounding errors, and far below the values
# that were measured for independent columns
MIN_RELATIVE_DIAGONAL = 1e-8
RANK_MARGIN = 10.0  # estimated condition numbers are below the true ones by less than this factor


@dataclass(frozen=True)
class RmsErrors:
    """Root mean squared residuals of the rows of a kind.

    Attributes
    ----------
    own_level : (n_fits * n_levels,) float64
        Against the labels of the level of each fit.
    reference_level : (n_fits * n_levels,) float64
        Against the labels of the last level.
    """

    own_level: Array
    reference_level: Array


@dataclass(frozen=True)
class ModelFit:
    """Fits of all levels at one model size.

    Attributes
    ----------
    delta : (P, n_levels) float64
        Whitened coefficients minus the baseline's.
    rank : int
        Numerical rank of the weighted rows.
    condition : float
        Estimated condition number, in the 1-norm, of the weighted rows with columns scaled to unit norm; NaN if it was
        not estimated.
    solver : str
        "factor"; "rank-revealing" if the rank is below the number of columns; "svd" for the ridge of `choose_ridge`.
    triangle, basis : (k, k) and (q, k) float64, or None
        With the first q whitened columns U of the weighted rows, U `basis` `triangle`⁻¹ has orthonormal columns
        (without a ridge). A `basis` of None is the identity; the triangle is None for fits of minimum norm, mixtures,
        and `choose_ridge`.
    """

    delta: Array
    rank: int
    condition: float
    solver: str
    triangle: Array | None = None
    basis: Array | None = None

    def compute_loo_residuals(self, rows: Array, kind: Array, group: Array, weights: Array) -> Array:
        """Compute leave-one-out residuals of the fitted rows [U | Y], ``(n, n_levels)``; see `leave_one_out`.

        The fit must have a triangle; `weights` are w_E, w_F and w_S at which it was fitted.
        """
        w, P = weights[kind][:, None], len(self.delta)
        q = len(np.asarray(self.triangle if self.basis is None else self.basis))
        U = rows[:, :q] * w
        V = linalg.solve_rows(self.triangle, U if self.basis is None else U @ self.basis)
        return compute_loo_residuals(V, (rows[:, P:] - rows[:, :P] @ self.delta) * w, group) / w


@dataclass
class RowFactors:
    """Factors of the rows of some configurations by kind, with the operations grow, weight and residual.

    Attributes
    ----------
    whitened_basis : WhitenedBasis
        Whitening and baseline of the rows.
    by_kind : mapping of RowKind to RowFactor
    minimum_norm_factors : dict of int to MinimumNormFactor
        By number of columns; later fits reuse them.
    """

    whitened_basis: WhitenedBasis
    by_kind: dict[RowKind, RowFactor]
    minimum_norm_factors: dict[int, MinimumNormFactor] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Number of rows of all kinds."""
        return sum(factor.n for factor in self.by_kind.values())

    def grow(self, rows: Any, kind: Array, multiplicity: int = 1) -> None:
        """Add whitened rows [U | Y] ``(n, P + n_levels)`` of kinds ``(n,)``, each `multiplicity` times."""
        self.minimum_norm_factors.clear()
        self.__dict__.pop("raw_rows", None)  # the cached property
        for row_kind, factor in self.by_kind.items():
            positions = np.flatnonzero(kind == row_kind)
            if len(positions):
                factor.grow(rows if len(positions) == len(rows) else rows[positions], multiplicity)

    def convert_to_gram(self, *, is_checked: bool = True) -> None:
        """Change the factors of the kinds for which this is accurate to Gram matrices, which grow faster.

        Without `is_checked`, all factors change; `is_accurate` then says whether they can be used.
        """
        for factor in self.by_kind.values():
            factor.convert_to_gram(is_checked=is_checked)

    def is_accurate(self) -> bool:
        """Return whether all factors are accurate: triangles always are, Gram matrices depending on their condition."""
        return all(not factor.is_gram or factor.is_accurate() for factor in self.by_kind.values())

    def apply_weights(self, weights: Array, *, with_ridge: bool = False) -> WeightedFactor:
        """Stack the factors of all kinds at weights w_E, w_F, w_S, of which only the ratios matter.

        Without a ridge, models with more columns than rows need no triangle. If all factors are rows, the triangle
        therefore has only the columns of the largest of the other models.
        """
        relative_weights, sizes = weights / weights.max(), self.whitened_basis.whitened_sizes
        is_whole = with_ridge or any(factor.matrix is not None for factor in self.by_kind.values())
        q = len(self.whitened_basis.baseline) if is_whole else int(max(sizes[sizes <= self.n_rows], default=0))
        return WeightedFactor.from_triangles(self, relative_weights, q)

    def compute_rms(self, delta: Array, level: int | None = None) -> dict[RowKind, RmsErrors]:
        """Compute the root mean squared residuals of fits for the rows of each kind that is present.

        Parameters
        ----------
        delta, level
            As for `WhitenedBasis.pair_with_reference`.
        """
        deltas, levels = self.whitened_basis.pair_with_reference(delta, level)
        rms = {}
        for kind, factor in self.by_kind.items():
            if factor.n:
                residuals = factor.compute_residuals(deltas, len(delta) + levels)
                rms[kind] = RmsErrors(*np.split(np.sqrt(linalg.sum_column_squares(residuals) / factor.n), 2))
        return rms

    @cached_property
    def raw_rows(self) -> tuple[Array, Array, Array]:
        """Unweighted rows that are equivalent to those of all kinds, in raw columns, with their targets and kinds."""
        factors = {kind: to_numpy(factor.get_equivalent_rows()) for kind, factor in self.by_kind.items() if factor.n}
        kind = np.repeat(np.array(list(factors), dtype=np.int64), [len(rows) for rows in factors.values()])
        U, Y = np.split(np.vstack(list(factors.values())), [len(self.whitened_basis.baseline)], axis=1)
        return self.whitened_basis.whitening.to_raw_rows(U), Y + U @ self.whitened_basis.baseline, kind


@dataclass(frozen=True)
class WeightedFactor:
    """Triangle of some rows at given weights.

    Attributes
    ----------
    factors : RowFactors
    weights : (3,) float64
        w_E, w_F, w_S, of which the largest is 1.
    R : (q, q) float64
        Upper triangular; q is P, the number of whitened columns, unless fewer columns were asked for.
    C : (q, n_levels) float64
        Right-hand sides for the targets minus the baseline of these q columns.
    """

    factors: RowFactors
    weights: Array
    R: Array
    C: Array

    @classmethod
    def from_triangles(cls, factors: RowFactors, weights: Array, q: int) -> WeightedFactor:
        """Fold the triangles, or the rows, of all kinds into one triangle of the first q columns.

        If q is below P, all factors must be rows.
        """
        theta = factors.whitened_basis.baseline
        (largest_kind, largest_factor), *others = sorted(factors.by_kind.items(), key=lambda item: -item[1].n)
        if q == len(theta):
            R = float(weights[largest_kind]) * largest_factor.get_triangle()
        else:
            R = largest_factor.device.zeros(*(q + theta.shape[1],) * 2)
            others = [(largest_kind, largest_factor), *others]
        for kind, factor in others:
            A = float(weights[kind]) * factor.get_equivalent_rows()
            if q < len(theta):  # the targets are relative to the baseline, so its part in the omitted columns is added
                A = linalg.concatenate(
                    [A[:, :q], A[:, len(theta) :] + A[:, q : len(theta)] @ largest_factor.device.put(theta[q:])], 1
                )
            if factor.n:
                R = linalg.update_qr(R, A, 0 if factor.matrix is None else len(R))
        R = to_numpy(R)
        return cls(factors, weights, np.asfortranarray(R[:q, :q]), R[:q, q:])

    def fit(self, size_index: int, ridge: float = 0.0, *, with_condition: bool = True) -> ModelFit:
        """Fit all levels at one of the reduction's sizes.

        Parameters
        ----------
        size_index : int
            Position among the sizes.
        ridge : float
            λ of a penalty λ Σ (d_j β_j)², d_j being the norm of weighted column j.
        with_condition : bool
            Whether the condition number is always estimated; otherwise it is NaN where the accuracy of a Gram matrix
            shows that the columns are independent.
        """
        basis = self.factors.whitened_basis
        p, q = int(basis.sizes[size_index]), int(basis.whitened_sizes[size_index])
        if not with_condition and ridge == 0 and self._is_well_conditioned:
            return self._fit_factor(q, np.nan)
        if ridge > 0:
            return self._fit_ridge(p, q, ridge)
        if self.factors.n_rows < p:
            return self._fit_minimum_norm(p)
        scale = self._approximate_scale[basis.whitening.retained_columns[:q]]
        condition = estimate_condition([self.R, basis.whitening.R], scale)
        if condition * compute_rank_tolerance((self.factors.n_rows, p)) * RANK_MARGIN >= 1:
            return self._fit_minimum_norm(p)
        return self._fit_factor(q, condition)

    @cached_property
    def _is_well_conditioned(self) -> bool:
        """Whether the columns are independent at all sizes, because they are in the Gram matrix of one kind of row.

        Columns of zeros in this kind, such as those of constants in forces, are determined by the other kinds.
        """
        is_gram = any(factor.is_gram for factor in self.factors.by_kind.values())
        return is_gram and bool((np.abs(np.diag(self.R)) > MIN_RELATIVE_DIAGONAL * compute_column_scales(self.R)).all())

    def _fit_factor(self, q: int, condition: float) -> ModelFit:
        """Fit a model whose columns are independent, by a triangular solve with the leading block."""
        theta, R = self.factors.whitened_basis.baseline, self.R[:q, :q]
        rhs = self.C[:q] + self.R[:q, q:] @ theta[q : len(self.R)]
        delta = -theta
        delta[:q] = scipy.linalg.solve_triangular(R, rhs, check_finite=False)
        return ModelFit(delta, q, condition, FACTOR, R)

    def _fit_minimum_norm(self, p: int) -> ModelFit:
        """Compute the fit of minimum norm in columns of unit norm.

        The norms are those of weighted columns, or of unweighted ones if there are fewer rows than columns.
        """
        factors, P, cache = self.factors, len(self.factors.whitened_basis.baseline), self.factors.minimum_norm_factors
        if sum(min(factor.n, factor.width) for factor in factors.by_kind.values()) > 2 * P:
            cache, weights = {}, np.ones(P)  # the weighted triangle has fewer rows, but serves only these weights
            X = factors.whitened_basis.whitening.to_raw_rows(self.R)
            Y = self.C + self.R @ factors.whitened_basis.baseline
        else:
            X, Y, kind = factors.raw_rows
            weights = self.weights[kind]
        factor = cache.get(p)
        if factor is None or factors.n_rows >= p:  # then the scale depends on the weights
            scale = compute_column_scales(X[:, :p] if factors.n_rows < p else X[:, :p] * weights[:, None])
            factor = MinimumNormFactor.from_rows(X[:, :p], scale, None if factor is None else factor.null_vectors)
            cache[p] = factor
        return self._convert_to_fit(p, factor.solve(Y, weights), factor.rank, factor.condition)

    def _convert_to_fit(self, p: int, beta: Array, rank: int, condition: float, *arrays: Array) -> ModelFit:
        """Convert raw coefficients ``(p, n_levels)`` to a fit; `arrays` are its triangle and basis, if any."""
        basis = self.factors.whitened_basis
        delta = basis.whitening.unwhitening[:, :p] @ beta - basis.baseline
        return ModelFit(delta, rank, condition, name_solver(rank, p), *arrays)

    @cached_property
    def _approximate_scale(self) -> Array:
        """Norms of the weighted raw columns, ``(p,)``, of all training rows instead of these; 1 for zero columns."""
        squared_norms = self.factors.whitened_basis.train_squared_norms
        squares = np.sum([self.weights[kind] ** 2 * values for kind, values in squared_norms.items()], axis=0)
        return np.sqrt(np.where(squares > 0, squares, 1.0))

    def _fit_ridge(self, p: int, q: int, ridge: float) -> ModelFit:
        """Fit with a ridge, whose rows are folded together with the triangle in raw columns of unit norm."""
        basis = self.factors.whitened_basis
        T, Y = basis.whitening.to_raw_rows(self.R)[:q, :p], self.C + self.R @ basis.baseline[: len(self.R)]
        scale, penalised_columns = compute_column_scales(T), np.arange(basis.n_unpenalised, p)
        triangle = np.zeros((p + Y.shape[1],) * 2, order="F")
        triangle[penalised_columns, penalised_columns] = np.sqrt(ridge)
        native.update_qr(triangle, np.hstack([T / scale, Y[:q]]), q)
        S, rhs = triangle[:p, :p], triangle[:p, p:]
        condition, rank = invert_reciprocal_condition(estimate_reciprocal_condition(S)), p
        if condition * compute_rank_tolerance((self.factors.n_rows + len(penalised_columns), p)) >= 1:
            factor = MinimumNormFactor.from_rows(S, np.ones(p))
            gamma, condition, rank = factor.solve(rhs, np.ones(p)), factor.condition, factor.rank
        else:
            gamma = scipy.linalg.solve_triangular(S, rhs, check_finite=False)
        arrays = (S, basis.whitening.unwhitening[:q, :p] / scale) if rank == p else ()
        return self._convert_to_fit(p, gamma / scale[:, None], rank, condition, *arrays)
