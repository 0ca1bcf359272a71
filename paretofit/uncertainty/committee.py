"""Committees of linear models from one factorisation: bootstrap, random subsets, posterior draws, and POPS.

Rows are whitened once; what a member needs then is a sum of block moments and one Cholesky factor (DESIGN §4.11).
Configurations, or families of relatives, are drawn in at most `BLOCKS` blocks, so that the memory of the moments does
not grow with the data, and rows are read blockwise, a few times, however many there are.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import scipy.linalg
from scipy.linalg import blas, lapack
from threadpoolctl import threadpool_limits

from paretofit.core import InputError
from paretofit.linear.reduction import (
    GramAccumulator,
    NestedFactor,
    Part,
    Parts,
    RowBlock,
    ThreadMapper,
    Whitening,
    add_gram,
    as_parts,
    compute_whitening,
    iterate_blocks,
    solve_rows,
    sum_parts,
)
from paretofit.uncertainty.extrapolation import TrainingLeverage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from paretofit.core import Array

BLOCKS = 100  # that are drawn; fewer where there are fewer groups
BATCH = 8  # members whose moments are summed at once
MOST_BYTES = 4 << 30  # of their moments; with very many columns blocks become fewer
DETERMINED = 1e12  # condition number of the whitened moments above which rows do not determine the coefficients
INDEPENDENT = 1e-10  # of the largest eigenvalue: directions that a draw does not see
CommitteeMethod = Literal["bootstrap", "subset", "posterior", "pops"]
MIN_RELATIVE_LEVERAGE = 1e-2  # of the mean, for POPS
COMMITTEE_METHODS = get_args(CommitteeMethod)


@dataclass(frozen=True)
class CommitteeFit:
    """A weighted fit of all rows, with the moments that its committees are made from.

    Attributes
    ----------
    coefficients : (p,) float64
        Of the fit; 0 for a column that depends on earlier ones.
    whitening : Whitening
    factor : NestedFactor
        Of the whitened moments of all rows.
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
            What is drawn together: families of relatives, or each configuration by itself.
        weights : (3,) float64
            w_E, w_F, w_S.
        rng : numpy.random.Generator
            Of the blocks of groups.
        threads : int
            The result does not depend on it.

        Raises
        ------
        InputError
            If there are fewer than two groups, or the rows do not determine the coefficients.
        """
        own = as_parts(parts)
        p = next(iterate_blocks(own)).X.shape[1]
        sums = sum_parts(own, lambda: GramAccumulator(weights, p, 1), ThreadMapper(threads)).finish()
        with threadpool_limits(1):
            whitening = compute_whitening(sums, own, weights)
            baseline = blas.dtrsm(1.0, whitening.R, sums.c[whitening.retained_columns], side=0, lower=0, trans_a=1)[
                :, 0
            ]
        P = len(baseline)
        block_of = _blocks_of_groups(group, P, rng)
        moments = _BlockMoments(whitening, baseline, weights, block_of)
        with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
            for block in iterate_blocks(own):
                moments.add(block, pool)
        factor = NestedFactor.from_moments(moments.G.sum(axis=0).T)
        if sums.n_train <= P or factor.condition(P) > DETERMINED:
            raise InputError(
                f"{sums.n_train} rows do not determine {p} coefficients, so that a committee has no spread to go by; "
                "take a smaller 2Jmax or more configurations"
            )
        whole = moments.c.sum(axis=0)
        delta = factor.solve(np.asfortranarray(whole[:, None]))[:, 0]
        variance = max(moments.squares - float(whole @ delta), 0.0) / max(sums.n_train - P, 1)
        c = moments.c - np.array([blas.dsymv(1.0, one.T, delta, lower=0) for one in moments.G])
        raw = _raw(whitening, p, (baseline + delta)[None])[0]
        return cls(raw, whitening, factor, moments.G, c, variance, own, weights)

    def draw_members(
        self, n_members: int, rng: np.random.Generator, *, method: CommitteeMethod = "bootstrap", fraction: float = 0.7
    ) -> Array:
        """Coefficients of a committee.

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
            Of the groups in a subset.

        Returns
        -------
        (members, p) float64

        Raises
        ------
        InputError
            If there are fewer than two members, or the method or fraction is not one.

        Notes
        -----
        POPS after T. D. Swinburne and D. Perez, Mach. Learn.: Sci. Technol. 6, 015008 (2025), from nearly all rows;
        their package takes by default those of higher leverage than the median. Where a model has few rows for each
        column, residuals of training rows are small, and so is the hypercube (tests/benchmarks/RESULTS.md). The spread
        of subsets is that of the subsets: with 0.7 of the groups about 0.65 of what the bootstrap has.
        """
        if n_members < 2:
            raise InputError(f"a committee needs two members at least; got {n_members}")
        if method not in COMMITTEE_METHODS:
            raise InputError(f"the method '{method}' is not one of {', '.join(COMMITTEE_METHODS)}")
        if not 0 < fraction < 1:
            raise InputError(f"the share of groups in a subset must lie between 0 and 1; got {fraction}")
        with threadpool_limits(1):
            if method == "posterior":
                delta = self._unwhitened(np.sqrt(self.variance) * rng.normal(size=(n_members, len(self.factor.R))))
            elif method == "pops":
                axes, low, high = self.bound_hypercube()
                delta = self._unwhitened(rng.uniform(low, high, (n_members, len(low))) @ axes.T)
            else:
                counts = self._counts(n_members, rng, fraction if method == "subset" else None)
                delta = np.concatenate([self._refits(counts[k : k + BATCH]) for k in range(0, n_members, BATCH)])
        return self.coefficients + _raw(self.whitening, len(self.coefficients), delta)

    @property
    def leverage(self) -> TrainingLeverage:
        """Leverage of other rows with respect to these."""
        return TrainingLeverage(self.whitening.retained_columns, self.factor.R @ self.whitening.R)

    def bound_hypercube(self) -> tuple[Array, Array, Array]:
        """Principal axes ``(P, k)`` of the coefficients that make single rows exact, with their bounds ``(k,)``.

        In coordinates where the normal matrix is the identity: δ = u r / h for a row u of leverage h = uᵀu and
        residual r. Rows of hardly any leverage, such as forces that vanish by symmetry, are left out: they can be made
        exact by no reasonable change.
        """
        P = len(self.factor.R)
        squares, n_rows = np.zeros((P, P)), sum(len(block.X) for block in iterate_blocks(self._parts))
        for exact in self._exact(MIN_RELATIVE_LEVERAGE * P / n_rows):
            squares += blas.dsyrk(1.0, exact, trans=1, lower=0)
        values, axes = scipy.linalg.eigh(squares, lower=False, check_finite=False)
        axes = np.ascontiguousarray(axes[:, values > INDEPENDENT * values[-1]])
        low, high = np.zeros((2, axes.shape[1]))
        for exact in self._exact(MIN_RELATIVE_LEVERAGE * P / n_rows):
            along = exact @ axes
            low, high = np.minimum(low, along.min(0, initial=0.0)), np.maximum(high, along.max(0, initial=0.0))
        return axes, low, high

    def _exact(self, least: float) -> Iterator[Array]:
        """For the rows of each block with so much leverage the coefficients that make them exact."""
        R = np.asfortranarray(self.factor.R @ self.whitening.R)
        for block in iterate_blocks(self._parts):
            w = self._weights[block.kind]
            u = solve_rows(R, self.whitening.select_columns(block.X) * w[:, None])
            residual = w * (block.Y[:, 0] - block.X @ self.coefficients)
            leverage = np.einsum("ij,ij->i", u, u)
            seen = leverage > least
            yield np.asarray(u[seen] * (residual[seen] / leverage[seen])[:, None])

    def _unwhitened(self, delta: Array) -> Array:
        """From coordinates of unit normal matrix to whitened ones, ``(m, P)``."""
        return np.asarray(scipy.linalg.solve_triangular(self.factor.R, delta.T, check_finite=False).T)

    def _counts(self, members: int, rng: np.random.Generator, fraction: float | None) -> Array:
        """``(members, n_blocks)``: how often each block is drawn."""
        n = len(self.G)
        if fraction is None:
            return np.asarray(rng.multinomial(n, np.full(n, 1 / n), size=members).astype(float))
        kept = min(max(1, round(fraction * n)), n - 1)
        return np.array([np.isin(np.arange(n), rng.permutation(n)[:kept]) for _ in range(members)], dtype=float)

    def _refits(self, counts: Array) -> Array:
        """Whitened differences from the fit of draws of blocks; what one does not see stays where the fit has it."""
        P = len(self.factor.R)
        moments = (counts @ self.G.reshape(len(self.G), -1)).reshape(-1, P, P)
        found = []
        for M, right in zip(moments, counts @ self.c, strict=True):
            factor = NestedFactor.from_moments(M.T.copy(order="F"))
            if factor.condition(P) < DETERMINED:
                found.append(factor.solve(np.asfortranarray(right[:, None]))[:, 0])
                continue
            values, vectors = scipy.linalg.eigh(M.T, lower=False, check_finite=False)
            seen = values > INDEPENDENT * values[-1]
            found.append(vectors[:, seen] @ ((vectors[:, seen].T @ right) / values[seen]))
        return np.array(found)


class _BlockMoments:
    """Whitened, weighted moments of each block of groups; targets are residuals of the baseline."""

    def __init__(self, whitening: Whitening, baseline: Array, weights: Array, block_of: Array) -> None:
        n_blocks = int(block_of.max()) + 1
        self.whitening, self.baseline, self.weights, self.block_of = whitening, baseline, weights, block_of
        self.G = np.zeros((n_blocks, len(baseline), len(baseline)))
        self.c, self.squares = np.zeros((n_blocks, len(baseline))), 0.0

    def add(self, block: RowBlock, pool: ThreadPoolExecutor) -> None:
        """Add rows; each thread adds to moments of its own, in the order of rows."""
        w = self.weights[block.kind]
        U = self.whitening.apply(block.X) * w[:, None]
        y = w * block.Y[:, 0] - U @ self.baseline
        self.squares += float(y @ y)
        owner = self.block_of[block.configuration]

        def add(k: int) -> None:
            own = owner == k
            part = np.ascontiguousarray(U[own])
            add_gram(self.G[k].T, part)
            self.c[k] += part.T @ y[own]

        list(pool.map(add, np.unique(owner).tolist()))


def part_from_arrays(X: Array, y: Array, weights: Array, configuration: Array) -> tuple[Part, Array]:
    """Rows in memory, with a weight each, as `CommitteeFit.of` takes them: blocks, and the weights by kind.

    Parameters
    ----------
    X : (n, p) float64
    y, weights : (n,) float64
    configuration : (n,) int
        Numbered from 0.
    """
    block = RowBlock(
        X * weights[:, None],
        (y * weights)[:, None],
        np.zeros(len(X), dtype=np.int8),
        configuration,
        np.ones(len(X), dtype=bool),
    )
    return (lambda: iter([block])), np.ones(3)


def _blocks_of_groups(group: Array, columns: int, rng: np.random.Generator) -> Array:
    """Which block each configuration's group is drawn with."""
    names, number = np.unique(group, return_inverse=True)
    if len(names) < 2:
        raise InputError(f"a committee needs two groups of configurations at least; there is {len(names)}")
    n_blocks = max(2, min(BLOCKS, len(names), MOST_BYTES // (8 * columns**2)))
    return np.asarray(rng.permutation(np.arange(len(names)) % n_blocks)[number])


def _raw(whitening: Whitening, p: int, delta: Array) -> Array:
    """Raw coefficients ``(m, p)`` of whitened ones ``(m, P)``."""
    raw = np.zeros((len(delta), p))
    raw[:, whitening.retained_columns] = lapack.dtrtrs(whitening.R, np.asfortranarray(delta.T), lower=0)[0].T
    return raw
