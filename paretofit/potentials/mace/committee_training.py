"""From labelled structures to a committee of MACE networks that knows its errors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from paretofit.core import atomic_path
from paretofit.potentials.assessment import map_structures
from paretofit.potentials.committee_building import calibrate_committee
from paretofit.potentials.mace.loading import check_mace
from paretofit.potentials.mace.mace_potential import MacePotential, fit_feature_grades
from paretofit.potentials.mace.training import train_members
from paretofit.potentials.mace.training_files import estimate_atomic_energies
from paretofit.uncertainty import Uncertainty

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ase import Atoms

    from paretofit.core import Array
    from paretofit.potentials.committee_building import LabelledStructures
    from paretofit.potentials.mace.mace_settings import MaceSettings
    from paretofit.potentials.mace.training_files import MaceData

METHOD = "seeds"  # how the members differ
TRAINING_FOLDER = "training"  # subfolder of what only training needs


def train_mace_committee(
    settings: MaceSettings,
    data: MaceData,
    folder: Path,
    *,
    calibration_set: LabelledStructures,
    seed: int,
    warm_start_models: Sequence[Path] = (),
    coverage: float = 0.9,
    level: str = "",
    jobs: int = 1,
    progress: bool = False,
) -> MacePotential:
    """Train a committee, calibrate it on what was held out, grade atoms by the training set, and write it.

    Parameters
    ----------
    settings : MaceSettings
    data : MaceData
        What trains, and what training is watched on.
    folder : Path
        What only training needs is in ``training`` there; a training that was cut off goes on from its checkpoints.
    calibration_set : Labelled
        What calibrates; may be that which training is watched on (then a little too confident), or empty.
    seed : int
    warm_start_models : sequence of Path
        A model for each member to start from.
    coverage : float
        Of the intervals.
    level : str
        Of the labels.

    Raises
    ------
    InputError
        If MACE or the device is not there, there is nothing to train on, or too many networks diverge.
    """
    check_mace(settings.device, settings.options)
    members = train_members(
        settings, data, folder / TRAINING_FOLDER, seed=seed, warm_start_models=warm_start_models, jobs=jobs, progress=progress
    )  # fmt: skip
    models = []
    for k, one in enumerate(members):
        models.append(folder / f"member_{k}.model")
        with atomic_path(models[-1]) as temporary:
            temporary.write_bytes(one.model.read_bytes())
    record: dict[str, Any] = {
        "settings": settings.model_dump(mode="json"),
        "isolated_atoms": estimate_atomic_energies(settings, data),
        "members": [one.record for one in members],
        "failed": settings.members - len(members),
    }
    bare = MacePotential(tuple(models), tuple(data.elements), settings.device, settings.dtype, None, record)
    training = list(data.training_set.structures)
    features = map_structures(_features, bare, training, "atoms", jobs, progress)
    calibrated, known = calibrate_committee(bare, training, calibration_set, jobs=jobs, progress=progress)
    grades = fit_feature_grades(bare, training, features)
    made = replace(
        bare, uncertainty=Uncertainty(METHOD, calibrated, grades, None, 1.0, known, coverage, level, len(models))
    )
    made.write(folder)
    return made


def _features(potential: MacePotential, atoms: Atoms) -> Array:
    return potential.compute_descriptors(atoms)
