"""MACE networks on the data of a study: training, evaluation and timing for comparison with the linear models.

A network is trained on a subset of the sweep (first sampling method, first repetition); a part of the subset is the
validation set. Like the linear models, the network is evaluated on the test set of the study. The result of each
network is stored in a folder whose name contains a hash of all inputs of this result, so that after an edit of the
study only new networks are trained.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from paretofit import potentials
from paretofit.core import (
    Array,
    InputError,
    RowKind,
    hash_array,
    hash_file,
    hash_json,
    remove_file,
    suggest_match,
    write_csv,
    write_text,
)
from paretofit.dataset import describe_dataset, split_configurations
from paretofit.dataset.quality import LevelErrors
from paretofit.descriptors import require_descriptors
from paretofit.execution import RunContext
from paretofit.linear import LeverageScores
from paretofit.potentials.mace import MaceData, MaceSettings, check_foundation, check_mace, train_mace_committee
from paretofit.study.analysis import select_md_cell
from paretofit.study.network_settings import NetworkSettings
from paretofit.study.preparation import PreparedStudy
from paretofit.study.run_folder import NETWORK_CALIBRATION_FILE, NETWORK_FILES, NETWORKS_FILE
from paretofit.sweep import SweepInput, list_draws
from paretofit.uncertainty import CalibrationData, CommitteeFit, calibrate_conformal, get_min_calibration_size
from paretofit.validation import measure_network_speed

log = logging.getLogger(__name__)

FOLDER = "mace"
MIN_VALIDATION_SIZE = 3  # number of configurations
MIN_NETWORK_SIZE = 4 * MIN_VALIDATION_SIZE  # number of configurations in a subset
COVERAGE = 0.9  # coverage of the intervals
N_SNAP_MEMBERS = 8  # number of members of the committee of linear models that is compared with a network
MD_SECONDS = 0.5  # duration of each of three timings
KIND_NAMES = {RowKind.ENERGY: "energy", RowKind.FORCE: "force"}
COLUMNS = [
    "model", "level", "n_train", "members", "parameters", "train_energy", "train_force", "test_energy", "test_force",
    "ref_energy", "ref_force", "ref_energy_shifted", "label_seconds", "train_seconds", "epochs",
    "md_us_per_atom_step", "events", "folder",
]  # fmt: skip


@dataclass(frozen=True)
class _NetworkTask:
    """Network to train: one model, level and training subset."""

    name: str
    settings: MaceSettings
    level: str
    subset: Array  # positions in the dataset
    study: NetworkSettings


def check_networks(prepared: PreparedStudy) -> None:
    """Check the networks of a study before anything is computed.

    Raises
    ------
    InputError
        If a model, a file, a level or a size cannot be used, or the study has no test set.
    """
    settings, grid = prepared.study.mace, prepared.grid
    if settings is None:
        return
    for model in settings.models.values():
        check_mace(model.device, model.options)
    for key, path in settings.foundation_files.items():
        if not path.exists():
            raise InputError(f"'{key}': no file at {path}; correct the path in the study")
    for model in settings.models.values():
        check_foundation(model, list(describe_dataset(prepared.dataset).species))
    if unknown_levels := [level for level in settings.levels if level not in grid.levels]:
        raise InputError(
            f"'mace.levels' contains '{unknown_levels[0]}', which is not a level of this study; available: "
            f"{', '.join(grid.levels)}{suggest_match(unknown_levels[0], grid.levels)}"
        )
    if not len(prepared.split.test):
        raise InputError("'mace' requires a test set to evaluate networks; set 'split.train_fraction' below 1")
    _check_sizes(settings, prepared)


def _check_sizes(settings: NetworkSettings, prepared: PreparedStudy) -> None:
    n_train = len(prepared.split.train)
    for size in _list_sizes(settings, n_train):
        if size not in prepared.grid.sizes:
            sizes = ", ".join("all" if size == n_train else str(size) for size in prepared.grid.sizes)
            raise InputError(
                f"'mace.sizes' contains {size}, which is not one of 'sizes', so that there is no linear model to "
                f"compare with; available: {sizes}"
            )
        if size < MIN_NETWORK_SIZE:
            raise InputError(
                f"'mace.sizes' contains {size}; a network requires {MIN_NETWORK_SIZE} or more configurations"
            )


def _list_sizes(settings: NetworkSettings, n_train: int) -> list[int]:
    return list(dict.fromkeys(n_train if size == "all" else size for size in settings.sizes))


def evaluate_networks(
    prepared: PreparedStudy,
    data: SweepInput,
    scores: LeverageScores | None,
    results: pd.DataFrame,
    errors: LevelErrors,
    folder: Path,
    context: RunContext,
) -> None:
    """Train, evaluate and time the networks of a study, and write ``mace.csv`` and ``mace_calibration.csv``.

    If the study has no networks, these files are removed.

    Parameters
    ----------
    prepared : PreparedStudy
    data : SweepInput
    scores : LeverageScores or None
        Scores of the leverage sampling, if the study uses it.
    results : DataFrame
        Results of the linear models; the best of them is compared with each network.
    errors : LevelErrors
        Errors of the labels, with the reference configuration for the timing.
    folder : Path
        Run folder.
    context : RunContext
    """
    settings = prepared.study.mace
    if settings is None:
        for name in NETWORK_FILES:
            remove_file(folder / name)
        return
    rows, calibrations = [], []
    compared_subsets: set[tuple[str, int]] = set()
    trainer = _NetworkTrainer(prepared, data, errors, folder, context)
    for task in _list_tasks(settings, prepared, data, scores):
        row, calibration = trainer.load_or_train(task)
        rows.append(row)
        calibrations += calibration
        if (task.level, len(task.subset)) not in compared_subsets:
            compared_subsets.add((task.level, len(task.subset)))
            calibrations += _calibrate_linear_model(task, prepared, data, results, context)
        table = pd.DataFrame(rows)[COLUMNS]
        # the speed depends only on the model, and other processes can only slow down a timing
        table["md_us_per_atom_step"] = table.groupby("model")["md_us_per_atom_step"].transform("min")
        write_csv(table, folder / NETWORKS_FILE)
    write_csv(pd.DataFrame(calibrations), folder / NETWORK_CALIBRATION_FILE)


def _list_tasks(
    settings: NetworkSettings, prepared: PreparedStudy, data: SweepInput, scores: LeverageScores | None
) -> list[_NetworkTask]:
    grid = prepared.grid
    subsets: dict[int, Array] = {}
    for draw in list_draws(data, grid, scores):
        subsets.setdefault(draw.n_train, draw.configurations)  # draws begin with the first method and repetition
    return [
        _NetworkTask(name, _set_atomic_energies(model, prepared, level), level, subsets[size], settings)
        for level in settings.levels or [grid.levels[-1]]
        for size in _list_sizes(settings, len(prepared.split.train))
        for name, model in settings.models.items()
    ]


def _set_atomic_energies(model: MaceSettings, prepared: PreparedStudy, level: str) -> MaceSettings:
    """Add the study's free-atom energies at a level to the settings of a model, where they have none."""
    energies = {**prepared.reference_energies.energies[level], **model.isolated_atoms}
    return model.model_copy(update={"isolated_atoms": energies})


