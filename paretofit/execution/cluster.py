"""Work on the processes of a dask cluster: of this machine, of one that runs already, or of jobs of a SLURM queue.

Whatever the cluster, tasks are the same and so are their results: it is a place to run them, and nothing else.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import signal
import subprocess
import threading
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from paretofit import __version__
from paretofit.core import InputError, StrictSettings, one_line
from paretofit.execution.slurm_jobs import JobPool, open_job_pool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

log = logging.getLogger(__name__)

Count = Annotated[int, Field(ge=1, strict=True)]
CLUSTER_TIMEOUT_S = 60.0  # seconds that a scheduler may take to answer, or be without workers
ANSWER = 10.0  # seconds for which workers are asked for their versions
LAST_PORT = 65535
SPARE = 300  # seconds before the walltime at which a worker hands over what it has, and ends
NEEDED = {
    "local": ("distributed",),
    "address": ("distributed",),
    "slurm": ("distributed", "dask_jobqueue"),
    "executorlib": ("executorlib", "pysqa"),
}
_active: list[tuple[Any, float | None]] = []  # clients and their patience, the last of which are in use
_jobs: list[JobPool] = []  # the same of what takes single labels


class LocalClusterSettings(StrictSettings):
    """dask on this machine."""

    name: Literal["local"] = Field("local", description="processes of this machine")
    workers: Count | None = Field(None, description="processes of one thread; by default those of --jobs")


class RunningClusterSettings(StrictSettings):
    """A dask cluster that somebody has started."""

    name: Literal["address"] = Field("address", description="a scheduler that runs already")
    scheduler: str = Field(
        description="its address, such as tcp://10.0.0.1:8786; workers have one thread each, and see the same folders"
    )

    @field_validator("scheduler")
    @classmethod
    def _address(cls, value: str) -> str:
        found = re.fullmatch(r"(tcp|tls)://[^\s/]+:(\d{1,5})", value)
        if found is None or int(found[2]) > LAST_PORT:
            raise ValueError("must be an address such as tcp://10.0.0.1:8786")
        return value


class SlurmJobSettings(StrictSettings):
    """What a SLURM queue is asked for."""

    queue: str | None = Field(None, description="partition; by default the cluster's")
    account: str | None = Field(None, description="what the time is charged to")
    max_jobs: Count = Field(1, description="jobs at a time")
    memory: str = Field("4GB", description="of each job")
    directives: list[str] = Field([], description="more lines for the job's head, such as '--constraint=cpu'")
    prologue: list[str] = Field([], description="lines of shell before the work, such as 'module load ...'")
    walltime: str = Field("01:00:00", description="of each job, HH:MM:SS")

    @field_validator("walltime", mode="before")
    @classmethod
    def _clock(cls, value: Any) -> Any:
        if not isinstance(value, str) or not re.fullmatch(r"\d{1,3}:[0-5]\d:[0-5]\d", value):
            raise ValueError("must be hours, minutes and seconds, in quotes, such as '12:00:00'")
        if not value.strip("0:"):
            raise ValueError("must be longer than nothing")
        return value

    @field_validator("memory")
    @classmethod
    def _bytes(cls, value: str) -> str:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*[KMGT](i?B)?", value, re.IGNORECASE)
        if found is None or not float(found[1]):
            raise ValueError("must be a number above 0 with its unit, such as 16GB")
        return value

    @property
    def walltime_s(self) -> int:
        """The walltime."""
        hours, minutes, seconds = (int(one) for one in self.walltime.split(":"))
        return 3600 * hours + 60 * minutes + seconds


class SlurmClusterSettings(SlurmJobSettings):
    """dask workers in jobs of a SLURM queue (dask-jobqueue); run paretofit where sbatch is, in a session that lasts."""

    name: Literal["slurm"] = Field("slurm", description="jobs that are submitted for the workers")
    cores: Count = Field(1, description="of each job: as many workers of one thread")
    walltime: str = Field("01:00:00", description="of each job, HH:MM:SS; its workers end five minutes earlier")
    interface: str | None = Field(None, description="network interface, such as ib0")


class LabelJobSettings(SlurmJobSettings):
    """Each label a job of its own (executorlib), for DFT codes that run on many cores by MPI; the rest runs here."""

    name: Literal["executorlib"] = Field("executorlib", description="a job for each label")
    cores: Count = Field(1, description="of each job, on which the engine's command starts MPI: mpirun -n 16 vasp_std")


def _expand_cluster_name(value: Any) -> Any:
    """A name alone is a cluster with its defaults."""
    if value is not None and not isinstance(value, str | dict | StrictSettings):
        raise ValueError(f"must be one of {', '.join(NEEDED)}, or a section with that as its name")
    return {"name": value} if isinstance(value, str) else value


ClusterSettings = Annotated[
    LocalClusterSettings | RunningClusterSettings | SlurmClusterSettings | LabelJobSettings,
    Field(discriminator="name"),
    BeforeValidator(_expand_cluster_name),
]


def get_job_pool() -> JobPool | None:
    """What takes single labels as jobs; None where they are tasks like others."""
    return _jobs[-1] if _jobs else None


def get_active_client() -> Any:
    """The dask client whose cluster takes the tasks; None where this machine's processes do."""
    return _active[-1][0] if _active else None


