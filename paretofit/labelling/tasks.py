"""Computation of one label (a configuration at a level) in a worker process; failed labels have records, too."""

import json
import resource
import shutil
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from threadpoolctl import threadpool_limits

from paretofit.core import (
    DISK_WRITE_ERRNOS,
    ExecutionError,
    InputError,
    create_temporary_folder,
    hash_array,
    hash_json,
    join_lines,
    write_text,
)
from paretofit.labelling.engines.base import Engine, EngineError, NotConvergedError, Outcome
from paretofit.labelling.ladder import Level

Record = dict[str, Any]  # JSON types, see `build_record`
MIN_FREE_BYTES = 1 << 20  # free space below which a disk counts as full; engines report a full disk by various errors


@dataclass(frozen=True)
class Task:
    """Label to compute."""

    config_id: int
    atoms: Atoms
    level: Level
    key: str  # digest of everything that the label depends on, see `compute_task_key`

    @property
    def file_stem(self) -> str:
        """Level and configuration id, joined by a hyphen for use in file names."""
        return f"{self.level.name}-{self.config_id}"


def compute_task_key(atoms: Atoms, level: Level, engine: Engine) -> str:
    """Compute a digest of everything that a label depends on: geometry, settings of the level and of the engine."""
    geometry = [atoms.numbers.tolist(), atoms.pbc.tolist(), *map(hash_array, (atoms.cell[:], atoms.positions))]
    # Defaults are excluded, so that finished labels remain valid if a later version adds a setting. The default of a
    # setting must therefore never change: a label of the old default would have the same key as one of the new default.
    # The maximum number of iterations is also excluded, because it does not change a converged label.
    settings = level.model_dump(exclude={"name": True, "scf": {"max_iterations"}}, exclude_defaults=True)
    # If only the maximum number of iterations was set, ``scf`` is now empty instead of missing; it must not change the
    # key.
    settings = {key: value for key, value in settings.items() if value != {}}
    return hash_json([geometry, settings, engine.name, engine.collect_key_settings(sorted(set(atoms.symbols)))])


def compute_label(
    task: Task, engine: Engine, retries: int, failed_folder: Path, finished_folder: Path | None = None
) -> Record:
    """Compute a label, with further attempts if self-consistency is not reached.

    Parameters
    ----------
    task : Task
    engine : Engine
    retries : int
        Maximum number of further attempts.
    failed_folder : Path
        Directory to which the files of the engine are copied if the label fails.
    finished_folder : Path, optional
        Directory in which the record is also stored as ``<key>.json``, so that it is not lost if the main process is
        killed before it receives the record; by default, it is not stored.

    Returns
    -------
    dict
        Record with the ``status`` "done", the energy, the forces and the stress, or with the ``status`` "failed" and
        the reasons in ``info``; in both cases with the CPU ``seconds`` of all attempts.

    Raises
    ------
    ExecutionError
        If the disk of the scratch directory is full.
    InputError
        If an input file of the engine cannot be written or read.
    """
    try:
        record = _compute_record(task, engine, retries, failed_folder)
    except OSError as error:  # the scratch directory cannot be created, written or removed
        _raise_if_disk_full(error)
        return build_record(task, None, {"attempts": 1, "reasons": [f"{type(error).__name__}: {join_lines(error)}"]})
    if finished_folder is not None:
        with suppress(OSError, InputError):  # the record is returned even if it cannot be stored
            finished_folder.mkdir(parents=True, exist_ok=True)
            write_text(finished_folder / f"{task.key}.json", json.dumps(record) + "\n")
    return record


