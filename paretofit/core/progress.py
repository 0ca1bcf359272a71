"""Progress of long work: in the log, and on request as a bar on a terminal or as lines elsewhere, as in a batch job."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

T = TypeVar("T")

FIRST_REPORT_S = 10.0  # time from the start of the work to the first line in the log
REPORT_INTERVAL_S = 60.0  # time between later lines
MIN_TASKS_PER_PROCESS = 3  # number of finished tasks of a process from which its first task is excluded from the pace

log = logging.getLogger(__name__)


class RemainingTime:
    """Estimate of the remaining time from the finished part of the work; the work begins when the object is created.

    Parameters
    ----------
    total_work : float
        Work of all tasks, in any unit; work that follows the tracked tasks may be included.
    n_parallel : int
        Number of tasks that run at the same time.
    """

    def __init__(self, total_work: float, n_parallel: int = 1) -> None:
        self._total_work, self._n_parallel = total_work, n_parallel
        self._finished_work, self._n_finished, self._start_time = 0.0, 0, time.monotonic()
        # Time and finished work when as many tasks had finished as run in parallel.
        self._first_round: tuple[float, float] | None = None

    def add(self, work: float) -> None:
        """Record that a task has finished; its work is in the unit of the total work."""
        self._finished_work += work
        self._n_finished += 1
        if self._n_finished == self._n_parallel:
            self._first_round = time.monotonic(), self._finished_work

    @property
    def seconds(self) -> float:
        """Remaining wall time in seconds; NaN until as many tasks have finished as run in parallel."""
        if self._first_round is None or not self._finished_work:
            return float("nan")
        # When a task ends, the other running tasks are half finished on average.
        running_work = self._finished_work / self._n_finished * (self._n_parallel - 1) / 2
        remaining_work = max(0.0, self._total_work - self._finished_work - running_work)
        first_time, first_work = self._first_round
        if self._n_finished >= MIN_TASKS_PER_PROCESS * self._n_parallel and self._finished_work > first_work:
            # The first tasks are excluded, because the start of the processes takes as long as many small tasks. The
            # work of running tasks, the same then and now, cancels in the difference.
            return (time.monotonic() - first_time) / (self._finished_work - first_work) * remaining_work
        return (time.monotonic() - self._start_time) / (self._finished_work + running_work) * remaining_work


def format_remaining(seconds: float) -> str:
    """Format a remaining time, such as ``"about 2.5 h left"``; NaN, an unknown time, gives an empty string."""
    if math.isnan(seconds):
        return ""
    for unit, unit_seconds in (("h", 3600.0), ("min", 60.0)):
        if seconds >= unit_seconds:
            return f"about {seconds / unit_seconds:.2g} {unit} left"
    return f"about {seconds:.0f} s left"


class _LineReporter:
    """Writer of lines about the progress, to the log and, if one is given, to a console."""

    def __init__(self, console: Console | None) -> None:
        self._console, self._next_report_time = console, time.monotonic() + FIRST_REPORT_S
        self._has_reported = False

    def report(self, text: str, *, is_last: bool) -> None:
        """Write a line if one is due: after `FIRST_REPORT_S`, then at intervals; a last line, if there were others."""
        if time.monotonic() < self._next_report_time and not (is_last and self._has_reported):
            return
        self._next_report_time, self._has_reported = time.monotonic() + REPORT_INTERVAL_S, True
        log.info(text)
        if self._console is not None:
            self._console.print(text, highlight=False, soft_wrap=True, markup=False)


def show_message(text: str, *, enabled: bool) -> None:
    """Print a line on standard error, if `enabled`."""
    if enabled:
        Console(stderr=True).print(text, highlight=False, soft_wrap=True, markup=False)


def track(
    items: Iterable[T],
    total: int,
    description: str,
    *,
    enabled: bool,
    get_work: Callable[[T], float] | None = None,
    total_work: float | None = None,
    n_parallel: int = 1,
) -> Iterator[T]:
    """Yield `items`, and report the progress with the remaining time.

    An item is counted when the next one is requested, after the caller has used it. Lines are logged after ten seconds
    and then every minute.

    Parameters
    ----------
    items : iterable
    total : int
        Number of items.
    description : str
        Beginning of each line, or text before the bar.
    enabled : bool
        Whether to show a bar if standard error is a terminal, or otherwise to print the lines of the log to it.
    get_work : callable, optional
        Returns the work of an item, in any unit; by default, that of each item is 1.
    total_work : float, optional
        Work of all items and of the steps that follow them; by default `total`.
    n_parallel : int
        Number of items that are computed at the same time.
    """
    console = Console(stderr=True)
    has_bar = enabled and console.is_terminal
    reporter = _LineReporter(console if enabled and not has_bar else None)
    remaining_time = RemainingTime(float(total) if total_work is None else total_work, min(n_parallel, max(1, total)))
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}"))
    with Progress("{task.description}", *columns, console=console, disable=not has_bar) as bar:
        task = bar.add_task(description, total=total, left="")
        for count, item in enumerate(items, start=1):
            yield item
            remaining_time.add(1.0 if get_work is None else get_work(item))
            remaining_text = format_remaining(remaining_time.seconds)
            bar.update(task, completed=count, left=remaining_text)
            text = f"{description}: {count} of {total}"
            reporter.report(f"{text}, {remaining_text}" if remaining_text else text, is_last=count == total)


def track_cost(
    items: Iterable[T], total: int, get_status: Callable[[], tuple[float, str]], *, enabled: bool = True
) -> Iterator[T]:
    """Yield `items`, and report the progress and the cost, as `track` does.

    Parameters
    ----------
    items : iterable
    total : int
        Number of items.
    get_status : callable
        Returns the completed fraction of the work, 0 to 1, and a text that describes the cost; called before the
        first item and after each item.
    enabled : bool
        As for `track`; lines are always logged.
    """
    console = Console(stderr=True)
    has_bar = enabled and console.is_terminal
    reporter = _LineReporter(console if enabled and not has_bar else None)
    with Progress(BarColumn(), "{task.description}", console=console, disable=not has_bar) as bar:
        task = bar.add_task(f"0/{total}: {get_status()[1]}", total=1.0)
        for count, item in enumerate(items, start=1):
            yield item
            fraction, text = get_status()
            bar.update(task, completed=fraction, description=f"{count}/{total}: {text}")
            reporter.report(f"{count} of {total}: {text}", is_last=count == total)
