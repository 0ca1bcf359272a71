"""Labels of single configurations that a linear model of the others contradicts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from paretofit.consistency.label_fit import HeldOutErrors, LabelFit
from paretofit.core import Array, list_first

N_NEIGHBOURS = 8  # similar configurations that an error is compared with
# Limits of an energy error relative to those of similar configurations, and in eV/atom: either pair is exceeded.
ENERGY_LIMITS = ((10.0, 0.06), (40.0, 0.01))
MAX_FORCE_RATIO = 5.0
MAX_INFLATION_RATIO = 1.2  # of the expected error; configurations above it are unlike all others
MAX_FORCE_ERROR = 0.9  # of the forces; 1 is the error of predicting no force at all
MIN_PREDICTED_FORCE = 0.3  # of the median force; labels of zero are contradicted above it
MIN_ZERO_FORCE_ATOMS = 3
MAX_LISTED_ITEMS = 5


def describe_energy_outliers(
    fit: LabelFit,
    errors: HeldOutErrors,
    ids: Array,
    others: Sequence[Atoms],
    other_energies: Array,
    other_ids: Array,
) -> str:
    """Describe energies that deviate from a model of the other configurations; an empty string if none does.

    Parameters
    ----------
    fit : LabelFit
    errors : HeldOutErrors
    ids : (n,) int64
        Ids of the configurations of the fit.
    others : sequence of ase.Atoms
        More configurations with the elements of the fit.
    other_energies : (n_others,) float64
        Their energies per atom, eV.
    other_ids : (n_others,) int64
    """
    sizes, inflation, rows = np.abs(errors.energy) * errors.energy_spread, errors.inflation, fit.energy_rows
    if others:
        predictions, other_inflation, other_rows = fit.predict_energies(errors, others)
        sizes = np.concatenate([sizes, np.abs(predictions - other_energies)])
        inflation = np.concatenate([inflation, other_inflation])
        rows, ids = np.concatenate([rows, other_rows]), np.concatenate([ids, other_ids])
    ratios = _compare_with_neighbours(rows, inflation, sizes)
    is_outlier = np.any([(ratios > ratio) & (sizes > size) for ratio, size in ENERGY_LIMITS], axis=0)
    outliers = np.flatnonzero(is_outlier)
    if not len(outliers):
        return ""
    outliers = outliers[np.argsort(-ratios[outliers])]
    return (
        f"the energies of {len(outliers)} configurations deviate from a linear model of the others by up to "
        f"{sizes[outliers[0]]:.3g} eV/atom ({ratios[outliers[0]]:.0f} times the error of similar configurations): "
        f"configurations {list_first(ids[outliers], MAX_LISTED_ITEMS)}"
    )


def describe_force_outliers(fit: LabelFit, errors: HeldOutErrors, ids: Array) -> str:
    """Describe forces that contradict a model of the other configurations; an empty string if none does."""
    ratios = _compare_with_neighbours(fit.energy_rows, errors.inflation, errors.forces)
    outliers = np.flatnonzero((errors.forces > MAX_FORCE_ERROR) & (ratios > MAX_FORCE_RATIO))
    if not len(outliers):
        return ""
    outliers = outliers[np.argsort(-errors.forces[outliers])]
    return (
        f"the forces of {len(outliers)} configurations contradict a linear model of the others (error up to "
        f"{100 * errors.forces[outliers[0]]:.0f} % of the forces, median {100 * np.nanmedian(errors.forces):.0f} %), "
        "as if they belonged to other configurations or to other atoms: configurations "
        f"{list_first(ids[outliers], MAX_LISTED_ITEMS)}"
    )


def describe_zero_forces(fit: LabelFit, errors: HeldOutErrors, forces: Sequence[Array], ids: Array) -> str:
    """Describe forces of exactly zero on atoms for which a model predicts a force; an empty string if none is."""
    counts = np.zeros(len(forces), dtype=int)
    limit = MIN_PREDICTED_FORCE * errors.force_scale
    for k, (matrix, values) in enumerate(zip(fit.force_rows, forces, strict=True)):
        predicted = (matrix @ errors.coefficients[errors.folds[k]]).reshape(-1, 3)
        counts[k] = np.count_nonzero(~values.any(axis=1) & (np.linalg.norm(predicted, axis=1) > limit))
    if counts.sum() < MIN_ZERO_FORCE_ATOMS:
        return ""
    affected = np.flatnonzero(counts)
    return (
        f"{counts.sum()} atoms in {len(affected)} configurations have a force of exactly zero where a linear model "
        f"predicts more than {limit:.3g} eV/Å (constrained atoms, or missing forces): configurations "
        f"{list_first(ids[affected], MAX_LISTED_ITEMS)}"
    )


def _compare_with_neighbours(rows: Array, inflation: Array, sizes: Array) -> Array:
    """Return errors relative to those of similar configurations, ``(n,)``; 0 where no configuration is similar.

    A kind of structure that the model predicts badly is not an outlier, and neither is a structure unlike all others.

    Parameters
    ----------
    rows : (n, p) float64
        Descriptors.
    inflation : (n,) float64
    sizes : (n,) float64
        Magnitudes of the errors; NaN where there is none.
    """
    typical = float(np.nanmedian(sizes)) if np.isfinite(sizes).any() else np.inf
    scales = rows.std(axis=0)
    descriptors = rows / np.where(scales > 0, scales, 1.0)
    _, neighbours = cKDTree(descriptors).query(descriptors, k=min(N_NEIGHBOURS + 1, len(rows)))
    is_other = neighbours != np.arange(len(rows))[:, None]
    others = np.where(is_other, np.nan_to_num(sizes, nan=typical)[neighbours], np.nan)
    ratios = sizes / np.maximum(np.nanmedian(others, axis=1), max(typical, np.finfo(float).tiny))
    return np.nan_to_num(np.where(inflation < MAX_INFLATION_RATIO * np.median(inflation), ratios, 0.0))
