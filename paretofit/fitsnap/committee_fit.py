"""Committee of a FitSNAP fit, made by resampling the training part and calibrated on the testing part."""

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
    """Raise `InputError` if the solver is RIDGE, a setting is invalid, or the testing part is too small."""
    if settings.solver.name == "RIDGE":
        raise InputError(f"{settings.path}: a committee of a RIDGE fit is not supported; use 'solver = SVD'")
    committee.check(is_training.count(False) or None)


def build_fitsnap_committee(
    potential: LinearPotential,
    rows: FitRows,
    settings: FitsnapInput,
    n_excluded_columns: int,
    committee: CommitteeSettings,
    structures_and_flags: tuple[list[Atoms], list[bool]],
    context: RunContext,
) -> LinearPotential:
    """Resample the training configurations, and return the potential with a committee around the fit."""
    training_rows = rows.select(rows.is_training)
    X = training_rows.X.copy()
    X[:, :n_excluded_columns] = 0.0  # these columns are not part of the fit
    configurations, group_numbers = np.unique(training_rows.configuration, return_inverse=True)
    blocks, weights = build_part(X, training_rows.y, training_rows.weight, group_numbers)
    rng = np.random.default_rng([committee.seed, 0])
    fit = CommitteeFit.from_parts(blocks, np.arange(len(configurations)), weights, rng)
    pairs = list(zip(*structures_and_flags, strict=True))
    testing_structures = [atoms for atoms, is_training in pairs if not is_training]
    energy_weights = training_rows.weight[training_rows.kind == RowKind.ENERGY]
    return build_committee(
        potential.basis,
        fit,
        committee,
        [atoms for atoms, is_training in pairs if is_training],
        LabelledStructures(
            testing_structures,
            [_read_labels(atoms, has_stress=settings.calculator.stress) for atoms in testing_structures],
        ),
        centre=potential.coefficients,
        reference=potential.reference,
        energy_weight=float(np.median(energy_weights)) if len(energy_weights) else 1.0,
        context=context,
    )


def _read_labels(atoms: Atoms, *, has_stress: bool) -> StructureLabels:
    """Return the stored labels of a structure; missing labels, and the stress if it is not fitted, are NaN."""
    results: dict[str, Any] = {} if atoms.calc is None else atoms.calc.results
    stress = results.get("stress") if has_stress else None
    return StructureLabels(
        results.get("energy", np.nan),
        np.asarray(results.get("forces", np.full((len(atoms), 3), np.nan))),
        np.full(6, np.nan) if stress is None else np.asarray(stress),
    )
