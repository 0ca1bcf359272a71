"""Predictions of a potential for many structures, and the data from which its calibration and grades are fitted."""

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

MIN_ATOMS_PER_COLUMN = 2  # with fewer training atoms of an element per column, grades use no products of descriptors


def assess_all(
    potential: CommitteePotential, structures: Sequence[Atoms], context: RunContext, *, coverage: float | None = None
) -> list[Assessment]:
    """Assess every structure with a committee, in parallel; return the assessments in the order of the structures.

    `coverage` and the errors are those of `CommitteePotential.assess`.
    """
    assess = partial(CommitteePotential.assess, coverage=coverage)
    return map_structures(assess, potential, structures, "assess", context)


def predict_all(
    potential: CommitteePotential, structures: Sequence[Atoms], context: RunContext
) -> list[StructureLabels]:
    """Predict energy, forces and stress of every structure in parallel; a committee is represented by its mean."""
    return map_structures(_predict, potential.without_uncertainty(), structures, "evaluate", context)


def predict_spreads(
    potential: CommitteePotential, structures: Sequence[Atoms], context: RunContext
) -> list[tuple[StructureLabels, StructureLabels]]:
    """Predict every structure with all members of a committee, in parallel.

    Returns
    -------
    list of (StructureLabels, StructureLabels)
        Mean and standard deviation over the members for each structure; energies are in eV/atom.
    """
    return map_structures(_predict_spread, potential, structures, "held out", context)


def collect_calibration_data(
    predictions: Sequence[tuple[StructureLabels, StructureLabels]],
    labels: Sequence[StructureLabels],
    n_atoms: Sequence[int],
    groups: Array,
) -> dict[RowKind, CalibrationData]:
    """Collect the spreads and residuals of labelled structures for a calibration.

    Parameters
    ----------
    predictions : sequence of (StructureLabels, StructureLabels)
        Mean and standard deviation of each structure, from `predict_spreads`.
    labels : sequence of StructureLabels
    n_atoms : sequence of int
        Number of atoms of each structure.
    groups : (n,) int
        Group of each structure; the calibration assumes that groups are exchangeable.

    Returns
    -------
    dict of RowKind to CalibrationData
        Spreads and residuals (label minus mean) in eV/atom, eV/Å and eV/Å³. Components and kinds without a label are
        omitted.
    """
    calibration = {}
    for kind, name in ((RowKind.ENERGY, "energy"), (RowKind.FORCE, "forces"), (RowKind.STRESS, "stress")):
        component_arrays = []
        for k, ((mean, spread), label) in enumerate(zip(predictions, labels, strict=True)):
            divisor = n_atoms[k] if kind == RowKind.ENERGY else 1
            residual = np.ravel(getattr(label, name)) / divisor - np.ravel(getattr(mean, name))
            # Each column has the spread and residual of a component, and the index of its structure.
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
    """Fit the extrapolation grade of each element to its atoms in the training structures.

    Parameters
    ----------
    elements : sequence of str
        Elements of the model.
    structures : sequence of ase.Atoms
        Training structures.
    descriptors : sequence of (N, K) float64
        Descriptors of the atoms of each structure.
    n_quadratic_columns : int, optional
        Number of columns that a quadratic model has for each element. The grades of an element then use products of
        descriptors, provided that there are at least `MIN_ATOMS_PER_COLUMN` of its atoms per column. By default, the
        model has no products, and neither have the grades.

    Returns
    -------
    dict of str to EnvironmentGrade
        By element; elements without an atom in these structures are omitted.
    """
    symbols = np.concatenate([atoms.get_chemical_symbols() for atoms in structures])
    all_descriptors = np.concatenate(list(descriptors))
    grades = {}
    for element in elements:
        element_descriptors = all_descriptors[symbols == element]
        if len(element_descriptors):
            max_columns = len(element_descriptors) // MIN_ATOMS_PER_COLUMN
            is_quadratic = n_quadratic_columns is not None and n_quadratic_columns <= max_columns
            grades[element] = EnvironmentGrade.from_descriptors(element_descriptors, quadratic=is_quadratic)
    return grades


def fit_linear_grades(basis: AnyBasis, structures: Sequence[Atoms], context: RunContext) -> dict[str, EnvironmentGrade]:
    """Fit the extrapolation grades of a linear model to training structures; see `fit_environment_grades`."""
    descriptors = map_structures(_compute_descriptors, basis, structures, "atoms", context)
    n_columns = basis.n_features // len(basis.elements) if basis.has_products else None
    return fit_environment_grades(basis.elements, structures, descriptors, n_columns)


def _predict_spread(potential: CommitteePotential, atoms: Atoms) -> tuple[StructureLabels, StructureLabels]:
    """Return the mean and standard deviation over the members for one structure; energies are in eV/atom."""
    prediction = potential.predict(atoms)
    quantities = prediction.energy / len(atoms), prediction.forces, prediction.stress
    means = StructureLabels(*(quantity.mean(axis=0) for quantity in quantities))
    return means, StructureLabels(*(quantity.std(axis=0) for quantity in quantities))


def _predict(potential: CommitteePotential, atoms: Atoms) -> StructureLabels:
    """Predict one structure with a single potential, or with the mean of a committee of networks."""
    prediction = potential.predict(atoms)
    if np.ndim(prediction.energy):  # networks: their predictions can be averaged, but not their coefficients
        return StructureLabels(*(quantity.mean(axis=0) for quantity in prediction))
    return StructureLabels(*prediction)


def _compute_descriptors(basis: AnyBasis, atoms: Atoms) -> Array:
    """Compute the descriptors of each atom, ``(N, K) float64``, with the LAMMPS instance of the process."""
    return compute_atom_descriptors(get_shared_lammps(), basis, atoms)
