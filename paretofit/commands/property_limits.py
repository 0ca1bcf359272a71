"""Limits of the errors of properties, such as ``C44=5GPa``, and checks of their names and units."""

import math
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from paretofit.core import InputError, suggest_match
from paretofit.properties import get_error_column, get_property_name, is_property_error


def parse_property_limits(texts: Sequence[str]) -> dict[str, str]:
    """Parse limits of properties, such as ``C44=5`` or ``C44=5GPa``.

    Returns
    -------
    dict of str to str
        Limit by name of the property, as text with its unit, if any, such as ``"5GPa"``.

    Raises
    ------
    InputError
        If a text has another form, or a property has two limits.
    """
    limits: dict[str, str] = {}
    for text in texts:
        name, separator, limit = (part.strip() for part in text.partition("="))
        if name in limits:
            raise InputError(f"'{name}' has two limits; specify one")
        if not (name and separator):
            raise InputError(f"a limit of a property must be a name and a number, such as C44=5; got '{text}'")
        limits[name] = limit
    return limits


def convert_property_limits(
    limits: Mapping[str, float | str], results: pd.DataFrame, units: Mapping[str, str]
) -> dict[str, float]:
    """Convert limits of properties to numbers, and check that the results have these properties.

    Parameters
    ----------
    limits : mapping of str to float or str
        Numbers, or texts such as ``"5 GPa"``, by the name of the property.
    results : DataFrame
        Results table.
    units : mapping of str to str
        Units by name of the property. A property whose unit is not known is missing, and its limit must have no unit.

    Returns
    -------
    dict of str to float
        Limit by the results column of the error, in the unit of the property.

    Raises
    ------
    InputError
        If a property is not among the results, a limit is not a positive number, or its unit is not that of the
        property.
    """
    names = [get_property_name(column) for column in map(str, results) if is_property_error(column)]
    numbers = {}
    for name, limit in limits.items():
        if name not in names:
            available = ", ".join(names) or "none; add 'properties' to the study and run it again"
            hint = suggest_match(name, names)
            raise InputError(f"the results have no property '{name}'; available: {available}{hint}")
        # a number and an optional unit
        match = re.fullmatch(r"\+?([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([^0-9.+-].*)?", str(limit))
        try:
            number = float(match.group(1)) if match is not None else math.nan
        except ValueError:  # the pattern also matches several decimal points, or a decimal point without digits
            number = math.nan
        if match is None or not 0 < number < math.inf:
            raise InputError(f"the limit of '{name}' must be a positive number, such as {name}=5; got {limit}")
        unit = units.get(name, "")
        if match.group(2) and _simplify_unit(match.group(2)) != _simplify_unit(unit):
            remedy = f"give the limit in {unit}" if unit else "give the number only"
            raise InputError(f"the unit of '{name}' is {unit or 'not known here'}; got {limit}; {remedy}")
        numbers[get_error_column(name)] = number
    return numbers


def _simplify_unit(unit: str) -> str:
    """Return a unit in lower case, without spaces and without characters that a keyboard may lack."""
    for character, replacement in (("Å", "A"), ("²", "2"), ("³", "3"), ("^", ""), (" ", "")):
        unit = unit.replace(character, replacement)
    return unit.lower()
