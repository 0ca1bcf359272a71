"""Reduction of a design matrix with any number of rows to a few triangular matrices.

The rows are read block by block in a few passes, which run at the rate of matrix products. The first pass computes the
Gram matrix, from which R₀ and a baseline fit for each 2Jmax and level follow. The second pass computes the whitened
moments of the training rows and the triangular factors of the test rows. Afterwards, any weighted fit of a subset needs
only the moments of this subset, and its test errors need no rows. The memory is that of a few (P, P) matrices and a
block, whatever the number of rows. The equations are in `paretofit.linear.reduction`.

Rows are divided into parts (see `streaming`). Each part is a callable that yields its `RowBlock`s every time it is
called, so that a pass over all parts is a map and a reduction, on threads, a GPU, or a cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits

from paretofit.core import Array, InputError, RowKind
from paretofit.linear.loo import compute_loo_residuals
from paretofit.linear.reduction import linalg
from paretofit.linear.reduction.linalg import CPU, Device, to_numpy
from paretofit.linear.reduction.moments import Moments, NestedFactor, ResidualFactor
from paretofit.linear.reduction.streaming import (
    SERIAL_MAPPER,
    Part,
    PartMapper,
    Parts,
    RowBlock,
    iterate_blocks,
    normalise_parts,
    sum_parts,
)
from paretofit.linear.reduction.whitening import GramAccumulator, Whitening, compute_whitening
from paretofit.linear.wls import get_row_weights

MAX_CONDITION = 1e8  # up to this condition number, a fit from moments agrees with a fit from rows to 1e-8
MAX_REFINABLE_CONDITION = 1e12  # up to this condition number, it agrees after refinement with the rows
N_REFINEMENTS = 2  # steps of a refinement


class HeldOutErrors(NamedTuple):
    """Root mean squared test residuals.

    Attributes
    ----------
    own_level : (n_levels,) float64
        Against the labels of the level of each fit.
    reference_level : (n_levels,) float64
        Against the labels of the last level.
    centred_reference : (n_levels,) float64
        Against the labels of the last level, about the mean of the residuals.
    """

    own_level: Array
    reference_level: Array
    centred_reference: Array


@dataclass(frozen=True)
class NestedFit:
    """Fits of all levels at one model size, as differences from the baseline.

    Attributes
    ----------
    delta : (p, n_levels) float64
        Whitened coefficients minus the baseline's.
    condition : float
        Estimated condition number of the weighted, whitened moments.
    target_columns : slice
        Columns of the targets that belong to this size.
    """

    delta: Any
    condition: float
    target_columns: slice


@dataclass(frozen=True)
class Reduction:
    """The triangular factors and moments to which the rows are reduced.

    Attributes
    ----------
    sizes : (n_sizes,) int64
        Number of leading columns of X in each model, ascending.
    whitened_sizes : (n_sizes,) int64
        Number of leading whitened columns in each model.
    n_levels : int
        Number of convergence levels.
    whitening : Whitening
        R₀ and the retained columns.
    baseline : (P, n_sizes * n_levels) float64
        Whitened coefficients of the baseline fit of each size and level.
    train_moments : Moments
        Moments of the training rows, with the residuals of the baseline as targets.
    test_factors : mapping of RowKind to ResidualFactor
        Factors of the test rows, with the residuals of the baseline against each level and against the last level.
    unpenalised : int
        Number of leading columns of X without ridge penalty.
    """

    sizes: Array
    whitened_sizes: Array
    n_levels: int
    whitening: Whitening
    baseline: Any
    train_moments: Moments
    test_factors: dict[RowKind, ResidualFactor]
    unpenalised: int = 0

    @classmethod
    def from_parts(
        cls,
        parts: Parts,
        sizes: Sequence[int],
        *,
        energy_weight: float = 1.0,
        force_weight: float = 1.0,
        stress_weight: float = 1.0,
        unpenalised: int = 0,
        mapper: PartMapper = SERIAL_MAPPER,
        device: Device = CPU,
    ) -> Reduction:
        """Reduce the rows of all parts.

        Parameters
        ----------
        parts : callable or sequence of callable
            Each returns a new iterator over `RowBlock`s.
        sizes : sequence of int
            Number of leading columns in each model, ascending.
        energy_weight, force_weight, stress_weight : float
            Weights of the Gram matrix and the baseline, typical of the fits that follow.
        unpenalised : int
            Number of leading columns without ridge penalty.
        mapper : PartMapper
            Computes the sums of the parts; the result does not depend on it.
        device : Device
            Hardware that computes the sums. The reduction is returned on the processor, and depends on the device only
            by rounding.

        Raises
        ------
        InputError
            If sizes do not ascend or exceed the columns, a value is not finite, or there are no training rows.
        """
        parts = normalise_parts(parts)
        weights = get_row_weights(np.arange(3), energy_weight, force_weight, stress_weight)
        columns, n_levels = _check_sizes(parts, sizes)
        create_sums = partial(GramAccumulator, weights, int(columns[-1]), n_levels, device)
        sums = sum_parts(parts, create_sums, mapper).finish()
        if not sums.n_train:
            raise InputError("a reduction requires training rows; got none")
        with threadpool_limits(1):  # threads within a product would change its rounding
            whitening = compute_whitening(sums, parts, weights, mapper)
            whitened_sizes = np.array([whitening.count_retained(int(p)) for p in columns])
            baseline = _compute_baseline(sums, whitening, whitened_sizes)
        kinds = [RowKind(kind) for kind in sorted(sums.kinds)]
        del sums  # its memory is needed for the moments
        second_pass = sum_parts(parts, partial(_SecondPass, whitening, baseline, kinds, device), mapper).finish()
        moments, factors = second_pass.train, second_pass.test
        return cls(columns, whitened_sizes, n_levels, whitening, baseline, moments, factors, unpenalised).to(CPU)

    def to(self, device: Device) -> Reduction:
        """Return a copy whose data for fits are on a device."""
        if device == self.train_moments.device:
            return self
        return replace(
            self,
            whitening=self.whitening.to(device),
            baseline=device.put(to_numpy(self.baseline)),
            train_moments=self.train_moments.to(device),
            test_factors={kind: factor.to(device) for kind, factor in self.test_factors.items()},
        )

    def whiten_rows(self, X: Array, Y: Array) -> tuple[Any, Any, Any]:
        """Whiten rows of a design; return them, their targets (residuals of the baseline), and the retained columns."""
        rows, labels = (self.train_moments.device.put(array) for array in (X, Y))
        U = self.whitening.apply(rows)
        return U, _subtract_baseline(labels, U, self.baseline)[0], self.whitening.select_columns(rows)

    def create_empty_moments(self) -> Moments:
        """Create moments of zero, to which the rows of a subset can be added."""
        moments = self.train_moments
        return Moments(moments.P, self.baseline.shape[1], list(moments.by_kind), moments.device)

    def factorise(self, moments: Moments, weights: Array, ridge: float = 0.0) -> WeightedSystem:
        """Factorise a subset's moments at given weights: one Cholesky factor for all sizes and levels.

        Parameters
        ----------
        moments : Moments
            Moments of the subset.
        weights : (3,) float64
            w_E, w_F, w_S.
        ridge : float
            λ of a penalty λ Σ (d_j β_j)² in raw columns, d_j being the norm of the subset's weighted column j.
        """
        relative_weights = weights / weights.max()  # only ratios matter, and numbers remain moderate
        M, c = moments.form_normal_equations(relative_weights)
        penalty = None
        if ridge > 0:
            norms, device = moments.compute_column_norms(relative_weights), self.train_moments.device
            norms[self.whitening.retained_columns < self.unpenalised] = 0.0
            penalty = device.zeros(*M.shape)
            linalg.add_gram(penalty, device.put(np.sqrt(ridge) * norms[:, None] * self.unwhitening))
            M += penalty
        return WeightedSystem(self, NestedFactor.from_moments(M), c, penalty, relative_weights)

    @cached_property
    def unwhitening(self) -> Array:
        """R₀⁻¹, ``(P, P)``, upper triangular, which converts whitened coefficients to raw ones."""
        return np.asarray(lapack.dtrtri(to_numpy(self.whitening.R), lower=0)[0])

    def compute_raw_coefficients(self, fit: NestedFit) -> Array:
        """Compute the coefficients of the retained raw columns, ``(p, n_levels)``.

        They have fewer accurate digits than the errors of the fit.
        """
        baseline = to_numpy(self.baseline)[: len(fit.delta), fit.target_columns]
        return self.whitening.to_raw(baseline + to_numpy(fit.delta))

    def get_target_columns(self, size_index: int) -> slice:
        """Return the columns of the targets that belong to one of the `sizes`."""
        return slice(size_index * self.n_levels, (size_index + 1) * self.n_levels)

    def compute_train_rms(self, moments: Moments, fit: NestedFit) -> tuple[dict[RowKind, Array], bool]:
        """Compute the root mean squared residuals of the subset's rows, ``(n_levels,)`` for each kind.

        The second value is true if one of them is so much smaller than that of the baseline that too many digits have
        cancelled.
        """
        rms, lost_digits = {}, False
        for kind, part in moments.by_kind.items():
            if part.n:
                squares, has_cancelled = part.sum_squared_residuals(fit.delta, fit.target_columns)
                rms[kind] = np.sqrt(squares / part.n)
                lost_digits |= has_cancelled
        return rms, lost_digits

    def compute_test_rms(self, fit: NestedFit) -> dict[RowKind, HeldOutErrors]:
        """Compute the root mean squared residuals of the test rows of each kind."""
        columns = np.arange(fit.target_columns.start, fit.target_columns.stop)
        rms = {}
        for kind, factor in self.test_factors.items():
            if factor.n:
                own_level, _ = factor.sum_squared_residuals(fit.delta, columns)
                reference = factor.sum_squared_residuals(fit.delta, columns + self.baseline.shape[1])
                rms[kind] = HeldOutErrors(*(np.sqrt(squares / factor.n) for squares in (own_level, *reference)))
        return rms


@dataclass(frozen=True)
class WeightedSystem:
    """Normal equations of a subset at given weights, factorised once for all sizes and levels.

    Attributes
    ----------
    reduction : Reduction
    factor : NestedFactor
        Cholesky factor of the weighted moments.
    c : (P, n_targets) float64
        Right-hand sides.
    penalty : (P, P) float64 or None
        Upper triangle of the penalty matrix, including λ.
    weights : (3,) float64
        w_E, w_F, w_S, scaled so that the largest is 1.
    """

    reduction: Reduction
    factor: NestedFactor
    c: Any
    penalty: Any
    weights: Array

    def fit(self, size_index: int, max_condition: float = MAX_CONDITION) -> NestedFit | None:
        """Fit all levels at one of the reduction's sizes.

        The result is None if the moments are singular, or if their condition number is above `max_condition`, so that
        the solution has too few accurate digits.
        """
        p = int(self.reduction.whitened_sizes[size_index])
        condition = self.factor.estimate_condition(p)
        if not condition < max_condition:
            return None
        columns = self.reduction.get_target_columns(size_index)
        rhs = self.c[:p, columns]
        if self.penalty is not None:
            rhs = rhs - linalg.multiply_symmetric(self.penalty[:p, :p], self.reduction.baseline[:p, columns])
        return NestedFit(self.factor.solve(rhs), condition, columns)

    def refine(self, fit: NestedFit, U: Array, Y: Array, kind: Array) -> NestedFit:
        """Refine a fit with the whitened rows of the subset, on the processor, by corrected semi-normal equations.

        The factor solves for a correction of the fit, with a residual that is computed from the rows, so that no
        squares cancel. Each step reduces the error by a factor of about condition × epsilon (Å. Björck, Linear Algebra
        Appl. 88/89, 31 (1987)).
        """
        p = len(fit.delta)
        w = self.weights[kind][:, None] ** 2
        delta, device = fit.delta, linalg.get_array_device(fit.delta)
        for _ in range(N_REFINEMENTS):
            gradient = device.put(U[:, :p].T @ (w * (Y[:, fit.target_columns] - U[:, :p] @ to_numpy(delta))))
            if self.penalty is not None:
                coefficients = self.reduction.baseline[:p, fit.target_columns] + delta
                gradient -= linalg.multiply_symmetric(self.penalty[:p, :p], coefficients)
            delta = delta + self.factor.solve(gradient)
        return replace(fit, delta=delta)

    def compute_loo_residuals(self, fit: NestedFit, U: Array, Y: Array, kind: Array, group: Array) -> Array:
        """Compute weighted leave-one-out residuals of the subset's rows, ``(n, n_levels)``; see `leave_one_out`."""
        p = len(fit.delta)
        w = self.weights[kind][:, None]
        V = linalg.solve_rows(to_numpy(self.factor.R)[:p, :p], U[:, :p] * w)
        return compute_loo_residuals(V, (Y[:, fit.target_columns] - U[:, :p] @ to_numpy(fit.delta)) * w, group)


