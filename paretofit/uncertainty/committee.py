"""Committees of linear models from one factorisation: bootstrap, random subsets, posterior draws, and POPS.

Rows are whitened once; each member then needs a sum of block moments and one Cholesky factor (see
`paretofit.linear.reduction`). Configurations, or groups of them, are drawn in at most `MAX_BLOCKS` blocks, so that the
memory of the moments does not grow with the data, and rows are read blockwise, a few times, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import scipy.linalg
from scipy.linalg import blas
from threadpoolctl import threadpool_limits

from paretofit.core import Array, InputError, check_choice
from paretofit.linear.reduction import (
    GramAccumulator,
    NestedFactor,
    Part,
    Parts,
    RowBlock,
    ThreadMapper,
    Whitening,
    add_gram,
    compute_whitening,
    iterate_blocks,
    normalise_parts,
    solve_rows,
    sum_parts,
)
from paretofit.uncertainty.extrapolation import TrainingLeverage

MAX_BLOCKS = 100  # of groups that are drawn together; fewer where there are fewer groups
MEMBERS_PER_BATCH = 8  # whose moments are summed in one product
MAX_MOMENT_BYTES = 4 << 30  # of the blocks' moments; with very many columns there are fewer blocks
MAX_CONDITION_DETERMINED = 1e12  # of the whitened moments: above, rows do not determine the coefficients
MIN_RELATIVE_EIGENVALUE = 1e-10  # of the largest eigenvalue: below, a draw does not determine a direction
MIN_RELATIVE_LEVERAGE = 1e-2  # of the mean, for POPS
CommitteeMethod = Literal["bootstrap", "subset", "posterior", "pops"]
COMMITTEE_METHODS = get_args(CommitteeMethod)


@dataclass(frozen=True)
class CommitteeFit:
    """A weighted fit of all rows, with the moments from which committees are drawn.

    Attributes
    ----------
    coefficients : (p,) float64
        Coefficients of the fit; 0 for a column that depends on earlier ones.
    whitening : Whitening
    factor : NestedFactor
        Cholesky factor of the whitened moments of all rows.
    G : (n_blocks, P, P) float64
        Whitened moments of each block of groups; lower triangles.
    c : (n_blocks, P) float64
        Their products with the residuals of the fit.
    variance : float
        Weighted squared residuals over degrees of freedom.
    """

    coefficients: Array
    whitening: Whitening
    factor: NestedFactor
    G: Array
    c: Array
    variance: float
    _parts: Sequence[Part]
    _weights: Array

    @classmethod
    def from_parts(
        cls, parts: Parts, group: Array, weights: Array, rng: np.random.Generator, *, threads: int = 1
    ) -> CommitteeFit:
        """Fit the rows.

        Parameters
        ----------
        parts : callable or sequence of callable
            Each returns a fresh iterator of `RowBlock`, all of them training rows with one column of targets.
        group : (n_configurations,) int
            Groups of configurations that are drawn together, or a number of its own for each.
        weights : (3,) float64
            w_E, w_F, w_S.
        rng : numpy.random.Generator
            Generator of the blocks of groups.
        threads : int
            Number of threads; the result does not depend on it.

        Raises
        ------
        InputError
            If there are fewer than two groups, or the rows do not determine the coefficients.
        """
        parts = normalise_parts(parts)
        p = next(iterate_blocks(parts)).X.shape[1]
        sums = sum_parts(parts, lambda: GramAccumulator(weights, p, 1), ThreadMapper(threads)).finish()
        with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
            whitening = compute_whitening(sums, parts, weights)
            baseline = whitening.solve_transposed(sums.c)[:, 0]
            P = len(baseline)
            moments = _BlockMoments(whitening, baseline, weights, _assign_blocks(group, P, rng))
            for block in iterate_blocks(parts):
                moments.add(block, pool)
        factor = NestedFactor.from_moments(moments.G.sum(axis=0).T)
        if sums.n_train <= P or factor.estimate_condition(P) > MAX_CONDITION_DETERMINED:
            raise InputError(
                f"{sums.n_train} rows do not determine {p} coefficients, so that a committee has no meaningful spread; "
                "use a smaller 2Jmax or more configurations"
            )
        c = moments.c.sum(axis=0)
        delta = factor.solve(np.asfortranarray(c[:, None]))[:, 0]
        variance = max(moments.sum_squares - float(c @ delta), 0.0) / max(sums.n_train - P, 1)
        residual_c = moments.c - np.array([blas.dsymv(1.0, G.T, delta, lower=0) for G in moments.G])
        coefficients = _to_raw(whitening, p, (baseline + delta)[None])[0]
        return cls(coefficients, whitening, factor, moments.G, residual_c, variance, parts, weights)

    def draw_members(
        self, n_members: int, rng: np.random.Generator, *, method: CommitteeMethod = "bootstrap", fraction: float = 0.7
    ) -> Array:
        """Draw the coefficients of a committee, ``(n_members, p) float64``.

        Parameters
        ----------
        n_members : int
            Two at least.
        rng : numpy.random.Generator
        method : {"bootstrap", "subset", "posterior", "pops"}
            Groups drawn with replacement; a random share of them (delete-d); draws from the Gaussian posterior of the
            coefficients with the noise of the fit; uniform draws from the hypercube, in principal axes, of the
            coefficients which would make a single row exact (POPS: misspecification, not noise).
        fraction : float
            Share of the groups in a subset.

        Raises
        ------
        InputError
            If there are fewer than two members, or the method or the fraction is invalid.

        Notes
        -----
        POPS after T. D. Swinburne and D. Perez, Mach. Learn.: Sci. Technol. 6, 015008 (2025), from nearly all rows;
        the package of these authors uses by default those of higher leverage than the median. With few rows for each
        column, residuals of training rows are small, and so is the hypercube (tests/benchmarks/RESULTS.md). The spread
        of subsets is that of the subsets: with 0.7 of the groups about 0.65 of the bootstrap's.
        """
        if n_members < 2:
            raise InputError(f"a committee needs at least two members; got {n_members}")
        check_choice("the method of a committee", method, COMMITTEE_METHODS)
        if not 0 < fraction < 1:
            raise InputError(f"the share of groups in a subset must be between 0 and 1; got {fraction}")
        with threadpool_limits(1):
            if method == "posterior":
                delta = self._to_whitened(np.sqrt(self.variance) * rng.normal(size=(n_members, len(self.factor.R))))
            elif method == "pops":
                axes, low, high = self.bound_hypercube()
                delta = self._to_whitened(rng.uniform(low, high, (n_members, len(low))) @ axes.T)
            else:
                counts = self._draw_counts(n_members, rng, fraction if method == "subset" else None)
                batches = np.split(counts, range(MEMBERS_PER_BATCH, n_members, MEMBERS_PER_BATCH))
                delta = np.concatenate([self._refit(batch) for batch in batches])
        return self.coefficients + _to_raw(self.whitening, len(self.coefficients), delta)

    @property
    def leverage(self) -> TrainingLeverage:
        """Leverage of other rows with respect to the training rows."""
        return TrainingLeverage(self.whitening.retained_columns, self.factor.R @ self.whitening.R)

    def bound_hypercube(self) -> tuple[Array, Array, Array]:
        """Principal axes ``(P, k)`` of the coefficients that make single rows exact, with their bounds ``(k,)``.

        In coordinates where the normal matrix is the identity: δ = u r / h for a row u of leverage h = uᵀu and
        residual r. Rows of almost no leverage, such as forces that vanish by symmetry, are ignored: no reasonable
        change makes them exact.
        """
        P = len(self.factor.R)
        n_rows = sum(len(block.X) for block in iterate_blocks(self._parts))
        min_leverage = MIN_RELATIVE_LEVERAGE * P / n_rows
        squares = np.zeros((P, P))
        for changes in self._exact_changes(min_leverage):
            squares += blas.dsyrk(1.0, changes, trans=1, lower=0)
        values, axes = scipy.linalg.eigh(squares, lower=False, check_finite=False)
        axes = np.ascontiguousarray(axes[:, values > MIN_RELATIVE_EIGENVALUE * values[-1]])
        low, high = np.zeros((2, axes.shape[1]))
        for changes in self._exact_changes(min_leverage):
            along = changes @ axes
            low, high = np.minimum(low, along.min(0, initial=0.0)), np.maximum(high, along.max(0, initial=0.0))
        return axes, low, high

    def _exact_changes(self, min_leverage: float) -> Iterator[Array]:
        """For each block, the changes of coefficients that make each row exact that has this leverage."""
        R = np.asfortranarray(self.factor.R @ self.whitening.R)
        for block in iterate_blocks(self._parts):
            w = self._weights[block.kind]
            u = solve_rows(R, self.whitening.select_columns(block.X) * w[:, None])
            residual = w * (block.Y[:, 0] - block.X @ self.coefficients)
            leverage = np.einsum("ij,ij->i", u, u)
            used = leverage > min_leverage
            yield np.asarray(u[used] * (residual[used] / leverage[used])[:, None])

    def _to_whitened(self, delta: Array) -> Array:
        """From coordinates of unit normal matrix to whitened ones, ``(m, P)``."""
        return np.asarray(scipy.linalg.solve_triangular(self.factor.R, delta.T, check_finite=False).T)

    def _draw_counts(self, n_members: int, rng: np.random.Generator, fraction: float | None) -> Array:
        """``(members, n_blocks)``: how often each block is drawn."""
        n = len(self.G)
        if fraction is None:
            return np.asarray(rng.multinomial(n, np.full(n, 1 / n), size=n_members).astype(float))
        n_drawn = min(max(1, round(fraction * n)), n - 1)
        return np.array([np.isin(np.arange(n), rng.permutation(n)[:n_drawn]) for _ in range(n_members)], dtype=float)

    def _refit(self, counts: Array) -> Array:
        """Whitened differences from the fit for draws of blocks; zero in directions that a draw does not determine."""
        P = len(self.factor.R)
        moments = (counts @ self.G.reshape(len(self.G), -1)).reshape(-1, P, P)
        deltas = []
        for M, c in zip(moments, counts @ self.c, strict=True):
            factor = NestedFactor.from_moments(M.T.copy(order="F"))
            if factor.estimate_condition(P) < MAX_CONDITION_DETERMINED:
                deltas.append(factor.solve(np.asfortranarray(c[:, None]))[:, 0])
                continue
            values, vectors = scipy.linalg.eigh(M.T, lower=False, check_finite=False)
            used = values > MIN_RELATIVE_EIGENVALUE * values[-1]
            deltas.append(vectors[:, used] @ ((vectors[:, used].T @ c) / values[used]))
        return np.array(deltas)


class _BlockMoments:
    """Whitened, weighted moments of each block of groups; targets are residuals of the baseline."""

    def __init__(self, whitening: Whitening, baseline: Array, weights: Array, block_of: Array) -> None:
        n_blocks, P = int(block_of.max()) + 1, len(baseline)
        self.whitening, self.baseline, self.weights, self.block_of = whitening, baseline, weights, block_of
        self.G, self.c, self.sum_squares = np.zeros((n_blocks, P, P)), np.zeros((n_blocks, P)), 0.0

    def add(self, block: RowBlock, pool: ThreadPoolExecutor) -> None:
        """Add rows; each thread adds to the moments of one block of groups, in the order of rows."""
        w = self.weights[block.kind]
        U = self.whitening.apply(block.X) * w[:, None]
        y = w * block.Y[:, 0] - U @ self.baseline
        self.sum_squares += float(y @ y)
        owner = self.block_of[block.configuration]

        def add(k: int) -> None:
            mask = owner == k
            rows = np.ascontiguousarray(U[mask])
            add_gram(self.G[k].T, rows)
            self.c[k] += rows.T @ y[mask]

        list(pool.map(add, np.unique(owner).tolist()))


def build_part(X: Array, y: Array, weights: Array, configuration: Array) -> tuple[Part, Array]:
    """Convert rows in memory, each with its weight, to a part for `CommitteeFit.from_parts`, and weights by kind.

    Parameters
    ----------
    X : (n, p) float64
    y, weights : (n,) float64
    configuration : (n,) int
        Numbered from 0.
    """
    kind, is_train = np.zeros(len(X), dtype=np.int8), np.ones(len(X), dtype=bool)
    block = RowBlock(X * weights[:, None], (y * weights)[:, None], kind, configuration, is_train)
    return (lambda: iter([block])), np.ones(3)


def _assign_blocks(group: Array, n_columns: int, rng: np.random.Generator) -> Array:
    """Assign the group of each configuration to a block."""
    names, number = np.unique(group, return_inverse=True)
    if len(names) < 2:
        raise InputError(f"a committee needs at least two groups of configurations; there is {len(names)}")
    n_blocks = max(2, min(MAX_BLOCKS, len(names), MAX_MOMENT_BYTES // (8 * n_columns**2)))
    return np.asarray(rng.permutation(np.arange(len(names)) % n_blocks)[number])


def _to_raw(whitening: Whitening, p: int, delta: Array) -> Array:
    """Raw coefficients ``(m, p)`` of whitened ones ``(m, P)``."""
    raw = np.zeros((len(delta), p))
    raw[:, whitening.retained_columns] = whitening.to_raw(delta.T).T
    return raw
