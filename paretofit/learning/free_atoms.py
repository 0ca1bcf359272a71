"""Energies of free atoms as a constraint of a SNAP model that is trained on labels of several levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paretofit.core import Array, InputError, list_first
from paretofit.dataset import Dataset, find_isolated_atoms, read_isolated_energies
from paretofit.descriptors import AnyBasis, ColumnConstraint, compute_free_atom_rows, select_level_energies

FreeAtomEnergies = dict[str, dict[str, float]]  # energies in eV by level and element


def collect_free_atom_energies(
    setting: str | Mapping[str, Any], dataset: Dataset, levels: Sequence[str], basis: AnyBasis
) -> tuple[FreeAtomEnergies, Array]:
    """Collect the known energies of free atoms: given by `setting` for the best (last) level, or labelled at any level.

    Returns
    -------
    energies : dict of str to dict of str to float
        eV by level and element.
    isolated_atoms : (n,) int64
        Positions of the isolated atoms in the dataset; the constraint replaces their rows.

    Raises
    ------
    InputError
        If the setting is "isolated", and an element has no labelled isolated atom.
    """
    if setting == "fitted":
        return {level: {} for level in levels}, np.empty(0, dtype=np.int64)
    isolated_atoms = find_isolated_atoms(dataset, basis.cutoff)
    energies = {
        level: read_isolated_energies(dataset, isolated_atoms, level, drop_unconverged=False) for level in levels
    }
    known_symbols = {symbol for by_element in energies.values() for symbol in by_element}
    if setting == "isolated" and (missing_elements := sorted(set(basis.elements) - known_symbols)):
        raise InputError(
            f"'learning.model.reference_energies: isolated' requires a labelled isolated atom of "
            f"{list_first(missing_elements, 5)}; add it to the structures, or give its energy"
        )
    energies[levels[-1]] |= select_level_energies(setting, levels[-1], levels[-1])
    return energies, np.array(sorted(atom.position for atom in isolated_atoms), dtype=np.int64)


def build_free_atom_constraint(
    energies: FreeAtomEnergies, basis: AnyBasis, shifted_levels: Sequence[str], best_level: str
) -> ColumnConstraint | None:
    """Build the constraint that makes a model reproduce the energies of free atoms; None if no energy is known.

    The columns are those of the basis, then an offset per atom of each shifted level and element. The energy of a free
    atom at the best level eliminates the constant column of its element. The energy at another level eliminates the
    offset of this level and element.
    """
    rows, n_columns, n_elements = compute_free_atom_rows(basis), basis.n_features, len(basis.elements)
    equations, pivots, values = [], [], []
    for k, level in enumerate([best_level, *shifted_levels]):
        for symbol, energy in energies[level].items():
            element = basis.elements.index(symbol)
            pivot = element if k == 0 else n_columns + (k - 1) * n_elements + element
            equation = np.concatenate([rows[element], np.zeros(n_elements * len(shifted_levels))])
            equation[pivot] = 1.0
            equations.append(equation)
            pivots.append(pivot)
            values.append(energy)
    if not pivots:
        return None
    return ColumnConstraint.from_equations(np.array(equations), np.array(pivots), {best_level: np.array(values)})
