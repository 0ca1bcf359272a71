"""The active-learning loop against random choice, and its choice of levels against fixed levels.

Part A: labels from potentials that LAMMPS ships (EAM of tungsten, AIREBO of carbon), errors on molecular dynamics with
the same potential, which no model had a part in. Part B: real DFT labels of beryllium at four levels, with the seconds
that they took; configurations in random order, so that nothing but the level differs.
"""

from __future__ import annotations

import json
import shutil
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from ase.build import bulk
from common import ROOT, Options, Table, shipped_dataset, stage

from paretofit import Dataset, InputError
from paretofit.commands import learn
from paretofit.commands.active_learning import load_learn_study
from paretofit.commands.learn_start import start_loop
from paretofit.core import RowKind, lammps_calculator
from paretofit.descriptors import DesignMatrix, compute_design
from paretofit.execution import RunContext
from paretofit.learning import VALIDATE, LearnFolder, LinearModel, SnapModelSettings, plan_runs, select_start_structures
from paretofit.learning.explore import run_md
from paretofit.learning.learn_settings import ExploreSettings, LearnStudy
from paretofit.learning.level_choice import (
    choose_level,
    compute_label_seconds,
    fit_learning_exponent,
    measure_level_noise,
)
from paretofit.learning.md_run import MdEngine
from paretofit.learning.set_balance import TRAIN
from paretofit.learning.training_set import TrainingData
from paretofit.potentials import LinearPotential

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ase import Atoms

ENGINE = MdEngine(("pair_style eam/alloy", "pair_coeff * * W_zhou.eam.alloy W"), ("W",))
CARBON = "carbon, five allotropes, labels by AIREBO"
CONDITIONS: dict[str, Any] = {"temperature_k": [300, 2000], "pressure_kbar": [-50, 100]}
TOLERANCE, EVERYTHING, NEVER = 100.0, 1e-9, 1e6  # meV/Å; below and above any error
LOOP, RANDOM, DIVERSE, CANDIDATES, FIRST = "the loop", "random frames", "diverse", "candidates", "before the loop"
VARIANTS = (FIRST, LOOP, RANDOM, DIVERSE, CANDIDATES)
TUNGSTEN = "tungsten, labels by an EAM potential"
RUNS = {TUNGSTEN: 5, CARBON: 3}
MOST, INITIAL, POOL = 15, 40, 200
PATIENCE = 900  # seconds of one call of `learn`: a worker whose LAMMPS corrupts its memory can wait for ever

LEVELS = ["2", "3", "4", "5"]
BEST, CHOSEN, PAID = "5", "chosen", "chosen, validation paid"
HELD, ASIDE, PILOT, BATCH = 100, 40, 12, 20
SEEDS = {4: 5, 6: 3}  # by 2Jmax
REFERENCE = (52, 132, 272)  # labels of level 5 whose errors are the targets
MEASURES = {"energy": "energy, meV/atom", "shifted": "energy less its mean error, meV/atom", "force": "forces, meV/Å"}

REACHED = (
    f"Median over seeds (a seed that never reaches it counts as infinite), as a ratio to fixed level {BEST}, and in "
    f"how many seeds it was reached with the pool of {426 - HELD - ASIDE}. Targets: the median error of level {BEST} "
    f"with {', '.join(map(str, REFERENCE))} labels."
)
STRATEGIES = (
    f"{CHOSEN}: pays {PILOT} pilot configurations at levels {', '.join(LEVELS)}, then batches of {BATCH} at the level "
    f"of `choose_level`; {PAID}: and the {ASIDE} labels of level {BEST} on which it sees its error, which no other "
    "column counts. Fixed levels: energies as they are, and less their mean error on the test set, which a fixed cheap "
    "level does not know."
)


def run(options: Options) -> list[Table]:
    """Compute all tables."""
    return [active(options, TUNGSTEN), active(options, CARBON), *levels(options)]


