"""The loop's model as a committee of MACE networks; see `paretofit.learning.model` for what a model must do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from paretofit.core import InputError
from paretofit.learning.level_choice import fit_level_offsets
from paretofit.learning.md_run import MdEngine
from paretofit.learning.model import TrainingData, TrainingResult, align_labels, compute_level_weights
from paretofit.learning.sets import TRAIN, VALIDATE
from paretofit.potentials import LabelledStructures, MacePotential
from paretofit.potentials.mace import MaceData, train_mace_committee

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ase import Atoms

    from paretofit.potentials.mace import MaceSettings
    from paretofit.uncertainty import Assessment


@dataclass(frozen=True)
class MaceCommittee:
    """A committee of MACE networks, see `paretofit.learning.model.Committee`."""

    potential: MacePotential

    @property
    def n_members(self) -> int:
        """How many there are."""
        return self.potential.n_members

    def assess(self, atoms: Atoms) -> Assessment:
        """See `Committee`."""
        return self.potential.assess(atoms)

    def assess_members(self, atoms: Atoms) -> tuple[Assessment, Any]:
        """See `Committee`."""
        return self.potential.assess_and_predict(atoms)

    def compute_max_grade(self, atoms: Atoms) -> float:
        """See `Committee`."""
        return float(self.potential.compute_grades(atoms).max())

    def build_md_engine(self, member: int | None, folder: Path) -> MdEngine:  # noqa: ARG002  (networks have their files)
        """See `Committee`."""
        one = self.potential.without_uncertainty() if member is None else self.potential.member(member)
        return MdEngine((), self.potential.elements, one.calculator_factory(), one.digest)


@dataclass(frozen=True)
class MaceModel:
    """A committee of MACE networks that differ in seed.

    Training is watched on the validation set, which also calibrates, as in Bidoggia et al., 2025.

    Attributes
    ----------
    settings : MaceSettings
    elements : sequence of str
        All that will ever occur.
    """

    settings: MaceSettings
    elements: Sequence[str]

    def load(self, folder: Path) -> MaceCommittee:
        """Read a committee that `train` has written."""
        return MaceCommittee(MacePotential.read(folder))

    def train(
        self, data: TrainingData, folder: Path, *, seed: int, jobs: int = 1, progress: bool = False
    ) -> TrainingResult:
        """Train on the training set, watch and calibrate on the validation set, and write the committee.

        Raises
        ------
        InputError
            If there is nothing to train on, labels of a level cannot be put on the scale of the best one, or too many
            networks diverge.
        """
        train, held = (np.flatnonzero(data.sets == name) for name in (TRAIN, VALIDATE))
        if missing := sorted(set(self.elements) - _elements(data, train)):
            raise InputError(
                f"no labelled configuration of the training set has {missing[0]}, which a network must have seen; "
                "label more, or begin with more candidates"
            )
        offsets = fit_level_offsets(data.dataset, data.levels, sorted(set(data.level.tolist())), self.elements)
        labelled = [
            LabelledStructures(part.structures, align_labels(part, data.level[which], offsets), data.groups[which])
            for part, which in ((data.select_labelled(which), which) for which in (train, held))
        ]
        worth = np.array([compute_level_weights(data, str(one))[:2] for one in data.level[train]]) ** 2
        before, settings = self._before(data), self.settings
        if before is not None:  # a network goes on with the zero of energy that it has
            settings = settings.model_copy(update={"isolated_atoms": (before.record or {})["isolated_atoms"]})
        potential = train_mace_committee(
            settings,
            MaceData(labelled[0], labelled[1], worth),
            folder,
            calibration_set=labelled[1],
            seed=seed,
            warm_start_models=() if before is None else before.models,
            level=data.levels[-1],
            jobs=jobs,
            progress=progress,
        )
        words = f"{self.settings.description.split(':')[0]}, {potential.n_members} members of {potential.epochs_text}"
        return TrainingResult(MaceCommittee(potential), offsets, words, potential.events, potential.training_table())

    def _before(self, data: TrainingData) -> MacePotential | None:
        """The committee of the iteration before, if it can be gone on with."""
        tuned = self.settings.foundation
        if (
            not self.settings.warm_start
            or data.previous_model is None
            or (tuned is not None and tuned.mode == "multihead")
        ):
            return None  # with several heads it begins with the foundation model each time
        try:
            before = MacePotential.read(data.previous_model)
        except InputError:  # another kind of model
            return None
        same = before.record is not None and _shape(before.record["settings"]) == _shape(self.settings.model_dump())
        return before if same and set(before.elements) == set(self.elements) else None


def _shape(settings: dict[str, Any]) -> list[Any]:
    """What decides which parameters a network has."""
    return [settings[name] for name in ("r_max", "layers", "channels", "max_l", "max_ell", "correlation", "dtype")]


def _elements(data: TrainingData, which: Any) -> set[str]:
    return {symbol for atoms in data.dataset.select(which) for symbol in atoms.get_chemical_symbols()}
