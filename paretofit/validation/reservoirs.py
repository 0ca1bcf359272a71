"""Energies of atoms in reservoirs, with which a compound exchanges the atoms that a defect adds or removes.

The choice of reservoirs is a convention. The energy of each element of a compound is the one that the user states or,
otherwise, the energy per atom of ASE's reference crystal, relaxed with the same potential. Elements without either
share the remaining energy of the compound equally, so that the compound is in equilibrium with its reservoirs.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from ase import Atoms

from paretofit.validation.crystal import build_reference_crystal, compute_energy, relax_structure
from paretofit.validation.quantity import PropertyError


class ReservoirEnergies(NamedTuple):
    """Energy (eV) of an atom of each species in its reservoir, and a description of the reservoir of each species."""

    energies: dict[str, float]
    reservoirs: dict[str, str]


def compute_reservoir_energies(
    calculator: Any, compound: Atoms, stated_energies: Mapping[str, float]
) -> ReservoirEnergies:
    """Choose a reservoir for each species of a compound or an element, and compute the energies of its atoms.

    Parameters
    ----------
    calculator : ase calculator
    compound : ase.Atoms
        Relaxed compound or element; an element is its own reservoir unless its energy is stated.
    stated_energies : mapping of str to float
        Energies of atoms in their reservoirs, eV, for any of the species.
    """
    composition = Counter(compound.symbols)
    energies = {symbol: float(stated_energies[symbol]) for symbol in composition if symbol in stated_energies}
    reservoirs = dict.fromkeys(energies, "as stated")
    for symbol in sorted(set(composition) - set(energies)) if len(composition) > 1 else []:
        # a calculator may raise anything for an element that it cannot compute; the element then counts as missing
        with suppress(Exception):
            energies[symbol] = _compute_crystal_energy(calculator, symbol)
            reservoirs[symbol] = f"crystal of {symbol}"
    missing_elements = sorted(set(composition) - set(energies))
    if missing_elements:
        known_energy = sum(composition[symbol] * energies[symbol] for symbol in energies)
        n_remaining_atoms = sum(composition[symbol] for symbol in missing_elements)
        share = (compute_energy(compound, calculator) - known_energy) / n_remaining_atoms
        reservoir = "the structure itself" if len(composition) == 1 else "in equilibrium with the compound"
        if len(missing_elements) > 1:
            reservoir += f", whose energy {' and '.join(missing_elements)} share equally"
        energies |= dict.fromkeys(missing_elements, share)
        reservoirs |= dict.fromkeys(missing_elements, reservoir)
    return ReservoirEnergies(energies, reservoirs)


def _compute_crystal_energy(calculator: Any, symbol: str) -> float:
    """Compute the energy (eV/atom) of the relaxed reference crystal of an element.

    Raises
    ------
    PropertyError
        If ASE has no reference crystal, or its relaxation fails.
    """
    crystal = build_reference_crystal(symbol)
    if crystal is None:
        raise PropertyError(f"ASE has no reference crystal of {symbol}")
    relaxed_crystal = relax_structure(calculator, crystal, relax_cell=True)
    return float(relaxed_crystal.get_potential_energy()) / len(relaxed_crystal)
