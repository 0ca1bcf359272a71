"""Coverage of the ranges of `paretofit plan`, and the cost of the further splits.

All settings of a study are fitted to some draws in many train/test splits. In turn, one split is that of a study, five
are its further splits, and five are fresh: how many errors of the fresh splits are within the 80 % ranges that `plan`
derives from the others? The sets are the shipped one at five levels, the larger beryllium set, and Mo and Si of Zuo et
al.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from common import ROOT, SHARED, Options, Skip, Table, larger_dataset, stage

from paretofit.dataset import import_dataset, split_configurations
from paretofit.execution import RunContext
from paretofit.pareto import estimate_intervals
from paretofit.study import build_sweep_input, load_or_compute_design, load_study, prepare_study
from paretofit.study.split_confidence import find_dominated_models
from paretofit.sweep import FurtherSplit, compute_split_errors, make_engine, run_sweep

if TYPE_CHECKING:
    from collections.abc import Iterator

N_FURTHER, N_FRESH, N_TURNS = 5, 5, 40
N_SAMPLES = 101  # of each test set
N_VERDICT_SAMPLES = 41
FIRST_SEED = 2000
NEAR = 1.3  # settings whose root of the product of errors is at most this factor above the lowest at their size
STUDY = """\
name: {name}
dataset: {name}.h5
basis: {{elements: [{element}]}}
twojmax: [2, 4]
weights: [1, 12.25, 50]
sizes: [{sizes}]
sampling_methods: [random, block-leverage]
cost: {{label_seconds: {{{level}: 10}}, measure_md: false}}
"""
SETS = {"larger": ("Be", "vasp", "15, 30, 60, 120, all"), "Mo": ("Mo", "pbe", "10, 20, 40, 80, all"),
        "Si": ("Si", "pbe", "10, 20, 40, 80, all")}  # fmt: skip
ERRORS = {"energy": "ref_energy", "force": "ref_force"}
NOTE = (
    "single fits: errors of fits in fresh splits, a draw each, within the 80 % range at their setting and size; "
    f"medians: of all draws of a fresh split. near: settings with errors, by the root of the product, within {NEAR:g} "
    "times the lowest at their size. high / low: median width of the ranges."
)


def run(options_: Options) -> list[Table]:
    """Compute both tables."""
    table = Table(
        f"Errors of {N_FRESH} fresh splits within the 80 % ranges of a plan",
        ["set", "splits", "error", "single fits", "near", "medians", "near", "high / low, near"],
        notes=[NOTE],
    )
    for name in ["shipped"] if options_.quick else ["shipped", *SETS]:
        settings, draws = load_or_compute(name, options_)
        coverage = pd.concat([compare(settings, draws, turn) for turn in range(N_TURNS)])
        for kind, rows in coverage.groupby("kind", sort=False):
            values = rows[["single", "near", "median", "median_near", "width"]].mean()
            table.add(name, f"{draws[kind].shape[0]}", kind, *(f"{value:.2f}" for value in values))
    return [table, check_verdicts(options_), measure_cost(options_)]


def prepare(name: str, options_: Options) -> tuple:
    """The study of a set, its input and its engine; shared sets are imported into the working folder."""
    path = ROOT / "studies" / "quick.yaml"
    if name in SETS:
        element, level, sizes = SETS[name]
        source, path = SHARED / "data" / "mlearn" / name / "training.json", options_.work / f"{name}.yaml"
        if name == "larger":
            larger_dataset(options_.work)
        elif not source.exists():
            raise Skip(f"no data at {source}; set PARETOFIT_SHARED to the shared folder")
        elif not (options_.work / f"{name}.h5").exists():
            import_dataset(options_.work / f"{name}.h5", {level: source})
        path.write_text(STUDY.format(name=name, element=element, sizes=sizes, level=level))
    study = load_study(path)
    prepared = prepare_study(study)
    context = RunContext(options_.cores)
    design = load_or_compute_design(prepared.dataset, study.basis, options_.work / f"confidence_{name}.h5", context)
    data = build_sweep_input(prepared, design)
    return prepared, data, make_engine(data, prepared.grid)


def draw_splits(prepared: object, n_splits: int, draw: int = 0) -> list[FurtherSplit]:
    """Splits of a study's groups, with seeds for one of several draws."""
    elements = [set(atoms.numbers.tolist()) for atoms in prepared.dataset]
    seeds = range(FIRST_SEED, FIRST_SEED + n_splits)
    splits = [split_configurations(prepared.split.groups, 0.7, seed, elements) for seed in seeds]
    return [
        FurtherSplit(split.train, split.test, seed + 1000 * draw) for seed, split in zip(seeds, splits, strict=True)
    ]


