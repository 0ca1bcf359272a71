"""Labelled configurations of all iterations, from which a model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from paretofit.core import Array
from paretofit.dataset import Dataset
from paretofit.potentials import LabelledStructures, StructureLabels


@dataclass(frozen=True)
class TrainingData:
    """Labelled configurations of all iterations so far, each with its best label.

    Attributes
    ----------
    dataset : Dataset
    sets : (n,) str
        "train", "validate" or "test".
    level : (n,) str
        Level of the label that is used for each configuration.
    groups : (n,) int64
        Number of the group of each configuration; the configurations of a group are in the same set.
    iteration : (n,) int64
        Iteration that added each configuration.
    levels : list of str
        Names of the levels in use, with the best level last.
    level_noise : mapping of str to (float, float)
        Errors of each level's energies (eV/atom, without a constant offset) and forces (eV/Å) relative to the best
        level; levels with unknown errors are missing.
    previous_error : (float, float) or None
        Validation errors of the model of the previous iteration, eV/atom and eV/Å; None if they are unknown.
    previous_model : Path or None
        Folder of the model of the previous iteration; None in the first iteration.
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
        """Select structures with their labels, each at its level in `level`, in the order of `indices` ``(m,)``."""
        structures: dict[int, Atoms] = {}
        labels: dict[int, StructureLabels] = {}
        for name in dict.fromkeys(self.level[indices].tolist()):
            level_indices = indices[self.level[indices] == name]
            labelled_structures = LabelledStructures.from_dataset(self.dataset, name, level_indices)
            structures |= dict(zip(level_indices.tolist(), labelled_structures.structures, strict=True))
            labels |= dict(zip(level_indices.tolist(), labelled_structures.labels, strict=True))
        order = indices.tolist()
        return LabelledStructures(
            [structures[index] for index in order], [labels[index] for index in order], self.groups[indices]
        )

    def select_aligned(self, indices: Array, offsets: Mapping[tuple[str, str], float]) -> LabelledStructures:
        """Select structures with their labels, and shift the energies to the energy scale of the best level.

        Parameters
        ----------
        indices : (m,) int64
            Indices of the configurations in the dataset.
        offsets : mapping of (str, str) to float
            Energy offset per atom (eV) relative to the best level, by level and element; 0 if missing.
        """
        labelled_structures, aligned_labels = self.select_labelled(indices), []
        for labels, atoms, level in zip(
            labelled_structures.labels, labelled_structures.structures, self.level[indices], strict=True
        ):
            energy_offset = sum(offsets.get((str(level), symbol), 0.0) for symbol in atoms.get_chemical_symbols())
            aligned_labels.append(labels._replace(energy=float(labels.energy) - energy_offset))
        return LabelledStructures(labelled_structures.structures, aligned_labels, labelled_structures.groups)
