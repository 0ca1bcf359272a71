"""Energy, forces and stress of a structure, as labels and as predictions of a potential."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ase import Atoms

from paretofit.core import Array, InputError


class StructureLabels(NamedTuple):
    """Total energy in eV, forces (N, 3) in eV/Å and stress (6,) in eV/Å³ of one structure; missing labels are NaN.

    Stresses have ASE's sign and Voigt order.
    """

    energy: float
    forces: Array
    stress: Array


class Prediction(NamedTuple):
    """Predictions of a single potential, or of each of the m members of a committee, for one structure.

    Attributes
    ----------
    energy : float or (m,) float64
        Total energy in eV.
    forces : (N, 3) or (m, N, 3) float64
        Forces in eV/Å.
    stress : (6,) or (m, 6) float64
        Stress in eV/Å³ with ASE's sign and Voigt order; NaN if the structure is not periodic in three directions.
    """

    energy: Any
    forces: Array
    stress: Array


def check_elements(atoms: Atoms, elements: Sequence[str]) -> None:
    """Raise `InputError` if a structure contains an element that is not in `elements`, those of a potential."""
    if unknown_elements := sorted(set(atoms.get_chemical_symbols()) - set(elements)):
        problem = f"the potential does not contain {unknown_elements[0]}"
        raise InputError(f"{problem}; available elements: {', '.join(elements)}")
