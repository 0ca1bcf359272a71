"""The command line in a process of its own."""

import subprocess
import sys


def call(*arguments, cwd=None):
    command = [sys.executable, "-m", "paretofit.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
