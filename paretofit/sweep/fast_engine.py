"""The fast engine: triangular factors of whitened rows serve the whole factorial (see `paretofit.linear.reduction`).

Each draw is a chain of nested subsets, from the smallest to the largest. A factor of the rows of each kind grows by the
additional rows of each subset, and is weighted once for each pair of weights: the triangle serves all levels and all
2Jmax, and the errors of training and test sets are residuals of such factors. Rows are read again only for
leave-one-out residuals.
"""

from __future__ import annotations

import shutil
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.core import Array, RowKind
from paretofit.execution import ClusterRunner, get_active_client
from paretofit.linear import (
    LeverageScores,
    Reduction,
    choose_ridge,
    compute_reduced_leverage,
    get_row_weights,
    leave_one_out,
)
from paretofit.linear.reduction import (
    CPU,
    Device,
    ModelFit,
    PartMapper,
    PrefetchMapper,
    RawFactors,
    RowFactors,
    ThreadMapper,
    to_numpy,
)
from paretofit.properties import PropertyRows
from paretofit.sweep.cells import PendingFits, PendingModel
from paretofit.sweep.fit_errors import compute_fit_errors
from paretofit.sweep.grid import SweepGrid
from paretofit.sweep.plain_engine import RowSource, build_level_rows, compute_loo_errors
from paretofit.sweep.reduction_memory import check_reduction_memory
from paretofit.sweep.results import PartialResults, Row
from paretofit.sweep.row_stream import RowStream, select_store
from paretofit.sweep.stored_reduction import load_reduction, store_reduction
from paretofit.sweep.sweep_input import SweepInput
from paretofit.sweep.work import count_chain_flops

CHAIN_COPIES = 9  # number of copies of a (P, P) matrix in each process that fits