def _compute_record(task: Task, engine: Engine, retries: int, failed_folder: Path) -> Record:
    """Compute a label in a scratch directory; copy its files to `failed_folder` if all attempts fail."""
    engine.warm_up(task.level)
    cpu_begin, wall_begin = _measure_cpu_seconds(), time.perf_counter()
    reasons: list[str] = []
    outcome = None
    with create_temporary_folder("label") as scratch, threadpool_limits(1):
        for attempt in range(retries + 1):
            folder = Path(scratch, str(attempt))
            folder.mkdir()
            try:
                outcome = _check_outcome(engine.compute(task.atoms, task.level, attempt, folder), len(task.atoms))
                break
            except NotConvergedError as error:
                reasons.append(f"attempt {attempt + 1}: {join_lines(error) or 'not converged'}")
            except InputError:  # other labels have the same problem, so it is not recorded as a failure of this one
                raise
            except Exception as error:  # noqa: BLE001  (an engine may raise any error, which is recorded)
                _raise_if_disk_full(error)
                reasons.append(f"attempt {attempt + 1}: {type(error).__name__}: {join_lines(error)}")
                break
        if outcome is None:
            with suppress(OSError):
                shutil.copytree(scratch, failed_folder / task.file_stem, dirs_exist_ok=True)
    info = {
        "kpts": list(task.level.get_kpoint_mesh(task.atoms)),
        "cpu_seconds": round(_measure_cpu_seconds() - cpu_begin, 6),
        "wall_seconds": round(time.perf_counter() - wall_begin, 6),
        "attempts": len(reasons) + (outcome is not None),
    }
    return build_record(task, outcome, {**info, **({"reasons": reasons} if reasons else {})})


def _raise_if_disk_full(error: Exception) -> None:
    """Raise `ExecutionError` if a full disk probably caused an error, which then says nothing about the label."""
    directory = tempfile.gettempdir()
    if getattr(error, "errno", None) in DISK_WRITE_ERRNOS or shutil.disk_usage(directory).free < MIN_FREE_BYTES:
        raise ExecutionError(
            f"{directory} on {socket.gethostname()}, where engines run, is full ({join_lines(error)}); free some "
            "space, or set TMPDIR to another directory, then run the same command again to resume"
        ) from error


def _check_outcome(outcome: Outcome, n_atoms: int) -> Outcome:
    """Return an outcome unchanged; raise `EngineError` if a quantity has the wrong shape or is not finite."""
    shapes = {"energy": (), "forces": (n_atoms, 3), "stress": (6,)}
    for quantity, shape in shapes.items():
        computed = getattr(outcome, quantity)
        array = np.zeros(shape) if computed is None else np.asarray(computed, dtype=float)  # the stress may be missing
        if array.shape != shape:
            raise EngineError(f"the engine returned {quantity} of the shape {array.shape} instead of {shape}")
        if not np.isfinite(array).all():
            raise EngineError(f"the engine returned {quantity} that is not finite")
    return outcome


def read_output(task: Task, engine: Engine, source: Path) -> Record | None:
    """Read a label that was computed on another machine from the output files in ``source/<level>/<id>``.

    Return its record, also if the calculation did not converge or failed; None if the directory does not exist, or the
    calculation has not been started or has not ended.
    """
    folder = source / task.level.name / str(task.config_id)
    if not folder.is_dir():
        return None
    info: dict[str, Any] = {
        "kpts": list(task.level.get_kpoint_mesh(task.atoms)),
        "attempts": 1,
        "engine": engine.program,
    }
    seconds = engine.read_cpu_seconds(folder)
    info |= {} if seconds is None else {"cpu_seconds": seconds}
    try:
        outcome = _check_outcome(engine.read(folder, 0), len(task.atoms))
    except (NotConvergedError, EngineError) as error:
        if seconds is None and isinstance(error, EngineError):  # the program has not been run, or has not finished
            return None
        return build_record(task, None, {**info, "reasons": [join_lines(error)]})
    return build_record(task, outcome, info)


def is_record(entry: Any) -> bool:
    """Check whether an entry of a journal is a complete record of a label."""
    if not isinstance(entry, dict) or not {"key", "id", "level", "status", "info"} <= entry.keys():
        return False
    return entry["status"] == "failed" or {"energy", "forces", "stress"} <= entry.keys()


def build_record(task: Task, outcome: Outcome | None, info: dict[str, Any]) -> Record:
    """Build the record of a label, with types that JSON stores without loss of digits; no outcome means a failure.

    `info` is stored in the record, with the ``info`` of the outcome and whether the calculation converged.
    """
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


def _measure_cpu_seconds() -> float:
    """Return the CPU seconds of this process and of the programs that it started and that have ended."""
    usages = [resource.getrusage(scope) for scope in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
