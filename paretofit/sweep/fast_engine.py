"""The fast engine: one reduction of the rows serves the whole factorial (see `paretofit.linear.reduction`).

Each draw is a chain of nested subsets, from the smallest to the largest. The additional rows of each subset are added
to the moments, and one Cholesky factor for each subset and pair of weights serves all levels and all 2Jmax. If the
whitened moments are singular or too ill-conditioned, a cell is fitted from its rows as in the plain engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.core import Array, RowKind, require_memory
from paretofit.execution import ClusterRunner, get_active_client
from paretofit.linear import LeverageScores, Reduction, compute_reduced_leverage, compute_rms_by_kind, get_row_weights
from paretofit.linear.reduction import (
    CPU,
    MAX_CONDITION,
    MAX_REFINABLE_CONDITION,
    Device,
    Moments,
    NestedFit,
    PartMapper,
    PrefetchMapper,
    ThreadMapper,
    WeightedSystem,
    prefetch,
    to_numpy,
)
from paretofit.sweep.cells import PendingFits
from paretofit.sweep.grid import SweepGrid
from paretofit.sweep.plain_engine import PlainEngine, RowSource, build_level_rows, compute_loo_errors, prefix_errors
from paretofit.sweep.results import PartialResults, Row
from paretofit.sweep.row_stream import BLOCK_BYTES, RowStream, count_rows_per_block
from paretofit.sweep.stored_reduction import load_or_compute_reduction
from paretofit.sweep.sweep_input import SweepInput
from paretofit.sweep.work import count_chain_flops, count_expected_row_fits

# Memory while the rows are reduced (upper bounds, measured with 1, 2 and 4 threads at P = 1500):
REDUCTION_COPIES, REDUCTION_COPIES_PER_THREAD = 8, 5  # of a (P, P) matrix
ROW_BLOCKS_PER_THREAD = 8
GPU_COPIES = 30  # on a GPU, where more rows are buffered before an update of the factors (counted, not measured)
CHAIN_COPIES = 4  # of a (P, P) matrix in each process that fits (measured: 2 to 3)


class FastEngine:
    """Engine that fits cells from accumulated moments, or from their rows if the moments are ill-conditioned.

    Attributes
    ----------
    scores : LeverageScores or None
        Scores of the training configurations; None if one of them has no energy row.
    dropped_columns : list of str
        Columns that depend linearly on earlier ones in every row.
    reduction : Reduction
        Reduction of the rows, on the processor.
    plain : PlainEngine
        Engine for fits from rows.
    stream : RowStream
        All training and test rows.
    device : Device
        Hardware that reduces the rows and fits from moments.
    """

    name = "fast"

    def __init__(
        self, data: SweepInput, grid: SweepGrid, *, threads: int = 1, device: Device = CPU, folder: Path | None = None
    ) -> None:
        self.source, self.train, self.device = RowSource.from_sweep(data, grid), data.train, device
        self.stream = RowStream.from_source(self.source, data.train)
        columns = {twojmax: data.design.columns_up_to(twojmax) for twojmax in grid.twojmax}
        leverage_columns = data.leverage_columns or data.design.n_features
        sizes = sorted({*columns.values(), leverage_columns})
        self._size_indices = {twojmax: sizes.index(p) for twojmax, p in columns.items()}
        check_reduction_memory(sizes[-1], threads, device)
        if device != CPU:
            self.name = f"{self.name} by PyTorch"  # in the journal's name, because results agree only to 1e-8
        labels = data.hash_labels(list(grid.levels))
        inputs = [data.hash_inputs(grid, self.name), labels, data.train.tolist(), sizes]
        inputs += [leverage_columns, data.leverage_weights]
        mapper = _make_mapper(threads, device, folder)
        compute = partial(self._reduce, data, sizes, leverage_columns, mapper)
        self.reduction, self.scores = load_or_compute_reduction(folder, inputs, compute)
        self.plain = PlainEngine(replace(self.source, compress=True), self.scores)
        self.dropped_columns = [data.design.column_names[k] for k in self.reduction.whitening.dropped_columns]

    def _reduce(
        self, data: SweepInput, sizes: list[int], leverage_columns: int, mapper: PartMapper
    ) -> tuple[Reduction, LeverageScores | None]:
        """Compute the reduction, and the leverage scores of the training configurations."""
        parts = self.stream.list_parts()
        hardware: dict[str, Any] = {"mapper": mapper, "device": self.device}
        ratio, n_constant = _compute_balanced_ratio(data), data.design.n_constant
        reduction = Reduction.from_parts(parts, sizes, energy_weight=ratio, unpenalised=n_constant, **hardware)
        if not data.has_leverage_scores():
            return reduction, None
        w_energy, w_force = data.leverage_weights
        weights, n = get_row_weights(np.arange(3), w_energy, w_force, w_force), data.design.n_configurations
        scores = compute_reduced_leverage(reduction, parts, weights, n, **hardware)[sizes.index(leverage_columns)]
        if scores is None:
            return reduction, data.compute_leverage_scores()
        regular, block = scores.regular[data.train], scores.block[data.train]
        return reduction, LeverageScores(scores.rows, regular, block, scores.rank)

    @cached_property
    def device_reduction(self) -> Reduction:
        """The reduction on the device that computes fits."""
        return self.reduction.to(self.device)

    def __getstate__(self) -> dict[str, Any]:
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

    def build_chains(self, pending_fits: list[PendingFits]) -> list[list[PendingFits]]:
        """Create a task for each draw, whose subsets are nested; the whole training set is a separate task."""
        by_draw: dict[Any, list[PendingFits]] = {}
        for pending in pending_fits:
            is_whole = len(pending.configurations) == len(self.train)
            by_draw.setdefault("whole" if is_whole else pending.draw, []).append(pending)
        chains = []
        for subsets in by_draw.values():
            chain = sorted(subsets, key=lambda pending: len(pending.configurations))
            while chain and not chain[-1].models:
                chain.pop()
            chains += [chain] if chain else []
        return sorted(chains, key=lambda chain: -len(chain[-1].configurations))

    def run(self, task: list[PendingFits], partial_results: PartialResults) -> list[Row]:
        """Fit the chain of one draw in a worker, except for ill-conditioned fits, which the plain engine computes."""
        fits: list[Row] = []
        moments = self.device_reduction.create_empty_moments()
        included = np.empty(0, dtype=np.int64)
        with threadpool_limits(1):
            for pending in task:
                if len(pending.configurations) == len(self.train):
                    moments = self.device_reduction.train_moments
                else:
                    self._add_rows(moments, np.setdiff1d(pending.configurations, included))
                    included = pending.configurations
                fits += partial_results.load_or_fit(pending, partial(self._fit, moments))
        return fits

    def _fit(self, moments: Moments, pending: PendingFits) -> Iterator[Row]:
        """Fit all levels of the pending models to one subset, except for ill-conditioned models."""
        subset = _Subset(self, moments, pending.configurations)
        for (weights, ridge), models in groupby(pending.models, key=lambda model: (model.weights, model.ridge)):
            if ridge != "auto" and not (ridge > 0 and self.dropped_columns):
                yield from subset.fit(weights, ridge, [model.twojmax for model in models])

    def count_flops(self, task: list[PendingFits]) -> float:
        """Count the operations of a task."""
        n_rows = [self.plain.count_rows(pending.configurations) for pending in task]
        n_weights = [len({(model.weights, model.ridge) for model in pending.models}) for pending in task]
        columns = [int(self.reduction.sizes[index]) for index in self._size_indices.values()]
        is_whole = len(task[-1].configurations) == len(self.train)
        return count_chain_flops(n_rows, n_weights, columns, self.reduction.n_levels, is_whole=is_whole)

    def count_expected_row_flops(self, pending_fits: list[PendingFits]) -> float:
        """Count the operations of the pending fits that are expected to require the rows of their subsets."""
        subsets = [
            (self.plain.count_rows(pending.configurations), len({model.weights for model in pending.models}))
            for pending in pending_fits
        ]
        columns = [int(self.reduction.sizes[index]) for index in self._size_indices.values()]
        return count_expected_row_fits(subsets, columns, self.reduction.n_levels, len(self.source.test_rows))

    def estimate_task_bytes(self, task: list[PendingFits]) -> float:
        """Estimate the memory of a task in its process, in bytes."""
        del task
        return 8.0 * CHAIN_COPIES * int(self.reduction.sizes[-1]) ** 2

    def get_size_index(self, twojmax: int) -> int:
        """Return the position of a 2Jmax among the sizes of the reduction."""
        return self._size_indices[twojmax]

    def _add_rows(self, moments: Moments, configurations: Array) -> None:
        """Add the rows of some configurations to the moments, block by block."""
        design = self.source.design
        rows = self.source.select_rows(configurations)
        step = count_rows_per_block(design.n_features)
        windows = (rows[start : start + step] for start in range(0, len(rows), step))
        blocks = ((window, design.take(window)) for window in windows)
        for window, X in blocks if self.device == CPU else prefetch(blocks):
            U, Y, retained_X = self.device_reduction.whiten_rows(X, self.source.Y[window])
            moments.add(U, Y, retained_X, self.device.put(design.kind[window].astype(np.int64)))


class _Subset:
    """Fits to one subset from its moments; the rows of the subset are read only if a fit needs them."""

    def __init__(self, engine: FastEngine, moments: Moments, configurations: Array) -> None:
        self.engine, self.reduction, self.source = engine, engine.device_reduction, engine.source
        self.moments, self.row_indices = moments, engine.source.select_rows(configurations)

    @cached_property
    def rows(self) -> tuple[Array, Array, Array, Array]:
        """Whitened rows, targets, kinds and leave-one-out groups of the subset, on the processor."""
        design, rows = self.source.design, self.row_indices
        U, Y, _ = self.engine.reduction.whiten_rows(design.take(rows), self.source.Y[rows])
        return U, Y, design.kind[rows], self.source.group[design.configuration[rows]]

    def fit(self, weights: tuple[float, float], ridge: float, twojmax_values: list[int]) -> Iterator[Row]:
        """Fit all levels at one pair of weights and one penalty."""
        system = self.reduction.factorise(self.moments, get_row_weights(np.arange(3), *weights, weights[1]), ridge)
        for twojmax in twojmax_values:
            index = self.engine.get_size_index(twojmax)
            fit = system.fit(index, MAX_REFINABLE_CONDITION)
            if fit is None:
                continue
            cell = {
                "twojmax": twojmax,
                "w_energy": weights[0],
                "w_force": weights[1],
                "n_features": int(self.reduction.sizes[index]),
                "ridge": ridge,
                "rank": int(self.reduction.whitened_sizes[index]),
                "condition": fit.condition,
                "solver": "whitened" if fit.condition <= MAX_CONDITION else "refined",
            }
            penalties = np.full(self.reduction.n_levels, ridge)
            yield from build_level_rows(self.source.levels, cell, self._compute_errors(system, fit), penalties)

    def _compute_errors(self, system: WeightedSystem, fit: NestedFit) -> dict[str, Array]:
        """Compute the errors of a fit, which is refined with the rows if its moments have too few accurate digits."""
        train_rms, lost_digits = self.reduction.compute_train_rms(self.moments, fit)
        if lost_digits or fit.condition > MAX_CONDITION:
            U, Y, kinds, _ = self.rows
            fit = system.refine(fit, U, Y, kinds)
            residuals = U[:, : len(fit.delta)] @ to_numpy(fit.delta) - Y[:, fit.target_columns]
            train_rms = compute_rms_by_kind(residuals, kinds)
        test_rms = self.reduction.compute_test_rms(fit)
        errors = prefix_errors("train", train_rms)
        errors |= prefix_errors("test", {kind: rms.own_level for kind, rms in test_rms.items()})
        errors |= prefix_errors("ref", {kind: rms.reference_level for kind, rms in test_rms.items()})
        if RowKind.ENERGY in test_rms:
            errors["ref_energy_shifted"] = test_rms[RowKind.ENERGY].centred_reference
        if self.source.leave_one_out:
            kinds = self.rows[2]
            residuals = system.compute_loo_residuals(fit, *self.rows) / system.weights[kinds][:, None]
            errors |= compute_loo_errors(residuals, self.source.Y[self.row_indices], kinds)
        return errors


def _make_mapper(threads: int, device: Device, folder: Path | None) -> PartMapper:
    """Create the mapper that sums the parts of the rows, on a cluster, on threads, or for a GPU."""
    if get_active_client() is not None:
        return ClusterRunner(folder)
    return ThreadMapper(threads) if device == CPU else PrefetchMapper()


def check_reduction_memory(columns: int, threads: int, device: Device) -> None:
    """Check that a reduction of this number of columns fits into the memory of this machine and of the device.

    Raises
    ------
    InputError
        If the memory is too small; the message explains how to need less.
    """
    description = f"the moments of {columns} columns"
    remedy = "lower 'twojmax' and 'leverage.twojmax', or leave out 'quadratic'"
    threads = threads if device == CPU and get_active_client() is None else 1
    require_memory(estimate_reduction_bytes(columns, threads), description, remedy)
    if (free_bytes := device.get_available_memory()) is not None:
        require_memory(8 * GPU_COPIES * columns**2, description, remedy, available_bytes=free_bytes)


def estimate_reduction_bytes(columns: int, threads: int) -> float:
    """Estimate the memory of a reduction on the processor in bytes, an upper bound."""
    copies = REDUCTION_COPIES + threads * REDUCTION_COPIES_PER_THREAD
    return 8.0 * copies * columns**2 + threads * ROW_BLOCKS_PER_THREAD * BLOCK_BYTES


def _compute_balanced_ratio(data: SweepInput) -> float:
    """Compute the ratio w_E/w_F of the reduction from the numbers of energy rows and force rows, to balance them.

    The ratio depends only on the data, so that a change of the study's weights does not change any digit of a fit.
    """
    kind = data.design.kind[data.select_rows(data.train)]
    n_energy, n_force = int((kind == RowKind.ENERGY).sum()), int((kind == RowKind.FORCE).sum())
    return float(np.sqrt(n_force / n_energy)) if n_energy and n_force else 1.0
