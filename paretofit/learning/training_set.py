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
        Errors of a level's energies (eV/atom, without the offset) and forces (eV/Å) against the best level, if known.
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
        labelled_structures, aligned_labels = self.select_labelled(indices), []
        for labels, atoms, level in zip(
            labelled_structures.labels, labelled_structures.structures, self.level[indices], strict=True
        ):
            energy_offset = sum(offsets.get((str(level), symbol), 0.0) for symbol in atoms.get_chemical_symbols())
            aligned_labels.append(labels._replace(energy=float(labels.energy) - energy_offset))
        return LabelledStructures(labelled_structures.structures, aligned_labels, labelled_structures.groups)
