"""Energies of atoms in the reservoirs from which atoms of compounds are added or to which they are removed.

They are a convention, not a property of the potential: stated energies come first; then each element's reference
crystal (ASE's), relaxed with the same potential. What the atoms of other elements have in the compound beyond these
energies is shared equally among them, so that the compound is in equilibrium with its reservoirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from ase import Atoms

from paretofit.validation.crystal import build_reference_crystal, compute_energy, relax_structure
from paretofit.validation.quantity import PropertyError


class ReservoirEnergies(NamedTuple):
    """Energy (eV) of an atom of each species in its reservoir, and the reservoir of each species in words."""

    energies: dict[str, float]
    reservoirs: dict[str, str]


def compute_reservoir_energies(
    calculator: Any, compound: Atoms, stated_energies: Mapping[str, float]
) -> ReservoirEnergies:
    """Choose and compute the energy of each species of a compound, or of an element, with a potential.

    Parameters
    ----------
    calculator : ase calculator
    compound : ase.Atoms
        Relaxed compound or element; an element is its own reservoir unless its energy is stated.
    stated_energies : mapping of str to float
        Energies of atoms, eV.
    """
    species = Counter(compound.symbols)
    energies = {symbol: float(stated_energies[symbol]) for symbol in species if symbol in stated_energies}
    reservoirs = dict.fromkeys(energies, "as stated")
    for symbol in sorted(set(species) - set(energies)) if len(species) > 1 else []:
        # a calculator may raise anything for an element that it cannot compute
        with suppress(Exception):
            energies[symbol] = _compute_crystal_energy(calculator, symbol)
            reservoirs[symbol] = f"crystal of {symbol}"
    missing = sorted(set(species) - set(energies))
    if missing:
        rest = compute_energy(compound, calculator) - sum(species[symbol] * energies[symbol] for symbol in energies)
        shares = dict.fromkeys(missing, rest / sum(species[symbol] for symbol in missing))
        text = "the structure itself" if len(species) == 1 else "in equilibrium with the compound"
        text += f", whose energy {' and '.join(missing)} share equally" if len(missing) > 1 else ""
        energies |= shares
        reservoirs |= dict.fromkeys(missing, text)
    return ReservoirEnergies(energies, reservoirs)


def _compute_crystal_energy(calculator: Any, symbol: str) -> float:
    """Compute the energy (eV/atom) of the relaxed reference crystal of an element."""
    crystal = build_reference_crystal(symbol)
    if crystal is None:
        raise PropertyError(f"ASE has no reference crystal of {symbol}")
    relaxed = relax_structure(calculator, crystal, relax_cell=True)
    return float(relaxed.get_potential_energy()) / len(relaxed)
