"""What `paretofit plan` recommends from less than there is, against what the whole says of it.

From a pilot of 40 configurations, and from a sweep whose largest subsets are hidden: how much worse than the best is
the recommended setting, as the full sweep judges it, and how often does the truth lie in the range foretold?
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from common import ROOT, Options, Table, stage

from paretofit.dataset import Dataset, LevelData, write_dataset
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
JUDGED = (
    "error / best: of the recommended setting and of the best one within the budget, both as the full sweep has them "
    "(298 configurations, ridge by leave-one-out, six repetitions); both: root of the product."
)
RANGE = (
    "foretold / found: geometric mean. inside range: share of energy and force errors that the full sweep finds in the "
    "range foretold, which should hold four of five."
)
STUDY = """\
dataset: pilot.h5
basis: {elements: [Be], rcutfac: 4.812302818}
twojmax: [2, 4, 6]
weights: [1, 3, 5, 12.25, 50, 150]
split: {group_by: []}
"""


def run(options_: Options) -> list[Table]:
    """Both tables."""
    full, pool = full_sweep(options_)
    pilots = 2 if options_.quick else 12
    found = pd.concat(
        [judged(pilot(options_, pool, seed), full, DEFAULT_PILOT_EXTRAPOLATION_FACTOR) for seed in range(pilots)]
    )
    largest = full["n_train"].max()
    hidden = judged(full[full["n_train"] < largest / 2], full, 2 * largest / sorted(set(full["n_train"]))[-3])
    title = f"{pilots} pilots of {PILOT} beryllium configurations at five levels"
    return [summary(title, found), summary(f"Subsets above {largest // 2} configurations hidden", hidden)]


def full_sweep(options_: Options) -> tuple[pd.DataFrame, np.ndarray]:
    """The sweep that judges, ridge by leave-one-out, and the positions of its training configurations."""
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
            design = load_or_compute_design(
                prepared.dataset, study.basis, options_.work / "plan_design.h5", jobs=options_.cores
            )
            run_sweep(build_sweep_input(prepared, design), prepared.grid, jobs=options_.cores).to_csv(path, index=False)
    return pd.read_csv(path, dtype={"level": str, "ridge": str}), prepared.split.train


def pilot(options_: Options, pool: np.ndarray, seed: int) -> pd.DataFrame:
    """The cross-validated pilot of some training configurations."""
    folder = options_.work / f"plan_pilot_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    chosen = np.sort(np.random.default_rng(seed).choice(pool, PILOT, replace=False))
    with Dataset(ROOT / "data" / "beryllium.h5") as data:
        some = data.select(chosen)
        labels = {level: some.labels(level) for level in "12345"}
        rows = {
            level: LevelData(
                [
                    {
                        "energy": own.energy[k],
                        "forces": own.forces[own.offsets[k] : own.offsets[k + 1]],
                        "seconds": own.seconds[k],
                    }
                    for k in range(len(some))
                ]
            )
            for level, own in labels.items()
        }
        write_dataset(folder / "pilot.h5", list(some), rows)
    (folder / "pilot.yaml").write_text(STUDY)
    with stage(f"pilot {seed}"):
        return run_pilot(folder / "pilot.yaml", out=folder / "run", jobs=options_.cores)


def judged(results: pd.DataFrame, full: pd.DataFrame, reach: float) -> pd.DataFrame:
    """A row for each budget and preference: what was chosen, what it is worth, and what was best."""
    rows = []
    for budget in BUDGETS:
        offered, truth = (
            tabulate_options(table, budget=budget, extrapolation_factor=one)
            for table, one in ((results, reach), (full, 1))
        )
        for prefer in PREFERENCES:
            chosen, best = choose_option(offered, Limits(budget), prefer), choose_option(truth, Limits(budget), prefer)
            same = (truth[["level", "twojmax", "w_energy"]] == chosen[["level", "twojmax", "w_energy"]]).all(axis=1)
            own = truth[same]
            # more configurations than the full sweep has: judged at as many as it has, which it can but improve on
            own = own.iloc[[int(np.argmin(np.abs(own["n_train"] - chosen["n_train"])))]]
            reached = float(compute_score(own, prefer).iloc[0])
            inside = [
                chosen[f"{kind}_low"] <= own[kind].iloc[0] <= chosen[f"{kind}_high"] for kind in ("energy", "force")
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


def summary(title: str, found: pd.DataFrame) -> Table:
    """Medians and extremes by budget and preference."""
    table = Table(
        title,
        ["budget, s", "lowest", "chosen levels", "error / best: median", "largest", "foretold / found", "inside range"],
        notes=[JUDGED, RANGE],
    )
    for (budget, prefer), rows in found.groupby(["budget", "prefer"], sort=False):
        levels = ", ".join(f"{level}: {count}" for level, count in rows["level"].value_counts().sort_index().items())
        middle, most = rows["regret"].median(), rows["regret"].max()
        promise = np.exp(np.log(rows["promise"]).mean())
        table.add(
            budget, prefer, levels, f"{middle:.2f}", f"{most:.2f}", f"{promise:.2f}", f"{rows['inside'].mean():.2f}"
        )
    table.notes.append(f"All together: {found['inside'].mean():.2f} inside the range.")
    return table
