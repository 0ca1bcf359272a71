"""Progress displays for long work, on standard error and only on request."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

REPORT_INTERVAL_S = 60.0


def track(items: Iterable[T], total: int, description: str, *, enabled: bool) -> Iterator[T]:
    """Yield `items`; if `enabled`, draw a progress bar with the elapsed and remaining time."""
    if not enabled:
        yield from items
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), "left", TimeRemainingColumn())
    with Progress("{task.description}", *columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)
        for item in items:
            yield item
            bar.advance(task)


def track_cost(items: Iterable[T], total: int, get_status: Callable[[], tuple[float, str]]) -> Iterator[T]:
    """Yield `items`, and show the progress and the cost.

    On a terminal, the progress is a bar; elsewhere, as in the log of a batch job, a line is printed every minute.

    Parameters
    ----------
    items : iterable
    total : int
        Number of items.
    get_status : callable
        Returns the completed share of the work, 0 to 1, and a text about the cost to display.
    """
    console = Console(stderr=True)
    last_report = time.monotonic()
    with Progress(BarColumn(), "{task.description}", console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"0/{total}: {get_status()[1]}", total=1.0)
        for count, item in enumerate(items, start=1):
            yield item
            share, text = get_status()
            bar.update(task, completed=share, description=f"{count}/{total}: {text}")
            if bar.disable and (time.monotonic() - last_report > REPORT_INTERVAL_S or count == total):
                last_report = time.monotonic()
                console.print(f"{count} of {total}: {text}", highlight=False, soft_wrap=True)


def announce(text: str, *, enabled: bool) -> None:
    """Print a line about long work on standard error if `enabled`."""
    if enabled:
        Console(stderr=True).print(text, highlight=False, soft_wrap=True, markup=False)
