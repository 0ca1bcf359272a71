"""Comparison of the labels of neighbouring convergence levels to detect wrong labels.

A low level has errors by design, and errors of a k-point mesh can have any sign. Two checks are still possible: with
the same mesh, a higher cutoff never raises the energy (it adds plane waves to those of the lower cutoff, and the energy
is variational); and a configuration whose error is many times larger than those of other configurations is an outlier.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy.stats import median_abs_deviation

from paretofit.consistency.torques import find_torques
from paretofit.consistency.unit_checks import find_unit_warnings
from paretofit.core import Array, format_count, list_first
from paretofit.dataset import Dataset, Labels

MAX_ENERGY_RISE = 1e-3  # eV/atom; FFT grids and incomplete self-consistency cause errors of a few tenths of a meV/atom
MAX_ENERGY_DEVIATION = 10.0  # robust standard deviations; the largest of 1,048 in the beryllium data was 5.5
MAX_FORCE_RATIO = 15.0  # force difference relative to the median; the largest ratio in the same data was 7
MIN_DIFFERENCE = 1e-3  # eV/atom and eV/Å; lower limit of the scales by which differences are divided
MIN_LABELS = 8  # number of labels for the search for outliers
FREE_ENERGY, ENERGY = "free_energy", "energy"  # results of ASE's calculators, as in the setting 'energy_kind'


def compare_labels(dataset: Dataset) -> list[str]:
    """Compare the labels of levels with each other, and energies with stresses and volumes, without a fitted model.

    Parameters
    ----------
    dataset : Dataset

    Returns
    -------
    list of str
        A message for each suspicious unit, sign, kind of energy, outlier of the differences between levels, and torque
        on molecules.
    """
    return [
        *find_mixed_energies(dataset),
        *find_unit_warnings(dataset),
        *find_level_warnings(dataset),
        *find_torques(dataset),
    ]


def find_mixed_energies(dataset: Dataset) -> Iterator[str]:
    """Yield a warning if some levels have the ``energy_kind`` "free_energy", and others "energy"."""
    kinds = {level: dataset.settings(level).get("energy_kind") for level in dataset.levels}
    free_energy_levels = [level for level, kind in kinds.items() if kind == FREE_ENERGY]
    energy_levels = [level for level, kind in kinds.items() if kind == ENERGY]
    if free_energy_levels and energy_levels:
        yield (
            f"the energies of level {', '.join(free_energy_levels)} are free energies ('free_energy' of the files), "
            f"those of level {', '.join(energy_levels)} are 'energy', whose files have no free energies: with "
            "smearing, the two differ by the electronic entropy, and only free energies agree with the forces; import "
            "the same kind for all levels (--energy-key LEVEL=KEY)"
        )


def find_level_warnings(dataset: Dataset) -> Iterator[str]:
    """Yield a warning for each suspicious difference between the labels of neighbouring levels."""
    for lower_level, upper_level in pairwise(dataset.levels):
        lower_labels, upper_labels = dataset.labels(lower_level), dataset.labels(upper_level)
        is_shared = np.asarray(lower_labels.is_complete & upper_labels.is_complete)
        energy_rise = (upper_labels.energy - lower_labels.energy) / dataset.n_atoms
        yield from _find_energy_increases(dataset, lower_level, upper_level, np.where(is_shared, energy_rise, 0.0))
        if is_shared.sum() >= MIN_LABELS:
            yield from _find_outliers(
                dataset.ids, lower_labels, upper_labels, is_shared, f"levels {lower_level} and {upper_level}"
            )


def _find_energy_increases(dataset: Dataset, lower_level: str, upper_level: str, energy_rise: Array) -> Iterator[str]:
    """Yield a warning if energies rise with the cutoff at the same k-points and otherwise equal settings.

    `energy_rise`, ``(n,)``, is in eV/atom, and 0 where a label is incomplete. Labels without a record of their k-points
    are not compared.
    """
    settings = [dict(dataset.settings(level)) for level in (lower_level, upper_level)]
    cutoffs = [level_settings.pop("cutoff_ev", None) for level_settings in settings]
    for level_settings in settings:
        level_settings.pop("kspacing_per_angstrom", None)  # different spacings can give the same mesh
    if None in cutoffs or not cutoffs[0] < cutoffs[1] or settings[0] != settings[1]:
        return
    record_pairs = zip(dataset.label_records(lower_level), dataset.label_records(upper_level), strict=True)
    meshes = [(lower_record.get("kpts"), upper_record.get("kpts")) for lower_record, upper_record in record_pairs]
    is_same_mesh = np.array([lower is not None and lower == upper for lower, upper in meshes], bool)
    n_increases = int((is_same_mesh & (energy_rise > MAX_ENERGY_RISE)).sum())
    if not n_increases:
        return
    position = np.argmax(np.where(is_same_mesh, energy_rise, -np.inf))
    yield (
        f"levels {lower_level} and {upper_level}: with the same k-points, the energy of "
        f"{format_count(n_increases, 'configuration')} rises with the cutoff, by up to "
        f"{1000 * energy_rise[position]:.3g} meV/atom in configuration {dataset.ids[position]}; "
        "it should fall: the calculations of a level are not converged, or the labels are swapped"
    )


def _find_outliers(
    ids: Array, lower_labels: Labels, upper_labels: Labels, is_shared: Array, level_pair: str
) -> Iterator[str]:
    """Yield a warning for outliers of the energy differences of two levels, and one for those of the force differences.

    Energy differences are taken relative to their median, because levels may differ by a constant.
    """
    n_atoms = np.diff(lower_labels.offsets)
    energy_differences = (upper_labels.energy - lower_labels.energy) / n_atoms
    squares = upper_labels.sum_over_atoms(((upper_labels.forces - lower_labels.forces) ** 2).sum(axis=1))
    force_rmsd = np.sqrt(squares / (3 * n_atoms))
    median = np.median(energy_differences[is_shared])
    spread = max(float(median_abs_deviation(energy_differences[is_shared], scale="normal")), MIN_DIFFERENCE)
    energy_deviations = np.where(is_shared, np.abs(energy_differences - median) / spread, 0.0)
    force_ratios = np.where(is_shared, force_rmsd / max(float(np.median(force_rmsd[is_shared])), MIN_DIFFERENCE), 0.0)
    for quantity, scores, limit, unit in (
        ("energy", energy_deviations, MAX_ENERGY_DEVIATION, "robust standard deviations from the median"),
        ("force", force_ratios, MAX_FORCE_RATIO, "times the median"),
    ):
        outliers = [k for k in np.argsort(-scores, kind="stable") if scores[k] > limit]
        if outliers:
            yield (
                f"{level_pair}: the {quantity} differences of {format_count(len(outliers), 'configuration')} are "
                f"outliers, up to {scores[outliers[0]]:.3g} {unit}: {list_first(ids[outliers])}"
            )
