"""The committee of a FitSNAP input: configurations are drawn, each by itself, and its testing part calibrates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from paretofit.core import InputError, RowKind
from paretofit.potentials import CommitteeSettings, Labelled, Labels, committee_potential
from paretofit.uncertainty import CommitteeFit, array_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from paretofit.fitsnap.group_weights import FitRows
    from paretofit.fitsnap.input_file import FitsnapInput
    from paretofit.potentials import LinearPotential


def check_committee(committee: CommitteeSettings, settings: FitsnapInput, training: Sequence[bool]) -> None:
    """Refuse what cannot be, before anything is computed."""
    if settings.solver.name == "RIDGE":
        raise InputError(f"{settings.path}: a committee of a RIDGE fit is not supported; use 'solver = SVD'")
    committee.check(training.count(False) or None)


def fitsnap_committee(
    fitted: LinearPotential,
    rows: FitRows,
    settings: FitsnapInput,
    free: int,
    committee: CommitteeSettings,
    used: tuple[list[Atoms], list[bool]],
    jobs: int,
    progress: bool,
) -> LinearPotential:
    """The committee around a fit; configurations are drawn, each by itself."""
    own = rows.training
    X = rows.X[own].copy()
    X[:, :free] = 0.0  # no column of the fit
    names, number = np.unique(rows.configuration[own], return_inverse=True)
    blocks, weights = array_blocks(X, rows.y[own], rows.weight[own], number)
    fit = CommitteeFit.of(blocks, np.arange(len(names)), weights, np.random.default_rng([committee.seed, 0]))
    aside = [atoms for atoms, trains in zip(*used, strict=True) if not trains]
    energy = rows.weight[own][rows.kind[own] == RowKind.ENERGY]
    return committee_potential(
        fitted.basis,
        fit,
        committee,
        [atoms for atoms, trains in zip(*used, strict=True) if trains],
        Labelled(aside, [_labels(atoms, settings) for atoms in aside]),
        centre=fitted.coefficients,
        reference=fitted.reference,
        energy_weight=float(np.median(energy)) if len(energy) else 1.0,
        jobs=jobs,
        progress=progress,
    )


def _labels(atoms: Atoms, settings: FitsnapInput) -> Labels:
    """Labels of a structure, energies on the scale of the fit; stresses where they count."""
    results: dict[str, Any] = {} if atoms.calc is None else atoms.calc.results
    shift = sum(settings.eshift.get(one, 0.0) for one in atoms.get_chemical_symbols())
    stress = results.get("stress") if settings.calculator.stress else None
    return Labels(
        results.get("energy", np.nan) + shift,
        np.asarray(results.get("forces", np.full((len(atoms), 3), np.nan))),
        np.full(6, np.nan) if stress is None else np.asarray(stress),
    )
