"""Executors of tasks: one interface for processes of this machine, workers of a cluster and jobs of a queue.

An executor resembles `concurrent.futures.Executor`, with additions for long runs: it limits the number of tasks that
are submitted at a time, raises a particular error for a task whose worker was lost, and can release a task after its
result has been stored.
"""

import multiprocessing
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED
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

# Environment variables that limit numerical libraries to one thread.
SINGLE_THREAD_ENV = {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "BLIS", "VECLIB", "NUMEXPR")
}
PARENT_POLL_INTERVAL_S = 2.0  # time between checks whether the parent process is alive


class LostTaskError(Exception):
    """Error of a task whose process, worker or job ended without a result."""


class TaskExecutor(ABC):
    """Interface of all executors; a future is one of `concurrent.futures`, or any object with ``done()``."""

    max_pending: int  # largest number of submitted tasks that are not finished; it may change during a run

    @abstractmethod
    def submit(self, function: Callable[[Any], Any], task: Any) -> Any:
        """Submit a task, and return its future."""

    def wait(self, futures: Sequence[Any]) -> None:
        """Wait until at least one of the futures is done; raise `ExecutionError` if no task can be finished."""
        wait_for_futures(futures, return_when=FIRST_COMPLETED)

    def get_result(self, future: Any) -> Any:
        """Return the result of a task that is done; raise the task's error, or `LostTaskError` if it was lost."""
        return future.result()

    def release(self, future: Any) -> None:  # noqa: B027  (most executors have nothing to do)
        """Forget a task whose result has been stored."""

    def cancel(self, futures: Sequence[Any]) -> None:
        """Cancel the tasks that have not been started."""
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
    """Submit tasks ahead of their use, and yield each task with its future once it is done.

    A task is released when the next one is requested. If the caller stops early, tasks that were not started are
    cancelled.

    joblib's own backend for dask is not used, because it counts the workers only at the start. If a queue has started
    one worker by then, joblib runs all tasks in this process; with two workers, it never submits more than four tasks.

    Parameters
    ----------
    executor : TaskExecutor
    function : callable
        Function of one task.
    tasks : iterable
        Consumed only as needed.
    ordered : bool
        Whether to keep the order of the tasks; otherwise, tasks are yielded as they finish.
    max_pending : int, optional
        Largest number of tasks that are submitted but not yet yielded; by default that of the executor.
    """
    task_iterator, pending_tasks = iter(tasks), list[tuple[T, Any]]()
    try:
        while True:
            n_free = (executor.max_pending if max_pending is None else max_pending) - len(pending_tasks)
            pending_tasks += [(task, executor.submit(function, task)) for task in islice(task_iterator, max(0, n_free))]
            if not pending_tasks:
                return
            executor.wait([future for _, future in (pending_tasks[:1] if ordered else pending_tasks)])
            if not ordered:
                pending_tasks.sort(key=lambda entry: not entry[1].done())  # stable: finished tasks first
            task, future = pending_tasks.pop(0)
            yield task, future
            executor.release(future)
    finally:
        with suppress(Exception):  # the cluster may be lost already
            executor.cancel([future for _, future in pending_tasks])


class ProcessExecutor(TaskExecutor):
    """Executor on processes of this machine (loky); if one of them dies, all are replaced, and their tasks are lost.

    Parameters
    ----------
    start_pool : callable
        Starts loky's executor; called again after a process has died.
    max_pending : int
        See `TaskExecutor`.

    Attributes
    ----------
    pool : ProcessPoolExecutor
        The executor of loky that is in use.
    """

    def __init__(self, start_pool: Callable[[], ProcessPoolExecutor], max_pending: int) -> None:
        self.max_pending, self._start_pool, self.pool = max_pending, start_pool, start_pool()

    def submit(self, function: Callable[[Any], Any], task: Any) -> Any:
        """See `TaskExecutor`; the processes end with this process."""
        call = partial(run_with_parent, os.getpid(), function)
        while True:
            try:
                return self.pool.submit(call, task)
            except BrokenProcessPool:  # a process has just died; this task was not submitted
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
    """Yield an executor on single-threaded processes; they are killed at the end of the `with` block."""
    executor = ProcessExecutor(partial(ProcessPoolExecutor, jobs, env=SINGLE_THREAD_ENV), jobs)
    try:
        yield executor
    finally:
        executor.pool.shutdown(kill_workers=True)


@cache
def get_child_executor() -> TaskExecutor:
    """Return an executor with one child process of this cluster worker, the same one in each call.

    A task that crashes ends the child, not the worker; the worker itself would run the task in one of its threads.
    """
    # dask's workers are daemonic processes, which Python does not allow to start children.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # noqa: SLF001
    return ProcessExecutor(partial(ProcessPoolExecutor, 1, env=SINGLE_THREAD_ENV), 1)


def run_with_parent(parent_pid: int, function: Callable[[T], R], task: T) -> R:
    """Run a task in a process that ends with its parent."""
    exit_with_parent(parent_pid)
    return function(task)


@cache
def exit_with_parent(parent_pid: int) -> None:
    """End this process, and the programs that it has started, soon after its parent `parent_pid` has ended.

    A run that is killed with -9 cannot notify its workers. A thread of each worker therefore checks whether the parent
    has changed. Every task may call this function, because only the first call in a process starts the thread; in the
    process `parent_pid` itself, it does nothing.
    """
    if parent_pid != os.getpid():
        threading.Thread(target=_watch_parent, args=(parent_pid,), daemon=True).start()


def _watch_parent(parent_pid: int) -> None:
    """Wait until the parent process changes, then kill the children of this process and end it."""
    while os.getppid() == parent_pid:
        time.sleep(PARENT_POLL_INTERVAL_S)
    for program in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            program.kill()
    os._exit(1)  # `sys.exit` would end only this thread
