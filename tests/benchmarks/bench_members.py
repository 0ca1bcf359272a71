"""Loops from several inputs: errors on dynamics of the reference, and kinds of committee members.

The loops of `studies/learn_carbon.yaml`, `learn_alloy.yaml`, `learn_quick.yaml`, and `learn_beryllium.yaml` with the
labels of a SNAP potential instead of DFT, are run once. At each iteration, committees of every kind are trained on the
same labels, and predict the frames that the next iteration labelled. The first and the last committee are tested on
dynamics with the potential that labels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from common import ROOT, Options, Table, stage

from paretofit import Dataset, InputError
from paretofit.commands import learn
from paretofit.commands.active_learning import load_learn_study
from paretofit.core import RowKind, lammps_calculator
from paretofit.execution import RunContext
from paretofit.labelling import LabelSettings
from paretofit.learning import LearnFolder, LinearModel, load_frames, select_start_structures
from paretofit.learning.evaluation import evaluate_committee
from paretofit.learning.explore import plan_runs, run_md
from paretofit.learning.free_atoms import build_free_atom_constraint, collect_free_atom_energies
from paretofit.learning.md_run import MdEngine
from paretofit.learning.model import Committee
from paretofit.learning.selection import CROSS_VALIDATION, HELD_OUT, NEW_BATCH, PROPERTIES, SCALES, calibrate
from paretofit.learning.set_balance import TRAIN
from paretofit.learning.training_data import load_training_data
from paretofit.learning.training_rows import build_parts, compute_configuration_weights
from paretofit.potentials import LabelledStructures, LinearPotential, StructureLabels
from paretofit.potentials.committee_building import N_FOLDS
from paretofit.uncertainty.committee import COMMITTEE_METHODS, CommitteeFit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ase import Atoms

    from paretofit.core import Array
    from paretofit.learning import LearnStudy, SnapModelSettings
    from paretofit.learning.learn_settings import SelectSettings
    from paretofit.learning.training_set import TrainingData

STUDIES = {"C": "learn_carbon", "Ni-Al": "learn_alloy", "W": "learn_quick", "Be": "learn_beryllium"}
SNAP_LABELS = {  # of beryllium
    "engine": {
        "name": "ase",
        "calculator": "paretofit.lammps_calculator",
        "options": {
            "commands": [
                "pair_style hybrid/overlay zbl 4.0 4.8 snap",
                "pair_coeff * * zbl 4 4",
                "pair_coeff * * snap WBe_Wood_PRB2019.snapcoeff WBe_Wood_PRB2019.snapparam Be",
            ],
            "elements": ["Be"],
        },
    },
    "ladder": [{"name": "snap"}],
}
BERYLLIUM_ITERATIONS = 5
ROW_KINDS = {"energy": RowKind.ENERGY, "forces": RowKind.FORCE}
TESTED = (
    "From the first to the last iteration. Errors on frames of dynamics with the potential that labels, from candidates"
    " of every kind and input, under the conditions of the study."
)
NOTE = (
    "Medians over iterations. rank: Spearman's correlation of disagreement and error of the potential (the mean of the "
    "members) of the new frames. true / predicted, below bound: median of true / predicted errors of the new frames, "
    "and share of them below their 90 % bounds, as the loop calibrates them; after the first iteration, which has no "
    "earlier batch: median and largest factor over iterations, and share over all frames. members, worst: training "
    "error of the energy of the mean member and of the worst one, divided by that of the potential. Frames are those "
    "of the loops, which were run with bootstrap members."
)


def run(options: Options) -> list[Table]:
    """Compute the table."""
    tested = Table(
        "Loops on dynamics of the reference itself",
        ["system", "labels", "complete trajectories", "energy, meV/atom", "forces, meV/Å", "stress, GPa"],
        notes=[TESTED],
    )
    columns = [f"{quantity}, {name}" for name in ROW_KINDS for quantity in ("rank", "true / predicted", "below bound")]
    table = Table("Kinds of committee members", ["system", "members", *columns, "members", "worst"], notes=[NOTE])
    for system, name in STUDIES.items():
        with stage(f"loop of {name}"):
            settings = load_study(name, options.quick)
            folder = LearnFolder(learn(settings, out=options.work / name, jobs=options.cores).folder)
        with stage(f"dynamics of the reference of {name}"):
            tested.add(system, *test_on_reference(folder, settings, options))
        with stage(f"committees of {name}"):
            for method, records in pd.DataFrame(compare(folder, settings)).groupby("method", sort=False):
                table.add(system, method, *summarise(records))
    return [tested, table]


def load_study(name: str, quick: bool) -> LearnStudy:
    """Load a shipped study; beryllium is labelled by a potential that LAMMPS ships."""
    settings = load_learn_study(ROOT / "studies" / f"{name}.yaml")
    changes: dict[str, object] = {}
    if name == STUDIES["Be"]:
        settings = settings.model_copy(update={"labelling": LabelSettings.model_validate(SNAP_LABELS)})
        changes["max_iterations"] = BERYLLIUM_ITERATIONS
    if quick:
        changes["max_iterations"] = 2
    return settings.model_copy(update={"learning": settings.learning.model_copy(update=changes)})


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
    with Dataset(folder.dataset_path) as data:
        n_last = len(data)
        n_first = sum(int(info.get("iteration", 1)) == 1 for info in data.info_records)
    yield f"{n_first} → {n_last}"
    ended_early = [len(record["events"]) for _, record in folder.read_records("explore")]
    n_runs = settings.learning.explore.trajectories
    yield " → ".join(f"{n_runs - count} of {n_runs}" for count in (ended_early[0], ended_early[-1]))
    records = pd.DataFrame({"id": range(len(frames)), "set": "test", "iteration": 1})
    rmse = [
        evaluate_committee(
            Committee(LinearPotential.read(folder.get_iteration(k).model_folder)),
            LabelledStructures(frames, labels), records,
            RunContext(options.cores),
        ).rmse["test"]
        for k in (numbers[0], numbers[-1])
    ]  # fmt: skip
    for name in ("energy", "forces", "stress"):
        yield " → ".join(f"{values[name]['value']:.3g}" for values in rmse)


class Rows(NamedTuple):
    """Rows of all labelled configurations: features, labels, kind and configuration of each row."""

    X: Array
    y: Array
    kind: Array
    configuration: Array


class Fits(NamedTuple):
    """Fit of an iteration, and fits without each fold, with the configurations of the fold."""

    whole: CommitteeFit
    folds: list[tuple[CommitteeFit, Array]]
    fitted: Array
    rows: Rows
    source: Array  # of the points, by configuration
    expand: Callable[[Array], Array]


def compare(folder: LearnFolder, settings: LearnStudy) -> Iterator[dict[str, object]]:
    """Yield the results of each kind of member at each iteration with newly labelled frames."""
    levels = [level.name for level in settings.labelling.selected_levels]
    numbers = [k for k, _ in folder.read_records("train")]
    batches: dict[str, list[pd.DataFrame]] = {method: [] for method in COMMITTEE_METHODS}
    for k, following in pairwise(numbers):
        data, all_data = (load_training_data(folder, number, levels) for number in (k, following))
        fits = fit_iteration(folder, settings.learning.model, data, all_data, seed=k)
        for method in COMMITTEE_METHODS:
            points, members = predict_points(fits, settings.learning.model.members, method, seed=k)
            is_batch = points["source"] == NEW_BATCH
            earlier = pd.concat([points[~is_batch], *batches[method]])
            results = judge(points[is_batch], earlier, settings.learning.select)
            yield {"method": method, "iteration": k, **members, **results}
            batches[method].append(points[is_batch])


def fit_iteration(
    folder: LearnFolder, settings: SnapModelSettings, data: TrainingData, all_data: TrainingData, seed: int
) -> Fits:
    """Fit as `LinearModel.train` does, from the stored designs, so that no descriptors are computed."""
    level = data.levels[-1]
    elements = sorted({symbol for atoms in data.dataset for symbol in atoms.get_chemical_symbols()})
    model = LinearModel(settings, elements, folder.path / "designs")
    train = np.flatnonzero(data.sets == TRAIN)
    basis = model.build_basis(settings.twojmax)
    energies, isolated_atoms = collect_free_atom_energies(settings.reference_energies, data.dataset, data.levels, basis)
    fitted = np.setdiff1d(train, isolated_atoms)
    designs = model._load_or_compute_designs(all_data, RunContext(1))
    twojmax = model._choose_twojmax(designs[0][1], int(sum(1 + 3 * n for n in data.dataset.n_atoms[train])))
    p = designs[0][1].count_columns_up_to(twojmax)
    constraint = build_free_atom_constraint(energies, model.build_basis(twojmax), [], level)
    weights = compute_configuration_weights(data, fitted, settings.downweight)
    known_designs = [(indices, design) for indices, design in designs if indices.max() < len(data.dataset)]
    parts = build_parts(data, known_designs, fitted, p, [], len(elements), weights, constraint)
    kind_weights = np.array([settings.weight_ratio, 1.0, 1.0])
    fit = CommitteeFit.from_parts(parts, data.groups[fitted], kind_weights, np.random.default_rng([seed, 0]))
    source = np.full(len(all_data.dataset), NEW_BATCH, dtype=object)
    source[: len(data.dataset)] = np.where(data.sets == TRAIN, CROSS_VALIDATION, HELD_OUT)
    rows = Rows(*map(np.concatenate, zip(*iterate_rows(designs, level, p), strict=True)))
    folds = list(fit_folds(fit, fitted))
    return Fits(fit, folds, fitted, rows, source, lambda c: c if constraint is None else constraint.expand(c, level))


def fit_folds(fit: CommitteeFit, fitted: Array) -> Iterator[tuple[CommitteeFit, Array]]:
    """Fit without each fold, as `cross_validate_committee` does; yield also the configurations of the fold."""
    fold_of_block = np.arange(len(fit.G)) % min(N_FOLDS, len(fit.G))
    for fold in range(int(fold_of_block.max()) + 1):
        try:
            part = fit.leave_out(np.flatnonzero(fold_of_block == fold))
        except InputError:
            continue
        yield part, fitted[fold_of_block[fit.block_numbers] == fold]


def predict_points(fits: Fits, n_members: int, method: str, seed: int) -> tuple[pd.DataFrame, dict[str, float]]:
    """Return the points of `collect_points` and the new batch, and the training errors of the members."""

    def draw(fit: CommitteeFit) -> Array:
        members = fits.expand(fit.draw_members(n_members, np.random.default_rng(seed), method=method))
        return np.asarray(members + fits.expand(fit.coefficients) - members.mean(axis=0))

    members, rows = draw(fits.whole), fits.rows
    tables = [tabulate_points(members, rows, np.flatnonzero(fits.source != CROSS_VALIDATION))]
    tables += [tabulate_points(draw(fit), rows, configurations) for fit, configurations in fits.folds]
    points = pd.concat(tables).sort_index()
    errors = select_errors(members, rows, "energy", fits.fitted)
    ratios = np.sqrt(np.mean(errors**2, axis=1) / np.mean(errors.mean(axis=0) ** 2))
    return points.assign(source=fits.source[points.index]), {"mean": ratios.mean(), "worst": ratios.max()}


def iterate_rows(designs: list, level: str, p: int) -> Iterator[Rows]:
    """Yield the rows of designs, with the indices of their configurations in the dataset."""
    for indices, design in designs:
        for window, X in design.iterate_blocks():
            configuration = indices[design.configuration[window]]
            yield Rows(X[:, :p], design.targets[level][window], design.kind[window], configuration)


def select_errors(members: Array, rows: Rows, name: str, configurations: Array) -> Array:
    """Compute the errors of the members for the labels of configurations, ``(n_members, n)``."""
    mask = (rows.kind == ROW_KINDS[name]) & np.isin(rows.configuration, configurations) & np.isfinite(rows.y)
    return members @ rows.X[mask].T - rows.y[mask]


def tabulate_points(members: Array, rows: Rows, configurations: Array) -> pd.DataFrame:
    """Tabulate disagreements, errors of the committee, and errors of the mean, by configuration."""
    columns: dict[str, pd.Series] = {}
    for scale, name in zip(SCALES, PROPERTIES, strict=True):
        if name not in ROW_KINDS:
            columns |= {f"{name}_std": pd.Series(dtype=float), f"{name}_committee_error": pd.Series(dtype=float)}
            continue
        mask = (rows.kind == ROW_KINDS[name]) & np.isin(rows.configuration, configurations) & np.isfinite(rows.y)
        errors = scale * select_errors(members, rows, name, configurations)
        squares = {
            "std": errors.var(axis=0),
            "committee_error": (errors**2).mean(axis=0),
            "error": errors.mean(axis=0) ** 2,
        }
        means = pd.DataFrame(squares).groupby(rows.configuration[mask]).mean() ** 0.5
        columns |= {f"{name}_{suffix}": means[suffix] for suffix in squares}
    return pd.DataFrame(columns)


def judge(batch: pd.DataFrame, points: pd.DataFrame, settings: SelectSettings) -> dict[str, float]:
    """Compare the errors of new frames with those that a calibration on other points predicts."""
    frames = pd.DataFrame({name: batch[f"{name}_std"] for name in PROPERTIES})
    calibration, result = calibrate(points, settings, frames), {"frames": len(batch)}
    for name in ROW_KINDS:
        spread, error = batch[f"{name}_std"], batch[f"{name}_committee_error"]
        expected, bound = calibration.predict(name, spread.to_numpy())
        result[f"rank, {name}"] = spread.corr(batch[f"{name}_error"], method="spearman")
        result[f"ratio, {name}"] = float(np.median(error / expected))
        result[f"below, {name}"] = float((error <= bound).sum())
    return result


def summarise(records: pd.DataFrame) -> Iterator[str]:
    """Yield the cells of a kind of member."""
    later = records[records["iteration"] > 1]
    later = records if later.empty else later
    for name in ROW_KINDS:
        yield f"{records[f'rank, {name}'].median():.2f}"
        ratio = later[f"ratio, {name}"]
        yield f"{ratio.median():.2f} ({np.exp(np.log(ratio).abs().max()):.1f})"
        yield f"{later[f'below, {name}'].sum() / later['frames'].sum():.2f}"
    yield f"{records['mean'].median():.2f}"
    yield f"{records['worst'].max():.2f}"
