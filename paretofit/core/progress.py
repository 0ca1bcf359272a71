"""Progress displays of long work, on standard error and only on request."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

REPORT_INTERVAL_S = 60.0


def track(items: Iterable[T], total: int, description: str, *, enabled: bool) -> Iterator[T]:
    """Yield `items`; if `enabled`, draw a progress bar with the elapsed and remaining time."""
    if not enabled:
        yield from items
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)
        for item in items:
            yield item
            bar.advance(task)


def track_cost(items: Iterable[T], total: int, get_status: Callable[[], tuple[float, str]]) -> Iterator[T]:
    """Yield `items` and show the progress with a line of text about the cost.

    Draws a bar on a terminal, and prints a line per minute elsewhere, as in the log of a batch job.

    Parameters
    ----------
    items : iterable
    total : int
        Number of items.
    get_status : callable
        Returns the completed share of the work, 0 to 1, and a line of text about it.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from _report_each_minute(items, total, get_status, console)
        return
    columns = (BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"0/{total}: {get_status()[1]}", total=1.0)
        for count, item in enumerate(items, start=1):
            yield item
            share, text = get_status()
            bar.update(task, completed=share, description=f"{count}/{total}: {text}")


def _report_each_minute(
    items: Iterable[T], total: int, get_status: Callable[[], tuple[float, str]], console: Console
) -> Iterator[T]:
    last_report = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last_report > REPORT_INTERVAL_S or count == total:
            last_report = time.monotonic()
            console.print(f"{count} of {total}: {get_status()[1]}", highlight=False, soft_wrap=True)
