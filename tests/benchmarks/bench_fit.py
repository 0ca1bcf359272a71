"""The marginal cost of one more fit against one `scipy.linalg.lstsq` of the same rows.

A subset whose factors exist is fitted at one more pair of weights: one triangle, and the fits and all errors of every
level and 2Jmax from it. Both sides have one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from bench_sweep import TWOJMAX, WEIGHTS, published_lstsq
from common import Options, Skip, Table, design_of, larger_dataset, seconds, spread, stage, train_test, with_copies
from threadpoolctl import threadpool_limits

from paretofit.core import RowKind
from paretofit.sweep import SweepGrid, SweepInput, make_engine

if TYPE_CHECKING:
    from paretofit.descriptors import DesignMatrix
    from paretofit.sweep import FastEngine


def run(options: Options) -> list[Table]:
    """Time fits to the whole training set and to a part of it."""
    try:
        design = with_copies(design_of(larger_dataset(options.work), "larger", options), 5).load_into_memory()
    except Skip as reason:
        return [Table("One more fit", ["skipped"], [[str(reason)]])]
    train, test = train_test(design.n_configurations)
    sizes = [210, len(train)]
    grid = SweepGrid(list(design.targets), TWOJMAX, WEIGHTS, sizes, ("random",), 1)
    engine = make_engine(SweepInput(design, train, test), grid, "fast", jobs=options.cores)
    table = Table(
        "One more pair of weights for a subset whose factors exist",
        ["configurations", "rows", "condition", "what", "ours, s", "published, s", "ratio"],
        notes=[
            (
                f"One pair of weights gives {len(grid.levels)} levels × {len(TWOJMAX)} sizes of model with their four "
                "errors on training and test rows. One thread on both sides; minimum / median / maximum."
            ),
            (
                "published: `scipy.linalg.lstsq` of the subset's weighted rows, without the product for the errors. "
                "'same fits': the sum over the three 2Jmax, times the levels. 'one of them': our cost over the number "
                "of fits against a single lstsq at 2Jmax = 8. 'undivided': our whole cost against that lstsq."
            ),
            "condition: the largest of the weighted rows with columns of unit norm.",
        ],
    )
    for subset in grid.draw_subsets(engine.scores, len(train)):
        members = train[list(subset.positions)]
        with stage(f"one more fit of {len(members)} configurations"):
            rows, ours, theirs, condition = _times(engine, design, members, options.repeats)
        fits = len(grid.levels) * len(TWOJMAX)
        largest = theirs[TWOJMAX.index(8)]
        for label, mine, other in (
            ("same fits", ours, len(grid.levels) * theirs.sum(axis=0)),
            ("one of them", ours / fits, largest),
            ("undivided", ours, largest),
        ):
            ratio = other / mine
            table.add(
                len(members),
                rows,
                f"{condition:.0e}",
                label,
                *(" / ".join(spread(values)) for values in (mine, other, ratio)),
            )
    return [table]


def _times(engine: FastEngine, design: DesignMatrix, members: np.ndarray, repeats: int) -> tuple[Any, ...]:
    """Rows; seconds of our fits; seconds of one lstsq for each 2Jmax, ``(3, repeats)``; largest condition number."""
    reduction, factors = engine.reduction, engine.reduction.create_factors()
    rows = np.flatnonzero(np.isin(design.configuration, members))
    sizes = [reduction.sizes.tolist().index(design.count_columns_up_to(twojmax)) for twojmax in TWOJMAX]
    worst = [0.0]

    def more(weights: tuple[float, float]) -> None:
        factor = factors.apply_weights(np.array([*weights, 1.0]))
        fits = [fit for size in sizes if (fit := factor.fit(size)) is not None]
        delta = np.hstack([fit.delta for fit in fits])
        factors.compute_rms(delta)
        reduction.compute_test_rms(delta)
        worst[0] = max(worst[0], *(fit.condition for fit in fits))

    ours, theirs = [], []
    with threadpool_limits(1):
        engine.grow(factors, members)
        for repeat in range(max(repeats, 3)):
            weights = (7.0 + repeat, 1.0)
            ours.append(seconds(lambda w=weights: more(w))[0])
            w = np.where(design.kind[rows] == RowKind.ENERGY, *weights)
            y = design.targets["vasp"][rows] * w
            theirs.append([])
            for twojmax in TWOJMAX:
                A = design.read_rows(rows, design.count_columns_up_to(twojmax)) * w[:, None]
                theirs[-1].append(seconds(lambda A=A, y=y: published_lstsq(A, y))[0])
    return len(rows), np.array(ours), np.array(theirs).T, worst[0]
