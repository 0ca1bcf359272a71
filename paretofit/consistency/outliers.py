"""Labels of single configurations that a linear model of the others contradicts."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from paretofit.consistency.label_fit import HeldOutErrors, LabelFit, normalise_columns
from paretofit.core import Array, list_first

N_NEIGHBOURS = 10  # number of similar configurations with which an error is compared
# An energy is an outlier if its error is a large multiple of those of similar configurations; a smaller multiple
# suffices if the error of the total energy is large although the model predicts the forces. (A large force error would
# show that the model does not describe the configuration.)
MAX_ENERGY_RATIO, MIN_ENERGY_ERROR = 40.0, 0.02  # eV/atom
MAX_ENERGY_RATIO_WITH_FORCES, MIN_TOTAL_ERROR, MAX_PREDICTABLE_FORCE_ERROR = 9.5, 3.0, 0.7  # eV
ENERGY_WEIGHT = 30.0  # weight of energies in the fit; without it, force errors would dominate
MAX_FORCE_RATIO = 5.0  # ratio of a force error to those of similar configurations
# ratio of a configuration's inflation to the median; it is larger for configurations unlike all others
MAX_INFLATION_RATIO = 1.2
MAX_FORCE_ERROR = 0.9  # relative force error; 1 is the error of predicting zero forces
MIN_PREDICTED_FORCE = 0.3  # fraction of the median force; a larger predicted force contradicts a label of zero
MIN_ZERO_FORCE_ATOMS = 3


def describe_energy_outliers(
    fit: LabelFit,
    energies: Array,
    forces: Sequence[Array],
    force_errors: Array,
    ids: Array,
    other_configurations: tuple[Sequence[Atoms], Array, Array],
) -> str:
    """Describe energies that deviate from a model of the other configurations; an empty string if none does.

    Parameters
    ----------
    fit : LabelFit
    energies : (n,) float64
        Energies per atom, eV.
    forces : sequence of (N, 3) float64
        eV/Å.
    force_errors : (n,) float64
        Relative errors of a fit to the forces only.
    ids : (n,) int64
        Ids of the configurations of the fit.
    other_configurations : (sequence of ase.Atoms, (n_others,) float64, (n_others,) int64)
        More configurations with the elements of the fit, their energies per atom, and their ids.
    """
    errors = fit.compute_errors(energies, forces, energy_weight=ENERGY_WEIGHT)
    deviations, inflation, rows = errors.energy * errors.energy_spread, errors.inflation, fit.energy_rows
    n_atoms = fit.n_atoms
    structures, other_energies, other_ids = other_configurations
    if len(structures):
        predictions, other_inflation, other_rows = fit.predict_energies(errors, structures)
        deviations = np.concatenate([deviations, predictions - other_energies])
        inflation = np.concatenate([inflation, other_inflation])
        rows, ids = np.concatenate([rows, other_rows]), np.concatenate([ids, other_ids])
        n_atoms = np.concatenate([n_atoms, [len(atoms) for atoms in structures]])
        force_errors = np.concatenate([force_errors, np.full(len(structures), np.nan)])
    ratios, magnitudes = _compare_with_neighbours(rows, inflation, deviations), np.abs(deviations)
    has_good_forces = np.nan_to_num(force_errors, nan=np.inf) < MAX_PREDICTABLE_FORCE_ERROR
    is_outlier = (ratios > MAX_ENERGY_RATIO) & (magnitudes > MIN_ENERGY_ERROR)
    is_outlier |= (ratios > MAX_ENERGY_RATIO_WITH_FORCES) & (magnitudes * n_atoms > MIN_TOTAL_ERROR) & has_good_forces
    outliers = np.flatnonzero(is_outlier)
    if not len(outliers):
        return ""
    outliers = outliers[np.argsort(-ratios[outliers])]
    return (
        f"the energies of {len(outliers)} configurations deviate from a linear model of the others, by up to "
        f"{(magnitudes * n_atoms)[outliers].max():.3g} eV ({ratios[outliers[0]]:.0f} times the deviations of similar "
        f"configurations): configurations {list_first(ids[outliers])}"
    )


def describe_force_outliers(fit: LabelFit, errors: HeldOutErrors, ids: Array) -> str:
    """Describe forces that contradict a model of the other configurations; an empty string if none does."""
    median = float(np.nanmedian(errors.forces))
    neighbour_errors = _get_values_of_neighbours(fit.energy_rows, np.nan_to_num(errors.forces, nan=median))
    limits = MAX_FORCE_RATIO * np.maximum(np.nanmedian(neighbour_errors, axis=1), median)
    is_similar = errors.inflation < MAX_INFLATION_RATIO * np.median(errors.inflation)
    outliers = np.flatnonzero((errors.forces > np.maximum(limits, MAX_FORCE_ERROR)) & is_similar)
    if not len(outliers):
        return ""
    outliers = outliers[np.argsort(-errors.forces[outliers])]
    return (
        f"the forces of {len(outliers)} configurations contradict a linear model of the others (error up to "
        f"{100 * errors.forces[outliers[0]]:.0f} % of the forces, median {100 * median:.0f} %), "
        "as if they belonged to other configurations or to other atoms: configurations "
        f"{list_first(ids[outliers])}"
    )


def describe_zero_forces(fit: LabelFit, errors: HeldOutErrors, forces: Sequence[Array], ids: Array) -> str:
    """Describe forces of exactly zero on atoms for which a model predicts a force; empty for fewer than three atoms."""
    counts = np.zeros(len(forces), dtype=int)
    limit = MIN_PREDICTED_FORCE * errors.force_scale
    for k, (matrix, values) in enumerate(zip(fit.force_rows, forces, strict=True)):
        predicted_forces = (matrix @ errors.coefficients[errors.folds[k]]).reshape(-1, 3)
        counts[k] = np.count_nonzero(~values.any(axis=1) & (np.linalg.norm(predicted_forces, axis=1) > limit))
    if counts.sum() < MIN_ZERO_FORCE_ATOMS:
        return ""
    affected_positions = np.flatnonzero(counts)
    return (
        f"{counts.sum()} atoms in {len(affected_positions)} configurations have a force of exactly zero where a linear "
        f"model predicts more than {limit:.3g} eV/Å (constrained atoms, or missing forces): configurations "
        f"{list_first(ids[affected_positions])}"
    )


def _compare_with_neighbours(rows: Array, inflation: Array, deviations: Array) -> Array:
    """Return the difference of each deviation from the median of similar configurations, ``(n,)``, over their spread.

    If the model predicts a whole kind of structures badly, they are therefore not outliers. The result is 0 for a
    structure unlike all others.

    Parameters
    ----------
    rows : (n, p) float64
        Descriptors.
    inflation : (n,) float64
    deviations : (n,) float64
    """
    neighbour_deviations = _get_values_of_neighbours(rows, deviations)
    neighbour_medians = np.nanmedian(neighbour_deviations, axis=1)
    spreads = np.nanquantile(np.abs(neighbour_deviations - neighbour_medians[:, None]), 0.75, axis=1)
    typical_deviation = float(np.median(np.abs(deviations - np.median(deviations))))
    ratios = np.abs(deviations - neighbour_medians) / np.maximum(spreads, max(typical_deviation, np.finfo(float).tiny))
    return np.where(inflation < MAX_INFLATION_RATIO * np.median(inflation), ratios, 0.0)


def _get_values_of_neighbours(rows: Array, values: Array) -> Array:
    """Return the values of the configurations most similar to each, ``(n, n_neighbours + 1)``, with NaN for itself."""
    descriptors = normalise_columns(rows)
    _, neighbours = cKDTree(descriptors).query(descriptors, k=min(N_NEIGHBOURS + 1, len(rows)))
    return np.where(neighbours != np.arange(len(rows))[:, None], values[neighbours], np.nan)
