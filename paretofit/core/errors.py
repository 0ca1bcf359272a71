"""Exceptions that the command line turns into exit codes 1 and 2, and checks that raise them."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used.

    The message names the file, key or configuration, describes the problem, and explains how to correct it.
    """


class ExecutionError(InputError):
    """Failure of a computation whose input is valid; the command line exits with code 1.

    The message names what failed and where to look for the cause.
    """


def suggest_match(word: str, valid_words: Iterable[str]) -> str:
    """Return ``"; did you mean 'weights'?"`` if `word` resembles a valid word, else an empty string."""
    matches = difflib.get_close_matches(word, list(valid_words), n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Check that an argument has one of its allowed values.

    Raises
    ------
    InputError
        If `value` is not in `choices`; the message names the argument, lists the choices and suggests the closest.
    """
    names = list(choices)
    if value not in names:
        raise InputError(f"{name} must be one of {', '.join(names)}; got '{value}'{suggest_match(str(value), names)}")
