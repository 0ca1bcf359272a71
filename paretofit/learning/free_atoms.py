"""Energies of free atoms as a constraint of a SNAP model that is trained on labels of several levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paretofit.core import Array, InputError, list_first
from paretofit.dataset import Dataset, find_isolated_atoms, read_isolated_energies
from paretofit.descriptors import AnyBasis, ColumnConstraint, compute_free_atom_rows, select_level_energies

FreeAtomEnergies = dict[str, dict[str, float]]  # energies of free atoms in eV, by level and element


def collect_free_atom_energies(
    setting: str | Mapping[str, Any], dataset: Dataset, levels: Sequence[str], basis: AnyBasis
) -> tuple[FreeAtomEnergies, Array]:
    """Collect the known energies of free atoms, which a model then reproduces exactly.

    Parameters
    ----------
    setting : str or mapping of str to float
        'learning.model.reference_energies'. Energies by element (eV) apply to the best level, and replace labels. With
        "auto" or "isolated", the energies are those of labelled isolated atoms. With "fitted", none are known.
    dataset : Dataset
    levels : sequence of str
        Levels of the labels, with the best level last.
    basis : SnapBasis or PodBasis
        Basis whose cutoff decides which atoms are isolated.

    Returns
    -------
    energies : dict of str to dict of str to float
        Energies in eV by level and element.
    isolated_indices : (n,) int64
        Indices of the isolated atoms in the dataset, sorted; the constraint replaces their rows. Empty for "fitted".

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
    return energies, np.array(sorted(atom.dataset_index for atom in isolated_atoms), dtype=np.int64)


def build_free_atom_constraint(
    energies: FreeAtomEnergies, basis: AnyBasis, shifted_levels: Sequence[str], best_level: str
) -> ColumnConstraint | None:
    """Build the constraint that makes a model reproduce the energies of free atoms; None if no energy is known.

    The columns are those of the basis, then an offset per atom of each shifted level and element. The energy of a free
    atom at the best level eliminates the constant column of its element. The energy at another level eliminates the
    offset of this level and element.

    Parameters
    ----------
    energies : dict of str to dict of str to float
        Result of `collect_free_atom_energies`.
    basis : SnapBasis or PodBasis
    shifted_levels : sequence of str
        Levels with fitted offsets relative to the best level.
    best_level : str
    """
    rows, n_columns, n_elements = compute_free_atom_rows(basis), basis.n_features, len(basis.elements)
    equations, pivots, targets = [], [], []
    for level_number, level in enumerate([best_level, *shifted_levels]):
        for symbol, energy in energies[level].items():
            element = basis.elements.index(symbol)
            # the constant columns are the first of the basis
            pivot = element if level_number == 0 else n_columns + (level_number - 1) * n_elements + element
            equation = np.concatenate([rows[element], np.zeros(n_elements * len(shifted_levels))])
            equation[pivot] = 1.0
            equations.append(equation)
            pivots.append(pivot)
            targets.append(energy)
    if not pivots:
        return None
    return ColumnConstraint.from_equations(np.array(equations), np.array(pivots), {best_level: np.array(targets)})
