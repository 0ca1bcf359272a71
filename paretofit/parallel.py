"""Workers that do not outlive the process that started them.

A run that is killed with -9 cannot tell its workers; they notice by themselves that their parent has changed.
"""

import os
import threading
from functools import cache

INTERVAL = 2.0  # seconds between two looks


@cache
def follow_parent(parent: int) -> None:
    """End this process soon after `parent` has ended; does nothing in `parent` itself. Call it in every task."""
    if os.getpid() != parent:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    never = threading.Event()
    while os.getppid() == parent:
        never.wait(INTERVAL)
    os._exit(1)
