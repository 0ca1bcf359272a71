"""The cluster on which tasks run: dask on this machine, a running dask cluster, or jobs of a SLURM queue.

Results do not depend on the cluster on which tasks run.
"""

import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from paretofit.core import InputError, join_lines
from paretofit.execution.cluster_settings import REQUIRED_PACKAGES, AnyClusterSettings, SlurmClusterSettings
from paretofit.execution.dask_executor import DaskExecutor, check_worker_threads, check_worker_versions
from paretofit.execution.slurm_jobs import JobExecutor, open_job_executor

log = logging.getLogger(__name__)

CLUSTER_TIMEOUT_S = 60.0  # longest time without an answer from the scheduler, or without workers
WALLTIME_MARGIN_S = 300  # time before the walltime at which a worker hands over its results and ends
_active_executors: list[DaskExecutor | JobExecutor] = []  # executors of nested `use_cluster` blocks; the last is in use


def get_active_executor(*, job_per_task: bool = False) -> DaskExecutor | JobExecutor | None:
    """Return the executor of the active cluster; None if there is none, and tasks run on this machine.

    Parameters
    ----------
    job_per_task : bool
        Whether each task may be a separate job; if not, an executor that submits a job for each task is not returned.
    """
    executor = _active_executors[-1] if _active_executors else None
    return executor if job_per_task or not isinstance(executor, JobExecutor) else None


def get_active_client() -> Any:
    """Return the client of the active dask cluster; None if there is no such cluster."""
    executor = get_active_executor()
    return executor.client if isinstance(executor, DaskExecutor) else None


@contextmanager
def use_cluster(settings: AnyClusterSettings | None, jobs: int, folder: Path | None = None) -> Iterator[None]:
    """Run tasks inside the `with` block on a cluster or, without settings, on processes of this machine.

    Parameters
    ----------
    settings : section 'cluster' of a study, optional
    jobs : int
        Number of workers of a local cluster, if its settings specify none.
    folder : Path, optional
        The run folder, in whose subfolder ``jobs`` the jobs store their files; by default the working directory.

    Raises
    ------
    InputError
        If a package or ``sbatch`` is missing, the cluster cannot be reached, has no workers or refuses the jobs, or a
        worker has more than one thread or another version of paretofit.
    """
    if settings is None:
        yield
        return
    _check_requirements(settings.name)
    directory = (folder or Path()).absolute()
    if settings.name == "executorlib":
        with open_job_executor(settings, directory / "jobs") as job_executor, _activate(job_executor):
            yield
        return
    for logger_name in ("distributed", "distributed.client"):  # every problem that matters also raises an error
        logging.getLogger(logger_name).setLevel(logging.CRITICAL)
    with _start_cluster(settings, jobs, directory) as cluster, _connect(settings, cluster) as client:
        _check_workers(client, settings)
        log.info("cluster: %s, %s", settings.name, client.dashboard_link)
        with _activate(DaskExecutor(client, None if settings.name == "slurm" else CLUSTER_TIMEOUT_S)):
            yield


def _check_requirements(name: str) -> None:
    """Raise `InputError` if a package or program that a cluster of this name requires is not installed."""
    extra_name = "executorlib" if name == "executorlib" else "dask"
    if any(importlib.util.find_spec(package) is None for package in REQUIRED_PACKAGES[name]):
        raise InputError(
            f"'cluster: {name}' requires {extra_name}; install it with: pip install 'paretofit[{extra_name}]'"
        )
    if name in {"slurm", "executorlib"} and shutil.which("sbatch") is None:
        raise InputError(
            f"'cluster: {name}' requires SLURM's sbatch, which was not found; run paretofit on a login node"
        )


@contextmanager
def _activate(executor: DaskExecutor | JobExecutor) -> Iterator[None]:
    """Use an executor inside the `with` block."""
    _active_executors.append(executor)
    try:
        yield
    finally:
        _active_executors.remove(executor)


@contextmanager
def _connect(settings: Any, cluster: Any) -> Iterator[Any]:
    """Yield a dask client of a cluster or address; raise `InputError` if the scheduler does not answer."""
    from distributed import Client  # noqa: PLC0415  (an extra)

    try:
        client = Client(cluster, timeout=CLUSTER_TIMEOUT_S)
    except Exception as error:
        if settings.name != "address":
            raise InputError(f"'cluster: {settings.name}' did not start ({join_lines(error)})") from error
        raise InputError(
            f"'cluster.scheduler': no dask scheduler answers at {settings.scheduler} ({join_lines(error)}); start one "
            "with 'dask scheduler', and workers with 'dask worker --nthreads 1'"
        ) from error
    try:
        yield client
    finally:
        with suppress(Exception):  # the cluster may be lost already
            client.close()


