"""Folders that engines work in: each goes with its label, or is cleared up after a process that was killed."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from paretofit.core import DISK_WRITE_ERRNOS, ExecutionError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRATCH_PREFIX = "paretofit-label"
LEAST_SPACE = 1 << 20  # bytes: a disk with less is full, whatever an engine makes of it


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder among the temporary ones, for this process."""
    _clear_up_once(os.getpid())
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH_PREFIX}-{socket.gethostname()}-{os.getpid()}-") as folder:
        yield Path(folder)


def raise_if_disk_full(error: Exception) -> None:
    """What fails on a full disk says nothing of the label: whoever asked for it must make room first.

    Parameters
    ----------
    error : Exception
        What an engine has raised.

    Raises
    ------
    FailedError
        If the disk is full.
    """
    place = tempfile.gettempdir()
    if getattr(error, "errno", None) in DISK_WRITE_ERRNOS or shutil.disk_usage(place).free < LEAST_SPACE:
        raise ExecutionError(
            f"{place} on {socket.gethostname()}, where engines work, is full ({one_line(error)}); free some space, or "
            "set TMPDIR to another place: what is finished is kept, the same command goes on"
        ) from error


@cache
def _clear_up_once(process: int) -> None:
    """For each process that computes labels; where one dies another one begins."""
    del process
    remove_stale_scratch()


def remove_stale_scratch() -> None:
    """End the programs that processes of this machine had started when they were killed, and remove their folders."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}-{socket.gethostname()}-*"):
        owner = folder.name.split("-")[-2]
        with suppress(OSError):  # another process is at it, too
            if owner.isdigit() and not psutil.pid_exists(int(owner)) and folder.stat().st_uid == os.getuid():
                _end_programs(folder)
                shutil.rmtree(folder, ignore_errors=True)


def _end_programs(folder: Path) -> None:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder):
                process.kill()
