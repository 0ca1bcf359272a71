"""MACE networks on the data of a study: training, evaluation and timing for comparison with the linear models.

A network is trained on a subset of the sweep (first sampling method, first repetition), a part of which is the
validation set. Like the linear models, it is evaluated on the test set of the study. Its result is stored in a folder
whose name contains a hash of all inputs of the result, so that after an edit of the study only new networks are
trained.
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

NETWORKS_FOLDER = "mace"
MIN_VALIDATION_SIZE = 3  # number of configurations
MIN_NETWORK_SIZE = 4 * MIN_VALIDATION_SIZE  # number of configurations in a subset
COVERAGE = 0.9  # fraction of labels that the calibrated intervals should contain
N_LINEAR_MEMBERS = 8  # number of members of the linear committees that are compared with networks
MD_SECONDS = 0.5  # s, duration of each of three timings
KIND_NAMES = {RowKind.ENERGY: "energy", RowKind.FORCE: "force"}
NETWORK_COLUMNS = [
    "model", "level", "n_train", "members", "parameters", "train_energy", "train_force", "test_energy", "test_force",
    "ref_energy", "ref_force", "ref_energy_shifted", "label_seconds", "train_seconds", "epochs",
    "md_us_per_atom_step", "events", "folder",
]  # fmt: skip


@dataclass(frozen=True)
class _NetworkTask:
    """Network to train: one model, level and training subset."""

    name: str
    model_settings: MaceSettings
    level: str
    subset: Array  # positions in the dataset, (n_train,) int64
    network_settings: NetworkSettings


def check_networks(prepared: PreparedStudy) -> None:
    """Check the settings of a study's networks, if it has any, before anything is computed.

    Raises
    ------
    InputError
        If MACE is not installed, a model, file, level or size cannot be used, or the study has no test set.
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
    """Raise InputError if a size is too small, or no linear models are fitted to subsets of this size."""
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
    """List the distinct sizes of training subsets; 'all' is `n_train`."""
    return list(dict.fromkeys(n_train if size == "all" else size for size in settings.sizes))


def evaluate_networks(
    prepared: PreparedStudy,
    sweep_input: SweepInput,
    scores: LeverageScores | None,
    results: pd.DataFrame,
    errors: LevelErrors,
    folder: Path,
    context: RunContext,
) -> None:
    """Train, evaluate and time the networks of a study, and write the tables `NETWORK_FILES` to the run folder.

    The networks themselves are stored in ``mace/``. If the study has no networks, tables of an earlier run are removed.

    Parameters
    ----------
    prepared : PreparedStudy
    sweep_input : SweepInput
    scores : LeverageScores or None
        Leverage scores of the training set; None if no sampling method requires them.
    results : DataFrame
        Results of the linear models; for each level and size, that with the lowest force error is compared.
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
    network_rows, calibration_rows = [], []
    compared_subsets: set[tuple[str, int]] = set()
    trainer = _NetworkTrainer(prepared, sweep_input, errors, folder, context)
    for task in _list_tasks(settings, prepared, sweep_input, scores):
        network_row, network_calibration = trainer.load_or_train(task)
        network_rows.append(network_row)
        calibration_rows += network_calibration
        if (task.level, len(task.subset)) not in compared_subsets:
            compared_subsets.add((task.level, len(task.subset)))
            calibration_rows += _calibrate_linear_model(task, prepared, sweep_input, results, context)
        table = pd.DataFrame(network_rows)[NETWORK_COLUMNS]
        # The speed depends only on the model, and other processes can only slow down a timing: the fastest is right.
        table["md_us_per_atom_step"] = table.groupby("model")["md_us_per_atom_step"].transform("min")
        write_csv(table, folder / NETWORKS_FILE)
    write_csv(pd.DataFrame(calibration_rows), folder / NETWORK_CALIBRATION_FILE)


def _list_tasks(
    settings: NetworkSettings, prepared: PreparedStudy, sweep_input: SweepInput, scores: LeverageScores | None
) -> list[_NetworkTask]:
    """List the networks to train, in the order of level, size and model."""
    grid = prepared.grid
    subsets: dict[int, Array] = {}
    for draw in list_draws(sweep_input, grid, scores):
        subsets.setdefault(draw.n_train, draw.configurations)  # the first method and repetition are drawn first
    return [
        _NetworkTask(name, _set_atomic_energies(model, prepared, level), level, subsets[size], settings)
        for level in settings.levels or [grid.levels[-1]]
        for size in _list_sizes(settings, len(prepared.split.train))
        for name, model in settings.models.items()
    ]


def _set_atomic_energies(model: MaceSettings, prepared: PreparedStudy, level: str) -> MaceSettings:
    """Return the settings of a model with the study's free-atom energies at a level, for elements without an energy."""
    energies = {**prepared.reference_energies.energies[level], **model.isolated_atoms}
    return model.model_copy(update={"isolated_atoms": energies})


