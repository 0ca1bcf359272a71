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
    """Run the command line; errors become messages, with exit code 1 for an `ExecutionError` and 2 for the others."""
    try:
        app()
    except InputError as error:
        typer.echo(f"paretofit: {error}", err=True)
        sys.exit(1 if isinstance(error, ExecutionError) else 2)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):  # a signal while Python ends must not change the exit code
            atexit.register(signal.signal, number, signal.SIG_IGN)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"paretofit {__version__}")
        raise typer.Exit


@app.callback()
def _set_up(
    context: typer.Context,
    *,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors and results only.")] = False,
    verbose: Annotated[bool, Option("--verbose", "-v", help="Print the log to the terminal.")] = False,
    version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version  # handled by its callback
    context.ensure_object(dict)["quiet"] = quiet
    if verbose:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("paretofit")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
