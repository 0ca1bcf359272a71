"""Estimated cost of a run: fits, CPU time, disk space and memory.

The time of descriptors is extrapolated from a few configurations. The time of linear algebra is the number of
operations, which `paretofit.sweep` counts, divided by the measured speed of this processor. The time of figures and
tables is constant.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from paretofit import sweep
from paretofit.descriptors import RowsBasis, compute_design
from paretofit.labelling import format_seconds
from paretofit.report import format_count
from paretofit.study.further_bases import derive_studies
from paretofit.study.preparation import PreparedStudy

REPORT_SECONDS = 8.0  # CPU time for figures, tables and the page
MD_SECONDS_PER_MODEL = 1.5  # CPU time for a fit and three timings of each 2Jmax
N_TIMED_CONFIGURATIONS = 6  # configurations of different sizes whose descriptors are timed
PROCESS_BYTES = 250e6  # memory of a process before it reads any rows
BYTES_PER_FIT, REPORT_BYTES = 600.0, 10e6  # disk space of the journal and results, and of figures, tables and the page


@dataclass(frozen=True)
class RunCost:
    """Estimated cost of a run.

    Attributes
    ----------
    n_fits : int
    stage_seconds : dict of str to float
        CPU seconds of each stage.
    disk_bytes : float
        Size of the run folder.
    memory_bytes : float
        Peak memory of all processes together.
    jobs : int
        Number of processes.
    """

    n_fits: int
    stage_seconds: dict[str, float]
    disk_bytes: float
    memory_bytes: float
    jobs: int

    @property
    def text(self) -> str:
        """Cost in one sentence; the report is written by one process, and all other stages run in parallel."""
        total_seconds = sum(self.stage_seconds.values())
        stages = ", ".join(f"{name} {format_seconds(seconds)}" for name, seconds in self.stage_seconds.items())
        parallel_seconds = total_seconds - self.stage_seconds["report"]
        wall = format_seconds(parallel_seconds / self.jobs + self.stage_seconds["report"])
        cores = format_count(self.jobs, "free core")
        return (
            f"estimated cost: {format_count(self.n_fits, 'fit')}, {format_seconds(total_seconds)} of CPU time "
            f"({stages}), or {wall} on {cores}; {_format_bytes(self.disk_bytes)} of disk, "
            f"{_format_bytes(self.memory_bytes)} of memory"
        )


def estimate_run_cost(prepared: PreparedStudy, *, jobs: int = 1) -> RunCost:
    """Estimate the cost of a run, within a factor of about two.

    The descriptors of a few configurations are computed for this. Runs of further bases are included in the cost,
    networks (``mace``) are not.

    Parameters
    ----------
    prepared : PreparedStudy
    jobs : int
        Number of processes.
    """
    costs = [_estimate_basis_cost(prepared, jobs)]
    for study in derive_studies(prepared.study).values():
        grid = replace(prepared.grid, twojmax=study.twojmax)
        costs.append(_estimate_basis_cost(replace(prepared, study=study, grid=grid), jobs))
    stage_seconds = {name: sum(cost.stage_seconds[name] for cost in costs) for name in costs[0].stage_seconds}
    n_fits, disk_bytes = sum(cost.n_fits for cost in costs), sum(cost.disk_bytes for cost in costs)
    return RunCost(n_fits, stage_seconds, disk_bytes, max(cost.memory_bytes for cost in costs), jobs)


def _estimate_basis_cost(prepared: PreparedStudy, jobs: int) -> RunCost:
    """Estimate the cost of the run of a single basis."""
    study, grid, dataset = prepared.study, prepared.grid, prepared.dataset
    n_rows = 1 + 3 * dataset.n_atoms  # of each configuration: its energy and its forces
    n_columns = [study.basis.count_columns_up_to(twojmax) for twojmax in grid.twojmax]
    n_features, flop_rate = study.basis.n_features, sweep.measure_flop_rate()
    stage_seconds = {
        "descriptors": _measure_descriptor_seconds(prepared),
        "reduction": sweep.count_reduction_flops(int(n_rows.sum()), n_features) / flop_rate,
        "fits": _count_fit_flops(prepared, n_rows, n_columns) / flop_rate,
        "confidence": _count_confidence_flops(prepared, n_rows, n_columns) / flop_rate,
        "report": REPORT_SECONDS + MD_SECONDS_PER_MODEL * len(grid.twojmax) * study.cost.measure_md,
    }
    design_bytes = 8.0 * int(n_rows.sum()) * n_features
    memory_bytes = (jobs + 1) * PROCESS_BYTES + sweep.estimate_reduction_bytes(n_features, jobs) + design_bytes
    disk_bytes = design_bytes + BYTES_PER_FIT * grid.count_fits() + REPORT_BYTES
    return RunCost(grid.count_fits(), stage_seconds, disk_bytes, memory_bytes, jobs)


def _count_fit_flops(prepared: PreparedStudy, n_rows: np.ndarray, n_columns: list[int]) -> float:
    """Count the floating-point operations of the fits of all repetitions, mixtures included.

    Parameters
    ----------
    prepared : PreparedStudy
    n_rows : (n_configurations,) int
        Number of rows of each configuration.
    n_columns : list of int
        Number of columns of each model.
    """
    grid = prepared.grid
    n_draws = sum(grid.count_repetitions(method) for method in grid.sampling_methods)
    n_mixtures = grid.count_mixture_draws()
    mixture_flops = sweep.count_mixture_flops(n_mixtures, n_mixtures * len(grid.weights), n_columns)
    return _count_draw_flops(prepared, n_rows, n_columns, n_draws) + mixture_flops


def _count_confidence_flops(prepared: PreparedStudy, n_rows: np.ndarray, n_columns: list[int]) -> float:
    """Count the operations of all further splits: a draw of each sampling method, and the residuals of all test rows.

    `n_rows` and `n_columns` are those of `_count_fit_flops`.
    """
    grid, split = prepared.grid, prepared.split
    n_splits = prepared.study.confidence.splits if len(split.test) else 0
    n_draws = len(grid.sampling_methods)
    has_whole_set = len(split.train) in grid.sizes
    n_subsets = n_draws * (len(grid.sizes) - has_whole_set) + has_whole_set  # the whole set is the same in all draws
    n_models = len(grid.weights) * len(grid.ridge) * len(grid.levels)
    residual_flops = 2.0 * n_subsets * n_models * int(n_rows[split.test].sum()) * sum(n_columns)
    n_mixtures = sum(len(mixture.top_sizes) for mixture in grid.mixtures)
    mixture_flops = sweep.count_mixture_flops(n_mixtures, n_mixtures * len(grid.weights), n_columns)
    return n_splits * (_count_draw_flops(prepared, n_rows, n_columns, n_draws) + residual_flops + mixture_flops)


def _count_draw_flops(prepared: PreparedStudy, n_rows: np.ndarray, n_columns: list[int], n_draws: int) -> float:
    """Count the operations of the fits of `n_draws` draws.

    `n_rows` and `n_columns` are those of `_count_fit_flops`. Every configuration of a subset is assumed to have the
    mean number of rows. The whole training set is the same in all draws, and is therefore counted once.
    """
    grid, train = prepared.grid, prepared.split.train
    rows_per_configuration = float(n_rows[train].mean())
    sizes, n_levels = sorted(size for size in grid.sizes if size < len(train)), len(grid.levels)
    subset_rows = [round(size * rows_per_configuration) for size in sizes]
    n_weights = len(grid.weights) * len(grid.ridge)
    chain_flops = (
        sweep.count_chain_flops(subset_rows, [n_weights] * len(sizes), n_columns, n_levels, is_whole_training_set=False)
        if sizes
        else 0.0
    )
    total_flops = n_draws * chain_flops
    if len(train) in grid.sizes:
        whole_rows = int(n_rows[train].sum())
        total_flops += sweep.count_chain_flops(
            [whole_rows], [n_weights], n_columns, n_levels, is_whole_training_set=True
        )
    return total_flops


def _measure_descriptor_seconds(prepared: PreparedStudy) -> float:
    """Measure the CPU time of descriptors for a few configurations of different sizes, and scale it to all atoms.

    The time of the smallest configuration is subtracted, because most of it is an overhead of each call. Given rows
    cost no time.
    """
    dataset, basis = prepared.dataset, prepared.study.basis
    if isinstance(basis, RowsBasis):
        return 0.0
    order = np.argsort(dataset.n_atoms, kind="stable")
    sample = order[np.unique(np.linspace(0, len(order) - 1, N_TIMED_CONFIGURATIONS).round().astype(int))]
    seconds = []
    with TemporaryDirectory() as folder:
        for k, positions in enumerate((sample[:1], sample[:1], sample)):  # the first call loads LAMMPS
            begin = time.process_time()
            compute_design(dataset.select(positions), basis, Path(folder) / f"{k}.h5")
            seconds.append(time.process_time() - begin)
    if len(sample) == 1:
        return seconds[-1]
    n_timed_atoms = int(dataset.n_atoms[sample[1:]].sum())
    return max(seconds[2] - seconds[1], 0.0) / n_timed_atoms * int(dataset.n_atoms.sum())


def _format_bytes(count: float) -> str:
    """Format a number of bytes in GB, or in MB below 1 GB."""
    return f"{count / 1e9:.2g} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"
