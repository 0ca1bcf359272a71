"""Units and signs that look wrong in a dataset's labels, where the numbers themselves can tell.

Between levels: labels of the same configurations differ by convergence, not by 27.2. Within a level: the energy must
change with the volume as the stress says, dE = V tr(stress)/3 dlnV, and what is compressed must push outwards. Each
check speaks only where the numbers leave no doubt: levels far from convergence must not raise an alarm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import units
from scipy.stats import spearmanr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paretofit.core import Array
    from paretofit.dataset.labelled import LabelledStructures, Labels

LEAST = 5  # labels, below which nothing is said
ALIKE = 0.9  # least correlation between two levels,
CERTAIN = 0.7  # and its least value at three standard errors below (Fisher's transformation)
CLOSE = 0.15  # of a factor, in its logarithm
CURVE = 0.95  # least correlation of the energy with the integral of the stress
CURVE_LEAST = 8  # points of a curve
SMOOTH = 0.3  # most of sum (E_k+1 - E_k)^2 / sum (E_k - mean)^2: about 2 for noise, below 0.15 for an equation of state
CURVE_CLOSE = 0.4
SPAN = 1.05  # least ratio of volumes
LARGEST = 10.0  # eV/Å³, 1602 GPa
TENSION = 0.3  # eV/Å³, 48 GPa: more than any solid stands
UNORDERED = -0.5  # rank correlation of stress with volume
CHANCE = 1e-3
WRONG_SIGN = "the opposite of ASE's sign (negative in compression)"

ENERGY_UNITS = {
    "hartree": 1 / units.Hartree,
    "rydberg": 1 / units.Rydberg,
    "kcal/mol": units.mol / units.kcal,
    "kJ/mol": units.mol / units.kJ,
    "meV": 1e3,
}
FORCE_UNITS = {
    "hartree/bohr": units.Bohr / units.Hartree,
    "rydberg/bohr": units.Bohr / units.Rydberg,
    "kcal/mol/Å": units.mol / units.kcal,
    "meV/Å": 1e3,
}
STRESS_UNITS = {"GPa": 1 / units.GPa, "kbar": 1e-3 / units.bar, "bar": 1 / units.bar}


@dataclass(frozen=True)
class _Quantity:
    """One kind of label: what it is called, its unit, and the size of 1 in that unit in other units."""

    name: str
    unit: str
    others: dict[str, float]


ENERGY = _Quantity("energies", "eV", ENERGY_UNITS)
FORCES = _Quantity("forces", "eV/Å", FORCE_UNITS)
STRESS = _Quantity("stresses", "eV/Å³", STRESS_UNITS)


def find_unit_warnings(dataset: LabelledStructures) -> list[str]:
    """Look for labels in another unit than eV and Å, or of the opposite sign.

    Parameters
    ----------
    dataset : LabelledStructures

    Returns
    -------
    list of str
        A sentence for each suspicion; empty where there is none, or too few labels to tell.
    """
    if not dataset.levels or not len(dataset):
        return []
    sizes, volumes, groups = _geometry(dataset)
    last = _reference(dataset)
    reference = dataset.labels(last)
    warnings = []
    for level in dataset.levels:
        labels = reference if level == last else dataset.labels(level)
        if labels is not reference:
            warnings += _against(level, labels, last, reference, sizes)
        warnings += _within(level, labels, sizes, volumes, groups)
    return warnings


def _geometry(dataset: LabelledStructures) -> tuple[Array, Array, Array]:
    """Atoms, volumes per atom (NaN where not periodic in three directions), and numbers of comparable groups."""
    volumes, kinds = [], []
    for atoms in dataset:
        bulk = atoms.pbc.all() and atoms.cell.volume > 0
        volumes.append(atoms.cell.volume / len(atoms) if bulk else np.nan)
        kinds.append((atoms.symbols.formula.reduce()[0].format("hill"), str(atoms.info.get("config_type"))))
    numbers = {kind: k for k, kind in enumerate(dict.fromkeys(kinds))}
    return dataset.n_atoms, np.array(volumes), np.array([numbers[kind] for kind in kinds])


def _reference(dataset: LabelledStructures) -> str:
    """The last level that not only a few configurations have."""
    counts = {level: int(dataset.labels(level).complete.sum()) for level in dataset.levels}
    return [level for level, count in counts.items() if 2 * count >= max(counts.values())][-1]


def _against(level: str, labels: Labels, other: str, reference: Labels, sizes: Array) -> list[str]:
    """Suspicions from the labels that two levels share."""
    both = labels.complete & reference.complete
    if both.sum() < LEAST:
        return []
    atoms = np.repeat(both, sizes)
    stresses = both & np.isfinite(labels.stress).all(axis=1) & np.isfinite(reference.stress).all(axis=1)
    energies = [(one.energy / sizes)[both] for one in (labels, reference)]
    found = [
        _compare(ENERGY, level, other, *(one - one.mean() for one in energies)),
        _compare(FORCES, level, other, labels.forces[atoms].ravel(), reference.forces[atoms].ravel()),
        _compare(STRESS, level, other, labels.stress[stresses].ravel(), reference.stress[stresses].ravel()),
        _energy_per_atom(level, other, labels.energy[both], reference.energy[both], sizes[both]),
    ]
    return [text for text in found if text]


def _compare(quantity: _Quantity, level: str, other: str, mine: Array, theirs: Array) -> str:
    """A suspicion where the numbers of two levels are alike up to a factor, or an empty string."""
    norms = float(np.linalg.norm(mine) * np.linalg.norm(theirs))
    if len(mine) < LEAST or not norms:
        return ""
    alike = float(mine @ theirs) / norms
    slope = float(np.linalg.norm(mine) / np.linalg.norm(theirs)) * np.sign(alike)
    certain = np.tanh(np.arctanh(min(abs(alike), 1 - 1e-12)) - 3 / np.sqrt(len(mine) - 3))
    if abs(alike) < ALIKE or certain < CERTAIN:
        return ""
    start = f"level {level}: its {quantity.name} are {slope:.4g} times those of level {other} (correlation {alike:.2f})"
    sign = " and of the opposite sign" if slope < 0 else ""
    suspects = [(unit, level, factor) for unit, factor in quantity.others.items()]
    suspects += [(unit, other, 1 / factor) for unit, factor in quantity.others.items()]
    unit, wrong, factor = min(suspects, key=lambda one: _distance(abs(slope), one[2]))
    if _distance(abs(slope), factor) < CLOSE:
        return f"{start}, as if level {wrong} were in {unit} instead of {quantity.unit}{sign}"
    return f"{start}: one of the two has the opposite sign" if slope < 0 else ""


def _energy_per_atom(level: str, other: str, mine: Array, theirs: Array, sizes: Array) -> str:
    """A suspicion where energies of one of two levels are per atom: total energies are kept."""
    if (sizes < 2).all() or not (mine.all() and theirs.all()):
        return ""
    ratio = mine / theirs
    for wrong, expected in ((level, 1 / sizes), (other, sizes)):
        several = sizes > 1
        if (np.abs(np.log(np.maximum(ratio / expected, 1e-9)))[several] < CLOSE).all():
            return f"level {wrong}: its energies look like energies per atom; total energies in eV are meant"
    return ""


def _distance(value: float, expected: float) -> float:
    """Between two positive numbers, in the logarithm."""
    return float(abs(np.log(value / expected)))


def _within(level: str, labels: Labels, sizes: Array, volumes: Array, groups: Array) -> list[str]:
    """Suspicions from the energies, stresses and volumes of one level."""
    usable = np.isfinite(labels.stress).all(axis=1) & np.isfinite(volumes) & labels.complete
    mean = labels.stress[:, :3].mean(axis=1)
    energies = labels.energy / sizes
    slopes = [
        slope
        for group in _members(usable, volumes, groups)
        if (slope := _energy_against_stress(volumes[group], energies[group], mean[group])) is not None
    ]
    if slopes:
        text = _of_slope(level, float(np.median(slopes)))
        return [text] if text else []
    largest = float(np.abs(labels.stress[np.isfinite(labels.stress)]).max(initial=0.0))
    if largest > LARGEST:
        size = f"{largest:.4g} eV/Å³ ({largest / units.GPa:.0f} GPa)"
        return [f"level {level}: stresses up to {size} look like GPa, kbar or bar instead of eV/Å³"]
    wrong = _sign_is_wrong(volumes[usable], mean[usable])
    return [f"level {level}: compressed cells are under tension; the stresses have {WRONG_SIGN}"] if wrong else []


def _members(usable: Array, volumes: Array, groups: Array) -> Iterator[Array]:
    """Configurations of one composition and type whose volumes differ, in order of volume."""
    for number in np.unique(groups[usable]):
        members = np.flatnonzero(usable & (groups == number))
        members = members[np.argsort(volumes[members])]
        if len(members) >= CURVE_LEAST and volumes[members[-1]] > SPAN * volumes[members[0]]:
            yield members


def _energy_against_stress(volumes: Array, energies: Array, mean: Array) -> float | None:
    """Slope of the energies with the integral of the mean stress over the volume, 1 where units and sign fit.

    None where the energies are no smooth curve: structures that differ by more than their volume.
    """
    steps = (mean[1:] + mean[:-1]) / 2 * np.diff(volumes)
    work = np.concatenate([[0.0], np.cumsum(steps)])
    spread = float(((energies - energies.mean()) ** 2).sum())
    if spread == 0 or work.std() == 0 or float((np.diff(energies) ** 2).sum()) > SMOOTH * spread:
        return None
    if abs(np.corrcoef(work, energies)[0, 1]) < CURVE:
        return None
    return float(np.polyfit(work, energies, 1)[0])


def _of_slope(level: str, slope: float) -> str:
    start = f"level {level}: its energies change {slope:.3g} times as much with the volume as its stresses say"
    sign = f", and the stresses have {WRONG_SIGN}" if slope < 0 else ""
    suspects = [("the stresses were kbar taken for bar", 1e3)]
    suspects += [(f"the stresses were in {unit} instead of eV/Å³", 1 / factor) for unit, factor in STRESS_UNITS.items()]
    suspects += [(f"the energies were in {unit} instead of eV", factor) for unit, factor in ENERGY_UNITS.items()]
    what, factor = min(suspects, key=lambda one: _distance(abs(slope), one[1]))
    if _distance(abs(slope), factor) < CURVE_CLOSE:
        return f"{start}, as if {what}{sign}"
    return f"level {level}: the energies rise where the stresses say they fall: those have {WRONG_SIGN}" if sign else ""


def _sign_is_wrong(volumes: Array, mean: Array) -> bool:
    """Whether stress falls with the volume, from tension in the smallest cells to compression in the largest."""
    if len(volumes) < LEAST or volumes.max() < SPAN * volumes.min():
        return False
    order = np.argsort(volumes)
    third = max(1, len(order) // 3)
    small, large = float(mean[order[:third]].mean()), float(mean[order[-third:]].mean())
    rank = spearmanr(volumes, mean)
    falls = rank.statistic < UNORDERED and rank.pvalue < CHANCE
    return bool(falls and small > 0 and (large < 0 or small > TENSION))
