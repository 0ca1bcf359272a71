"""Predictions of a potential."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paretofit.core import Array


@dataclass(frozen=True)
class Prediction:
    """What a potential gives for a configuration.

    Attributes
    ----------
    energy : float or (m,) float64
        eV, for each member of a committee.
    forces : (N, 3) or (m, N, 3) float64
        eV/Å.
    stress : (6,) or (m, 6) float64
        eV/Å³ in ASE's sign and Voigt order; NaN where the configuration is not periodic in three directions.
    """

    energy: Any
    forces: Array
    stress: Array
