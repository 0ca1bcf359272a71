"""Estimates of the available memory, and refusal of work that needs more.

An allocation that is too large seldom fails: the system grants the pages, and kills this or another process when they
are written to. The memory of work on large arrays is therefore estimated in advance, as a measured number of copies of
the arrays; small arrays are not checked.
"""

from pathlib import Path

from paretofit.core.errors import InputError

MIN_CHECKED_BYTES = 256 << 20  # smaller requirements are not checked
FIT_COPIES = 5.5  # copies of the rows during a fit: weighted, scaled, factored, ... (measured with fit_wls)

MEMINFO_FILE = Path("/proc/meminfo")
CGROUP_FILE = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")


def get_available_memory() -> int | None:
    """Return the number of bytes that this process can still allocate on the machine, in its job and container.

    The result is None if the number is not known, as on systems other than Linux.
    """
    limits = [*_read_meminfo(), *_read_cgroup_limits()]
    return min(limits, default=None)


def require_memory(required_bytes: float, description: str, remedy: str, *, available_bytes: int | None = None) -> None:
    """Refuse work that does not fit into the available memory.

    Parameters
    ----------
    required_bytes : float
        Bytes that all processes need together.
    description : str
        Description of the work, in the plural, such as "the fits of 3000 rows by 500 columns".
    remedy : str
        Advice to the user, such as "lower 'twojmax'".
    available_bytes : int, optional
        Available memory of a GPU; by default, that of this machine is determined.

    Raises
    ------
    InputError
        If the required memory exceeds the available memory; the message gives both.
    """
    if required_bytes <= MIN_CHECKED_BYTES:
        return
    limit = get_available_memory() if available_bytes is None else available_bytes
    if limit is not None and required_bytes > limit:
        hardware = "memory" if available_bytes is None else "the GPU's memory"
        sizes = f"about {required_bytes / 1e9:.3g} GB of {hardware}, and {limit / 1e9:.3g} GB are available"
        raise InputError(f"{description} need {sizes}; {remedy}")


def _read_meminfo() -> list[int]:
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO_FILE.read_text().splitlines() if ":" in line)
        return [1024 * int(lines["MemAvailable"].split()[0])]  # the unit of the file is KiB
    except (OSError, KeyError, ValueError):
        return []


def _read_cgroup_limits() -> list[int]:
    """Return the free memory in bytes of this process's control groups, of version 1 or 2, and of their parents."""
    try:
        lines = [line.split(":", 2) for line in CGROUP_FILE.read_text().splitlines()]
    except OSError:
        return []
    limits = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and "memory" not in controllers.split(","):
            continue
        root = CGROUP_ROOT / "memory" if controllers else CGROUP_ROOT  # only version 1 names controllers
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        folder = root / path.strip("/")
        for group in [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]:
            limits += _read_free_bytes(group, *names)
    return limits


def _read_free_bytes(group: Path, limit: str, usage: str) -> list[int]:
    """Return the limit of a group minus its usage, in bytes; an empty list if the group has no limit.

    Cached files count as free, because the kernel can reclaim their memory.
    """
    try:
        free_bytes = int((group / limit).read_text()) - int((group / usage).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # the group is not visible in a container, or its limit is "max", which is no limit
        return []
    return [max(0, free_bytes + int(stat.get("inactive_file", stat.get("total_inactive_file", 0))))]