def _hash_task(task: _NetworkTask, prepared: PreparedStudy) -> str:
    """Hash everything that the result of a network depends on, but not the paths of files."""
    dataset = prepared.dataset.select(np.concatenate([task.subset, prepared.split.test]))
    both_labels = [dataset.labels(level) for level in (task.level, prepared.grid.levels[-1])]
    label_arrays = [array for labels in both_labels for array in (labels.energy, labels.forces, labels.stress)]
    label_hashes = [hash_array(np.nan_to_num(array)) for array in label_arrays]
    files = [hash_file(path) for path in task.model_settings.foundation_files.values()]
    settings = task.model_settings.model_dump(mode="json", exclude={"foundation": {"file", "replay"}})
    groups = prepared.split.groups[task.subset].tolist()
    options = [task.network_settings.validation_fraction, task.network_settings.seed]
    inputs = [settings, files, options, dataset.hash_structures(), len(task.subset), groups, label_hashes]
    return hash_json(inputs)[:10]


@dataclass(frozen=True)
class _NetworkTrainer:
    """Trainer of the networks of a study, with the inputs that they have in common."""

    prepared: PreparedStudy
    sweep_input: SweepInput
    errors: LevelErrors
    folder: Path  # run folder
    context: RunContext

    def load_or_train(self, task: _NetworkTask) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Load the result of a network from its folder, or train the network and store the result there.

        Return its row of `NETWORKS_FILE`, and its rows of `NETWORK_CALIBRATION_FILE`.
        """
        folder = self.folder.absolute() / NETWORKS_FOLDER / f"{task.name}-{_hash_task(task, self.prepared)}"
        path = folder / "point.json"
        with suppress(OSError, ValueError, KeyError):  # if the file is missing or corrupt, the network is trained again
            content = json.loads(path.read_text(encoding="utf-8"))
            return content["row"], content["calibration"]
        network_row, calibration_rows = self._train(task, folder)
        write_text(path, json.dumps({"row": network_row, "calibration": calibration_rows}, indent=1) + "\n")
        return network_row, calibration_rows

    def _train(self, task: _NetworkTask, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Train a network in its folder, evaluate and time it; return its rows of both tables."""
        settings, groups = task.network_settings, self.prepared.split.groups
        log.info("network %s, level %s, %d configurations", task.name, task.level, len(task.subset))
        subset_split = _split_subset(groups[task.subset], settings.validation_fraction, settings.seed)
        training, validation = (
            potentials.LabelledStructures.from_dataset(self.prepared.dataset, task.level, task.subset[indices], groups)
            for indices in subset_split
        )
        potential = train_mace_committee(
            task.model_settings, MaceData(training, validation), folder, calibration_set=validation, seed=settings.seed,
            coverage=COVERAGE, level=task.level, context=self.context,
        )  # fmt: skip
        errors_by_column, calibration_data = _evaluate_committee(potential, self.prepared, task, self.context)
        cell, md_cost = select_md_cell(self.prepared, self.errors), np.nan
        if cell is not None:
            md_cost = measure_network_speed(potential, cell, seconds=MD_SECONDS).us_per_atom_step
        record = potential.record or {}
        network_row = {
            "model": task.name,
            "level": task.level,
            "n_train": len(task.subset),
            "members": potential.n_members,
            "parameters": potential.n_parameters,
            **errors_by_column,
            "label_seconds": float(self.sweep_input.design.seconds[task.level][task.subset].sum()),
            "train_seconds": sum(member["seconds"] for member in record["members"]),
            "epochs": max(member["epochs"] for member in record["members"]),
            "md_us_per_atom_step": md_cost,
            "events": "; ".join(potential.events),
            "folder": f"{NETWORKS_FOLDER}/{folder.name}",
        }
        return network_row, _tabulate_calibration(f"MACE {task.name}", task, potential.n_members, calibration_data)


