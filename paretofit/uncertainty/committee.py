"""Committees of linear models from one factorisation: Bayesian bootstrap, random subsets, posterior draws, and POPS.

Rows are whitened once (see `paretofit.linear.reduction`). Each member of the bootstrap and of the subsets then needs a
sum of block moments and one Cholesky factor; the other methods use the factor of the fit. Groups of configurations are
drawn in at most `MAX_BLOCKS` blocks, so that the memory of the moments does not grow with the data. The rows are read a
few times.
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

MAX_BLOCKS = 100  # number of blocks; the groups of a block are drawn together
MEMBERS_PER_BATCH = 8  # number of members whose moments are summed in one product
MAX_MOMENT_BYTES = 4 << 30  # memory of the moments of all blocks; with many columns, it limits the number of blocks
# condition number of the whitened moments above which the rows do not determine the coefficients
MAX_CONDITION_DETERMINED = 1e12
MIN_RELATIVE_EIGENVALUE = 1e-10  # ratio to the largest eigenvalue; directions with a smaller one are undetermined
MIN_RELATIVE_LEVERAGE = 1e-2  # ratio to the mean leverage; POPS ignores rows with a smaller leverage
CommitteeMethod = Literal["bootstrap", "subset", "posterior", "pops"]
COMMITTEE_METHODS = get_args(CommitteeMethod)


@dataclass(frozen=True)
class CommitteeFit:
    """Weighted fit of all rows, with the moments from which committees are drawn.

    p is the number of columns of the rows, and P the number of columns that the whitening retains.

    Attributes
    ----------
    coefficients : (p,) float64
        Coefficients of the fit; 0 for a column that depends on earlier ones.
    whitening : Whitening
        Map between rows and whitened rows.
    factor : MomentFactor
        Cholesky factor of the whitened moments of the blocks in use.
    G : (n_blocks, P, P) float64
        Whitened moments of the weighted rows of each block of groups; lower triangles.
    c : (n_blocks, P) float64
        Products of the whitened rows of each block with the weighted residuals of the fit.
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
            Weights w_E, w_F and w_S of energy, force and stress rows.
        rng : numpy.random.Generator
            Generator that assigns the groups to blocks.
        threads : int
            Number of threads; the fit does not depend on it.

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
            whitening, whitened_coefficients = raw_factors.compute_whitening(weights)
            baseline, P = whitened_coefficients[:, 0], len(whitened_coefficients)
            moments = _BlockMoments(whitening, baseline, weights, _assign_blocks(group, P, rng))
            for row_block in iterate_blocks(parts):
                moments.add(row_block, pool)
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
            np.nan,  # `_restrict_to_blocks` computes the variance
            moments.block_numbers,
            moments.residual_squares,
            moments.n_rows,
            is_used,
            parts,
            weights,
        )
        return baseline_fit._restrict_to_blocks(is_used, factor)

    def leave_out(self, blocks: Array) -> CommitteeFit:
        """Return the fit without some blocks, computed from moments; its members are drawn from the remaining blocks.

        Parameters
        ----------
        blocks : (k,) int
            Numbers of the blocks to leave out.

        Raises
        ------
        InputError
            If fewer than two blocks remain, or the remaining blocks do not determine the coefficients.
        """
        is_used = self.is_used.copy()
        is_used[blocks] = False
        P = len(self.factor.R)
        moments = (is_used.astype(float) @ self.G.reshape(len(self.G), -1)).reshape(P, P)
        factor = MomentFactor.from_moments(moments.T.copy(order="F"))
        if is_used.sum() < 2 or factor.estimate_condition() >= MAX_CONDITION_DETERMINED:
            raise InputError(f"without {len(blocks)} of {len(is_used)} blocks, the rows do not determine the fit")
        return self._restrict_to_blocks(is_used, factor)

    def _restrict_to_blocks(self, is_used: Array, factor: MomentFactor) -> CommitteeFit:
        """Return the least-squares fit of the blocks in use.

        `is_used`, ``(n_blocks,)``, selects the blocks; `factor` is the Cholesky factor of their summed moments.
        """
        # the whitened coefficients change by δ, c of a block by -Gδ, and its sum of squares by -2 c·δ + δ·Gδ
        delta = factor.solve(self.c[is_used].sum(axis=0))
        shifts = np.array([blas.dsymv(1.0, G.T, delta, lower=0) for G in self.G])
        # rounding can make a sum of squares slightly negative
        squares = np.maximum(self.residual_squares - (2 * self.c - shifts) @ delta, 0.0)
        degrees_of_freedom = max(int(self.n_rows[is_used].sum()) - len(delta), 1)
        return replace(
            self,
            coefficients=self.coefficients + _convert_to_raw(self.whitening, len(self.coefficients), delta[None])[0],
            factor=factor,
            c=self.c - shifts,
            variance=float(squares[is_used].sum()) / degrees_of_freedom,
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
            share of the groups (delete-d jackknife); "posterior" draws from the Gaussian posterior with the
            noise of the fit; "pops" draws uniformly from the hypercube of `bound_hypercube`, which represents the
            misspecification of the model instead of noise. Groups of the same block are drawn together.
        fraction : float
            Share of the blocks to which each member of "subset" is fitted, between 0 and 1.

        Raises
        ------
        InputError
            If there are fewer than two members, or the method or the fraction is invalid.

        Notes
        -----
        The weights of the Bayesian bootstrap (D. B. Rubin, Ann. Stat. 9, 130, 1981) have the same mean and variance as
        those of draws with replacement, but no weight is zero. Members therefore have the rank of the fit. If groups
        were drawn with replacement, a member would lack 37 % of them. Where few groups determine a direction (60 to
        176 labels of tungsten), members that lack groups, as in "subset", had energy errors on the training set of 100
        to 480 times those of the fit.

        POPS follows T. D. Swinburne and D. Perez, Mach. Learn.: Sci. Technol. 6, 015008 (2025), but uses nearly all
        rows, whereas the authors' package by default uses the rows whose leverage is above the median. With few rows
        for each column, the residuals of training rows are small, and so is the hypercube
        (tests/benchmarks/RESULTS.md). The spread of "subset" is not rescaled: with 0.7 of the groups, it is about 0.65
        times the spread of "bootstrap".
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
        """Compute a hypercube that contains, for every row, the coefficient change that makes the fit reproduce it.

        In coordinates in which the normal matrix is the identity, the change δ = u r / h makes a row u exact, with the
        leverage h = uᵀu and the residual r. Rows of almost no leverage, such as forces that vanish by symmetry, are
        ignored, because no reasonable change makes them exact. All rows are read twice.

        Returns
        -------
        axes : (P, k) float64
            Principal axes of the changes, in these coordinates.
        low, high : (k,) float64
            Lowest and highest coordinate of the changes along each axis; the interval contains zero.
        """
        P = len(self.factor.R)
        min_leverage = MIN_RELATIVE_LEVERAGE * P / self.n_rows[self.is_used].sum()
        squares = np.zeros((P, P))
        for changes in self._iterate_pops_changes(min_leverage):
            squares += blas.dsyrk(1.0, changes, trans=1, lower=0)
        eigenvalues, axes = scipy.linalg.eigh(squares, lower=False, check_finite=False)
        axes = np.ascontiguousarray(axes[:, eigenvalues > MIN_RELATIVE_EIGENVALUE * eigenvalues[-1]])
        # the largest component of each axis is made positive, because the signs from LAPACK are arbitrary
        axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
        low, high = np.zeros((2, axes.shape[1]))
        for changes in self._iterate_pops_changes(min_leverage):
            coordinates = changes @ axes
            low = np.minimum(low, coordinates.min(0, initial=0.0))
            high = np.maximum(high, coordinates.max(0, initial=0.0))
        return axes, low, high

    def _iterate_pops_changes(self, min_leverage: float) -> Iterator[Array]:
        """Yield the changes ``(n, P)`` of `bound_hypercube` for each block of rows.

        Rows with a leverage up to `min_leverage`, and rows of blocks that the fit does not use, are omitted.
        """
        R = np.asfortranarray(self.factor.R @ self.whitening.R)  # RᵀR is the normal matrix of all rows
        for row_block in iterate_blocks(self._parts):
            w = self._weights[row_block.kind]
            u = solve_rows(R, self.whitening.select_columns(row_block.X) * w[:, None])
            residual = w * (row_block.Y[:, 0] - row_block.X @ self.coefficients)
            leverage = np.einsum("ij,ij->i", u, u)
            is_used = (leverage > min_leverage) & self.is_used[self.block_numbers[row_block.configuration]]
            if is_used.any():  # BLAS's dsyrk rejects matrices without rows
                yield np.asarray(u[is_used] * (residual[is_used] / leverage[is_used])[:, None])

    def _convert_to_whitened(self, delta: Array) -> Array:
        """Convert coordinates ``(m, P)`` in which the normal matrix is the identity to whitened coefficients."""
        return np.asarray(scipy.linalg.solve_triangular(self.factor.R, delta.T, check_finite=False).T)

    def _draw_block_weights(self, n_members: int, rng: np.random.Generator, fraction: float | None) -> Array:
        """Draw the weight of each block for each member, ``(n_members, n_blocks)``; it is 0 for blocks not in use.

        If `fraction` is None, weights are exponentially distributed; otherwise, this share of them is 1, the others 0.
        """
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
        """Fit the blocks with the weights ``(m, n_blocks)`` of each member; return the whitened changes ``(m, P)``.

        Changes are relative to the fit, and zero in directions that the weighted blocks do not determine.
        """
        P = len(self.factor.R)
        moments = (weights @ self.G.reshape(len(self.G), -1)).reshape(-1, P, P)
        deltas = []
        for M, c in zip(moments, weights @ self.c, strict=True):  # normal equations M δ = c
            factor = MomentFactor.from_moments(M.T.copy(order="F"))
            if factor.estimate_condition() < MAX_CONDITION_DETERMINED:
                deltas.append(factor.solve(c))
                continue
            eigenvalues, eigenvectors = scipy.linalg.eigh(M.T, lower=False, check_finite=False)
            is_determined = eigenvalues > MIN_RELATIVE_EIGENVALUE * eigenvalues[-1]
            axes = eigenvectors[:, is_determined]
            deltas.append(axes @ ((axes.T @ c) / eigenvalues[is_determined]))
        return np.array(deltas)


class _BlockMoments:
    """Moments of the whitened, weighted rows of each block of groups, with residuals of a baseline fit as targets.

    `baseline` contains the whitened coefficients ``(P,)``, and `weights` those of energy, force and stress rows,
    ``(3,)``. The other attributes are those of `CommitteeFit`.
    """

    def __init__(self, whitening: Whitening, baseline: Array, weights: Array, block_numbers: Array) -> None:
        n_blocks, P = int(block_numbers.max()) + 1, len(baseline)
        self.whitening, self.baseline, self.weights, self.block_numbers = whitening, baseline, weights, block_numbers
        self.G, self.c = np.zeros((n_blocks, P, P)), np.zeros((n_blocks, P))
        self.residual_squares, self.n_rows = np.zeros(n_blocks), np.zeros(n_blocks)

    def add(self, row_block: RowBlock, pool: ThreadPoolExecutor) -> None:
        """Add a block of rows to the moments.

        Each block of groups is updated by one thread, so that sums do not depend on the number of threads.
        """
        w = self.weights[row_block.kind]
        U = self.whitening.apply(row_block.X) * w[:, None]
        y = w * row_block.Y[:, 0] - U @ self.baseline  # residuals of the baseline
        block_of_row = self.block_numbers[row_block.configuration]

        def add_to_block(number: int) -> None:
            mask = block_of_row == number
            rows = np.ascontiguousarray(U[mask])
            add_gram(self.G[number].T, rows)
            self.c[number] += rows.T @ y[mask]
            self.residual_squares[number] += y[mask] @ y[mask]
            self.n_rows[number] += len(rows)

        # the list waits for the threads and raises their exceptions
        list(pool.map(add_to_block, np.unique(block_of_row).tolist()))


def build_part(X: Array, y: Array, weights: Array, configuration: Array) -> tuple[Part, Array]:
    """Build a part and the weights of kinds, ``(3,)`` and all 1, for `CommitteeFit.from_parts` from rows in memory.

    Parameters
    ----------
    X : (n, p) float64
        Rows of any kind; in the part, all are energy rows.
    y, weights : (n,) float64
        Targets, and weights by which rows and targets are multiplied.
    configuration : (n,) int
        Configuration of each row, numbered from 0.
    """
    kind, is_train = np.zeros(len(X), dtype=np.int8), np.ones(len(X), dtype=bool)
    block = RowBlock(X * weights[:, None], (y * weights)[:, None], kind, configuration, is_train)
    return (lambda: iter([block])), np.ones(3)


def _assign_blocks(group: Array, n_columns: int, rng: np.random.Generator) -> Array:
    """Assign the groups, at least two, to blocks at random; return the block of each configuration, ``(n,)``."""
    names, positions = np.unique(group, return_inverse=True)
    if len(names) < 2:
        raise InputError(f"a committee requires at least two groups of configurations; got {len(names)}")
    n_blocks = max(2, min(MAX_BLOCKS, len(names), MAX_MOMENT_BYTES // (8 * n_columns**2)))
    return np.asarray(rng.permutation(np.arange(len(names)) % n_blocks)[positions])


def _convert_to_raw(whitening: Whitening, p: int, coefficients: Array) -> Array:
    """Convert whitened coefficients ``(m, P)`` to raw ones ``(m, p)``, which are 0 in columns that are not retained."""
    raw_coefficients = np.zeros((len(coefficients), p))
    raw_coefficients[:, whitening.retained_columns] = whitening.to_raw_coefficients(coefficients.T).T
    return raw_coefficients
