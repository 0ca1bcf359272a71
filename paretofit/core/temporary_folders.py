"""Temporary folders of this process; those of killed processes are removed when the next one is created."""

import os
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path


def create_temporary_folder(purpose: str) -> tempfile.TemporaryDirectory[str]:
    """Create an empty temporary folder, ``paretofit-PURPOSE-HOST-PID-...``, that is removed with the object.

    Parameters
    ----------
    purpose : str
        Part of the name. Folders for the same purpose that killed processes of this user and machine left behind are
        removed.
    """
    prefix = f"paretofit-{purpose}-{socket.gethostname()}-"
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        pid = folder.name.removeprefix(prefix).partition("-")[0]
        with suppress(OSError):  # another process may be removing the folder
            if pid.isdigit() and not Path(f"/proc/{pid}").exists() and folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-")
