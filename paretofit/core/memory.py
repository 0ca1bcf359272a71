"""Estimates of the available memory, and refusal of work that needs more.

An allocation that is too large seldom fails: the system grants the memory, and kills this or another process when the
memory is written to. The memory of work on large arrays is therefore estimated in advance, as a measured number of
copies of the arrays; small arrays are not checked.
"""

from pathlib import Path

from paretofit.core.errors import InputError

MIN_CHECKED_BYTES = 256 << 20  # work that requires less memory is not checked
FIT_COPIES = 5.5  # copies of the rows during a fit: weighted, scaled, factored, ... (measured with fit_wls)

MEMINFO_FILE = Path("/proc/meminfo")
CGROUP_FILE = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")


def get_available_memory() -> int | None:
    """Return the number of bytes that this process can still allocate.

    This is the smallest of the free memory of the machine and that of each control group of the process, such as a
    batch job or a container. The number is None if it is not known, as on systems other than Linux.
    """
    free_bytes = [*_read_meminfo(), *_read_cgroup_free_bytes()]
    return min(free_bytes, default=None)


def require_memory(required_bytes: float, description: str, remedy: str, *, available_bytes: int | None = None) -> None:
    """Refuse work that does not fit into the available memory; work of up to `MIN_CHECKED_BYTES` is not checked.

    Parameters
    ----------
    required_bytes : float
        Bytes that all processes need together.
    description : str
        Description of the work, in the plural, such as "the fits of 3000 rows by 500 columns".
    remedy : str
        Advice to the user, such as "lower 'twojmax'".
    available_bytes : int, optional
        Available memory of a GPU; by default, the work is done by the CPU, and its available memory is determined.

    Raises
    ------
    InputError
        If the required memory exceeds the available memory; the message gives both. If the available memory is not
        known, no error is raised.
    """
    if required_bytes <= MIN_CHECKED_BYTES:
        return
    free_bytes = get_available_memory() if available_bytes is None else available_bytes
    if free_bytes is not None and required_bytes > free_bytes:
        hardware = "memory" if available_bytes is None else "the GPU's memory"
        sizes = f"about {required_bytes / 1e9:.3g} GB of {hardware}, and {free_bytes / 1e9:.3g} GB are available"
        raise InputError(f"{description} need {sizes}; {remedy}")


def _read_meminfo() -> list[int]:
    """Return the free memory of the machine in bytes, as a list of one number; an empty list if it is not known."""
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO_FILE.read_text().splitlines() if ":" in line)
        return [1024 * int(lines["MemAvailable"].split()[0])]  # the unit of the file is KiB
    except (OSError, KeyError, ValueError):
        return []


def _read_cgroup_free_bytes() -> list[int]:
    """Return the free memory in bytes of this process's control groups, of version 1 or 2, and of their parents."""
    try:
        lines = [line.split(":", 2) for line in CGROUP_FILE.read_text().splitlines()]
    except OSError:
        return []
    free_bytes = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and "memory" not in controllers.split(","):
            continue
        if controllers:  # only version 1 names controllers
            root, limit_name, usage_name = CGROUP_ROOT / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            root, limit_name, usage_name = CGROUP_ROOT, "memory.max", "memory.current"
        folder = root / path.strip("/")
        for group in [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]:
            free_bytes += _read_free_bytes(group, limit_name, usage_name)
    return free_bytes


def _read_free_bytes(group: Path, limit_name: str, usage_name: str) -> list[int]:
    """Return the free memory of a control group in bytes, as a list of one number; an empty list without a limit.

    The free memory is the limit minus the usage, which are read from the named files. Inactive cached files count as
    free, because the kernel can reclaim their memory. In version 1 of control groups, a group without a limit has a
    very large one.
    """
    try:
        free_bytes = int((group / limit_name).read_text()) - int((group / usage_name).read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # the group is not visible in a container, or its limit is "max", which is no limit
        return []
    # Version 1 has both statistics, of which only the total includes child groups, as the usage does.
    cached_bytes = int(statistics.get("total_inactive_file", statistics.get("inactive_file", 0)))
    return [max(0, free_bytes + cached_bytes)]