def get_worker_timeout() -> float | None:
    """Seconds for which the active cluster may have no workers; None where a queue may take its time."""
    return _active[-1][1] if _active else None


@contextmanager
def use_cluster(
    settings: LocalClusterSettings | RunningClusterSettings | SlurmClusterSettings | LabelJobSettings | None,
    jobs: int,
    folder: Path | None = None,
) -> Iterator[None]:
    """Let the tasks of the block run on a cluster; without settings on processes of this machine, as ever.

    Parameters
    ----------
    settings : section 'cluster' of a study, optional
    jobs : int
        Workers of a local cluster that does not say how many.
    folder : Path, optional
        The run folder, where jobs have their files; by default the working folder.

    Raises
    ------
    InputError
        If what it needs is not installed, or the cluster cannot be reached or has workers of several threads.
    """
    if settings is None:
        yield
        return
    extra = "executorlib" if settings.name == "executorlib" else "dask"
    if any(importlib.util.find_spec(one) is None for one in NEEDED[settings.name]):
        raise InputError(f"'cluster: {settings.name}' needs {extra}; install it with: pip install 'paretofit[{extra}]'")
    if settings.name in {"slurm", "executorlib"} and shutil.which("sbatch") is None:
        raise InputError(
            f"'cluster: {settings.name}' needs SLURM's sbatch, which is not here; run paretofit on a login node"
        )
    if settings.name == "executorlib":
        with label_jobs(settings, (folder or Path()).absolute() / "jobs") as made:
            _jobs.append(made)
            try:
                yield
            finally:
                _jobs.remove(made)
        return
    import distributed  # noqa: PLC0415  (an extra)

    for name in ("distributed", "distributed.client"):  # what matters of it is said in a sentence
        logging.getLogger(name).setLevel(logging.CRITICAL)
    place = (folder or Path()).absolute()
    with _cluster(settings, jobs, place) as where, _client(distributed, settings, where) as client:
        _check_workers(client, settings)
        log.info("cluster: %s, %s", settings.name, client.dashboard_link)
        _active.append((client, None if settings.name == "slurm" else CLUSTER_TIMEOUT_S))
        try:
            yield
        finally:
            _active.pop()


@contextmanager
def _client(distributed: Any, settings: Any, where: Any) -> Iterator[Any]:
    try:
        client = distributed.Client(where, timeout=CLUSTER_TIMEOUT_S)
    except Exception as error:
        if settings.name != "address":
            raise InputError(f"'cluster: {settings.name}' did not start ({one_line(error)})") from error
        raise InputError(
            f"'cluster.scheduler': no dask scheduler answers at {settings.scheduler} ({one_line(error)}); start one "
            "with 'dask scheduler', and workers with 'dask worker --nthreads 1'"
        ) from error
    try:
        yield client
    finally:
        with suppress(Exception):  # a cluster that is lost already
            client.close()


@contextmanager
def _cluster(settings: Any, jobs: int, folder: Path) -> Iterator[Any]:
    """What a client connects to, for as long as it is needed."""
    if settings.name == "address":
        yield settings.scheduler
        return
    before = dict(os.environ)
    try:
        made = (
            start_slurm_cluster(settings, folder)
            if settings.name == "slurm"
            else local_cluster(settings.workers or jobs)
        )
    except InputError:
        raise
    except Exception as error:  # whatever dask makes of a setting
        raise InputError(f"'cluster: {settings.name}' cannot be started: {one_line(error)}") from error
    own = {key for key, value in os.environ.items() if before.get(key) != value}  # dask's, for its workers
    try:
        yield made
    finally:
        with suppress(Exception):  # workers that are gone already
            made.close()
        for key in own:  # it is not for what this process starts next
            os.environ.pop(key, None)
        os.environ.update({key: before[key] for key in own & set(before)})


