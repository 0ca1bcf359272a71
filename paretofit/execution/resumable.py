"""Parallel map whose finished results are stored in a journal of arrays, so that a stopped computation resumes."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from paretofit.core import Array, ArrayJournal, ExecutionError, InputError, show_message
from paretofit.execution.executors import T
from paretofit.execution.run_context import RunContext

log = logging.getLogger(__name__)


def map_with_journal(
    context: RunContext,
    function: Callable[[T], Sequence[Array]],
    tasks: Sequence[T],
    description: str,
    journal_path: Path,
    digest: str,
) -> Iterator[list[Array]]:
    """Yield the arrays that a function returns for each task, in order; store them, and reuse those of a stopped run.

    Parameters
    ----------
    context : RunContext
        Processes and progress bar of the run.
    function : callable
        Returns a sequence of arrays for one task; runs in other processes if the context has more than one.
    tasks : sequence
    description : str
        Name of the results in the progress bar and in messages.
    journal_path : Path
        File in which finished results are stored. The caller removes it after storing the results elsewhere.
    digest : str
        Digest of all inputs that the results depend on, including the tasks.

    Raises
    ------
    InputError
        If the journal cannot be written, or another process uses it. If a task raises this error, the journal is
        removed.
    ExecutionError
        If a result cannot be written or a task raises this error; finished results remain in the journal.
    """
    journal = ArrayJournal(journal_path, digest)
    try:
        with journal:
            n_stored = 0
            for arrays in journal.read():
                n_stored += 1
                yield arrays
            if journal.is_restarted:
                reason = f"{journal_path} has results of a stopped run with other inputs"
                _report(context, f"{description}: {reason}; all parts are computed again")
            if n_stored:
                stored_parts = f"{n_stored} of {len(tasks)} parts of a stopped run"
                _report(context, f"{description}: {stored_parts} are in {journal_path} and are used again")
            for result in context.map_and_track(function, tasks[n_stored:], description):
                journal.append(result)
                yield list(result)
    except ExecutionError:  # a subclass of InputError, after which the run can resume
        raise
    except InputError:
        journal_path.unlink(missing_ok=True)  # the user will change the input, which makes the stored results useless
        raise


def _report(context: RunContext, message: str) -> None:
    """Log a message and, if the run shows its progress, print it."""
    log.info(message)
    show_message(message, enabled=context.progress)
