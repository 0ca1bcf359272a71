"""Labels of neighbouring convergence levels against each other: what cannot be right, and what stands out.

A low level is wrong by design, and errors of a k-point mesh can have any sign. Two things still hold: with the same
mesh a higher cutoff never raises the energy (the plane waves of the lower one are a subset, and the energy is
variational), and a configuration whose error is many times everybody else's deserves a look.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from paretofit.core import Array
    from paretofit.dataset.labelled import LabelledStructures, Labels

RISE = 1e-3  # eV/atom; grids and self-consistency leave a few tenths of a meV
FAR = 10.0  # robust standard deviations; the largest of 1,048 differences in beryllium data was 5.5
FAR_FORCE = 15.0  # times the median force difference; the largest there was 7
LEAST = 1e-3  # eV/atom and eV/Å: differences below this never stand out
ENOUGH = 8  # labels from which on one can stand out


def find_level_warnings(dataset: LabelledStructures) -> list[str]:
    """What deserves a second look in the differences between neighbouring levels, in the dataset's order."""
    warnings: list[str] = []
    for lower, upper in pairwise(dataset.levels):
        first, second = dataset.labels(lower), dataset.labels(upper)
        both = np.asarray(first.complete & second.complete)
        name = f"levels {lower} and {upper}"
        warnings += _risen(dataset, lower, upper, first, second, both, name)
        if both.sum() >= ENOUGH:
            warnings += _outliers(dataset.ids, first, second, both, name)
    return warnings


def _risen(
    dataset: LabelledStructures, lower: str, upper: str, first: Labels, second: Labels, both: Array, name: str
) -> list[str]:
    """Energies that rise with the cutoff although nothing else changes."""
    settings = [dict(dataset.settings(level)) for level in (lower, upper)]
    cutoffs = [one.pop("cutoff_ev", None) for one in settings]
    for one in settings:
        one.pop("kspacing_per_angstrom", None)
    if None in cutoffs or not cutoffs[0] < cutoffs[1] or settings[0] != settings[1]:
        return []
    meshes = [[record.get("kpts") for record in dataset.label_records(level)] for level in (lower, upper)]
    same = np.array([one is not None and one == other for one, other in zip(*meshes, strict=True)], dtype=bool)
    rise = (second.energy - first.energy) / dataset.n_atoms
    bad = np.flatnonzero(both & same & (rise > RISE))
    if not len(bad):
        return []
    worst = bad[np.argmax(rise[bad])]
    text = (
        f"{name}: with the same k-points the energy of {len(bad)} configurations rises with the cutoff, by up to "
        f"{1000 * rise[worst]:.3g} meV/atom in configuration {dataset.ids[worst]}; it must fall: one of the two is "
        "not converged, or the labels are swapped"
    )
    return [text]


def _outliers(ids: Array, first: Labels, second: Labels, both: Array, name: str) -> list[str]:
    sizes = np.diff(first.offsets)
    energy = (second.energy - first.energy) / sizes
    squares = second.sum_over_atoms(((second.forces - first.forces) ** 2).sum(axis=1))
    force = np.sqrt(squares / (3 * sizes))
    centre = np.median(energy[both])
    spread = max(1.4826 * float(np.median(np.abs(energy[both] - centre))), LEAST)
    distance = np.where(both, np.abs(energy - centre) / spread, 0.0)
    ratio = np.where(both, force / max(float(np.median(force[both])), LEAST), 0.0)
    return [
        *_far(ids, distance, FAR, f"{name}: the energy difference", "robust standard deviations from the others"),
        *_far(ids, ratio, FAR_FORCE, f"{name}: the force difference", "times the median one"),
    ]


def _far(ids: Array, size: Array, limit: float, what: str, unit: str) -> list[str]:
    bad: Any = np.flatnonzero(size > limit)
    if not len(bad):
        return []
    worst = bad[np.argsort(-size[bad], kind="stable")][:5]
    shown = ", ".join(str(ids[k]) for k in worst) + (" and others" if len(bad) > len(worst) else "")
    return [f"{what} of {len(bad)} configurations is an outlier, up to {size[worst[0]]:.3g} {unit}: {shown}"]