def local_cluster(workers: int) -> Any:
    """Processes of one thread on this machine, which a Ctrl-C does not reach: the process that has them ends them."""
    import distributed  # noqa: PLC0415  (an extra)

    with _deaf():
        return distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
            preload=[__name__],
        )


def dask_setup(_worker: Any) -> None:
    """Called by dask in each worker of `local_cluster`: its words stay there, for what matters is in the results."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that start in the block ignore Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def start_slurm_cluster(settings: SlurmClusterSettings, folder: Path, *, submit: bool = True) -> Any:
    """Jobs whose workers end by themselves before the walltime, so that what they have is handed over.

    With `submit` false none is submitted yet.

    Raises
    ------
    InputError
        If the queue would refuse them.
    """
    from dask_jobqueue.slurm import SLURMCluster  # noqa: PLC0415  (an extra)

    lifetime = max(settings.walltime_s - SPARE, settings.walltime_s // 2)
    cluster: Any = SLURMCluster(
        queue=settings.queue,
        account=settings.account,
        cores=settings.cores,
        processes=settings.cores,
        memory=settings.memory,
        walltime=settings.walltime,
        interface=settings.interface,
        job_extra_directives=settings.directives,
        job_script_prologue=settings.prologue,
        worker_extra_args=["--lifetime", f"{lifetime}s", "--lifetime-stagger", "60s"],
        log_directory=str(folder / "jobs"),
        scheduler_options={"dashboard_address": ":0"},
    )
    if submit:
        _try_job(str(cluster.job_script()))
        cluster.adapt(
            minimum_jobs=settings.max_jobs, maximum_jobs=settings.max_jobs
        )  # a job that ends is submitted again
    return cluster


def _try_job(script: str) -> None:
    """Ask the queue whether it would take a job; dask would try for ever."""
    command = [str(shutil.which("sbatch")), "--test-only"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise InputError(f"the queue does not take such a job ({one_line(done.stderr)}); look at 'cluster'")


@contextmanager
def label_jobs(settings: LabelJobSettings, folder: Path) -> Iterator[JobPool]:
    """Jobs as they are asked for, with their files in a folder."""
    head = [f"--ntasks={settings.cores}", f"--time={settings.walltime}", f"--mem={settings.memory}"]
    head += [f"--partition={settings.queue}"] if settings.queue else []
    head += [f"--account={settings.account}"] if settings.account else []
    with open_job_pool([*head, *settings.directives], settings.prologue, settings.max_jobs, folder) as made:
        yield made


def _check_workers(client: Any, settings: Any) -> None:
    threads = client.nthreads()
    check_worker_threads(threads)
    if settings.name == "address" and not threads:
        raise InputError(
            f"'cluster.scheduler': the cluster at {settings.scheduler} has no workers; start some with "
            "'dask worker --nthreads 1'"
        )
    if settings.name == "address":
        _check_environments(client, threads)


def _check_environments(client: Any, workers: Iterable[str]) -> None:
    """See that workers which answer soon have this paretofit; those that are busy are not waited for."""
    from distributed import wait  # noqa: PLC0415  (an extra)

    asked = {worker: client.submit(version, "paretofit", workers=[worker], pure=False) for worker in workers}
    with suppress(TimeoutError):
        wait(list(asked.values()), timeout=ANSWER)
    for worker, future in asked.items():
        found = future.result() if future.status == "finished" else None if future.status == "error" else __version__
        if found != __version__:
            raise InputError(
                f"'cluster': the worker {worker} has {f'paretofit {found}' if found else 'no paretofit'}, and this is "
                f"{__version__}; start workers in this environment"
            )


def check_worker_threads(workers: dict[str, int]) -> None:
    """LAMMPS and DFT codes of a process cannot be used by two threads at once.

    Raises
    ------
    InputError
        If one of the workers, by their addresses, has several.
    """
    if many := [address for address, count in workers.items() if count > 1]:
        raise InputError(
            f"'cluster': the worker {many[0]} has {workers[many[0]]} threads; start workers with --nthreads 1, and as "
            "many as there are cores with --nworkers"
        )
