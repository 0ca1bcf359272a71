"""Test errors of a study in further train/test splits, with a bootstrap over groups of test configurations.

A further split divides the same rows in another way, so it needs no further reduction: its training subsets are factors
of whitened rows, like those of the study, and its test rows are whitened rows, too. Each setting is fitted once in each
split, to a subset that is drawn anew. The fits of a split share its test set, its bootstrap samples and its draws, so
that the difference of two settings is a paired one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from paretofit.core import Array, RowKind
from paretofit.execution import RunContext, share_function
from paretofit.linear import FACTOR, LeverageScores, get_row_weights
from paretofit.linear.reduction import RowFactors, solve_rows, to_numpy
from paretofit.sweep.cells import Draw, PendingFits, list_draws, list_pending_fits
from paretofit.sweep.fast_engine import FastEngine, SubsetFits
from paretofit.sweep.grid import Mixture, SweepGrid
from paretofit.sweep.mixture_fits import fit_draw, grow_lower_levels
from paretofit.sweep.mixtures import MixtureDraw, PendingMixture, list_mixture_draws, list_pending_mixtures
from paretofit.sweep.plain_engine import EV_TO_MEV
from paretofit.sweep.sweep_input import SweepInput

SPLIT_ERROR_COLUMNS = ("test_energy", "test_force", "ref_energy", "ref_force")
SPLIT_SETTING_COLUMNS = ["twojmax", "level", "sampling", "n_train", "w_energy", "w_force", "ridge"]
WHOLE_SET = "all"  # sampling method of the whole training set, which is the same for all methods
RESIDUAL_BYTES = 32 << 20  # size of the residuals that are computed at once
MIN_GRAM_ROWS_PER_COLUMN = 2  # rows for each column from which the Gram matrix of a kind is tried
KINDS = (RowKind.ENERGY, RowKind.FORCE)


class FurtherSplit(NamedTuple):
    """Another train/test split of the study's configurations: their positions in the design, ascending, and a seed.

    The seed is that of the draws and of the bootstrap.
    """

    train: Array
    test: Array
    seed: int


@dataclass(frozen=True)
class SplitErrors:
    """Test errors of every setting in further splits.

    Attributes
    ----------
    settings : DataFrame
        A row for each setting, with the columns `SPLIT_SETTING_COLUMNS`. The largest possible subset is the whole
        training set of each split, and its sampling method is `WHOLE_SET`.
    errors : mapping of str to (n_splits, n_samples, n_settings) float32
        By the names in `SPLIT_ERROR_COLUMNS`, in meV/atom and meV/Å. The first sample is the test set of the split,
        the others are bootstrap samples of its groups. Errors of properties, by their columns of results, are equal in
        all samples of a split, because they do not depend on its test set.
    """

    settings: pd.DataFrame
    errors: dict[str, Array]


def compute_split_errors(
    engine: FastEngine,
    data: SweepInput,
    grid: SweepGrid,
    splits: Sequence[FurtherSplit],
    n_samples: int,
    context: RunContext,
    omitted: Collection[tuple[int, int]] = (),
) -> SplitErrors:
    """Fit every setting of a study once in each of some further splits, and compute its test errors.

    Parameters
    ----------
    engine : FastEngine
        Engine of the study.
    data : SweepInput
    grid : SweepGrid
    splits : sequence of FurtherSplit
    n_samples : int
        Number of samples of each test set: the test set itself, and bootstrap samples of its groups (B. Efron, Ann.
        Statist. 7, 1 (1979)).
    context : RunContext
    omitted : collection of (int, int)
        Pairs of a size of the grid and a 2Jmax that are not fitted.

    Returns
    -------
    SplitErrors
        It does not depend on the number of processes.
    """
    folder = None if context.folder is None else context.folder.absolute()
    with share_function(partial(_SplitFits.prepare, engine, data, grid, n_samples, omitted), folder) as function:
        split_fits = list(context.map_and_track(function, list(splits), "further splits"))
    tasks = [(number, chain) for number, fits in enumerate(split_fits) for chain in fits.chains]
    by_subset: list[dict[str, Array]] = [dict(fits.whole_errors) for fits in split_fits]
    with share_function(partial(_run_chain, split_fits), folder) as function:
        computed = context.map_and_track(function, tasks, "fits of further splits")
        for (number, _), errors in zip(tasks, computed, strict=True):
            by_subset[number] |= errors
    return _join_errors(engine, grid, omitted, split_fits, by_subset)


def _join_errors(
    engine: FastEngine,
    grid: SweepGrid,
    omitted: Collection[tuple[int, int]],
    split_fits: list[_SplitFits],
    by_subset: list[dict[str, Array]],
) -> SplitErrors:
    """Join the errors of all subsets in the order of the grid, the whole training set once; mixtures follow."""
    models = list(product(grid.weights, grid.ridge, grid.twojmax, grid.levels))
    rows, arrays = [], []
    for position, draw in enumerate(split_fits[0].draws):
        size = grid.sizes[position % len(grid.sizes)]
        is_whole = size == len(engine.train)
        if is_whole and position >= len(grid.sizes):
            continue
        sampling = WHOLE_SET if is_whole else draw.sampling
        rows += [
            (twojmax, level, sampling, size, *weights, ridge)
            for weights, ridge, twojmax, level in models
            if (size, twojmax) not in omitted
        ]
        pairs = zip(split_fits, by_subset, strict=True)
        arrays.append(np.stack([errors[fits.draws[position].subset_key] for fits, errors in pairs], axis=1))
    sizes = [(mixture, size) for mixture in grid.mixtures for size in mixture.top_sizes]
    for position, (mixture, size) in enumerate(sizes):
        rows += [
            (twojmax, mixture.name, mixture.sampling, size, *weights, 0.0)
            for weights, twojmax in product(grid.weights, grid.twojmax)
        ]
        pairs = zip(split_fits, by_subset, strict=True)
        arrays.append(np.stack([errors[fits.mixtures[position].subset_key] for fits, errors in pairs], axis=1))
    errors_by_name = dict(zip(_list_error_columns(engine), np.concatenate(arrays, axis=-1), strict=True))
    return SplitErrors(pd.DataFrame(rows, columns=SPLIT_SETTING_COLUMNS), errors_by_name)


def _list_error_columns(engine: FastEngine) -> list[str]:
    """List the names of the errors: those of test sets, and of properties."""
    return [*SPLIT_ERROR_COLUMNS, *([] if engine.properties is None else engine.properties.error_columns)]


@dataclass(frozen=True)
class _SplitFits:
    """The pending fits of one split, and the errors of the fits to its whole training set.

    Attributes
    ----------
    test : (n_test,) int64
        Positions of the test configurations in the design, ascending.
    group : (n_test,) int64
        Number of the test group of each test configuration.
    samples : (n_samples, n_groups) float64
        How often each test group occurs in each sample.
    draws : list of Draw
        Subsets in the order of the grid.
    chains : list of list of PendingFits or PendingMixture
        Nested subsets of each draw, without the whole training set; then the training sets of each mixture.
    whole_errors : mapping of str to (n_errors, n_samples, n_models) float32
        By the key of the subset.
    mixtures : list of MixtureDraw
        Training sets of the mixtures in the order of the grid.
    """

    engine: FastEngine
    test: Array
    group: Array
    samples: Array
    draws: list[Draw]
    chains: list[list[PendingFits] | list[PendingMixture]]
    whole_errors: dict[str, Array]
    mixtures: list[MixtureDraw]

    @classmethod
    def prepare(
        cls,
        engine: FastEngine,
        data: SweepInput,
        grid: SweepGrid,
        n_samples: int,
        omitted: Collection[tuple[int, int]],
        split: FurtherSplit,
    ) -> _SplitFits:
        """Compute the leverage scores of a split and the fits to its whole training set, and draw its subsets."""
        data = replace(data, train=split.train, test=split.test)
        n_train = len(split.train)
        sizes = _adapt_sizes(grid.sizes, len(engine.train), n_train)
        study_size = dict(zip(sizes, grid.sizes, strict=True))
        mixtures = [_adapt_mixture(mixture, len(engine.train), n_train) for mixture in grid.mixtures]
        grid = replace(grid, sizes=sizes, repetitions=1, seed=split.seed, mixtures=mixtures)
        group = np.unique(data.get_loo_groups()[split.test], return_inverse=True)[1]
        n_groups = int(group.max()) + 1
        samples = np.random.default_rng(split.seed).multinomial(n_groups, np.full(n_groups, 1 / n_groups), n_samples)
        samples[0] = 1  # the test set itself
        with threadpool_limits(1):
            factors = _build_factors(engine, split.train)
            scores = _compute_scores(engine, data, factors) if engine.scores is not None else None
            draws = list_draws(data, grid, scores)
            subsets = [
                replace(pending, models=[model for model in pending.models
                                         if (study_size[len(pending.configurations)], model.twojmax) not in omitted])
                for pending in list_pending_fits(grid, draws, {})
            ]  # fmt: skip
            mixture_draws = list_mixture_draws(data, grid, scores)
            fits = cls(engine, split.test, group, samples.astype(float), draws, [], {}, mixture_draws)
            for pending in [subset for subset in subsets if len(subset.configurations) == n_train]:
                fits.whole_errors[pending.subset_key] = fits.compute_errors(pending, factors)
        smaller = [subset for subset in subsets if len(subset.configurations) < n_train]
        smaller.sort(key=lambda pending: (*pending.draw, len(pending.configurations)))
        fits.chains.extend(list(chain) for _, chain in groupby(smaller, key=lambda pending: pending.draw))
        fits.chains.extend(list_pending_mixtures(grid, mixture_draws, {}))
        return fits

    def run(self, chain: list[PendingFits]) -> dict[str, Array]:
        """Fit the nested subsets of one draw; return the errors, ``(n_errors, n_samples, n_models)``, by subset."""
        with threadpool_limits(1):
            return {
                pending.subset_key: self.compute_errors(pending, factors)
                for pending, factors in self.engine.grow_chain(chain)
            }

    def run_mixture(self, task: list[PendingMixture]) -> dict[str, Array]:
        """Fit the training sets of one mixture; return the errors, ``(n_errors, n_samples, n_models)``, by set."""
        reduction, errors = self.engine.reduction, {}
        level = self.engine.source.levels.index(task[0].draw.mixture.levels[-1])
        with threadpool_limits(1):
            lower_factors = grow_lower_levels(self.engine, task[0].draw)
            for pending in task:
                fitted = list(fit_draw(self.engine, lower_factors, pending.draw, pending.models))
                models = [model for _, members, _ in fitted for model in members]
                deltas = [fit.delta + reduction.baseline[:, [level]] for _, _, fits in fitted for fit in fits]
                indices = [self.engine.get_size_index(model.twojmax) for model in models]
                columns = reduction.whitened_sizes[indices]
                errors[pending.subset_key] = self._evaluate(np.hstack(deltas), columns, level)
        return errors

    def compute_errors(self, pending: PendingFits, factors: RowFactors) -> Array:
        """Fit all models to one subset, and compute their errors for every sample of the test set.

        Returns
        -------
        (n_errors, n_samples, n_models * n_levels) float32
            As in `SplitErrors`.
        """
        subset, reduction = SubsetFits(self.engine, factors, pending.configurations), self.engine.reduction
        coefficients = []
        for (w_energy, w_force), models in groupby(pending.models, key=lambda model: model.weights):
            weights = get_row_weights(np.arange(3), w_energy, w_force, w_force)
            coefficients += [fit.delta + reduction.baseline for fit in subset.fit_models(weights, list(models))]
        indices = [self.engine.get_size_index(model.twojmax) for model in pending.models]
        columns = np.repeat(reduction.whitened_sizes[indices], reduction.n_levels)
        return self._evaluate(np.hstack(coefficients), columns)

    def _evaluate(self, coefficients: Array, columns: Array, level: int | None = None) -> Array:
        """Compute the errors of every sample, ``(n_errors, n_samples, n_fits)`` float32.

        The parameters are those of `_sum_squared_residuals`.
        """
        squares, counts = self._sum_squared_residuals(coefficients, columns, level)
        with np.errstate(invalid="ignore", divide="ignore"):  # no test row of a kind
            errors = EV_TO_MEV * np.sqrt((self.samples @ squares) / (self.samples @ counts))
        properties = self.engine.properties
        if properties is not None:
            evaluations = properties.evaluate(properties.rows @ coefficients)
            property_errors = np.array([evaluations[name] for name in properties.error_columns])[:, None]
            shape = (len(property_errors), *errors.shape[1:])
            errors = np.concatenate([errors, np.broadcast_to(property_errors, shape)])
        return np.asarray(errors, dtype=np.float32)

    def _sum_squared_residuals(
        self, coefficients: Array, columns: Array, level: int | None = None
    ) -> tuple[Array, Array]:
        """Sum the squared residuals of fits over the test rows of each group.

        Parameters
        ----------
        coefficients : (P, n_fits) float64
            Whitened coefficients, including the baseline, of all levels of some models.
        columns : (n_fits,) int64
            Number of columns of each fit; the other coefficients are zero.
        level : int, optional
            Position of the level of all fits, which then have one column each.

        Returns
        -------
        squares : (4, n_groups, n_fits) float64
            In the order of `SPLIT_ERROR_COLUMNS`.
        counts : (4, n_groups, 1) float64
            Number of rows of each group.
        """
        source, n_fits = self.engine.source, len(columns)
        design = source.design
        levels = np.arange(n_fits) % len(source.levels) if level is None else np.full(n_fits, level)
        n_sums, step = len(KINDS) * self.samples.shape[1], max(1, RESIDUAL_BYTES // (8 * n_fits))
        squares, counts = np.zeros((2, n_sums, n_fits)), np.zeros(n_sums)
        for block, positions in self.engine.stream.read_whitened(
            self.engine.device_reduction, source.find_row_indices(self.test)
        ):
            is_used = np.isin(design.kind[positions], KINDS)
            for start in range(0, len(positions), step):
                window = np.flatnonzero(is_used[start : start + step]) + start
                whitened_rows, rows = to_numpy(block[window]), positions[window]
                group = self.group[np.searchsorted(self.test, design.configuration[rows])]
                # A sum for each kind and group: the numbers of `KINDS`, 0 and 1, are those of `RowKind`.
                sums = group + design.kind[rows].astype(np.int64) * self.samples.shape[1]
                matrix: Any = csr_array((np.ones(len(rows)), (sums, np.arange(len(rows)))), shape=(n_sums, len(rows)))
                prediction = np.empty((len(rows), n_fits))
                for q in np.unique(columns).tolist():
                    prediction[:, columns == q] = whitened_rows[:, :q] @ coefficients[:q, columns == q]
                squares[0] += matrix @ (prediction - source.Y[rows][:, levels]) ** 2
                squares[1] += matrix @ (prediction - source.Y[rows, -1:]) ** 2
                counts += np.bincount(sums, minlength=n_sums)
        return squares.reshape(4, -1, n_fits), np.tile(counts, 2).reshape(4, -1, 1)


def _adapt_sizes(sizes: Sequence[int], n_study: int, n_train: int) -> list[int]:
    """Adapt the subset sizes of a study to a split whose training set has a few configurations more or fewer.

    The size of the study's training set, `n_study`, is replaced by that of the split, `n_train`. The others are reduced
    where that is necessary to keep them distinct.
    """
    new_sizes: dict[int, int] = {}
    limit = n_train
    for size in sorted(sizes, reverse=True):
        new_sizes[size] = n_train if size == n_study else max(1, min(size, limit))
        limit = new_sizes[size] - 1
    return [new_sizes[size] for size in sizes]


def _adapt_mixture(mixture: Mixture, n_study: int, n_train: int) -> Mixture:
    """Adapt the sizes of a mixture to the training set of a split."""
    lower_sizes = tuple(n_train if size == n_study else min(size, n_train) for size in mixture.lower_sizes)
    return mixture._replace(lower_sizes=lower_sizes, top_sizes=tuple(_adapt_sizes(mixture.top_sizes, n_study, n_train)))


def _run_chain(split_fits: list[_SplitFits], task: tuple[int, Any]) -> dict[str, Array]:
    """Run one task: the number of a split, and one of its chains."""
    number, chain = task
    is_mixture = isinstance(chain[0], PendingMixture)
    return split_fits[number].run_mixture(chain) if is_mixture else split_fits[number].run(chain)


def _build_factors(engine: FastEngine, train: Array) -> RowFactors:
    """Build the factors of a whole training set, of kinds with many rows from Gram matrices if these are accurate."""
    factors = engine.reduction.create_factors(engine.device)
    for kind, factor in factors.by_kind.items():
        if engine.reduction.train_factors[kind].n > MIN_GRAM_ROWS_PER_COLUMN * factor.width:
            factor.convert_to_gram(is_checked=False)
    engine.grow(factors, train)
    return factors if factors.is_accurate() else engine.grow(engine.reduction.create_factors(engine.device), train)


def _compute_scores(engine: FastEngine, data: SweepInput, factors: RowFactors) -> LeverageScores:
    """Compute the leverage scores of the training configurations of a split from the factors of its training rows.

    If the factors are too ill-conditioned, the scores are computed from the rows.
    """
    weights = get_row_weights(np.arange(3), *data.leverage_weights, data.leverage_weights[1])
    relative_weights, sizes = weights / weights.max(), engine.reduction.sizes
    index = int(np.searchsorted(sizes, data.n_leverage_columns or data.design.n_features))
    factor = factors.apply_weights(weights)
    fit = factor.fit(index)
    if fit.solver != FACTOR:
        return data.compute_leverage_scores()
    q, design = int(engine.reduction.whitened_sizes[index]), data.design
    row_leverages, positions = [], []
    for block, rows in engine.stream.read_whitened(engine.device_reduction, data.find_row_indices(data.train)):
        U = to_numpy(block)[:, :q] * relative_weights[design.kind[rows]][:, None]
        V = solve_rows(factor.R[:q, :q], U)
        row_leverages.append((V * V).sum(axis=1))
        positions.append(rows)
    rows = np.concatenate(positions)
    scores = LeverageScores.from_row_leverages(
        np.concatenate(row_leverages), design.kind[rows], design.configuration[rows], int(sizes[index]),
        design.n_configurations,
    )  # fmt: skip
    return LeverageScores(scores.rows, scores.regular[data.train], scores.block[data.train], scores.rank)
