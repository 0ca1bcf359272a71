"""Protocol of the models that the loop trains, and its implementation by SNAP models.

A training set may contain labels of several convergence levels. The energies of all but the best level then have an
offset per atom of each element, which is fitted together with the model. The rows of a level have a lower weight if the
errors of its labels are large compared to the errors of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms

from paretofit.core import Array, InputError, RowKind
from paretofit.dataset import Dataset
from paretofit.descriptors import ColumnConstraint, DesignMatrix, SnapBasis, compute_design
from paretofit.execution import RunContext
from paretofit.learning.free_atoms import build_free_atom_constraint, collect_free_atom_energies
from paretofit.learning.learn_settings import SnapModelSettings
from paretofit.learning.md_run import MdEngine
from paretofit.learning.sets import TRAIN, VALIDATE
from paretofit.linear.reduction import Part, RowBlock
from paretofit.potentials import (
    CommitteeSettings,
    LabelledStructures,
    LinearPotential,
    MacePotential,
    StructureLabels,
    build_committee,
)
from paretofit.uncertainty import Assessment, CommitteeFit

MIN_ROWS_PER_COLUMN = 8.0  # with fewer rows, the 2Jmax is reduced


@dataclass(frozen=True)
class Committee:
    """Trained committee with the operations of the loop."""

    potential: LinearPotential | MacePotential

    @property
    def n_members(self) -> int:
        """Number of members."""
        potential = self.potential
        return potential.n_members if isinstance(potential, MacePotential) else len(potential.coefficients)

    def assess(self, atoms: Atoms) -> Assessment:
        """Predict values with disagreements, intervals and extrapolation grades."""
        return self.potential.assess(atoms)

    def assess_members(self, atoms: Atoms) -> tuple[Assessment, Any]:
        """Predict like `assess`; also return the predictions of each member."""
        return self.potential.assess_and_predict(atoms)

    def compute_max_grade(self, atoms: Atoms) -> float:
        """Compute the highest extrapolation grade of the atoms, without the cost of a full `assess`."""
        return float(self.potential.compute_grades(atoms).max())

    def build_md_engine(self, member: int | None, folder: Path) -> MdEngine:
        """Build the MD engine of a member, or of the mean of the members for None; write LAMMPS files to `folder`."""
        potential = self.potential.without_uncertainty() if member is None else self.potential.member(member)
        if isinstance(potential, MacePotential):
            return MdEngine((), potential.elements, potential.calculator_factory(), potential.digest)
        files = potential.write(folder, "mean" if member is None else f"member_{member}")
        return MdEngine(tuple(files.commands), tuple(files.elements))


class Model(Protocol):
    """Kind of model that can be trained on labelled structures."""

    def train(self, data: TrainingData, folder: Path, *, seed: int, context: RunContext) -> TrainingResult:
        """Train a committee and write it to a folder."""

    def load(self, folder: Path) -> Committee:
        """Read a committee that `train` has written."""


@dataclass(frozen=True)
class TrainingData:
    """Labelled configurations of all iterations so far.

    Attributes
    ----------
    dataset : Dataset
    sets : (n,) str
        "train", "validate" or "test".
    level : (n,) str
        Level of the label that is used for each configuration.
    groups : (n,) int64
        Group number of each configuration.
    iteration : (n,) int64
        Iteration that added each configuration.
    levels : list of str
        Names in order, with the best level last.
    level_noise : mapping of str to (float, float)
        Errors of a level's energies (eV/atom, shifted) and forces (eV/Å) against the best level, if known.
    previous_error : (float, float) or None
        Validation errors of the previous model, eV/atom and eV/Å.
    previous_model : Path or None
        Folder of the previous model.
    """

    dataset: Dataset
    sets: Array
    level: Array
    groups: Array
    iteration: Array
    levels: list[str]
    level_noise: Mapping[str, tuple[float, float]]
    previous_error: tuple[float, float] | None = None
    previous_model: Path | None = None

    def select_labelled(self, indices: Array) -> LabelledStructures:
        """Select structures with their labels, each at the level in `level`."""
        structures: dict[int, Atoms] = {}
        labels: dict[int, StructureLabels] = {}
        for name in dict.fromkeys(self.level[indices].tolist()):
            level_indices = indices[self.level[indices] == name]
            part = LabelledStructures.from_dataset(self.dataset, name, level_indices)
            structures |= dict(zip(level_indices.tolist(), part.structures, strict=True))
            labels |= dict(zip(level_indices.tolist(), part.labels, strict=True))
        order = indices.tolist()
        return LabelledStructures([structures[k] for k in order], [labels[k] for k in order], self.groups[indices])

    def select_aligned(self, indices: Array, offsets: Mapping[tuple[str, str], float]) -> LabelledStructures:
        """Select structures with their labels, with energies shifted to the energy scale of the best level."""
        labelled, aligned_labels = self.select_labelled(indices), []
        for labels, atoms, level in zip(labelled.labels, labelled.structures, self.level[indices], strict=True):
            shift = sum(offsets.get((str(level), symbol), 0.0) for symbol in atoms.get_chemical_symbols())
            aligned_labels.append(labels._replace(energy=float(labels.energy) - shift))
        return LabelledStructures(labelled.structures, aligned_labels, labelled.groups)


@dataclass(frozen=True)
class TrainingResult:
    """Trained committee and its energy offsets.

    Attributes
    ----------
    committee : Committee
    offsets : dict of (str, str) to float
        Energy offset per atom (eV) of labels relative to the best level, by level and element.
    description : str
        Size of the model and of its training set.
    events : tuple of str
        Problems during training, and their solutions.
    member_records : tuple of dict
        Table rows with the training of each member; empty for SNAP.
    """

    committee: Committee
    offsets: dict[tuple[str, str], float]
    description: str
    events: tuple[str, ...] = ()
    member_records: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class SnapModel:
    """Quadratic or linear SNAP, trained by weighted least squares.

    Attributes
    ----------
    settings : SnapModelSettings
    elements : sequence of str
        All elements of the study.
    design_folder : Path
        Folder that stores the descriptors of each iteration.
    """

    settings: SnapModelSettings
    elements: Sequence[str]
    design_folder: Path

    def build_basis(self, twojmax: int) -> SnapBasis:
        """Build the SNAP basis for a 2Jmax."""
        settings = self.settings
        return SnapBasis(
            elements=list(self.elements),
            twojmax=twojmax,
            quadratic=settings.quadratic,
            rcutfac=settings.rcutfac,
            radelem=[settings.radelem.get(symbol, 0.5) for symbol in self.elements],
            wj=[settings.wj.get(symbol, 1.0) for symbol in self.elements],
        )

    def load(self, folder: Path) -> Committee:
        """Read a committee that `train` has written."""
        return Committee(LinearPotential.read(folder))

    def train(self, data: TrainingData, folder: Path, *, seed: int, context: RunContext) -> TrainingResult:
        """Fit the training set, calibrate on the validation set, and write the committee.

        Raises
        ------
        InputError
            If the training set is empty or too small for the smallest model.
        """
        train, validation = (np.flatnonzero(data.sets == name) for name in (TRAIN, VALIDATE))
        energies, isolated_atoms = collect_free_atom_energies(
            self.settings.reference_energies, data.dataset, data.levels, self.build_basis(self.settings.twojmax)
        )
        fitted = np.setdiff1d(train, isolated_atoms)
        if not len(fitted):
            raise InputError("the training set has no labels; see iterations/*/label.json for the labels that failed")
        designs = self._load_or_compute_designs(data, context)
        n_rows = int(sum(1 + 3 * n for n in data.dataset.n_atoms[train]))
        twojmax = self._choose_twojmax(designs[0][1], n_rows)
        n_columns = designs[0][1].columns_up_to(twojmax)
        shifted_levels = [name for name in data.levels[:-1] if (data.level[train] == name).any()]
        basis = self.build_basis(twojmax)
        constraint = build_free_atom_constraint(energies, basis, shifted_levels, data.levels[-1])
        parts = _build_parts(data, designs, fitted, n_columns, shifted_levels, len(self.elements), constraint)
        weights = np.array([self.settings.weight_ratio, 1.0, 1.0])
        rng = np.random.default_rng([seed, 0])
        fit = CommitteeFit.from_parts(parts, data.groups[fitted], weights, rng, threads=context.jobs)
        coefficients = fit.coefficients if constraint is None else constraint.expand(fit.coefficients, data.levels[-1])
        offset_names = [(name, symbol) for name in shifted_levels for symbol in self.elements]
        offsets = dict(zip(offset_names, map(float, coefficients[n_columns:]), strict=True))
        potential = build_committee(
            basis,
            fit,
            CommitteeSettings(self.settings.members, self.settings.committee_method, seed=seed),
            list(data.dataset.select(train)),
            data.select_aligned(validation, offsets),
            energy_weight=self.settings.weight_ratio,
            level=data.levels[-1],
            columns=n_columns,
            constraint=constraint,
            context=context,
        )
        potential.write(folder)
        description = f"2Jmax {twojmax}, {n_columns} columns, {n_rows} rows"
        if symbols := ", ".join(energies[data.levels[-1]]):
            description += f", exact energies of free atoms of {symbols}"
        return TrainingResult(Committee(potential), offsets, description)

    def _choose_twojmax(self, design: DesignMatrix, n_rows: int) -> int:
        """Choose the largest 2Jmax, up to the one of the settings, for which there are enough rows."""
        largest = self.settings.twojmax
        choices = sorted({int(twojmax) for twojmax in design.column_levels} | {largest})
        max_columns = n_rows / MIN_ROWS_PER_COLUMN
        return max((value for value in choices if value <= largest and design.columns_up_to(value) <= max_columns),
                   default=choices[0])  # fmt: skip

    def _load_or_compute_designs(self, data: TrainingData, context: RunContext) -> list[tuple[Array, DesignMatrix]]:
        """Return, for each iteration, the indices of its configurations in the dataset and their design matrix."""
        basis, designs = self.build_basis(self.settings.twojmax), []
        for k in np.unique(data.iteration).tolist():
            indices = np.flatnonzero(data.iteration == k)
            dataset = data.dataset.select(indices)
            path = self.design_folder / f"design-{k:02d}.h5"
            design = _open_design(path, dataset, basis)
            if design is None:
                design = compute_design(dataset, basis, path, jobs=context.jobs, progress=context.progress)
            designs.append((indices, design.with_labels(dataset, data.levels)))
        return designs


def _open_design(path: Path, dataset: Dataset, basis: SnapBasis) -> DesignMatrix | None:
    """Open a design file; return None if it is missing or corrupt, or has other structures or another basis."""
    try:
        design = DesignMatrix.open(path)
    except InputError:
        return None
    is_same = design.attributes.get("structures") == dataset.hash_structures()
    return design if is_same and SnapBasis.model_validate_json(design.attributes["basis"]) == basis else None


def _build_parts(
    data: TrainingData,
    designs: Sequence[tuple[Array, DesignMatrix]],
    train: Array,
    n_columns: int,
    shifted_levels: Sequence[str],
    n_elements: int,
    constraint: ColumnConstraint | None,
) -> list[Part]:
    """Build the training rows with columns for the offsets of levels, weighted by `compute_level_weights`."""
    train_numbers = np.full(len(data.dataset), -1)
    train_numbers[train] = np.arange(len(train))
    level_numbers = np.array([data.levels.index(name) for name in data.level])
    level_weights = np.array([compute_level_weights(data, name) for name in data.levels])

    def iterate_blocks(indices: Array, design: DesignMatrix) -> Iterator[RowBlock]:
        for window, rows in design.blocks():
            configuration = indices[design.configuration[window]]
            level, kind = level_numbers[configuration], design.kind[window]
            is_training = train_numbers[configuration] >= 0
            if not is_training.any():
                continue
            targets = np.stack([design.targets[name][window] for name in data.levels])
            y = targets[level, np.arange(len(level))]
            # the columns of an offset contain the composition, in the energy rows of its level
            is_shifted = [(kind == RowKind.ENERGY) & (level == data.levels.index(name)) for name in shifted_levels]
            X = np.hstack([rows[:, :n_columns], *(rows[:, :n_elements] * mask[:, None] for mask in is_shifted)])
            if constraint is not None:
                X, y = constraint.reduce_rows(X), constraint.reduce_targets(X, y, data.levels[-1])
            w = level_weights[level, kind]
            is_complete = np.ones(int(is_training.sum()), dtype=bool)
            numbers = train_numbers[configuration][is_training]
            X, y = (X * w[:, None])[is_training], (y * w)[is_training, None]
            yield RowBlock(X, y, kind[is_training], numbers, is_complete)

    return [partial(iterate_blocks, indices, design) for indices, design in designs]


def compute_level_weights(data: TrainingData, level: str) -> tuple[float, float, float]:
    """Compute the weights of a level's energy, force and stress rows.

    They are s / √(s² + δ²), with the error s of the previous model and the error δ of the level's labels.
    """
    if data.previous_error is None or level not in data.level_noise:
        return 1.0, 1.0, 1.0
    energy, force = (s / np.hypot(s, d) for s, d in zip(data.previous_error, data.level_noise[level], strict=True))
    return energy, force, force
