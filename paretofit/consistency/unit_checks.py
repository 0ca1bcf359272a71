"""Detection of wrong units and signs from the values of the labels.

Labels of the same configurations at two levels differ by convergence errors, but not by a factor such as 27.2 (hartree
to eV). Within a level, the energy E changes with the volume V according to the stress, dE = V tr(stress)/3 dlnV, and
compressed cells have a negative stress. Each check reports only unambiguous cases, so that levels far from convergence
cause no warning.
"""

import operator
from collections.abc import Iterator, Mapping
from typing import TypeVar

import numpy as np
from ase import units
from scipy.integrate import cumulative_trapezoid
from scipy.stats import linregress, spearmanr

from paretofit.consistency.label_units import ENERGY_UNITS, FORCE_UNITS, STRESS_UNITS
from paretofit.core import Array
from paretofit.dataset import Dataset, Labels

T = TypeVar("T")

MIN_LABELS = 5  # number of labels for a check
MIN_CORRELATION = 0.9  # correlation between the values of two levels
MIN_CORRELATION_BOUND = 0.7  # lower bound of the correlation: three standard errors below it (Fisher's transformation)
MAX_SMALL_FACTOR = 2.0  # levels that are not converged may differ by up to this factor
MIN_CORRELATION_OF_SMALL_FACTORS = 0.98  # correlation above which a smaller factor, too, may be that of a unit
MAX_LOG_DIFFERENCE = 0.15  # difference between the logarithms of the ratio of two levels and of the factor of a unit
MIN_CURVE_CORRELATION = 0.95  # correlation between the energy and the integral of the stress
MIN_CURVE_POINTS = 8  # number of configurations of a curve of energy and volume
# Roughness is sum (E_k+1 - E_k)^2 / sum (E_k - mean)^2: about 2 for noise, and below 0.15 for an equation of state.
MAX_ROUGHNESS = 0.3
MAX_CURVE_LOG_DIFFERENCE = 0.4  # difference between the logarithms of a slope and of the factor of a unit
MIN_VOLUME_RATIO = 1.05  # ratio of the volumes of the largest and the smallest cell
MAX_STRESS = 10.0  # eV/Å³, 1602 GPa; a larger stress is in another unit
MAX_TENSION = 0.3  # eV/Å³, 48 GPa, more than any solid withstands
MAX_RANK_CORRELATION = -0.5  # rank correlation between stress and volume, above which the sign counts as correct
MAX_P_VALUE = 1e-3  # p-value of this rank correlation
QUANTITIES = {  # the unit of each quantity, and its value in other units
    "energies": ("eV", ENERGY_UNITS),
    "forces": ("eV/Å", FORCE_UNITS),
    "stresses": ("eV/Å³", STRESS_UNITS),
}
WRONG_SIGN = "the opposite of ASE's sign (negative in compression)"


def find_unit_warnings(dataset: Dataset) -> list[str]:
    """Find labels in units other than eV and Å, and labels with the opposite sign.

    Parameters
    ----------
    dataset : Dataset

    Returns
    -------
    list of str
        A message for each suspicious quantity; empty if there are none, or too few labels for a check.
    """
    if not dataset.levels or not len(dataset):
        return []
    volumes, groups = _describe_geometries(dataset)
    reference_level = _choose_reference(dataset)
    reference = dataset.labels(reference_level)
    warnings = []
    for level in dataset.levels:
        labels = reference if level == reference_level else dataset.labels(level)
        if labels is not reference:
            warnings += _compare_levels(level, labels, reference_level, reference, dataset.n_atoms)
        warnings.append(_check_level(level, labels, labels.energy / dataset.n_atoms, volumes, groups))
    return [text for text in warnings if text]


def _describe_geometries(dataset: Dataset) -> tuple[Array, Array]:
    """Return volumes per atom, Å³ (NaN unless periodic in three directions), and group numbers, both ``(n,)``.

    A group has the same reduced composition and the same ``config_type``.
    """
    volumes, kinds = [], []
    for atoms in dataset:
        has_volume = atoms.pbc.all() and atoms.cell.volume > 0
        volumes.append(atoms.cell.volume / len(atoms) if has_volume else np.nan)
        kinds.append(f"{atoms.symbols.formula.reduce()[0]:hill} {atoms.info.get('config_type')}")
    return np.array(volumes), np.unique(kinds, return_inverse=True)[1]


def _choose_reference(dataset: Dataset) -> str:
    """Return the last level that has at least half the maximum number of labels."""
    counts = {level: int(dataset.labels(level).is_complete.sum()) for level in dataset.levels}
    return [level for level, count in counts.items() if 2 * count >= max(counts.values())][-1]


