"""Single tasks as jobs of a SLURM queue, by executorlib: for labels of DFT codes that run on many cores by MPI.

A task is a file with a function and its argument, and a job that reads it; its result is in another file. So the
process that submits may end or be killed: the next one finds the job still in the queue, or its result.
"""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import joblib

from paretofit.core import InputError, one_line
from paretofit.execution.cluster_settings import LabelJobSettings
from paretofit.execution.executors import LostTaskError, TaskExecutor

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.5
SBATCH_TEMPLATE = """#!/bin/bash
#SBATCH --job-name=paretofit
#SBATCH --chdir={{{{working_directory}}}}
#SBATCH --output=job.out
{{% raw %}}{head}
{prologue}{{% endraw %}}
{{{{command}}}}
"""


class JobExecutor(TaskExecutor):
    """A job of the queue for each task.

    Parameters
    ----------
    executor : executorlib.SlurmClusterExecutor
    max_jobs : int
        Jobs in the queue at a time.
    folder : Path
        Directory of their files.
    """

    def __init__(self, executor: Any, max_jobs: int, folder: Path) -> None:
        self._executor, self.max_pending, self._folder = executor, max_jobs, folder
        self._keys: dict[Any, str] = {}

    def submit(self, function: Callable[[Any], Any], task: Any) -> Any:
        """See `TaskExecutor`; a task whose job or result is still there is not submitted again."""
        key = str(getattr(task, "key", None) or joblib.hash(task))
        future = self._executor.submit(function, task, resource_dict={"cache_key": key})
        self._keys[future] = key
        return future

    def get_result(self, future: Any) -> Any:
        """See `TaskExecutor`; `InputError` if the queue does not accept the job."""
        try:
            return future.result()
        except CalledProcessError as error:
            self.release(future)
            reason = one_line(error.output or error)
            raise InputError(f"the job of a label was not taken ({reason}); look at 'cluster'") from error
        except InputError:
            self.release(future)
            raise
        except Exception as error:  # tasks raise nothing else, so it is the job that failed
            log.warning("the job of a task failed: %s", one_line(error))
            raise LostTaskError(str(error)) from error

    def release(self, future: Any) -> None:
        """See `TaskExecutor`: remove its files, so that the task can be computed anew."""
        key = self._keys.pop(future)
        for name in (f"{key}_i.h5", f"{key}_o.h5"):
            (self._folder / name).unlink(missing_ok=True)
        shutil.rmtree(self._folder / key, ignore_errors=True)

    def cancel(self, futures: Sequence[Any]) -> None:
        """Leave the jobs in the queue: the next run takes their results."""


@contextmanager
def open_job_executor(settings: LabelJobSettings, folder: Path) -> Iterator[JobExecutor]:
    """Submit jobs within the block; jobs that run when it is left because of an error continue.

    Parameters
    ----------
    settings : LabelJobSettings
    folder : Path
        A directory that all machines see; it is created, and removed if nothing is left in it.
    """
    from executorlib import SlurmClusterExecutor  # noqa: PLC0415  (an extra)

    options = {"ntasks": settings.cores, "time": settings.walltime, "mem": settings.memory}
    options |= {"partition": settings.queue, "account": settings.account}
    lines = [f"--{name}={value}" for name, value in options.items() if value] + settings.directives
    text = SBATCH_TEMPLATE.format(
        head="\n".join(f"#SBATCH {line}" for line in lines), prologue="\n".join(settings.prologue)
    )
    folder.mkdir(parents=True, exist_ok=True)
    template = {"submission_template": text}
    executor = SlurmClusterExecutor(
        cache_directory=str(folder), resource_dict=template, refresh_rate=POLL_INTERVAL_S, wait=False
    )
    try:
        yield JobExecutor(executor, settings.max_jobs, folder)
    finally:
        executor.shutdown(wait=False)
        with suppress(OSError):  # unfinished jobs have files there
            folder.rmdir()