def load_or_compute(name: str, options_: Options) -> tuple[pd.DataFrame, dict]:
    """Settings, and errors by kind, ``(n_splits, n_draws, n_settings)``."""
    path = options_.work / f"confidence_{name}.pickle"
    if not path.exists():
        n_splits, n_draws = (12, 2) if options_.quick else (16, 2)
        with stage(f"{name}: {n_splits} splits with {n_draws} draws"):
            prepared, data, engine = prepare(name, options_)
            tables = [
                compute_split_errors(
                    engine, data, prepared.grid, draw_splits(prepared, n_splits, draw), 1, RunContext()
                )
                for draw in range(n_draws)
            ]
            draws = {kind: np.stack([table.errors[column][:, 0] for table in tables], axis=1)
                     for kind, column in ERRORS.items()}  # fmt: skip
            pd.to_pickle((tables[0].settings, draws), path)
    return pd.read_pickle(path)  # noqa: S301  (written by this benchmark)


def compare(settings: pd.DataFrame, draws: dict, turn: int) -> pd.DataFrame:
    """Shares of fresh errors within the ranges, for one choice of the study's split and its further splits."""
    order = np.random.default_rng(turn).permutation(len(draws["energy"]))
    study, further, fresh = order[0], order[1 : 1 + N_FURTHER], order[1 + N_FURTHER : 1 + N_FURTHER + N_FRESH]
    means, ranges = {}, {}
    for kind in ERRORS:
        low, high = estimate_intervals(draws[kind][further, :1], list(draws[kind][study].T), 0.8)
        means[kind], ranges[kind] = np.sqrt(low * high), (low, high)
    product = pd.Series(np.sqrt(means["energy"] * means["force"]), index=settings.index)
    is_near = (product <= NEAR * product.groupby(settings["n_train"]).transform("min")).to_numpy()
    rows = []
    for kind, (low, high) in ranges.items():
        errors, medians = draws[kind][fresh], np.median(draws[kind][fresh], axis=1)
        single, median = ((values >= low) & (values <= high) for values in (errors, medians))
        rows.append({
            "kind": kind, "single": single.mean(), "near": single[..., is_near].mean(), "median": median.mean(),
            "median_near": median[..., is_near].mean(), "width": np.median((high / low)[is_near]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def check_verdicts(options_: Options) -> Table:
    """Whether levels that five splits call clearly worse are worse in fresh splits, for the shipped set."""
    path = options_.work / "confidence_verdicts.pickle"
    if not path.exists():
        prepared, data, engine = prepare("shipped", options_)
        with stage("samples of 16 splits"):
            errors = compute_split_errors(
                engine, data, prepared.grid, draw_splits(prepared, 16), N_VERDICT_SAMPLES, RunContext(options_.cores)
            )
        score = np.prod([errors.errors[column] for column in ERRORS.values()], axis=0)
        pd.to_pickle((errors.settings, score), path)
    settings, score = pd.read_pickle(path)  # noqa: S301  (written by this benchmark)
    rows = [row for turn in range(N_TURNS) for row in judge_levels(settings, score, turn)]
    frame = pd.DataFrame(rows)
    table = Table(
        "Best settings of two levels at a size, in fresh splits of the shipped set",
        ["share of samples with the higher error", "pairs", "higher in fresh splits"],
        notes=["A difference is called clear where the first share is above 95 %."],
    )
    bins = pd.cut(frame["share"], [0, 0.5, 0.8, 0.95, 1.0], include_lowest=True)
    for name, group in frame.groupby(bins, observed=True):
        table.add(
            f"{100 * max(name.left, 0):.0f} to {100 * name.right:.0f} %",
            f"{len(group)}",
            f"{group['fresh'].mean():.2f}",
        )
    return table


def judge_levels(settings: pd.DataFrame, score: np.ndarray, turn: int) -> Iterator[dict]:
    """A row for each size and pair of levels: the best setting of each in five splits, compared in others."""
    order = np.random.default_rng(turn).permutation(len(score))
    further, fresh = order[:N_FURTHER], order[N_FURTHER : N_FURTHER + N_FRESH]
    expected = pd.Series(np.median(score[further, 0], axis=0), index=settings.index)
    for _, rows in settings.groupby("n_train"):
        best = expected[rows.index].groupby(rows["level"]).idxmin()
        first, *others = best.sort_values(key=lambda index: index.map(expected))
        for other in others:
            pair = score[further][..., [other, first]]
            is_higher = score[fresh, 0, other] > score[fresh, 0, first]
            yield {"share": (pair[..., 0] > pair[..., 1]).mean(), "fresh": is_higher.mean()}


def measure_cost(options_: Options) -> Table:
    """CPU seconds of five further splits and of the sweep of the shipped study."""
    prepared, data, engine = prepare("shipped", options_)
    table = Table(
        "Cost of five further splits of studies/quick.yaml", ["sweep, CPU s", "further splits, CPU s", "ratio"]
    )
    start = time.process_time()
    results = run_sweep(data, prepared.grid, engine=engine)
    middle = time.process_time()
    arguments = draw_splits(prepared, N_FURTHER), N_SAMPLES, RunContext(), find_dominated_models(results)
    compute_split_errors(engine, data, prepared.grid, *arguments)
    sweep, splits = middle - start, time.process_time() - middle
    table.add(f"{sweep:.1f}", f"{splits:.1f}", f"{splits / sweep:.2f}")
    return table
