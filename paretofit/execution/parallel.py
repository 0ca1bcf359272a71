"""Tasks in parallel, on processes of this machine or on the active cluster; results do not depend on which."""

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from joblib import Parallel, delayed

from paretofit.core import ExecutionError, one_line
from paretofit.execution.cluster import get_active_executor
from paretofit.execution.dask_executor import DaskExecutor
from paretofit.execution.executors import (
    LostTaskError,
    TaskExecutor,
    exit_with_parent,
    get_child_executor,
    open_isolated_processes,
    run_ahead,
)

T = TypeVar("T")
R = TypeVar("R")

MAX_ATTEMPTS = 2  # at a task whose process dies beside a worker of a cluster


def parallel_map(
    function: Callable[[T], R], tasks: Iterable[T], jobs: int, *, ordered: bool = True, pre_dispatch: int | None = None
) -> Iterator[R]:
    """Yield a function of each task, in the order of the tasks or, if not `ordered`, as they finish.

    Parameters
    ----------
    function : callable
        Runs in another process if `jobs` is above one or a cluster is active.
    tasks : iterable
        Consumed only as needed.
    jobs : int
        Processes; a cluster uses all of its workers instead.
    ordered : bool
    pre_dispatch : int, optional
        Tasks that are started before their turn, so that results do not pile up; by default two for each process.

    Raises
    ------
    Exception
        What the function raised, after which no more tasks are started.
    ExecutionError
        If a process was killed; on a cluster, if that happened to the same task repeatedly, or its scheduler ended.
    """
    active = get_active_executor()
    if active:
        outcomes = _map_on_executor(active, function, tasks, ordered, pre_dispatch)
    else:
        outcomes = _map_on_processes(function, tasks, jobs, ordered, pre_dispatch)
    with _translate_errors(), closing(outcomes):
        for error, value in outcomes:
            if error is not None:
                raise error
            yield value


def _map_on_executor(
    executor: TaskExecutor, function: Callable[[T], R], tasks: Iterable[T], ordered: bool, pre_dispatch: int | None
) -> Generator[tuple[Exception | None, Any], None, None]:
    """Yield the outcomes of tasks on the active cluster."""
    futures = run_ahead(executor, partial(_catch, function), tasks, ordered=ordered, max_pending=pre_dispatch)
    with closing(futures):
        for _, future in futures:
            yield executor.get_result(future)


def _map_on_processes(
    function: Callable[[T], R], tasks: Iterable[T], jobs: int, ordered: bool, pre_dispatch: int | None
) -> Generator[tuple[Exception | None, Any], None, None]:
    """Yield the outcomes of tasks on processes of this machine, which joblib keeps for later calls."""
    calls = (delayed(_catch_in_process)(os.getpid(), function, task) for task in tasks)
    parallel = Parallel(
        n_jobs=jobs,
        return_as="generator" if ordered else "generator_unordered",
        pre_dispatch="2*n_jobs" if pre_dispatch is None else pre_dispatch,
    )
    yield from parallel(calls)


def _catch_in_process(parent_pid: int, function: Callable[[Any], Any], task: Any) -> tuple[Exception | None, Any]:
    """Run a task in a process that ends with its parent; return the exception instead of raising it."""
    exit_with_parent(parent_pid)
    return _catch(function, task)


def run_tasks(
    function: Callable[[T], R], tasks: Iterable[T], jobs: int, on_crash: Callable[[T], R], *, job_per_task: bool = False
) -> Generator[tuple[T, R], None, None]:
    """Yield each task with its result as they finish, from processes of one thread each; a crash costs one task only.

    Tasks that were running when a process died (out of memory, a crash of compiled code) are tried again at the end,
    one at a time; a task that dies alone gets the result ``on_crash(task)``.

    Parameters
    ----------
    function : callable
        Function of one task; runs in another process. What it raises ends the rest.
    tasks : iterable
        In the order in which they are started.
    jobs : int
        Processes.
    on_crash : callable
        Returns the result of a task whose process died.
    job_per_task : bool
        Whether each task is worth a job of a queue, if the active cluster is of that kind.

    Notes
    -----
    On a cluster its workers take the tasks; one whose workers died several times gets ``on_crash(task)``. If a cluster
    gives each task a job of its own, `jobs` does not matter.
    """
    active = get_active_executor(job_per_task=job_per_task)
    if active is not None:
        beside_worker = isinstance(active, DaskExecutor)
        call = partial(_run_beside_worker, function, on_crash) if beside_worker else function
        with _translate_errors():
            yield from _collect(active, call, tasks, on_crash)
        return
    lost: list[T] = []
    with open_isolated_processes(jobs) as executor:
        yield from _collect(executor, function, tasks, on_crash, None if jobs == 1 else lost)
    if lost:
        with open_isolated_processes(1) as executor:
            yield from _collect(executor, function, lost, on_crash)


def _collect(
    executor: TaskExecutor,
    function: Callable[[T], R],
    tasks: Iterable[T],
    on_crash: Callable[[T], R],
    lost: list[T] | None = None,
) -> Generator[tuple[T, R], None, None]:
    """Yield tasks with their results; tasks whose process died are added to `lost`, or get the result of `on_crash`."""
    with closing(run_ahead(executor, function, tasks)) as futures:
        for task, future in futures:
            try:
                result = executor.get_result(future)
            except LostTaskError:
                if lost is not None:
                    lost.append(task)
                    continue
                result = on_crash(task)
            yield task, result


def _catch(function: Callable[[Any], Any], task: Any) -> tuple[Exception | None, Any]:
    """Return the exception instead of raising it, because dask would lose its message."""
    try:
        return None, function(task)
    except Exception as error:  # noqa: BLE001  (it is raised where the results are taken)
        return error, None


def _run_beside_worker(function: Callable[[T], R], on_crash: Callable[[T], R], task: T) -> R:
    """Run a task in a process of its own, beside a worker of the cluster."""
    executor = get_child_executor()
    for _ in range(MAX_ATTEMPTS):
        with suppress(LostTaskError):
            result: R = executor.get_result(executor.submit(function, task))
            return result
    return on_crash(task)


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Explain that a process was killed or a cluster is lost; other errors pass."""
    try:
        yield
    except (LostTaskError, BrokenProcessPool) as error:
        raise ExecutionError(
            "a process that had a task was killed, or crashed (memory may be short: use fewer --jobs, or give the "
            "workers of a cluster more); finished work is kept, and the same command resumes"
        ) from error
    except Exception as error:
        if type(error).__module__.startswith("distributed"):  # an extra, so that its classes cannot be named
            reason = one_line(error).split("cancelled for reason: ")[-1].rstrip(".")
            raise ExecutionError(
                f"the cluster is lost ({reason}); start it again, then repeat the command: it resumes"
            ) from error
        if isinstance(error, RuntimeError) and "deserialization" in str(error):
            reason = one_line(error.__cause__ or error)
            raise ExecutionError(
                f"the cluster's workers cannot load the tasks ({reason}); start them in this environment"
            ) from error
        raise
