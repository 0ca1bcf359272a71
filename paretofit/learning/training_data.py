"""Labelled configurations of a loop and their sets, from which its models are trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.core import InputError, write_json_with_digest
from paretofit.dataset import Dataset
from paretofit.learning.learn_settings import SetShareSettings
from paretofit.learning.level_choice import fit_learning_exponent, measure_level_noise
from paretofit.learning.loop_folder import LearnFolder
from paretofit.learning.selection import MIN_CALIBRATION_POINTS
from paretofit.learning.set_balance import TEST, TRAIN, VALIDATE
from paretofit.learning.sets import assign_group_numbers, assign_sets, describe_missing_categories
from paretofit.learning.training_set import TrainingData

HELD_OUT_NOTE = (
    "the training set does not grow, because the trajectories of all chosen frames started from structures of the "
    "validation and test sets; raise 'learning.explore.trajectories'"
)


def assign_new_sets(
    folder: LearnFolder, settings: SetShareSettings, new_structures: Sequence[Atoms], rng: np.random.Generator
) -> tuple[dict[int, str], str]:
    """Assign sets to new configurations before they are labelled, and write ``sets.json``.

    Parameters
    ----------
    folder : LearnFolder
        Run folder with the known sets and the dataset of labelled configurations, if there are any.
    settings : SetShareSettings
        Shares of the sets; ``group_by`` applies only until the first sets are written.
    new_structures : sequence of ase.Atoms
        Structures to label in this iteration.
    rng : numpy.random.Generator
        Generator that draws the order of the groups.

    Returns
    -------
    sets : dict of int to str
        Set of every configuration by ``config_id``.
    note : str
        Message about the first sets, if a set lacks kinds, periodicities or inputs, or about later ones, if the
        training set does not grow; otherwise empty.

    Raises
    ------
    InputError
        If the training or the validation set is too small, or ``sets.json`` is corrupt.
    """
    assignment = folder.read_set_assignment()
    structures = list(new_structures)
    if folder.dataset_path.exists():
        new_ids = {int(atoms.info["config_id"]) for atoms in new_structures}
        with Dataset(folder.dataset_path) as dataset:
            structures = [atoms for atoms in dataset if int(atoms.info["config_id"]) not in new_ids] + structures
    keys = assignment.get("group_by") or settings.group_by
    known_sets = {int(k): str(name) for k, name in assignment.get("sets", {}).items()}
    shares = {TRAIN: settings.train, VALIDATE: settings.validation, TEST: settings.test}
    sets = assign_sets(structures, known_sets, shares, keys, rng)
    counts = Counter(sets.values())
    if counts[VALIDATE] < MIN_CALIBRATION_POINTS or counts[TRAIN] < 2:
        raise InputError(
            f"of {len(sets)} configurations, the training set has {counts[TRAIN]} and the validation set has "
            f"{counts[VALIDATE]}; a training requires at least 2 and a calibration at least {MIN_CALIBRATION_POINTS}, "
            "so start with more candidates, or increase 'learning.sets.validation'"
        )
    write_json_with_digest(folder.sets_path, {"group_by": keys, "sets": sets})
    if not known_sets:
        return sets, describe_missing_categories(structures, sets, keys)
    new_sets = {sets[int(atoms.info["config_id"])] for atoms in new_structures}
    return sets, HELD_OUT_NOTE if new_sets and TRAIN not in new_sets else ""


def load_training_data(folder: LearnFolder, iteration_number: int, level_names: Sequence[str]) -> TrainingData:
    """Load the labelled configurations up to an iteration, each with its best label.

    Parameters
    ----------
    folder : LearnFolder
    iteration_number : int
        Iteration whose model will be trained.
    level_names : sequence of str
        Levels of the study, with the best level last; other levels of the dataset are assumed to be worse.

    Raises
    ------
    InputError
        If no configuration has a label, or the dataset, ``sets.json`` or the previous record is corrupt.
    """
    dataset = Dataset(folder.dataset_path)
    assignment = folder.read_set_assignment()
    levels = [name for name in dataset.levels if name not in level_names]
    levels += [name for name in level_names if name in dataset.levels]
    best_level = np.full(len(dataset), "", dtype=object)
    for name in levels:  # better levels, which are later, replace worse ones
        best_level[dataset.labels(name).is_complete] = name
    iteration = np.array([int(info.get("iteration", 1)) for info in dataset.info_records])
    indices = np.flatnonzero((best_level != "") & (iteration <= iteration_number))
    if not len(indices):
        raise InputError("no configuration has a label; see iterations/01/label.json for the labels that failed")
    subset = dataset.select(indices)
    used_levels = [name for name in levels if (best_level[indices] == name).any() or name == levels[-1]]
    previous_iteration = folder.get_iteration(iteration_number - 1)
    previous_record = previous_iteration.read_record("train") if iteration_number > 1 else None
    return TrainingData(
        dataset=subset,
        sets=np.array([assignment["sets"][str(config_id)] for config_id in subset.ids]),
        level=best_level[indices],
        groups=assign_group_numbers(list(subset), assignment["group_by"]),
        iteration=iteration[indices],
        levels=used_levels,
        level_noise=measure_level_noise(dataset, used_levels),
        previous_error=None if previous_record is None else get_validation_error(previous_record),
        previous_model=None if previous_record is None else previous_iteration.model_folder,
    )


def get_validation_error(record: dict[str, Any]) -> tuple[float, float] | None:
    """Return the validation errors (eV/atom, eV/Å) from the record of a training.

    The result is None if one of the errors is unknown or zero.
    """
    rmse = record["rmse"][VALIDATE]
    errors = rmse["energy"]["value"] / 1000, rmse["forces"]["value"] / 1000
    return errors if np.isfinite(errors).all() and min(errors) > 0 else None


def fit_loop_exponent(folder: LearnFolder, iteration_number: int) -> float:
    """Fit the exponent of the learning curve to the validation force errors of the iterations before this one.

    Only iterations with a model of the same size as the last one are used.
    """
    records = [record for number, record in folder.read_records("train") if number < iteration_number]
    history = [  # sizes of the training set, and force errors
        (int(record["counts"][TRAIN]), record["rmse"][VALIDATE]["forces"]["value"])
        for record in records
        if record["model"] == records[-1]["model"]
    ]
    return fit_learning_exponent([(n, error) for n, error in history if np.isfinite(error) and error > 0])
