"""The plain engine: every cell of the factorial is fitted from its rows with `fit_wls`.

The fast engine is tested against this engine. The levels of a cell share one factorisation, and subsets with the same
configurations share one fit. Linear algebra runs on one thread in each process, so that results do not depend on the
number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.core import FIT_COPIES, Array, RowKind
from paretofit.descriptors import DesignMatrix
from paretofit.linear import (
    LeverageScores,
    WideFactor,
    choose_ridge,
    compute_rms_by_kind,
    fit_wls,
    get_row_weights,
    leave_one_out,
    name_solver,
)
from paretofit.properties import PropertyRows
from paretofit.sweep.cells import PendingFits, split_into_tasks
from paretofit.sweep.grid import SweepGrid
from paretofit.sweep.results import SWEEP_COLUMNS, PartialResults, Row
from paretofit.sweep.sweep_input import SweepInput
from paretofit.sweep.work import count_row_fit_flops

EV_TO_MEV = 1000.0  # errors are reported in meV/atom and meV/Å


@dataclass(frozen=True)
class RowSource:
    """Rows and labels of a sweep, for fits that read the rows.

    Attributes
    ----------
    design : DesignMatrix
    Y : (n_rows, n_levels) float64
        Labels in eV/atom, eV/Å and GPa.
    test_row_indices : (n_test_rows,) int64
        Positions of the test rows in the design.
    levels : list of str
    group : (n_configurations,) int64
        Leave-one-out group of each configuration.
    leave_one_out : bool
        Whether leave-one-out errors are computed.
    properties : PropertyRows, optional
        Properties that are evaluated for every fit.
    """

    design: DesignMatrix
    Y: Array
    test_row_indices: Array
    levels: list[str]
    group: Array
    leave_one_out: bool
    properties: PropertyRows | None = None

    @classmethod
    def from_sweep(cls, data: SweepInput, grid: SweepGrid) -> RowSource:
        """Gather the arrays; the rows of a design are read into memory, unless it is large."""
        levels, design, groups = list(grid.levels), data.design.load_into_memory(), data.get_loo_groups()
        test_row_indices = data.find_row_indices(data.test)
        targets = data.stack_targets(levels)
        return cls(design, targets, test_row_indices, levels, groups, grid.leave_one_out, data.properties)

    def find_row_indices(self, configurations: Array) -> Array:
        """Return the positions of the rows of some configurations, ascending."""
        return np.flatnonzero(np.isin(self.design.configuration, configurations))

    def count_rows(self, configurations: Array) -> int:
        """Count the rows of some configurations."""
        return int(self._rows_by_configuration[configurations].sum())

    @cached_property
    def _rows_by_configuration(self) -> Array:
        return np.bincount(self.design.configuration, minlength=self.design.n_configurations)

    def estimate_fit_bytes(self, pending: PendingFits) -> float:
        """Estimate the memory of the largest pending fit to a subset, in bytes."""
        columns = self.design.count_columns_up_to(max(model.twojmax for model in pending.models))
        return 8 * FIT_COPIES * len(self.find_row_indices(pending.configurations)) * columns

    def fit(self, pending: PendingFits) -> Iterator[Row]:
        """Fit the pending models to one subset; yield a row of results for each level, in meV/atom and meV/Å.

        With fewer rows than columns, the fits without a ridge share a factorisation at all weights.
        """
        row_indices = self.find_row_indices(pending.configurations)
        for twojmax in sorted({model.twojmax for model in pending.models}):
            models = [model for model in pending.models if model.twojmax == twojmax]
            p = self.design.count_columns_up_to(twojmax)
            X = self.design.read_rows(row_indices, p, memory_copies=FIT_COPIES)
            is_wide = len(X) < p and any(model.ridge == 0 for model in models)
            wide_factor = WideFactor.from_rows(X) if is_wide else None
            for (w_energy, w_force), _, ridge in models:
                cell_factors = {"twojmax": twojmax, "w_energy": w_energy, "w_force": w_force, "n_features": p}
                yield from self._fit_cell(
                    row_indices, X, {**cell_factors, "ridge": ridge}, wide_factor if ridge == 0 else None
                )

    def _fit_cell(self, row_indices: Array, X: Array, cell: Row, wide_factor: WideFactor | None) -> Iterator[Row]:
        """Fit one cell, all levels at once; `wide_factor` is that of the rows X if they are fewer than the columns."""
        Y, kind = self.Y[row_indices], self.design.kind[row_indices]
        group = self.group[self.design.configuration[row_indices]]
        ridge, w_energy, w_force = (cell[name] for name in ("ridge", "w_energy", "w_force"))
        weights = {"energy_weight": w_energy, "force_weight": w_force, "stress_weight": w_force}
        options: dict[str, Any] = {**weights, "n_unpenalised": self.design.n_constant}
        penalty, loo_residuals = np.full(len(self.levels), ridge if ridge != "auto" else np.nan), None
        solution: Any
        if ridge == "auto":
            solution = choose_ridge(X, Y, kind, group, **options)
            beta, penalty, loo_residuals = solution.coefficients, solution.penalty, solution.loo_residuals
        elif wide_factor is not None:
            w = get_row_weights(kind, w_energy, w_force, w_force)[:, None]
            solution, beta = wide_factor.factor, wide_factor.solve(Y, w)
        else:
            solution = fit_wls(X, Y, kind, **options, ridge=ridge)
            beta = solution.coefficients
        if self.leave_one_out and loo_residuals is None:
            loo_residuals = leave_one_out(X, Y, kind, group, **options, ridge=ridge)
        residuals = X @ beta - Y
        errors = prefix_errors("train", compute_rms_by_kind(residuals, kind))
        errors |= prefix_errors("train_ref", compute_rms_by_kind(residuals + Y - Y[:, -1:], kind))
        errors |= self._compute_test_errors(beta, X.shape[1])
        if self.properties is not None:
            errors |= self.properties.evaluate(self.properties.rows[:, : len(beta)] @ beta)
        if self.leave_one_out and loo_residuals is not None:
            errors |= compute_loo_errors(loo_residuals, Y, kind)
        solver = solution.solver if ridge == "auto" else name_solver(solution.rank, X.shape[1])
        fit_columns = {"rank": solution.rank, "condition": solution.condition, "solver": solver}
        yield from build_level_rows(self.levels, {**cell, **fit_columns}, errors, penalty)

    def _compute_test_errors(self, beta: Array, p: int) -> dict[str, Array]:
        """Compute the test errors of all levels from coefficients of the first p columns, by results column."""
        kind, labels = self.design.kind[self.test_row_indices], self.Y[self.test_row_indices]
        predictions = self.design.read_rows(self.test_row_indices, p) @ beta
        reference_residuals = predictions - labels[:, -1:]
        errors = prefix_errors("test", compute_rms_by_kind(predictions - labels, kind))
        errors |= prefix_errors("ref", compute_rms_by_kind(reference_residuals, kind))
        energy_residuals = reference_residuals[kind == RowKind.ENERGY]
        if len(energy_residuals):
            errors["ref_energy_shifted"] = EV_TO_MEV * np.std(energy_residuals, axis=0)
        return errors


@dataclass(frozen=True)
class PlainEngine:
    """Engine that fits every cell from its rows; joblib shares the arrays with the workers as memory maps.

    Attributes
    ----------
    source : RowSource
    scores : LeverageScores or None
        Scores of the training configurations; None if one of them has no energy row.
    dropped_columns : list of str
        Always empty: a plain fit detects dependent columns by itself.
    """

    source: RowSource
    scores: LeverageScores | None
    dropped_columns: list[str] = field(default_factory=list)
    name: ClassVar[str] = "plain"

    @classmethod
    def from_sweep(cls, data: SweepInput, grid: SweepGrid) -> PlainEngine:
        """Prepare the engine for a grid."""
        scores = data.compute_leverage_scores() if data.has_leverage_scores() else None
        return cls(RowSource.from_sweep(data, grid), scores)

    def run(self, task: list[PendingFits], partial_results: PartialResults) -> list[Row]:
        """Fit one task in a worker; return the rows of the results table."""
        with threadpool_limits(1):
            return [row for pending in task for row in partial_results.load_or_fit(pending, self.source.fit)]

    def build_tasks(self, pending_fits: list[PendingFits]) -> list[list[PendingFits]]:
        """Create a task for each subset and 2Jmax, the largest subsets first, so that no long task is started last."""
        return split_into_tasks(pending_fits)

    def count_flops(self, task: list[PendingFits]) -> float:
        """Count the floating-point operations of a task."""
        return sum(
            count_row_fit_flops(
                self.source.count_rows(pending.configurations),
                self.source.design.count_columns_up_to(twojmax),
                sum(model.twojmax == twojmax for model in pending.models),
                len(self.source.levels),
                len(self.source.test_row_indices),
            )
            for pending in task
            for twojmax in {model.twojmax for model in pending.models}
        )

    def estimate_task_bytes(self, task: list[PendingFits]) -> float:
        """Estimate the memory of a task in its process, in bytes, from the largest fit."""
        return max(self.source.estimate_fit_bytes(pending) for pending in task)


def compute_loo_errors(loo_residuals: Array, Y: Array, kind: Array) -> dict[str, Array]:
    """Compute leave-one-out errors against each fit's level and against the last level, by results column.

    The residuals and the labels Y are ``(n, n_levels)``, the kinds ``(n,)``, and the errors ``(n_levels,)`` in the
    units of the results table.
    """
    reference_residuals = loo_residuals + Y[:, -1:] - Y
    errors = prefix_errors("loo", compute_rms_by_kind(loo_residuals, kind))
    return errors | prefix_errors("loo_ref", compute_rms_by_kind(reference_residuals, kind))


def prefix_errors(prefix: str, errors: Mapping[RowKind, Array]) -> dict[str, Array]:
    """Convert errors to meV/atom, meV/Å and MPa; their names consist of the prefix and the kind of row."""
    return {f"{prefix}_{kind.name.lower()}": EV_TO_MEV * error for kind, error in errors.items()}


def build_level_rows(levels: list[str], cell: Row, errors: Mapping[str, Array], penalty: Array) -> Iterator[Row]:
    """Yield a row for each level: the cell, the level, its penalty, and its errors.

    The errors, in the units of the results table, and the penalties are ``(n_levels,)``. Missing errors are NaN.
    """
    error_columns = [name for name in SWEEP_COLUMNS if name.startswith(("train_", "test_", "ref_"))]
    for k, level in enumerate(levels):
        level_errors = dict.fromkeys(error_columns, float("nan"))
        level_errors |= {name: float(error[k]) for name, error in errors.items()}
        yield {**cell, "level": level, "ridge_lambda": float(penalty[k]), **level_errors}
