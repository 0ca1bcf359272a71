"""Command line with options, help, progress and exit codes; every verb calls one public function.

Exit codes: 0 after success, 1 after a failure during the computation, 2 for invalid input, 130 after Ctrl-C and 143
after SIGTERM; a message explains every failure. The code is 141, without a message, if the reader of a pipe has ended.
Importing this package is fast, so that signals are caught before the verbs are imported.
"""

import os
import sys
from typing import Any

from paretofit.early_signals import catch_early_signals

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    """Import the application with its verbs when ``app`` is first used."""
    if name == "app":
        from paretofit.cli import application  # noqa: F401  (the import registers the verbs)
        from paretofit.cli.options import app

        return app
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def main() -> None:
    """Run the command line and exit; unless it succeeds, print a message and return an exit code other than 0."""
    _open_standard_streams()
    catch_early_signals()
    from paretofit.cli.application import run_app

    run_app()


def _open_standard_streams() -> None:
    """Connect closed standard streams to the null device; otherwise, the next opened file would receive their output.

    If standard output was closed, print a message and exit with code 2.
    """
    is_closed = []
    for descriptor in range(3):  # standard input, output and error
        try:
            os.fstat(descriptor)
            is_closed.append(False)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, this one
            is_closed.append(True)
    if is_closed[2]:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  (open until the process ends)
    if is_closed[1]:
        sys.stderr.write("paretofit: standard output is closed; redirect it to a file or to /dev/null\n")
        sys.exit(2)
