"""The command line in this process, which takes a second less than a process of its own."""

import io
import logging
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest


def call(*arguments, cwd=None):
    """Run a command as `paretofit.cli.main` does, and return its exit code and its output."""
    from paretofit.cli.application import run_app

    out, err, code = io.StringIO(), io.StringIO(), 0
    with _restored_process() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["paretofit", *map(str, arguments)])
        if cwd is not None:
            patch.chdir(cwd)
        try:
            run_app()
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@contextmanager
def _restored_process():
    """Restore what a command changes in its process: handlers of signals, the log, and hooks of exceptions."""
    logger = logging.getLogger("paretofit")
    handlers, level = list(logger.handlers), logger.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", sys.unraisablehook)
        patch.setattr(threading, "excepthook", threading.excepthook)
        try:
            yield patch
        finally:
            logger.handlers, logger.level = handlers, level
            for number, handler in signals.items():
                signal.signal(number, handler)
