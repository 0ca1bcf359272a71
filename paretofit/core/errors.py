"""Exceptions that the command line turns into exit codes 1 and 2, and checks that raise them."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used.

    The message names the file, key or configuration, says what is wrong, and how to correct it.
    """


class ExecutionError(InputError):
    """Work that failed although the input is valid; the command line turns it into exit code 1.

    The message says what failed, and where to look.
    """


def suggest_match(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'weights'?"`` if `word` resembles a known word, else an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Check that an argument has one of its allowed values.

    Raises
    ------
    InputError
        If `value` is not in `choices`; the message names the argument, lists the choices and suggests the closest.
    """
    known = list(choices)
    if value not in known:
        raise InputError(f"{name} must be one of {', '.join(known)}; got '{value}'{suggest_match(str(value), known)}")
