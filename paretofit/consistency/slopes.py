"""Slope of labelled energy differences against those that a fit to the forces alone predicts.

Energies at extreme pressures can dominate a fit to energies and forces. Energy differences between similar structures
do not have this problem: their slope is 1 if the units and signs of energies and forces agree.
"""

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from paretofit.consistency.hypotheses import FACTOR_RESOLUTION, Finding, Hypothesis
from paretofit.consistency.label_fit import HeldOutErrors, LabelFit, normalise_columns
from paretofit.core import Array

N_NEIGHBOURS = 6  # number of similar configurations with which a configuration is compared
MIN_CONFIGURATIONS = 40  # number of configurations with small force errors, and number of pairs of them
MAX_FORCE_ERROR = 0.6  # relative force error of a configuration above which the fit does not predict its energy


def explain_slope(
    fit: LabelFit, energies: Array, force_errors: HeldOutErrors, hypotheses: Sequence[Hypothesis]
) -> Finding | None:
    """Find the wrong units or signs whose correction makes differences of energies agree with the forces.

    A slope is the labelled energy difference of two similar configurations of equal composition, divided by the
    predicted one. A finding requires that three quarters of the slopes are above 1.3, or three quarters below 1 / 1.3,
    and that the first and the third quartile have the same sign. The slopes of the corrected labels must have a median
    between 1 / 1.3 and 1.3, and these quartiles on opposite sides of 1.

    Parameters
    ----------
    fit : LabelFit
        Descriptor rows of the configurations.
    energies : (n,) float64
        Energies per atom, eV.
    force_errors : HeldOutErrors
        Errors of a fit to the forces only.
    hypotheses : sequence of Hypothesis
        From `list_ratio_hypotheses`.

    Returns
    -------
    Finding or None
        None if the labels are consistent, no hypothesis explains them, or the fit predicts the forces of too few
        configurations.
    """
    is_predictable = np.nan_to_num(force_errors.forces, nan=np.inf) < MAX_FORCE_ERROR
    if is_predictable.sum() < MIN_CONFIGURATIONS:
        return None
    i, j = _find_similar_pairs(fit.energy_rows, np.flatnonzero(is_predictable))
    # Forces do not determine how the energy depends on the composition, which the first columns of the rows contain.
    composition = fit.energy_rows[:, : fit.n_elements]
    has_equal_composition = np.isclose(composition[i], composition[j]).all(axis=1)
    i, j = i[has_equal_composition], j[has_equal_composition]
    if len(i) < MIN_CONFIGURATIONS:
        return None
    coefficients = force_errors.coefficients[force_errors.folds[i]]
    predictions = np.einsum("ki,ki->k", fit.energy_rows[i] - fit.energy_rows[j], coefficients)
    is_large = np.abs(predictions) >= np.median(np.abs(predictions))  # small differences have uncertain slopes
    i, j, predictions = i[is_large], j[is_large], predictions[is_large]

    def compute_quartiles(energies_per_atom: Array) -> Array:
        """Return the three quartiles of the slopes of all pairs."""
        targets = energies_per_atom - composition @ fit.fit_composition(energies_per_atom)
        return np.asarray(np.quantile((targets[i] - targets[j]) / predictions, [0.25, 0.5, 0.75]))

    quartiles = compute_quartiles(energies)
    is_consistent = quartiles[0] < FACTOR_RESOLUTION and quartiles[2] > 1 / FACTOR_RESOLUTION
    if is_consistent or quartiles[0] * quartiles[2] < 0:
        return None
    distances = {}  # of the median slope from 1, by causes
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
    """Return the positions i and j, ``(n_pairs,)``, of pairs of similar configurations among those at `positions`.

    Each configuration i is paired with the `N_NEIGHBOURS` configurations j with the most similar descriptors.
    """
    descriptors = normalise_columns(rows)[positions]
    _, neighbours = cKDTree(descriptors).query(descriptors, k=N_NEIGHBOURS + 1)  # each is its own neighbour
    i, j = np.repeat(positions, N_NEIGHBOURS + 1), positions[neighbours.ravel()]
    return i[i != j], j[i != j]
