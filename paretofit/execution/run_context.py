"""Settings that all steps of a run share: the number of processes, progress bars, the folder and the random seed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretofit.core import track
from paretofit.execution.executors import R, T
from paretofit.execution.parallel import map_in_parallel


@dataclass(frozen=True)
class RunContext:
    """Settings that every step of a run needs; results do not depend on `jobs`, `progress` or `folder`.

    Attributes
    ----------
    jobs : int
        Number of processes on this machine; an active cluster (see `use_cluster`) is used instead.
    progress : bool
        Whether progress bars are drawn on standard error.
    folder : Path, optional
        The run folder; None if nothing is stored.
    seed : int, optional
        Random seed; None if nothing is random.
    """

    jobs: int = 1
    progress: bool = False
    folder: Path | None = None
    seed: int | None = None

    def map(self, function: Callable[[T], R], tasks: Iterable[T], **options: Any) -> Iterator[R]:
        """Yield ``function(task)`` for each task, computed by the processes of the run; see `map_in_parallel`."""
        return map_in_parallel(function, tasks, self.jobs, **options)

    def track(self, items: Iterable[T], total: int, description: str, **options: Any) -> Iterator[T]:
        """Yield the items and report the progress; options are those of `paretofit.core.track`.

        By default, the option `n_parallel`, the number of items that are computed at the same time, is `jobs`.
        """
        return track(items, total, description, **{"enabled": self.progress, "n_parallel": self.jobs, **options})

    def map_and_track(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        description: str,
        *,
        get_work: Callable[[R], float] | None = None,
        total_work: float | None = None,
        **options: Any,
    ) -> Iterator[R]:
        """Yield the results of `map` with these options, and report the progress as `paretofit.core.track` does."""
        results = self.map(function, tasks, **options)
        return self.track(results, len(tasks), description, get_work=get_work, total_work=total_work)