def _compare_levels(level: str, labels: Labels, reference_level: str, reference: Labels, n_atoms: Array) -> list[str]:
    """Return the result of each comparison of a level with the reference level: a warning or an empty string."""
    is_shared = labels.is_complete & reference.is_complete
    if is_shared.sum() < MIN_LABELS:
        return []
    names = (level, reference_level)
    atom_mask = np.repeat(is_shared, n_atoms)
    has_stress = is_shared & np.isfinite(labels.stress).all(axis=1) & np.isfinite(reference.stress).all(axis=1)
    energies = (labels.energy[is_shared], reference.energy[is_shared])
    energies_per_atom = [energy / n_atoms[is_shared] for energy in energies]
    # The mean is subtracted, because the energies of two levels may differ by a constant.
    relative_energies = [energy - energy.mean() for energy in energies_per_atom]
    return [
        _compare_values("energies", *names, *relative_energies),
        _compare_values("forces", *names, labels.forces[atom_mask].ravel(), reference.forces[atom_mask].ravel()),
        _compare_values("stresses", *names, labels.stress[has_stress].ravel(), reference.stress[has_stress].ravel()),
        _detect_energies_per_atom(*names, *energies, n_atoms[is_shared]),
    ]


def _compare_values(quantity: str, level: str, reference_level: str, values: Array, reference: Array) -> str:
    """Return a warning if the values of two levels are proportional with a suspicious factor, or an empty string."""
    norms = np.linalg.norm(values), np.linalg.norm(reference)
    if len(values) < MIN_LABELS or not all(norms):
        return ""
    correlation = float(values @ reference / (norms[0] * norms[1]))
    slope = float(norms[0] / norms[1] * np.sign(correlation))
    fisher_z = np.arctanh(min(abs(correlation), 1 - 1e-12))  # arctanh(1) is infinite
    correlation_bound = np.tanh(fisher_z - 3 / np.sqrt(len(values) - 3))
    if abs(correlation) < MIN_CORRELATION or correlation_bound < MIN_CORRELATION_BOUND:
        return ""
    text = f"level {level}: its {quantity} are {slope:.4g} times those of level {reference_level}"
    text += f" (correlation {correlation:.2f})"
    expected_unit, other_units = QUANTITIES[quantity]
    factors = {(level, unit): factor for unit, factor in other_units.items()}
    factors |= {(reference_level, unit): 1 / factor for unit, factor in other_units.items()}
    (wrong_level, unit), difference = _find_closest(abs(slope), factors)
    is_small = 1 / MAX_SMALL_FACTOR < abs(slope) < MAX_SMALL_FACTOR
    if difference < MAX_LOG_DIFFERENCE and (abs(correlation) > MIN_CORRELATION_OF_SMALL_FACTORS or not is_small):
        sign = " and of the opposite sign" if slope < 0 else ""
        return f"{text}, as if level {wrong_level} were in {unit} instead of {expected_unit}{sign}"
    return f"{text}: one of the levels has the opposite sign" if slope < 0 else ""


def _find_closest(value: float, factors: Mapping[T, float]) -> tuple[T, float]:
    """Return the key of the factor that is closest to a positive value, and the difference between their logarithms."""
    differences = {key: float(abs(np.log(value / factor))) for key, factor in factors.items()}
    return min(differences.items(), key=operator.itemgetter(1))


def _detect_energies_per_atom(
    level: str, reference_level: str, energies: Array, reference: Array, n_atoms: Array
) -> str:
    """Return a warning if the energies of one of two levels are energies per atom, or an empty string."""
    if (n_atoms < 2).all() or not (energies.all() and reference.all()):
        return ""
    for wrong_level, expected_ratio in ((level, 1 / n_atoms), (reference_level, n_atoms)):
        # The lower limit avoids the logarithm of a negative ratio, if the signs of the energies differ.
        differences = np.abs(np.log(np.maximum(energies / reference / expected_ratio, 1e-9)))
        if (differences[n_atoms > 1] < MAX_LOG_DIFFERENCE).all():
            return f"level {wrong_level}: its energies look like energies per atom; total energies in eV are expected"
    return ""


