"""The command line in this process, which takes a second less than a process of its own."""

import io
import logging
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest


def call(*arguments, cwd=None):
    """Run a command as `paretofit.cli.main` does, and return its exit code and its output."""
    from paretofit.cli.application import run_app

    out, err, logger, code = io.StringIO(), io.StringIO(), logging.getLogger("paretofit"), 0
    handlers, level = list(logger.handlers), logger.level
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["paretofit", *map(str, arguments)])
        if cwd is not None:
            patch.chdir(cwd)
        try:
            run_app()
        except SystemExit as end:
            code = end.code or 0
        finally:
            logger.handlers, logger.level = handlers, level
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
