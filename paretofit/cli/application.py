"""The application with all verbs; `paretofit.cli.main` imports it late, because the import takes most of a second."""

import atexit
import logging
import signal
import sys
from typing import Annotated

import typer
from typer import Option

from paretofit import __version__
from paretofit.cli import (  # noqa: F401  (the imports register the verbs)
    dataset_verbs,
    dynamics_verb,
    help_verb,
    potential_verbs,
    structure_verbs,
    study_verbs,
    validation_verbs,
)
from paretofit.cli.options import app
from paretofit.core import ExecutionError, InputError


def run_app() -> None:
    """Run the command line and exit; an `ExecutionError` gives a message and code 1, any other `InputError` code 2."""
    try:
        app()
    except InputError as error:
        typer.echo(f"paretofit: {error}", err=True)
        sys.exit(1 if isinstance(error, ExecutionError) else 2)
    finally:
        for signal_number in (signal.SIGTERM, signal.SIGINT):  # a signal at exit must not change the exit code
            atexit.register(signal.signal, signal_number, signal.SIG_IGN)


def _print_version(is_requested: bool) -> None:
    """Print the version and exit, if --version is used."""
    if is_requested:
        typer.echo(f"paretofit {__version__}")
        raise typer.Exit


@app.callback()
def _configure_output(
    context: typer.Context,
    *,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors and results only.")] = False,
    verbose: Annotated[bool, Option("--verbose", "-v", help="Print the log to the terminal.")] = False,
    version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    # There is no docstring, because typer would show it as the help text of the application.
    del version  # `_print_version` has handled it
    context.ensure_object(dict)["quiet"] = quiet
    if verbose:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("paretofit")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
