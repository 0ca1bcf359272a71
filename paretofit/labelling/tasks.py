"""One label: a configuration at a level, computed in a worker process, whatever happens there."""

import resource
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from threadpoolctl import threadpool_limits

from paretofit.errors import InputError
from paretofit.files import array_digest, digest, one_line
from paretofit.labelling.engines import Engine, NotConvergedError, Outcome
from paretofit.labelling.ladder import Level
from paretofit.parallel import follow_parent

Record = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A label to compute."""

    identity: int
    atoms: Atoms
    level: Level
    key: str

    @property
    def place(self) -> str:
        """Level and id, as a file name."""
        return f"{self.level.name}-{self.identity}"


def task_key(atoms: Atoms, level: Level, engine: Engine) -> str:
    """What a label depends on: the geometry, what the level sets, and the engine with its options."""
    geometry = [atoms.numbers.tolist(), atoms.pbc.tolist(), *map(array_digest, (atoms.cell[:], atoms.positions))]
    # Without defaults, so that a setting which a later version adds does not make finished labels unknown.
    settings = level.model_dump(exclude={"name": True, "scf": {"max_iterations"}}, exclude_defaults=True)
    settings = {key: value for key, value in settings.items() if value != {}}
    return digest([geometry, settings, engine.name, engine.identity(sorted(set(atoms.symbols)))])


def compute_label(task: Task, engine: Engine, retries: int, failures: Path, parent: int) -> Record:
    """Compute a label, with further attempts where self-consistency is not reached; never raises.

    Parameters
    ----------
    task : Task
    engine : Engine
    retries : int
        Further attempts.
    failures : Path
        The folder where the engine's files are kept if the label fails.
    parent : int
        Process id of the run; the worker ends when it does.

    Returns
    -------
    dict
        ``status`` "done" with energy, forces, stress, or "failed" with the reason in ``info``; always the
        CPU ``seconds`` of all attempts together.
    """
    follow_parent(parent)
    start, wall = _cpu_seconds(), time.perf_counter()
    reasons: list[str] = []
    outcome = None
    with tempfile.TemporaryDirectory(prefix="paretofit-label-") as scratch, threadpool_limits(1):
        for attempt in range(retries + 1):
            folder = Path(scratch) / str(attempt)
            folder.mkdir()
            try:
                outcome = engine.compute(task.atoms, task.level, attempt, folder)
                break
            except NotConvergedError as error:
                reasons.append(f"attempt {attempt + 1}: {one_line(error) or 'not converged'}")
            except InputError:
                raise
            except Exception as error:  # noqa: BLE001  (an engine raises what it likes; it becomes the record)
                reasons.append(f"attempt {attempt + 1}: {type(error).__name__}: {one_line(error)}")
                break
        if outcome is None:
            shutil.copytree(scratch, failures / task.place, dirs_exist_ok=True)
    info = {
        "kpts": list(task.level.kpoints(task.atoms)),
        "cpu_seconds": round(_cpu_seconds() - start, 6),
        "wall_seconds": round(time.perf_counter() - wall, 6),
        "attempts": len(reasons) + (outcome is not None),
    }
    return make_record(task, outcome, {**info, **({"reasons": reasons} if reasons else {})})


def make_record(task: Task, outcome: Outcome | None, info: dict[str, Any]) -> Record:
    """The record of a label, as JSON can hold it: floats keep every digit."""
    record: Record = {"key": task.key, "id": task.identity, "level": task.level.name}
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
