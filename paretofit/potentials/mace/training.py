"""Training of the members of a MACE committee: their common options, and the supervision of parallel subprocesses."""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from paretofit.core import ExecutionError, hash_file
from paretofit.dataset import measure_isolation
from paretofit.execution import RunContext, get_active_client
from paretofit.potentials.mace.loading import build_option_arguments
from paretofit.potentials.mace.mace_settings import OPTION_KEYS, MaceSettings
from paretofit.potentials.mace.model_trust import is_unpickling_permitted
from paretofit.potentials.mace.training_files import MaceData, estimate_atomic_energies, write_replay
from paretofit.potentials.mace.training_member import MAX_ATTEMPTS, MODEL_NAME, MemberTraining, TrainedMember

POLL_INTERVAL_S = 0.3


def train_members(
    settings: MaceSettings,
    data: MaceData,
    folder: Path,
    *,
    seed: int,
    warm_start_models: Sequence[Path] = (),
    context: RunContext,
) -> list[TrainedMember]:
    """Train all members; finished members are not trained again, and unfinished members resume from checkpoints.

    Parameters
    ----------
    settings : MaceSettings
    data : MaceData
    folder : Path
        Directory of the training. Members in this directory that were trained from other inputs are deleted.
    seed, warm_start_models
        As in `train_mace_committee`.
    context : RunContext
        `context.jobs` members are trained at the same time on CPUs, and one member on each GPU; with a cluster, one
        member on each worker.

    Returns
    -------
    list of TrainedMember
        At least two members; those that failed twice are omitted.

    Raises
    ------
    InputError
        If the training or validation set has no configuration with at least two atoms, an option or the foundation
        model is invalid, or existing networks are not trusted.
    ExecutionError
        If fewer than two members could be trained.
    """
    data.check()
    folder = folder.absolute()  # workers of a cluster may have another working directory
    members = _prepare_members(settings, data, folder, seed, warm_start_models)
    if get_active_client() is None:
        epochs = _supervise(members, _list_environments(settings, context))
    else:
        epochs = _train_on_cluster(members, context)
    for _ in context.track(epochs, settings.members * settings.epochs, "MACE epochs"):
        pass
    trained_members = [member.read_result() for member in members if not member.failure]
    if len(trained_members) < 2:
        reasons = "; ".join(dict.fromkeys(member.failure for member in members if member.failure))
        raise ExecutionError(
            f"the training of {settings.members - len(trained_members)} of {settings.members} networks failed twice: "
            f"{reasons}; see the logs under {folder}"
        )
    return trained_members


def _prepare_members(
    settings: MaceSettings, data: MaceData, folder: Path, seed: int, warm_start_models: Sequence[Path]
) -> list[MemberTraining]:
    """Write the training files, draw the seeds of the members, and return the training of each member."""
    files = data.write(folder, settings.r_max)
    options = _build_options(settings, data, files, folder)
    input_digests = [hash_file(file) for file in files]
    option_arguments = build_option_arguments(settings.options)
    # The 7 makes these random numbers independent of others that are drawn with the same seed.
    seeds = np.random.default_rng([seed, 7]).integers(1, 2**31 - 1, (settings.members, MAX_ATTEMPTS)).tolist()
    models = [*warm_start_models[: settings.members], *[None] * (settings.members - len(warm_start_models))]
    return [
        MemberTraining(
            settings,
            folder / f"member_{k}",
            list(map(str, seeds[k])),
            options,
            models[k],
            input_digests,
            option_arguments,
            is_unpickling_permitted(),
        )
        for k in range(settings.members)
    ]


def _list_environments(settings: MaceSettings, context: RunContext) -> list[dict[str, str]]:
    """Return the environment variables of each subprocess that can run at the same time."""
    if settings.device == "cpu":
        return [{"CUDA_VISIBLE_DEVICES": ""}] * max(1, context.jobs)  # an empty value hides all GPUs
    import torch  # noqa: PLC0415  (the import takes seconds, and torch is optional)

    visible_devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    device_ids = visible_devices.split(",") if visible_devices else [str(k) for k in range(torch.cuda.device_count())]
    return [{"CUDA_VISIBLE_DEVICES": device_id} for device_id in device_ids]


