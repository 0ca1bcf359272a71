"""Single tasks as jobs of a SLURM queue, by executorlib: for labels of DFT codes that run on many cores by MPI.

A task is a function and its argument in a file, and a job that reads it; what it returns is in another file. So the
process that submits may end, or be killed: the next one finds the job still in the queue, or its result.
"""

from __future__ import annotations

import logging
import shutil
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from subprocess import CalledProcessError
from typing import TYPE_CHECKING, Any, TypeVar

import joblib

from paretofit.core import InputError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)

REFRESH = 0.5  # seconds between two looks at the results
TEMPLATE = """#!/bin/bash
#SBATCH --job-name=paretofit
#SBATCH --chdir={{{{working_directory}}}}
#SBATCH --output=job.out
{{% raw %}}{head}
{prologue}{{% endraw %}}
{{{{command}}}}
"""


@dataclass(frozen=True)
class JobPool:
    """What submits jobs, so many at a time.

    Attributes
    ----------
    executor : executorlib's
    max_jobs : int
        Jobs that are in the queue at a time.
    folder : Path
        Of their files.
    """

    executor: Any
    max_jobs: int
    folder: Path

    def run(self, function: Callable[[T], R], tasks: Iterable[T], on_crash: Callable[[T], R]) -> Iterator[tuple[T, R]]:
        """Yield each task with its result, as they end; one whose job ends without a result gets ``died(task)``.

        Raises
        ------
        InputError
            If the queue does not take a job.
        """
        source = iter(tasks)
        running: dict[Future[R], tuple[T, str]] = {}
        while True:
            for task in source:
                key = str(getattr(task, "key", None) or joblib.hash(task))
                future = self.executor.submit(function, task, resource_dict={"cache_key": key})
                running[future] = task, key
                if len(running) >= self.max_jobs:
                    break
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task, key = running.pop(future)
                try:
                    result = future.result()
                except CalledProcessError as error:
                    self._forget(key)
                    said = one_line(error.output or error)
                    raise InputError(f"the job of a label was not taken ({said}); look at 'cluster'") from error
                except InputError:
                    self._forget(key)
                    raise
                except Exception as error:  # noqa: BLE001  (tasks raise nothing else: it is the job that failed)
                    log.warning("the job of a task failed: %s", one_line(error))
                    result = on_crash(task)
                yield task, result
                self._forget(key)

    def _forget(self, key: str) -> None:
        """Remove the files of a task whose result is taken, so that it can be computed anew."""
        for name in (f"{key}_i.h5", f"{key}_o.h5"):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / key, ignore_errors=True)


@contextmanager
def open_job_pool(
    sbatch_options: Sequence[str], prologue: Sequence[str], max_jobs: int, folder: Path
) -> Iterator[JobPool]:
    """Make a pool that lasts for the block; jobs that run when it is left on an error go on.

    Parameters
    ----------
    sbatch_options : sequence of str
        Options of sbatch.
    prologue : sequence of str
        Lines of shell before the task.
    max_jobs : int
        Jobs at a time.
    folder : Path
        That all machines see; made, and removed where nothing is left in it.
    """
    from executorlib import SlurmClusterExecutor  # noqa: PLC0415  (an extra)

    folder.mkdir(parents=True, exist_ok=True)
    text = TEMPLATE.format(head="\n".join(f"#SBATCH {one}" for one in sbatch_options), prologue="\n".join(prologue))
    executor = SlurmClusterExecutor(
        cache_directory=str(folder), resource_dict={"submission_template": text}, refresh_rate=REFRESH, wait=False
    )
    try:
        yield JobPool(executor, max_jobs, folder)
    finally:
        executor.shutdown(wait=False)
        with suppress(OSError):  # jobs that are not over have files there
            folder.rmdir()
