"""Ctrl-C and SIGTERM while the verbs are imported, which takes a second on a busy machine.

This module is at the top level, because importing the `__init__` of a subpackage takes ten milliseconds.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def catch_early_signals() -> None:
    """End with a message on a signal that arrives during imports; `VerbGroup.invoke` takes over afterwards."""
    for signal_number, default_handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if signal.getsignal(signal_number) == default_handler:  # a shell's background processes ignore SIGINT
            signal.signal(signal_number, exit_early)


def exit_early(signal_number: int, frame: FrameType | None) -> None:
    """Handle a signal during start-up: end the process at once, without a traceback.

    An exception raised during an import would print the traceback of whichever library was being imported. The CLI
    verbs replace this handler when they begin; before that, there is nothing to clean up.
    """
    del frame
    cause = "interrupted" if signal_number == signal.SIGINT else "terminated"
    os.write(2, f"paretofit: {cause} during start-up; run the same command again\n".encode())
    os._exit(128 + signal_number)
