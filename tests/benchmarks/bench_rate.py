"""The reduction's rate in GFLOP/s against a plain matrix product of the same shape on as many threads.

What is counted is what has to be done: Gram n_train p², triangular solve n p², whitened moments n_train p²
(both products are symmetric, so half of 2 n p²), QR of the test rows 2 n_test p². Not counted: copies, scaling,
targets, norms, the factor of each (p, p) matrix, and the rows of triangles that blockwise QR goes through again.
"""

from __future__ import annotations

import numpy as np
from common import Options, Skip, Table, design_of, larger_dataset, seconds, spread, stage, train_test
from threadpoolctl import threadpool_limits

from paretofit.linear import Reduction, compute_reduced_leverage
from paretofit.linear.reduction import ThreadMapper
from paretofit.sweep import FastEngine, SweepGrid, SweepInput

TWOJMAX = [4, 6, 8]


def run(options: Options) -> list[Table]:
    """The larger set."""
    try:
        design = design_of(larger_dataset(options.work), "larger", options).load_into_memory()
    except Skip as reason:
        return [Table("The reduction's rate", ["skipped"], [[str(reason)]])]
    train, test = train_test(design.n_configurations)
    data = SweepInput(design, train, test)
    grid = SweepGrid(["vasp"], TWOJMAX, [(12.0, 1.0)], [80], ("random",), 1)
    with stage("preparing the engine"):
        engine = FastEngine(data, grid, threads=options.cores)
    sizes = engine.reduction.sizes.tolist()
    n_train, n_test = len(data.find_row_indices(train)), len(data.find_row_indices(test))
    P = len(engine.reduction.whitening.retained_columns)
    flops = (2 * n_train + (n_train + n_test) + 2 * n_test) * P**2
    X = design.read_all_rows()
    left = np.ascontiguousarray(X[:, :P])
    right = np.random.default_rng(0).permutation(left, axis=1)
    weights, parts, run = np.array([12.0, 1.0, 1.0]), engine.stream.list_parts(), ThreadMapper(options.cores)
    times: dict[str, list[float]] = {"reduction": [], "leverage pass": [], "matrix product": []}
    with stage("reduction, leverage and matrix product in turn"):
        for _ in range(max(options.repeats, 3)):
            times["reduction"].append(
                seconds(lambda: Reduction.from_parts(parts, sizes, energy_weight=12.0, mapper=run))[0]
            )
            times["leverage pass"].append(
                seconds(
                    lambda: compute_reduced_leverage(
                        engine.reduction, parts, weights, design.n_configurations, mapper=run
                    )
                )[0]
            )
            with threadpool_limits(options.cores):
                times["matrix product"].append(seconds(lambda: left.T @ right)[0])
    counts = {"reduction": flops, "leverage pass": n_train * P**2, "matrix product": 2 * len(X) * P**2}
    table = Table(
        f"{n_train} training and {n_test} test rows × {P} columns, {options.cores} threads",
        ["what", "GFLOP", "seconds", "GFLOP/s", "of the matrix product"],
        notes=[
            "minimum / median / maximum; rows in memory; the three are timed in turn.",
            f"matrix product: ({P} × {len(X)}) times ({len(X)} × {P}), BLAS on {options.cores} threads.",
            *" ".join(__doc__.split("\n\n")[1].split()).replace("_", "\\_").split(" Not counted"),
        ],
    )
    table.notes[-1] = "Not counted" + table.notes[-1]
    product = counts["matrix product"] / np.array(times["matrix product"])
    for step, elapsed in times.items():
        rate = counts[step] / np.array(elapsed)
        table.add(
            step, f"{counts[step] / 1e9:.0f}", *(" / ".join(spread(v)) for v in (elapsed, rate / 1e9, rate / product))
        )
    return [table]
