"""Section 'cluster' of a study: where its tasks run."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from paretofit.core import PositiveInt, StrictSettings

MAX_PORT = 65535
REQUIRED_PACKAGES = {  # by the name of the cluster
    "local": ("distributed",),
    "address": ("distributed",),
    "slurm": ("distributed", "dask_jobqueue"),
    "executorlib": ("executorlib", "pysqa"),
}


def _check_address(value: str) -> str:
    """Return the address of a scheduler if it is valid; raise ValueError otherwise."""
    match = re.fullmatch(r"(tcp|tls)://[^\s/]+:(\d{1,5})", value)
    if match is None or int(match[2]) > MAX_PORT:
        raise ValueError("must be an address such as tcp://10.0.0.1:8786")
    return value


def _check_walltime(value: Any) -> Any:
    """Return a walltime HH:MM:SS if it is valid; raise ValueError otherwise.

    The value may have any type, because this check precedes that of pydantic.
    """
    if not isinstance(value, str) or not re.fullmatch(r"\d{1,3}:[0-5]\d:[0-5]\d", value):
        raise ValueError("must be hours, minutes and seconds, in quotes, such as '12:00:00'")
    if not value.strip("0:"):
        raise ValueError("must be longer than zero")
    return value


def _check_memory(value: str) -> str:
    """Return a size of memory with its unit if it is valid; raise ValueError otherwise."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*[KMGT](i?B)?", value, re.IGNORECASE)
    if match is None or not float(match[1]):
        raise ValueError("must be a number above 0 with its unit, such as 16GB")
    return value


Address = Annotated[str, AfterValidator(_check_address)]
Memory = Annotated[str, AfterValidator(_check_memory)]
Time = Annotated[str, BeforeValidator(_check_walltime)]


class LocalClusterSettings(StrictSettings):
    """Settings of a dask cluster on this machine."""

    name: Literal["local"] = Field("local", description="Processes of this machine.")
    workers: PositiveInt | None = Field(None, description="Number of processes of one thread; by default --jobs.")


class RunningClusterSettings(StrictSettings):
    """Settings of a dask cluster that is already running."""

    name: Literal["address"] = Field("address", description="A scheduler that is already running.")
    scheduler: Address = Field(
        description="Address of the scheduler, such as tcp://10.0.0.1:8786; its workers must have one thread each and "
        "see the same directories."
    )


class SlurmJobSettings(StrictSettings):
    """Resources that are requested from a SLURM queue."""

    queue: str | None = Field(None, description="Partition; by default that of the cluster.")
    account: str | None = Field(None, description="Account that the time is charged to.")
    max_jobs: PositiveInt = Field(1, description="Largest number of jobs in the queue at a time.")
    memory: Memory = Field("4GB", description="Memory of each job.")
    directives: list[str] = Field([], description="Further sbatch options, such as '--constraint=cpu'.")
    prologue: list[str] = Field([], description="Shell commands to run first, such as 'module load ...'.")
    walltime: Time = Field("01:00:00", description="Walltime of each job, HH:MM:SS.")

    @property
    def walltime_s(self) -> int:
        """Walltime in seconds."""
        hours, minutes, seconds = map(int, self.walltime.split(":"))
        return 3600 * hours + 60 * minutes + seconds


class SlurmClusterSettings(SlurmJobSettings):
    """Settings of dask workers in jobs of a SLURM queue (dask-jobqueue).

    paretofit must run on a machine with sbatch, in a session that lasts as long as the run.
    """

    name: Literal["slurm"] = Field("slurm", description="Jobs that are submitted for the workers.")
    cores: PositiveInt = Field(1, description="Cores of each job, which runs one worker on each core.")
    walltime: Time = Field("01:00:00", description="Walltime of each job, HH:MM:SS; its workers end 5 minutes earlier.")
    interface: str | None = Field(None, description="Network interface, such as ib0.")


class LabelJobSettings(SlurmJobSettings):
    """Settings of one job for each label (executorlib), for DFT codes that run on many cores by MPI."""

    name: Literal["executorlib"] = Field("executorlib", description="A job for each label.")
    cores: PositiveInt = Field(
        1, description="Cores of each job, as in the engine's MPI command, such as 'mpirun -n 16 vasp_std'."
    )


def _expand_cluster_name(value: Any) -> Any:
    """Expand the name of a cluster to a section with this name and defaults; return other valid values unchanged."""
    if value is not None and not isinstance(value, str | dict | StrictSettings):
        raise ValueError(f"must be one of {', '.join(REQUIRED_PACKAGES)}, or a section with one of these names")
    return {"name": value} if isinstance(value, str) else value


AnyClusterSettings = LocalClusterSettings | RunningClusterSettings | SlurmClusterSettings | LabelJobSettings
ClusterSettings = Annotated[AnyClusterSettings, Field(discriminator="name"), BeforeValidator(_expand_cluster_name)]
