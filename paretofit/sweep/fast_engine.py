"""The fast engine: one reduction of the rows serves the whole factorial (DESIGN §4).

Each draw is walked from its smallest subset to its largest: moments grow by the rows that are new, one
Cholesky factor for each subset and pair of weights serves all levels and all 2Jmax. Where the whitened moments
are singular or too ill-conditioned, a cell is fitted from its rows as in the plain engine.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.core import RowKind, require_memory
from paretofit.execution import ClusterRunner, get_active_client
from paretofit.linear import Reduction, compute_reduced_leverage, rms_by_kind, row_weights
from paretofit.linear.reduction import (
    CPU,
    MAX_CONDITION,
    MAX_REFINABLE_CONDITION,
    Device,
    NestedFit,
    PartMapper,
    PrefetchMapper,
    ThreadMapper,
    prefetch,
    to_numpy,
)
from paretofit.sweep.plain_engine import PlainEngine
from paretofit.sweep.row_fits import RowSource, build_level_rows, compute_loo_errors
from paretofit.sweep.row_stream import BLOCK_BYTES, RowStream, rows_per_block
from paretofit.sweep.stored_reduction import load_or_compute_reduction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from paretofit.core import Array
    from paretofit.linear import LeverageScores
    from paretofit.linear.reduction import Moments
    from paretofit.sweep.cells import PendingFits
    from paretofit.sweep.finished_subsets import PartialResults
    from paretofit.sweep.grid import Ridge, SweepGrid
    from paretofit.sweep.results import Row
    from paretofit.sweep.sweep_input import SweepInput

# While the rows are reduced (measured with 1, 2 and 4 threads at P = 1500: at most as much):
REDUCTION_COPIES = 8, 5  # of a (P, P) matrix, and as many more for each thread
BLOCKS = 8  # of rows, for each thread
GPU_COPIES = 30  # on a GPU, where more rows are gathered before they are folded in (counted, not measured)
WALK_COPIES = 4  # in each process (measured: 2 to 3)


class FastEngine:
    """Fits cells from grown moments; falls back to rows where moments cannot be trusted.

    Attributes
    ----------
    scores : LeverageScores or None
        Of the training configurations; None if one of them has no energy row.
    dropped_columns : list of str
        Columns that depend linearly on earlier ones in every row.
    reduction : Reduction
    plain : PlainEngine
        For what is fitted from rows.
    stream : RowStream
        All rows that train or test.
    device : Device
        What reduces the rows and fits from moments.
    """

    name = "fast"

    def __init__(
        self,
        data: SweepInput,
        grid: SweepGrid,
        *,
        threads: int = 1,
        device: Device = CPU,
        folder: Path | None = None,
    ) -> None:
        self.source, self.train, self.device = RowSource.from_sweep(data, grid), data.train, device
        self.stream = RowStream.from_source(self.source, data.train)
        columns = {twojmax: data.design.columns_up_to(twojmax) for twojmax in grid.twojmax}
        leverage = data.leverage_columns or data.design.n_features
        sizes = sorted({*columns.values(), leverage})
        self._size = {twojmax: sizes.index(p) for twojmax, p in columns.items()}
        check_reduction_memory(sizes[-1], threads, device)

        def reduce() -> tuple[Reduction, LeverageScores | None]:
            return self._reduce(data, sizes, leverage, _run(threads, device, folder))

        depends = [data.label_digests(list(grid.levels)), data.train.tolist(), sizes, leverage, data.leverage_weights]
        self.name = type(self).name if device == CPU else f"{type(self).name} by PyTorch"  # equal to 1e-8 only
        inputs = [data.digest(grid, self.name), *depends]
        self.reduction, self.scores = load_or_compute_reduction(folder, inputs, reduce)
        self.plain = PlainEngine(replace(self.source, compress=True), self.scores)
        self.dropped_columns = [data.design.column_names[k] for k in self.reduction.whitening.dropped_columns]

    def _reduce(
        self, data: SweepInput, sizes: list[int], leverage: int, run: PartMapper
    ) -> tuple[Reduction, LeverageScores | None]:
        """Pass over the rows: the reduction, and the scores of those that train."""
        parts, device = self.stream.parts(), self.device
        free = data.design.n_constant
        reduction = Reduction.from_parts(
            parts, sizes, energy_weight=_balance(data), unpenalised=free, mapper=run, device=device
        )
        if not data.has_leverage_scores():
            return reduction, None
        w_energy, w_force = data.leverage_weights
        weights = row_weights(np.arange(3), w_energy, w_force, w_force)
        n = data.design.n_configurations
        found = compute_reduced_leverage(reduction, parts, weights, n, mapper=run, device=device)[sizes.index(leverage)]
        return reduction, _of_training(found, data.train) or data.compute_leverage_scores()

    @cached_property
    def device_reduction(self) -> Reduction:
        """The reduction on the device that fits are made on."""
        return self.reduction.to(self.device)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "device_copy"}

    def describe_conditioning(self) -> list[str]:
        """For each size of model its columns, their rank, and the condition number of weighted rows in unit columns."""
        lines = []
        for twojmax, size in self._size.items():
            p, rank = int(self.reduction.sizes[size]), int(self.reduction.whitened_sizes[size])
            condition = self.reduction.whitening.condition(rank)
            lines.append(f"2Jmax {twojmax}: {p} columns, {rank} independent, condition number {condition:.1e}")
        return lines

    def build_chains(self, pending_fits: list[PendingFits]) -> list[list[PendingFits]]:
        """One task for each draw, its subsets nested; the whole training set is a task of its own."""
        walks: dict[Any, list[PendingFits]] = {}
        for one in pending_fits:
            whole = len(one.configurations) == len(self.train)
            walks.setdefault("whole" if whole else one.draw, []).append(one)
        ordered = []
        for walk in walks.values():
            steps = sorted(walk, key=lambda one: len(one.configurations))
            last = max((k for k, one in enumerate(steps, start=1) if one.models_by_weights), default=0)
            ordered += [steps[:last]] if last else []
        return sorted(ordered, key=lambda walk: -len(walk[-1].configurations))

    def run(self, task: list[PendingFits], partial_results: PartialResults) -> list[Row]:
        """Walk one draw in a worker; fits that moments cannot be trusted with are left to the plain engine."""
        fits: list[Row] = []
        moments = self.device_reduction.empty_moments()
        known = np.empty(0, dtype=np.int64)
        with threadpool_limits(1):
            for cells in task:
                if len(cells.configurations) == len(self.train):
                    moments = self.device_reduction.train_moments
                else:
                    self._grow(moments, np.setdiff1d(cells.configurations, known))
                    known = cells.configurations
                fits += partial_results.load_or_fit(cells, partial(self._fit, moments))
        return fits

    def _fit(self, moments: Moments, cells: PendingFits) -> list[Row]:
        """Fit what is pending on one subset, whose moments are grown."""
        walk = _Subset(self, moments, cells.configurations)
        own = (walk.fit(weights, models) for weights, models in cells.models_by_weights.items())
        return [{"subset": cells.subset_key, **row} for rows in own for row in rows]

    def estimate_task_bytes(self, task: list[PendingFits]) -> float:
        """Memory that a task takes in its process."""
        del task
        return 8.0 * WALK_COPIES * int(self.reduction.sizes[-1]) ** 2

    def get_size_index(self, twojmax: int) -> int:
        """Position of a 2Jmax among the sizes of the reduction."""
        return self._size[twojmax]

    def _grow(self, moments: Moments, members: Array) -> None:
        """Add the rows of some configurations, a block at a time."""
        design = self.source.design
        rows = self.source.select_rows(members)
        step = rows_per_block(design.n_features)
        windows = (rows[start : start + step] for start in range(0, len(rows), step))
        blocks = ((some, design.take(some)) for some in windows)
        for some, X in blocks if self.device == CPU else prefetch(blocks):
            U, Y, raw = self.device_reduction.whiten_rows(X, self.source.Y[some])
            moments.add(U, Y, raw, self.device.put(design.kind[some].astype(np.int64)))


class _Subset:
    """Fits on one subset, whose moments are known; its rows are read only if a fit needs them."""

    def __init__(self, engine: FastEngine, moments: Moments, members: Array) -> None:
        self.engine, self.reduction, self.source = engine, engine.device_reduction, engine.source
        self.moments, self.members = moments, members

    @cached_property
    def rows(self) -> tuple[Array, Array, Array, Array]:
        """Whitened rows, targets, kinds and leave-one-out groups of the subset, on the processor."""
        numbers = self.source.select_rows(self.members)
        design = self.source.design
        U, Y, _ = self.engine.reduction.whiten_rows(design.take(numbers), self.source.Y[numbers])
        return U, Y, design.kind[numbers], self.source.group[design.configuration[numbers]]

    def fit(self, weights: tuple[float, float], models: list[tuple[int, Ridge]]) -> Iterator[Row]:
        """Fit all levels of several models at one pair of weights."""
        w = row_weights(np.arange(3), *weights, weights[1])
        for ridge in dict.fromkeys(ridge for _, ridge in models):
            sizes = {twojmax: self.engine.get_size_index(twojmax) for twojmax, own in models if own == ridge}
            if ridge == "auto":
                continue  # one decomposition of the rows serves all penalties
            found = self._given(w, ridge, sizes.values())
            for twojmax, size in sizes.items():
                if (one := found[size]) is not None:
                    cell = {
                        "twojmax": twojmax,
                        "w_energy": weights[0],
                        "w_force": weights[1],
                        "n_features": int(self.reduction.sizes[size]),
                        "ridge": ridge,
                        "rank": int(self.reduction.whitened_sizes[size]),
                        "condition": one.fit.condition,
                        "solver": "whitened" if one.fit.condition <= MAX_CONDITION else "refined",
                    }
                    errors = self._errors(one, w / w.max())
                    yield from build_level_rows(self.source.levels, cell, errors, one.penalty)

    def _given(self, w: Array, ridge: float, sizes: Iterable[int]) -> dict[int, _Found | None]:
        """Fits with a given penalty, None where they cannot be trusted."""
        if (
            ridge > 0 and self.engine.dropped_columns
        ):  # dependent columns share a penalty in a way that one alone does not
            return dict.fromkeys(sizes)
        system = self.reduction.factorise(self.moments, w, ridge)
        found: dict[int, _Found | None] = {}
        for size in sizes:
            fit = system.fit(size, MAX_REFINABLE_CONDITION)
            if fit is None:
                found[size] = None
                continue
            train, lost = self.reduction.train_rms(self.moments, fit)
            if lost or fit.condition > MAX_CONDITION:
                U, Y, kind, _ = self.rows
                fit = system.refine(fit, U, Y, kind)
                train = rms_by_kind(U[:, : len(fit.delta)] @ to_numpy(fit.delta) - Y[:, fit.target_columns], kind)
            left_out = system.compute_loo_residuals(fit, *self.rows) if self.source.leave_one_out else None
            found[size] = _Found(fit, np.full(self.reduction.n_levels, ridge), train, left_out)
        return found

    def _errors(self, one: _Found, w: Array) -> dict[str, Array]:
        errors = {f"train_{kind.name.lower()}": value for kind, value in one.train.items()}
        for kind, test in self.reduction.test_rms(one.fit).items():
            name = kind.name.lower()
            errors |= {f"test_{name}": test.own_level, f"ref_{name}": test.reference_level}
            if kind == RowKind.ENERGY:
                errors["ref_energy_shifted"] = test.centred_reference
        if self.source.leave_one_out and one.left_out is not None:
            kinds = self.rows[2]
            labels = self.source.Y[self.source.select_rows(self.members)]
            errors |= compute_loo_errors(one.left_out / w[kinds][:, None], labels, kinds)
        return errors


class _Found(NamedTuple):
    """A fit, its penalties and training errors, and its weighted leave-one-out residuals if they are known."""

    fit: NestedFit
    penalty: Array
    train: dict[RowKind, Array]
    left_out: Array | None


def _run(threads: int, device: Device, folder: Path | None) -> PartMapper:
    """Where parts of the rows are summed."""
    if get_active_client() is not None:
        return ClusterRunner(folder)
    return ThreadMapper(threads) if device == CPU else PrefetchMapper()


def check_reduction_memory(columns: int, threads: int, device: Device) -> None:
    """Refuse more columns than the reduction has memory for, here or on the device.

    Raises
    ------
    InputError
        With what it needs, what there is, and what to change.
    """
    what, change = (
        f"the moments of {columns} columns",
        "lower 'twojmax' and 'leverage.twojmax', or leave out 'quadratic'",
    )
    threads = threads if device == CPU and get_active_client() is None else 1
    copies = REDUCTION_COPIES[0] + threads * REDUCTION_COPIES[1]
    require_memory(8 * copies * columns**2 + threads * BLOCKS * BLOCK_BYTES, what, change)
    if (free := device.available_memory()) is not None:
        require_memory(8 * GPU_COPIES * columns**2, what, change, available_bytes=free)


def _balance(data: SweepInput) -> float:
    """w_E/w_F of the reduction: as many force components as stand against one energy, and so their balance.

    It depends on the data only, so that an edit of the study's weights changes no digit of a fit.
    """
    kind = data.design.kind[data.select_rows(data.train)]
    n_energy, n_force = int((kind == RowKind.ENERGY).sum()), int((kind == RowKind.FORCE).sum())
    return float(np.sqrt(n_force / n_energy)) if n_energy and n_force else 1.0


def _of_training(scores: LeverageScores | None, train: Array) -> LeverageScores | None:
    """Scores of all configurations cut down to those that train."""
    if scores is None:
        return None
    return type(scores)(scores.rows, scores.regular[train], scores.block[train], scores.rank)
