"""Tasks in processes of one thread each; a process that dies takes one task with it, not the run."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import cache, partial
from typing import TypeVar

from joblib.externals.loky.process_executor import ProcessPoolExecutor

from paretofit.execution.cluster import get_active_client, get_job_pool
from paretofit.execution.parallel import exit_with_parent, submit_to_cluster, translate_errors, wait_for_result

SINGLE_THREAD_ENV = {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "BLIS", "VECLIB", "NUMEXPR")
}

ATTEMPTS = 2  # of a task whose process dies beside a worker

T = TypeVar("T")
R = TypeVar("R")


def run_tasks(
    function: Callable[[T], R],
    tasks: Iterable[T],
    jobs: int,
    on_crash: Callable[[T], R],
    *,
    job_per_task: bool = False,
) -> Generator[tuple[T, R], None, None]:
    """Yield each task with its result, in the order in which they finish.

    What was running when a process died (out of memory, a crash of compiled code) is tried again, one at a
    time; a task that dies alone gets the result ``died(task)``.

    Parameters
    ----------
    function : callable
        Of one task; runs in another process. What it raises ends the rest.
    tasks : iterable
        In the order in which they are started.
    jobs : int
        Processes.
    on_crash : callable
        The result of a task whose process died.
    job_per_task : bool
        Each is worth a job of a queue, if the study's cluster is of that kind.

    Notes
    -----
    On a cluster its workers take the tasks; one whose workers died several times gets ``died(task)``. Where a cluster
    gives each a job of its own, `jobs` does not matter.
    """
    if job_per_task and (pool := get_job_pool()) is not None:
        yield from pool.run(function, tasks, on_crash)
        return
    if get_active_client() is not None:
        yield from _remote(function, tasks, on_crash)
        return
    function = partial(_followed, os.getpid(), function)
    waiting, suspects = deque(tasks), deque[T]()
    while waiting or suspects:
        source, width = (suspects, 1) if suspects else (waiting, jobs)
        lost = yield from _drain(function, source, min(width, len(source)))
        if len(lost) == 1 and (source is suspects or jobs == 1):
            yield lost[0], on_crash(lost[0])
        else:
            suspects.extend(lost)


def _followed(parent: int, function: Callable[[T], R], task: T) -> R:
    """One task in a process that ends with its parent."""
    exit_with_parent(parent)
    return function(task)


def _remote(function: Callable[[T], R], tasks: Iterable[T], died: Callable[[T], R]) -> Iterator[tuple[T, R]]:
    """On the workers of the active cluster."""
    from distributed import KilledWorker  # noqa: PLC0415  (an extra)

    with translate_errors(), closing(submit_to_cluster(partial(_in_process, function, died), tasks)) as futures:
        for task, future in futures:
            try:
                result = wait_for_result(future)
            except KilledWorker:
                result = died(task)
            yield task, result


def _in_process(function: Callable[[T], R], died: Callable[[T], R], task: T) -> R:
    """One task in a process of its own, beside a worker of the cluster, which runs tasks in a thread."""
    for _ in range(ATTEMPTS):
        try:
            result: R = _beside().submit(_followed, os.getpid(), function, task).result()
        except BrokenProcessPool:
            _beside.cache_clear()
        else:
            return result
    return died(task)


@cache
def _beside() -> ProcessPoolExecutor:
    """The process beside this worker; it ends with it."""
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # noqa: SLF001  (may have children)
    return ProcessPoolExecutor(1, env=SINGLE_THREAD_ENV)


def _drain(function: Callable[[T], R], source: deque[T], width: int) -> Generator[tuple[T, R], None, list[T]]:
    """Work off `source`; return what was running when a process died."""
    executor = ProcessPoolExecutor(width, env=SINGLE_THREAD_ENV)
    running: dict[Future[R], T] = {}
    try:
        while source or running:
            while source and len(running) < width:
                running[executor.submit(function, source[0])] = source[0]  # raises where a process has just died
                source.popleft()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                result = future.result()
                yield running.pop(future), result
    except BrokenProcessPool:
        whole = [future for future in running if future.done() and future.exception() is None]
        for future in whole:
            yield running.pop(future), future.result()
    finally:
        executor.shutdown(kill_workers=True)
    return list(running.values())