def _supervise(members: Sequence[MemberTraining], environments: Sequence[dict[str, str]]) -> Iterator[None]:
    """Train members, at most one in each environment at a time; yield once for each epoch of each member.

    Members that are already finished are not trained again; their epochs are yielded first. If the iteration is
    stopped, the running subprocesses are killed.
    """
    waiting_members: deque[MemberTraining] = deque()
    running_members: dict[int, MemberTraining] = {}
    for member in members:
        if member.check_finished():
            yield from [None] * member.settings.epochs
        else:
            waiting_members.append(member)
    try:
        while waiting_members or running_members:
            for slot, environment in enumerate(environments):
                if slot not in running_members and waiting_members:
                    running_members[slot] = waiting_members.popleft()
                    running_members[slot].start(environment)
            time.sleep(POLL_INTERVAL_S)
            for slot, member in list(running_members.items()):
                yield from [None] * member.poll()
                if member.is_done:
                    del running_members[slot]
    finally:
        for member in running_members.values():
            member.stop()


def _train_on_cluster(members: Sequence[MemberTraining], context: RunContext) -> Iterator[None]:
    """Train each member on a worker of a cluster with a shared file system; yield its epochs when it ends."""
    for number, failure in context.map(_train_in_worker, enumerate(members), ordered=False):
        members[number].failure = failure
        yield from [None] * members[number].settings.epochs


def _train_in_worker(task: tuple[int, MemberTraining]) -> tuple[int, str]:
    """Train one member; return its number, and the reason for a failure or an empty string."""
    number, member = task
    for _ in _supervise([member], [{"CUDA_VISIBLE_DEVICES": ""} if member.settings.device == "cpu" else {}]):
        pass
    return number, member.failure


def _build_options(settings: MaceSettings, data: MaceData, files: tuple[Path, Path], folder: Path) -> dict[str, str]:
    """Build the options of mace_run_train that are common to all members.

    `files` are the training and the validation file. For multihead fine-tuning, ``replay.extxyz`` is written to
    `folder`.
    """
    is_isolated = [measure_isolation(atoms, settings.r_max) > 0 for atoms in data.training_set.structures]
    energies = {atomic_numbers[symbol]: energy for symbol, energy in estimate_atomic_energies(settings, data).items()}
    quantities = ("energy", "forces", "stress") if data.has_stress else ("energy", "forces")
    options: dict[str, Any] = {
        **{option: getattr(settings, key) for option, key in OPTION_KEYS.items()},
        "name": MODEL_NAME,
        "train_file": files[0].absolute(),
        "valid_file": files[1].absolute(),
        "model": "MACE",
        "batch_size": min(settings.batch_size, is_isolated.count(False)),  # MACE omits incomplete batches
        "valid_batch_size": 16,  # affects only speed and memory
        "scheduler_patience": max(1, settings.patience // 3),  # lowers the learning rate before training stops
        "loss": "stress" if data.has_stress else "weighted",
        **{f"{name}_weight": getattr(settings.weights, name) for name in quantities},
        "E0s": energies,
        "plot": False,
        "multiheads_finetuning": False,
    }
    if (stage_two := settings.stage_two) is not None:
        options |= {
            "start_swa": settings.stage_two_start,
            "swa_lr": stage_two.learning_rate,
            "patience": settings.patience,  # MACE then starts stage two early
            **{f"swa_{name}_weight": getattr(stage_two.weights, name) for name in quantities},
        }
    if (foundation := settings.foundation) is not None:
        options["foundation_model"] = foundation.file.absolute()
        if foundation.head is not None:
            options["foundation_head"] = foundation.head
        if foundation.mode == "multihead" and foundation.replay is not None:
            replay_file = (folder / "replay.extxyz").absolute()
            write_replay(foundation.replay, replay_file)
            # With force_mh_ft_lr, MACE uses `lr` instead of its own default for multihead fine-tuning.
            options |= {"multiheads_finetuning": True, "pt_train_file": replay_file, "force_mh_ft_lr": True}
    return {key: str(value) for key, value in options.items()}
