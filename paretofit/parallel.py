"""Tasks on several processes: of this machine by default, or of a cluster, and the same numbers whichever it is.

Workers on this machine do not outlive the process that started them. A run that is killed with -9 cannot tell its
workers; they notice by themselves that their parent has changed.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import joblib
from joblib import Parallel, delayed

from paretofit.cluster import active_client

T = TypeVar("T")
R = TypeVar("R")

INTERVAL = 2.0  # seconds between two looks


def parallel_map(
    function: Callable[[T], R], tasks: Iterable[T], jobs: int, *, ordered: bool = True, ahead: int | None = None
) -> Iterator[R]:
    """Yield a function of each task, in the order of the tasks or, if not `ordered`, in that in which they end.

    Parameters
    ----------
    function : callable
        Runs in another process, where `jobs` is above one or there is a cluster.
    tasks : iterable
        Taken when there is room for them.
    jobs : int
        Processes; on a cluster as many as it has.
    ordered : bool
    ahead : int, optional
        Tasks that are taken before their turn, so that results do not pile up; by default two for each process.

    Raises
    ------
    Exception
        What the function raised, after which no more tasks are begun.
    """
    remote = active_client() is not None
    calls = (delayed(_outcome)(0 if remote else os.getpid(), function, task) for task in tasks)
    parallel = Parallel(
        n_jobs=-1 if remote else jobs,
        return_as="generator" if ordered else "generator_unordered",
        pre_dispatch="2*n_jobs" if ahead is None else ahead,
    )
    for error, value in parallel(calls):
        if error is not None:
            raise error
        yield value


@contextmanager
def shelved(function: Callable[[T], R], folder: Path | None) -> Iterator[Callable[[T], R]]:
    """A function that holds large arrays, in a form that is small enough to be sent with every task.

    On a cluster it lies in a file for as long as the block lasts, whose arrays all workers of a machine map into their
    memory; a worker that is killed takes nothing with it. Processes of this machine share large arrays as it is.

    Parameters
    ----------
    function : callable
    folder : Path or None
        That the workers of a cluster see; None sends the function as it is.
    """
    if active_client() is None or folder is None:
        yield function
        return
    handle, name = tempfile.mkstemp(prefix=".tasks-", suffix=".joblib", dir=folder.absolute())
    os.close(handle)
    try:
        joblib.dump(function, name)
        yield _Shelved(name)
    finally:
        Path(name).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Shelved:
    """A function by the file that it lies in, which this process has written for its own workers."""

    path: str

    def __call__(self, task: Any) -> Any:
        return _from_shelf(self.path)(task)


@lru_cache(maxsize=1)
def _from_shelf(path: str) -> Any:
    return joblib.load(path, mmap_mode="r")


@dataclass(frozen=True)
class OnWorkers:
    """Parts of a design summed by the processes of the active cluster: a `Run` of `paretofit.linear.streaming`.

    Attributes
    ----------
    folder : Path or None
        See `shelved`.
    """

    folder: Path | None

    def __call__(self, function: Callable[[Any], R], parts: Sequence[Any]) -> Iterator[R]:
        """Run them; results are large, so that few wait for their turn."""
        with shelved(_OfPart(function, parts), self.folder) as run:
            yield from parallel_map(run, range(len(parts)), 1)


@dataclass(frozen=True)
class _OfPart:
    function: Callable[[Any], Any]
    parts: Sequence[Any]

    def __call__(self, number: int) -> Any:
        return self.function(self.parts[number])


def _outcome(parent: int, function: Callable[[Any], Any], task: Any) -> tuple[Exception | None, Any]:
    """What became of a task; a cluster would not try again what has raised, but would lose the words."""
    follow_parent(parent)
    try:
        return None, function(task)
    except Exception as error:  # noqa: BLE001  (it is raised where the results are taken)
        return error, None


@cache
def follow_parent(parent: int) -> None:
    """End this process soon after `parent` has ended; does nothing in `parent` itself, or where it is 0.

    Call it in every task.
    """
    if parent and os.getpid() != parent:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    never = threading.Event()
    while os.getppid() == parent:
        never.wait(INTERVAL)
    os._exit(1)