class _SecondPass:
    """Whitened moments of the training rows and triangular factors of the test rows."""

    def __init__(self, whitening: Whitening, baseline: Array, kinds: list[RowKind], device: Device) -> None:
        P = len(whitening.retained_columns)
        self.device, self.whitening, self.baseline = device, whitening.to(device), device.put(baseline)
        self.train = Moments(P, baseline.shape[1], kinds, device)
        self.test = {kind: ResidualFactor(P) for kind in kinds}

    def add(self, block: RowBlock) -> None:
        """Whiten a block and add its rows."""
        n_train, n = int(block.is_train.sum()), len(block.X)
        X, Y, kind, _, train = block.to(self.device)
        U = self.whitening.apply(X)
        own_level, reference = _subtract_baseline(Y, U, self.baseline)
        if n_train:
            self.train.add(U[train], own_level[train], self.whitening.select_columns(X)[train], kind[train])
        if n_train < n:
            for row_kind, factor in self.test.items():
                rows = ~train & (kind == row_kind)
                if rows.any():
                    factor.add(U[rows], linalg.concatenate([own_level[rows], reference[rows]], 1))

    def finish(self) -> _SecondPass:
        """Update the factors with their buffered rows."""
        for factor in self.test.values():
            factor.finish()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Pickle only the sums, which are all that a worker has to return."""
        return {"train": self.finish().train, "test": self.test}

    def merge(self, sums: _SecondPass) -> None:
        """Add the sums of another part."""
        self.train.merge(sums.train)
        for kind, factor in self.test.items():
            factor.merge(sums.test[kind])


def _check_sizes(parts: Sequence[Part], sizes: Sequence[int]) -> tuple[Array, int]:
    """Check the sizes; return them as an array, and the number of levels of the rows."""
    columns = np.asarray(sizes, dtype=np.int64)
    if columns.ndim != 1 or not len(columns) or columns[0] < 1 or (np.diff(columns) <= 0).any():
        raise InputError(f"sizes must be ascending numbers of columns; got {list(sizes)}")
    block = next(iterate_blocks(parts), None)
    n_columns = 0 if block is None else block.X.shape[1]
    if block is None or columns[-1] > n_columns:
        raise InputError(f"sizes must be at most the number of columns, {n_columns}; got {columns[-1]}")
    return columns, block.Y.shape[1]


def _compute_baseline(sums: GramAccumulator, whitening: Whitening, whitened_sizes: Array) -> Array:
    """Compute approximate fits of the whole training set at every size and level from the sums of the first pass.

    Any coefficients would be valid, but the better they fit, the fewer digits are lost later. In whitened columns the
    Gram matrix is nearly the unit matrix, so the fit of a smaller model is the leading part of that of a larger one.
    """
    theta = whitening.solve_transposed(sums.c)
    n_levels = theta.shape[1]
    baseline = CPU.zeros(len(theta), len(whitened_sizes) * n_levels)
    for index, p in enumerate(whitened_sizes):
        baseline[:p, index * n_levels : (index + 1) * n_levels] = theta[:p]
    return np.asarray(baseline)


def _subtract_baseline(Y: Any, U: Any, baseline: Any) -> tuple[Any, Any]:
    """Compute the residuals of the baseline of each level against this level, and against the last level."""
    prediction = U @ baseline
    own_level = linalg.concatenate([Y] * (baseline.shape[1] // Y.shape[1]), 1) - prediction
    return own_level, Y[:, -1:] - prediction
