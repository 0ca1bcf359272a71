"""Choice of the convergence level of new labels: cheap levels at first, better levels when the errors are lower.

The error ε(n) of a model of n labels follows a learning curve. After m further labels of a level whose labels have the
error δ, it is predicted as ε² = ε(n + m)² + (m / (n + m)) δ². Among the levels with label errors below the errors of
the model, the level with the largest predicted error reduction per second of label cost is chosen. The larger of the
relative energy and force errors counts.
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
EXPONENT_ITERATIONS = 3  # number of iterations to which the exponent is fitted, counted from the last
TABLE_COLUMNS = (
    "level", "seconds", "label_energy_error", "label_force_error", "error_ratio", "gain_per_hour"
)  # fmt: skip
MIN_COMMON_LABELS = 3  # number of configurations with labels at two levels that a comparison of the levels requires


@dataclass(frozen=True)
class LevelChoice:
    """Level of the next labels, and the reason for it.

    Attributes
    ----------
    name : str
    table : list of dict
        By level: ``level, seconds``, ``label_energy_error, label_force_error`` (errors of the level's labels),
        ``error_ratio`` (predicted error divided by the current error), ``gain_per_hour``.
    description : str
        Level and reason, as a phrase for messages.
    """

    name: str
    table: list[dict[str, Any]]
    description: str


def _find_common_configurations(dataset: Dataset, level: str, best_level: str) -> Array:
    """Return indices of the configurations that have complete labels at both levels."""
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
    for name in (name for name in levels[:-1] if name in dataset.levels):
        common_indices = _find_common_configurations(dataset, name, levels[-1])
        if len(common_indices) < MIN_COMMON_LABELS:
            continue
        labels, offsets = dataset.labels(name), best_labels.offsets
        energy_errors = (labels.energy - best_labels.energy)[common_indices] / dataset.n_atoms[common_indices]
        atom_indices = np.concatenate([np.arange(offsets[k], offsets[k + 1]) for k in common_indices])
        force_errors = labels.forces[atom_indices] - best_labels.forces[atom_indices]
        noise[name] = float(np.std(energy_errors)), float(np.sqrt(np.mean(force_errors**2)))
    return noise


def fit_level_offsets(
    dataset: Dataset, levels: Sequence[str], used_levels: Sequence[str], elements: Sequence[str]
) -> dict[tuple[str, str], float]:
    """Fit the energy offset per atom (eV) of some levels for each element, relative to the best (last) level.

    The differences of the energies per atom between a level and the best one are fitted to the compositions, by least
    squares, over the configurations that have labels at both. `used_levels` are the levels of the labels to be shifted.

    Raises
    ------
    InputError
        If one of `used_levels` shares no labelled configuration with the best level.
    """
    best_level = levels[-1]
    offsets: dict[tuple[str, str], float] = {}
    for name in (name for name in used_levels if name != best_level):
        common_indices = _find_common_configurations(dataset, name, best_level)
        if not len(common_indices):
            raise InputError(
                f"labels of level '{name}' cannot be shifted to the energy scale of level '{best_level}', because no "
                "configuration has labels at both levels; label some configurations at both"
            )
        formulas = [atoms.get_chemical_symbols() for atoms in dataset.select(common_indices)]
        fractions = np.array([[symbols.count(element) / len(symbols) for element in elements] for symbols in formulas])
        difference = dataset.labels(name).energy - dataset.labels(best_level).energy
        targets = difference[common_indices] / dataset.n_atoms[common_indices]
        level_offsets = np.linalg.lstsq(fractions, targets, rcond=None)[0]
        offsets |= {(name, element): float(value) for element, value in zip(elements, level_offsets, strict=True)}
    return offsets


def compute_label_seconds(dataset: Dataset, levels: Sequence[str]) -> dict[str, float]:
    """Compute the mean seconds per label of each level that has recorded times.

    If some configurations have recorded times at all of these levels, the means are over these configurations only.
    """
    seconds_by_level = {name: dataset.labels(name).seconds for name in levels if name in dataset.levels}
    seconds_by_level = {name: seconds for name, seconds in seconds_by_level.items() if np.isfinite(seconds).any()}
    if not seconds_by_level:
        return {}
    is_common = np.logical_and.reduce([np.isfinite(seconds) for seconds in seconds_by_level.values()])
    selection = is_common if is_common.any() else slice(None)
    return {name: float(np.nanmean(seconds[selection])) for name, seconds in seconds_by_level.items()}


def fit_learning_exponent(history: Sequence[tuple[int, float]]) -> float:
    """Fit the exponent α of ε ∝ n^(-α) to training-set sizes and errors of the last iterations."""
    points = history[-EXPONENT_ITERATIONS:]
    if len({n for n, _ in points}) < 2:
        return DEFAULT_EXPONENT
    n, error = np.log(np.array(points)).T
    return float(np.clip(-np.polyfit(n, error, 1)[0], *EXPONENT_BOUNDS))


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

    The best level is chosen if nothing is known about other levels, or if labels of no level would reduce the error.

    Parameters
    ----------
    levels : sequence of str
        Names in order, with the best level last.
    noise, seconds : mapping
        Results of `measure_level_noise` (eV/atom, eV/Å) and `compute_label_seconds`; levels that are missing in either
        are not considered.
    model_error : (float, float)
        Errors of the current model: energy (eV/atom) and forces (eV/Å).
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
        if any(d > e for d, e in zip(noise[name], model_error, strict=True)):
            continue  # the model would learn the errors of the labels
        error_ratio = _predict_error_ratio(noise[name], model_error, n_train, n_new, exponent)
        gain_per_hour = 3600 * (1 - error_ratio) / (n_new * seconds[name])
        values = (name, seconds[name], *noise[name], error_ratio, gain_per_hour)
        table.append(dict(zip(TABLE_COLUMNS, values, strict=True)))
    if not table:
        return LevelChoice(best_level, [], f"level {best_level}, because other levels cannot be evaluated")
    row = max(table, key=itemgetter("gain_per_hour"))
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
    """Predict the energy and force errors after `n_new` labels, relative to the current ones; return the larger."""
    share = n_new / (n_train + n_new)
    reduction = (n_train / (n_train + n_new)) ** (2 * exponent)
    return max(float(np.sqrt(reduction + share * (d / e) ** 2)) for d, e in zip(noise, model_error, strict=True))
