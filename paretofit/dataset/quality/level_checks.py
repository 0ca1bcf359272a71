"""Comparison of the labels of neighbouring convergence levels to detect wrong labels.

A low level has errors by design, and errors of a k-point mesh can have any sign. Two checks are still possible: with
the same mesh, a higher cutoff never raises the energy (the plane waves of the lower cutoff are a subset, and the energy
is variational); and a configuration whose error is many times larger than the other errors is an outlier.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from paretofit.core import Array, list_first
from paretofit.dataset.labelled import Labels
from paretofit.dataset.stored_dataset import StoredDataset

MAX_ENERGY_RISE = 1e-3  # eV/atom; grids and incomplete self-consistency cause errors of a few tenths of a meV
MAX_ENERGY_DEVIATION = (
    10.0  # robust standard deviations; the largest of 1,048 differences in the beryllium data was 5.5
)
MAX_FORCE_RATIO = 15.0  # relative to the median force difference; the largest in the same data was 7
MIN_DIFFERENCE = 1e-3  # eV/atom and eV/Å; lower limit of the scales by which differences are divided
MIN_LABELS = 8  # for the search for outliers
MAX_LISTED_ITEMS = 5


def find_level_warnings(dataset: StoredDataset) -> list[str]:
    """Return a warning for each suspicious difference between neighbouring levels."""
    warnings: list[str] = []
    for lower, upper in pairwise(dataset.levels):
        first, second = dataset.labels(lower), dataset.labels(upper)
        is_shared = np.asarray(first.complete & second.complete)
        energy_rise = (second.energy - first.energy) / dataset.n_atoms
        warnings += _find_risen_energies(dataset, lower, upper, np.where(is_shared, energy_rise, 0.0))
        if is_shared.sum() >= MIN_LABELS:
            warnings += _find_outliers(dataset.ids, first, second, is_shared, f"levels {lower} and {upper}")
    return warnings


def _find_risen_energies(dataset: StoredDataset, lower: str, upper: str, energy_rise: Array) -> list[str]:
    """Return a warning if energies rise (eV/atom) with the cutoff although no other setting changes."""
    settings = [dict(dataset.settings(level)) for level in (lower, upper)]
    cutoffs = [level_settings.pop("cutoff_ev", None) for level_settings in settings]
    for level_settings in settings:
        level_settings.pop("kspacing_per_angstrom", None)
    if None in cutoffs or not cutoffs[0] < cutoffs[1] or settings[0] != settings[1]:
        return []
    meshes = [[record.get("kpts") for record in dataset.label_records(level)] for level in (lower, upper)]
    is_same_mesh = np.array(
        [first is not None and first == second for first, second in zip(*meshes, strict=True)], bool
    )
    n_risen = int((is_same_mesh & (energy_rise > MAX_ENERGY_RISE)).sum())
    if not n_risen:
        return []
    largest = np.argmax(np.where(is_same_mesh, energy_rise, -np.inf))
    text = (
        f"levels {lower} and {upper}: with the same k-points, the energy of {n_risen} configurations rises with the "
        f"cutoff, by up to {1000 * energy_rise[largest]:.3g} meV/atom in configuration {dataset.ids[largest]}; it "
        "should fall: the calculations of a level are not converged, or the labels are swapped"
    )
    return [text]


def _find_outliers(ids: Array, first: Labels, second: Labels, is_shared: Array, name: str) -> list[str]:
    sizes = np.diff(first.offsets)
    energy = (second.energy - first.energy) / sizes
    squares = second.sum_over_atoms(((second.forces - first.forces) ** 2).sum(axis=1))
    force = np.sqrt(squares / (3 * sizes))
    center = np.median(energy[is_shared])
    spread = max(1.4826 * float(np.median(np.abs(energy[is_shared] - center))), MIN_DIFFERENCE)
    deviation = np.where(is_shared, np.abs(energy - center) / spread, 0.0)
    ratio = np.where(is_shared, force / max(float(np.median(force[is_shared])), MIN_DIFFERENCE), 0.0)
    warnings = []
    for quantity, scores, limit, unit in (
        ("energy", deviation, MAX_ENERGY_DEVIATION, "robust standard deviations from the median"),
        ("force", ratio, MAX_FORCE_RATIO, "times the median"),
    ):
        outliers = [k for k in np.argsort(-scores, kind="stable") if scores[k] > limit]
        if outliers:
            warnings.append(
                f"{name}: the {quantity} differences of {len(outliers)} configurations are outliers, up to "
                f"{scores[outliers[0]]:.3g} {unit}: {list_first(ids[outliers], MAX_LISTED_ITEMS)}"
            )
    return warnings
