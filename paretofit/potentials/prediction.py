"""Energy, forces and stress of a configuration, as labels and as predictions of a potential."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ase import Atoms

from paretofit.core import Array, InputError


class StructureLabels(NamedTuple):
    """Labels of one structure: eV, (N, 3) eV/Å, (6,) eV/Å³; NaN where there is no label."""

    energy: float
    forces: Array
    stress: Array


class Prediction(NamedTuple):
    """Predictions of a potential, or of every member of a committee, for one structure.

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


def check_elements(atoms: Atoms, elements: Sequence[str]) -> None:
    """Refuse a structure with an element that a potential lacks."""
    if unknown := sorted(set(atoms.get_chemical_symbols()) - set(elements)):
        raise InputError(f"there is no {unknown[0]} in this potential; it has {', '.join(elements)}")
