"""Training a committee of MACE networks: the options that its members share, and as many at a time as there is room."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers

from paretofit.core import ExecutionError, hash_file, track
from paretofit.execution import get_active_client, parallel_map
from paretofit.potentials.mace.loading import build_option_arguments
from paretofit.potentials.mace.training_files import MaceData, estimate_atomic_energies, write_replay
from paretofit.potentials.mace.training_member import MAX_ATTEMPTS, MODEL_NAME, MemberTraining, TrainedMember

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from paretofit.potentials.mace.mace_settings import MaceSettings

POLL = 0.3  # seconds between looks


def train_members(
    settings: MaceSettings,
    data: MaceData,
    folder: Path,
    *,
    seed: int,
    warm_start_models: Sequence[Path] = (),
    jobs: int = 1,
    progress: bool = False,
) -> list[TrainedMember]:
    """Train the members that are not finished, going on from their checkpoints.

    Parameters
    ----------
    settings : MaceSettings
    data : MaceData
    folder : Path
        Of the training; members that stand there and were made from the same inputs are kept.
    seed : int
        Of which those of the members are drawn.
    warm_start_models : sequence of Path
        A model for each member to start from.
    jobs : int
        Members at a time; on GPUs one on each.
    progress : bool
        Show a bar of epochs.

    Returns
    -------
    list of TrainedMember
        Without those whose second attempt failed, too.

    Raises
    ------
    InputError
        If there is nothing to train on.
    FailedError
        If fewer than two members are left.
    """
    data.check()
    folder = folder.absolute()  # workers may be elsewhere
    train, validate = data.write(folder)
    options = _options(settings, data, train, validate, folder)
    seeds = np.random.default_rng([seed, 7]).integers(1, 2**31 - 1, (settings.members, MAX_ATTEMPTS)).tolist()
    inputs, more = [hash_file(train), hash_file(validate)], build_option_arguments(settings.options)
    starts = [warm_start_models[k] if k < len(warm_start_models) else None for k in range(settings.members)]
    members = [
        MemberTraining(settings, folder / f"member_{k}", [str(one) for one in own], options, start, inputs, more)
        for k, (own, start) in enumerate(zip(seeds, starts, strict=True))
    ]
    total = settings.members * settings.epochs
    running = _supervise(members, _slots(settings, jobs)) if get_active_client() is None else _elsewhere(members)
    for _ in track(running, total, "MACE epochs", enabled=progress):
        pass
    made = [one.read_result() for one in members if not one.failure]
    if len(made) < 2:
        reasons = "; ".join(dict.fromkeys(one.failure for one in members if one.failure))
        raise ExecutionError(
            f"{settings.members - len(made)} of {settings.members} networks could not be trained, twice: {reasons}; "
            f"the logs are under {folder}"
        )
    return made


def _slots(settings: MaceSettings, jobs: int) -> list[dict[str, str]]:
    """The environment of each member that may train at the same time."""
    if settings.device == "cpu":
        return [{"CUDA_VISIBLE_DEVICES": ""}] * max(1, jobs)
    import torch  # noqa: PLC0415  (seconds, and the extra)

    there = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = there.split(",") if there else [str(k) for k in range(torch.cuda.device_count())]
    return [{"CUDA_VISIBLE_DEVICES": name} for name in names]


def _supervise(members: Sequence[MemberTraining], slots: Sequence[dict[str, str]]) -> Iterator[None]:
    """Run the members, as many at a time as there are slots; yield for each epoch."""
    waiting = deque(one for one in members if not one.check_finished())
    running: dict[int, MemberTraining] = {}
    for one in members:
        if one not in waiting:
            yield from [None] * one.settings.epochs
    try:
        while waiting or running:
            for slot in range(len(slots)):
                if slot not in running and waiting:
                    running[slot] = waiting.popleft()
                    running[slot].start(slots[slot])
            time.sleep(POLL)
            for slot, one in list(running.items()):
                yield from [None] * one.poll()
                if one.is_done:
                    del running[slot]
    finally:
        for one in running.values():
            one.stop()


def _elsewhere(members: Sequence[MemberTraining]) -> Iterator[None]:
    """On the workers of a cluster, a member each, in the folder that they share with us; yield for each epoch."""
    for number, failed in parallel_map(_alone, list(enumerate(members)), 1, ordered=False):
        members[number].failure = failed
        yield from [None] * members[number].settings.epochs


def _alone(task: tuple[int, MemberTraining]) -> tuple[int, str]:
    """Train one member, in a worker; say why it failed, if it did."""
    number, member = task
    for _ in _supervise([member], [{"CUDA_VISIBLE_DEVICES": ""} if member.settings.device == "cpu" else {}]):
        pass
    return number, member.failure


def _options(settings: MaceSettings, data: MaceData, train: Path, validate: Path, folder: Path) -> dict[str, str]:
    """Options of mace_run_train that all members share."""
    n_train = sum(len(atoms) > 1 or bool(atoms.pbc.any()) for atoms in data.training_set.structures)
    weights = {"energy": settings.weights.energy, "forces": settings.weights.forces, "stress": settings.weights.stress}
    energies = {atomic_numbers[symbol]: energy for symbol, energy in estimate_atomic_energies(settings, data).items()}
    options: dict[str, Any] = {
        "name": MODEL_NAME,
        "train_file": train.absolute(),
        "valid_file": validate.absolute(),
        "model": "MACE",
        "r_max": settings.r_max,
        "num_interactions": settings.layers,
        "num_channels": settings.channels,
        "max_L": settings.max_l,
        "max_ell": settings.max_ell,
        "correlation": settings.correlation,
        "max_num_epochs": settings.epochs,
        "batch_size": min(settings.batch_size, n_train),  # a batch that is not full is left out
        "valid_batch_size": 16,
        "lr": settings.learning_rate,
        "scheduler_patience": max(1, settings.patience // 3),
        "default_dtype": settings.dtype,
        "loss": "stress" if data.has_stress else "weighted",
        **{f"{name}_weight": value for name, value in weights.items() if data.has_stress or name != "stress"},
        "ema_decay": settings.ema_decay,
        "E0s": energies,
        "device": settings.device,
        "plot": False,
        "multiheads_finetuning": False,
    }
    if settings.stage_two is not None:
        two = settings.stage_two
        options |= {"start_swa": settings.stage_two_start, "swa_lr": two.learning_rate, "patience": settings.patience,
                    "swa_energy_weight": two.weights.energy, "swa_forces_weight": two.weights.forces}  # fmt: skip
        options |= {"swa_stress_weight": two.weights.stress} if data.has_stress else {}
    if settings.foundation is not None:
        options |= _fine_tuning(settings, folder)
    return {key: str(value) for key, value in options.items()}


def _fine_tuning(settings: MaceSettings, folder: Path) -> dict[str, Any]:
    own = settings.foundation
    if own is None:
        return {}
    options: dict[str, Any] = {"foundation_model": own.file.absolute()}
    if own.head is not None:
        options["foundation_head"] = own.head
    if own.mode == "multihead" and own.replay is not None:
        write_replay(own.replay, folder / "replay.extxyz")
        options |= {"multiheads_finetuning": True, "pt_train_file": (folder / "replay.extxyz").absolute()}
        options |= {"force_mh_ft_lr": True}  # the learning rate is the user's
    return options
