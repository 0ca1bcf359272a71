"""Committees of linear models from one factorisation: Bayesian bootstrap, random subsets, posterior draws, and POPS.

Rows are whitened once; each member then needs a sum of block moments and one Cholesky factor (see
`paretofit.linear.reduction`). Configurations, or groups of them, are drawn in at most `MAX_BLOCKS` blocks, so that the
memory of the moments does not grow with the data. The rows are read a few times, block by block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import scipy.linalg
from scipy.linalg import blas
from threadpoolctl import threadpool_limits

from paretofit.core import Array, InputError, check_choice
from paretofit.linear.reduction import (
    Part,
    Parts,
    RawFactors,
    RowBlock,
    ThreadMapper,
    Whitening,
    add_gram,
    iterate_blocks,
    normalise_parts,
    solve_rows,
    sum_parts,
)
from paretofit.uncertainty.extrapolation import TrainingLeverage
from paretofit.uncertainty.moment_factor import MomentFactor

MAX_BLOCKS = 100  # blocks of groups that are drawn together; at most one for each group
MEMBERS_PER_BATCH = 8  # number of members whose moments are summed in one product
MAX_MOMENT_BYTES = 4 << 30  # size of the moments of all blocks; with many columns, it limits the number of blocks
# condition number of the whitened moments above which the rows do not determine the coefficients
MAX_CONDITION_DETERMINED = 1e12
MIN_RELATIVE_EIGENVALUE = 1e-10  # ratio to the largest eigenvalue; below it, a draw does not determine the direction
MIN_RELATIVE_LEVERAGE = 1e-2  # ratio to the mean leverage; POPS ignores rows below it
CommitteeMethod = Literal["bootstrap", "subset", "posterior", "pops"]
COMMITTEE_METHODS = get_args(CommitteeMethod)


@dataclass(frozen=True)
class CommitteeFit:
    """Weighted fit of all rows, with the moments from which committees are drawn.

    Attributes
    ----------
    coefficients : (p,) float64
        Coefficients of the fit; 0 for a column that depends on earlier ones.
    whitening : Whitening
    factor : MomentFactor
        Cholesky factor of the whitened moments of all rows.
    G : (n_blocks, P, P) float64
        Whitened moments of each block of groups; lower triangles.
    c : (n_blocks, P) float64
        Products of the whitened rows of each block with the residuals of the fit.
    variance : float
        Sum of the squared weighted residuals divided by the degrees of freedom.
    block_numbers : (n_configurations,) int64
        Block of each configuration.
    residual_squares, n_rows : (n_blocks,) float64
        Sum of the squared weighted residuals, and number of rows, of each block.
    is_used : (n_blocks,) bool
        Whether each block is part of the fit; members are drawn from these blocks. See `leave_out`.
    """

    coefficients: Array
    whitening: Whitening
    factor: MomentFactor
    G: Array
    c: Array
    variance: float
    block_numbers: Array
    residual_squares: Array
    n_rows: Array
    is_used: Array
    _parts: Sequence[Part]
    _weights: Array

    @classmethod
    def from_parts(
        cls, parts: Parts, group: Array, weights: Array, rng: np.random.Generator, *, threads: int = 1
    ) -> CommitteeFit:
        """Fit all rows, and compute the moments of each block of groups.

        Parameters
        ----------
        parts : callable or sequence of callable
            Each returns a new iterator over `RowBlock`s of training rows with one column of targets.
        group : (n_configurations,) int
            Group of each configuration; the configurations of a group are drawn together.
        weights : (3,) float64
            w_E, w_F, w_S.
        rng : numpy.random.Generator
            Generator that assigns the groups to blocks.
        threads : int
            Number of threads; the result does not depend on it.

        Raises
        ------
        InputError
            If there are fewer than two groups, or the rows do not determine the coefficients.
        """
        parts = normalise_parts(parts)
        p = next(iterate_blocks(parts)).X.shape[1]
        raw_factors = sum_parts(parts, lambda: RawFactors(p, 1), ThreadMapper(threads)).finish()
        n_train = sum(factor.n for factor in raw_factors.factors.values())
        with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
            whitening, theta = raw_factors.compute_whitening(weights)
            baseline, P = theta[:, 0], len(theta)
            moments = _BlockMoments(whitening, baseline, weights, _assign_blocks(group, P, rng))
            for block in iterate_blocks(parts):
                moments.add(block, pool)
        factor = MomentFactor.from_moments(moments.G.sum(axis=0).T)
        if n_train <= P or factor.estimate_condition() > MAX_CONDITION_DETERMINED:
            raise InputError(
                f"{n_train} rows do not determine {p} coefficients, so that a committee has no meaningful spread; "
                "use a smaller 2Jmax or more configurations"
            )
        is_used = np.ones(len(moments.G), dtype=bool)
        baseline_fit = cls(
            _convert_to_raw(whitening, p, baseline[None])[0],
            whitening,
            factor,
            moments.G,
            moments.c,
            np.nan,
            moments.block_numbers,
            moments.squares,
            moments.n_rows,
            is_used,
            parts,
            weights,
        )
        return baseline_fit._restrict_to_blocks(is_used, factor)

    def leave_out(self, blocks: Array) -> CommitteeFit:
        """Repeat the fit without some blocks, from the moments of the others; members are drawn from the others.

        Parameters
        ----------
        blocks : (k,) int
            Numbers of the blocks to leave out.

        Raises
        ------
        InputError
            If fewer than two blocks are left, or the other blocks do not determine the coefficients.
        """
        is_used = self.is_used.copy()
        is_used[blocks] = False
        P = len(self.factor.R)
        moments = (is_used.astype(float) @ self.G.reshape(len(self.G), -1)).reshape(P, P)
        factor = MomentFactor.from_moments(moments.T.copy(order="F"))
        if is_used.sum() < 2 or not factor.estimate_condition() < MAX_CONDITION_DETERMINED:
            raise InputError(f"without {len(blocks)} of {len(is_used)} blocks, the rows do not determine the fit")
        return self._restrict_to_blocks(is_used, factor)

    def _restrict_to_blocks(self, is_used: Array, factor: MomentFactor) -> CommitteeFit:
        """Return the least-squares fit of the blocks in use.

        Parameters
        ----------
        is_used : (n_blocks,) bool
        factor : MomentFactor
            Cholesky factor of the summed moments of these blocks.
        """
        delta = factor.solve(self.c[is_used].sum(axis=0))
        shifts = np.array([blas.dsymv(1.0, G.T, delta, lower=0) for G in self.G])
        # rounding can make a sum of squares slightly negative
        squares = np.maximum(self.residual_squares - (2 * self.c - shifts) @ delta, 0.0)
        n_free = max(int(self.n_rows[is_used].sum()) - len(delta), 1)
        return replace(
            self,
            coefficients=self.coefficients + _convert_to_raw(self.whitening, len(self.coefficients), delta[None])[0],
            factor=factor,
            c=self.c - shifts,
            variance=float(squares[is_used].sum()) / n_free,
            residual_squares=squares,
            is_used=is_used,
        )

    def draw_members(
        self, n_members: int, rng: np.random.Generator, *, method: CommitteeMethod = "bootstrap", fraction: float = 0.7
    ) -> Array:
        """Draw the coefficients of a committee, ``(n_members, p) float64``.

        Parameters
        ----------
        n_members : int
            Number of members, at least two.
        rng : numpy.random.Generator
        method : {"bootstrap", "subset", "posterior", "pops"}
            "bootstrap" draws an exponentially distributed weight for each group (Bayesian bootstrap); "subset" draws a
            share of the groups (delete-d); "posterior" draws from the Gaussian posterior of the coefficients with the
            noise of the fit; "pops" draws uniformly from the hypercube, along principal axes, that bounds the
            coefficients that each make one row exact. It represents the misspecification of the model, not noise.
        fraction : float
            Share of the groups in each member of "subset".

        Raises
        ------
        InputError
            If there are fewer than two members, or the method or the fraction is invalid.

        Notes
        -----
        The weights of the Bayesian bootstrap (D. B. Rubin, Ann. Stat. 9, 130, 1981) have the same mean and variance as
        those of draws with replacement, but no weight is zero. Members therefore have the rank of the fit. If groups
        are drawn with replacement, a member lacks 37 % of them; in "subset", it also lacks some. Where few groups
        determine a direction (60 to 176 labels of tungsten), the energy errors of such a member on the training set
        were 100 to 480 times those of the fit.

        POPS follows T. D. Swinburne and D. Perez, Mach. Learn.: Sci. Technol. 6, 015008 (2025), but uses nearly all
        rows, whereas the authors' package by default uses the rows whose leverage is above the median. With few rows
        for each column, the residuals of training rows are small, and so is the hypercube
        (tests/benchmarks/RESULTS.md). The spread of "subset" is not rescaled: with 0.7 of the groups, it is about 0.65
        of the spread of "bootstrap".
        """
        if n_members < 2:
            raise InputError(f"a committee requires at least two members; got {n_members}")
        check_choice("the method of a committee", method, COMMITTEE_METHODS)
        if not 0 < fraction < 1:
            raise InputError(f"the share of groups in a subset must be between 0 and 1; got {fraction}")
        with threadpool_limits(1):
            if method == "posterior":
                delta = self._convert_to_whitened(
                    np.sqrt(self.variance) * rng.normal(size=(n_members, len(self.factor.R)))
                )
            elif method == "pops":
                axes, low, high = self.bound_hypercube()
                delta = self._convert_to_whitened(rng.uniform(low, high, (n_members, len(low))) @ axes.T)
            else:
                weights = self._draw_block_weights(n_members, rng, fraction if method == "subset" else None)
                batches = np.split(weights, range(MEMBERS_PER_BATCH, n_members, MEMBERS_PER_BATCH))
                delta = np.concatenate([self._refit(batch) for batch in batches])
        return self.coefficients + _convert_to_raw(self.whitening, len(self.coefficients), delta)

    @property
    def leverage(self) -> TrainingLeverage:
        """Function that computes the leverage of other rows with respect to the training rows."""
        return TrainingLeverage(self.whitening.retained_columns, self.factor.R @ self.whitening.R)

    def bound_hypercube(self) -> tuple[Array, Array, Array]:
        """Compute the hypercube of the coefficient changes, each of which makes the fit reproduce one row exactly.

        Returns the principal axes ``(P, k)`` of these changes, and their lowest and highest coordinates ``(k,)`` along
        each axis; these intervals contain zero.

        In coordinates in which the normal matrix is the identity, the change δ = u r / h makes a row u exact, with the
        leverage h = uᵀu and the residual r. Rows of almost no leverage, such as forces that vanish by symmetry, are
        ignored, because no reasonable change makes them exact.
        """
        P = len(self.factor.R)
        min_leverage = MIN_RELATIVE_LEVERAGE * P / self.n_rows[self.is_used].sum()
        squares = np.zeros((P, P))
        for changes in self._iterate_pops_changes(min_leverage):
            squares += blas.dsyrk(1.0, changes, trans=1, lower=0)
        eigenvalues, axes = scipy.linalg.eigh(squares, lower=False, check_finite=False)
        axes = np.ascontiguousarray(axes[:, eigenvalues > MIN_RELATIVE_EIGENVALUE * eigenvalues[-1]])
        axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])  # LAPACK's signs are arbitrary
        low, high = np.zeros((2, axes.shape[1]))
        for changes in self._iterate_pops_changes(min_leverage):
            coordinates = changes @ axes
            low = np.minimum(low, coordinates.min(0, initial=0.0))
            high = np.maximum(high, coordinates.max(0, initial=0.0))
        return axes, low, high

    def _iterate_pops_changes(self, min_leverage: float) -> Iterator[Array]:
        """Yield, block by block, one coefficient change per row, after which the fit reproduces this row exactly.

        Rows with a leverage up to `min_leverage`, and rows of configurations that are left out, are omitted.
        """
        R = np.asfortranarray(self.factor.R @ self.whitening.R)
        for block in iterate_blocks(self._parts):
            w = self._weights[block.kind]
            u = solve_rows(R, self.whitening.select_columns(block.X) * w[:, None])
            residual = w * (block.Y[:, 0] - block.X @ self.coefficients)
            leverage = np.einsum("ij,ij->i", u, u)
            is_used = (leverage > min_leverage) & self.is_used[self.block_numbers[block.configuration]]
            if is_used.any():  # DSYRK rejects matrices without rows
                yield np.asarray(u[is_used] * (residual[is_used] / leverage[is_used])[:, None])

    def _convert_to_whitened(self, delta: Array) -> Array:
        """Convert coordinates in which the normal matrix is the identity to whitened coefficients, ``(m, P)``."""
        return np.asarray(scipy.linalg.solve_triangular(self.factor.R, delta.T, check_finite=False).T)

    def _draw_block_weights(self, n_members: int, rng: np.random.Generator, fraction: float | None) -> Array:
        """Draw the weights of blocks in members, ``(n_members, n_blocks)``: exponential, or 0 and 1 with a fraction."""
        used_blocks = np.flatnonzero(self.is_used)
        n, weights = len(used_blocks), np.zeros((n_members, len(self.G)))
        if fraction is None:
            weights[:, used_blocks] = rng.exponential(size=(n_members, n))
            return weights
        # at least one block is drawn, and at least one is not
        n_drawn = min(max(1, round(fraction * n)), n - 1)
        weights[:, used_blocks] = [np.isin(np.arange(n), rng.permutation(n)[:n_drawn]) for _ in range(n_members)]
        return weights

    def _refit(self, weights: Array) -> Array:
        """Fit the blocks with the weights of each member; return the whitened changes of the coefficients, ``(m, P)``.

        A change is zero in directions that the weighted blocks do not determine.
        """
        P = len(self.factor.R)
        moments = (weights @ self.G.reshape(len(self.G), -1)).reshape(-1, P, P)
        deltas = []
        for M, c in zip(moments, weights @ self.c, strict=True):
            factor = MomentFactor.from_moments(M.T.copy(order="F"))
            if factor.estimate_condition() < MAX_CONDITION_DETERMINED:
                deltas.append(factor.solve(c))
                continue
            eigenvalues, eigenvectors = scipy.linalg.eigh(M.T, lower=False, check_finite=False)
            is_used = eigenvalues > MIN_RELATIVE_EIGENVALUE * eigenvalues[-1]
            deltas.append(eigenvectors[:, is_used] @ ((eigenvectors[:, is_used].T @ c) / eigenvalues[is_used]))
        return np.array(deltas)


class _BlockMoments:
    """Whitened, weighted moments of each block of groups, with residuals of the baseline as targets."""

    def __init__(self, whitening: Whitening, baseline: Array, weights: Array, numbers: Array) -> None:
        n_blocks, P = int(numbers.max()) + 1, len(baseline)
        self.whitening, self.baseline, self.weights, self.block_numbers = whitening, baseline, weights, numbers
        self.G, self.c = np.zeros((n_blocks, P, P)), np.zeros((n_blocks, P))
        self.squares, self.n_rows = np.zeros(n_blocks), np.zeros(n_blocks)

    def add(self, block: RowBlock, pool: ThreadPoolExecutor) -> None:
        """Add rows, those of a block of groups in one thread, so that sums do not depend on the number of threads."""
        w = self.weights[block.kind]
        U = self.whitening.apply(block.X) * w[:, None]
        y = w * block.Y[:, 0] - U @ self.baseline
        row_block_numbers = self.block_numbers[block.configuration]

        def add_group_block(k: int) -> None:
            mask = row_block_numbers == k
            rows = np.ascontiguousarray(U[mask])
            add_gram(self.G[k].T, rows)
            self.c[k] += rows.T @ y[mask]
            self.squares[k] += y[mask] @ y[mask]
            self.n_rows[k] += len(rows)

        # the list waits for the threads and raises their exceptions
        list(pool.map(add_group_block, np.unique(row_block_numbers).tolist()))


def build_part(X: Array, y: Array, weights: Array, configuration: Array) -> tuple[Part, Array]:
    """Convert weighted rows in memory to a part for `CommitteeFit.from_parts`; also return unit weights of kinds.

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
    """Assign the groups to blocks at random; return the block of each configuration, ``(n_configurations,)``."""
    names, positions = np.unique(group, return_inverse=True)
    if len(names) < 2:
        raise InputError(f"a committee requires at least two groups of configurations; got {len(names)}")
    n_blocks = max(2, min(MAX_BLOCKS, len(names), MAX_MOMENT_BYTES // (8 * n_columns**2)))
    return np.asarray(rng.permutation(np.arange(len(names)) % n_blocks)[positions])


def _convert_to_raw(whitening: Whitening, p: int, delta: Array) -> Array:
    """Convert whitened coefficients, ``(m, P)``, to raw ones, ``(m, p)``, which are 0 in columns not retained."""
    raw_coefficients = np.zeros((len(delta), p))
    raw_coefficients[:, whitening.retained_columns] = whitening.to_raw_coefficients(delta.T).T
    return raw_coefficients