class FastEngine:
    """Engine that fits cells from triangular factors.

    Parameters
    ----------
    data : SweepInput
    grid : SweepGrid
    threads : int
        Number of threads that reduce the rows on the processor, without a cluster.
    device : Device
        Hardware that reduces the rows and on which factors grow.
    folder : Path, optional
        The run folder, for the reduction and, while the engine exists, for whitened rows.

    Attributes
    ----------
    scores : LeverageScores or None
        Scores of the training configurations; None if one of them has no energy row.
    dropped_columns : list of str
        Columns that depend linearly on earlier ones in every row.
    properties : PropertyRows or None
        Properties that are evaluated for every fit, with whitened rows.
    reduction : Reduction
        Reduction of the rows, on the processor.
    train : (n_train,) int64
        Positions of the training configurations in the design, ascending.
    source : RowSource
    stream : RowStream
        All training and test rows.
    device : Device
    """

    name = "fast"
    properties: PropertyRows | None = None

    def __init__(
        self, data: SweepInput, grid: SweepGrid, *, threads: int = 1, device: Device = CPU, folder: Path | None = None
    ) -> None:
        self.source, self.train, self.device = RowSource.from_sweep(data, grid), data.train, device
        self.stream = RowStream.from_source(self.source, data.train)
        n_columns_by_twojmax = {twojmax: data.design.count_columns_up_to(twojmax) for twojmax in grid.twojmax}
        n_leverage_columns = data.n_leverage_columns or data.design.n_features
        sizes = sorted({*n_columns_by_twojmax.values(), n_leverage_columns})
        self._size_indices = {twojmax: sizes.index(p) for twojmax, p in n_columns_by_twojmax.items()}
        check_reduction_memory(sizes[-1], threads, device)  # raises InputError
        if device != CPU:  # another name, and therefore another journal, because results agree only to 1e-8
            self.name = f"{self.name} by PyTorch"
        labels = data.hash_labels(list(grid.levels))
        inputs = [data.hash_inputs(grid, self.name), labels, data.train.tolist(), sizes]
        inputs += [n_leverage_columns, data.leverage_weights]
        mapper = _make_mapper(threads, device, folder)
        self.reduction, self.scores = self._reduce(data, sizes, n_leverage_columns, mapper, folder, inputs)
        n_bytes = 8.0 * len(self.stream.row_indices) * (sizes[-1] + len(grid.levels))
        store = select_store(n_bytes, folder, device, is_shared=get_active_client() is not None)
        if store is not None:
            if store.directory is not None:
                weakref.finalize(self, shutil.rmtree, store.directory, ignore_errors=True)
            self.reduction = self.reduction.whiten_parts(self.stream.list_parts(), mapper, device, store)
        if data.properties is not None:
            rows = to_numpy(self.reduction.whitening.apply(data.properties.rows))
            self.properties = replace(data.properties, rows=rows)
        self.dropped_columns = [data.design.column_names[k] for k in self.reduction.whitening.dropped_columns]

    def _reduce(
        self,
        data: SweepInput,
        sizes: list[int],
        n_leverage_columns: int,
        mapper: PartMapper,
        folder: Path | None,
        inputs: list[Any],
    ) -> tuple[Reduction, LeverageScores | None]:
        """Load the reduction and the leverage scores of the training configurations, or compute and store them."""
        ratio, start_time = _compute_balancing_ratio(data), time.perf_counter()
        whitening_options = np.array(sizes), np.array([ratio, 1.0, 1.0]), data.design.n_constant
        if (stored := load_reduction(folder, inputs)) is not None:
            return Reduction.from_factors(stored[0], *whitening_options), stored[1]
        parts = self.stream.list_parts()
        hardware: dict[str, Any] = {"mapper": mapper, "device": self.device}
        raw_factors = RawFactors.from_parts(parts, sizes, **hardware)
        reduction, scores = Reduction.from_factors(raw_factors, *whitening_options), None
        if data.has_leverage_scores():
            w_energy, w_force = data.leverage_weights
            weights, n = get_row_weights(np.arange(3), w_energy, w_force, w_force), data.design.n_configurations
            scores = compute_reduced_leverage(reduction, parts, weights, n, **hardware)[sizes.index(n_leverage_columns)]
            if scores is None:  # the factor is too ill-conditioned
                scores = data.compute_leverage_scores()
            else:
                regular, block = scores.regular[data.train], scores.block[data.train]
                scores = LeverageScores(scores.rows, regular, block, scores.rank)
        store_reduction(folder, inputs, raw_factors, scores, seconds=time.perf_counter() - start_time)
        return reduction, scores

    @cached_property
    def device_reduction(self) -> Reduction:
        """The reduction on the device that whitens rows."""
        return self.reduction.to(self.device)

    def __getstate__(self) -> dict[str, Any]:
        """Omit the reduction on the device, which a worker creates again."""
        return {name: value for name, value in self.__dict__.items() if name != "device_reduction"}

    def describe_conditioning(self) -> list[str]:
        """Describe the number of columns, the rank and the condition number of each model size, a line for each.

        The condition number is that of the weighted rows with columns scaled to unit norm.
        """
        lines = []
        for twojmax, index in self._size_indices.items():
            p, rank = int(self.reduction.sizes[index]), int(self.reduction.whitened_sizes[index])
            condition = self.reduction.whitening.estimate_condition(rank)
            lines.append(f"2Jmax {twojmax}: {p} columns, {rank} independent, condition number {condition:.1e}")
        return lines

    def build_tasks(self, pending_fits: list[PendingFits]) -> list[list[PendingFits]]:
        """Create a task for each draw, whose subsets are nested; the whole training set is a separate task.

        The largest subsets of a draw are omitted if they have no pending fits. Tasks with large subsets come first.
        """
        subsets_by_draw: dict[Any, list[PendingFits]] = {}
        for pending in pending_fits:
            is_whole_training_set = len(pending.configurations) == len(self.train)
            subsets_by_draw.setdefault("whole" if is_whole_training_set else pending.draw, []).append(pending)
        chains = []
        for subsets in subsets_by_draw.values():
            chain = sorted(subsets, key=lambda pending: len(pending.configurations))
            while chain and not chain[-1].models:
                chain.pop()
            chains += [chain] if chain else []
        return sorted(chains, key=lambda chain: -len(chain[-1].configurations))

    def run(self, task: list[PendingFits], partial_results: PartialResults) -> list[Row]:
        """Fit the nested subsets of one draw in a worker; return the rows of the results table."""
        fits: list[Row] = []
        with threadpool_limits(1):
            for pending, factors in self.grow_chain(task):
                fits += partial_results.load_or_fit(pending, partial(self._fit, factors))
        return fits

    def grow_chain(self, chain: Sequence[PendingFits]) -> Iterator[tuple[PendingFits, RowFactors]]:
        """Yield nested subsets with their factors, which grow by the additional configurations of each subset.

        Factors must be used before the next subset is requested, because they grow in place.
        """
        factors, included_configurations = self.reduction.create_factors(self.device), np.empty(0, dtype=np.int64)
        for pending in chain:
            if np.array_equal(pending.configurations, self.train):
                yield pending, self.reduction.train
                continue
            self.grow(factors, np.setdiff1d(pending.configurations, included_configurations))
            included_configurations = pending.configurations
            if not factors.is_accurate():  # rows that were added are too different from those before them
                factors = self.grow(self.reduction.create_factors(self.device), included_configurations)
            yield pending, factors
            if pending is not chain[-1]:
                factors.convert_to_gram()

    def grow(self, factors: RowFactors, configurations: Array, multiplicity: Array | None = None) -> RowFactors:
        """Add the rows of some configurations to factors in place, and return the factors.

        Parameters
        ----------
        factors : RowFactors
            From ``reduction.create_factors``; a subset, a fold, or a bootstrap sample.
        configurations : (n,) int64
            Positions of training or test configurations in the design.
        multiplicity : (n,) int, optional
            How often each configuration is added, by default once.
        """
        multiplicities = np.zeros(self.source.design.n_configurations, dtype=np.int64)
        np.add.at(multiplicities, configurations, 1 if multiplicity is None else multiplicity)
        row_multiplicities = multiplicities[self.source.design.configuration]
        for row_multiplicity in np.unique(row_multiplicities[row_multiplicities > 0]).tolist():
            for rows, positions in self.stream.read_whitened(
                self.device_reduction, np.flatnonzero(row_multiplicities == row_multiplicity)
            ):
                factors.grow(self.device.put(rows), self.source.design.kind[positions], row_multiplicity)
        return factors

    def _fit(self, factors: RowFactors, pending: PendingFits) -> Iterator[Row]:
        """Fit all levels of the pending models to one subset."""
        subset = SubsetFits(self, factors, pending.configurations)
        for (w_energy, w_force), models in groupby(pending.models, key=lambda model: model.weights):
            yield from subset.fit(get_row_weights(np.arange(3), w_energy, w_force, w_force), list(models))

    def count_flops(self, task: list[PendingFits]) -> float:
        """Count the floating-point operations of a task."""
        n_rows = [self.source.count_rows(pending.configurations) for pending in task]
        n_weights = [len({model.weights for model in pending.models}) for pending in task]
        n_columns = [int(self.reduction.sizes[index]) for index in self._size_indices.values()]
        is_whole_training_set = len(task[-1].configurations) == len(self.train)
        return count_chain_flops(
            n_rows, n_weights, n_columns, self.reduction.n_levels, is_whole_training_set=is_whole_training_set
        )

    def estimate_task_bytes(self, task: list[PendingFits]) -> float:
        """Estimate the memory of a task in its process, in bytes."""
        del task
        return 8.0 * CHAIN_COPIES * int(self.reduction.sizes[-1]) ** 2

    def get_size_index(self, twojmax: int) -> int:
        """Return the position of a 2Jmax among the sizes of the reduction."""
        return self._size_indices[twojmax]


