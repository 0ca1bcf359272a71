"""The one exception that means "the input is wrong"; the command line turns it into exit code 2."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used.

    The message is one sentence that names the file, key or configuration, what is wrong, and what
    would be right.
    """


class ExecutionError(InputError):
    """Work that failed though the input can be used; the command line turns it into exit code 1.

    The message says what failed, and where to look.
    """


def suggest_match(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'weights'?"`` where `word` is close to a known one, else an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
