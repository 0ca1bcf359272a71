"""What a run says about itself: how it was computed, and what to be careful with."""

from __future__ import annotations

import logging
import resource
import sys
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from paretofit.core import RowKind
from paretofit.dataset import describe_dataset
from paretofit.sweep import FastEngine

if TYPE_CHECKING:
    import pandas as pd

    from paretofit.descriptors import DesignMatrix
    from paretofit.study.preparation import PreparedStudy
    from paretofit.sweep import PlainEngine, SweepInput

log = logging.getLogger(__name__)


FLAT = 0.1  # relative spread of leverage scores below which drawing by them is close to uniform


class StageUsage(NamedTuple):
    """What a stage took: seconds, and the largest memory of the main process until its end, in MB."""

    seconds: float
    peak_memory_mb: float


def summarise_run(
    prepared: PreparedStudy,
    design: DesignMatrix,
    engine: FastEngine | PlainEngine,
    results: pd.DataFrame,
    stage_usage: dict[str, StageUsage],
) -> dict[str, str]:
    """Headings and sentences for "How this was computed"."""
    study, split, grid = prepared.study, prepared.split, prepared.grid
    basis = study.basis
    solvers = results["solver"].value_counts()
    deficient = int((results["rank"] < results["n_features"]).sum())
    summary = {
        "Dataset": f"{study.dataset.name}: {len(prepared.dataset)} configurations, "
        f"{int(prepared.dataset.n_atoms.sum())} atoms, levels {', '.join(grid.levels)} "
        f"(reference: {grid.levels[-1]})",
        "Split": f"{len(split.train)} configurations to train on and {len(split.test)} to test on, in "
        f"{len(np.unique(split.groups))} groups of relatives, seed {study.split.seed}",
        "Basis": f"{'quadratic ' if basis.quadratic else ''}SNAP, elements {', '.join(basis.elements)}, rcutfac "
        f"{basis.rcutfac}, rfac0 {basis.rfac0}, rmin0 {basis.rmin0}, bzeroflag {int(basis.bzeroflag)}, switchflag "
        f"{int(basis.switchflag)}, chemflag {int(basis.chemflag)}",
        "Design": f"{design.n_rows} rows by {design.n_features} columns, "
        f"{8 * design.n_rows * design.n_features / 1e6:.0f} MB",
        "Factorial": f"{grid.count_fits()} fits: {len(grid.levels)} levels × 2Jmax {list(grid.twojmax)} × "
        f"{len(grid.weights)} weights × {len(grid.sizes)} sizes × samplings {', '.join(grid.sampling_methods)} × "
        f"{grid.repetitions} repetitions, seed {grid.seed}",
        "Solver": f"{', '.join(f'{name} {count}' for name, count in solvers.items())}; {deficient} fits are "
        "rank-deficient (fewer independent rows than features) and have the minimum-norm solution",
        "Cost of labels": "seconds recorded with each label"
        if study.cost.label_seconds == "recorded"
        else f"seconds per configuration given in the study: {dict(study.cost.label_seconds)}",
        "Ridge": f"penalties {list(grid.ridge)} of coefficients in scaled columns"
        if list(grid.ridge) != [0]
        else "none",
        "Conditioning": "condition numbers are 1-norm estimates: of whitened, weighted moments where the solver is "
        "'whitened' (trusted up to 1e8, which is 1e4 for the rows) or 'refined' (with the rows, up to 1e12), of the "
        "weighted rows with columns scaled to unit norm where it is 'qr', 'rrqr' or 'svd'",
        "Stages": ", ".join(
            f"{stage} {spent.seconds:.1f} s (peak memory so far {spent.peak_memory_mb:.0f} MB)"
            for stage, spent in stage_usage.items()
        )
        + "; memory is that of the main process",
    }
    if isinstance(engine, FastEngine):
        summary["Whole training set at equal weight of energies and forces"] = "; ".join(engine.describe_conditioning())
    for heading, text in summary.items():
        log.info("%s: %s", heading, text)
    return summary


