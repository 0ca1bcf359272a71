"""Trajectories of an iteration as separate tasks, each with files for its frames and its record."""

from __future__ import annotations

import re
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from paretofit.core import (
    ExecutionError,
    InputError,
    hash_file,
    hash_json,
    read_json_with_digest,
    write_json_with_digest,
)
from paretofit.execution import RunContext, run_tasks
from paretofit.learning.explore import run_md
from paretofit.learning.frame_monitor import FrameMonitor
from paretofit.learning.learn_settings import ExploreSettings
from paretofit.learning.loop_folder import write_frames
from paretofit.learning.md_run import MdEngine, MdRun, Trajectory
from paretofit.learning.model import Committee
from paretofit.learning.sets import is_always_training
from paretofit.potentials import format_dispersion_commands, overlay_commands, split_words

# remedies by a part of the reason why most trajectories ended early; the last one is for all other reasons
REMEDIES = {
    "the temperature": "lengthen 'learning.explore.equilibration_ps', or set 'learning.explore.start_structures'",
    "extrapolation grade": "label more candidates first ('learning.n_initial'), or raise 'learning.explore.stop_grade'",
    "came closer": "label more candidates first, or lower 'learning.explore.temperature_k' and 'pressure_kbar'",
    "the volume": "narrow 'learning.explore.pressure_kbar', or lower 'learning.explore.temperature_k'",
    "time limit": "shorten 'learning.explore.time_ps', or raise 'learning.explore.time_limit_s'",
    "": "label more candidates first, or lower 'learning.explore.temperature_k'",
}
MAX_TRAJECTORY_BYTES = 4 << 30  # memory that a process may allocate while it runs LAMMPS


