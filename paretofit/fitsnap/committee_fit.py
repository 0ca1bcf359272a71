"""Committee of a FitSNAP fit, from resampled training configurations, with a calibration on the testing part."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.core import InputError, RowKind
from paretofit.execution import RunContext
from paretofit.fitsnap.group_weights import FitRows
from paretofit.fitsnap.input_file import FitsnapInput
from paretofit.potentials import (
    CommitteeSettings,
    LabelledStructures,
    LinearPotential,
    StructureLabels,
    build_committee,
)
from paretofit.uncertainty import CommitteeFit, build_part


def check_fitsnap_committee(committee: CommitteeSettings, settings: FitsnapInput, is_training: Sequence[bool]) -> None:
    """Check, before anything is computed, that a committee with these settings can be fitted.

    `is_training` has an entry for each configuration. An empty testing part is accepted; the committee then has no
    calibration.

    Raises
    ------
    InputError
        If the solver is RIDGE, a setting of the committee is invalid, or the testing part is too small (but not empty).
    """
    if settings.solver.name == "RIDGE":
        raise InputError(f"{settings.path}: a committee of a RIDGE fit is not supported; use 'solver = SVD'")
    n_testing = is_training.count(False)
    committee.check(n_testing or None)  # None: no calibration


def build_fitsnap_committee(
    potential: LinearPotential,
    rows: FitRows,
    settings: FitsnapInput,
    n_excluded_columns: int,
    committee: CommitteeSettings,
    structures_and_flags: tuple[list[Atoms], list[bool]],
    context: RunContext,
) -> LinearPotential:
    """Fit a committee by resampling the training configurations, and calibrate it on the testing configurations.

    Parameters
    ----------
    potential : LinearPotential
        Fit of the training rows; the mean of the committee has its coefficients.
    rows : FitRows
    settings : FitsnapInput
    n_excluded_columns : int
        Number of leading columns of `rows.X` that are not fitted; their coefficients are zero.
    committee : CommitteeSettings
    structures_and_flags : (list of ase.Atoms, list of bool)
        All structures with their stored labels, and for each whether it is in the training part.
    context : RunContext

    Returns
    -------
    LinearPotential
        The committee with its uncertainty.

    Raises
    ------
    InputError
        As in `CommitteeFit.from_parts` and `build_committee`.
    """
    training_rows = rows.select(rows.is_training)
    X = training_rows.X.copy()
    X[:, :n_excluded_columns] = 0.0  # zero columns have zero coefficients
    configurations, configuration_numbers = np.unique(training_rows.configuration, return_inverse=True)
    part, unit_weights = build_part(X, training_rows.y, training_rows.weight, configuration_numbers)
    rng = np.random.default_rng([committee.seed, 0])
    fit = CommitteeFit.from_parts(part, np.arange(len(configurations)), unit_weights, rng)
    pairs = list(zip(*structures_and_flags, strict=True))
    training_structures = [atoms for atoms, is_training in pairs if is_training]
    testing_structures = [atoms for atoms, is_training in pairs if not is_training]
    testing_labels = [_read_labels(atoms, has_stress=settings.calculator.stress) for atoms in testing_structures]
    energy_weights = training_rows.weight[training_rows.kind == RowKind.ENERGY]
    return build_committee(
        potential.basis,
        fit,
        committee,
        training_structures,
        LabelledStructures(testing_structures, testing_labels),
        centre=potential.coefficients,
        reference=potential.reference,
        energy_weight=float(np.median(energy_weights)) if len(energy_weights) else 1.0,
        context=context,
    )


def _read_labels(atoms: Atoms, *, has_stress: bool) -> StructureLabels:
    """Return the labels stored in a structure; missing labels are NaN, and so is the stress without `has_stress`."""
    stored_labels: dict[str, Any] = {} if atoms.calc is None else atoms.calc.results
    stress = stored_labels.get("stress") if has_stress else None
    return StructureLabels(
        stored_labels.get("energy", np.nan),
        np.asarray(stored_labels.get("forces", np.full((len(atoms), 3), np.nan))),
        np.full(6, np.nan) if stress is None else np.asarray(stress),
    )