def _hash_task(task: _NetworkTask, prepared: PreparedStudy) -> str:
    """Hash everything that the result of a network depends on."""
    dataset = prepared.dataset.select(np.concatenate([task.subset, prepared.split.test]))
    labels = [dataset.labels(level) for level in (task.level, prepared.grid.levels[-1])]
    values = [
        hash_array(np.nan_to_num(part)) for level in labels for part in (level.energy, level.forces, level.stress)
    ]
    files = [hash_file(path) for path in task.settings.foundation_files.values()]
    settings = task.settings.model_dump(mode="json", exclude={"foundation": {"file", "replay"}})
    groups = prepared.split.groups[task.subset].tolist()
    options = [task.study.validation_fraction, task.study.seed]
    return hash_json([settings, files, options, dataset.hash_structures(), len(task.subset), groups, values])[:10]


@dataclass(frozen=True)
class _NetworkTrainer:
    """Trainer of the networks of a study, with the data that all of them share."""

    prepared: PreparedStudy
    data: SweepInput
    errors: LevelErrors
    folder: Path  # folder of the run
    context: RunContext

    def load_or_train(self, task: _NetworkTask) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Load the row and the calibration of a network from its folder, or train the network and store them there."""
        folder = self.folder.absolute() / FOLDER / f"{task.name}-{_hash_task(task, self.prepared)}"
        path = folder / "point.json"
        with suppress(OSError, ValueError, KeyError):  # if the file is missing or corrupt, the network is trained again
            content = json.loads(path.read_text(encoding="utf-8"))
            return content["row"], content["calibration"]
        row, calibration = self._train(task, folder)
        write_text(path, json.dumps({"row": row, "calibration": calibration}, indent=1) + "\n")
        return row, calibration

    def _train(self, task: _NetworkTask, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Train, evaluate and time a network; return its row and calibration."""
        settings, groups = task.study, self.prepared.split.groups
        log.info("network %s, level %s, %d configurations", task.name, task.level, len(task.subset))
        positions = _split_subset(groups[task.subset], settings.validation_fraction, settings.seed)
        training, validation = (
            potentials.LabelledStructures.from_dataset(self.prepared.dataset, task.level, task.subset[part], groups)
            for part in positions
        )
        potential = train_mace_committee(
            task.settings, MaceData(training, validation), folder, calibration_set=validation, seed=settings.seed,
            coverage=COVERAGE, level=task.level, context=self.context,
        )  # fmt: skip
        errors_by_name, calibration = _evaluate_committee(potential, self.prepared, task, self.context)
        cell = select_md_cell(self.prepared, self.errors)
        speed = np.nan
        if cell is not None:
            speed = measure_network_speed(potential, cell, seconds=MD_SECONDS).us_per_atom_step
        record = potential.record or {}
        row = {
            "model": task.name,
            "level": task.level,
            "n_train": len(task.subset),
            "members": potential.n_members,
            "parameters": potential.n_parameters,
            **errors_by_name,
            "label_seconds": float(self.data.design.seconds[task.level][task.subset].sum()),
            "train_seconds": sum(member["seconds"] for member in record["members"]),
            "epochs": max(member["epochs"] for member in record["members"]),
            "md_us_per_atom_step": speed,
            "events": "; ".join(potential.events),
            "folder": f"{FOLDER}/{folder.name}",
        }
        return row, _tabulate_calibration(f"MACE {task.name}", task, potential.n_members, calibration)


