"""Parallel execution of tasks on processes of this machine or on the active cluster, with the same results."""

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any

from joblib import Parallel, delayed

from paretofit.core import ExecutionError, join_lines
from paretofit.execution.cluster import get_active_executor
from paretofit.execution.dask_executor import DaskExecutor
from paretofit.execution.executors import (
    LostTaskError,
    R,
    T,
    TaskExecutor,
    get_child_executor,
    open_isolated_processes,
    run_ahead,
    run_with_parent,
)

MAX_ATTEMPTS = 2  # number of attempts at a task on a cluster worker, if the child process that computes it dies


def map_in_parallel(
    function: Callable[[T], R], tasks: Iterable[T], jobs: int, *, ordered: bool = True, pre_dispatch: int | None = None
) -> Iterator[R]:
    """Yield ``function(task)`` for each task, in the order of the tasks or, if not `ordered`, as tasks finish.

    Parameters
    ----------
    function : callable
        Runs in another process if `jobs` is above one or a cluster is active.
    tasks : iterable
        Consumed only as needed.
    jobs : int
        Number of processes; an active cluster uses all of its workers instead.
    ordered : bool
        Whether results are in the order of the tasks.
    pre_dispatch : int, optional
        Largest number of tasks that are started before their results are yielded, to limit the memory of the results;
        by default two for each process or worker.

    Raises
    ------
    Exception
        The error of a task, after which no more tasks are started.
    ExecutionError
        If a process was killed; on a cluster, only if this happened repeatedly to the same task, or if the scheduler
        has ended.
    """
    executor = get_active_executor()
    if executor:
        outcomes = _map_on_executor(executor, function, tasks, ordered, pre_dispatch)
    else:
        outcomes = _map_on_processes(function, tasks, jobs, ordered, pre_dispatch)
    with _translate_errors(), closing(outcomes):
        for error, result in outcomes:
            if error is not None:
                raise error
            yield result


def _map_on_executor(
    executor: TaskExecutor, function: Callable[[T], R], tasks: Iterable[T], ordered: bool, pre_dispatch: int | None
) -> Generator[tuple[Exception | None, Any], None, None]:
    """Yield the outcome of each task, as `_capture_error` returns it, from the active cluster."""
    call = partial(_capture_error, function)
    futures = run_ahead(executor, call, tasks, ordered=ordered, max_pending=pre_dispatch)
    with closing(futures):
        for _, future in futures:
            yield executor.get_result(future)


def _map_on_processes(
    function: Callable[[T], R], tasks: Iterable[T], jobs: int, ordered: bool, pre_dispatch: int | None
) -> Generator[tuple[Exception | None, Any], None, None]:
    """Yield the outcome of each task from processes of this machine, which joblib reuses in later calls."""
    calls = (delayed(run_with_parent)(os.getpid(), partial(_capture_error, function), task) for task in tasks)
    run_calls = Parallel(
        n_jobs=jobs,
        return_as="generator" if ordered else "generator_unordered",
        pre_dispatch="2*n_jobs" if pre_dispatch is None else pre_dispatch,
    )
    yield from run_calls(calls)


def run_tasks(
    function: Callable[[T], R], tasks: Iterable[T], jobs: int, on_crash: Callable[[T], R], *, job_per_task: bool = False
) -> Generator[tuple[T, R], None, None]:
    """Yield each task with its result as tasks finish, from single-threaded processes; a crash affects only one task.

    Tasks that were running when a process died (out of memory, a crash of compiled code) are tried again at the end,
    one at a time; a task whose process dies again gets the result ``on_crash(task)``. With one process, a task is not
    tried again.

    Parameters
    ----------
    function : callable
        Function of one task, which runs in another process. An error that it raises is raised here, and the tasks that
        were not started are cancelled.
    tasks : iterable
        Tasks in the order in which they are started.
    jobs : int
        Number of processes.
    on_crash : callable
        Returns the result of a task whose process died.
    job_per_task : bool
        Whether each task may be a separate job of a queue, if the active cluster runs such jobs.

    Raises
    ------
    ExecutionError
        If the cluster is lost or cannot load the tasks.

    Notes
    -----
    On a cluster, `jobs` has no effect. A worker of a dask cluster tries a task up to `MAX_ATTEMPTS` times if its
    process dies. A task that is a separate job is not tried again.
    """
    cluster_executor = get_active_executor(job_per_task=job_per_task)
    if cluster_executor is not None:
        has_workers = isinstance(cluster_executor, DaskExecutor)
        call = partial(_run_in_child_process, function, on_crash) if has_workers else function
        with _translate_errors():
            yield from _yield_results(cluster_executor, call, tasks, on_crash)
        return
    lost_tasks: list[T] = []  # tasks to try again; with one process, the task that is lost is the one that crashed
    with open_isolated_processes(jobs) as executor:
        yield from _yield_results(executor, function, tasks, on_crash, None if jobs == 1 else lost_tasks)
    if lost_tasks:
        with open_isolated_processes(1) as executor:
            yield from _yield_results(executor, function, lost_tasks, on_crash)


def _yield_results(
    executor: TaskExecutor,
    function: Callable[[T], R],
    tasks: Iterable[T],
    on_crash: Callable[[T], R],
    lost_tasks: list[T] | None = None,
) -> Generator[tuple[T, R], None, None]:
    """Yield each task with its result as tasks finish.

    A task whose process died is appended to `lost_tasks` or, without this list, yielded with ``on_crash(task)``.
    """
    with closing(run_ahead(executor, function, tasks)) as futures:
        for task, future in futures:
            try:
                result = executor.get_result(future)
            except LostTaskError:
                if lost_tasks is not None:
                    lost_tasks.append(task)
                    continue
                result = on_crash(task)
            yield task, result


def _capture_error(function: Callable[[Any], Any], task: Any) -> tuple[Exception | None, Any]:
    """Return ``(None, function(task))``, or ``(error, None)`` if it fails; dask loses the message of a raised error."""
    try:
        return None, function(task)
    except Exception as error:  # noqa: BLE001  (`map_in_parallel` raises it)
        return error, None


def _run_in_child_process(function: Callable[[T], R], on_crash: Callable[[T], R], task: T) -> R:
    """Run a task in a child process of a cluster worker, so that a crash does not end the worker.

    After `MAX_ATTEMPTS` crashes, return ``on_crash(task)``.
    """
    executor = get_child_executor()
    for _ in range(MAX_ATTEMPTS):
        with suppress(LostTaskError):
            result: R = executor.get_result(executor.submit(function, task))
            return result
    return on_crash(task)


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise `ExecutionError` with advice if a process was killed, or a cluster is lost or cannot load the tasks."""
    try:
        yield
    except (LostTaskError, BrokenProcessPool) as error:
        raise ExecutionError(
            "a process was killed or crashed during a task (if memory is short, use fewer --jobs, or give the workers "
            "of a cluster more memory); finished work is kept; run the same command again to resume"
        ) from error
    except Exception as error:
        if type(error).__module__.startswith("distributed"):  # an optional package, not imported here
            # dask's message names the reason after this phrase, or consists of the reason.
            reason = join_lines(error).split("cancelled for reason: ")[-1].rstrip(".")
            raise ExecutionError(
                f"the cluster is lost ({reason}); start it again, then run the same command again to resume"
            ) from error
        if isinstance(error, RuntimeError) and "deserialization" in str(error):  # raised by dask
            reason = join_lines(error.__cause__ or error)
            raise ExecutionError(
                f"the cluster's workers cannot load the tasks ({reason}); start them in this environment"
            ) from error
        raise
