"""Cost of a run before it begins: fits, CPU time, disk and memory.

The time of descriptors is measured with one configuration; that of linear algebra follows from the operations that
`paretofit.sweep` counts and from the measured speed of this processor; that of figures and tables is constant.
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
N_TIMED_CONFIGURATIONS = 6
PROCESS_BYTES = 250e6  # memory of a process before it reads any rows
BYTES_PER_FIT, REPORT_BYTES = 600.0, 10e6  # disk space of the journal and results, and of figures, tables and the page


@dataclass(frozen=True)
class RunCost:
    """Estimated cost of a run.

    Attributes
    ----------
    n_fits : int
    stage_seconds : dict of str to float
        CPU seconds of each stage on one core.
    disk_bytes, memory_bytes : float
        Size of the run folder, and largest memory of all processes together.
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
        """Cost as one sentence."""
        seconds = sum(self.stage_seconds.values())
        stages = ", ".join(f"{name} {format_seconds(value)}" for name, value in self.stage_seconds.items())
        parallel_seconds = seconds - self.stage_seconds["report"]
        wall = format_seconds(parallel_seconds / self.jobs + self.stage_seconds["report"])
        cores = format_count(self.jobs, "free core")
        return (
            f"estimated cost: {format_count(self.n_fits, 'fit')}, {format_seconds(seconds)} of CPU time "
            f"({stages}), or {wall} on {cores}; {_format_bytes(self.disk_bytes)} of disk, "
            f"{_format_bytes(self.memory_bytes)} of memory"
        )


def estimate_run_cost(prepared: PreparedStudy, *, jobs: int = 1) -> RunCost:
    """Estimate the cost of a run, within a factor of about two; networks (``mace``) are not included.

    Parameters
    ----------
    prepared : PreparedStudy
        With further bases, the cost includes their runs.
    jobs : int
        Number of processes.
    """
    costs = [_estimate_basis_cost(prepared, jobs)]
    for study in derive_studies(prepared.study).values():
        grid = replace(prepared.grid, twojmax=study.twojmax, mixtures=[])
        costs.append(_estimate_basis_cost(replace(prepared, study=study, grid=grid), jobs))
    stages = {name: sum(cost.stage_seconds[name] for cost in costs) for name in costs[0].stage_seconds}
    n_fits, disk = sum(cost.n_fits for cost in costs), sum(cost.disk_bytes for cost in costs)
    return RunCost(n_fits, stages, disk, max(cost.memory_bytes for cost in costs), jobs)


def _estimate_basis_cost(prepared: PreparedStudy, jobs: int) -> RunCost:
    """Estimate the cost of the run of a single basis."""
    study, grid, dataset = prepared.study, prepared.grid, prepared.dataset
    rows = 1 + 3 * dataset.n_atoms
    columns = [study.basis.count_columns_up_to(twojmax) for twojmax in grid.twojmax]
    n_features, rate = study.basis.n_features, sweep.measure_flop_rate()
    seconds = {
        "descriptors": _measure_descriptor_seconds(prepared),
        "reduction": sweep.count_reduction_flops(int(rows.sum()), n_features) / rate,
        "fits": _count_fit_flops(prepared, rows, columns) / rate,
        "confidence": _count_confidence_flops(prepared, rows, columns) / rate,
        "report": REPORT_SECONDS + MD_SECONDS_PER_MODEL * len(grid.twojmax) * study.cost.measure_md,
    }
    design_bytes = 8.0 * int(rows.sum()) * n_features
    memory = (jobs + 1) * PROCESS_BYTES + sweep.estimate_reduction_bytes(n_features, jobs) + design_bytes
    disk = design_bytes + BYTES_PER_FIT * grid.count_fits() + REPORT_BYTES
    return RunCost(grid.count_fits(), seconds, disk, memory, jobs)


def _count_fit_flops(prepared: PreparedStudy, rows: np.ndarray, columns: list[int]) -> float:
    """Count the operations of the fits of all repetitions."""
    grid = prepared.grid
    n_draws = sum(grid.count_repetitions(method) for method in grid.sampling_methods)
    n_mixtures = grid.count_mixture_draws()
    mixtures = sweep.count_mixture_flops(n_mixtures, n_mixtures * len(grid.weights), columns)
    return _count_draw_flops(prepared, rows, columns, n_draws) + mixtures


def _count_confidence_flops(prepared: PreparedStudy, rows: np.ndarray, columns: list[int]) -> float:
    """Count the operations of further splits: one draw of each sampling method, and the residuals of all test rows."""
    grid, split = prepared.grid, prepared.split
    n_splits = prepared.study.confidence.count_splits(grid.repetitions) if len(split.test) else 0
    n_draws = len(grid.sampling_methods)
    is_whole_included = len(split.train) in grid.sizes
    n_subsets = n_draws * (len(grid.sizes) - is_whole_included) + is_whole_included
    n_models = len(grid.weights) * len(grid.ridge) * len(grid.levels)
    residual_flops = 2.0 * n_subsets * n_models * int(rows[split.test].sum()) * sum(columns)
    n_mixtures = sum(len(mixture.top_sizes) for mixture in grid.mixtures)
    mixtures = sweep.count_mixture_flops(n_mixtures, n_mixtures * len(grid.weights), columns)
    return n_splits * (_count_draw_flops(prepared, rows, columns, n_draws) + residual_flops + mixtures)


def _count_draw_flops(prepared: PreparedStudy, rows: np.ndarray, columns: list[int], n_draws: int) -> float:
    """Count the operations of some draws; every configuration of a subset counts with the mean number of rows."""
    grid, train = prepared.grid, prepared.split.train
    rows_per_configuration = float(rows[train].mean())
    sizes, n_levels = sorted(size for size in grid.sizes if size < len(train)), len(grid.levels)
    n_rows = [round(size * rows_per_configuration) for size in sizes]
    n_weights = len(grid.weights) * len(grid.ridge)
    chain = (
        sweep.count_chain_flops(n_rows, [n_weights] * len(sizes), columns, n_levels, is_whole_training_set=False)
        if sizes
        else 0.0
    )
    total = n_draws * chain
    if len(train) in grid.sizes:
        n_whole = int(rows[train].sum())
        total += sweep.count_chain_flops([n_whole], [n_weights], columns, n_levels, is_whole_training_set=True)
    return total


def _measure_descriptor_seconds(prepared: PreparedStudy) -> float:
    """Measure the CPU time of descriptors for a few configurations of different sizes, and scale it to all atoms.

    Given rows take none. The time of the smallest configuration is subtracted, because most of that time is an overhead
    of each call.
    """
    dataset, basis = prepared.dataset, prepared.study.basis
    if isinstance(basis, RowsBasis):
        return 0.0
    order = np.argsort(dataset.n_atoms, kind="stable")
    sample = order[np.unique(np.linspace(0, len(order) - 1, N_TIMED_CONFIGURATIONS).round().astype(int))]
    seconds = []
    with TemporaryDirectory() as folder:
        for k, positions in enumerate((sample[:1], sample[:1], sample)):  # the first call loads LAMMPS
            start = time.process_time()
            compute_design(dataset.select(positions), basis, Path(folder) / f"{k}.h5")
            seconds.append(time.process_time() - start)
    n_atoms, n_all = int(dataset.n_atoms[sample].sum()), int(dataset.n_atoms.sum())
    if len(sample) == 1:
        return seconds[-1]
    return max(seconds[2] - seconds[1], 0.0) / (n_atoms - int(dataset.n_atoms[sample[0]])) * n_all


def _format_bytes(count: float) -> str:
    return f"{count / 1e9:.2g} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"
