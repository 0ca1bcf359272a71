"""Detection of swapped labels of two configurations: a model predicts them much better if they are exchanged.

In small cells, and where forces are small, a wrong label may not be an outlier, because errors of the model can be as
large. It is unlikely, however, that an exchange reduces the errors of both configurations by chance.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from paretofit.consistency.label_fit import HeldOutErrors, LabelFit
from paretofit.core import Array

# The gain of an exchange is the decrease of log(1 + (error / typical error)²), summed over both configurations. Among
# all pairs of the data sets of tests/benchmarks/bench_corruptions.py (every level, and 18 random subsets of each), the
# largest gain without swapped labels was 1.74, for forces as well as in total. With swapped labels, gains are 2.2 to
# 7.5 for forces, and 3.4 to 24 in total.
MIN_FORCE_GAIN = 2.0
MIN_TOTAL_GAIN = 3.0
MIN_FORCE_ERROR = 0.01  # ratio to the median force; smaller errors are rounding
MAX_LISTED_PAIRS = 5  # number of pairs that the warning lists


def describe_swapped_labels(
    fit: LabelFit,
    errors: HeldOutErrors,
    force_errors: HeldOutErrors,
    labels: tuple[Array, Sequence[Array]],
    ids: Array,
) -> str:
    """Describe pairs of configurations whose labels seem to be swapped; return "" if there are none.

    The configurations of a pair have the same atoms in the same order. Each configuration is in one pair at most, the
    pair with the largest gain.

    Parameters
    ----------
    fit : LabelFit
        Descriptor rows of the configurations.
    errors, force_errors : HeldOutErrors
        Errors of a fit to energies and forces, and of a fit to forces only.
    labels : ((n,) float64, sequence of (N, 3) float64)
        Energies per atom, eV, and forces, eV/Å.
    ids : (n,) int64
        Ids of the configurations of the fit.
    """
    used_positions: set[int] = set()
    pair_texts = []
    swaps = sorted(_find_swaps(fit, errors, force_errors, labels), key=lambda swap: -swap[0])  # largest gain first
    for _, i, j in swaps:
        if not used_positions & {i, j}:
            used_positions |= {i, j}
            pair_texts.append(f"{ids[i]} and {ids[j]}")
    if not pair_texts:
        return ""
    pair_list = "; ".join(pair_texts[:MAX_LISTED_PAIRS]) + ("; ..." if len(pair_texts) > MAX_LISTED_PAIRS else "")
    return (
        f"the labels of configurations {pair_list} seem to be swapped: a linear model that was fitted to the other "
        "configurations predicts the labels of a pair much better if they are exchanged"
    )


def _find_swaps(
    fit: LabelFit, errors: HeldOutErrors, force_errors: HeldOutErrors, labels: tuple[Array, Sequence[Array]]
) -> Iterator[tuple[float, int, int]]:
    """Yield the total gain and the two positions of each pair of configurations whose labels seem to be swapped."""
    energies, forces = labels
    targets = (energies - fit.energy_rows[:, : fit.n_elements] @ errors.composition) / errors.energy_spread
    energy_scale = max(float(np.median(np.abs(errors.energy))), np.finfo(float).tiny)
    force_scale = max(float(np.nanmedian(force_errors.forces)), MIN_FORCE_ERROR) * force_errors.force_scale
    formulas = np.array([str(atoms.symbols) for atoms in fit.structures])  # equal only for the same order of the atoms
    for formula in np.unique(formulas):
        members = np.flatnonzero(formulas == formula)
        if len(members) < 2 or fit.n_atoms[members[0]] < 2:
            continue
        coefficients = force_errors.coefficients[force_errors.folds[members]]
        predictions = np.array([fit.force_rows[k] @ beta for k, beta in zip(members, coefficients, strict=True)])
        labelled_forces = np.array([forces[k].ravel() for k in members.tolist()])
        # Squared distance of every prediction i from every label j, expanded into products to save memory.
        squares = (predictions**2).sum(axis=1)[:, None] + (labelled_forces**2).sum(axis=1)
        squares -= 2 * predictions @ labelled_forces.T
        # Rounding may give negative squares.
        force_gain = _compute_gains(np.maximum(squares, 0) / (predictions.shape[1] * force_scale**2))
        predicted_energies = errors.energy[members] + targets[members]
        gain = force_gain + _compute_gains(((predicted_energies[:, None] - targets[members]) / energy_scale) ** 2)
        is_swapped = np.triu((force_gain > MIN_FORCE_GAIN) & (gain > MIN_TOTAL_GAIN), 1)
        for i, j in np.argwhere(is_swapped):
            yield float(gain[i, j]), int(members[i]), int(members[j])


def _compute_gains(squares: Array) -> Array:
    """Return ``(n, n)`` gains: by how much the exchange of labels i and j lowers the sum of their losses log(1 + e²).

    Parameters
    ----------
    squares : (n, n) float64
        Squares e² of the difference of prediction i and label j, relative to the typical error.
    """
    exchanged_losses = np.log1p(squares)
    unexchanged_losses = np.diag(exchanged_losses)
    return np.asarray(unexchanged_losses[:, None] + unexchanged_losses - exchanged_losses - exchanged_losses.T)