def _split_subset(groups: Array, validation_fraction: float, seed: int) -> tuple[Array, Array]:
    """Split a subset into training and validation set without dividing a group; return the positions of each."""
    count = max(MIN_VALIDATION_SIZE, round(validation_fraction * len(groups)))
    split = split_configurations(groups, 1 - count / len(groups), seed)
    if not len(split.test):
        raise InputError(
            "all configurations of this subset are in one group, which leaves no validation set for a network; use a "
            "larger subset, or other keys in 'split.group_by'"
        )
    return split.train, split.test


def _evaluate_committee(
    potential: potentials.CommitteePotential, prepared: PreparedStudy, task: _NetworkTask, context: RunContext
) -> tuple[dict[str, float], dict[RowKind, CalibrationData]]:
    """Compute errors as in ``results.csv``, meV/atom and meV/Å, and the calibration data of the test set."""
    dataset, split, reference = prepared.dataset, prepared.split, prepared.grid.levels[-1]
    errors: dict[str, float] = {}
    calibration: dict[RowKind, CalibrationData] = {}
    sets = (("train", task.subset, task.level), ("test", split.test, task.level), ("ref", split.test, reference))
    spreads = {}
    for name, positions, level in sets:
        labelled_set = potentials.LabelledStructures.from_dataset(dataset, level, positions, split.groups)
        is_training = name == "train"
        if is_training not in spreads:
            spreads[is_training] = potentials.predict_spreads(potential, labelled_set.structures, context)
        sizes = [len(atoms) for atoms in labelled_set.structures]
        residuals = potentials.collect_calibration_data(
            spreads[is_training], labelled_set.labels, sizes, labelled_set.groups
        )
        for kind, kind_name in KIND_NAMES.items():
            residual = 1000 * residuals[kind].residual if kind in residuals else np.array([np.nan])  # eV to meV
            errors[f"{name}_{kind_name}"] = float(np.sqrt(np.mean(residual**2)))
            if name == "ref" and kind == RowKind.ENERGY:
                errors["ref_energy_shifted"] = float(np.std(residual))
        calibration = residuals if name == "test" else calibration
    return errors, calibration


