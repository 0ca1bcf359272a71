"""Training of a MACE committee on labelled structures, with its calibration and its grades of atoms."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from paretofit.core import atomic_path
from paretofit.descriptors import map_structures
from paretofit.execution import RunContext
from paretofit.potentials.assessment import fit_environment_grades
from paretofit.potentials.committee_building import LabelledStructures, calibrate_committee
from paretofit.potentials.mace.loading import check_mace
from paretofit.potentials.mace.mace_potential import MacePotential
from paretofit.potentials.mace.mace_settings import MaceSettings
from paretofit.potentials.mace.training import train_members
from paretofit.potentials.mace.training_files import MaceData, estimate_atomic_energies
from paretofit.potentials.mace.training_member import TrainedMember
from paretofit.uncertainty import Uncertainty

METHOD = "seeds"  # name of the method of this committee, whose members differ in their seeds
TRAINING_FOLDER = "training"  # name of the subdirectory with files that only the training uses


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
    context: RunContext,
) -> MacePotential:
    """Train a committee, calibrate it on held-out structures, fit grades to the training set, and write the committee.

    Parameters
    ----------
    settings : MaceSettings
    data : MaceData
        Training and validation set.
    folder : Path
        Directory of the potential. An interrupted training resumes from checkpoints in the subdirectory ``training``.
    calibration_set : LabelledStructures
        Held-out structures; may be empty. The validation set can be used, but intervals are then slightly too narrow.
    seed : int
        Seed from which those of the members are drawn.
    warm_start_models : sequence of Path
        Networks from which training starts: the first member from the first network, and so on. If there are fewer
        networks than members, the other members start from random parameters or the foundation model.
    coverage : float
        Coverage of the intervals.
    level : str
        Level of the labels.
    context : RunContext

    Returns
    -------
    MacePotential
        The calibrated committee, which is also written to `folder`.

    Raises
    ------
    InputError
        If MACE or the device is missing, and as in `train_members`.
    ExecutionError
        If fewer than two networks could be trained.
    """
    check_mace(settings.device, settings.options)
    members = train_members(
        settings, data, folder / TRAINING_FOLDER, seed=seed, warm_start_models=warm_start_models, context=context
    )
    record: dict[str, Any] = {
        "settings": settings.model_dump(mode="json"),
        "isolated_atoms": estimate_atomic_energies(settings, data),
        "members": [member.record for member in members],
        "failed": settings.members - len(members),
    }
    models = _store_models(members, folder)
    committee = MacePotential(models, tuple(data.elements), settings.device, settings.dtype, None, record)
    structures = list(data.training_set.structures)
    descriptors = map_structures(MacePotential.compute_descriptors, committee, structures, "atoms", context)
    calibration, roles = calibrate_committee(committee, structures, calibration_set, context)
    grades = fit_environment_grades(committee.elements, structures, descriptors)
    uncertainty = Uncertainty(
        METHOD,
        calibration,
        grades,
        leverage=None,  # networks have no leverages, and the weight is therefore not used
        energy_weight=1.0,
        structure_roles=roles,
        coverage=coverage,
        level=level,
        n_members=len(models),
    )
    calibrated_committee = replace(committee, uncertainty=uncertainty)
    calibrated_committee.write(folder)
    return calibrated_committee


def _store_models(members: Sequence[TrainedMember], folder: Path) -> tuple[Path, ...]:
    """Copy the networks to the directory of the potential, and return their new paths."""
    paths = []
    for k, member in enumerate(members):
        paths.append(folder / f"member_{k}.model")
        with atomic_path(paths[-1]) as temporary_path:
            temporary_path.write_bytes(member.model.read_bytes())
    return tuple(paths)