def run_trajectories(
    runs: Sequence[MdRun],
    engine: MdEngine,
    settings: ExploreSettings,
    committee: Committee,
    folder: Path,
    iteration: int,
    context: RunContext,
    monitor: FrameMonitor | None = None,
) -> list[dict[str, Any]]:
    """Run the trajectories that are not finished, and write their frames and records to a folder.

    A trajectory is finished if its files are intact and were written with the same settings and potential.

    Parameters
    ----------
    runs : sequence of MdRun
        Start structures and conditions of all trajectories.
    engine : MdEngine
        Source of the forces.
    settings : ExploreSettings
    committee : Committee
        Committee whose extrapolation grades stop a trajectory; a single potential has no grades.
    folder : Path
        Folder of the trajectories, created if it is missing.
    iteration : int
        Number of the iteration, for the info of the frames.
    context : RunContext
    monitor : FrameMonitor, optional
        Monitor that measures each frame; the record of a trajectory then contains ``rows``. By default, frames are not
        measured.

    Returns
    -------
    list of dict
        Records in the order of `runs`, with ``number``, ``frames`` (number of frames), ``picoseconds``, ``reason`` (why
        the trajectory ended early, or empty) and, unless the process crashed, the conditions of the run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inputs = [settings.model_dump(mode="json"), _replace_paths_with_digests(engine)]
    settings_digest = hash_json(inputs if monitor is None else [*inputs, monitor.digest])
    runner = _TrajectoryRunner(engine, settings, committee, folder, iteration, settings_digest, monitor)
    unfinished_runs = [run for run in runs if not runner.is_finished(run)]
    finished_tasks = run_tasks(runner.run, unfinished_runs, context.jobs, runner.record_crash)
    for _ in context.track(finished_tasks, len(unfinished_runs), "dynamics"):
        pass  # the runner has written the files
    remedy = "remove it to repeat the trajectory"
    return [read_json_with_digest(runner.get_record_path(run), remedy) for run in runs]


def describe_early_ends(records: Sequence[Mapping[str, Any]]) -> str:
    """Describe why trajectories ended early and what to change, if more than half of them did; otherwise return "".

    Parameters
    ----------
    records : sequence of mapping
        Records of `run_trajectories`.
    """
    # numbers are replaced, so that equal reasons are counted together
    reasons = Counter(re.sub(r"\d[\d.e+-]*", "…", record["reason"]) for record in records if record["reason"])
    if 2 * reasons.total() <= len(records):
        return ""
    reason, count = reasons.most_common(1)[0]
    remedy = next((advice for text, advice in REMEDIES.items() if text in reason), REMEDIES[""])
    return f"{reasons.total()} of {len(records)} trajectories ended early, {count} because {reason}; {remedy}"


def _replace_paths_with_digests(engine: MdEngine) -> list[str]:
    """List the words of an engine's commands, with hashes of files instead of their paths, and its calculator's digest.

    The list identifies the potential independently of the location of its files.
    """
    words = [word for line in engine.commands for word in split_words(line)]
    identifiers = [hash_file(Path(word)) if "/" in word and Path(word).is_file() else word for word in words]
    return [*identifiers, engine.digest] if engine.digest else identifiers


@dataclass(frozen=True)
class _TrajectoryRunner:
    """Runner that integrates trajectories in worker processes, and writes their frames and records.

    The attributes are the parameters of `run_trajectories`.
    """

    engine: MdEngine
    settings: ExploreSettings
    committee: Committee
    folder: Path
    iteration: int
    settings_digest: str  # hash of the settings, the potential and the inputs of the monitor
    monitor: FrameMonitor | None = None

    def get_record_path(self, run: MdRun) -> Path:
        """Return the path of a trajectory's record; the file of its frames differs in the suffix, ``.extxyz``."""
        return self.folder / f"{run.number:03d}.json"

    def is_finished(self, run: MdRun) -> bool:
        """Check that a trajectory was finished with the same settings and potential, and that its files are intact."""
        try:
            record = read_json_with_digest(self.get_record_path(run), "")
            frames_digest = hash_file(self.get_record_path(run).with_suffix(".extxyz"))
        except ExecutionError:  # errors of the system do not show that the files are invalid
            raise
        except (InputError, OSError):
            return False
        return bool(record["settings"] == self.settings_digest) and record.get("sha256") in {None, frames_digest}

    def run(self, run: MdRun) -> None:
        """Run one trajectory in this process, and write its frames, with their origin in the info, and its record."""
        start_time = time.process_time()
        engine, settings = add_dispersion(self.engine, self.settings.dispersion), self.settings
        rows: list[dict[str, float]] = []
        on_frame = None if self.monitor is None else partial(self.monitor.record, rows)
        has_grades = self.committee.potential.uncertainty is not None
        grade_function = self.committee.compute_max_grade if has_grades else None
        # Calculators have no memory limit, because CUDA reserves far more address space than it uses. Their volume is
        # checked in every step instead.
        with _limit_resources(settings.time_limit_s, limit_memory=engine.calculator_factory is None):
            trajectory = run_md(run, engine, settings, grade_function, on_frame)
        started_from = int(run.atoms.info.get("config_id", -1))
        lineage = {key: run.atoms.info[key] for key in ("input", "family") if key in run.atoms.info}
        if is_always_training(run.atoms):  # inputs are grouped with their duplicates only, and not with their frames
            lineage.pop("family", None)
        for atoms, time_ps in zip(trajectory.frames, trajectory.times, strict=True):
            atoms.info = {
                "trajectory": f"{self.iteration:02d}-{run.number:03d}",
                "time_ps": round(time_ps, 6),
                "temperature_k": round(run.temperature, 3),
                "pressure_kbar": round(run.pressure, 3),
                "started_from": started_from,
                **lineage,
            }
        details: dict[str, Any] = {"temperature_k": run.temperature, "pressure_kbar": run.pressure, "seed": run.seed}
        details |= {"started_from": started_from, "cpu_seconds": round(time.process_time() - start_time, 2)}
        self._write(run, trajectory, **details, **({} if self.monitor is None else {"rows": rows}))

    def record_crash(self, run: MdRun) -> None:
        """Write the files of a trajectory whose process was killed; it has no frames."""
        self._write(run, Trajectory([], [], "the process crashed or exceeded the time limit"))

    def _write(self, run: MdRun, trajectory: Trajectory, **details: Any) -> None:
        """Write the frames of a trajectory, then its record with `details`, which marks it as finished."""
        frames_path = self.get_record_path(run).with_suffix(".extxyz")
        write_frames(frames_path, trajectory.frames)
        record = {
            "number": run.number,
            "frames": len(trajectory.frames),
            "picoseconds": trajectory.times[-1] if trajectory.times else 0.0,
            "reason": trajectory.reason,
            "settings": self.settings_digest,
            "sha256": hash_file(frames_path),
        }
        write_json_with_digest(self.get_record_path(run), record | details)


@contextmanager
def _limit_resources(seconds: float, *, limit_memory: bool) -> Iterator[None]:
    """Limit the wall time (s) and, optionally, the memory of this process, as a context manager.

    In a collapsing box, the neighbour lists grow without bounds, and LAMMPS must fail before the machine runs out of
    memory. The time limit kills the process, because an exception would not end a hanging call of LAMMPS.
    """
    original_limits = resource.getrlimit(resource.RLIMIT_AS)
    if limit_memory:
        # the first number is the size of the address space in pages
        used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        hard_limit = original_limits[1]
        max_bytes = used_bytes + MAX_TRAJECTORY_BYTES
        max_bytes = max_bytes if hard_limit == resource.RLIM_INFINITY else min(max_bytes, hard_limit)
        resource.setrlimit(resource.RLIMIT_AS, (max_bytes, hard_limit))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the default action is to kill the process
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, original_limits)


def add_dispersion(engine: MdEngine, kind: str) -> MdEngine:
    """Add Grimme's dispersion to an engine, as a LAMMPS potential in addition to its potential or calculator.

    Parameters
    ----------
    engine : MdEngine
        Engine without dispersion; it is not changed.
    kind : {"none", "d2", "d3"}
        Kind of dispersion; with "none", the engine itself is returned.

    Raises
    ------
    InputError
        If D2 has no parameters for an element.
    """
    if kind == "none":
        return engine
    dispersion_commands = format_dispersion_commands(kind, engine.elements)
    if engine.commands:
        return replace(engine, commands=tuple(overlay_commands(engine.commands, dispersion_commands)))
    return replace(engine, commands=tuple(dispersion_commands))
