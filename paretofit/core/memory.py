"""Memory that is there, and a sentence where work would not fit into it.

An allocation that is too large seldom fails: the system hands out the pages, and kills the process, or another one,
when they are written to. Work on large arrays is therefore estimated before it begins. Estimates are coarse (copies
of arrays, as measured); what is small is not looked at.
"""

from __future__ import annotations

from pathlib import Path

from paretofit.core.errors import InputError

MIN_CHECKED_BYTES = 256 << 20  # bytes that are not worth a look
FIT_COPIES = 5.5  # of its rows while a fit is made: the rows, weighted, scaled, factored (measured with fit_wls)

MEMINFO_FILE = Path("/proc/meminfo")
CGROUP_FILE = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes that this process can still have: of the machine, or of the job or container where that is less.

    None where it is not known, as on systems other than Linux.
    """
    found = [one for one in [_of_machine(), *_of_groups()] if one is not None]
    return min(found, default=None)


def require_memory(required_bytes: float, description: str, remedy: str, *, available_bytes: int | None = None) -> None:
    """Refuse work that does not fit into the memory that is there.

    Parameters
    ----------
    required_bytes : float
        Bytes, of all processes together.
    description : str
        What needs them, in the plural: "the fits of 3000 rows by 500 columns".
    remedy : str
        What to do about it: "lower 'twojmax'".
    available_bytes : int, optional
        Bytes that there are; by default of this machine.

    Raises
    ------
    InputError
        With both numbers.
    """
    if required_bytes <= MIN_CHECKED_BYTES:
        return
    there = available_memory() if available_bytes is None else available_bytes
    if there is not None and required_bytes > there:
        kind = "memory" if available_bytes is None else "the GPU's memory"
        raise InputError(
            f"{description} need about {_giga(required_bytes)} of {kind}, and {_giga(there)} are available; {remedy}"
        )


def _giga(number: float) -> str:
    return f"{number / 1e9:.3g} GB"


def _of_machine() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO_FILE.read_text().splitlines() if ":" in line)
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None


def _of_groups() -> list[int]:
    """What is left of the limits of this process's control groups and of those above them, versions 2 and 1."""
    try:
        lines = [line.split(":", 2) for line in CGROUP_FILE.read_text().splitlines()]
    except OSError:
        return []
    left = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and "memory" not in controllers.split(","):
            continue
        root = CGROUP_ROOT / "memory" if controllers else CGROUP_ROOT
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        here = root / path.strip("/")
        for group in [here, *(one for one in here.parents if one.is_relative_to(root))]:
            left += _left_of(group, *names)
    return left


def _left_of(group: Path, limit: str, usage: str) -> list[int]:
    """The limit of a group without what is in use, of which cached files are given back where memory is short."""
    try:
        free = int((group / limit).read_text()) - int((group / usage).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group as seen from a container, or "max": no limit
        return []
    return [max(0, free + int(stat.get("inactive_file", stat.get("total_inactive_file", 0))))]
