"""Protocol of the models that the loop trains, and its implementation by linear models.

A training set may contain labels of several convergence levels. The energies of every level except the best one then
have an offset per atom of each element; these offsets are fitted. The rows of a level have a lower
weight if the errors of its labels are large compared to the errors of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms

from paretofit.core import Array, InputError
from paretofit.dataset import Dataset
from paretofit.descriptors import (
    AnyBasis,
    ColumnConstraint,
    DesignMatrix,
    ReferencePotential,
    compute_design,
    parse_basis,
)
from paretofit.execution import RunContext
from paretofit.learning.free_atoms import build_free_atom_constraint, collect_free_atom_energies
from paretofit.learning.learn_settings import LinearModelSettings
from paretofit.learning.md_run import MdEngine
from paretofit.learning.set_balance import TRAIN, VALIDATE
from paretofit.learning.training_rows import (
    build_core_repulsion,
    build_parts,
    compute_configuration_weights,
    subtract_reference,
)
from paretofit.learning.training_set import TrainingData
from paretofit.potentials import (
    CommitteeSettings,
    CrossValidation,
    LabelledStructures,
    LinearPotential,
    MacePotential,
    build_committee,
    cross_validate_committee,
)
from paretofit.uncertainty import Assessment, CommitteeFit

MIN_ROWS_PER_COLUMN = 8.0  # number of rows per column, below which 2Jmax is reduced


@dataclass(frozen=True)
class Committee:
    """Trained committee with the operations of the loop.

    Attributes
    ----------
    potential : LinearPotential or MacePotential
        Mean of the members, with the members. In the initial exploration, it may be a potential without members.
    """

    potential: LinearPotential | MacePotential

    @property
    def n_members(self) -> int:
        """Number of members of the committee; 1 for a single potential."""
        potential = self.potential
        if isinstance(potential, MacePotential):
            return potential.n_members
        return len(np.atleast_2d(potential.coefficients))

    def assess(self, atoms: Atoms) -> Assessment:
        """Predict energy, forces and stress of a structure, with disagreements, intervals and extrapolation grades.

        Raises
        ------
        InputError
            If the potential is not a committee, or has no data on its training set.
        """
        return self.potential.assess(atoms)

    def assess_members(self, atoms: Atoms) -> tuple[Assessment, Any]:
        """Predict as `assess`; also return the predictions of the members (see `build_assessment`)."""
        return self.potential.assess_and_predict(atoms)

    def compute_max_grade(self, atoms: Atoms) -> float:
        """Compute the highest extrapolation grade of the atoms, without the cost of a full `assess`.

        Raises
        ------
        InputError
            If the potential has no data on its training set.
        """
        return float(self.potential.compute_grades(atoms).max())

    def build_md_engine(self, member: int | None, folder: Path) -> MdEngine:
        """Build the MD engine of a member, or of the mean if `member` is None.

        The LAMMPS files of a linear potential are written to `folder`.

        Raises
        ------
        InputError
            If the committee has no such member.
        """
        potential = self.potential.without_uncertainty() if member is None else self.potential.get_member(member)
        if isinstance(potential, MacePotential):
            return MdEngine((), potential.elements, potential.get_calculator_factory(), potential.digest)
        files = potential.write(folder, "mean" if member is None else f"member_{member}")
        return MdEngine(tuple(files.commands), tuple(files.elements))


class Model(Protocol):
    """Kind of model that can be trained on labelled structures."""

    def train(self, training_data: TrainingData, folder: Path, *, seed: int, context: RunContext) -> TrainingResult:
        """Train a committee on the training set, calibrate it on the validation set, and write it to a folder.

        Raises
        ------
        InputError
            If the labelled configurations do not suffice.
        """

    def load(self, folder: Path) -> Committee:
        """Read a committee that `train` has written; raise an `InputError` if a file is missing or corrupt."""


@dataclass(frozen=True)
class TrainingResult:
    """Trained committee, its energy offsets, and what the loop reports about the training.

    Attributes
    ----------
    committee : Committee
    offsets : dict of (str, str) to float
        Energy offset per atom (eV) of labels relative to the best level, by level and element.
    description : str
        Size of the model and of its training set; the text before the first comma identifies the size of the model.
    events : tuple of str
        Problems during training, and their solutions.
    member_records : tuple of dict
        Table row about the training of each member; empty for linear models.
    configuration_weights : (n,) float64 or float
        Weights of the rows of each configuration of the training data, or the same weight for all.
    cross_validation : CrossValidation or None
        Committees, each trained without one fold of the training set. ``fold`` is the fold of each configuration of the
        training data, -1 for those in no fold. None for models that are too expensive to train again.
    """

    committee: Committee
    offsets: dict[tuple[str, str], float]
    description: str
    events: tuple[str, ...] = ()
    member_records: tuple[dict[str, Any], ...] = ()
    configuration_weights: Array | float = 1.0
    cross_validation: CrossValidation | None = None


@dataclass(frozen=True)
class LinearModel:
    """Linear model in a basis (quadratic or linear SNAP, or POD), trained by weighted least squares.

    Attributes
    ----------
    settings : LinearModelSettings
    elements : sequence of str
        All elements of the study.
    design_folder : Path
        Folder in which the descriptors of each iteration are cached.
    """

    settings: LinearModelSettings
    elements: Sequence[str]
    design_folder: Path

    def build_basis(self, twojmax: int) -> AnyBasis:
        """Build the basis for a 2Jmax, or for a size of POD."""
        return self.settings.build_basis(self.elements, twojmax)

    @property
    def reference(self) -> ReferencePotential | None:
        """Potential to which the model is added: the core repulsion, unless the settings exclude it."""
        return build_core_repulsion(self.elements) if self.settings.core_repulsion else None

    def load(self, folder: Path) -> Committee:
        """Read a committee that `train` has written; raise an `InputError` if a file is missing or corrupt."""
        return Committee(LinearPotential.read(folder))

    def train(self, training_data: TrainingData, folder: Path, *, seed: int, context: RunContext) -> TrainingResult:
        """Fit the training set, calibrate on the validation set, and write the committee to a folder.

        Raises
        ------
        InputError
            If the training set is empty or too small for the smallest model, or a free atom that the settings require
            has no label.
        """
        dataset, levels = training_data.dataset, training_data.levels
        train_indices = np.flatnonzero(training_data.sets == TRAIN)
        energies, isolated_indices = collect_free_atom_energies(
            self.settings.reference_energies, dataset, levels, self.build_basis(self.settings.twojmax)
        )
        fit_indices = np.setdiff1d(train_indices, isolated_indices)
        if not len(fit_indices):
            raise InputError("the training set has no labels; see iterations/*/label.json for the labels that failed")
        designs = self._load_or_compute_designs(training_data, context)
        # an energy and 3n force components for each configuration; stresses are not counted
        n_rows = int(sum(1 + 3 * n_atoms for n_atoms in dataset.n_atoms[train_indices]))
        first_design = designs[0][1]  # all designs have the same columns
        twojmax, best_level = self._choose_twojmax(first_design, n_rows), levels[-1]
        n_columns, rng = first_design.count_columns_up_to(twojmax), np.random.default_rng([seed, 0])
        basis = self.build_basis(twojmax)
        shifted_levels = [name for name in levels[:-1] if (training_data.level[train_indices] == name).any()]
        constraint = build_free_atom_constraint(energies, basis, shifted_levels, best_level)
        configuration_weights = compute_configuration_weights(training_data, fit_indices, self.settings.downweight)
        parts = build_parts(
            training_data, designs, fit_indices, n_columns, shifted_levels, len(self.elements),
            configuration_weights, constraint,
        )  # fmt: skip
        kind_weights = np.array([self.settings.weight_ratio, 1.0, 1.0])  # of energies, forces and stresses
        fit = CommitteeFit.from_parts(parts, training_data.groups[fit_indices], kind_weights, rng, threads=context.jobs)
        coefficients = fit.coefficients if constraint is None else constraint.expand(fit.coefficients, best_level)
        offset_names = [(name, symbol) for name in shifted_levels for symbol in self.elements]
        offsets = dict(zip(offset_names, map(float, coefficients[n_columns:]), strict=True))
        validation_set = training_data.select_aligned(np.flatnonzero(training_data.sets == VALIDATE), offsets)
        potential, cross_validation = self._build_committee(
            fit, list(dataset.select(train_indices)), validation_set, constraint,
            basis=basis, n_columns=n_columns, level=best_level, seed=seed, context=context,
        )  # fmt: skip
        potential.write(folder)
        fold = np.full(len(dataset), -1)  # -1: in no fold
        fold[fit_indices] = cross_validation.fold
        description = f"2Jmax {twojmax}, {n_columns} columns, {n_rows} rows"
        if symbols := ", ".join(energies[best_level]):
            description += f", exact energies of free atoms of {symbols}"
        return TrainingResult(
            Committee(potential), offsets, description, configuration_weights=configuration_weights,
            cross_validation=cross_validation._replace(fold=fold),
        )  # fmt: skip

    def _build_committee(
        self,
        fit: CommitteeFit,
        training: list[Atoms],
        validation: LabelledStructures,
        constraint: ColumnConstraint | None,
        *,
        basis: AnyBasis,
        n_columns: int,
        level: str,
        seed: int,
        context: RunContext,
    ) -> tuple[LinearPotential, CrossValidation]:
        """Build the committee of a fit, and the committees of its cross-validation.

        `training` are the structures of the training set, which the potential recognises, and `validation` the
        labelled structures on which the committee is calibrated.
        """
        settings = CommitteeSettings(self.settings.members, self.settings.committee_method, seed=seed)
        potential = build_committee(
            basis, fit, settings, training, validation, reference=self.reference, n_columns=n_columns, level=level,
            energy_weight=self.settings.weight_ratio, constraint=constraint, context=context,
        )  # fmt: skip
        return potential, cross_validate_committee(fit, settings, potential, constraint=constraint, level=level)

    def _choose_twojmax(self, design: DesignMatrix, n_rows: int) -> int:
        """Choose the largest 2Jmax within the settings for which there are enough rows, or else the smallest one."""
        max_twojmax = self.settings.twojmax
        min_twojmax = self.build_basis(max_twojmax).min_size
        choices = sorted({int(twojmax) for twojmax in design.column_levels if twojmax >= min_twojmax} | {max_twojmax})
        max_columns = n_rows / MIN_ROWS_PER_COLUMN
        valid_choices = [
            twojmax
            for twojmax in choices
            if twojmax <= max_twojmax and design.count_columns_up_to(twojmax) <= max_columns
        ]
        return max(valid_choices, default=choices[0])

    def _load_or_compute_designs(
        self, training_data: TrainingData, context: RunContext
    ) -> list[tuple[Array, DesignMatrix]]:
        """Return, for each iteration, the indices of its configurations in the dataset and their design matrix.

        The designs are those of the largest 2Jmax, with targets at all levels, minus the reference potential. Designs
        that are not in the cache are computed and written to it.
        """
        basis, designs = self.build_basis(self.settings.twojmax), []
        for iteration_number in np.unique(training_data.iteration).tolist():
            indices = np.flatnonzero(training_data.iteration == iteration_number)
            dataset = training_data.dataset.select(indices)
            path = self.design_folder / f"design-{iteration_number:02d}.h5"
            design = _open_design(path, dataset, basis)
            if design is None:
                design = compute_design(dataset, basis, path, jobs=context.jobs, progress=context.progress)
            design = design.with_labels(dataset, training_data.levels)
            if self.reference is not None:
                design = subtract_reference(design, dataset, basis, self.reference)
            designs.append((indices, design))
        return designs


def _open_design(path: Path, dataset: Dataset, basis: AnyBasis) -> DesignMatrix | None:
    """Open a design file; return None if it is missing or corrupt, or has other structures or another basis."""
    try:
        design = DesignMatrix.open(path)
    except InputError:
        return None
    has_same_structures = design.attributes.get("structures") == dataset.hash_structures()
    return design if has_same_structures and parse_basis(design.attributes["basis"]) == basis else None
