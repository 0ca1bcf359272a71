"""Choice of the convergence level of new labels: cheap levels at first, better levels when the errors are lower.

The error of a model trained on n labels follows a learning curve, ε(n) ∝ n^(-α). After m further labels of a level
whose labels have the error δ, the squared error of the model is predicted as ε(n + m)² + (m / (n + m)) δ². Among the
levels whose label errors do not exceed the errors of the model, the level with the largest predicted error reduction
per second of label cost is chosen. The error reduction is that of the energies or of the forces, whichever is smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from paretofit.core import Array, InputError
from paretofit.dataset import Dataset

DEFAULT_EXPONENT = 0.5  # exponent of the learning curve until errors at two sizes of the training set are known
EXPONENT_BOUNDS = 0.1, 0.5  # fitted exponents are clipped to this range
EXPONENT_ITERATIONS = 3  # number of last iterations to which the exponent is fitted
TABLE_COLUMNS = (
    "level", "seconds", "label_energy_error", "label_force_error", "error_ratio", "gain_per_hour"
)  # fmt: skip
MIN_COMMON_LABELS = 3  # number of configurations with labels at both levels that a comparison of two levels requires


@dataclass(frozen=True)
class LevelChoice:
    """Level of the next labels, and the reason for it.

    Attributes
    ----------
    name : str
        Name of the level.
    table : list of dict
        A row per level that could be chosen: ``level``, ``seconds`` (per label), ``label_energy_error`` and
        ``label_force_error`` (eV/atom, eV/Å), ``error_ratio`` (predicted error divided by the current error) and
        ``gain_per_hour`` (relative error reduction per hour of label cost).
    description : str
        Level and reason, as a phrase for messages.
    """

    name: str
    table: list[dict[str, Any]]
    description: str


def _find_common_configurations(dataset: Dataset, level: str, best_level: str) -> Array:
    """Return the indices of the configurations that have complete labels at both levels."""
    return np.flatnonzero(dataset.labels(level).is_complete & dataset.labels(best_level).is_complete)


def measure_level_noise(dataset: Dataset, levels: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Measure the errors of each level's labels against the labels of the best (last) level.

    Levels that share fewer than `MIN_COMMON_LABELS` labelled configurations with the best level are omitted.

    Returns
    -------
    dict of str to (float, float)
        By level: standard deviation of the energy difference (eV/atom) and root mean square of the force difference
        (eV/Å). The standard deviation ignores a constant offset, because offsets are fitted with the model.
    """
    if not levels or levels[-1] not in dataset.levels:
        return {}
    best_labels, noise = dataset.labels(levels[-1]), {}
    for name in levels[:-1]:
        if name not in dataset.levels:
            continue
        common_indices = _find_common_configurations(dataset, name, levels[-1])
        if len(common_indices) < MIN_COMMON_LABELS:
            continue
        labels, offsets = dataset.labels(name), best_labels.offsets
        energy_errors = (labels.energy - best_labels.energy)[common_indices] / dataset.n_atoms[common_indices]
        atom_indices = np.concatenate([np.arange(offsets[index], offsets[index + 1]) for index in common_indices])
        force_errors = labels.forces[atom_indices] - best_labels.forces[atom_indices]
        noise[name] = float(np.std(energy_errors)), float(np.sqrt(np.mean(force_errors**2)))
    return noise


def fit_level_offsets(
    dataset: Dataset, levels: Sequence[str], used_levels: Sequence[str], elements: Sequence[str]
) -> dict[tuple[str, str], float]:
    """Fit the energy offset per atom of each level and element, relative to the best (last) level.

    The differences of the energies per atom between a level and the best level are fitted to the compositions, by least
    squares, over the configurations that have labels at both levels.

    Parameters
    ----------
    dataset : Dataset
    levels : sequence of str
        Names in order, with the best level last.
    used_levels : sequence of str
        Levels of the labels to be shifted; the best level has no offset.
    elements : sequence of str
        All elements of the structures.

    Returns
    -------
    dict of (str, str) to float
        Offsets in eV by level and element.

    Raises
    ------
    InputError
        If one of `used_levels` shares no labelled configuration with the best level.
    """
    best_level = levels[-1]
    offsets: dict[tuple[str, str], float] = {}
    for name in used_levels:
        if name == best_level:
            continue
        common_indices = _find_common_configurations(dataset, name, best_level)
        if not len(common_indices):
            raise InputError(
                f"labels of level '{name}' cannot be shifted to the energy scale of level '{best_level}', because no "
                "configuration has labels at both levels; label some configurations at both"
            )
        symbol_lists = [atoms.get_chemical_symbols() for atoms in dataset.select(common_indices)]
        fractions = np.array(
            [[symbols.count(element) / len(symbols) for element in elements] for symbols in symbol_lists]
        )
        energy_differences = dataset.labels(name).energy - dataset.labels(best_level).energy
        differences_per_atom = energy_differences[common_indices] / dataset.n_atoms[common_indices]
        level_offsets = np.linalg.lstsq(fractions, differences_per_atom, rcond=None)[0]
        offsets |= {(name, element): float(offset) for element, offset in zip(elements, level_offsets, strict=True)}
    return offsets