def _check_level(level: str, labels: Labels, energies_per_atom: Array, volumes: Array, groups: Array) -> str:
    """Return a warning if energies, stresses and volumes (Å³/atom) of a level are inconsistent, or an empty string.

    If configurations of a group form a smooth curve of energy and volume, only its slope is checked; otherwise, the
    magnitude of the stresses, then their sign.
    """
    is_usable = np.isfinite(labels.stress).all(axis=1) & np.isfinite(volumes) & labels.is_complete
    stress = labels.stress[:, :3].mean(axis=1)
    curves = _find_curves(is_usable, volumes, groups)
    slopes = [_fit_energy_to_stress(volumes[curve], energies_per_atom[curve], stress[curve]) for curve in curves]
    if not np.isnan(slopes).all():
        return _interpret_slope(level, float(np.nanmedian(slopes)))
    largest_stress = float(np.abs(labels.stress[np.isfinite(labels.stress)]).max(initial=0.0))
    if largest_stress > MAX_STRESS:
        size = f"{largest_stress:.4g} eV/Å³ ({largest_stress / units.GPa:.0f} GPa)"
        return f"level {level}: stresses up to {size} look like GPa, kbar or bar instead of eV/Å³"
    if _has_wrong_sign(volumes[is_usable], stress[is_usable]):
        return f"level {level}: compressed cells are under tension: the stresses have {WRONG_SIGN}"
    return ""


def _find_curves(is_usable: Array, volumes: Array, groups: Array) -> Iterator[Array]:
    """Yield the positions of the configurations of each group whose volumes differ enough, sorted by volume."""
    for group in np.unique(groups[is_usable]):
        curve = np.flatnonzero(is_usable & (groups == group))
        curve = curve[np.argsort(volumes[curve])]
        if len(curve) >= MIN_CURVE_POINTS and volumes[curve[-1]] > MIN_VOLUME_RATIO * volumes[curve[0]]:
            yield curve


def _fit_energy_to_stress(volumes: Array, energies: Array, stress: Array) -> float:
    """Return the slope of energies (eV/atom) against the integral of the mean stress (eV/Å³) over the volume (Å³/atom).

    The slope is 1 if units and sign are correct, and NaN if the energies do not form a smooth curve, because the
    structures differ by more than their volume. All arrays are ``(n,)``, sorted by volume.
    """
    work = cumulative_trapezoid(stress, volumes, initial=0)
    square_sum = float(((energies - energies.mean()) ** 2).sum())
    if square_sum == 0 or work.std() == 0 or float((np.diff(energies) ** 2).sum()) > MAX_ROUGHNESS * square_sum:
        return np.nan
    fit = linregress(work, energies)
    return float(fit.slope) if abs(fit.rvalue) >= MIN_CURVE_CORRELATION else np.nan


def _interpret_slope(level: str, slope: float) -> str:
    """Return a warning if the slope of `_fit_energy_to_stress` indicates a wrong unit or sign, or an empty string."""
    # Each cause, and the factor by which it would multiply the slope.
    factors = {"stresses in kbar had been converted as if they were in bar": 1e3}
    factors |= {f"the stresses were in {unit} instead of eV/Å³": 1 / factor for unit, factor in STRESS_UNITS.items()}
    factors |= {f"the energies were in {unit} instead of eV": factor for unit, factor in ENERGY_UNITS.items()}
    cause, difference = _find_closest(abs(slope), factors)
    if difference < MAX_CURVE_LOG_DIFFERENCE:
        sign = f", and the stresses have {WRONG_SIGN}" if slope < 0 else ""
        text = f"level {level}: its energies change {slope:.3g} times as much with volume as its stresses predict"
        return f"{text}, as if {cause}{sign}"
    if slope < 0:
        return f"level {level}: its energies rise where its stresses predict a fall: the stresses have {WRONG_SIGN}"
    return ""


def _has_wrong_sign(volumes: Array, stress: Array) -> bool:
    """Return whether the stress falls with volume, from tension in the smallest to compression in the largest cells.

    ASE's sign is negative in compression, so a correct stress rises with volume. The largest cells need not be
    compressed if the tension of the smallest cells is more than any solid withstands.
    """
    if len(volumes) < MIN_LABELS or volumes.max() < MIN_VOLUME_RATIO * volumes.min() or np.ptp(stress) == 0:
        return False
    volume_order = np.argsort(volumes)
    n_third = max(1, len(volume_order) // 3)
    small_cell_stress = float(stress[volume_order[:n_third]].mean())
    large_cell_stress = float(stress[volume_order[-n_third:]].mean())
    rank_correlation = spearmanr(volumes, stress)
    is_falling = rank_correlation.statistic < MAX_RANK_CORRELATION and rank_correlation.pvalue < MAX_P_VALUE
    return bool(is_falling and small_cell_stress > 0 and (large_cell_stress < 0 or small_cell_stress > MAX_TENSION))
