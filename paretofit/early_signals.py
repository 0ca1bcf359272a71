"""Ctrl-C and SIGTERM while the verbs are imported, which takes a second on a busy machine.

This module is in no room, because the door of a room takes ten milliseconds to import.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def catch_early_signals() -> None:
    """End with a message on a signal that arrives during imports; `VerbGroup.invoke` takes over afterwards."""
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) == default:  # a shell's background processes ignore SIGINT
            signal.signal(number, exit_early)


def exit_early(number: int, frame: FrameType | None) -> None:
    """End the process at once: an exception inside an import would end in a traceback of any library.

    The verbs replace this handler when they begin; before that, there is nothing to clean up.
    """
    del frame
    cause = "interrupted" if number == signal.SIGINT else "terminated"
    os.write(2, f"paretofit: {cause} before it began; run the same command again\n".encode())
    os._exit(128 + number)
