"""Words in LAMMPS scripts: which file names LAMMPS can read, how to quote them, and how to split lines with quotes."""

import os
import re
from pathlib import Path

from paretofit.core import InputError

PLAIN_WORD = re.compile(r"[A-Za-z0-9._/+-]+")  # a word that needs no quotes
# A word in triple, double or single quotes, a comment, or a word without quotes.
WORD_OR_COMMENT = re.compile(r""" \"\"\"(.*?)\"\"\" | "([^"]*)" | '([^']*)' | (\#.*) | ([^\s"'\#]+) """, re.VERBOSE)
# LAMMPS's include command substitutes variables and reads quotes in its argument; with a slash, a name is a path.
UNREADABLE_IN_NAMES = "/\\$\"'"
MAX_NAME_BYTES = 200  # file systems allow 255 bytes, including the suffix


def check_potential_name(name: str) -> None:
    """Check that the files of a potential can have this name, before any expensive step.

    Raises
    ------
    InputError
        If the name is empty, hidden, too long or a path, or has characters that LAMMPS cannot read.
    """
    reason = ""
    if not name or name.startswith("."):
        reason = "it must not be empty or start with a dot"
    elif bad_characters := [
        repr(character) for character in name if character in UNREADABLE_IN_NAMES or not _is_readable(character)
    ]:
        reason = f"LAMMPS cannot read file names with {bad_characters[0]}"
    elif len(name) > MAX_NAME_BYTES:
        reason = f"it must have at most {MAX_NAME_BYTES} bytes"
    if reason:
        raise InputError(f"the files of a potential cannot have the name {name!r}: {reason}; choose another name")


def quote_path(path: Path | str) -> str:
    """Quote a path for a line of a LAMMPS script, unless it only has letters, digits and ``. _ / + -``.

    If an absolute path has characters that LAMMPS cannot read, such as ``/home/José/x``, it is replaced by the path
    relative to the working directory.

    Raises
    ------
    InputError
        If the resulting path has characters that LAMMPS cannot read, or both single and double quotes.
    """
    text = str(path)
    if not all(map(_is_readable, text)) and Path(path).is_absolute():
        text = os.path.relpath(path)
    if PLAIN_WORD.fullmatch(text):
        return text
    if bad_characters := [repr(character) for character in text if not _is_readable(character)]:
        raise InputError(f"LAMMPS cannot read the path {text} because of {bad_characters[0]}; move or rename it")
    if '"' in text and "'" in text:
        raise InputError(f"LAMMPS cannot read the path {text} with both kinds of quotes; move or rename it")
    quote = '"' if '"' not in text else "'"  # in quotes, LAMMPS reads # and $ literally
    return f"{quote}{text}{quote}"


def split_words(line: str) -> list[str]:
    """Split a line of a LAMMPS script into words without their quotes; a comment at the end is omitted."""
    words = []
    for match in WORD_OR_COMMENT.finditer(line):
        if match[4] is not None:  # the group of comments
            break
        words.append(next(group for group in match.groups() if group is not None))
    return words


def _is_readable(character: str) -> bool:
    """Return whether a character is printable ASCII; LAMMPS replaces or misreads other characters."""
    return character.isascii() and character.isprintable()
