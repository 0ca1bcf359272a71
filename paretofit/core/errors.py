"""Exceptions that the command line turns into exit codes 1 and 2, and checks that raise them."""

import difflib
import errno
import os
from collections.abc import Iterable

_ERRNOS_BY_ADVICE = {
    "free some space": (errno.ENOSPC, errno.EDQUOT),
    "choose a writable folder": (errno.EROFS,),
    "change the permissions, or choose another folder": (errno.EACCES, errno.EPERM),
    "check the disk": (errno.EIO,),
    "check the network disk": (errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN),
    "move the existing file away": (errno.EEXIST, errno.ENOTDIR),
    "move the existing folder away": (errno.EISDIR,),
    "choose a shorter name": (errno.ENAMETOOLONG,),
    "correct the symbolic links": (errno.ELOOP,),
    "raise the limit of open files (ulimit -n), or use fewer --jobs": (errno.EMFILE,),
    "wait until other programs close files, or use fewer --jobs": (errno.ENFILE,),
    "wait until other programs end, or use fewer --jobs": (errno.EAGAIN,),
    "wait until other programs release it": (errno.EBUSY, errno.ETXTBSY),
    "free some memory, or use fewer --jobs": (errno.ENOMEM,),
}
# Advice by errno, for errors of the operating system that say nothing about the content of a file.
ADVICE_BY_ERRNO = {number: advice for advice, numbers in _ERRNOS_BY_ADVICE.items() for number in numbers}
DEFAULT_SYSTEM_ADVICE = "correct the cause"


class InputError(ValueError):
    """Input that cannot be used.

    The message names the file, key or configuration, describes the problem, and explains how to correct it.
    """


class ExecutionError(InputError):
    """Failure of a computation whose input is valid; the command line exits with code 1.

    The message names what failed and where to look for the cause. The class derives from `InputError`, so that
    ``except InputError`` catches every error that has a message for the user.
    """


def describe_system_error(error: OSError, path: object = None) -> str:
    """Describe an error of the operating system: the file, what is wrong, and what to do.

    The file is `path` or, by default, the file that the error names, if it names one.
    """
    name = error.filename if path is None else path
    error_number = error.errno or 0
    reason = os.strerror(error_number) if error_number else str(error) or type(error).__name__
    prefix = f"{name}: " if name else ""
    advice = ADVICE_BY_ERRNO.get(error_number, DEFAULT_SYSTEM_ADVICE)
    return f"{prefix}{' '.join(reason.split())}; {advice}"


def raise_if_system_error(error: BaseException, path: object) -> None:
    """Raise an `ExecutionError` if a file could not be read because of the system rather than of the file's content.

    Functions that report or replace a corrupt file call this function first. It does nothing for a missing file, or for
    an OSError without a number, which HDF5 raises for corrupt content.
    """
    if isinstance(error, OSError) and error.errno in ADVICE_BY_ERRNO:
        raise ExecutionError(f"{describe_system_error(error, path)}, then run the same command again") from error


def suggest_match(word: str, valid_words: Iterable[str]) -> str:
    """Return ``"; did you mean 'weights'?"`` if `word` resembles a valid word, else an empty string."""
    matches = difflib.get_close_matches(word, list(valid_words), n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Check that an argument has one of its allowed values.

    Raises
    ------
    InputError
        If `value` is not in `choices`; the message names the argument, lists the choices and suggests the closest one.
    """
    options = list(choices)
    if value not in options:
        suggestion = suggest_match(str(value), options)
        raise InputError(f"{name} must be one of {', '.join(options)}; got '{value}'{suggestion}")
