"""Scratch directories of engines: removed with their label, or by the next run after a process was killed."""

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
MIN_FREE_BYTES = 1 << 20  # a disk with less is full, whatever error an engine reports


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create an empty temporary directory of this process."""
    _remove_stale_scratch_once(os.getpid())
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH_PREFIX}-{socket.gethostname()}-{os.getpid()}-") as folder:
        yield Path(folder)


def raise_if_disk_full(error: Exception) -> None:
    """Raise `ExecutionError` if the error of an engine was caused by a full disk: it is not a failure of the label."""
    directory = tempfile.gettempdir()
    if getattr(error, "errno", None) in DISK_WRITE_ERRNOS or shutil.disk_usage(directory).free < MIN_FREE_BYTES:
        raise ExecutionError(
            f"{directory} on {socket.gethostname()}, where engines run, is full ({one_line(error)}); free some space, "
            "or set TMPDIR to another directory, then repeat the command: it resumes"
        ) from error


@cache
def _remove_stale_scratch_once(_pid: int) -> None:
    """Clean up in each process that computes labels, because it may replace one that died."""
    remove_stale_scratch()


def remove_stale_scratch() -> None:
    """Kill the programs of processes of this machine that were killed themselves, and remove their directories."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}-{socket.gethostname()}-*"):
        pid = folder.name.split("-")[-2]
        with suppress(OSError):  # another process may be removing it
            if pid.isdigit() and not psutil.pid_exists(int(pid)) and folder.stat().st_uid == os.getuid():
                _kill_programs(folder)
                shutil.rmtree(folder, ignore_errors=True)


def _kill_programs(folder: Path) -> None:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder):
                process.kill()
