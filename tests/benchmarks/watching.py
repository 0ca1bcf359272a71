"""What a process and those it starts take, seen from outside: memory and CPU seconds by the stage of a run."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVAL = 1.0  # seconds between two measurements


class Seen(NamedTuple):
    """Peak memory (MB) and CPU seconds of the processes of a run, by stage."""

    memory: dict[str, float]
    cpu: dict[str, float]


@contextmanager
def watched(process: int, log: Path) -> Iterator[Seen]:
    """Measure a process and its children; without /proc nothing is measured.

    The workers of joblib are not waited for, so that the CPU time of finished children in the process table lacks them.
    """
    seen, spent = Seen({}, {}), {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(INTERVAL):
            name, megabytes, before = _stage_in(log), 0.0, sum(spent.values())
            for number in family(process):
                with suppress(OSError, IndexError):  # it has just ended
                    spent[number] = _cpu_seconds(number)
                    megabytes += _megabytes(number)
            seen.cpu[name] = seen.cpu.get(name, 0.0) + sum(spent.values()) - before
            seen.memory[name] = max(seen.memory.get(name, 0.0), megabytes)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def _stage_in(log: Path) -> str:
    """The stage that was started last according to the log of a run."""
    if not log.exists():
        return ""
    started = [line.split() for line in log.read_text().splitlines() if line.endswith(": started")]
    return started[-1][-2].rstrip(":") if started else ""


def family(process: int) -> set[int]:
    """A process and all its descendants."""
    members = {process}
    for status in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parent.name)):
        with suppress(OSError, IndexError):
            if int(_fields(status)[1]) in members:  # children have larger numbers than their parents
                members.add(int(status.parent.name))
    return members


def _fields(status: Path) -> list[str]:
    """Fields of /proc/PID/stat from the third on; the name before may contain blanks and brackets."""
    return status.read_text().rsplit(")", 1)[1].split()


def _cpu_seconds(process: int) -> float:
    return sum(map(int, _fields(Path(f"/proc/{process}/stat"))[11:13])) / os.sysconf("SC_CLK_TCK")


def _megabytes(process: int) -> float:
    """Memory, with shared memory divided between its processes (PSS)."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