def compute_label_seconds(dataset: Dataset, levels: Sequence[str]) -> dict[str, float]:
    """Compute the mean seconds per label of each level, by level; levels without recorded times are omitted.

    If some configurations have recorded times at all of these levels, only these configurations are averaged, so that
    the levels are compared for the same structures.
    """
    seconds_by_level = {name: dataset.labels(name).seconds for name in levels if name in dataset.levels}
    seconds_by_level = {name: seconds for name, seconds in seconds_by_level.items() if np.isfinite(seconds).any()}
    if not seconds_by_level:
        return {}
    is_common = np.logical_and.reduce([np.isfinite(seconds) for seconds in seconds_by_level.values()])
    selection = is_common if is_common.any() else slice(None)
    return {name: float(np.nanmean(seconds[selection])) for name, seconds in seconds_by_level.items()}


def fit_learning_exponent(history: Sequence[tuple[int, float]]) -> float:
    """Fit the exponent α of the learning curve ε ∝ n^(-α) to the last `EXPONENT_ITERATIONS` iterations.

    `history` contains the size n of the training set and the error ε > 0 of each iteration. The exponent is clipped to
    `EXPONENT_BOUNDS`; it is `DEFAULT_EXPONENT` if there are fewer than two sizes.
    """
    last_points = history[-EXPONENT_ITERATIONS:]
    if len({size for size, _ in last_points}) < 2:
        return DEFAULT_EXPONENT
    log_sizes, log_errors = np.log(np.array(last_points)).T
    slope = np.polyfit(log_sizes, log_errors, 1)[0]
    return float(np.clip(-slope, *EXPONENT_BOUNDS))


def choose_level(
    levels: Sequence[str],
    noise: Mapping[str, tuple[float, float]],
    seconds: Mapping[str, float],
    model_error: tuple[float, float],
    n_train: int,
    n_new: int,
    exponent: float = DEFAULT_EXPONENT,
) -> LevelChoice:
    """Choose the level at which `n_new` labels reduce the error most per second of label cost.

    The best level is chosen if no level can be evaluated, or if labels of no level would reduce the error.

    Parameters
    ----------
    levels : sequence of str
        Names in order, with the best level last.
    noise, seconds : mapping
        Results of `measure_level_noise` (eV/atom, eV/Å) and `compute_label_seconds`. A level that is missing in one of
        them cannot be evaluated; no level can be evaluated if the seconds of the best level are missing.
    model_error : (float, float)
        Errors of the current model: energy (eV/atom) and forces (eV/Å), above zero.
    n_train : int
        Size of the current training set.
    n_new : int
        Number of structures to label.
    exponent : float
        α of the learning curve.
    """
    best_level = levels[-1]
    noise = {**noise, best_level: (0.0, 0.0)}  # errors are measured against the best level
    table: list[dict[str, Any]] = []
    for name in levels:
        if name not in noise or name not in seconds or best_level not in seconds:
            continue
        if any(label_error > error for label_error, error in zip(noise[name], model_error, strict=True)):
            continue  # the model would learn the errors of the labels
        error_ratio = _predict_error_ratio(noise[name], model_error, n_train, n_new, exponent)
        gain_per_hour = 3600 * (1 - error_ratio) / (n_new * seconds[name])
        row_values = (name, seconds[name], *noise[name], error_ratio, gain_per_hour)
        table.append(dict(zip(TABLE_COLUMNS, row_values, strict=True)))
    if not table:
        return LevelChoice(best_level, [], f"level {best_level}, because other levels cannot be evaluated")
    row = max(table, key=itemgetter("gain_per_hour"))
    # a table that is not empty contains the best level, whose label errors are zero
    if row["gain_per_hour"] <= 0:
        row = next(row for row in table if row["level"] == best_level)
    description = (
        f"level {row['level']}: {n_new} labels of {row['seconds']:.3g} s are predicted to reduce the error to "
        f"{row['error_ratio']:.2f} of its current value"
    )
    return LevelChoice(row["level"], table, description)


def _predict_error_ratio(
    noise: tuple[float, float], model_error: tuple[float, float], n_train: int, n_new: int, exponent: float
) -> float:
    """Predict the larger of the energy and force errors after `n_new` labels, relative to the current errors.

    The ratio is the square root of the equation of the module, divided by ε(n)².
    """
    new_share = n_new / (n_train + n_new)
    curve_ratio = (n_train / (n_train + n_new)) ** (2 * exponent)
    return max(
        float(np.sqrt(curve_ratio + new_share * (label_error / error) ** 2))
        for label_error, error in zip(noise, model_error, strict=True)
    )
