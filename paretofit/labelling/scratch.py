"""Scratch directories of engines, which are removed after each label, or by the next run if a process was killed."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil

from paretofit.core import DISK_WRITE_ERRNOS, ExecutionError, one_line

SCRATCH_PREFIX = "paretofit-label"
MIN_FREE_BYTES = 1 << 20  # a disk with less free space is treated as full, as the engine may report any error


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create an empty temporary directory for this process, and remove it at the end."""
    _remove_stale_scratch_once(os.getpid())
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH_PREFIX}-{socket.gethostname()}-{os.getpid()}-") as folder:
        yield Path(folder)


def raise_if_disk_full(error: Exception) -> None:
    """Raise `ExecutionError` if a full disk caused the error of an engine, because the label itself did not fail."""
    directory = tempfile.gettempdir()
    if getattr(error, "errno", None) in DISK_WRITE_ERRNOS or shutil.disk_usage(directory).free < MIN_FREE_BYTES:
        raise ExecutionError(
            f"{directory} on {socket.gethostname()}, where engines run, is full ({one_line(error)}); free some space, "
            "or set TMPDIR to another directory, then run the same command again to resume"
        ) from error


@cache
def _remove_stale_scratch_once(_pid: int) -> None:
    """Clean up once in each process that computes labels, because it may replace a killed process."""
    remove_stale_scratch()


def remove_stale_scratch() -> None:
    """Kill programs that were started by killed processes on this machine, and remove their scratch directories."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}-{socket.gethostname()}-*"):
        pid = folder.name.split("-")[-2]
        with suppress(OSError):  # another process may be removing the directory
            if pid.isdigit() and not psutil.pid_exists(int(pid)) and folder.stat().st_uid == os.getuid():
                _kill_programs(folder)
                shutil.rmtree(folder, ignore_errors=True)


def _kill_programs(folder: Path) -> None:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder):
                process.kill()
