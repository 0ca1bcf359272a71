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
    """Yield the arrays that a function returns for each task, in order; read those that a stopped computation stored.

    Parameters
    ----------
    context : RunContext
    function : callable
        Returns a sequence of arrays; runs in other processes if the context has more than one.
    tasks : sequence
    description : str
        Name of the results in the progress bar and in messages.
    journal_path : Path
        File of the finished results, which the caller removes when they are stored elsewhere.
    digest : str
        Digest of all inputs that the results depend on, including the tasks.

    Raises
    ------
    InputError
        If the journal cannot be written, or another process uses it.
    """
    journal = ArrayJournal(journal_path, digest)
    try:
        with journal:
            n_stored = 0
            for arrays in journal.read():
                n_stored += 1
                yield arrays
            if journal.is_restarted:
                problem = "has results of a stopped run with other inputs"
                _report(context, f"{description}: {journal_path} {problem}; all parts are computed again")
            if n_stored:
                parts = f"{n_stored} of {len(tasks)} parts of a stopped run"
                _report(context, f"{description}: {parts} are in {journal_path} and are used again")
            for result in context.map_and_track(function, tasks[n_stored:], description):
                journal.append(result)
                yield list(result)
    except ExecutionError:
        raise
    except InputError:
        journal_path.unlink(missing_ok=True)  # the user will change the input, so the stored results are of no use
        raise


def _report(context: RunContext, message: str) -> None:
    log.info(message)
    show_message(message, enabled=context.progress)