@dataclass(frozen=True)
class Truth:
    """Frames of dynamics with the potential that also labels: energies (eV) and forces (eV/Å)."""

    frames: list[Atoms]
    energy: list[float]
    forces: list[np.ndarray]

    def rmse(self, potential: LinearPotential) -> tuple[float, float]:
        """Errors of the mean of a committee: meV/atom, meV/Å."""
        predictions = [potential.predict(atoms) for atoms in self.frames]
        energy = [(p.energy.mean() - e) / len(a) for p, e, a in zip(predictions, self.energy, self.frames, strict=True)]
        forces = [(p.forces.mean(axis=0) - f).ravel() for p, f in zip(predictions, self.forces, strict=True)]
        return tuple(1e3 * float(np.sqrt(np.mean(errors**2))) for errors in (np.array(energy), np.concatenate(forces)))


def independent(system: str, count: int) -> Truth:
    """Dynamics with the labelling potential: cells of W (16, 54 atoms, with and without a vacancy), candidates of C."""
    if system == CARBON:
        loop_study = carbon_study(seed=1000, quick=False)
        options = loop_study.labelling.engine.options
        engine = MdEngine(tuple(options["commands"]), tuple(options["elements"]))
        with TemporaryDirectory() as folder:
            candidates = start_loop(loop_study, LearnFolder(Path(folder)), RunContext())
        starts, _ = select_start_structures(candidates, None)
        conditions: dict[str, Any] = {"temperature_k": [100, 2000], "pressure_kbar": [-20, 100]}
    else:
        engine, conditions = ENGINE, CONDITIONS
        cells = [bulk("W", cubic=True).repeat(n) for n in (2, 3)]
        starts = [atoms for whole in cells for atoms in (whole, whole[1:])]
    calculator = lammps_calculator(list(engine.commands), list(engine.elements))
    settings = ExploreSettings(trajectories=count, time_ps=2.0, interval_ps=1.0, **conditions)
    runs = plan_runs(starts, settings, np.random.default_rng(0))
    frames = [atoms for md_run in runs for atoms in run_md(md_run, engine, settings).frames]
    energy, forces = [], []
    for atoms in frames:
        copy = atoms.copy()
        copy.calc = calculator
        energy.append(float(copy.get_potential_energy()))
        forces.append(copy.get_forces())
    return Truth(frames, energy, forces)


def study(folder: Path, seed: int, quick: bool) -> LearnStudy:
    """Study as studies/learn_quick.yaml, with mild strains and short dynamics."""
    bulk("W", cubic=True).write(start := folder / "W.cif")
    engine = {
        "name": "ase",
        "calculator": "paretofit.lammps_calculator",
        "options": {"commands": list(ENGINE.commands), "elements": ["W"]},
    }
    explore = {"trajectories": 8, "time_ps": 1.0, "interval_ps": 0.2, **CONDITIONS}
    if quick:
        explore |= {"trajectories": 3, "time_ps": 0.2, "interval_ps": 0.1}
    return LearnStudy.model_validate({
        "name": f"seed {seed}",
        "labelling": {"engine": engine, "ladder": [{"name": "eam"}]},
        "augmentation": {
            "structures": [start], "n_candidates": 60 if quick else POOL, "seed": seed, "min_length": 5,
            "max_atoms": 24, "isolated_atoms": False, "clusters": {"count": 0}, "slabs": {"miller_indices": []},
            "strained": {"compress": 0.05, "stretch": 0.1},
        },
        "learning": {
            "n_initial": 30 if quick else INITIAL, "max_iterations": 2 if quick else 4, "seed": seed,
            "model": {"twojmax": 4 if quick else 6, "members": 8}, "explore": explore,
            "sets": {"train": 0.899, "validation": 0.1, "test": 0.001},  # with errors on a test set it may end early
            "select": {
                "tolerance": {"energy": NEVER, "forces": TOLERANCE, "stress": NEVER}, "max_selected": MOST,
                "discard_above": {"energy": 10 * NEVER, "stress": 10 * NEVER},
            },
        },
    })  # fmt: skip


