"""Recommendations of `paretofit plan` from a part of the data, against the results of the full sweep.

From a pilot of 40 configurations, and from a sweep without its largest subsets: by how much does the error of the
recommended setting exceed the lowest one in the full sweep, and how often is the measured error in the predicted range?
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from common import ROOT, Options, Table, stage

from paretofit.dataset import Dataset, LevelData, write_dataset
from paretofit.execution import RunContext
from paretofit.pareto import Limits, choose_option, tabulate_options
from paretofit.pareto.planner import compute_score
from paretofit.study import (
    DEFAULT_PILOT_EXTRAPOLATION_FACTOR,
    build_sweep_input,
    load_or_compute_design,
    load_study,
    prepare_study,
    run_pilot,
)
from paretofit.sweep import run_sweep

PILOT = 40
BUDGETS = (300, 1200, 4800)
PREFERENCES = ("both", "energy", "force")
ERROR_NOTE = (
    "error / best: error of the recommended setting and of the best one within the budget, both from the full sweep "
    "(298 configurations, ridge by leave-one-out, six repetitions); both: root of the product."
)
RANGE_NOTE = (
    "predicted / measured: geometric mean. in range: fraction of energy and force errors of the full sweep within the "
    "predicted range, nominally 0.8."
)
STUDY = """\
dataset: pilot.h5
basis: {elements: [Be], rcutfac: 4.812302818}
twojmax: [2, 4, 6]
weights: [1, 3, 5, 12.25, 50, 150]
split: {group_by: []}
"""


def run(options_: Options) -> list[Table]:
    """Compute both tables."""
    full, pool = full_sweep(options_)
    pilots = 2 if options_.quick else 12
    comparisons = pd.concat(
        [
            compare_with_full_sweep(pilot(options_, pool, seed), full, DEFAULT_PILOT_EXTRAPOLATION_FACTOR)
            for seed in range(pilots)
        ]
    )
    largest = full["n_train"].max()
    hidden = compare_with_full_sweep(
        full[full["n_train"] < largest / 2], full, 2 * largest / sorted(set(full["n_train"]))[-3]
    )
    title = f"{pilots} pilots of {PILOT} beryllium configurations at five levels"
    return [summary(title, comparisons), summary(f"Subsets above {largest // 2} configurations hidden", hidden)]


def full_sweep(options_: Options) -> tuple[pd.DataFrame, np.ndarray]:
    """The full sweep, with ridge by leave-one-out, and the positions of its training configurations."""
    path = options_.work / "plan_full.csv"
    study = load_study(ROOT / "studies" / "beryllium.yaml")
    sizes = [10, 15, 22, 32, 46, 66, 96, 140, 200, "all"]
    changes = {
        "ridge": ["auto"],
        "twojmax": [2, 4, 6],
        "sampling_methods": ["random"],
        "repetitions": 6,
        "sizes": sizes,
    }
    prepared = prepare_study(study.model_copy(update=changes))
    if not path.exists():
        with stage("the full sweep"):
            design_path, context = options_.work / "plan_design.h5", RunContext(options_.cores)
            design = load_or_compute_design(prepared.dataset, study.basis, design_path, context)
            run_sweep(build_sweep_input(prepared, design), prepared.grid, jobs=options_.cores).to_csv(path, index=False)
    return pd.read_csv(path, dtype={"level": str, "ridge": str}), prepared.split.train


def pilot(options_: Options, pool: np.ndarray, seed: int) -> pd.DataFrame:
    """Results of a cross-validated pilot of random training configurations."""
    folder = options_.work / f"plan_pilot_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    chosen = np.sort(np.random.default_rng(seed).choice(pool, PILOT, replace=False))
    with Dataset(ROOT / "data" / "beryllium.h5") as data:
        pilot_data = data.select(chosen)
        labels = {level: pilot_data.labels(level) for level in "12345"}
        rows = {
            level: LevelData(
                [
                    {
                        "energy": level_labels.energy[k],
                        "forces": level_labels.forces[level_labels.offsets[k] : level_labels.offsets[k + 1]],
                        "seconds": level_labels.seconds[k],
                    }
                    for k in range(len(pilot_data))
                ]
            )
            for level, level_labels in labels.items()
        }
        write_dataset(folder / "pilot.h5", list(pilot_data), rows)
    (folder / "pilot.yaml").write_text(STUDY)
    with stage(f"pilot {seed}"):
        return run_pilot(folder / "pilot.yaml", RunContext(options_.cores), out=folder / "run")


def compare_with_full_sweep(results: pd.DataFrame, full: pd.DataFrame, reach: float) -> pd.DataFrame:
    """A row for each budget and preference: the choice, its measured error, and the lowest error."""
    rows = []
    for budget in BUDGETS:
        offered, truth = (
            tabulate_options(table, budget=budget, extrapolation_factor=factor)
            for table, factor in ((results, reach), (full, 1))
        )
        for prefer in PREFERENCES:
            chosen, best = choose_option(offered, Limits(budget), prefer), choose_option(truth, Limits(budget), prefer)
            same = (truth[["level", "twojmax", "w_energy"]] == chosen[["level", "twojmax", "w_energy"]]).all(axis=1)
            same_setting = truth[same]
            # choices beyond the sizes of the full sweep are compared at its largest size, which is a lower bound
            same_setting = same_setting.iloc[[int(np.argmin(np.abs(same_setting["n_train"] - chosen["n_train"])))]]
            reached = float(compute_score(same_setting, prefer).iloc[0])
            inside = [
                chosen[f"{kind}_low"] <= same_setting[kind].iloc[0] <= chosen[f"{kind}_high"]
                for kind in ("energy", "force")
            ]
            rows.append(
                {
                    "budget": budget,
                    "prefer": prefer,
                    "level": chosen["level"],
                    "regret": reached / float(compute_score(pd.DataFrame([best]), prefer).iloc[0]),
                    "promise": float(compute_score(pd.DataFrame([chosen]), prefer).iloc[0]) / reached,
                    "inside": float(np.mean(inside)),
                }
            )
    return pd.DataFrame(rows)


def summary(title: str, comparisons: pd.DataFrame) -> Table:
    """Medians and extremes by budget and preference."""
    table = Table(
        title,
        ["budget, s", "lowest", "chosen levels", "error / best: median", "largest", "predicted / measured", "in range"],
        notes=[ERROR_NOTE, RANGE_NOTE],
    )
    for (budget, prefer), rows in comparisons.groupby(["budget", "prefer"], sort=False):
        levels = ", ".join(f"{level}: {count}" for level, count in rows["level"].value_counts().sort_index().items())
        middle, most = rows["regret"].median(), rows["regret"].max()
        promise = np.exp(np.log(rows["promise"]).mean())
        table.add(
            budget, prefer, levels, f"{middle:.2f}", f"{most:.2f}", f"{promise:.2f}", f"{rows['inside'].mean():.2f}"
        )
    table.notes.append(f"All together: {comparisons['inside'].mean():.2f} in the range.")
    return table
