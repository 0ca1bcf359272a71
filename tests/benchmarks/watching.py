"""What a process and those it starts take, seen from outside: memory and CPU seconds by the stage of a run."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVAL = 1.0  # seconds between two looks


class Seen(NamedTuple):
    """What was seen of the processes of a run, by stage: the most memory at once, MB, and CPU seconds."""

    memory: dict[str, float]
    cpu: dict[str, float]


@contextmanager
def watched(process: int, log: Path) -> Iterator[Seen]:
    """Watch a process and those it starts; without /proc nothing is seen.

    Nobody waits for the workers of joblib, so that the system's account of children that have ended lacks them.
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
    """The stage that a run's log says was started last."""
    if not log.exists():
        return ""
    started = [line.split() for line in log.read_text().splitlines() if line.endswith(": started")]
    return started[-1][-2].rstrip(":") if started else ""


def family(process: int) -> set[int]:
    """A process and all below it."""
    members = {process}
    for status in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parent.name)):
        with suppress(OSError, IndexError):
            if int(_fields(status)[1]) in members:  # children have larger numbers than their parents
                members.add(int(status.parent.name))
    return members


def _fields(status: Path) -> list[str]:
    """Of /proc/PID/stat, from the third on: names may have blanks and brackets."""
    return status.read_text().rsplit(")", 1)[1].split()


def _cpu_seconds(process: int) -> float:
    return sum(map(int, _fields(Path(f"/proc/{process}/stat"))[11:13])) / os.sysconf("SC_CLK_TCK")


def _megabytes(process: int) -> float:
    """Memory, that shared with other processes in parts."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
