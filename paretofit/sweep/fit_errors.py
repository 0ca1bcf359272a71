"""Errors of fits from factors, on their training rows and on the test set."""

from __future__ import annotations

from paretofit.core import Array, RowKind
from paretofit.linear import Reduction
from paretofit.linear.reduction import RowFactors
from paretofit.properties import PropertyRows
from paretofit.sweep.plain_engine import EV_TO_MEV, prefix_errors


def compute_fit_errors(
    reduction: Reduction,
    factors: RowFactors,
    delta: Array,
    level: int | None = None,
    properties: PropertyRows | None = None,
) -> dict[str, Array]:
    """Compute the errors and the properties of fits by their columns in the results table.

    Parameters
    ----------
    reduction : Reduction
    factors : RowFactors
        Factors of the training rows.
    delta, level
        As for `WhitenedBasis.pair_with_reference`.
    properties : PropertyRows, optional
        Properties whose rows are whitened.

    Returns
    -------
    errors : mapping of str to (n_fits * n_levels,) float64
        Errors on the training rows and on the test set, in meV/atom, meV/Å and MPa, of the kinds of rows that are
        present; then the columns of `PropertyRows.evaluate`.
    """
    train_rms = factors.compute_rms(delta, level)
    test_rms = reduction.compute_test_rms(delta, level)
    errors = prefix_errors("train", {kind: rms.own_level for kind, rms in train_rms.items()})
    errors |= prefix_errors("train_ref", {kind: rms.reference_level for kind, rms in train_rms.items()})
    errors |= prefix_errors("test", {kind: rms.own_level for kind, rms in test_rms.items()})
    errors |= prefix_errors("ref", {kind: rms.reference_level for kind, rms in test_rms.items()})
    if RowKind.ENERGY in test_rms:
        errors["ref_energy_shifted"] = EV_TO_MEV * test_rms[RowKind.ENERGY].centred_reference
    if properties is not None:
        errors |= properties.evaluate(properties.rows @ reduction.add_baseline(delta, level))
    return errors
