"""Batch predictions of a committee, its errors on labelled structures, and the extrapolation grades of elements."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from ase import Atoms

from paretofit.core import Array, RowKind, get_shared_lammps
from paretofit.descriptors import AnyBasis, compute_atom_descriptors, map_structures
from paretofit.execution import RunContext
from paretofit.potentials.committee_potential import CommitteePotential
from paretofit.potentials.prediction import StructureLabels
from paretofit.uncertainty import Assessment, CalibrationData, EnvironmentGrade

MIN_ATOMS_PER_COLUMN = 2  # number of training atoms; with fewer, grades are computed from linear descriptors only


def assess_all(
    potential: CommitteePotential, structures: Sequence[Atoms], context: RunContext, *, coverage: float | None = None
) -> list[Assessment]:
    """Assess every structure with a committee, in parallel; return the assessments in the order of the structures."""
    assess = partial(CommitteePotential.assess, coverage=coverage)
    return map_structures(assess, potential, structures, "assess", context)


def predict_all(
    potential: CommitteePotential, structures: Sequence[Atoms], context: RunContext
) -> list[StructureLabels]:
    """Predict energy, forces and stress of every structure, with the mean of a committee."""
    return map_structures(_predict, potential.without_uncertainty(), structures, "evaluate", context)


def predict_spreads(
    potential: CommitteePotential, structures: Sequence[Atoms], context: RunContext
) -> list[tuple[StructureLabels, StructureLabels]]:
    """Return, for each structure, the mean and standard deviation over the members; energies are in eV/atom."""
    return map_structures(_predict_spread, potential, structures, "held out", context)


def collect_calibration_data(
    predictions: Sequence[tuple[StructureLabels, StructureLabels]],
    labels: Sequence[StructureLabels],
    n_atoms: Sequence[int],
    groups: Array,
) -> dict[RowKind, CalibrationData]:
    """Collect spreads and residuals of labelled structures for a calibration; kinds without a label are omitted.

    Parameters
    ----------
    predictions : sequence of (StructureLabels, StructureLabels)
        From `predict_spreads`.
    labels : sequence of StructureLabels
    n_atoms : sequence of int
    groups : (n,) int
        Group of each structure; the calibration assumes that groups are exchangeable.
    """
    calibration = {}
    for kind, name in ((RowKind.ENERGY, "energy"), (RowKind.FORCE, "forces"), (RowKind.STRESS, "stress")):
        component_arrays = []
        for k, ((mean, spread), label) in enumerate(zip(predictions, labels, strict=True)):
            divisor = n_atoms[k] if kind == RowKind.ENERGY else 1
            residual = np.ravel(getattr(label, name)) / divisor - np.ravel(getattr(mean, name))
            components = np.array([np.ravel(getattr(spread, name)), residual, np.full(residual.shape, k)])
            component_arrays.append(components[:, np.isfinite(residual)])  # missing labels are NaN
        spreads, residuals, indices = np.concatenate([np.empty((3, 0)), *component_arrays], axis=1)
        if len(spreads):
            structure_indices = indices.astype(np.int64)
            group = np.asarray(groups, dtype=np.int64)[structure_indices]
            calibration[kind] = CalibrationData(spreads, residuals, structure_indices, group)
    return calibration


def fit_environment_grades(
    elements: Sequence[str],
    structures: Sequence[Atoms],
    descriptors: Sequence[Array],
    n_quadratic_columns: int | None = None,
) -> dict[str, EnvironmentGrade]:
    """Fit the extrapolation grade of each element to the atoms of the training structures.

    Elements without an atom in these structures are omitted.

    Parameters
    ----------
    elements : sequence of str
    structures : sequence of ase.Atoms
    descriptors : sequence of (N, K) float64
        Descriptors of the atoms of each structure.
    n_quadratic_columns : int, optional
        Number of columns that a quadratic model has for each element. Grades also use products of descriptors if there
        are at least `MIN_ATOMS_PER_COLUMN` atoms of the element per column. None for models without products.
    """
    symbols = np.concatenate([atoms.get_chemical_symbols() for atoms in structures])
    values = np.concatenate(list(descriptors))
    grades = {}
    for element in elements:
        element_values = values[symbols == element]
        if len(element_values):
            max_columns = len(element_values) // MIN_ATOMS_PER_COLUMN
            is_quadratic = n_quadratic_columns is not None and n_quadratic_columns <= max_columns
            grades[element] = EnvironmentGrade.from_descriptors(element_values, quadratic=is_quadratic)
    return grades


def fit_linear_grades(basis: AnyBasis, structures: Sequence[Atoms], context: RunContext) -> dict[str, EnvironmentGrade]:
    """Fit extrapolation grades to the descriptors of the atoms of training structures; see `fit_environment_grades`."""
    descriptors = map_structures(_compute_descriptors, basis, structures, "atoms", context)
    n_columns = basis.n_features // len(basis.elements) if basis.has_products else None
    return fit_environment_grades(basis.elements, structures, descriptors, n_columns)


def _predict_spread(potential: CommitteePotential, atoms: Atoms) -> tuple[StructureLabels, StructureLabels]:
    members = potential.predict(atoms)
    parts = members.energy / len(atoms), members.forces, members.stress
    means, spreads = (part.mean(axis=0) for part in parts), (part.std(axis=0) for part in parts)
    return StructureLabels(*means), StructureLabels(*spreads)


def _predict(potential: CommitteePotential, atoms: Atoms) -> StructureLabels:
    prediction = potential.predict(atoms)
    if np.ndim(prediction.energy):  # the coefficients of networks cannot be averaged, only their predictions
        return StructureLabels(*(part.mean(axis=0) for part in prediction))
    return StructureLabels(*prediction)


def _compute_descriptors(basis: AnyBasis, atoms: Atoms) -> Array:
    return compute_atom_descriptors(get_shared_lammps(), basis, atoms)
