"""The committee of a FitSNAP input: configurations are drawn, each by itself, and its testing part calibrates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from paretofit.core import InputError, RowKind
from paretofit.potentials import CommitteeSettings, LabelledStructures, StructureLabels, build_committee
from paretofit.uncertainty import CommitteeFit, part_from_arrays

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from paretofit.fitsnap.group_weights import FitRows
    from paretofit.fitsnap.input_file import FitsnapInput
    from paretofit.potentials import LinearPotential


def check_fitsnap_committee(committee: CommitteeSettings, settings: FitsnapInput, training: Sequence[bool]) -> None:
    """Refuse what cannot be, before anything is computed."""
    if settings.solver.name == "RIDGE":
        raise InputError(f"{settings.path}: a committee of a RIDGE fit is not supported; use 'solver = SVD'")
    committee.check(training.count(False) or None)


def build_fitsnap_committee(
    potential: LinearPotential,
    rows: FitRows,
    settings: FitsnapInput,
    n_excluded_columns: int,
    committee: CommitteeSettings,
    structures_and_flags: tuple[list[Atoms], list[bool]],
    jobs: int,
    progress: bool,
) -> LinearPotential:
    """The committee around a fit; configurations are drawn, each by itself."""
    own = rows.is_training
    X = rows.X[own].copy()
    X[:, :n_excluded_columns] = 0.0  # no column of the fit
    names, number = np.unique(rows.configuration[own], return_inverse=True)
    blocks, weights = part_from_arrays(X, rows.y[own], rows.weight[own], number)
    fit = CommitteeFit.from_parts(blocks, np.arange(len(names)), weights, np.random.default_rng([committee.seed, 0]))
    aside = [atoms for atoms, trains in zip(*structures_and_flags, strict=True) if not trains]
    energy = rows.weight[own][rows.kind[own] == RowKind.ENERGY]
    return build_committee(
        potential.basis,
        fit,
        committee,
        [atoms for atoms, trains in zip(*structures_and_flags, strict=True) if trains],
        LabelledStructures(aside, [_labels(atoms, settings) for atoms in aside]),
        centre=potential.coefficients,
        reference=potential.reference,
        energy_weight=float(np.median(energy)) if len(energy) else 1.0,
        jobs=jobs,
        progress=progress,
    )


def _labels(atoms: Atoms, settings: FitsnapInput) -> StructureLabels:
    """Labels of a structure, energies on the scale of the fit; stresses where they count."""
    results: dict[str, Any] = {} if atoms.calc is None else atoms.calc.results
    shift = sum(settings.eshift.get(one, 0.0) for one in atoms.get_chemical_symbols())
    stress = results.get("stress") if settings.calculator.stress else None
    return StructureLabels(
        results.get("energy", np.nan) + shift,
        np.asarray(results.get("forces", np.full((len(atoms), 3), np.nan))),
        np.full(6, np.nan) if stress is None else np.asarray(stress),
    )
