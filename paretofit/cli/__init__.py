"""The command line: verbs, progress, exit codes; every verb calls one public function.

Exit code 0: done; 1: the work failed; 2: the input is wrong, said in one sentence.
"""

from __future__ import annotations

import atexit
import signal
import sys
from typing import Annotated

import typer
from rich.console import Console

from paretofit import __version__
from paretofit.cli import dataset_verbs, potential_verbs, structure_verbs, study_verbs, validation_verbs  # noqa: F401  (their verbs are registered)
from paretofit.cli.common import app, console
from paretofit.core import ExecutionError, InputError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line and turn wrong input into one sentence and exit code 2, work that failed into 1."""
    try:
        app()
    except InputError as error:
        Console(stderr=True, soft_wrap=True).print(f"paretofit: {error}", markup=False, highlight=False)
        sys.exit(1 if isinstance(error, ExecutionError) else 2)
    finally:
        atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)  # what is over and said cannot be stopped


def _version(value: bool) -> None:
    if value:
        console.print(f"paretofit {__version__}")
        raise typer.Exit


@app.callback()
def _callback(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
