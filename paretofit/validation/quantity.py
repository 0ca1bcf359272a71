"""One number that a validation gives, and what all of them share."""

from __future__ import annotations

from typing import NamedTuple

from paretofit.core import InputError


class Quantity(NamedTuple):
    """A named number with its unit; ``""`` for what has none."""

    name: str
    unit: str
    value: float


class PropertyError(RuntimeError):
    """A property that cannot be had from this potential for this structure; the message is the reason."""


def check_validate_extra() -> None:
    """Raise an `InputError` unless the packages of the extra `validate` are there."""
    try:
        import phonopy  # noqa: F401, PLC0415  (an extra)
        import spglib  # noqa: F401, PLC0415
    except ImportError as error:
        raise InputError(f"validate needs {error.name}; install it with: pip install 'paretofit[validate]'") from error
