"""Progress of long work: in the log, and on request as a bar on a terminal or as lines elsewhere, as in a batch job."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

T = TypeVar("T")

FIRST_REPORT_S, REPORT_INTERVAL_S = 10.0, 60.0  # times of the lines in a log: after 10 s, then every minute

MIN_TASKS_PER_PROCESS = 3  # finished tasks before the pace excludes the first ones

log = logging.getLogger(__name__)


class RemainingTime:
    """Estimate of the remaining time from the finished part of the work.

    Parameters
    ----------
    total_work : float
        Work of all tasks, in any unit; work that follows the tracked tasks may be included.
    parallel : int
        Number of tasks that run at the same time.
    """

    def __init__(self, total_work: float, parallel: int = 1) -> None:
        self._total_work, self._parallel = total_work, parallel
        self._finished_work, self._n_finished, self._start = 0.0, 0, time.monotonic()
        self._first_round: tuple[float, float] | None = (
            None  # time and finished work when each process had ended a task
        )

    def add(self, work: float) -> None:
        """Record a finished task."""
        self._finished_work += work
        self._n_finished += 1
        if self._n_finished == self._parallel:
            self._first_round = time.monotonic(), self._finished_work

    @property
    def seconds(self) -> float:
        """Remaining wall time in seconds; NaN until as many tasks have finished as run in parallel."""
        if self._first_round is None or not self._finished_work:
            return float("nan")
        # When a task ends, the others that are running are half finished on average, now as at the first measurement.
        running_work = self._finished_work / self._n_finished * (self._parallel - 1) / 2
        remaining_work = max(0.0, self._total_work - self._finished_work - running_work)
        first_time, first_work = self._first_round
        if self._n_finished >= MIN_TASKS_PER_PROCESS * self._parallel and self._finished_work > first_work:
            # The first tasks are excluded, because the start of the processes takes as long as many small tasks.
            return (time.monotonic() - first_time) / (self._finished_work - first_work) * remaining_work
        return (time.monotonic() - self._start) / (self._finished_work + running_work) * remaining_work


def format_remaining(seconds: float) -> str:
    """Format a remaining time in words; empty if it is not known."""
    if math.isnan(seconds):
        return ""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"about {seconds / size:.2g} {unit} left"
    return f"about {seconds:.0f} s left"


class _LineReporter:
    """Lines about the progress, in the log and, with a console, on standard error."""

    def __init__(self, console: Console | None) -> None:
        self._console, self._next_report_time = console, time.monotonic() + FIRST_REPORT_S
        self._has_reported = False

    def report(self, text: str, *, is_last: bool) -> None:
        """Log and print a line if one is due; the last line is due whenever an earlier one was written."""
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
    parallel: int = 1,
) -> Iterator[T]:
    """Yield `items`, and report the progress with the remaining time.

    Lines are logged after ten seconds and then every minute. If `enabled`, a terminal shows a bar, and any other
    standard error gets the same lines.

    Parameters
    ----------
    items : iterable
    total : int
        Number of items.
    description : str
    enabled : bool
    get_work : callable, optional
        Returns the work of an item, in any unit; by default all items are equal.
    total_work : float, optional
        Work of all items and of the steps that follow them; by default `total`.
    parallel : int
        Number of items that are computed at the same time.
    """
    console = Console(stderr=True)
    has_bar = enabled and console.is_terminal
    reporter = _LineReporter(console if enabled and not has_bar else None)
    remaining_time = RemainingTime(float(total) if total_work is None else total_work, min(parallel, max(1, total)))
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
        Returns the completed share of the work, 0 to 1, and a label that describes the cost.
    enabled : bool
        Whether a bar is drawn or lines are printed; lines are always logged.
    """
    console = Console(stderr=True)
    has_bar = enabled and console.is_terminal
    reporter = _LineReporter(console if enabled and not has_bar else None)
    with Progress(BarColumn(), "{task.description}", console=console, disable=not has_bar) as bar:
        task = bar.add_task(f"0/{total}: {get_status()[1]}", total=1.0)
        for count, item in enumerate(items, start=1):
            yield item
            share, text = get_status()
            bar.update(task, completed=share, description=f"{count}/{total}: {text}")
            reporter.report(f"{count} of {total}: {text}", is_last=count == total)
