"""What stops a command from outside: Ctrl-C, a batch system's SIGTERM, a full disk, memory; each ends in one sentence.

What is finished is on disk under its final name by then, so there is nothing to save here: temporary files and
worker processes go as the exception passes those who made them.
"""

from __future__ import annotations

import errno
import signal
import threading
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from paretofit.core import one_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

GOES_ON = {
    "run": "the same command goes on where this one stopped",
    "learn": "the same command goes on where this one stopped",
    "label": "finished labels are kept, the same command goes on from there",
}
AGAIN = "what stood before is untouched; the same command begins again"
PLACE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "name a place that can be written",
    errno.EACCES: "give yourself permission, or name another place",
    errno.EIO: "look at the disk",
    errno.EEXIST: "move away what stands there",
    errno.ENOTDIR: "move away what stands there",
    errno.EISDIR: "move away what stands there",
}  # trouble of a place, not of the work


class Terminated(KeyboardInterrupt):
    """SIGTERM: what cleans up after Ctrl-C does so here, too."""


class VerbGroup(TyperGroup):
    """The command line's verbs, each of which ends with a sentence however it is stopped."""

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; exit code 130 after Ctrl-C and 143 after SIGTERM, as shells expect, 1 without room to work."""
        catch_sigterm()
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            warnings.simplefilter("ignore")  # joblib counts what its workers did in vain
            word, code = ("terminated", 143) if isinstance(error, Terminated) else ("interrupted", 130)
            _say(f"{word}; {GOES_ON.get(ctx.invoked_subcommand, AGAIN)}")
            raise typer.Exit(code) from None
        except MemoryError as error:
            reason = f" ({one_line(error)})" if str(error) else ""
            _say(f"there is not enough memory{reason}; use fewer --jobs, or a smaller study (twojmax, sizes)")
            raise typer.Exit(1) from None
        except OSError as error:
            if error.errno not in PLACE:
                raise
            place = f"{error.filename}: " if error.filename else ""
            then = GOES_ON.get(ctx.invoked_subcommand, AGAIN)
            _say(f"{place}{error.strerror}; {PLACE[error.errno]}, then {then}")
            raise typer.Exit(1) from None


def catch_sigterm() -> None:
    """Make SIGTERM an exception, once: `timeout` and batch systems send it to a process and again to its group."""
    signal.signal(signal.SIGTERM, _terminated)
    if getattr(threading.excepthook, "func", None) is not _in_a_thread:
        threading.excepthook = partial(_in_a_thread, threading.excepthook)


def _in_a_thread(print_it: Callable[[Any], Any], what: threading.ExceptHookArgs) -> None:
    """Print what a thread raised, unless it is loky's over a task that was handed out just before the end."""
    trace = what.exc_traceback
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_code.co_name != "add_call_item_to_queue":
        print_it(what)


def _terminated(number: int, frame: FrameType | None) -> None:
    del frame
    signal.signal(number, signal.SIG_IGN)
    raise Terminated


def _say(words: str) -> None:
    typer.echo(f"paretofit: {words}", err=True)
