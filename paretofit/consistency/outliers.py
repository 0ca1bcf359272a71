"""Labels of single configurations that a linear model of the other configurations contradicts."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from paretofit.consistency.label_fit import HeldOutErrors, LabelFit, normalise_columns
from paretofit.core import Array, format_count, list_first

N_NEIGHBOURS = 10  # number of similar configurations with which an error is compared
# An energy is an outlier if its error is a large multiple of those of similar configurations; a smaller multiple
# suffices if the error of the total energy is large although the model predicts the forces. (A large force error would
# show that the model does not describe the configuration.)
MAX_ENERGY_RATIO = 40.0  # error relative to those of similar configurations
MIN_ENERGY_ERROR = 0.02  # eV/atom; up to it, energies are never outliers by the larger multiple
MAX_ENERGY_RATIO_WITH_FORCES = 9.5  # the smaller multiple, which suffices with the two limits below
MIN_TOTAL_ERROR = 3.0  # eV
MAX_PREDICTABLE_FORCE_ERROR = 0.7  # relative force error up to which the model predicts the forces
ENERGY_WEIGHT = 30.0  # weight of energies in the fit; without it, force errors would dominate
MAX_FORCE_RATIO = 5.0  # force error relative to those of similar configurations
MAX_INFLATION_RATIO = 1.2  # ratio of an inflation to the median, above which a configuration is unlike all others
MIN_RELATIVE_FORCE_ERROR = 0.9  # up to it, forces are never outliers; 1 is the error of predicting zero forces
MIN_PREDICTED_FORCE = 0.3  # fraction of the median force above which a predicted force contradicts a label of zero
MIN_ZERO_FORCE_ATOMS = 3  # number of atoms with contradicted forces of zero for a warning


def describe_energy_outliers(
    fit: LabelFit,
    energies: Array,
    forces: Sequence[Array],
    force_errors: Array,
    ids: Array,
    other_configurations: tuple[Sequence[Atoms], Array, Array],
) -> str:
    """Describe energies that deviate from a model of the other configurations; return "" if there are none.

    Parameters
    ----------
    fit : LabelFit
        Descriptor rows of the configurations.
    energies : (n,) float64
        Energies per atom, eV.
    forces : sequence of (N, 3) float64
        Forces of each configuration, eV/Å.
    force_errors : (n,) float64
        Relative force errors of a fit to the forces only.
    ids : (n,) int64
        Ids of the configurations of the fit.
    other_configurations : (sequence of ase.Atoms, (n_others,) float64, (n_others,) int64)
        Configurations that are not in the fit, with its elements only; their energies per atom, eV; and their ids.
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
    ratios = _compare_with_neighbours(rows, inflation, deviations)
    magnitudes = np.abs(deviations)  # eV/atom
    has_good_forces = np.nan_to_num(force_errors, nan=np.inf) < MAX_PREDICTABLE_FORCE_ERROR
    is_outlier = (ratios > MAX_ENERGY_RATIO) & (magnitudes > MIN_ENERGY_ERROR)
    is_outlier |= (ratios > MAX_ENERGY_RATIO_WITH_FORCES) & (magnitudes * n_atoms > MIN_TOTAL_ERROR) & has_good_forces
    outliers = np.flatnonzero(is_outlier)
    if not len(outliers):
        return ""
    outliers = outliers[np.argsort(-ratios[outliers])]
    return (
        f"the energies of {format_count(len(outliers), 'configuration')} deviate from a linear model of the others, by "
        f"up to {(magnitudes * n_atoms)[outliers].max():.3g} eV ({ratios[outliers[0]]:.0f} times the deviations of "
        f"similar configurations): {list_first(ids[outliers])}"
    )