def _split_subset(groups: Array, validation_fraction: float, seed: int) -> tuple[Array, Array]:
    """Split a subset into a training and a validation set of whole groups; return the indices of each in the subset.

    Raise InputError if one of the sets would be empty.
    """
    n_validation = max(MIN_VALIDATION_SIZE, round(validation_fraction * len(groups)))
    split = split_configurations(groups, 1 - n_validation / len(groups), seed)
    return split.train, split.test


def _evaluate_committee(
    potential: potentials.CommitteePotential, prepared: PreparedStudy, task: _NetworkTask, context: RunContext
) -> tuple[dict[str, float], dict[RowKind, CalibrationData]]:
    """Compute errors by column (meV/atom, meV/Å), and the calibration data of the test set at the task's level."""
    dataset, split, reference = prepared.dataset, prepared.split, prepared.grid.levels[-1]
    errors: dict[str, float] = {}
    test_calibration: dict[RowKind, CalibrationData] = {}
    sets = (("train", task.subset, task.level), ("test", split.test, task.level), ("ref", split.test, reference))
    predictions = {}  # of the training set (True) and of the test set (False), which is compared with two levels
    for prefix, positions, level in sets:
        labelled_set = potentials.LabelledStructures.from_dataset(dataset, level, positions, split.groups)
        is_training = prefix == "train"
        if is_training not in predictions:
            predictions[is_training] = potentials.predict_spreads(potential, labelled_set.structures, context)
        sizes = [len(atoms) for atoms in labelled_set.structures]
        calibration_data = potentials.collect_calibration_data(
            predictions[is_training], labelled_set.labels, sizes, labelled_set.groups
        )
        for kind, kind_name in KIND_NAMES.items():
            has_kind = kind in calibration_data
            residual = 1000 * calibration_data[kind].residual if has_kind else np.array([np.nan])  # eV to meV
            errors[f"{prefix}_{kind_name}"] = float(np.sqrt(np.mean(residual**2)))
            if prefix == "ref" and kind == RowKind.ENERGY:
                errors["ref_energy_shifted"] = float(np.std(residual))
        if prefix == "test":
            test_calibration = calibration_data
    return errors, test_calibration


