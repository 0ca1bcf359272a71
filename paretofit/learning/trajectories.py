"""The trajectories of an iteration: tasks of their own, each with its frames and then its record on disk."""

from __future__ import annotations

import resource
import signal
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paretofit.core import InputError, hash_file, hash_json, read_json_with_digest, track, write_json_with_digest
from paretofit.execution import run_tasks
from paretofit.learning.explore import run_md
from paretofit.learning.loop_folder import write_frames
from paretofit.potentials import format_dispersion_commands, overlay_commands

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ase import Atoms

    from paretofit.learning.learn_settings import ExploreSettings
    from paretofit.learning.md_run import MdEngine, MdRun
    from paretofit.learning.model import Committee

MOST_BYTES = 4 << 30  # that a trajectory may take


def run_trajectories(
    runs: Sequence[MdRun],
    engine: MdEngine,
    settings: ExploreSettings,
    committee: Committee,
    folder: Path,
    iteration: int,
    *,
    jobs: int = 1,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Run the trajectories that are not finished; return the records of all.

    Parameters
    ----------
    runs : sequence of Run
    engine : MdEngine
    settings : ExploreSettings
    committee : Committee
        Whose grades stop a trajectory.
    folder : Path
        Of the trajectories.
    iteration : int
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = hash_json([settings.model_dump(mode="json"), _replace_paths_with_digests(engine)])
    waiting = [run for run in runs if not _stands(folder, run.number, known)]
    call = partial(
        _run_one,
        engine=engine,
        settings=settings,
        committee=committee,
        folder=folder,
        iteration=iteration,
        settings_digest=known,
    )
    done = run_tasks(call, waiting, jobs, partial(_died, folder=folder, settings_digest=known))
    for _ in track(done, len(waiting), "dynamics", enabled=progress):
        pass
    return [
        read_json_with_digest(_record(folder, run.number), "remove it, and the trajectory runs again") for run in runs
    ]


def _replace_paths_with_digests(engine: MdEngine) -> list[str]:
    """The lines of a potential with what is in its files, wherever those are, and the digest of its calculator."""
    words = [word.strip('"') for line in engine.commands for word in line.split()]
    found = [hash_file(Path(word)) if "/" in word and Path(word).is_file() else word for word in words]
    return [*found, engine.digest] if engine.digest else found


def _stands(folder: Path, number: int, settings_digest: str) -> bool:
    """Whether a trajectory is finished, with these settings, and nothing of it is damaged."""
    try:
        record = read_json_with_digest(_record(folder, number), "")
        frames = hash_file(_frames(folder, number))
    except (InputError, OSError):
        return False
    return bool(record["settings"] == settings_digest) and record.get("sha256") in {None, frames}


@contextmanager
def _limited(seconds: float, *, memory: bool) -> Iterator[None]:
    """Limits of time, and perhaps of memory.

    A box that collapses has more and more images of its atoms: LAMMPS is to fail before the machine does. What takes
    too long ends this process, for LAMMPS may hang where no exception reaches it.
    """
    before = resource.getrlimit(resource.RLIMIT_AS)
    if memory:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        allowed = used + MOST_BYTES if before[1] == resource.RLIM_INFINITY else min(used + MOST_BYTES, before[1])
        resource.setrlimit(resource.RLIMIT_AS, (allowed, before[1]))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _record(folder: Path, number: int) -> Path:
    return folder / f"{number:03d}.json"


def _frames(folder: Path, number: int) -> Path:
    return folder / f"{number:03d}.extxyz"


def _finish(folder: Path, frames: list[Atoms], record: dict[str, Any]) -> None:
    """Write a trajectory's frames, then its record, which makes it finished."""
    number = record["number"]
    write_frames(_frames(folder, number), frames)
    write_json_with_digest(_record(folder, number), {**record, "sha256": hash_file(_frames(folder, number))})


def _run_one(
    run: MdRun,
    engine: MdEngine,
    settings: ExploreSettings,
    committee: Committee,
    folder: Path,
    iteration: int,
    settings_digest: str,
) -> None:
    """One trajectory, in a worker: its frames, then its record."""
    start = time.process_time()
    # No limit of memory for a calculator: CUDA reserves far more addresses than it uses, at any time. The volume is
    # looked at in every step instead.
    with _limited(settings.time_limit_s, memory=engine.calculator_factory is None):
        found = run_md(run, add_dispersion(engine, settings.dispersion), settings, committee.compute_max_grade)
    name = f"{iteration:02d}-{run.number:03d}"
    for atoms, moment in zip(found.frames, found.times, strict=True):
        atoms.info = {
            "trajectory": name,
            "time_ps": round(moment, 6),
            "temperature_k": round(run.temperature, 3),
            "pressure_kbar": round(run.pressure, 3),
            "started_from": int(run.atoms.info.get("config_id", -1)),
        }
    record = {
        "number": run.number,
        "temperature_k": run.temperature,
        "pressure_kbar": run.pressure,
        "seed": run.seed,
        "started_from": int(run.atoms.info.get("config_id", -1)),
        "frames": len(found.frames),
        "picoseconds": found.times[-1] if found.times else 0.0,
        "reason": found.reason,
        "settings": settings_digest,
        "cpu_seconds": round(time.process_time() - start, 2),
    }
    _finish(folder, found.frames, record)


def add_dispersion(engine: MdEngine, kind: str) -> MdEngine:
    """An engine with Grimme's dispersion on top: overlaid in LAMMPS, or LAMMPS's beside a calculator's.

    Parameters
    ----------
    engine : MdEngine
    kind : {"none", "d2", "d3"}
    """
    if kind == "none":
        return engine
    lines = format_dispersion_commands(kind, engine.elements)
    return replace(engine, commands=tuple(overlay_commands(engine.commands, lines) if engine.commands else lines))


def _died(run: MdRun, folder: Path, settings_digest: str) -> None:
    """A trajectory whose process died."""
    record = {"number": run.number, "frames": 0, "picoseconds": 0.0, "reason": "the process died, or took too long",
              "settings": settings_digest}  # fmt: skip
    _finish(folder, [], record)
