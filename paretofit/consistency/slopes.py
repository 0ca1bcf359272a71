"""Slope of the labelled energies against energies that a fit to the forces alone predicts.

Energies at extreme pressures can dominate a fit to energies and forces. Differences between similar structures do not
have this problem: their slope is 1 if the units and signs of energies and forces agree.
"""

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from paretofit.consistency.hypotheses import FACTOR_RESOLUTION, Finding, Hypothesis
from paretofit.consistency.label_fit import HeldOutErrors, LabelFit, normalise_columns
from paretofit.core import Array

N_NEIGHBOURS = 6  # number of similar configurations with which a configuration is compared
MIN_CONFIGURATIONS = 40
# relative force error of a configuration; above it, the fit of its forces does not predict energies
MAX_FORCE_ERROR = 0.6


def explain_slope(
    fit: LabelFit, energies: Array, force_errors: HeldOutErrors, hypotheses: Sequence[Hypothesis]
) -> Finding | None:
    """Find the wrong units or signs whose correction makes differences of energies agree with the forces.

    A finding requires that three quarters of the pairs of similar configurations of equal composition have slopes above
    1.3, or three quarters below 1 / 1.3, and that both quartiles have the same sign. The slopes of the corrected labels
    must have a median between 1 / 1.3 and 1.3, and quartiles on both sides of 1.

    Parameters
    ----------
    fit : LabelFit
    energies : (n,) float64
        Energies per atom, eV.
    force_errors : HeldOutErrors
        Errors of a fit to the forces only.
    hypotheses : sequence of Hypothesis
        From `list_ratios`.

    Returns
    -------
    Finding or None
        None if the labels are consistent, no hypothesis explains them, or the fit predicts the forces of too few.
    """
    is_predictable = np.nan_to_num(force_errors.forces, nan=np.inf) < MAX_FORCE_ERROR
    if is_predictable.sum() < MIN_CONFIGURATIONS:
        return None
    i, j = _find_similar_pairs(fit.energy_rows, np.flatnonzero(is_predictable))
    # Forces do not determine how the energy depends on the composition, the rows' first columns.
    composition = fit.energy_rows[:, : fit.n_elements]
    is_alike = np.isclose(composition[i], composition[j]).all(axis=1)
    i, j = i[is_alike], j[is_alike]
    if len(i) < MIN_CONFIGURATIONS:
        return None
    coefficients = force_errors.coefficients[force_errors.folds[i]]
    predictions = np.einsum("ki,ki->k", fit.energy_rows[i] - fit.energy_rows[j], coefficients)
    is_large = np.abs(predictions) >= np.median(np.abs(predictions))  # small differences have uncertain slopes
    i, j, predictions = i[is_large], j[is_large], predictions[is_large]

    def compute_quartiles(values: Array) -> Array:
        targets = values - fit.energy_rows[:, : fit.n_elements] @ fit.fit_composition(values)
        return np.asarray(np.quantile((targets[i] - targets[j]) / predictions, [0.25, 0.5, 0.75]))

    quartiles = compute_quartiles(energies)
    is_near_one = quartiles[0] < FACTOR_RESOLUTION and quartiles[2] > 1 / FACTOR_RESOLUTION
    if is_near_one or quartiles[0] * quartiles[2] < 0:
        return None
    distances = {}
    for hypothesis in hypotheses:
        low, median, high = compute_quartiles(energies * hypothesis.energy_factor)
        if 1 / FACTOR_RESOLUTION < median < FACTOR_RESOLUTION and low < 1 < high:
            distances[hypothesis.causes] = abs(float(np.log(median)))
    if not distances:
        return None
    certainty = (
        f"energies change {quartiles[1]:.3g} times as much between similar configurations as a linear model of the "
        f"forces predicts; half of the {len(i)} pairs are between {quartiles[0]:.3g} and {quartiles[2]:.3g}"
    )
    return Finding([cause for causes in sorted(distances, key=distances.__getitem__) for cause in causes], certainty)


def _find_similar_pairs(rows: Array, positions: Array) -> tuple[Array, Array]:
    """Return pairs of different configurations, among those at `positions`, with similar descriptors."""
    descriptors = normalise_columns(rows)[positions]
    _, neighbours = cKDTree(descriptors).query(descriptors, k=N_NEIGHBOURS + 1)  # each is its own neighbour
    i, j = np.repeat(positions, N_NEIGHBOURS + 1), positions[neighbours.ravel()]
    return i[i != j], j[i != j]
