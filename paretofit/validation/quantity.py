"""Quantities and errors that all properties of a validation share."""

from typing import NamedTuple

from paretofit.core import InputError


class Quantity(NamedTuple):
    """Named number with its unit; the unit of a dimensionless quantity is empty.

    `problem` describes why the value is implausible for a usable potential; it is empty for a plausible value.
    """

    name: str
    unit: str
    value: float
    problem: str = ""


class PropertyError(RuntimeError):
    """Error for a property that cannot be computed; the message contains the reason."""


def check_validate_extra() -> None:
    """Raise an `InputError` if packages of the extra `validate` are not installed."""
    try:
        import phonopy  # noqa: F401, PLC0415  (an extra)
        import spglib  # noqa: F401, PLC0415
    except ImportError as error:
        raise InputError(f"'validate' requires {error.name}: pip install 'paretofit[validate]'") from error