def _calibrate_linear_model(
    task: _NetworkTask, prepared: PreparedStudy, data: SweepInput, results: pd.DataFrame, context: RunContext
) -> list[dict[str, Any]]:
    """Tabulate the calibration of a linear committee, with the settings of the lowest force error on the same subset.

    The list is empty if there is no such fit, or the subset has no more rows than the model has columns.
    """
    is_same_subset = (
        (results["level"] == task.level)
        & (results["n_train"] == len(task.subset))
        & (results["sampling"] == prepared.grid.sampling_methods[0])
        & (results["repeat"] == 0)
    )
    fits = results[is_same_subset].dropna(subset="ref_force")
    if fits.empty:
        return []
    best = fits.sort_values("ref_force").iloc[0]
    twojmax = int(best["twojmax"])
    columns = data.design.count_columns_up_to(twojmax)
    if np.isin(data.design.configuration, task.subset).sum() <= columns:
        return []
    parts = potentials.partition_training_rows(data.design, task.level, task.subset, columns)
    groups, weights = prepared.split.groups[task.subset], np.array([best["w_energy"], best["w_force"], 1.0])
    rng = np.random.default_rng([prepared.study.seed, 9])
    fit = CommitteeFit.from_parts(parts, groups, weights, rng, threads=context.jobs)
    members = fit.draw_members(N_SNAP_MEMBERS, np.random.default_rng([prepared.study.seed, 10]), method="bootstrap")
    # The committee is centred on the fit.
    members = data.design.expand_coefficients(members + fit.coefficients - members.mean(axis=0), task.level)
    basis = require_descriptors(prepared.study.basis).resize(twojmax)
    _, calibration = _evaluate_committee(potentials.LinearPotential(basis, members), prepared, task, context)
    name = f"{basis.title.replace('quadratic ', 'q')} 2Jmax {twojmax}"
    return _tabulate_calibration(name, task, N_SNAP_MEMBERS, calibration)


def _tabulate_calibration(
    name: str, task: _NetworkTask, n_members: int, calibration: Mapping[RowKind, CalibrationData]
) -> list[dict[str, Any]]:
    """Tabulate how well the disagreement of a committee predicts the errors of the test set.

    Each half of the test set calibrates the intervals of the other half.
    """
    rows = []
    for kind, residuals in calibration.items():
        factor, unit = potentials.DISPLAY_UNITS[kind]
        spread, error = _average_by_configuration(residuals)
        coverage, half_width = _cross_validate_intervals(residuals, n_members)
        has_variation = len(spread) > 2 and np.ptp(spread) > 0 and np.ptp(error) > 0
        rows.append(
            {
                "model": name,
                "level": task.level,
                "n_train": len(task.subset),
                "members": n_members,
                "quantity": f"{kind.name.lower()} ({unit})",
                "rmse": factor * float(np.sqrt(np.mean(residuals.residual**2))),
                "spread": factor * float(np.sqrt(np.mean(residuals.spread**2))),
                "rank_correlation": float(spearmanr(spread, error).statistic) if has_variation else np.nan,
                "inside": coverage,
                "half_width": factor * half_width,
            }
        )
    return rows


def _average_by_configuration(data: CalibrationData) -> tuple[Array, Array]:
    """Compute the root mean square disagreement and error of each configuration."""
    _, numbers, counts = np.unique(data.configuration, return_inverse=True, return_counts=True)
    spread, error = (np.sqrt(np.bincount(numbers, values**2) / counts) for values in (data.spread, data.residual))
    return spread, error


def _cross_validate_intervals(data: CalibrationData, n_members: int) -> tuple[float, float]:
    """Calibrate conformal intervals on each half of the groups for the other half.

    Returns
    -------
    (float, float)
        Fraction of the labels in their intervals, and median half width; NaN with too few groups.
    """
    groups = np.unique(data.group)
    is_first = np.isin(data.group, np.random.default_rng(0).permutation(groups)[: len(groups) // 2])
    if min(len(np.unique(data.group[mask])) for mask in (is_first, ~is_first)) < get_min_calibration_size(COVERAGE):
        return float("nan"), float("nan")
    is_inside, half_widths = [], []
    for is_in_half in (is_first, ~is_first):
        interval = calibrate_conformal(
            data.spread[is_in_half], data.residual[is_in_half], COVERAGE, data.group[is_in_half], n_members
        )
        half_width = interval.compute_half_width(data.spread[~is_in_half])
        is_inside.append(np.abs(data.residual[~is_in_half]) <= half_width)
        half_widths.append(half_width)
    return float(np.mean(np.concatenate(is_inside))), float(np.median(np.concatenate(half_widths)))
