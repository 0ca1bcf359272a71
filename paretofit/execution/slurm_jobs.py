"""Tasks as single jobs of a SLURM queue, through executorlib: for labels of DFT codes that run on many cores with MPI.

A function and its argument are stored in a file, which a job reads; the job writes the result to another file. The
process that submits the job may therefore end or be killed: the next process finds the job in the queue, or its result.
"""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import joblib

from paretofit.core import InputError, join_lines
from paretofit.execution.cluster_settings import LabelJobSettings
from paretofit.execution.executors import LostTaskError, TaskExecutor

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.5  # time between checks whether a result has been written
# executorlib fills in the double braces that remain after `str.format`; the raw block keeps the user's lines unchanged.
SBATCH_TEMPLATE = """#!/bin/bash
#SBATCH --job-name=paretofit
#SBATCH --chdir={{{{working_directory}}}}
#SBATCH --output=job.out
{{% raw %}}{head}
{prologue}{{% endraw %}}
{{{{command}}}}
"""


class JobExecutor(TaskExecutor):
    """Executor that submits a job for each task.

    Parameters
    ----------
    executor : executorlib.SlurmClusterExecutor
    max_jobs : int
        Largest number of jobs in the queue at a time.
    folder : Path
        Directory of the jobs' files.
    """

    def __init__(self, executor: Any, max_jobs: int, folder: Path) -> None:
        self._executor, self.max_pending, self._folder = executor, max_jobs, folder
        self._keys: dict[Any, str] = {}

    def submit(self, function: Callable[[Any], Any], task: Any) -> Any:
        """See `TaskExecutor`; a task whose job or result exists is not submitted again.

        Tasks are identified by their attribute ``key`` or, without one, by their hash.
        """
        key = str(getattr(task, "key", None) or joblib.hash(task))
        future = self._executor.submit(function, task, resource_dict={"cache_key": key})
        self._keys[future] = key
        return future

    def get_result(self, future: Any) -> Any:
        """See `TaskExecutor`; raise `InputError` if the queue does not accept the job.

        After an `InputError`, the task's files are removed.
        """
        try:
            return future.result()
        except CalledProcessError as error:
            self.release(future)
            reason = join_lines(error.output or error)
            raise InputError(f"the queue does not accept the job of a label ({reason}); correct 'cluster'") from error
        except InputError:
            self.release(future)
            raise
        except Exception as error:  # tasks raise only `InputError`, so the job itself has failed
            log.warning("the job of a task failed: %s", join_lines(error))
            raise LostTaskError(str(error)) from error

    def release(self, future: Any) -> None:
        """See `TaskExecutor`; remove the files of the task, so that it can be computed again."""
        key = self._keys.pop(future)
        for name in (f"{key}_i.h5", f"{key}_o.h5"):
            (self._folder / name).unlink(missing_ok=True)
        shutil.rmtree(self._folder / key, ignore_errors=True)

    def cancel(self, futures: Sequence[Any]) -> None:
        """Leave the jobs in the queue, because the next run uses their results."""


@contextmanager
def open_job_executor(settings: LabelJobSettings, folder: Path) -> Iterator[JobExecutor]:
    """Yield an executor that submits jobs; the jobs continue if the `with` block ends with an error.

    Parameters
    ----------
    settings : LabelJobSettings
    folder : Path
        A directory that all machines can read; it is created, and removed at the end if it is empty.
    """
    from executorlib import SlurmClusterExecutor  # noqa: PLC0415  (an extra)

    options = {"ntasks": settings.cores, "time": settings.walltime, "mem": settings.memory}
    options |= {"partition": settings.queue, "account": settings.account}
    lines = [f"--{name}={value}" for name, value in options.items() if value] + settings.directives
    template_text = SBATCH_TEMPLATE.format(
        head="\n".join(f"#SBATCH {line}" for line in lines), prologue="\n".join(settings.prologue)
    )
    folder.mkdir(parents=True, exist_ok=True)
    template = {"submission_template": template_text}
    executor = SlurmClusterExecutor(
        cache_directory=str(folder), resource_dict=template, refresh_rate=POLL_INTERVAL_S, wait=False
    )
    try:
        yield JobExecutor(executor, settings.max_jobs, folder)
    finally:
        executor.shutdown(wait=False)
        with suppress(OSError):  # the folder contains files of unfinished jobs
            folder.rmdir()
