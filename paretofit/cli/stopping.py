"""Orderly end of a command that is stopped by Ctrl-C, a batch system's SIGTERM, a full disk or lack of memory.

In each case, the command ends with one message and an exit code. Finished results are on disk under their final names
by then, so nothing is saved here. The exception passes through the code that created temporary files and worker
processes, which removes them.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from types import FrameType, TracebackType
from typing import Any

import typer

from paretofit.cli.verb_help import WorkflowGroup
from paretofit.core import ADVICE_BY_ERRNO, describe_system_error, join_lines
from paretofit.early_signals import exit_early

log = logging.getLogger(__name__)

RESUME_ADVICE = {  # by verb
    "run": "run the same command again to resume",
    "learn": "run the same command again to resume",
    "label": "run the same command again to resume (finished labels are kept)",
    "validate": "run the same command again to resume",
    "export": "run the same command again; with --front, it resumes",
    "explore": "run the same command again to resume (finished trajectories are kept)",
}
RESTART_ADVICE = "run the same command again to start over (earlier files are unchanged)"  # for all other verbs
BROKEN_PIPE_EXIT_CODE = 128 + signal.SIGPIPE  # that of a Unix tool that SIGPIPE ends
# Warning of joblib about the results of workers that a stop discards.
LOST_TASKS_WARNING = r"\d+ tasks (which were still being processed|have been successfully executed)"
STOP_RETRY_S = 0.01  # time after which a discarded stop is raised again


class Terminated(KeyboardInterrupt):
    """Stop by SIGTERM; a subclass of `KeyboardInterrupt`, so that clean-up code for Ctrl-C also runs."""


class VerbGroup(WorkflowGroup):
    """Group of the verbs; each prints a message for every way in which it can be stopped."""

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; if it is stopped, print a message and exit.

        The exit code is 130 after Ctrl-C and 143 after SIGTERM, as shells expect. It is 1 if there is not enough
        memory, or after an error of the operating system; it is 141, without a message, if the output is a pipe whose
        reader has ended.
        """
        catch_sigterm()
        if signal.getsignal(signal.SIGINT) is exit_early:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        warnings.filterwarnings("ignore", LOST_TASKS_WARNING, UserWarning)
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()  # an error of writing must be raised here, where it becomes a message
        except KeyboardInterrupt as error:
            warnings.simplefilter("ignore")  # joblib warns about the results that its stopped workers lost
            cause, code = ("terminated", 143) if isinstance(error, Terminated) else ("interrupted", 130)
            message = f"{cause}; {_get_advice(ctx)}"
        except MemoryError as error:
            reason = f" ({join_lines(error)})" if str(error) else ""
            code = 1
            message = f"there is not enough memory{reason}; use fewer --jobs, or a smaller study (twojmax, sizes)"
        except ImportError as error:
            if os.strerror(errno.EMFILE) not in str(error):  # too many open files can make an import fail
                raise
            code, message = 1, f"{join_lines(error)}; {ADVICE_BY_ERRNO[errno.EMFILE]}, then {_get_advice(ctx)}"
        except OSError as error:
            log.info("stopped by an error of the operating system", exc_info=True)
            code, message = 1, _describe_os_error(error, _get_advice(ctx))
        else:
            return result
        typer.echo(f"paretofit: {message}", err=True)
        raise typer.Exit(code)


def _describe_os_error(error: OSError, advice: str) -> str:
    """Describe an error of the operating system; exit without a message if the reader of the output has closed it."""
    if not _redirect_failed_output(error):
        return f"{describe_system_error(error)}, then {advice}"
    if error.errno == errno.EPIPE:  # the reader, such as head, has read enough
        raise typer.Exit(BROKEN_PIPE_EXIT_CODE) from error
    return f"standard output cannot be written: {error.strerror}; redirect it, then {advice}"


def _redirect_failed_output(error: OSError) -> bool:
    """Redirect standard output to the null device if the error was raised by printing; return whether it was.

    Without the redirection, Python would report the error a second time when it flushes standard output at exit.
    """
    # `typer.echo` prints, and `invoke` flushes what was printed.
    is_output_error = _get_raising_function(error.__traceback__) in {"echo", VerbGroup.invoke.__name__}
    if is_output_error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return is_output_error


def _get_advice(ctx: Any) -> str:
    """Return advice on how to continue after a verb was stopped."""
    return RESUME_ADVICE.get(ctx.invoked_subcommand, RESTART_ADVICE)


def catch_sigterm() -> None:
    """Turn the first SIGTERM into `Terminated`, and ignore later ones.

    A process can receive the signal twice, because `timeout` and batch systems send it to a process and to its group.
    Python discards an exception that is raised inside a finalizer or the callback of a weak reference; a stop that is
    discarded there is raised again.
    """
    signal.signal(signal.SIGTERM, _raise_terminated)
    if getattr(sys.unraisablehook, "func", None) is not _raise_discarded_stop:
        sys.unraisablehook = partial(_raise_discarded_stop, sys.unraisablehook)
    if getattr(threading.excepthook, "func", None) is not _report_thread_exception:
        threading.excepthook = partial(_report_thread_exception, threading.excepthook)


def _raise_discarded_stop(report: Callable[[Any], Any], unraisable: sys.UnraisableHookArgs) -> None:
    """Raise a discarded stop again from a timer signal, after `STOP_RETRY_S`; report other exceptions."""
    stop = unraisable.exc_value
    if not isinstance(stop, KeyboardInterrupt):
        report(unraisable)
        return

    def raise_stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise type(stop)

    signal.signal(signal.SIGALRM, raise_stop)
    signal.setitimer(signal.ITIMER_REAL, STOP_RETRY_S)


def _report_thread_exception(report: Callable[[Any], Any], arguments: threading.ExceptHookArgs) -> None:
    """Report an exception of a thread, except the one that loky raises if it submits a task during its shutdown."""
    if _get_raising_function(arguments.exc_traceback) != "add_call_item_to_queue":
        report(arguments)


def _get_raising_function(trace: TracebackType | None) -> str:
    """Return the name of the function that raised an exception; an empty string without a traceback."""
    return [frame.f_code.co_name for frame, _ in traceback.walk_tb(trace)][-1] if trace else ""


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM: ignore further signals of this kind, and raise `Terminated`."""
    del frame
    signal.signal(number, signal.SIG_IGN)
    raise Terminated
