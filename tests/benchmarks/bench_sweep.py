"""The full sweep against the published algorithm, implemented literally from its description.

Published (Baghishov et al., Digital Discovery 2025, and its scripts): for each subset, 2Jmax, level and pair of
weights, one `scipy.linalg.lstsq(A, y, 1e-13)` of the weighted rows, then a product with all rows for the errors.
Ours: leverage, reduction and sweep as `make_engine` and `run_sweep` do them. Both have the same number of cores.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
from common import (
    Options,
    Skip,
    Table,
    cpu_seconds,
    design_of,
    larger_dataset,
    shipped_dataset,
    spread,
    stage,
    train_test,
    with_copies,
)
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from paretofit.core import RowKind
from paretofit.sweep import SweepGrid, SweepInput, make_engine, run_sweep

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from paretofit.descriptors import DesignMatrix

WEIGHTS = [(1.0, 1.0), (3.0, 1.0), (5.0, 1.0), (12.25, 1.0), (50.0, 1.0), (150.0, 1.0)]
TWOJMAX = [4, 6, 8]
AGREE = 1e-6


def published_lstsq(A: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficients as in the published scripts: by SVD, with raw columns and their cutoff."""
    return scipy.linalg.lstsq(A, y, 1e-13)[0]


def careful_lstsq(A: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Accurate coefficients: columns of unit norm, singular values down to rounding."""
    scale = np.linalg.norm(A, axis=0)
    scale[scale == 0] = 1.0
    return scipy.linalg.lstsq(A / scale, y)[0] / scale


@dataclass(frozen=True)
class Cell:
    """A cell of the factorial for the published algorithm; X has the columns of its 2Jmax."""

    key: tuple[int, int, str, tuple[float, float]]
    X: np.ndarray
    y: np.ndarray
    is_energy: np.ndarray
    train: np.ndarray
    test: np.ndarray

    def errors(self, solve: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """Train energy, train force, test energy, test force: meV/atom and meV/Å."""
        w = np.where(self.is_energy, *self.key[-1])[self.train]
        residuals = self.X @ solve(self.X[self.train] * w[:, None], self.y[self.train] * w) - self.y
        groups = [rows & kind for rows in (self.train, self.test) for kind in (self.is_energy, ~self.is_energy)]
        return np.array([1000 * np.sqrt(np.mean(residuals[rows] ** 2)) for rows in groups])

    def run(self) -> tuple[float, float, np.ndarray, np.ndarray]:
        """Wall and CPU seconds of the published algorithm, its errors, and accurate ones; runs in a worker."""
        with threadpool_limits(1):
            wall, cpu = time.perf_counter(), time.process_time()
            literal = self.errors(published_lstsq)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            return wall, cpu, literal, self.errors(careful_lstsq)


def sampled_cells(data: SweepInput, grid: SweepGrid, members: dict[int, np.ndarray], samples: int) -> list[Cell]:
    """Each (2Jmax, size) a few times, with levels and weights in turn; the largest first."""
    design = data.design
    X, is_energy = design.read_all_rows(), design.kind == RowKind.ENERGY
    test = np.isin(design.configuration, data.test)
    cells = []
    for twojmax in sorted(grid.twojmax, reverse=True):
        A = np.ascontiguousarray(X[:, : design.count_columns_up_to(twojmax)])
        for k, size in enumerate(sorted(grid.sizes, reverse=True)):
            train = np.isin(design.configuration, members[size])
            for sample in range(samples):
                level = grid.levels[(k + sample) % len(grid.levels)]
                weights = grid.weights[(k + 2 * sample) % len(grid.weights)]
                cells.append(Cell((twojmax, size, level, weights), A, design.targets[level], is_energy, train, test))
    return cells


def differences(table: pd.DataFrame, cells: list[Cell], results: list) -> np.ndarray:
    """``(n, 2)``: relative difference of our errors to the literal and to the careful ones; full rank only."""
    errors = []
    for cell, (_, _, literal, careful) in zip(cells, results, strict=True):
        twojmax, size, level, weights = cell.key
        chosen = (table.twojmax == twojmax) & (table.n_train == size) & (table.level == level)
        row = table[chosen & (table.w_energy == weights[0])].iloc[0]
        if row["rank"] == row["n_features"]:  # otherwise the fit is not unique
            ours = row[["train_energy", "train_force", "test_energy", "test_force"]].to_numpy(dtype=float)
            errors.append([np.max(np.abs(ours / other - 1)) for other in (literal, careful)])
    return np.array(errors)


def measure(name: str, design: DesignMatrix, sizes: list[int], samples: int, options: Options) -> tuple[list, list]:
    """Rows of the table and notes for one dataset."""
    train, test = train_test(design.n_configurations)
    sizes = [*sizes, len(train)]
    data = SweepInput(design.load_into_memory(), train, test)
    levels = [level for level in design.targets if not design.find_missing_labels(level).any()]
    grid = SweepGrid(levels, TWOJMAX, WEIGHTS, sizes, ("random",), 1)
    tables: list[pd.DataFrame] = []
    ours, stages = [], []
    Parallel(n_jobs=options.cores)(delayed(str)(k) for k in range(8))  # start the worker processes
    with stage(f"{name}: ours, {options.repeats} times"):
        for _ in range(options.repeats):
            start, cpu = time.perf_counter(), cpu_seconds()
            engine = make_engine(data, grid, "fast", jobs=options.cores)
            stages.append(time.perf_counter() - start)
            tables.append(run_sweep(data, grid, engine=engine, jobs=options.cores))
            ours.append([time.perf_counter() - start, cpu_seconds() - cpu])
    members = {subset.n_train: train[list(subset.positions)] for subset in grid.draw_subsets(engine.scores, len(train))}
    cells = sampled_cells(data, grid, members, samples)
    with stage(f"{name}: published, {len(cells)} of {grid.count_fits()} cells"):
        results = Parallel(n_jobs=options.cores)(delayed(cell.run)() for cell in cells)
    # Each (2Jmax, size) stands for all its levels and weights.
    each = len(grid.levels) * len(grid.weights)
    times = np.array([result[:2] for result in results]).reshape(-1, samples, 2).sum(axis=0) * each
    times[:, 0] /= options.cores  # processes share the cells without a gap
    fast = np.array(ours)
    lines = []
    for k, clock in enumerate(("wall", "CPU")):
        ratio = [times[:, k].min() / fast[:, k].max(), np.median(times[:, k]) / np.median(fast[:, k])]
        ratio.append(times[:, k].max() / fast[:, k].min())
        columns = [" / ".join(spread(values)) for values in (times[:, k], fast[:, k])]
        lines.append([name, design.n_rows, grid.count_fits(), clock, *columns, " / ".join(f"{x:.0f}" for x in ratio)])
    ways = ", ".join(f"{n} {solver}" for solver, n in tables[-1]["solver"].value_counts().items())
    off = differences(tables[-1], cells, results)
    agrees = "agrees" if off[:, 1].max() < AGREE else "DOES NOT AGREE"
    notes = [
        (
            f"{name}: sizes {sizes}; fits by solver: {ways}. Reduction and leverage took {np.median(stages):.1f} s of "
            f"our wall time. {len(cells)} published cells were timed ({samples} for each 2Jmax and size) and added up."
        ),
        (
            f"{name}: over {len(off)} sampled cells of full rank our errors differ from a careful `lstsq` (unit "
            f"columns) by {off[:, 1].max():.0e} at most ({agrees} to {AGREE:g}), from the literal one by "
            f"{off[:, 0].max():.0e} (median {np.median(off[:, 0]):.0e}): raw columns and its cutoff cost it digits."
        ),
    ]
    return lines, notes


def run(options: Options) -> list[Table]:
    """Compare both datasets."""
    table = Table(
        "One draw of the factorial: 2Jmax 4, 6, 8 × 5 levels × 6 weights × 6 sizes",
        ["set", "rows", "fits", "time", "published, s", "ours, s", "ratio"],
        notes=[
            "minimum / median / maximum; the minimum of the ratio is the fastest published run against our slowest.",
            (
                f"{options.cores} cores each: published, {options.cores} processes of one thread, taken to share the "
                f"cells without a gap; ours, `jobs={options.cores}`, everything included (reduction, leverage, fits). "
                "CPU: seconds of all processes and threads, which other work on the machine hardly changes."
            ),
        ],
    )
    sets = [("shipped", lambda: design_of(shipped_dataset(), "shipped", options), [46, 66, 86, 106, 122], 3)]
    sets += [("larger", lambda: larger_with_copies(options), [30, 50, 80, 130, 210], 2)]
    for name, make, sizes, samples in sets:
        try:
            lines, notes = measure(name, make(), sizes, 1 if options.quick else samples, options)
        except Skip as reason:
            lines, notes = [], [f"{name}: skipped, {reason}"]
        for line in lines:
            table.add(*line)
        table.notes += notes
    table.notes.append("larger: it has one level; the other four are copies with 2 % of noise, for timing.")
    return [table]


def larger_with_copies(options: Options) -> DesignMatrix:
    """The larger set with five levels."""
    return with_copies(design_of(larger_dataset(options.work), "larger", options), 5)
