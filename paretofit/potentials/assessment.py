"""Batch prediction: assess many structures with a committee, and collect its errors on labelled ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from ase import Atoms

from paretofit.core import Array, RowKind, get_shared_lammps
from paretofit.descriptors import SnapBasis, compute_atom_descriptors, map_structures
from paretofit.execution import RunContext
from paretofit.potentials.committee_potential import CommitteePotential
from paretofit.potentials.prediction import StructureLabels
from paretofit.uncertainty import Assessment, CalibrationData, EnvironmentGrade

MIN_ATOMS_PER_COLUMN = 2  # atoms for each column; with fewer, grades are computed from the linear descriptors


def assess_all(
    potential: CommitteePotential, structures: Sequence[Atoms], context: RunContext, *, coverage: float | None = None
) -> list[Assessment]:
    """Assess every structure with a committee, in parallel; results are in their order."""
    return map_structures(partial(_assess, coverage=coverage), potential, structures, "assess", context)


def predict_all(
    potential: CommitteePotential, structures: Sequence[Atoms], context: RunContext
) -> list[StructureLabels]:
    """Predict energy, forces and stress of every structure, with the mean of a committee."""
    return map_structures(_predict, potential.without_uncertainty(), structures, "evaluate", context)


def predict_spreads(
    potential: CommitteePotential, structures: Sequence[Atoms], context: RunContext
) -> list[tuple[StructureLabels, StructureLabels]]:
    """Means and standard deviations over the members of a committee for every structure; energies per atom, eV."""
    return map_structures(_predict_spread, potential, structures, "held out", context)


def collect_calibration_data(
    predicted: Sequence[tuple[StructureLabels, StructureLabels]],
    labels: Sequence[StructureLabels],
    n_atoms: Sequence[int],
    groups: Array,
) -> dict[RowKind, CalibrationData]:
    """Spreads and residuals of labelled structures for a calibration; kinds without any label are omitted.

    Parameters
    ----------
    predicted : sequence of (StructureLabels, StructureLabels)
        From `predict_spreads`.
    labels : sequence of StructureLabels
    n_atoms : sequence of int
    groups : (n,) int
        Group of each structure; structures of different groups are exchangeable.
    """
    calibration = {}
    for kind, name in ((RowKind.ENERGY, "energy"), (RowKind.FORCE, "forces"), (RowKind.STRESS, "stress")):
        parts = []
        for k, ((mean, spread), label) in enumerate(zip(predicted, labels, strict=True)):
            scale = n_atoms[k] if kind == RowKind.ENERGY else 1
            residual = np.ravel(getattr(label, name)) / scale - np.ravel(getattr(mean, name))
            part = np.array([np.ravel(getattr(spread, name)), residual, np.full(residual.shape, k)])
            parts.append(part[:, np.isfinite(residual)])
        spreads, residuals, numbers = np.concatenate([np.empty((3, 0)), *parts], axis=1)
        if len(spreads):
            owner = numbers.astype(np.int64)
            calibration[kind] = CalibrationData(spreads, residuals, owner, np.asarray(groups, dtype=np.int64)[owner])
    return calibration


def fit_environment_grades(
    elements: Sequence[str],
    structures: Sequence[Atoms],
    descriptors: Sequence[Array],
    n_quadratic_columns: int | None = None,
) -> dict[str, EnvironmentGrade]:
    """Fit the extrapolation grade of each element to the atoms of the training structures.

    Parameters
    ----------
    elements : sequence of str
    structures : sequence of ase.Atoms
    descriptors : sequence of (N, K) float64
        Of the atoms of each structure.
    n_quadratic_columns : int, optional
        Columns of an element in a quadratic model: its grade uses products of descriptors, too, if there are
        `MIN_ATOMS_PER_COLUMN` atoms for each. None for models without products.
    """
    symbols = np.concatenate([atoms.get_chemical_symbols() for atoms in structures])
    values = np.concatenate(list(descriptors))
    grades = {}
    for element in elements:
        element_values = values[symbols == element]
        if len(element_values):
            quadratic = (
                n_quadratic_columns is not None and len(element_values) >= MIN_ATOMS_PER_COLUMN * n_quadratic_columns
            )
            grades[element] = EnvironmentGrade.from_descriptors(element_values, quadratic=quadratic)
    return grades


def fit_linear_grades(
    basis: SnapBasis, structures: Sequence[Atoms], context: RunContext
) -> dict[str, EnvironmentGrade]:
    """Fit the extrapolation grades of a linear model's training set; see `fit_environment_grades`."""
    descriptors = map_structures(_compute_descriptors, basis, structures, "atoms", context)
    n_columns = basis.n_features // len(basis.elements) if basis.quadratic else None
    return fit_environment_grades(basis.elements, structures, descriptors, n_columns)


def _assess(potential: CommitteePotential, atoms: Atoms, coverage: float | None) -> Assessment:
    return potential.assess(atoms, coverage=coverage)


def _predict_spread(potential: CommitteePotential, atoms: Atoms) -> tuple[StructureLabels, StructureLabels]:
    members = potential.predict(atoms)
    energy = members.energy / len(atoms)
    return (
        StructureLabels(float(energy.mean()), members.forces.mean(axis=0), members.stress.mean(axis=0)),
        StructureLabels(float(energy.std()), members.forces.std(axis=0), members.stress.std(axis=0)),
    )


def _predict(potential: CommitteePotential, atoms: Atoms) -> StructureLabels:
    prediction = potential.predict(atoms)
    if np.ndim(prediction.energy):  # networks, unlike coefficients, have no mean but that of their predictions
        return StructureLabels(
            float(prediction.energy.mean()), prediction.forces.mean(axis=0), prediction.stress.mean(axis=0)
        )
    return StructureLabels(*prediction)


def _compute_descriptors(basis: SnapBasis, atoms: Atoms) -> Array:
    return compute_atom_descriptors(get_shared_lammps(), basis, atoms)
