"""Tasks on several processes: of this machine by default, or of a cluster, and the same numbers whichever it is.

Workers on this machine do not outlive the process that started them, nor do the programs that they have started. A run
that is killed with -9 cannot tell its workers; they notice by themselves that their parent has changed.
"""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import joblib
import psutil
from joblib import Parallel, delayed

from paretofit.core import ExecutionError, one_line
from paretofit.execution.cluster import check_worker_threads, get_active_client, get_worker_timeout

T = TypeVar("T")
R = TypeVar("R")

INTERVAL = 2.0  # seconds between two looks
FIRST = 8  # tasks that wait for the first worker of a cluster
WORKER_POLL_INTERVAL_S = 10.0  # seconds between two looks at its workers
SCHEDULER_TIMEOUT_S = 300.0  # seconds without an answer after which its scheduler has hung
Outcome = tuple[Exception | None, Any]


def parallel_map(
    function: Callable[[T], R], tasks: Iterable[T], jobs: int, *, ordered: bool = True, pre_dispatch: int | None = None
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
    pre_dispatch : int, optional
        Tasks that are taken before their turn, so that results do not pile up; by default two for each process.

    Raises
    ------
    Exception
        What the function raised, after which no more tasks are begun.
    FailedError
        If a process was killed; on a cluster, if it happened again and again to the same task, or its scheduler ended.
    """
    found = (
        _on_cluster(function, tasks, ordered, pre_dispatch)
        if get_active_client()
        else _here(function, tasks, jobs, ordered, pre_dispatch)
    )
    with closing(found), translate_errors():
        for error, value in found:
            if error is not None:
                raise error
            yield value


@contextmanager
def translate_errors() -> Iterator[None]:
    """Say in a sentence that a process was killed, or a cluster is lost; other errors pass."""
    try:
        yield
    except Exception as error:
        kind = type(error)  # dask is an extra
        if isinstance(error, BrokenProcessPool) or kind.__name__ == "KilledWorker":
            raise ExecutionError(
                "a process that had a task was killed, or crashed (memory may be short: use fewer --jobs, or give the "
                "workers of a cluster more); what is finished is kept, the same command goes on"
            ) from error
        if kind.__module__.startswith("distributed"):
            why = one_line(error).split("cancelled for reason: ")[-1].rstrip(".")
            raise ExecutionError(f"the cluster is lost ({why}); start it again: the same command goes on") from error
        if isinstance(error, RuntimeError) and "deserialization" in str(error):
            why = one_line(error.__cause__ or error)
            raise ExecutionError(
                f"the cluster's workers cannot load the tasks ({why}); start them in this environment"
            ) from error
        raise


def _here(
    function: Callable[[T], R], tasks: Iterable[T], jobs: int, ordered: bool, ahead: int | None
) -> Generator[Outcome, None, None]:
    """Outcomes of tasks on processes of this machine."""
    calls = (delayed(_outcome)(os.getpid(), function, task) for task in tasks)
    parallel = Parallel(
        n_jobs=jobs,
        return_as="generator" if ordered else "generator_unordered",
        pre_dispatch="2*n_jobs" if ahead is None else ahead,
    )
    yield from parallel(calls)


def _on_cluster(
    function: Callable[[T], R], tasks: Iterable[T], ordered: bool, ahead: int | None
) -> Generator[Outcome, None, None]:
    """Outcomes of tasks on the active cluster."""
    for _, future in submit_to_cluster(partial(_outcome, 0, function), tasks, ordered=ordered, pre_dispatch=ahead):
        yield wait_for_result(future)


def submit_to_cluster(
    function: Callable[[T], R], tasks: Iterable[T], *, ordered: bool = False, pre_dispatch: int | None = None
) -> Generator[tuple[T, Any], None, None]:
    """Tasks of the active cluster, whose workers come and go, with their futures, as they are done or in order.

    joblib's backend for dask counts workers once, at the beginning: where a queue has started one by then, it would
    run everything in this process, and where two, hand out no more than four tasks at a time for ever.

    Raises
    ------
    FailedError
        If the cluster has no workers for a while, unless a queue may take its time.
    InputError
        If a worker that came later has several threads.
    """
    client, source = get_active_client(), iter(tasks)
    waiting: list[tuple[T, Any]] = []
    try:
        while True:
            room = _room(client) if pre_dispatch is None else pre_dispatch
            some = islice(source, max(0, room - len(waiting)))
            waiting += [(task, client.submit(function, task, pure=False)) for task in some]
            if not waiting:
                return
            _wait(client, [future for _, future in (waiting[:1] if ordered else waiting)])
            if not ordered:  # what is done comes first
                waiting.sort(key=lambda one: not one[1].done())
            yield waiting.pop(0)
    finally:
        with suppress(Exception):  # a cluster that is lost already
            client.cancel([future for _, future in waiting])


def wait_for_result(future: Any) -> Any:
    """The result of a task of the active cluster; where the worker that has it is gone, another one does it again.

    Raises
    ------
    FailedError
        As of `submit_to_cluster`.
    """
    limit = WORKER_POLL_INTERVAL_S
    while True:
        _wait(get_active_client(), [future])
        try:
            return future.result(timeout=limit)
        except TimeoutError:  # dask would wait for ever, also without workers; what is large has more time next
            limit *= 2


def _wait(client: Any, futures: list[Any]) -> None:
    """Wait until one of them is done."""
    from distributed import wait  # noqa: PLC0415  (an extra)

    since, patience = time.monotonic(), get_worker_timeout()
    while True:
        with suppress(TimeoutError):
            wait(futures, timeout=WORKER_POLL_INTERVAL_S, return_when="FIRST_COMPLETED")
            return
        if client.status != "running" or _workers(client):
            since = time.monotonic()
        elif patience is not None and time.monotonic() - since > patience:
            raise ExecutionError(
                f"the cluster has had no workers for {patience:.0f} s; start some with 'dask worker --nthreads 1': "
                "what is finished is kept, the same command goes on"
            )


def _room(client: Any) -> int:
    """Tasks that a cluster has at a time."""
    try:
        workers = _workers(client)
    except OSError:  # the scheduler has ended, which the tasks will say
        return FIRST
    check_worker_threads(workers)
    return 2 * len(workers) or FIRST


def _workers(client: Any) -> dict[str, int]:
    """Threads of the workers by their addresses."""
    try:
        found: dict[str, int] = client.sync(client.scheduler.ncores, callback_timeout=SCHEDULER_TIMEOUT_S)
    except TimeoutError as error:
        raise ExecutionError(
            f"the scheduler of the cluster has not answered for {SCHEDULER_TIMEOUT_S:.0f} s; start the cluster again: what is "
            "finished is kept, the same command goes on"
        ) from error
    return found


@contextmanager
def dump_function(function: Callable[[T], R], folder: Path | None) -> Iterator[Callable[[T], R]]:
    """A function that holds large arrays, in a form that is small enough to be sent with every task.

    On a cluster it lies in a file for as long as the block lasts, whose arrays all workers of a machine map into their
    memory; a worker that is killed takes nothing with it. Processes of this machine share large arrays as it is.

    Parameters
    ----------
    function : callable
    folder : Path or None
        That the workers of a cluster see; None sends the function as it is.
    """
    if get_active_client() is None or folder is None:
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
        try:
            function = _from_shelf(self.path)
        except FileNotFoundError as error:
            raise ExecutionError(
                f"a worker of the cluster does not see {self.path}: all must see the run folder under the same path"
            ) from error
        return function(task)


@lru_cache(maxsize=1)
def _from_shelf(path: str) -> Any:
    return joblib.load(path, mmap_mode="r")


@dataclass(frozen=True)
class ClusterRunner:
    """Parts of a design summed by the processes of the active cluster.

    It is a `Run` of `paretofit.linear.reduction`.

    Attributes
    ----------
    folder : Path or None
        See `dump_function`.
    """

    folder: Path | None

    def __call__(self, function: Callable[[Any], R], parts: Sequence[Any]) -> Iterator[R]:
        """Run them; results are large, so that few wait for their turn."""
        with dump_function(_OfPart(function, parts), self.folder) as run:
            yield from parallel_map(run, range(len(parts)), 1)


@dataclass(frozen=True)
class _OfPart:
    function: Callable[[Any], Any]
    parts: Sequence[Any]

    def __call__(self, number: int) -> Any:
        return self.function(self.parts[number])


def _outcome(parent: int, function: Callable[[Any], Any], task: Any) -> tuple[Exception | None, Any]:
    """What became of a task; a cluster would not try again what has raised, but would lose the words."""
    exit_with_parent(parent)
    try:
        return None, function(task)
    except Exception as error:  # noqa: BLE001  (it is raised where the results are taken)
        return error, None


@cache
def exit_with_parent(parent_pid: int) -> None:
    """End this process soon after `parent_pid` has ended; does nothing in `parent_pid` itself, or where it is 0.

    Call it in every task.
    """
    if parent_pid and os.getpid() != parent_pid:
        threading.Thread(target=_watch, args=(parent_pid,), daemon=True).start()


def _watch(parent: int) -> None:
    never = threading.Event()
    while os.getppid() == parent:
        never.wait(INTERVAL)
    for program in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            program.kill()
    os._exit(1)
