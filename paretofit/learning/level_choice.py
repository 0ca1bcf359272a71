"""At which convergence level new labels are worth computing: cheap ones early, better ones when errors come down.

A model of n labels has the error ε(n) of a learning curve, and m labels of a level that is off by δ add that to what
they teach: ε² = ε(n + m)² + (m / (n + m)) δ². Of the levels that are less off than the model, in energies and in
forces, that one is taken which brings the worse of the two errors down most for each second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from paretofit.core import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from paretofit.dataset import Dataset

EXPONENT = 0.5  # of errors, ε(n) ∝ n^(-1/2), until two sizes of training set have been seen
RANGE = 0.1, 0.5  # of the exponent that is believed
RECENT = 3  # iterations that the exponent is of


@dataclass(frozen=True)
class LevelChoice:
    """The level of the next labels, and why.

    Attributes
    ----------
    name : str
    table : list of dict
        By level: ``level, seconds, own_energy, own_force, foretold`` (error relative to the present one),
        ``gain_per_hour``.
    description : str
    """

    name: str
    table: list[dict[str, float | str]]
    description: str


def measure_level_noise(dataset: Dataset, levels: Sequence[str]) -> dict[str, tuple[float, float]]:
    """What each level's labels are off from the best one's: energies (eV/atom, shifted by their mean) and forces.

    From configurations that have labels at both; levels without three such are left out.
    """
    if not levels or levels[-1] not in dataset.levels:
        return {}
    best, found = dataset.labels(levels[-1]), {}
    for name in levels[:-1]:
        if name not in dataset.levels:
            continue
        own = dataset.labels(name)
        both = np.flatnonzero(own.complete & best.complete)
        if len(both) < 3:
            continue
        energy = (own.energy - best.energy)[both] / dataset.n_atoms[both]
        atoms = np.concatenate([np.arange(best.offsets[k], best.offsets[k + 1]) for k in both])
        forces = own.forces[atoms] - best.forces[atoms]
        found[name] = float(np.std(energy)), float(np.sqrt(np.mean(forces**2)))
    return found


def fit_level_offsets(
    dataset: Dataset, levels: Sequence[str], used_levels: Sequence[str], elements: Sequence[str]
) -> dict[tuple[str, str], float]:
    """What an atom of each element adds to the energy of each used level beyond that of the best one, eV.

    By least squares over the configurations that have labels at both, energies per atom.

    Raises
    ------
    InputError
        If there are none.
    """
    best = dataset.labels(levels[-1])
    found: dict[tuple[str, str], float] = {}
    for name in used_levels:
        if name == levels[-1]:
            continue
        own = dataset.labels(name)
        both = np.flatnonzero(own.complete & best.complete)
        if not len(both):
            raise InputError(
                f"labels of level '{name}' cannot be put on the energy scale of level '{levels[-1]}': no configuration "
                "has both; label some at both"
            )
        symbols = [atoms.get_chemical_symbols() for atoms in dataset.select(both)]
        counts = np.array([[one.count(element) / len(one) for element in elements] for one in symbols])
        excess = (own.energy - best.energy)[both] / dataset.n_atoms[both]
        fitted = np.linalg.lstsq(counts, excess, rcond=None)[0]
        found |= {(name, element): float(value) for element, value in zip(elements, fitted, strict=True)}
    return found


def compute_label_seconds(dataset: Dataset, levels: Sequence[str]) -> dict[str, float]:
    """Mean seconds of a label by level, where recorded; of configurations that all such levels have, if there are."""
    recorded = {name: dataset.labels(name).seconds for name in levels if name in dataset.levels}
    known = {name: one for name, one in recorded.items() if np.isfinite(one).any()}
    if not known:
        return {}
    common = np.logical_and.reduce([np.isfinite(one) for one in known.values()])
    return {name: float(np.nanmean(one[common] if common.any() else one)) for name, one in known.items()}


def fit_learning_exponent(history: Sequence[tuple[int, float]]) -> float:
    """α of ε ∝ n^(-α) from training set sizes and errors of the last iterations (`RECENT`)."""
    recent = history[-RECENT:]
    if len({n for n, _ in recent}) < 2:
        return EXPONENT
    n, error = np.log(np.array(recent)).T
    return float(np.clip(-np.polyfit(n, error, 1)[0], *RANGE))


def choose_level(
    levels: Sequence[str],
    noise: Mapping[str, tuple[float, float]],
    seconds: Mapping[str, float],
    model_error: tuple[float, float],
    n_train: int,
    n_new: int,
    exponent: float = EXPONENT,
) -> LevelChoice:
    """The level at which `n_new` labels bring the error down most for each second that they cost.

    Parameters
    ----------
    levels : sequence of str
        In order, the best last.
    noise, seconds : mapping
        From `measure_level_noise` and `compute_label_seconds`; levels that lack one are not considered.
    model_error : (float, float)
        Of the model now: energy (eV/atom) and forces (eV/Å).
    n_train : int
        Labels that train now.
    n_new : int
        Structures that wait for a label.
    exponent : float

    Returns
    -------
    LevelChoice
        Also the best level, if nothing else is known.
    """
    best = levels[-1]
    table: list[dict[str, float | str]] = []
    for name in levels:
        own = (0.0, 0.0) if name == best else noise.get(name)
        if own is None or name not in seconds or best not in seconds:
            continue
        if any(d > e for d, e in zip(own, model_error, strict=True)):
            continue  # it would teach its own error
        share = n_new / (n_train + n_new)
        falls = (n_train / (n_train + n_new)) ** (2 * exponent)
        foretold = max(float(np.sqrt(falls + share * (d / e) ** 2)) for d, e in zip(own, model_error, strict=True))
        gain = 3600 * (1 - foretold) / (n_new * seconds[name])
        table.append(
            {
                "level": name,
                "seconds": seconds[name],
                "own_energy": own[0],
                "own_force": own[1],
                "foretold": foretold,
                "gain_per_hour": gain,
            }
        )
    if not table:
        return LevelChoice(best, [], f"level {best}: nothing is known of others")
    chosen = max(table, key=lambda row: float(row["gain_per_hour"]))
    name = best if float(chosen["gain_per_hour"]) <= 0 else str(chosen["level"])
    row = next(row for row in table if row["level"] == name)
    words = (
        f"level {name}: {n_new} labels of {float(row['seconds']):.3g} s are foretold to bring the error to "
        f"{float(row['foretold']):.2f} of what it is"
    )
    return LevelChoice(name, table, words)