def carbon_study(seed: int, *, quick: bool) -> LearnStudy:
    """Study as studies/learn_carbon.yaml, with fewer labels, shorter dynamics and no end before the last iteration."""
    shipped = load_learn_study(ROOT / "studies" / "learn_carbon.yaml")
    augmentation = shipped.augmentation.model_copy(update={"n_candidates": 100 if quick else 300, "seed": seed})
    shipped = shipped.model_copy(update={"name": f"seed {seed}", "augmentation": augmentation})
    return with_learning(
        shipped, n_initial=60 if quick else 100, max_iterations=2 if quick else 3, seed=seed,
        explore={"trajectories": 3 if quick else 10, "time_ps": 0.2 if quick else 1.0, "interval_ps": 0.1},
        sets={"train": 0.899, "validation": 0.1, "test": 0.001},
        select={"tolerance": shipped.learning.select.tolerance.model_copy(update={"energy": NEVER, "stress": NEVER}),
                "max_selected": 30},
    )  # fmt: skip


def with_learning(study: LearnStudy, **changes: object) -> LearnStudy:
    """Copy of the study with changed settings of the loop; a dictionary changes keys of a section."""
    learn_settings = study.learning
    updated = {
        k: getattr(learn_settings, k).model_copy(update=change) if isinstance(change, dict) else change
        for k, change in changes.items()
    }
    return study.model_copy(update={"learning": learn_settings.model_copy(update=updated)})


