"""An hour of studies and loops that are killed at random and resumed: their files equal those of an undisturbed run.

A study, the same study on a dask cluster of this machine, and an active-learning loop are run once without
disturbance. Then, until the time is over, each in turn is started in a new folder and killed at random times: the whole
process group with SIGKILL, as by a power cut; a single process with SIGKILL, as by the out-of-memory killer; or with
SIGTERM or SIGINT, as by a queue or a user. It is started again until it ends by itself, and its files are compared with
the undisturbed ones, byte by byte, except measured times and pages that contain them.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from common import ROOT, Options, Table, stage

sys.path.insert(0, str(ROOT / "tests"))
from helpers.faults import command, descendants, gone, litter, soon

MINUTES = float(os.environ.get("PARETOFIT_SOAK_MINUTES", "60"))
STUDY = f"""
name: soak
dataset: {ROOT}/data/beryllium.h5
basis: {{elements: [Be]}}
levels: [1, 3, 5]
twojmax: [2, 4, 6]
weights: [1, 12.25, 150]
sizes: [20, 60, 120, all]
sampling_methods: [random, leverage, block-leverage]
repetitions: 8
leave_one_out: true
cost: {{measure_md: false}}
"""
LOOP = re.sub("max_iterations: 5", "max_iterations: 3", (ROOT / "studies" / "learn_quick.yaml").read_text())
LOOP = LOOP.replace("time_ps: 3", "time_ps: 1").replace("structures/", f"{ROOT}/studies/structures/")
TIMES = re.compile("seconds|picoseconds_per|wall")
HOW = {"all": 0.5, "one": 0.25, "SIGTERM": 0.15, "SIGINT": 0.1}
ENDS = {"SIGTERM": 143, "SIGINT": 130}

WORK_NOTE = (
    "study: 4 sizes, 3 samplings and 8 repetitions × 2Jmax 2, 4, 6 × 3 levels × 3 weights, with leave-one-out; "
    "cluster: the same on dask; loop: three shorter iterations of "
    "studies/learn\\_quick.yaml."
)
KILL_NOTE = (
    "Each run has a separate folder and is started until it ends by itself. Before that it is killed after 2 s and an "
    "exponentially distributed time, at the mean a third of the undisturbed: 'all' is SIGKILL for the process and its "
    "children, 'one' for one of the children; SIGTERM and SIGINT are for the process."
)
ERRORS_NOTE = (
    "Wrong is a byte that differs from the undisturbed run's (columns of measured times aside), another exit code, a "
    "process or a temporary file that stays, a traceback, no end."
)


@dataclass(frozen=True)
class Work:
    """A command that can be repeated, and the files that it must write."""

    name: str
    verb: str
    text: str
    files: tuple[str, ...]
    log: str

    def arguments(self, folder: Path, jobs: int) -> list[str]:
        """Command line of the work."""
        return command(self.verb, folder / f"{self.name}.yaml", "--out", folder / "run", "--jobs", jobs)


STUDY_FILES = ("results.csv", "front.csv", "split.csv", "weight_*.csv", "label_noise.csv", "tables/*.csv")
LOOP_FILES = ("iterations.csv", "sets.json", "candidates.extxyz", "iterations/*/*.csv", "iterations/*/*.extxyz",
              "iterations/*/trajectories/*.extxyz", "potential/*.snap*", "potential/*.mod")  # fmt: skip
WORKS = [
    Work("study", "run", STUDY, STUDY_FILES, "run.log"),
    Work("cluster", "run", STUDY + "cluster: local\n", STUDY_FILES, "run.log"),
    Work("loop", "learn", LOOP, LOOP_FILES, "learn.log"),
]


@dataclass
class Tally:
    """Counts of runs, calls, kills and errors of one kind of work."""

    seconds: float = 0.0
    runs: int = 0
    calls: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    files: int = 0
    wrong: list[str] = field(default_factory=list)


def contents(work: Work, folder: Path) -> dict[str, bytes]:
    """Contents of the compared files, without columns of times."""
    files = {}
    for pattern in work.files:
        for path in sorted((folder / "run").glob(pattern)):
            name = str(path.relative_to(folder / "run"))
            files[name] = _without_times(path) if path.suffix == ".csv" else path.read_bytes()
    return files


def _without_times(path: Path) -> bytes:
    content = path.read_bytes()
    first = content.split(b"\n", 1)[0].decode()
    times = [column for column in first.split(",") if TIMES.search(column) and column != "label_seconds"]
    if path.name == "iterations.csv":
        times.append("label_seconds")
    if not times:
        return content
    table = pd.read_csv(path, dtype=str).drop(columns=[column for column in times if column in first.split(",")])
    return table.to_csv(index=False).encode()


def begin(work: Work, folder: Path, jobs: int) -> subprocess.Popen[str]:
    """Start the command in a separate process group."""
    with (folder / "output.txt").open("a") as output:
        return subprocess.Popen(work.arguments(folder, jobs), stdout=output, stderr=output, start_new_session=True)


def prepared(work: Work, folder: Path) -> Path:
    """Create a folder with the study."""
    folder.mkdir(parents=True)
    (folder / f"{work.name}.yaml").write_text(work.text)
    return folder


def disturbed(
    work: Work, folder: Path, jobs: int, expected: dict[str, bytes], tally: Tally, rng: np.random.Generator
) -> None:
    """Kill and restart a run until it ends by itself."""
    prepared(work, folder)
    while True:
        process, before = begin(work, folder, jobs), _size(folder / "run" / work.log)
        tally.calls += 1
        try:
            code = process.wait(timeout=2.0 + rng.exponential(tally.seconds / 3))
        except subprocess.TimeoutExpired:
            code = _kill(process, folder / "run" / work.log, before, tally, rng)
        if code == 0:
            break
        if code not in {-signal.SIGKILL, 1, *ENDS.values()}:
            tally.wrong.append(f"{folder.name}: exit code {code}")
    tally.runs += 1
    result_files = contents(work, folder)
    tally.files += len(result_files)
    tally.wrong += [f"{folder.name}: {name}" for name in expected if result_files.get(name) != expected[name]]
    tally.wrong += [f"{folder.name}: {name} is too many" for name in result_files if name not in expected]
    scratch = Path(os.environ["TMPDIR"]).glob("paretofit-label*")
    tally.wrong += [f"{folder.name}: {path} was left" for path in [*litter(folder / "run"), *scratch]]
    if "Traceback" in (folder / "output.txt").read_text():
        tally.wrong.append(f"{folder.name}: a traceback")


def _kill(process: subprocess.Popen[str], log: Path, before: int, tally: Tally, rng: np.random.Generator) -> int:
    """Kill a run and return its exit code. A run without a log entry is still importing modules."""
    how = str(rng.choice(list(HOW), p=list(HOW.values())))
    family = descendants(process.pid)
    workers = [member for member in family if not _is_tracker(member)]
    if _size(log) == before or (how == "one" and not workers):
        how = "all"
    tally.stages[_stage_of(log)] += 1
    tally.kills[how] += 1
    if how == "all":
        os.killpg(process.pid, signal.SIGKILL)
    elif how == "one":
        with suppress(ProcessLookupError):  # it has ended by itself
            os.kill(int(rng.choice(workers)), signal.SIGKILL)
    else:
        process.send_signal(getattr(signal, how))
    try:
        code = process.wait(timeout=max(600.0, 10 * tally.seconds))
    except subprocess.TimeoutExpired:
        tally.wrong.append(f"{log.parent.parent.name}: hangs after {how}")
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()
    if how in ENDS and code not in {ENDS[how], 0}:
        tally.wrong.append(f"{log.parent.parent.name}: exit code {code} after {how}")
    if code != 0 and not soon(lambda: gone(family)):
        tally.wrong.append(f"{log.parent.parent.name}: processes are left after {how}")
    return code


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _is_tracker(process: int) -> bool:
    """Return whether a process is the resource tracker of Python instead of a worker."""
    with suppress(OSError):
        return b"resource_tracker" in Path(f"/proc/{process}/cmdline").read_bytes()
    return True


def _stage_of(log: Path) -> str:
    """Stage that was running according to the log."""
    try:
        lines = log.read_text().splitlines()
    except OSError:
        return "start"
    for line in reversed(lines):
        if match := re.search(r"(?:INFO|WARNING|ERROR) (describe|reduce|sweep|analyse|networks|report): started", line):
            return match[1]
        if match := re.search(r"iteration \d+, (label|train|explore|select)", line):
            return f"after {match[1]}"
        if "study " in line:
            break
    return "start"


def run(options: Options) -> list[Table]:
    """Kill runs for an hour, or PARETOFIT_SOAK_MINUTES."""
    minutes = 1.0 if options.quick else MINUTES
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs ignore it, and so their children
    rng = np.random.default_rng(int(os.environ.get("PARETOFIT_SOAK_SEED", "1")))
    folder_of_runs = options.work / "soak"
    os.environ["TMPDIR"] = str(folder_of_runs / "tmp")
    (folder_of_runs / "tmp").mkdir(parents=True)
    tallies = {work.name: Tally() for work in WORKS}
    expected = {}
    for work in WORKS:
        folder = prepared(work, folder_of_runs / f"{work.name}-undisturbed")
        with stage(f"{work.name}, undisturbed"):
            start = time.monotonic()
            if begin(work, folder, options.cores).wait() != 0:
                raise RuntimeError((folder / "output.txt").read_text())
            tallies[work.name].seconds = time.monotonic() - start
        expected[work.name] = contents(work, folder)
    same = [name for name in expected["study"] if expected["study"][name] != expected["cluster"].get(name)]
    tallies["cluster"].wrong += [f"undisturbed: {name} is not as without a cluster" for name in same]
    end, number = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end:
        work = WORKS[number % len(WORKS)]
        with stage(f"{work.name}, run {number + 1}"):
            disturbed(
                work,
                folder_of_runs / f"{work.name}-{number:03d}",
                options.cores,
                expected[work.name],
                tallies[work.name],
                rng,
            )
        number += 1
        for tally in tallies.values():
            for wrong in tally.wrong:
                print(f"    WRONG: {wrong}", flush=True)
    return [_table(tallies, minutes, options.cores)]


def _table(tallies: dict[str, Tally], minutes: float, cores: int) -> Table:
    table = Table(
        f"{minutes:.0f} minutes of kills, {cores} processes",
        ["work", "undisturbed, s", "runs", "calls", "kills", "files compared", "different or wrong"],
        notes=[
            WORK_NOTE,
            KILL_NOTE,
            f"{ERRORS_NOTE} Compared are {', '.join(dict.fromkeys([*STUDY_FILES, *LOOP_FILES]))}.",
        ],
    )
    for name, tally in tallies.items():
        kills = ", ".join(f"{how} {n}" for how, n in sorted(tally.kills.items()))
        table.add(
            name,
            f"{tally.seconds:.0f}",
            tally.runs,
            tally.calls,
            kills or "none",
            tally.files,
            len(tally.wrong) or "none",
        )
        stages = ", ".join(f"{where} {n}" for where, n in tally.stages.most_common())
        table.notes.append(f"{name} was killed during: {stages or 'nothing'}.")
    wrong = [error for work in tallies.values() for error in work.wrong]
    table.notes += [f"WRONG: {error}" for error in wrong]
    return table
