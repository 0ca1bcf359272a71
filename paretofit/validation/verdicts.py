"""Verdicts on the values of a validation, which flag implausible values and deviations from a reference.

A value is flagged if its measurement found a problem (see `Quantity`), or if it deviates from the reference by more
than the tolerance of its unit. The tolerances are conventions: a potential within them is usually called accurate.
"""

from typing import Any

import numpy as np
import pandas as pd

FLAG = "flagged"  # first word of the verdict on a flagged value
TOLERANCES_PERCENT = {  # tolerances of the deviation from the reference, by unit
    "Å": 1.0, "Å/atom": 1.0, "Å²/atom": 2.0, "Å³/atom": 3.0, "GPa": 10.0, "N/m": 10.0, "nN": 10.0, "THz": 5.0,
    "1/cm": 5.0, "eV": 10.0, "J/m²": 10.0, "": 10.0,
}  # fmt: skip
TOLERANCES = {"°": 1.0, "meV/atom": 10.0}  # absolute tolerances by unit, because these quantities may be zero
# Quantities that may be zero by symmetry, or whose deviation says nothing about the accuracy.
UNCOMPARED_QUANTITIES = ("lowest frequency", "lowest eigenvalue of C", "inner turning distance", "vibrations")
UNCOMPARED_PROPERTIES = ("md",)  # properties that depend on random numbers


def add_verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Add the relative deviation from the reference and a verdict to a table of values.

    Parameters
    ----------
    table : DataFrame
        ``property, structure, quantity, unit, potential, reference, difference`` and ``problem``.

    Returns
    -------
    DataFrame
        The table without ``problem``, but with ``deviation_percent`` (NaN if the quantity is not compared, its unit has
        no tolerance in %, or the reference is zero) and ``verdict``, which begins with ``"flagged"``, is ``"agrees"``,
        or is empty if the value cannot be compared.
    """
    has_percentage = table["unit"].isin(TOLERANCES_PERCENT) & table["reference"].abs().gt(0) & _find_comparable(table)
    deviation = 100 * table["difference"] / table["reference"].abs()
    table = table.assign(deviation_percent=deviation.where(has_percentage, np.nan))
    verdicts = [_assess_row(row) for row in table.itertuples(index=False)]
    return table.drop(columns="problem").assign(verdict=verdicts)


def _find_comparable(table: pd.DataFrame) -> pd.Series:
    """Return whether the value in each row can be compared with a reference."""
    return ~table["quantity"].isin(UNCOMPARED_QUANTITIES) & ~table["property"].isin(UNCOMPARED_PROPERTIES)


def _assess_row(row: Any) -> str:
    """Return the verdict on a row of a table with ``deviation_percent``; see `add_verdicts`."""
    if row.problem:
        return f"{FLAG}: {row.problem}"
    if np.isfinite(row.deviation_percent):
        limit = TOLERANCES_PERCENT[row.unit]
        if abs(row.deviation_percent) > limit:
            return f"{FLAG}: differs by more than {limit:g} %"
        return "agrees"
    is_comparable = row.property not in UNCOMPARED_PROPERTIES and np.isfinite(row.difference)
    if row.unit in TOLERANCES and is_comparable:
        limit = TOLERANCES[row.unit]
        return "agrees" if abs(row.difference) <= limit else f"{FLAG}: differs by more than {limit:g} {row.unit}"
    return ""