@contextmanager
def patience(seconds: int) -> Iterator[None]:
    """Raise TimeoutError after a time limit."""

    def over(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def labelled(folder: Path) -> int:
    """Number of labels of a run."""
    with Dataset(folder / "dataset.h5") as data:
        return len(data)


def one_seed(system: str, work: Path, seed: int, truth: Truth, quick: bool) -> Iterator[dict[str, object]]:
    """A row for each variant: labels, errors, and for the loop the fraction of frames above the tolerance."""
    work.mkdir()
    base = carbon_study(seed, quick=quick) if system == CARBON else study(work, seed, quick)
    begun = work / "begun"
    with patience(PATIENCE):  # the first iteration and its dynamics are everybody's
        learn(with_learning(base, max_iterations=1), out=begun)
        learn(base, out=begun, stage="explore")
    yield row(FIRST, seed, begun, truth)
    folders = {name: work / name for name in VARIANTS[1:]}
    for name in (LOOP, RANDOM, DIVERSE):
        shutil.copytree(begun, folders[name])
    with patience(PATIENCE):
        done = learn(base, out=folders[LOOP]).iterations
    counts = done["selected"].fillna(0).astype(int).tolist()[: base.learning.max_iterations - 1]
    frames = [pd.read_csv(path) for path in sorted(folders[LOOP].glob("iterations/*/frames.csv"))]
    above = float(
        np.mean(
            [(frame_table["forces_expected"] > base.learning.select.tolerance.forces).mean() for frame_table in frames]
        )
    )
    yield {**row(LOOP, seed, folders[LOOP], truth), "above": above, "early": float(done["ended_early"].sum())}
    anything = base.learning.select.tolerance.model_copy(update={"forces": EVERYTHING})
    for name, change in {RANDOM: {"tolerance": anything}, DIVERSE: {"strategy": "diverse"}}.items():
        with patience(PATIENCE):
            for k, count in enumerate(counts, start=2):  # iterations one by one: each its own number of labels
                if count:
                    learn(
                        with_learning(base, max_iterations=k, select={**change, "max_selected": count}),
                        out=folders[name],
                    )
        yield row(name, seed, folders[name], truth)
    with patience(PATIENCE):
        learn(with_learning(base, max_iterations=1, n_initial=labelled(folders[LOOP])), out=folders[CANDIDATES])
    yield row(CANDIDATES, seed, folders[CANDIDATES], truth)


def row(name: str, seed: int, folder: Path, truth: Truth) -> dict[str, object]:
    """Errors of the last committee of a run."""
    energy, forces = truth.rmse(LinearPotential.read(folder / "potential"))
    return {"variant": name, "seed": seed, "labels": labelled(folder), "energy": energy, "forces": forces}


def active(options: Options, system: str) -> Table:
    """Compare the loop with random choice."""
    with stage(f"dynamics with the potential that labels {system}"):
        truth = independent(system, 4 if options.quick else 32)
    records: list[dict[str, object]] = []
    lost: list[str] = []
    for seed in range(1 if options.quick else RUNS[system]):
        # with --work, seeds that are done are not done again
        result_file = options.work / f"learning-{system.partition(',')[0]}-{seed}.json"
        with stage(f"seed {seed} of the loop"):
            try:
                if not result_file.exists():
                    work = result_file.with_suffix("")
                    shutil.rmtree(work, ignore_errors=True)
                    rows = list(one_seed(system, work, seed, truth, options.quick))
                    result_file.write_text(json.dumps(rows))
                records += json.loads(result_file.read_text())
            except (TimeoutError, InputError) as reason:
                lost.append(f"seed {seed}: {reason}")
    table = Table(
        f"The loop against random choice: {system}",
        ["variant", "seeds", "labels", "energy, meV/atom", "forces, meV/Å", "loop better: energy", "forces", "by seed"],
    )
    frame = pd.DataFrame(records)
    wide = frame.pivot_table(index="seed", columns="variant", values=["labels", "energy", "forces"])
    for name in VARIANTS:
        variant_errors = wide.xs(name, level="variant", axis=1)
        better = [] if name == LOOP else [beaten(wide, quantity, name) for quantity in ("energy", "forces")]
        table.add(
            name, int(variant_errors["forces"].notna().sum()), f"{variant_errors['labels'].median():.0f}",
            f"{variant_errors['energy'].median():.1f}", f"{variant_errors['forces'].median():.0f}",
            *(better or ("", "")), " ".join(f"{value:.0f}" for value in variant_errors["forces"]),
        )  # fmt: skip
    table.notes = notes_of_active(len(truth.frames), frame, lost)
    return table


def beaten(wide: pd.DataFrame, measure: str, name: str) -> str:
    """Number of seeds in which the loop has the smaller error, and the median ratio of the errors."""
    ratio = (wide[measure, LOOP] / wide[measure, name]).dropna()
    return f"{int((ratio < 1).sum())} of {len(ratio)}, × {ratio.median():.2f}"


def notes_of_active(n_frames: int, frame: pd.DataFrame, lost: Sequence[str]) -> list[str]:
    """Notes below the table."""
    tested = (
        f"RMSE of the committee's mean on {n_frames} frames of dynamics with the labelling potential itself, of cells "
        "of tungsten (16 and 54 atoms, with and without a vacancy, 300 to 2000 K, -50 to 100 kbar) or of candidates of "
        "carbon (100 to 2000 K, -20 to 100 kbar); median over seeds, forces also by seed. loop better: in how many "
        "seeds, and the loop's error as a ratio to the variant's, median."
    )
    variants = (
        f"{FIRST}: augmentation candidates at random ({INITIAL} of W, 100 of C), where all but the last begin. {LOOP}: "
        f"frames expected to be off by more than {TOLERANCE:g} meV/Å (C: 300), at most {MOST} in each of three "
        f"iterations (C: 30 in each of two) with trajectories of 1 ps. {RANDOM}: as many of its own dynamics' frames, "
        f"whatever their disagreement. {DIVERSE}: as the loop, as diverse as can be. {CANDIDATES}: augmentation "
        "candidates only. Labels include those that validate (10 %); none are in a test set, whose errors would end a "
        "loop before its time. 2Jmax 6, or less with few rows."
    )
    course = (
        f"Of the loop's frames {100 * frame['above'].mean():.0f} % were expected to be above tolerance; "
        f"{frame['early'].sum():.0f} of its trajectories ended early."
    )
    return [tested, variants, course + (f" Lost: {'; '.join(lost)}." if lost else "")]


@dataclass(frozen=True)
class Levels:
    """The labelled set, its rows ``(n_rows, n_features)`` with labels of the best level, seconds ``(n,)``, a model."""

    data: Dataset
    X: np.ndarray
    design: DesignMatrix
    model: LinearModel
    folder: Path
    seconds: dict[str, np.ndarray]

    def residual(self, members: np.ndarray, which: np.ndarray, kind: RowKind) -> np.ndarray:
        """``(n_members, n)`` residuals, prediction minus label of the best level; eV/atom or eV/Å."""
        rows = np.isin(self.design.configuration, which) & (self.design.kind == kind)
        return members @ self.X[rows, : members.shape[1]].T - self.design.targets[BEST][rows]

    def errors(self, members: np.ndarray, which: np.ndarray) -> dict[str, float]:
        """Errors of the mean of the members, see `MEASURES`."""
        energy, force = (
            self.residual(members, which, row_kind).mean(axis=0) for row_kind in (RowKind.ENERGY, RowKind.FORCE)
        )
        parts = (energy, energy - energy.mean(), force)
        return {name: 1e3 * float(np.sqrt(np.mean(part**2))) for name, part in zip(MEASURES, parts, strict=True)}

    def predict_error(self, members: np.ndarray, which: np.ndarray) -> tuple[float, float]:
        """Error of the model as the loop estimates it: mean over the members, eV/atom and eV/Å."""
        residuals = (self.residual(members, which, row_kind) for row_kind in (RowKind.ENERGY, RowKind.FORCE))
        return tuple(float(np.sqrt(np.mean(residual**2, axis=1)).mean()) for residual in residuals)


def prepared(options: Options, twojmax: int) -> Levels:
    """Descriptors of the shipped set."""
    data, folder = shipped_dataset(), options.work / f"levels-{twojmax}"
    folder.mkdir(exist_ok=True)
    model = LinearModel(SnapModelSettings(twojmax=twojmax, members=4), ["Be"], folder)
    with stage(f"descriptors at 2Jmax = {twojmax}"):
        design = compute_design(data, model.build_basis(twojmax), folder / "all.h5", jobs=1).with_labels(data, [BEST])
    rows, seconds = design.read_rows(np.arange(design.n_rows)), {name: data.labels(name).seconds for name in LEVELS}
    return Levels(data, rows, design, model, folder, seconds)


def strategy(level_data: Levels, name: str, seed: int, batches: int) -> Iterator[dict[str, object]]:
    """A row after each training: seconds spent, and errors on the test set."""
    order = np.random.default_rng(seed).permutation(len(level_data.data))
    test, aside, pool = np.split(order, [HELD, HELD + ASIDE])
    fixed = name != CHOSEN
    level = np.full(len(order), name if fixed else BEST, dtype=object)
    sets = np.full(len(order), "pool", dtype=object)
    sets[aside], batch = VALIDATE, pool[:PILOT]
    pilot = level_data.data.select(batch)
    noise, price = ({}, {}) if fixed else (measure_level_noise(pilot, LEVELS), compute_label_seconds(pilot, LEVELS))
    spent = float(sum(level_data.seconds[level_name][batch].sum() for level_name in ([name] if fixed else LEVELS)))
    history: list[tuple[int, float]] = []
    error: tuple[float, float] | None = None
    for k in range(batches):
        sets[batch] = TRAIN
        train = sets == TRAIN
        row_indices, iterations = np.arange(len(order)), np.ones(len(order), dtype=int)
        used_levels = [name] if fixed else LEVELS
        training_data = TrainingData(level_data.data, sets, level, row_indices, iterations, used_levels, noise, error)
        members = level_data.model.train(
            training_data, level_data.folder / "model", seed=seed, context=RunContext()
        ).committee.potential.coefficients
        error = level_data.predict_error(members, aside)
        history.append((int(train.sum()), error[1]))
        counts = {f"n_{level_name}": int((train & (level == level_name)).sum()) for level_name in LEVELS}
        yield {"strategy": name, "seed": seed, "seconds": spent, "n": int(train.sum()), **counts,
               **level_data.errors(members, test), "aside": float(level_data.seconds[BEST][aside].sum())}  # fmt: skip
        batch = pool[PILOT + k * BATCH : PILOT + (k + 1) * BATCH]
        if not len(batch):
            return
        if not fixed:
            exponent = fit_learning_exponent(history)
            level[batch] = choose_level(LEVELS, noise, price, error, int(train.sum()), len(batch), exponent).name
        spent += float(sum(level_data.seconds[level[index]][index] for index in batch))


def levels(options: Options) -> list[Table]:
    """Compare the choice of levels with fixed levels, for two model sizes."""
    tables, batches = [], 4 if options.quick else 100
    for twojmax, seeds in ({4: 1} if options.quick else SEEDS).items():
        level_data, records = prepared(options, twojmax), []
        with stage(f"{seeds} seeds of levels at 2Jmax = {twojmax}"):
            for seed, name in product(range(seeds), (*LEVELS[1:][::-1], CHOSEN)):
                records += strategy(level_data, name, seed, batches)
        frame = pd.DataFrame(records)
        paid = frame[frame["strategy"] == CHOSEN]
        paid = paid.assign(strategy=PAID, seconds=paid["seconds"] + paid["aside"])
        tables += [targets(pd.concat([frame, paid]), twojmax, seeds), ends(frame, twojmax, seeds)]
    return tables


def targets(frame: pd.DataFrame, twojmax: int, seeds: int) -> Table:
    """DFT seconds until an error is reached."""
    strategies = frame["strategy"].drop_duplicates().tolist()
    table = Table(
        f"Beryllium, 2Jmax = {twojmax}: seconds of DFT until an error is reached, {seeds} seeds",
        [
            "error of",
            "target",
            *(f"level {strategy_name}" if strategy_name in LEVELS else strategy_name for strategy_name in strategies),
        ],
        notes=[REACHED, STRATEGIES],
    )
    best = frame[frame["strategy"] == BEST]
    for measure, n in product(MEASURES, REFERENCE):
        if n not in best["n"].to_numpy():
            continue
        target = float(best[best["n"] == n][measure].median())
        reached = {
            strategy_name: first(frame[frame["strategy"] == strategy_name], measure, target)
            for strategy_name in strategies
        }
        middle = {strategy_name: float(np.median(values)) for strategy_name, values in reached.items()}
        table.add(
            MEASURES[measure], f"{target:.1f}",
            *(
                cell(middle[strategy_name], middle[BEST], int(np.isfinite(reached[strategy_name]).sum()))
                for strategy_name in strategies
            ),
        )  # fmt: skip
    return table


def cell(value: float, best: float, count: int) -> str:
    """Format seconds, ratio and number of seeds."""
    return f"{value:.0f} s × {value / best:.2f} ({count})" if np.isfinite(value) else f"– ({count})"


def first(frame: pd.DataFrame, measure: str, target: float) -> list[float]:
    """Seconds of each seed at the first training that reaches the target."""
    records = []
    for _, seed_rows in frame.groupby("seed"):
        good = seed_rows[seed_rows[measure] <= target]
        records.append(float(good["seconds"].iloc[0]) if len(good) else np.inf)
    return records


def ends(frame: pd.DataFrame, twojmax: int, seeds: int) -> Table:
    """Errors and costs of each strategy at several training-set sizes, up to the whole pool."""
    table = Table(
        f"Beryllium, 2Jmax = {twojmax}: errors against seconds, {seeds} seeds",
        ["strategy", "labels", "seconds", "at levels " + "/".join(LEVELS), *MEASURES.values()],
        notes=["Medians over seeds."],
    )
    for (name, n), strategy_rows in frame.groupby(["strategy", "n"], sort=False):
        if n not in (*REFERENCE, PILOT, frame["n"].max()):
            continue
        middle = strategy_rows.median(numeric_only=True)
        counts = "/".join(f"{middle[f'n_{level_name}']:.0f}" for level_name in LEVELS)
        table.add(name, n, f"{middle['seconds']:.0f}", counts, *(f"{middle[quantity]:.1f}" for quantity in MEASURES))
    return table
