"""Reference energies: the setting, the rows of free atoms, and designs whose models reproduce free atoms exactly.

The energy of a free atom is A β, with the row A of the atom in vacuum. A β = E₀ is a `ColumnConstraint` with the
constant column of the element as pivot: energy rows X become X - x A, and their targets y become y - x E₀, where x is
the fraction of atoms of this element. Force and stress rows do not change, and a solver of the reduced rows need not
know the constraint.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from pydantic import BeforeValidator

from paretofit.core import Array, InputError, Name, get_shared_lammps, hash_json
from paretofit.descriptors.any_basis import AnyBasis, parse_basis, require_descriptors
from paretofit.descriptors.atoms import compute_energy_row
from paretofit.descriptors.column_constraint import ColumnConstraint
from paretofit.descriptors.design import DesignMatrix

MODES = ("auto", "isolated", "fitted")  # settings that are a word
MIN_DESCRIPTOR = 1e-12  # smaller descriptors of a free atom are rounding errors of the subtraction by `bzeroflag`
VALID_SETTINGS = "must be auto, isolated, fitted, or energies in eV by element, such as {C: -1.25}"


def _check_setting(value: Any) -> Any:
    """Return a valid setting of any form, or raise ValueError; pydantic's message would list an error for each form."""
    if not isinstance(value, Mapping):
        if value not in MODES:
            raise ValueError(VALID_SETTINGS)
        return value
    for key, entry in value.items():  # an element and its energy, or a level and its energies by element
        energies = entry if isinstance(entry, Mapping) else {key: entry}
        for symbol, energy in energies.items():
            if not atomic_numbers.get(symbol):
                raise ValueError(f"'{symbol}' is not a chemical symbol; the setting {VALID_SETTINGS}")
            is_number = isinstance(energy, int | float) and not isinstance(energy, bool)
            if not (is_number and math.isfinite(energy)):
                raise ValueError(f"the energy of {symbol} must be a finite number of eV; got {energy}")
    return value


AtomicEnergies = dict[Name, float]
ReferenceEnergySetting = Annotated[
    Literal["auto", "isolated", "fitted"] | dict[Name, float | AtomicEnergies], BeforeValidator(_check_setting)
]


def parse_reference_energies(text: str) -> str | dict[str, float]:
    """Parse the setting from the command line: a word of `MODES`, or energies in eV such as ``C=-1.25,O=-1.9``.

    Raises
    ------
    InputError
        If the text is not one of the words, and an energy is missing or not a number.
    """
    if text in MODES:
        return text
    energies = {}
    for entry in text.split(","):
        symbol, _, energy = entry.partition("=")
        try:
            energies[symbol.strip()] = float(energy)
        except ValueError as error:
            raise InputError(
                f"--reference-energies must be auto, isolated, fitted, or energies in eV such as C=-1.25,O=-1.9; "
                f"got '{text}'"
            ) from error
    return energies


def select_level_energies(setting: str | Mapping[str, Any], level: str, reference_level: str) -> dict[str, float]:
    """Return the energies of free atoms (eV) by element that a setting specifies for a level.

    Energies that are specified without a level apply to the reference level only. A setting that is a word specifies
    none.

    >>> select_level_energies({"C": -1.0, "cheap": {"C": -0.9}}, "cheap", "good")
    {'C': -0.9}
    """
    if isinstance(setting, str):
        return {}
    energies_without_level = {key: float(entry) for key, entry in setting.items() if not isinstance(entry, Mapping)}
    level_energies = setting.get(level, {})
    energies = energies_without_level if level == reference_level else {}
    return energies | (dict(level_energies) if isinstance(level_energies, Mapping) else {})


def compute_free_atom_rows(basis: AnyBasis, symbols: Sequence[str] | None = None) -> Array:
    """Compute the energy rows of free atoms, ``(n_symbols, n_features) float64``.

    The atoms are those of `symbols` or, by default, of all elements of the basis. Entries with an absolute value
    below `MIN_DESCRIPTOR` are set to 0.
    """
    lammps = get_shared_lammps()
    elements = basis.elements if symbols is None else symbols
    rows = np.array([compute_energy_row(lammps, basis, Atoms(symbol)) for symbol in elements])
    return np.where(np.abs(rows) < MIN_DESCRIPTOR, 0.0, rows)


def constrain_free_atoms(design: DesignMatrix, energies: Mapping[str, Mapping[str, float]]) -> DesignMatrix:
    """Return a design whose models reproduce given energies of free atoms exactly.

    The constant columns of the elements with such an energy are eliminated.

    Parameters
    ----------
    design : DesignMatrix
        From `compute_design`, with labels.
    energies : mapping of level to mapping of str to float
        Energies of free atoms (eV) by element, with the same elements for all levels of the design. Without energies,
        the design is returned unchanged.

    Raises
    ------
    InputError
        If the basis of the design is a `RowsBasis`, or its rows cannot be read.
    """
    symbols = sorted({symbol for energy_by_element in energies.values() for symbol in energy_by_element})
    if not symbols:
        return design
    basis = require_descriptors(parse_basis(design.attributes["basis"]))
    pivots = np.array([basis.elements.index(symbol) for symbol in symbols])
    level_energies = {level: np.array([energies[level][symbol] for symbol in symbols]) for level in design.targets}
    return design.with_constraint(
        ColumnConstraint.from_equations(compute_free_atom_rows(basis, symbols), pivots, level_energies),
        f"free atoms {hash_json(symbols)}",
    )
