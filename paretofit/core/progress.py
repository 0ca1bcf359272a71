"""Progress of long work, as an option of the library; nothing is printed unless it is asked for."""

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

MINUTE = 60.0


def track(items: Iterable[T], total: int, description: str, *, enabled: bool) -> Iterator[T]:
    """Yield `items`; if `enabled`, draw a bar with the time elapsed and left on standard error."""
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
    """Yield `items` and show what they have cost so far and what is left, on standard error.

    On a terminal a bar; elsewhere, as in a batch job's log, a line each minute.

    Parameters
    ----------
    items : iterable
    total : int
        How many there are.
    get_status : callable
        Share of the work that is done, 0 to 1, and a line of text about it.
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
    items: Iterable[T], total: int, spending: Callable[[], tuple[float, str]], console: Console
) -> Iterator[T]:
    shown = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - shown > MINUTE or count == total:
            shown = time.monotonic()
            console.print(f"{count} of {total}: {spending()[1]}", highlight=False, soft_wrap=True)