def collect_run_warnings(prepared: PreparedStudy, engine: FastEngine | PlainEngine, data: SweepInput) -> list[str]:
    """Sentences about what in this study makes its answers weaker than they look."""
    grid, scores = prepared.grid, engine.scores
    warnings = [f"Dataset: {text}." for text in describe_dataset(prepared.dataset).warnings]
    if engine.dropped_columns:
        warnings.append(
            f"{len(engine.dropped_columns)} columns of the design depend linearly on earlier ones in every row and were "
            f"left out: {', '.join(engine.dropped_columns[:10])}{', ...' if len(engine.dropped_columns) > 10 else ''}."
        )
    seconds = [float(np.nanmedian(data.label_seconds(list(grid.levels))[:, k])) for k in range(len(grid.levels))]
    warnings.extend(
        f"Level {grid.levels[k]} stands after level {grid.levels[k - 1]} but costs less; levels are listed in order of "
        f"cost, and the last, {grid.levels[-1]}, is the reference."
        for k in range(1, len(seconds))
        if seconds[k] < seconds[k - 1]
    )
    if data.design.row_weights is not None:
        warnings.append(
            "Training errors (train_*) are those of rows multiplied by the weights of their groups; test errors are "
            "not weighted."
        )
        if prepared.study.group_weights.objectives:
            warnings.append(f"Weights of groups were searched for: {_factors(prepared, data)}.")
    if prepared.dropped_ids:
        warnings.append(
            f"{len(prepared.dropped_ids)} configurations were left out because they lack a label at one of the levels "
            f"(missing_labels: drop); the first has id {prepared.dropped_ids[0]}."
        )
    drawn = [name for name in grid.sampling_methods if name.endswith("leverage")]
    regular = np.zeros(1) if scores is None else scores.regular
    mean, spread = float(np.mean(regular)), float(np.std(regular))
    if drawn and spread < FLAT * mean:
        columns = data.leverage_columns or data.design.n_features
        warnings.append(
            f"Leverage scores hardly tell configurations apart: with {columns} features for {len(data.train)} "
            f"training configurations the leverages of the energy rows are {mean:.3f} ± {spread:.3f} (1 is the most "
            "there is), so that leverage sampling is close to random; set leverage.twojmax or leverage.energy_weight "
            "lower."
        )
    train_rows = np.isin(data.design.configuration, data.train)
    n_rows = int(train_rows.sum())
    for twojmax in grid.twojmax:
        features = data.design.columns_up_to(twojmax)
        if n_rows < 2 * features:
            warnings.append(
                f"At 2Jmax = {twojmax} the {features} features face only {n_rows} rows of the whole training set: "
                "expect fits that follow the noise."
            )
    components = int((data.design.kind[train_rows] == RowKind.FORCE).sum()) / len(data.train)
    largest = max(w_energy / w_force for w_energy, w_force in grid.weights)
    if largest > 20 * components:
        warnings.append(
            f"The largest weight ratio, {largest:g}, all but ignores forces: there are {components:.0f} force "
            "components to one energy."
        )
    return warnings


def _factors(prepared: PreparedStudy, data: SweepInput) -> str:
    """The factors by group and kind, as they stand on the rows."""
    design, told = data.design, []
    by = prepared.study.group_weights.group_key
    names = np.array([str(record.get(by)) for record in prepared.dataset.info_records])[design.configuration]
    train = np.isin(design.configuration, data.train)
    for name in dict.fromkeys(names[train].tolist()):
        for kind in (RowKind.ENERGY, RowKind.FORCE):
            own = train & (names == name) & (design.kind == kind)
            if own.any() and design.row_weights is not None:
                told.append(f"{name} {kind.name.lower()} {design.row_weights[own][0]:.3g}")
    return ", ".join(told)


def measure_peak_memory_mb() -> float:
    """The largest memory that this process has had so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
