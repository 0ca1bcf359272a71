"""Training rows of linear models: offsets of levels, weights of levels and configurations, and the core repulsion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations_with_replacement

import numpy as np
from ase.data import atomic_numbers, covalent_radii

from paretofit.core import Array, RowKind, get_shared_lammps
from paretofit.dataset import Dataset
from paretofit.descriptors import (
    AnyBasis,
    ColumnConstraint,
    DesignMatrix,
    ReferencePotential,
    compute_reference_labels,
)
from paretofit.learning.learn_settings import DownweightSettings
from paretofit.learning.training_set import TrainingData
from paretofit.linear.reduction import Part, RowBlock
from paretofit.structures import list_elements

REPULSION_RANGE = 0.6, 0.8  # inner and outer cutoff of ZBL, relative to the smallest sum of two covalent radii


def build_core_repulsion(elements: Sequence[str]) -> ReferencePotential:
    """Build the ZBL potential, which acts at distances below those of bonds and keeps structures from collapsing.

    `elements` are the elements of LAMMPS's atom types, in their order.
    """
    numbers = [atomic_numbers[symbol] for symbol in elements]
    inner_cutoff, outer_cutoff = (2 * ratio * float(min(covalent_radii[numbers])) for ratio in REPULSION_RANGE)
    pairs = combinations_with_replacement(enumerate(numbers, start=1), 2)
    # atom types and atomic numbers of each pair of elements
    coefficients = tuple(
        f"{first_type} {second_type} {first_number} {second_number}"
        for (first_type, first_number), (second_type, second_number) in pairs
    )
    return ReferencePotential(f"zbl {inner_cutoff:.3f} {outer_cutoff:.3f}", coefficients)


def subtract_reference(
    design: DesignMatrix, dataset: Dataset, basis: AnyBasis, reference: ReferencePotential
) -> DesignMatrix:
    """Return a design whose targets are the labels minus the predictions of a reference potential.

    Parameters
    ----------
    design : DesignMatrix
        Design with the labels of the dataset.
    dataset : Dataset
    basis : SnapBasis or PodBasis
        Basis whose elements are the atom types of the reference potential.
    reference : ReferencePotential
    """
    reference_arrays, has_stress = [], bool((design.kind == RowKind.STRESS).any())
    for atoms in dataset.select_ids(design.ids):
        energy, forces, stress = compute_reference_labels(get_shared_lammps(), basis, reference, atoms)
        # the order of the rows of a configuration in a design
        reference_arrays += [np.array([energy / len(atoms)]), forces.ravel(), *([stress] if has_stress else [])]
    reference_targets = np.concatenate(reference_arrays)
    return replace(design, targets={level: targets - reference_targets for level, targets in design.targets.items()})


def build_parts(
    training_data: TrainingData,
    designs: Sequence[tuple[Array, DesignMatrix]],
    train_indices: Array,
    n_columns: int,
    shifted_levels: Sequence[str],
    n_elements: int,
    configuration_weights: Array,
    constraint: ColumnConstraint | None,
) -> list[Part]:
    """Build a part (see `CommitteeFit.from_parts`) with the weighted training rows of each design.

    The columns are those of the model, then an offset per atom of each shifted level and element.

    Parameters
    ----------
    training_data : TrainingData
    designs : sequence of (indices, DesignMatrix)
        Indices of configurations in the dataset, and their design with targets.
    train_indices : (n_train,) int64
        Indices of the training set in the dataset; the configurations of the parts are numbered in this order.
    n_columns : int
        Number of leading columns of the design that the model uses.
    shifted_levels : sequence of str
        Levels with an offset.
    n_elements : int
        Number of elements; as many leading columns contain the composition in energy rows.
    configuration_weights : (n,) float64
        Weights of the rows of each configuration of the dataset.
    constraint : ColumnConstraint or None
        Constraint that fixes the energies of free atoms, if any are known.
    """
    train_numbers = np.full(len(training_data.dataset), -1)  # -1: not in the training set
    train_numbers[train_indices] = np.arange(len(train_indices))
    level_numbers = np.array([training_data.levels.index(name) for name in training_data.level])
    level_weights = np.array([compute_level_weights(training_data, name) for name in training_data.levels])

    def iterate_blocks(indices: Array, design: DesignMatrix) -> Iterator[RowBlock]:
        """Yield blocks of the weighted rows X and targets y of the training set in a design."""
        for window, rows in design.iterate_blocks():
            configuration = indices[design.configuration[window]]
            level, kind = level_numbers[configuration], design.kind[window]
            is_training = train_numbers[configuration] >= 0
            if not is_training.any():
                continue
            targets = np.stack([design.targets[name][window] for name in training_data.levels])
            y = targets[level, np.arange(len(level))]
            # the columns of an offset are nonzero in the energy rows of its level: they contain the composition
            is_shifted = [
                (kind == RowKind.ENERGY) & (level == training_data.levels.index(name)) for name in shifted_levels
            ]
            X = np.hstack([rows[:, :n_columns], *(rows[:, :n_elements] * mask[:, None] for mask in is_shifted)])
            if constraint is not None:  # both use the unreduced X
                X, y = constraint.reduce_rows(X), constraint.reduce_targets(X, y, training_data.levels[-1])
            w = level_weights[level, kind] * configuration_weights[configuration]
            is_train_row = np.ones(int(is_training.sum()), dtype=bool)
            numbers = train_numbers[configuration][is_training]
            X, y = (X * w[:, None])[is_training], (y * w)[is_training, None]
            yield RowBlock(X, y, kind[is_training], numbers, is_train_row)

    return [partial(iterate_blocks, indices, design) for indices, design in designs]


def compute_configuration_weights(
    training_data: TrainingData, train_indices: Array, scales: DownweightSettings
) -> Array:
    """Compute the row weight of each configuration; it is lower far above the lowest energy and for large forces.

    The weight is 1 / √(1 + (E / E₀)² + (F / F₀)²). E is the energy per atom above a linear function of the composition,
    which is fitted to the training set and shifted down until no energy of the training set is below it. F is the root
    mean square of the forces.

    Parameters
    ----------
    training_data : TrainingData
    train_indices : (n_train,) int64
        Indices of the training set in the dataset.
    scales : DownweightSettings
        E₀ (eV/atom) and F₀ (eV/Å); without a scale, its term is omitted.

    Returns
    -------
    (n,) float64
        Weights of all configurations, including those outside the training set.
    """
    labelled = training_data.select_labelled(np.arange(len(training_data.dataset)))
    structures, labels = labelled.structures, labelled.labels
    energy = np.array([float(label.energy) / len(atoms) for label, atoms in zip(labels, structures, strict=True)])
    elements = list_elements(structures)
    fractions = np.array([[np.mean(atoms.symbols == symbol) for symbol in elements] for atoms in structures])
    element_energies = np.linalg.lstsq(fractions[train_indices], energy[train_indices], rcond=None)[0]
    excess_energy = energy - fractions @ element_energies
    excess_energy = np.maximum(excess_energy - excess_energy[train_indices].min(), 0.0)
    rms_force = np.array([np.sqrt(np.nanmean(np.square(label.forces))) for label in labels])
    squares = np.zeros(len(energy))
    for quantity, scale in ((excess_energy, scales.energy), (rms_force, scales.forces)):
        if scale is not None:  # an unknown quantity, NaN, does not lower the weight
            squares += np.nan_to_num(quantity / scale) ** 2
    return np.asarray(1 / np.sqrt(1 + squares))


def compute_level_weights(training_data: TrainingData, level: str) -> tuple[float, float, float]:
    """Compute the weights of a level's energy, force and stress rows.

    A weight is ε / √(ε² + δ²), with the error ε of the previous model and the error δ of the level's labels, or 1 if
    one of these errors is unknown.
    """
    if training_data.previous_error is None or level not in training_data.level_noise:
        return 1.0, 1.0, 1.0
    energy_weight, force_weight = (
        error / np.hypot(error, label_error)
        for error, label_error in zip(training_data.previous_error, training_data.level_noise[level], strict=True)
    )
    # errors of stress labels are not measured, so stress rows have the weight of the force rows
    return energy_weight, force_weight, force_weight
