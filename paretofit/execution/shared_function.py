"""Functions with large arrays, sent to the workers of a cluster once instead of with every task."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import joblib

from paretofit.core import ExecutionError
from paretofit.execution.cluster import get_active_client
from paretofit.execution.parallel import parallel_map

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def dump_function(function: Callable[[T], R], folder: Path | None) -> Iterator[Callable[[T], R]]:
    """Make a function that holds large arrays small enough to be sent with every task.

    On a cluster it is stored in a file for as long as the block lasts, whose arrays all workers of a machine map into
    their memory; a worker that is killed takes nothing with it. Processes of this machine share large arrays anyway.

    Parameters
    ----------
    function : callable
    folder : Path or None
        A directory that the workers of a cluster see; None sends the function as it is.
    """
    if get_active_client() is None or folder is None:
        yield function
        return
    handle, name = tempfile.mkstemp(prefix=".tasks-", suffix=".joblib", dir=folder.absolute())
    os.close(handle)
    try:
        joblib.dump(function, name)
        yield partial(_call_dumped_function, name)
    finally:
        Path(name).unlink(missing_ok=True)


def _call_dumped_function(path: str, task: Any) -> Any:
    try:
        function = _load_function(path)
    except FileNotFoundError as error:
        raise ExecutionError(
            f"a worker of the cluster does not see {path}: all must see the run folder under the same path"
        ) from error
    return function(task)


@lru_cache(maxsize=1)
def _load_function(path: str) -> Any:
    return joblib.load(path, mmap_mode="r")


@dataclass(frozen=True)
class ClusterRunner:
    """Parts of a design summed by the workers of the active cluster: a `Run` of `paretofit.linear.reduction`.

    Attributes
    ----------
    folder : Path or None
        See `dump_function`.
    """

    folder: Path | None

    def __call__(self, function: Callable[[Any], R], parts: Sequence[Any]) -> Iterator[R]:
        """Run them; results are large, so that few wait for their turn."""
        with dump_function(partial(_call_on_part, function, parts), self.folder) as run:
            yield from parallel_map(run, range(len(parts)), 1)


def _call_on_part(function: Callable[[Any], R], parts: Sequence[Any], index: int) -> R:
    return function(parts[index])