def _calibrate_linear_model(
    task: _NetworkTask, prepared: PreparedStudy, sweep_input: SweepInput, results: pd.DataFrame, context: RunContext
) -> list[dict[str, Any]]:
    """Tabulate the calibration of a linear committee, for comparison with a network that has the same training subset.

    The committee has the settings of the fit with the lowest force error on this subset. The list is empty if there is
    no such fit, or the subset has no more rows than the model has columns.
    """
    design = sweep_input.design
    is_same_subset = (
        (results["level"] == task.level)
        & (results["n_train"] == len(task.subset))
        & (results["sampling"] == prepared.grid.sampling_methods[0])
        & (results["repeat"] == 0)
    )
    fits = results[is_same_subset].dropna(subset="ref_force")
    if fits.empty:
        return []
    best_fit = fits.sort_values("ref_force").iloc[0]
    twojmax = int(best_fit["twojmax"])
    n_columns = design.count_columns_up_to(twojmax)
    if np.isin(design.configuration, task.subset).sum() <= n_columns:
        return []
    row_parts = potentials.partition_training_rows(design, task.level, task.subset, n_columns)
    groups, weights = prepared.split.groups[task.subset], np.array([best_fit["w_energy"], best_fit["w_force"], 1.0])
    rng = np.random.default_rng([prepared.study.seed, 9])  # 9 and 10: streams that differ from those of the draws
    fit = CommitteeFit.from_parts(row_parts, groups, weights, rng, threads=context.jobs)
    members = fit.draw_members(N_LINEAR_MEMBERS, np.random.default_rng([prepared.study.seed, 10]), method="bootstrap")
    # The members are shifted so that their mean is the fit.
    members = design.expand_coefficients(members + fit.coefficients - members.mean(axis=0), task.level)
    basis = require_descriptors(prepared.study.basis).resize(twojmax)
    _, calibration_data = _evaluate_committee(potentials.LinearPotential(basis, members), prepared, task, context)
    name = f"{basis.title.replace('quadratic ', 'q')} 2Jmax {twojmax}"
    return _tabulate_calibration(name, task, N_LINEAR_MEMBERS, calibration_data)


def _tabulate_calibration(
    name: str, task: _NetworkTask, n_members: int, calibration_data: Mapping[RowKind, CalibrationData]
) -> list[dict[str, Any]]:
    """Tabulate how well the disagreement of a committee predicts its errors on the test set, a row per kind of label.

    Each half of the test set calibrates the intervals of the other half.
    """
    rows = []
    for kind, test_data in calibration_data.items():
        factor, unit = potentials.DISPLAY_UNITS[kind]
        spread, error = _average_by_configuration(test_data)
        coverage, half_width = _cross_validate_intervals(test_data, n_members)
        has_variation = len(spread) > 2 and np.ptp(spread) > 0 and np.ptp(error) > 0
        rows.append(
            {
                "model": name,
                "level": task.level,
                "n_train": len(task.subset),
                "members": n_members,
                "quantity": f"{kind.name.lower()} ({unit})",
                "rmse": factor * float(np.sqrt(np.mean(test_data.residual**2))),
                "spread": factor * float(np.sqrt(np.mean(test_data.spread**2))),
                "rank_correlation": float(spearmanr(spread, error).statistic) if has_variation else np.nan,
                "inside": coverage,
                "half_width": factor * half_width,
            }
        )
    return rows


def _average_by_configuration(test_data: CalibrationData) -> tuple[Array, Array]:
    """Compute the root mean square disagreement and error of each configuration, ``(n_configurations,)`` each."""
    _, indices, counts = np.unique(test_data.configuration, return_inverse=True, return_counts=True)
    spread = np.sqrt(np.bincount(indices, test_data.spread**2) / counts)
    error = np.sqrt(np.bincount(indices, test_data.residual**2) / counts)
    return spread, error


def _cross_validate_intervals(test_data: CalibrationData, n_members: int) -> tuple[float, float]:
    """Calibrate conformal intervals on each random half of the groups, and evaluate them on the other half.

    Return the fraction of the labels in their intervals, and the median half width; NaN with too few groups.
    """
    groups = np.unique(test_data.group)
    first_groups = np.random.default_rng(0).permutation(groups)[: len(groups) // 2]
    is_first = np.isin(test_data.group, first_groups)
    if min(len(first_groups), len(groups) - len(first_groups)) < get_min_calibration_size(COVERAGE):
        return float("nan"), float("nan")
    is_inside, half_widths = [], []
    for mask in (is_first, ~is_first):
        interval = calibrate_conformal(
            test_data.spread[mask], test_data.residual[mask], COVERAGE, test_data.group[mask], n_members
        )
        half_width = interval.compute_half_width(test_data.spread[~mask])
        is_inside.append(np.abs(test_data.residual[~mask]) <= half_width)
        half_widths.append(half_width)
    return float(np.mean(np.concatenate(is_inside))), float(np.median(np.concatenate(half_widths)))
