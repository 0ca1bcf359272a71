"""Execution of tasks on a dask cluster, whose workers may start and end during a run."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from paretofit import __version__
from paretofit.core import ExecutionError, InputError
from paretofit.execution.executors import LostTaskError, TaskExecutor

INITIAL_TASKS = 8  # number of tasks that are submitted before there is a worker
WORKER_POLL_INTERVAL_S = 10.0  # time between checks whether there are workers
SCHEDULER_TIMEOUT_S = 300.0  # longest time without an answer from the scheduler
VERSION_CHECK_TIMEOUT_S = 10.0  # longest time to wait for the versions of all workers


class DaskExecutor(TaskExecutor):
    """Executor on the workers of a cluster.

    Parameters
    ----------
    client : distributed.Client
    worker_timeout_s : float or None
        Longest time without workers; None means no limit, for workers whose jobs may wait in a queue.
    """

    def __init__(self, client: Any, worker_timeout_s: float | None) -> None:
        self.client, self._worker_timeout_s = client, worker_timeout_s

    @property
    def max_pending(self) -> int:  # type: ignore[override]  # workers start and end
        """Two tasks per worker, or `INITIAL_TASKS` without workers.

        Raises `InputError` if a worker has several threads.
        """
        try:
            threads_by_worker = self._get_threads_by_worker()
        except OSError:  # the scheduler has ended; the tasks report this error
            return INITIAL_TASKS
        check_worker_threads(threads_by_worker)
        return 2 * len(threads_by_worker) or INITIAL_TASKS

    def submit(self, function: Callable[[Any], Any], task: Any) -> Any:
        """See `TaskExecutor`."""
        return self.client.submit(function, task, pure=False)  # otherwise, dask would merge equal tasks

    def wait(self, futures: Sequence[Any]) -> None:
        """See `TaskExecutor`; raise `ExecutionError` if there are no workers for longer than the timeout."""
        from distributed import wait  # noqa: PLC0415  (an extra)

        last_worker_time = time.monotonic()
        while True:
            with suppress(TimeoutError):
                wait(list(futures), timeout=WORKER_POLL_INTERVAL_S, return_when="FIRST_COMPLETED")
                return
            # Without a connection to the scheduler, the workers are not known.
            if self.client.status != "running" or self._get_threads_by_worker():
                last_worker_time = time.monotonic()
            elif self._worker_timeout_s is not None and time.monotonic() - last_worker_time > self._worker_timeout_s:
                raise ExecutionError(
                    f"the cluster has had no workers for {self._worker_timeout_s:.0f} s; start some with 'dask worker "
                    "--nthreads 1', then run the same command again to resume"
                )

    def get_result(self, future: Any) -> Any:
        """See `TaskExecutor`; if the worker that stores the result has ended, another worker computes it again."""
        timeout_s = WORKER_POLL_INTERVAL_S
        while True:
            self.wait([future])
            try:
                return future.result(timeout=timeout_s)
            except TimeoutError:
                # Without a timeout, dask would wait for ever if there are no workers. A large result takes longer.
                timeout_s *= 2
            except Exception as error:
                if type(error).__name__ == "KilledWorker":
                    raise LostTaskError(str(error)) from error
                raise

    def cancel(self, futures: Sequence[Any]) -> None:
        """See `TaskExecutor`."""
        self.client.cancel(list(futures))

    def _get_threads_by_worker(self) -> dict[str, int]:
        """Return the number of threads of each worker, by its address; raise `ExecutionError` without an answer."""
        try:
            return dict(self.client.sync(self.client.scheduler.ncores, callback_timeout=SCHEDULER_TIMEOUT_S))
        except TimeoutError as error:
            raise ExecutionError(
                f"the scheduler of the cluster has not answered for {SCHEDULER_TIMEOUT_S:.0f} s; start the cluster "
                "again, then run the same command again to resume"
            ) from error


def check_worker_threads(threads_by_worker: dict[str, int]) -> None:
    """Raise `InputError` if a worker has more than one thread; LAMMPS and DFT codes cannot run in such a worker.

    The number of threads of each worker is given by its address.
    """
    for address, n_threads in threads_by_worker.items():
        if n_threads > 1:
            raise InputError(
                f"'cluster': the worker {address} has {n_threads} threads; start workers with --nthreads 1, and as "
                "many as there are cores with --nworkers"
            )


def check_worker_versions(client: Any, addresses: Iterable[str]) -> None:
    """Raise `InputError` if a worker has no or another version of paretofit; busy workers are not checked.

    A worker is busy if it does not answer within `VERSION_CHECK_TIMEOUT_S`.
    """
    from distributed import wait  # noqa: PLC0415  (an extra)

    futures = {address: client.submit(version, "paretofit", workers=[address], pure=False) for address in addresses}
    with suppress(TimeoutError):
        wait(list(futures.values()), timeout=VERSION_CHECK_TIMEOUT_S)
    for address, future in futures.items():
        if future.status == "error" or (future.status == "finished" and future.result() != __version__):
            package = f"paretofit {future.result()}" if future.status == "finished" else "no paretofit"
            raise InputError(
                f"'cluster': the worker {address} has {package}, but this is {__version__}; start workers in this "
                "environment"
            )
