"""Committee of MACE networks as a model of the loop, which implements the protocol `paretofit.learning.model.Model`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paretofit.core import InputError
from paretofit.execution import RunContext
from paretofit.learning.level_choice import fit_level_offsets
from paretofit.learning.model import Committee, TrainingResult
from paretofit.learning.set_balance import TRAIN, VALIDATE
from paretofit.learning.training_rows import compute_level_weights
from paretofit.learning.training_set import TrainingData
from paretofit.potentials import MacePotential
from paretofit.potentials.mace import MaceData, MaceSettings, train_mace_committee
from paretofit.structures import list_elements

# settings that determine the shapes of a network's parameters; it is trained further only if they are unchanged
SHAPE_SETTINGS = ("r_max", "layers", "channels", "max_l", "max_ell", "correlation", "dtype")


@dataclass(frozen=True)
class MaceModel:
    """Committee of MACE networks with different random seeds.

    The validation set is used to monitor the training and to calibrate the committee, as in Bidoggia et al. (2025).

    Attributes
    ----------
    settings : MaceSettings
    elements : sequence of str
        All elements of the study.
    """

    settings: MaceSettings
    elements: Sequence[str]

    def load(self, folder: Path) -> Committee:
        """Read a committee that `train` has written; raise an `InputError` if a file is missing or corrupt."""
        return Committee(MacePotential.read(folder))

    def train(self, training_data: TrainingData, folder: Path, *, seed: int, context: RunContext) -> TrainingResult:
        """Train on the training set, monitor and calibrate on the validation set, and write the committee to a folder.

        If the settings allow it, the networks of the previous iteration are trained further.

        Raises
        ------
        InputError
            If an element is missing in the training set, the labels of a level cannot be shifted to the energy scale of
            the best level, or too many networks diverge.
        """
        train_indices = np.flatnonzero(training_data.sets == TRAIN)
        if missing_elements := sorted(
            set(self.elements) - set(list_elements(training_data.dataset.select(train_indices)))
        ):
            raise InputError(
                f"no labelled configuration of the training set contains {missing_elements[0]}, so that a network "
                "cannot be trained for it; label more configurations, or start with more candidates"
            )
        offsets = fit_level_offsets(
            training_data.dataset, training_data.levels, sorted(set(training_data.level.tolist())), self.elements
        )
        train_set = training_data.select_aligned(train_indices, offsets)
        validation_set = training_data.select_aligned(np.flatnonzero(training_data.sets == VALIDATE), offsets)
        # [:2] selects energy and forces; the weights of rows are squared, because the loss weights squared errors
        loss_weights = (
            np.array(
                [compute_level_weights(training_data, str(name))[:2] for name in training_data.level[train_indices]]
            )
            ** 2
        )
        predecessor, settings = self._read_predecessor(training_data), self.settings
        if predecessor is not None:  # a network that is trained further must keep its zero of energy
            settings = settings.model_copy(update={"isolated_atoms": (predecessor.record or {})["isolated_atoms"]})
        potential = train_mace_committee(
            settings,
            MaceData(train_set, validation_set, loss_weights),
            folder,
            calibration_set=validation_set,
            seed=seed,
            warm_start_models=() if predecessor is None else predecessor.models,
            level=training_data.levels[-1],
            context=context,
        )
        model_name = self.settings.description.split(":")[0]
        description = f"{model_name}, {potential.n_members} members of {potential.epochs_text}"
        return TrainingResult(
            Committee(potential), offsets, description, potential.events, potential.build_training_table()
        )

    def _read_predecessor(self, training_data: TrainingData) -> MacePotential | None:
        """Read the committee of the previous iteration; return None if the training does not start from it."""
        foundation = self.settings.foundation
        if not self.settings.warm_start or training_data.previous_model is None:
            return None
        if foundation is not None and foundation.mode == "multihead":
            return None  # multihead training always starts from the foundation model
        try:
            predecessor = MacePotential.read(training_data.previous_model)
        except InputError:  # the previous model is not a MACE committee
            return None
        if predecessor.record is None or set(predecessor.elements) != set(self.elements):
            return None
        previous_settings, settings = predecessor.record["settings"], self.settings.model_dump()
        has_same_shape = all(previous_settings[name] == settings[name] for name in SHAPE_SETTINGS)
        return predecessor if has_same_shape else None
