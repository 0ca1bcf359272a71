"""Temporary folders of this process; those of killed processes are removed when the next one is created."""

import os
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil


def create_temporary_folder(purpose: str) -> tempfile.TemporaryDirectory[str]:
    """Create an empty temporary folder, ``paretofit-PURPOSE-HOST-PID-...``, that is removed with the object.

    Parameters
    ----------
    purpose : str
        Part of the name. Folders for the same purpose that killed processes left behind are removed.
    """
    remove_stale_folders(purpose)
    return tempfile.TemporaryDirectory(prefix=f"{_make_prefix(purpose)}{os.getpid()}-")


def remove_stale_folders(purpose: str) -> None:
    """Remove folders that killed processes of this user left behind on this machine, and kill the programs in them."""
    prefix = _make_prefix(purpose)
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        pid = folder.name.removeprefix(prefix).partition("-")[0]
        with suppress(OSError):  # another process may be removing the folder
            if pid.isdigit() and not psutil.pid_exists(int(pid)) and folder.stat().st_uid == os.getuid():
                _kill_programs(folder)
                shutil.rmtree(folder, ignore_errors=True)


def _make_prefix(purpose: str) -> str:
    return f"paretofit-{purpose}-{socket.gethostname()}-"


def _kill_programs(folder: Path) -> None:
    """Kill all processes whose working directory is in a folder."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder):
                process.kill()
