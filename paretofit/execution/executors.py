"""Where tasks run: one interface to processes of this machine, workers of a cluster and jobs of a queue.

An executor has the shape of `concurrent.futures.Executor`. What it adds is what long runs need: how many tasks to hand
out at a time, an error of its own for a task whose worker was lost, and what to do with a result once it is stored.
"""

import multiprocessing
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for_futures
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import cache, partial
from itertools import islice
from typing import Any, TypeVar

import psutil
from joblib.externals.loky.process_executor import ProcessPoolExecutor, ShutdownExecutorError

T = TypeVar("T")
R = TypeVar("R")

SINGLE_THREAD_ENV = {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "BLIS", "VECLIB", "NUMEXPR")
}
PARENT_POLL_INTERVAL_S = 2.0


class LostTaskError(Exception):
    """The process, worker or job of a task ended without a result."""


class TaskExecutor(ABC):
    """What runs tasks. Futures are those of `concurrent.futures`, unless a subclass has others with ``done()``."""

    max_pending: int  # tasks to hand out before the first of them is finished; it may change during a run

    @abstractmethod
    def submit(self, function: Callable[[Any], Any], task: Any) -> Any:
        """Hand out a task; return its future."""

    def wait(self, futures: Sequence[Any]) -> None:
        """Wait until at least one of the futures is done; `ExecutionError` if none can be."""
        wait_for_futures(futures, return_when=FIRST_COMPLETED)

    def get_result(self, future: Any) -> Any:
        """Result of a finished task; raise what it raised, or `LostTaskError`."""
        return future.result()

    def release(self, future: Any) -> None:  # noqa: B027  (most executors have nothing to do)
        """Forget a task whose result has been stored."""

    def cancel(self, futures: Sequence[Any]) -> None:
        """Give up tasks that have not been started."""
        for future in futures:
            future.cancel()


def run_ahead(
    executor: TaskExecutor,
    function: Callable[[T], Any],
    tasks: Iterable[T],
    *,
    ordered: bool = False,
    max_pending: int | None = None,
) -> Generator[tuple[T, Any], None, None]:
    """Yield each task with its future once it is done, and keep others running meanwhile.

    joblib's own backend for dask counts workers once, at the start: if a queue has started one by then, it would run
    everything in this process; if two, it would hand out four tasks at a time for ever.

    Parameters
    ----------
    executor : TaskExecutor
    function : callable
    tasks : iterable
        Consumed only as needed.
    ordered : bool
        Whether to keep the order of the tasks; otherwise tasks are yielded as they finish.
    max_pending : int, optional
        Tasks that are handed out and not yielded yet; by default as many as the executor suggests.
    """
    source, pending = iter(tasks), list[tuple[T, Any]]()
    try:
        while True:
            n_free = (executor.max_pending if max_pending is None else max_pending) - len(pending)
            pending += [(task, executor.submit(function, task)) for task in islice(source, max(0, n_free))]
            if not pending:
                return
            executor.wait([future for _, future in (pending[:1] if ordered else pending)])
            if not ordered:
                pending.sort(key=lambda entry: not entry[1].done())
            task, future = pending.pop(0)
            yield task, future
            executor.release(future)
    finally:
        with suppress(Exception):  # a cluster that is lost already
            executor.cancel([future for _, future in pending])


class LocalExecutor(TaskExecutor):
    """Tasks in this process: each runs when it is submitted."""

    max_pending = 1

    def submit(self, function: Callable[[Any], Any], task: Any) -> Any:
        """See `TaskExecutor`."""
        future = Future[Any]()
        try:
            future.set_result(function(task))
        except Exception as error:  # noqa: BLE001  (it is raised again where the result is taken)
            future.set_exception(error)
        return future


class ProcessExecutor(TaskExecutor):
    """Processes of this machine (loky); when one dies, all are replaced, and the tasks that they had are lost.

    Parameters
    ----------
    start_pool : callable
        Starts loky's executor; called again when a process has died.
    max_pending : int
    """

    def __init__(self, start_pool: Callable[[], ProcessPoolExecutor], max_pending: int) -> None:
        self.max_pending, self._start_pool, self.pool = max_pending, start_pool, start_pool()

    def submit(self, function: Callable[[Any], Any], task: Any) -> Any:
        """See `TaskExecutor`; the process ends with this one."""
        call = partial(_run_with_parent, os.getpid(), function)
        while True:
            try:
                return self.pool.submit(call, task)
            except BrokenProcessPool:  # a process has just died; this task was not handed out
                self.pool.shutdown(kill_workers=True)
                self.pool = self._start_pool()

    def get_result(self, future: Any) -> Any:
        """See `TaskExecutor`."""
        try:
            return future.result()
        except (BrokenProcessPool, ShutdownExecutorError) as error:
            raise LostTaskError(str(error)) from error


@contextmanager
def open_isolated_processes(jobs: int) -> Iterator[TaskExecutor]:
    """Processes of one thread each, which are killed at the end of the block."""
    executor = ProcessExecutor(partial(ProcessPoolExecutor, jobs, env=SINGLE_THREAD_ENV), jobs)
    try:
        yield executor
    finally:
        executor.pool.shutdown(kill_workers=True)


@cache
def get_child_executor() -> TaskExecutor:
    """A process beside this worker of a cluster, which runs tasks in a thread; it ends with the worker."""
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # noqa: SLF001  (may have children)
    return ProcessExecutor(partial(ProcessPoolExecutor, 1, env=SINGLE_THREAD_ENV), 1)


def _run_with_parent(parent_pid: int, function: Callable[[T], R], task: T) -> R:
    exit_with_parent(parent_pid)
    return function(task)


@cache
def exit_with_parent(parent_pid: int) -> None:
    """End this process, and the programs it has started, soon after `parent_pid` has ended; call it in every task.

    A run that is killed with -9 cannot tell its workers; they notice that their parent has changed.
    """
    if parent_pid != os.getpid():
        threading.Thread(target=_watch_parent, args=(parent_pid,), daemon=True).start()


def _watch_parent(parent_pid: int) -> None:
    never = threading.Event()
    while os.getppid() == parent_pid:
        never.wait(PARENT_POLL_INTERVAL_S)
    for program in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            program.kill()
    os._exit(1)
