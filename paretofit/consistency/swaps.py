"""Labels of two configurations that were swapped: both are predicted much better from the structure of the other.

In small cells, and where forces are small, a wrong label is no outlier by itself, because the error of a model may be
as large; but that two wrong labels become right by an exchange is no chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from paretofit.consistency.label_fit import HeldOutErrors, LabelFit
from paretofit.core import Array

# Gains by the exchange, each in logarithms of 1 + (error / typical error)², summed over both configurations. Without
# swapped labels, the largest gain of forces was 1.74 (the total, too) among all pairs of the sets of
# tests/benchmarks/bench_corruptions.py, with every level and 18 random subsets of each; with swapped labels, it is 2.2
# to 7.5, and the total 3.4 to 24.
MIN_FORCE_GAIN = 2.0
MIN_TOTAL_GAIN = 3.0
MIN_FORCE_ERROR = 0.01  # of the median force; smaller errors are rounding
MAX_LISTED_PAIRS = 5


@dataclass(frozen=True)
class _Pair:
    """Two configurations by position, and what the exchange of their labels gains."""

    first: int
    second: int
    gain: float


def describe_swapped_labels(
    fit: LabelFit,
    errors: HeldOutErrors,
    force_errors: HeldOutErrors,
    labels: tuple[Array, Sequence[Array]],
    ids: Array,
) -> str:
    """Describe pairs of configurations of equal composition whose labels are swapped; an empty string if none are.

    Parameters
    ----------
    fit : LabelFit
    errors, force_errors : HeldOutErrors
        Of a fit to energies and forces, and of a fit to forces only.
    labels : ((n,) float64, sequence of (N, 3) float64)
        Energies per atom, eV, and forces, eV/Å.
    ids : (n,) int64
    """
    pairs = sorted(_find_pairs(fit, errors, force_errors, labels), key=lambda pair: -pair.gain)
    used: set[int] = set()
    texts = []
    for pair in pairs:
        if not {pair.first, pair.second} & used:
            used |= {pair.first, pair.second}
            texts.append(f"{ids[pair.first]} and {ids[pair.second]}")
    if not texts:
        return ""
    listed = "; ".join(texts[:MAX_LISTED_PAIRS]) + ("; ..." if len(texts) > MAX_LISTED_PAIRS else "")
    return (
        "the labels of two configurations look swapped: a linear model of the others predicts both much better if they "
        f"are exchanged: configurations {listed}"
    )


def _find_pairs(
    fit: LabelFit, errors: HeldOutErrors, force_errors: HeldOutErrors, labels: tuple[Array, Sequence[Array]]
) -> Iterator[_Pair]:
    energies, forces = labels
    targets = (energies - fit.energy_rows[:, : fit.n_elements] @ errors.composition) / errors.energy_spread
    energy_scale = max(float(np.median(np.abs(errors.energy))), np.finfo(float).tiny)
    force_scale = max(float(np.nanmedian(force_errors.forces)), MIN_FORCE_ERROR) * force_errors.force_scale
    formulas = np.array([str(atoms.symbols) for atoms in fit.structures])  # with the order of the atoms
    for formula in np.unique(formulas):
        members = np.flatnonzero(formulas == formula)
        if len(members) < 2 or fit.n_atoms[members[0]] < 2:
            continue
        coefficients = force_errors.coefficients[force_errors.folds[members]]
        predicted = np.array([fit.force_rows[k] @ b for k, b in zip(members, coefficients, strict=True)])
        actual = np.array([forces[k].ravel() for k in members.tolist()])
        squares = (predicted**2).sum(axis=1)[:, None] + (actual**2).sum(axis=1) - 2 * predicted @ actual.T
        force_gain = _compute_gains(np.maximum(squares, 0) / (predicted.shape[1] * force_scale**2))
        predicted_energies = errors.energy[members] + targets[members]
        gain = force_gain + _compute_gains(((predicted_energies[:, None] - targets[members]) / energy_scale) ** 2)
        is_swapped = np.triu((force_gain > MIN_FORCE_GAIN) & (gain > MIN_TOTAL_GAIN), 1)
        for i, j in np.argwhere(is_swapped):
            yield _Pair(int(members[i]), int(members[j]), float(gain[i, j]))


def _compute_gains(squares: Array) -> Array:
    """Return by how much the exchange of labels i and j lowers the losses, ``(n, n)``.

    Parameters
    ----------
    squares : (n, n) float64
        Square of the error, relative to the typical error, of the prediction for structure i as an estimate of label j.
    """
    losses = np.log1p(squares)
    loss = np.diag(losses)
    return np.asarray(loss[:, None] + loss - losses - losses.T)
