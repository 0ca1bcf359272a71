"""Functions with large arrays, sent to the workers of a cluster once instead of with every task."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import joblib

from paretofit.core import ExecutionError
from paretofit.execution.cluster import get_active_client
from paretofit.execution.executors import R, T
from paretofit.execution.parallel import map_in_parallel


@contextmanager
def share_function(function: Callable[[T], R], folder: Path | None) -> Iterator[Callable[[T], R]]:
    """Yield a small substitute for a function that holds large arrays, to be sent to the workers with every task.

    On a dask cluster, the function is stored in a temporary file until the `with` block ends, and all workers of a
    machine map the arrays of this file into their memory. Arrays that dask scatters to its workers would be lost with a
    killed worker; a file is not. Without a cluster, the function itself is yielded, because joblib already shares large
    arrays between the processes of this machine.

    Parameters
    ----------
    function : callable
    folder : Path or None
        A directory that all workers of a cluster can read; if None, the function itself is yielded.
    """
    if get_active_client() is None or folder is None:
        yield function
        return
    descriptor, path = tempfile.mkstemp(prefix=".tasks-", suffix=".joblib", dir=folder.absolute())
    os.close(descriptor)
    try:
        joblib.dump(function, path)
        yield partial(_call_stored_function, path)
    finally:
        Path(path).unlink(missing_ok=True)


def _call_stored_function(path: str, task: Any) -> Any:
    """Call, in a worker, the function that is stored in a file."""
    try:
        function = _load_function(path)
    except FileNotFoundError as error:
        raise ExecutionError(
            f"a worker of the cluster cannot find {path}; the run folder must have the same path on all machines"
        ) from error
    return function(task)


@lru_cache(maxsize=1)
def _load_function(path: str) -> Any:
    """Load a stored function, once for all tasks of a worker, with its arrays mapped to the file."""
    return joblib.load(path, mmap_mode="r")


@dataclass(frozen=True)
class ClusterRunner:
    """Map over the parts of a design on the active cluster: a `PartMapper` of `paretofit.linear.reduction`.

    Attributes
    ----------
    folder : Path or None
        See `share_function`.
    """

    folder: Path | None

    def __call__(self, function: Callable[[Any], R], parts: Sequence[Any]) -> Iterator[R]:
        """Apply the function to the parts, and yield the results in order."""
        with share_function(partial(_call_on_part, function, parts), self.folder) as call_on_part:
            yield from map_in_parallel(call_on_part, range(len(parts)), 1)  # a cluster ignores the number of processes


def _call_on_part(function: Callable[[Any], R], parts: Sequence[Any], index: int) -> R:
    """Call a function on the part at `index`, the task that is sent to a worker."""
    return function(parts[index])
