"""Copies of structures without constraints, so that labels and predictions include the forces on every atom."""

from typing import Any


def copy_without_constraints(atoms: Any) -> Any:
    """Copy an `ase.Atoms` without its constraints and its calculator.

    ASE sets the forces on constrained atoms to zero, keeps these atoms in place when a cell is strained, and copies
    constraints with ``Atoms.copy``. This copy includes all other arrays, such as magnetic moments, and ``info``.
    """
    copy = type(atoms)(cell=atoms.cell, pbc=atoms.pbc, info=atoms.info, celldisp=atoms.get_celldisp().copy())
    copy.arrays = {name: array.copy() for name, array in atoms.arrays.items()}
    return copy
