"""Peak memory of the reduction against the number of rows; it must not grow with them.

The real design of the larger set is written to a file once, twice, four and eight times over, with ids made
distinct. Each reduction runs in a separate process, with rows read from the file in blocks, and reports the
peak resident memory. `python bench_memory.py FILE WHAT THREADS` is that process.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
from common import Options, Skip, Table, design_of, larger_dataset, spread, stage, train_test

from paretofit.descriptors import DesignBlock, DesignMatrix

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMES = (1, 2, 4, 8)
WHAT = ("start", "reduction", "engine")


def tiled(design: DesignMatrix, times: int, path: Path) -> Path:
    """Write a file with several copies of the design."""
    if path.exists():
        return path

    def blocks() -> Iterator[DesignBlock]:
        for copy in range(times):
            for window, rows in design.iterate_blocks():
                ids = design.ids[design.configuration[window]] + copy * (int(design.ids.max()) + 1)
                targets = {level: values[window] for level, values in design.targets.items()}
                yield DesignBlock(rows, design.kind[window], ids, targets)

    with stage(f"writing {times} times the rows"):
        DesignMatrix.from_blocks(blocks(), path, column_levels=design.column_levels, column_names=design.column_names)
    return path


def measured(path: Path, step: str, threads: int) -> tuple[float, float]:
    """Peak memory (MiB) and seconds of a separate process."""
    command = [sys.executable, __file__, str(path), step, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    return result["peak"], result["seconds"]


def run(options: Options) -> list[Table]:
    """Measure the reduction and the engine with 1, 2, 4 and 8 times the rows."""
    try:
        design = design_of(larger_dataset(options.work), "larger", options, 6 if options.quick else 8)
    except Skip as reason:
        return [Table("Peak memory", ["skipped"], [[str(reason)]])]
    table = Table(
        f"Peak memory against the number of rows, {design.n_features} columns, {options.cores} threads",
        ["rows", "file, MiB", "what", "peak, MiB", "against 1 times", "seconds"],
        notes=[
            "minimum / median / maximum of processes of their own; rows stay in the file.",
            "start: Python with the package loaded and the design opened (labels and row index in memory).",
            (
                "reduction: `Reduction.of` on blocks of the file. engine: `FastEngine`, leverage included, with the "
                "limit below which rows are held in memory set to nothing."
            ),
        ],
    )
    first: dict[str, float] = {}
    for times in TIMES[:3] if options.quick else TIMES:
        path = tiled(design, times, options.work / f"tiled_{times}_{design.n_features}.h5")
        for step in WHAT:
            with stage(f"{step}, {times} times the rows"):
                results = np.array([measured(path, step, options.cores) for _ in range(options.repeats)])
            peaks = results[:, 0]
            first.setdefault(step, float(np.median(peaks)))
            size = path.stat().st_size / 2**20
            table.add(
                times * design.n_rows,
                f"{size:.0f}",
                step,
                " / ".join(spread(peaks, ".0f")),
                f"{np.median(peaks) / first[step]:.2f}",
                " / ".join(spread(results[:, 1])),
            )
    return [table]


def child(path: str, step: str, threads: int) -> None:
    """Reduce one file and print the peak."""
    from paretofit.descriptors import design as design_module
    from paretofit.linear import Reduction
    from paretofit.linear.reduction import ThreadMapper
    from paretofit.sweep import FastEngine, SweepGrid, SweepInput
    from paretofit.sweep.plain_engine import RowSource
    from paretofit.sweep.row_stream import RowStream

    design_module.DesignMatrix.load_into_memory = lambda self, limit=0: self  # rows stay in the file
    design = DesignMatrix.open(path)
    train, test = train_test(design.n_configurations)
    sizes = {4: 120, 6: 496, 8: 1596}
    twojmax = [t for t, p in sizes.items() if p <= design.n_features]
    grid = SweepGrid(list(design.targets), twojmax, [(12.0, 1.0)], [80], ("random",), 1)
    data = SweepInput(design, train, test)
    start = time.perf_counter()
    if step == "engine":
        FastEngine(data, grid, threads=threads)
    elif step == "reduction":
        parts = RowStream.from_source(RowSource.from_sweep(data, grid), train).list_parts()
        Reduction.from_parts(parts, [sizes[t] for t in twojmax], energy_weight=12.0, mapper=ThreadMapper(threads))
    elapsed = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({"peak": peak, "seconds": elapsed}))


if __name__ == "__main__":
    child(sys.argv[1], sys.argv[2], int(sys.argv[3]))
