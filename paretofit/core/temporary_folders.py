"""Temporary folders of this process; folders of killed processes are removed when another folder is created."""

import os
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil


def create_temporary_folder(purpose: str) -> tempfile.TemporaryDirectory[str]:
    """Create an empty temporary folder, ``paretofit-PURPOSE-HOST-PID-...``.

    The folder is removed when the returned object is cleaned up or deleted, or when its `with` block ends.

    Parameters
    ----------
    purpose : str
        Part of the name; see `remove_stale_folders`, which is called first for the same purpose.
    """
    remove_stale_folders(purpose)
    return tempfile.TemporaryDirectory(prefix=f"{_format_prefix(purpose)}{os.getpid()}-")


def remove_stale_folders(purpose: str) -> None:
    """Remove folders for a purpose that killed processes of this user left behind on this machine.

    Programs whose working directory is in such a folder are killed.
    """
    prefix = _format_prefix(purpose)
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        pid = folder.name.removeprefix(prefix).partition("-")[0]
        with suppress(OSError):  # another process may be removing the folder
            if pid.isdigit() and not psutil.pid_exists(int(pid)) and folder.stat().st_uid == os.getuid():
                _kill_programs(folder)
                shutil.rmtree(folder, ignore_errors=True)


def _format_prefix(purpose: str) -> str:
    """Return the beginning of the names of all folders for a purpose on this machine."""
    return f"paretofit-{purpose}-{socket.gethostname()}-"


def _kill_programs(folder: Path) -> None:
    """Kill all processes whose working directory is in a folder."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # the process has ended or belongs to another user
            if Path(process.cwd()).is_relative_to(folder):
                process.kill()
