"""One label: a configuration at a level, computed in a worker process, whatever happens there."""

import json
import resource
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from threadpoolctl import threadpool_limits

from paretofit.core import InputError, hash_array, hash_json, one_line, write_text
from paretofit.labelling.engines.base import Engine, EngineError, NotConvergedError, Outcome
from paretofit.labelling.ladder import Level
from paretofit.labelling.scratch import raise_if_disk_full, scratch_folder

Record = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A label to compute."""

    config_id: int
    atoms: Atoms
    level: Level
    key: str

    @property
    def file_stem(self) -> str:
        """Level and id, as a file name."""
        return f"{self.level.name}-{self.config_id}"


def task_key(atoms: Atoms, level: Level, engine: Engine) -> str:
    """What a label depends on: the geometry, what the level sets, and the engine with its options."""
    geometry = [atoms.numbers.tolist(), atoms.pbc.tolist(), *map(hash_array, (atoms.cell[:], atoms.positions))]
    # Without defaults, so that a setting which a later version adds does not make finished labels unknown.
    settings = level.model_dump(exclude={"name": True, "scf": {"max_iterations"}}, exclude_defaults=True)
    settings = {key: value for key, value in settings.items() if value != {}}
    return hash_json([geometry, settings, engine.name, engine.collect_key_settings(sorted(set(atoms.symbols)))])


def compute_label(
    task: Task, engine: Engine, retries: int, failed_folder: Path, finished_folder: Path | None = None
) -> Record:
    """Compute a label, with further attempts where self-consistency is not reached.

    Parameters
    ----------
    task : Task
    engine : Engine
    retries : int
        Further attempts.
    failed_folder : Path
        The folder where the engine's files are kept if the label fails.
    finished_folder : Path, optional
        A folder for the record, which is on disk there before it is returned: whoever waits for it may be gone by then.

    Returns
    -------
    dict
        ``status`` "done" with energy, forces, stress, or "failed" with the reason in ``info``; always the
        CPU ``seconds`` of all attempts together.

    Raises
    ------
    FailedError
        If there is no space left where the engine works; whatever else happens becomes the record.
    """
    try:
        record = _compute(task, engine, retries, failed_folder)
    except OSError as error:  # a folder that cannot be written
        raise_if_disk_full(error)
        return make_record(task, None, {"attempts": 1, "reasons": [f"{type(error).__name__}: {one_line(error)}"]})
    if finished_folder is not None:
        with suppress(OSError, InputError):  # where it cannot be kept, it is still returned
            finished_folder.mkdir(parents=True, exist_ok=True)
            write_text(finished_folder / f"{task.key}.json", json.dumps(record) + "\n")
    return record


def _compute(task: Task, engine: Engine, retries: int, failures: Path) -> Record:
    engine.warm_up(task.level)
    start, wall = _cpu_seconds(), time.perf_counter()
    reasons: list[str] = []
    outcome = None
    with scratch_folder() as scratch, threadpool_limits(1):
        for attempt in range(retries + 1):
            folder = scratch / str(attempt)
            folder.mkdir()
            try:
                outcome = _checked(engine.compute(task.atoms, task.level, attempt, folder), len(task.atoms))
                break
            except NotConvergedError as error:
                reasons.append(f"attempt {attempt + 1}: {one_line(error) or 'not converged'}")
            except InputError:
                raise
            except Exception as error:  # noqa: BLE001  (an engine raises what it likes; it becomes the record)
                raise_if_disk_full(error)
                reasons.append(f"attempt {attempt + 1}: {type(error).__name__}: {one_line(error)}")
                break
        if outcome is None:
            with suppress(OSError):
                shutil.copytree(scratch, failures / task.file_stem, dirs_exist_ok=True)
    info = {
        "kpts": list(task.level.kpoints(task.atoms)),
        "cpu_seconds": round(_cpu_seconds() - start, 6),
        "wall_seconds": round(time.perf_counter() - wall, 6),
        "attempts": len(reasons) + (outcome is not None),
    }
    return make_record(task, outcome, {**info, **({"reasons": reasons} if reasons else {})})


def _checked(outcome: Outcome, n_atoms: int) -> Outcome:
    """Refuse what is no label, before it is called one."""
    shapes = {"energy": (), "forces": (n_atoms, 3), "stress": (6,)}
    for quantity, shape in shapes.items():
        value = getattr(outcome, quantity)
        if value is None:
            continue
        array = np.asarray(value, dtype=float)
        if array.shape != shape:
            raise EngineError(f"the {quantity} that it gave has the shape {array.shape} instead of {shape}")
        if not np.isfinite(array).all():
            raise EngineError(f"the {quantity} that it gave is not finite")
    return outcome


def read_output(task: Task, engine: Engine, source: Path) -> Record | None:
    """The record of a label that was computed elsewhere, below ``source/<level>/<id>``; None if it has not run."""
    folder = source / task.level.name / str(task.config_id)
    if not folder.is_dir():
        return None
    info: dict[str, Any] = {"kpts": list(task.level.kpoints(task.atoms)), "attempts": 1, "engine": engine.program}
    seconds = engine.read_cpu_seconds(folder)
    info |= {} if seconds is None else {"cpu_seconds": seconds}
    try:
        outcome = _checked(engine.read(folder, 0), len(task.atoms))
    except NotConvergedError as error:
        return make_record(task, None, {**info, "reasons": [one_line(error)]})
    except EngineError as error:
        ran = seconds is not None  # without a time at its end it has not run, or not to its end
        return make_record(task, None, {**info, "reasons": [one_line(error)]}) if ran else None
    return make_record(task, outcome, info)


def is_record(entry: Any) -> bool:
    """Whether an entry of a journal is a label's record."""
    if not isinstance(entry, dict) or not {"key", "id", "level", "status", "info"} <= entry.keys():
        return False
    return entry["status"] == "failed" or {"energy", "forces", "stress"} <= entry.keys()


def make_record(task: Task, outcome: Outcome | None, info: dict[str, Any]) -> Record:
    """The record of a label, as JSON can hold it: floats keep every digit."""
    record: Record = {"key": task.key, "id": task.config_id, "level": task.level.name}
    record |= {"seconds": info.get("cpu_seconds"), "status": "failed" if outcome is None else "done"}
    if outcome is None:
        return {**record, "info": {**info, "converged": False}}
    return {
        **record,
        "energy": float(outcome.energy),
        "forces": outcome.forces.tolist(),
        "stress": None if outcome.stress is None else outcome.stress.tolist(),
        "info": {**info, "converged": True, **outcome.info},
    }


def _cpu_seconds() -> float:
    """CPU time of this process and of the programs that it has started and waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)
