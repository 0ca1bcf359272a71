"""Loops from several inputs: errors on dynamics of the reference, and kinds of committee members.

The loops of `studies/learn_carbon.yaml`, `learn_alloy.yaml` and `learn_quick.yaml` are run once. At each iteration,
committees of every kind are trained on the same labels, and predict the frames that the next iteration labelled. The
first and the last committee are tested on dynamics with the potential that labels.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from common import ROOT, Options, Table, stage

from paretofit import Dataset
from paretofit.commands import learn
from paretofit.commands.active_learning import load_learn_study
from paretofit.core import lammps_calculator
from paretofit.execution import RunContext
from paretofit.learning import LearnFolder, SnapModel, load_frames, select_start_structures
from paretofit.learning.calibration_points import describe_configurations
from paretofit.learning.evaluation import evaluate_committee, evaluate_cross_validation
from paretofit.learning.explore import plan_runs, run_md
from paretofit.learning.md_run import MdEngine
from paretofit.learning.model import Committee
from paretofit.learning.training_data import load_training_data
from paretofit.potentials import LabelledStructures, LinearPotential, StructureLabels
from paretofit.uncertainty.committee import COMMITTEE_METHODS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms

    from paretofit.learning import LearnStudy

STUDIES = {"C": "learn_carbon", "Ni-Al": "learn_alloy", "W": "learn_quick"}
PROPERTIES = ("energy", "forces")
COVERAGE = 0.9
TESTED = (
    "From the first to the last iteration. Errors on frames of dynamics with the potential that labels, from candidates"
    " of every kind and input, under the conditions of the study."
)
NOTE = (
    "Medians over iterations. rank: Spearman's correlation of disagreement and true error of the new frames. "
    f"below bound: share of the true errors below the {100 * COVERAGE:.0f} % quantile of error / disagreement of the "
    "cross-validation, times the disagreement. members, worst: training error of the mean member and of the worst one "
    "divided by the error of the potential."
)


def run(options: Options) -> list[Table]:
    """Compute the table."""
    records: list[dict[str, object]] = []
    tested = Table(
        "Loops on dynamics of the reference itself",
        ["system", "labels", "complete trajectories", "energy, meV/atom", "forces, meV/Å", "stress, GPa"],
        notes=[TESTED],
    )
    for system, name in STUDIES.items():
        with stage(f"loop of {name}"):
            settings = load_learn_study(ROOT / "studies" / f"{name}.yaml")
            if options.quick:
                learning = settings.learning.model_copy(update={"max_iterations": 2})
                settings = settings.model_copy(update={"learning": learning})
            folder = LearnFolder(learn(settings, out=options.work / name, jobs=options.cores).folder)
        with stage(f"dynamics of the reference of {name}"):
            tested.add(system, *test_on_reference(folder, settings, options))
        with stage(f"committees of {name}"):
            model = settings.learning.model
            levels = [level.name for level in settings.labelling.selected_levels]
            records += [{"system": system, **record} for record in compare(folder, model, levels, options)]
    frame = pd.DataFrame(records)
    columns = [f"{quantity}, {name}" for name in PROPERTIES for quantity in ("rank", "below bound")]
    table = Table("Kinds of committee members", ["system", "members", *columns, "members", "worst"], notes=[NOTE])
    for (system, method), rows in frame.groupby(["system", "method"], sort=False):
        medians = rows.median(numeric_only=True)
        table.add(system, method, *(f"{medians[column]:.2f}" for column in [*columns, "mean", "worst"]))
    return [tested, table]


def test_on_reference(folder: LearnFolder, settings: LearnStudy, options: Options) -> Iterator[str]:
    """Yield the numbers of labels and of complete trajectories, and the errors of the first and the last committee."""
    calculator = settings.labelling.engine.options
    engine = MdEngine(tuple(calculator["commands"]), tuple(calculator["elements"]))
    label = lammps_calculator(calculator["commands"], calculator["elements"])
    explore = settings.learning.explore.model_copy(
        update={"trajectories": 4 if options.quick else 30, "time_ps": 1.0, "interval_ps": 0.5}
    )
    starts, _ = select_start_structures(load_frames(folder.path / "candidates.extxyz", ""), None)
    frames: list[Atoms] = []
    for md_run in plan_runs(starts, explore, np.random.default_rng(99)):
        trajectory = run_md(md_run, engine, explore)
        frames += [atoms for atoms, time in zip(trajectory.frames, trajectory.times, strict=True) if time > 0]
    labels = []
    for atoms in frames:
        atoms.calc = label
        stress = atoms.get_stress() if atoms.pbc.all() else np.full(6, np.nan)
        labels.append(StructureLabels(atoms.get_potential_energy(), atoms.get_forces(), stress))
        atoms.calc = None
    numbers = [k for k, _ in folder.read_records("train")]
    with Dataset(folder.dataset) as data:
        n_last = len(data)
        n_first = sum(int(info.get("iteration", 1)) == 1 for info in data.info_records)
    yield f"{n_first} → {n_last}"
    ended_early = [len(record["events"]) for _, record in folder.read_records("explore")]
    n_runs = settings.learning.explore.trajectories
    yield " → ".join(f"{n_runs - count} of {n_runs}" for count in (ended_early[0], ended_early[-1]))
    records = pd.DataFrame({"id": range(len(frames)), "set": "test", "iteration": 1})
    rmse = [
        evaluate_committee(
            Committee(LinearPotential.read(folder.iteration(k).model)), LabelledStructures(frames, labels), records,
            RunContext(options.cores),
        ).rmse["test"]
        for k in (numbers[0], numbers[-1])
    ]  # fmt: skip
    for name in ("energy", "forces", "stress"):
        yield " → ".join(f"{values[name]['value']:.3g}" for values in rmse)


def compare(folder: LearnFolder, settings: object, levels: list[str], options: Options) -> Iterator[dict[str, object]]:
    """Yield the results of each kind of member at each iteration with newly labelled frames."""
    context = RunContext(options.cores)
    numbers = [k for k, _ in folder.read_records("train")]
    for k, method in product(numbers[:-1], COMMITTEE_METHODS):
        data, following = (load_training_data(folder, number, levels) for number in (k, k + 1))
        elements = sorted({symbol for atoms in data.dataset for symbol in atoms.get_chemical_symbols()})
        model = SnapModel(settings.model_copy(update={"committee_method": method}), elements, folder.path / "designs")
        training = model.train(data, options.work / "committee", seed=k, context=context)
        batch = following.select_aligned(np.flatnonzero(following.iteration == k + 1), {})
        records = pd.DataFrame({"id": range(len(batch.structures)), "set": "test", "iteration": k + 1})
        errors = evaluate_committee(training.committee, batch, records, context).table
        labelled = data.select_aligned(np.arange(len(data.dataset)), {})
        points = evaluate_cross_validation(training.cross_validation, labelled, context)
        trained = evaluate_committee(training.committee, labelled, describe_configurations(data), context).rmse["train"]
        members = np.array(trained["energy"]["by_member"]) / trained["energy"]["value"]
        record: dict[str, object] = {"method": method, "mean": members.mean(), "worst": members.max()}
        for name in PROPERTIES:
            spread, error = errors[f"{name}_std"], errors[f"{name}_committee_error"]
            record[f"rank, {name}"] = spread.corr(error, method="spearman")
            ratio = (points[f"{name}_committee_error"] / points[f"{name}_std"]).replace(np.inf, np.nan)
            record[f"below bound, {name}"] = float((error <= ratio.quantile(COVERAGE) * spread).mean())
        yield record
