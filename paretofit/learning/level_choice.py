"""Choice of the convergence level of new labels: cheap levels early, better ones when errors come down.

A model of n labels has the error ε(n) of a learning curve, and m labels of a level whose own error is δ give
ε² = ε(n + m)² + (m / (n + m)) δ². Of the levels whose error is below the model's, in energies and in forces, choose the
one with the largest predicted error reduction per second of label cost; the larger of the two relative errors counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from paretofit.core import Array, InputError
from paretofit.dataset import Dataset

DEFAULT_EXPONENT = 0.5  # of errors, ε(n) ∝ n^(-1/2), until two sizes of the training set are known
EXPONENT_BOUNDS = 0.1, 0.5  # fitted exponents are clipped to this range
EXPONENT_ITERATIONS = 3  # the exponent is fitted to this many last iterations
TABLE_COLUMNS = ("level", "seconds", "own_energy", "own_force", "foretold", "gain_per_hour")
MIN_COMMON_LABELS = 3  # configurations with labels at two levels, for the difference of the levels


@dataclass(frozen=True)
class LevelChoice:
    """Level of the next labels, and the reasons.

    Attributes
    ----------
    name : str
    table : list of dict
        By level: ``level, seconds, own_energy, own_force`` (the level's own errors), ``foretold`` (predicted error
        relative to the present one), ``gain_per_hour``.
    description : str
    """

    name: str
    table: list[dict[str, Any]]
    description: str


def _find_common_labels(dataset: Dataset, level: str, best_level: str) -> Array:
    """Return indices of the configurations that have complete labels at two levels."""
    return np.flatnonzero(dataset.labels(level).complete & dataset.labels(best_level).complete)


def measure_level_noise(dataset: Dataset, levels: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Measure the errors of each level's labels against those of the best (last) level.

    Levels that share fewer than three labelled configurations with the best one are left out.

    Returns
    -------
    dict of str to (float, float)
        Standard deviation of the energy difference (eV/atom) and root mean square of the force difference (eV/Å).
    """
    if not levels or levels[-1] not in dataset.levels:
        return {}
    best, noise = dataset.labels(levels[-1]), {}
    for name in (name for name in levels[:-1] if name in dataset.levels):
        common = _find_common_labels(dataset, name, levels[-1])
        if len(common) < MIN_COMMON_LABELS:
            continue
        labels = dataset.labels(name)
        energy = (labels.energy - best.energy)[common] / dataset.n_atoms[common]
        atoms = np.concatenate([np.arange(best.offsets[k], best.offsets[k + 1]) for k in common])
        forces = labels.forces[atoms] - best.forces[atoms]
        noise[name] = float(np.std(energy)), float(np.sqrt(np.mean(forces**2)))
    return noise


def fit_level_offsets(
    dataset: Dataset, levels: Sequence[str], used_levels: Sequence[str], elements: Sequence[str]
) -> dict[tuple[str, str], float]:
    """Fit the energy offset per atom (eV) of each used level and element relative to the best (last) level.

    The fit is a least-squares fit of energies per atom over the configurations that have labels at both levels.

    Raises
    ------
    InputError
        If there are no such configurations.
    """
    best_level = levels[-1]
    offsets: dict[tuple[str, str], float] = {}
    for name in (name for name in used_levels if name != best_level):
        common = _find_common_labels(dataset, name, best_level)
        if not len(common):
            raise InputError(
                f"labels of level '{name}' cannot be put on the energy scale of level '{best_level}': no configuration "
                "has both; label some at both"
            )
        symbols = [atoms.get_chemical_symbols() for atoms in dataset.select(common)]
        fractions = np.array([[row.count(element) / len(row) for element in elements] for row in symbols])
        difference = dataset.labels(name).energy - dataset.labels(best_level).energy
        fitted = np.linalg.lstsq(fractions, difference[common] / dataset.n_atoms[common], rcond=None)[0]
        offsets |= {(name, element): float(value) for element, value in zip(elements, fitted, strict=True)}
    return offsets


def compute_label_seconds(dataset: Dataset, levels: Sequence[str]) -> dict[str, float]:
    """Compute the mean seconds of a label by level, where recorded.

    The means are over the configurations that are labelled at all of these levels, if there are any.
    """
    recorded = {name: dataset.labels(name).seconds for name in levels if name in dataset.levels}
    recorded = {name: seconds for name, seconds in recorded.items() if np.isfinite(seconds).any()}
    if not recorded:
        return {}
    common = np.logical_and.reduce([np.isfinite(seconds) for seconds in recorded.values()])
    used = common if common.any() else slice(None)
    return {name: float(np.nanmean(seconds[used])) for name, seconds in recorded.items()}


def fit_learning_exponent(history: Sequence[tuple[int, float]]) -> float:
    """Fit α of ε ∝ n^(-α) to training-set sizes and errors of the last iterations."""
    recent = history[-EXPONENT_ITERATIONS:]
    if len({n for n, _ in recent}) < 2:
        return DEFAULT_EXPONENT
    n, error = np.log(np.array(recent)).T
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

    It is the best level if nothing is known of the others, or if no labels would reduce the error.

    Parameters
    ----------
    levels : sequence of str
        In order, the best last.
    noise, seconds : mapping
        From `measure_level_noise` and `compute_label_seconds`; levels that lack one are not considered.
    model_error : (float, float)
        Errors of the present model: energy (eV/atom) and forces (eV/Å).
    n_train : int
        Size of the present training set.
    n_new : int
        Number of structures to label.
    exponent : float
        α of the learning curve.
    """
    best = levels[-1]
    noise = {**noise, best: (0.0, 0.0)}
    table: list[dict[str, Any]] = []
    for name in levels:
        if name not in noise or name not in seconds or best not in seconds:
            continue
        if any(d > e for d, e in zip(noise[name], model_error, strict=True)):
            continue  # the model would learn the level's own error
        error_ratio = _predict_error_ratio(noise[name], model_error, n_train, n_new, exponent)
        gain_per_hour = 3600 * (1 - error_ratio) / (n_new * seconds[name])
        values = (name, seconds[name], *noise[name], error_ratio, gain_per_hour)
        table.append(dict(zip(TABLE_COLUMNS, values, strict=True)))
    if not table:
        return LevelChoice(best, [], f"level {best}: nothing is known of others")
    row = max(table, key=itemgetter("gain_per_hour"))
    if row["gain_per_hour"] <= 0:
        row = next(row for row in table if row["level"] == best)
    description = (
        f"level {row['level']}: {n_new} labels of {row['seconds']:.3g} s are predicted to reduce the error to "
        f"{row['foretold']:.2f} of its present value"
    )
    return LevelChoice(row["level"], table, description)


def _predict_error_ratio(
    noise: tuple[float, float], model_error: tuple[float, float], n_train: int, n_new: int, exponent: float
) -> float:
    """Predict the larger of the relative energy and force errors after `n_new` labels of a level."""
    share = n_new / (n_train + n_new)
    reduction = (n_train / (n_train + n_new)) ** (2 * exponent)
    return max(float(np.sqrt(reduction + share * (d / e) ** 2)) for d, e in zip(noise, model_error, strict=True))