class SubsetFits:
    """Fits to one subset from its factors; its rows are read only for leave-one-out residuals.

    `configurations` are the positions of the subset's configurations in the design.
    """

    def __init__(self, engine: FastEngine, factors: RowFactors, configurations: Array) -> None:
        self.engine, self.source, self.factors = engine, engine.source, factors
        self.configurations, self.reduction = configurations, engine.reduction

    @cached_property
    def rows(self) -> tuple[Array, Array, Array, Array]:
        """Whitened rows, labels, kinds and leave-one-out groups of the subset, on the processor."""
        indices = self.source.find_row_indices(self.configurations)
        blocks = self.engine.stream.read_whitened(self.engine.device_reduction, indices)
        design = self.source.design
        rows, group = np.concatenate([to_numpy(block) for block, _ in blocks]), self.source.group
        return rows, self.source.Y[indices], design.kind[indices], group[design.configuration[indices]]

    def fit(self, weights: Array, models: list[PendingModel]) -> Iterator[Row]:
        """Fit all levels of some models at weights w_E, w_F, w_S; yield rows of the results table."""
        indices = [self.engine.get_size_index(model.twojmax) for model in models]
        fits, penalties, loo_residuals = self._fit_models(weights, models)
        errors = self._compute_errors(fits)
        for k, (model, index) in enumerate(zip(models, indices, strict=True)):
            if self.source.leave_one_out and model.ridge != "auto":
                loo_residuals[k] = self._leave_one_out(fits[k], index, weights)
            if self.source.leave_one_out:
                errors[k] |= compute_loo_errors(loo_residuals[k], *self.rows[1:3])
            cell = {
                "twojmax": model.twojmax,
                "w_energy": model.weights[0],
                "w_force": model.weights[1],
                "n_features": int(self.reduction.sizes[index]),
                "ridge": model.ridge,
                "rank": fits[k].rank,
                "condition": fits[k].condition,
                "solver": fits[k].solver,
            }
            yield from build_level_rows(self.source.levels, cell, errors[k], penalties[k])

    def fit_models(self, weights: Array, models: list[PendingModel]) -> list[ModelFit]:
        """Fit all levels of some models at weights w_E, w_F, w_S; condition numbers that are not needed are NaN."""
        return self._fit_models(weights, models, with_condition=False)[0]

    def _fit_models(
        self, weights: Array, models: list[PendingModel], *, with_condition: bool = True
    ) -> tuple[list[ModelFit], list[Array], list[Array]]:
        """Fit some models; return fits, penalties, and leave-one-out residuals (empty unless the ridge is "auto")."""
        indices = [self.engine.get_size_index(model.twojmax) for model in models]
        ridge_flags = {model.ridge != 0 for model in models if model.ridge != "auto"}
        weighted_factors = {
            has_ridge: self.factors.apply_weights(weights, with_ridge=has_ridge) for has_ridge in ridge_flags
        }
        penalties = [np.full(self.reduction.n_levels, np.nan) for _ in models]
        fits = []
        loo_residuals = [np.empty(0)] * len(models)
        for k, (model, index) in enumerate(zip(models, indices, strict=True)):
            if model.ridge == "auto":
                fit, penalties[k], loo_residuals[k] = self._choose_ridge(index, weights)
            else:
                penalties[k][:] = model.ridge
                fit = weighted_factors[model.ridge != 0].fit(index, model.ridge, with_condition=with_condition)
            fits.append(fit)
        return fits, penalties, loo_residuals

    def _compute_errors(self, fits: list[ModelFit]) -> list[dict[str, Array]]:
        """Compute the errors of fits on the training subset and the test set; one product serves all fits."""
        delta, n_levels = np.hstack([fit.delta for fit in fits]), self.reduction.n_levels
        errors = compute_fit_errors(self.reduction, self.factors, delta, properties=self.engine.properties)
        windows = [slice(k * n_levels, (k + 1) * n_levels) for k in range(len(fits))]
        return [{name: column[window] for name, column in errors.items()} for window in windows]

    def _prepare_loo_input(self, index: int, weights: Array) -> tuple[tuple[Array, ...], dict[str, Any]]:
        """Return raw rows with labels, kinds and groups, and the options of `leave_one_out` and `choose_ridge`."""
        rows, Y, kind, group = self.rows
        X = self.reduction.whitening.to_raw_rows(rows[:, : len(self.reduction.baseline)])
        options = dict(zip(("energy_weight", "force_weight", "stress_weight"), weights.tolist(), strict=True))
        return (X[:, : int(self.reduction.sizes[index])], Y, kind, group), {
            **options,
            "n_unpenalised": self.reduction.n_unpenalised,
        }

    def _leave_one_out(self, fit: ModelFit, index: int, weights: Array) -> Array:
        """Compute leave-one-out residuals, ``(n, n_levels)``."""
        if fit.triangle is None:
            arrays, options = self._prepare_loo_input(index, weights)
            return leave_one_out(*arrays, **options)
        rows, _, kind, group = self.rows
        return fit.compute_loo_residuals(rows, kind, group, weights / weights.max())

    def _choose_ridge(self, index: int, weights: Array) -> tuple[ModelFit, Array, Array]:
        """Choose the penalty with the smallest leave-one-out loss for each level.

        Return the fit, the penalties ``(n_levels,)``, and the leave-one-out residuals ``(n, n_levels)``.
        """
        arrays, options = self._prepare_loo_input(index, weights)
        choice = choose_ridge(*arrays, **options)
        R = self.reduction.whitening.unwhitening[:, : len(choice.coefficients)]
        delta = R @ choice.coefficients - self.reduction.baseline
        return ModelFit(delta, choice.rank, choice.condition, choice.solver), choice.penalty, choice.loo_residuals


def _make_mapper(threads: int, device: Device, folder: Path | None) -> PartMapper:
    """Create the mapper that sums the parts of the rows, on a cluster, on threads, or for a GPU."""
    if get_active_client() is not None:
        return ClusterRunner(folder)
    return ThreadMapper(threads) if device == CPU else PrefetchMapper()


def _compute_balancing_ratio(data: SweepInput) -> float:
    """Compute the ratio w_E/w_F of the reduction from the numbers of energy rows and force rows, to balance them.

    The ratio depends only on the data, so that editing the study's weights leaves existing fits bit-identical.
    """
    kind = data.design.kind[data.find_row_indices(data.train)]
    n_energy, n_force = int((kind == RowKind.ENERGY).sum()), int((kind == RowKind.FORCE).sum())
    # At this ratio, the squared weights of all energy rows and of all force rows have equal sums.
    return float(np.sqrt(n_force / n_energy)) if n_energy and n_force else 1.0