@contextmanager
def _start_cluster(settings: Any, jobs: int, folder: Path) -> Iterator[Any]:
    """Start a cluster for the duration of the `with` block; yield the cluster, or the address of a running cluster.

    `jobs` is the number of workers of a local cluster, if its settings specify none. Raises `InputError` if the cluster
    cannot be started.
    """
    if settings.name == "address":
        yield settings.scheduler
        return
    old_environment = dict(os.environ)
    try:
        cluster = (
            start_slurm_cluster(settings, folder)
            if settings.name == "slurm"
            else start_local_cluster(settings.workers or jobs)
        )
    except InputError:
        raise
    except Exception as error:  # dask may raise any error for an invalid setting
        raise InputError(f"'cluster: {settings.name}' cannot be started: {join_lines(error)}") from error
    # Environment variables that dask has set for its workers.
    changed_keys = {key for key, value in os.environ.items() if old_environment.get(key) != value}
    try:
        yield cluster
    finally:
        with suppress(Exception):  # the workers may have ended already
            cluster.close()
        for key in changed_keys:  # programs that this process starts later must not inherit them
            os.environ.pop(key, None)
        os.environ.update({key: old_environment[key] for key in changed_keys & set(old_environment)})


def start_local_cluster(n_workers: int) -> Any:
    """Start a dask cluster on this machine; its single-threaded workers end with this process and ignore Ctrl-C."""
    import distributed  # noqa: PLC0415  (an extra)

    with _ignore_sigint():
        return distributed.LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
            preload=[__name__],  # a worker imports this module and calls `dask_setup`
        )


def dask_setup(_worker: Any) -> None:
    """Silence dask's log in a local worker, because errors of tasks are returned; dask finds this function by name."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)


@contextmanager
def _ignore_sigint() -> Iterator[None]:
    """Ignore Ctrl-C inside the `with` block, so that processes that are started in the block ignore it, too.

    Outside the main thread, which alone may set signal handlers, this has no effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old_handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old_handler)


def start_slurm_cluster(settings: SlurmClusterSettings, folder: Path, *, submit: bool = True) -> Any:
    """Return a dask cluster whose workers run in SLURM jobs; submit these jobs only if `submit` is true.

    Workers end before the walltime, so that they can hand over their results. The logs of the jobs are written to the
    subfolder ``jobs`` of `folder`.

    Raises
    ------
    InputError
        If the queue would refuse the jobs.
    """
    from dask_jobqueue.slurm import SLURMCluster  # noqa: PLC0415  (an extra)

    # If the walltime is not much longer than the margin, workers run for half of it.
    lifetime_s = max(settings.walltime_s - WALLTIME_MARGIN_S, settings.walltime_s // 2)
    cluster: Any = SLURMCluster(
        **settings.model_dump(include={"queue", "account", "cores", "memory", "walltime", "interface"}),
        processes=settings.cores,
        job_extra_directives=settings.directives,
        job_script_prologue=settings.prologue,
        worker_extra_args=["--lifetime", f"{lifetime_s}s", "--lifetime-stagger", "60s"],
        log_directory=str(folder / "jobs"),
        scheduler_options={"dashboard_address": ":0"},
    )
    if submit:
        _check_job_script(str(cluster.job_script()))
        cluster.adapt(minimum_jobs=settings.max_jobs, maximum_jobs=settings.max_jobs)  # replaces jobs that end
    return cluster


def _check_job_script(script: str) -> None:
    """Raise `InputError` if the queue does not accept a job; dask would repeat a refused submission for ever."""
    command = [str(shutil.which("sbatch")), "--test-only"]
    process = subprocess.run(command, input=script, capture_output=True, text=True, check=False)  # noqa: S603  (sbatch)
    if process.returncode:
        reason = join_lines(process.stderr)
        raise InputError(f"the queue does not accept the jobs of the workers ({reason}); correct 'cluster'")


def _check_workers(client: Any, settings: Any) -> None:
    """Raise `InputError` if a worker has several threads.

    For a running cluster, also raise it if there are no workers or one has another version of paretofit.
    """
    threads_by_worker = client.nthreads()
    check_worker_threads(threads_by_worker)
    if settings.name == "address":
        if not threads_by_worker:
            raise InputError(
                f"'cluster.scheduler': the cluster at {settings.scheduler} has no workers; start some with "
                "'dask worker --nthreads 1'"
            )
        check_worker_versions(client, threads_by_worker)