def describe_force_outliers(fit: LabelFit, errors: HeldOutErrors, ids: Array) -> str:
    """Describe forces that contradict a model of the other configurations; return "" if there are none.

    Configurations unlike all others are not outliers.

    Parameters
    ----------
    fit : LabelFit
        Descriptor rows of the configurations.
    errors : HeldOutErrors
        Errors of the fit to energies and forces.
    ids : (n,) int64
        Ids of the configurations of the fit.
    """
    median = float(np.nanmedian(errors.forces))
    # There are two kinds of NaN. Forces that vanish by symmetry have no error, and count as neighbours with the median
    # error, so that there is a limit even if the forces of all neighbours vanish. The value of each configuration
    # itself is NaN among those of its neighbours, and is excluded from their median.
    neighbour_errors = _get_values_of_neighbours(fit.energy_rows, np.nan_to_num(errors.forces, nan=median))
    limits = MAX_FORCE_RATIO * np.maximum(np.nanmedian(neighbour_errors, axis=1), median)
    is_similar = errors.inflation < MAX_INFLATION_RATIO * np.median(errors.inflation)
    outliers = np.flatnonzero((errors.forces > np.maximum(limits, MIN_RELATIVE_FORCE_ERROR)) & is_similar)
    if not len(outliers):
        return ""
    outliers = outliers[np.argsort(-errors.forces[outliers])]
    return (
        f"the forces of {format_count(len(outliers), 'configuration')} contradict a linear model of the others (error "
        f"up to {100 * errors.forces[outliers[0]]:.0f} % of the forces, median {100 * median:.0f} %), "
        "as if they belonged to other configurations or to other atoms: "
        f"{list_first(ids[outliers])}"
    )


def describe_zero_forces(fit: LabelFit, errors: HeldOutErrors, forces: Sequence[Array], ids: Array) -> str:
    """Describe forces of exactly zero on atoms for which a model predicts a force; return "" for fewer than 3 atoms.

    `errors` are those of a fit to the forces only, `forces` the ``(N, 3)`` forces (eV/Å) of each configuration of the
    fit, and `ids` the ids of the configurations.
    """
    counts = np.zeros(len(forces), dtype=int)
    limit = MIN_PREDICTED_FORCE * errors.force_scale
    for k, (matrix, values) in enumerate(zip(fit.force_rows, forces, strict=True)):
        predicted_forces = (matrix @ errors.coefficients[errors.folds[k]]).reshape(-1, 3)
        counts[k] = np.count_nonzero(~values.any(axis=1) & (np.linalg.norm(predicted_forces, axis=1) > limit))
    if counts.sum() < MIN_ZERO_FORCE_ATOMS:
        return ""
    affected_positions = np.flatnonzero(counts)
    return (
        f"{counts.sum()} atoms in {format_count(len(affected_positions), 'configuration')} have a force of exactly "
        f"zero where a linear model predicts more than {limit:.3g} eV/Å (constrained atoms, or missing forces): "
        f"{list_first(ids[affected_positions])}"
    )


def _compare_with_neighbours(rows: Array, inflation: Array, deviations: Array) -> Array:
    """Return the distance of each deviation from the median of similar configurations, relative to their spread.

    The spread is the 75 % quantile of their distances from their median, but at least the median distance of all
    deviations from the median of all. If the model predicts a whole kind of structures badly, these structures are
    therefore not outliers. The ratio, ``(n,)``, is 0 for a structure unlike all others.

    Parameters
    ----------
    rows : (n, p) float64
        Descriptors.
    inflation : (n,) float64
        As in `HeldOutErrors`.
    deviations : (n,) float64
        Predicted minus labelled energies, eV/atom.
    """
    neighbour_deviations = _get_values_of_neighbours(rows, deviations)
    neighbour_medians = np.nanmedian(neighbour_deviations, axis=1)
    spreads = np.nanquantile(np.abs(neighbour_deviations - neighbour_medians[:, None]), 0.75, axis=1)
    typical_deviation = float(np.median(np.abs(deviations - np.median(deviations))))
    ratios = np.abs(deviations - neighbour_medians) / np.maximum(spreads, max(typical_deviation, np.finfo(float).tiny))
    return np.where(inflation < MAX_INFLATION_RATIO * np.median(inflation), ratios, 0.0)


def _get_values_of_neighbours(rows: Array, values: Array) -> Array:
    """Return the values of the `N_NEIGHBOURS` configurations most similar to each configuration.

    The result is ``(n, N_NEIGHBOURS + 1)``, because each configuration is its own neighbour, whose value is replaced by
    NaN; with fewer configurations, there are fewer columns.
    """
    descriptors = normalise_columns(rows)
    _, neighbours = cKDTree(descriptors).query(descriptors, k=min(N_NEIGHBOURS + 1, len(rows)))
    return np.where(neighbours != np.arange(len(rows))[:, None], values[neighbours], np.nan)
