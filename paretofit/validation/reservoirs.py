"""Energies of atoms in the reservoirs from which atoms of compounds are added or to which they are removed.

They are a convention, not a property of the potential: stated energies come first; then each element's reference
crystal (ASE's), relaxed with the same potential; one element without a crystal is in equilibrium with the compound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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

    Raises
    ------
    PropertyError
        If more than one species has neither a stated energy nor a reference crystal.
    """
    species = Counter(compound.symbols)
    energies = {symbol: float(stated_energies[symbol]) for symbol in species if symbol in stated_energies}
    reservoirs = dict.fromkeys(energies, "as stated")
    undefined = {}
    for symbol in sorted(set(species) - set(energies)) if len(species) > 1 else []:
        try:
            energies[symbol], reservoirs[symbol] = _compute_crystal_energy(calculator, symbol)
        except Exception as error:  # noqa: BLE001  (a calculator may raise anything for an element that it cannot compute)
            undefined[symbol] = str(error)
    missing = sorted(set(species) - set(energies))
    if len(missing) > 1:
        reasons = "; ".join(f"{symbol}: {undefined[symbol]}" for symbol in missing)
        raise PropertyError(
            f"the reference energies of {' and '.join(missing)} are undefined ({reasons}); state all but one of them "
            "with --reference-energy"
        )
    if missing:
        (symbol,) = missing
        others = sum(species[other] * energies[other] for other in energies)
        energies[symbol] = (compute_energy(compound, calculator) - others) / species[symbol]
        reservoirs[symbol] = "in equilibrium with the compound" if len(species) > 1 else "the structure itself"
    return ReservoirEnergies(energies, reservoirs)


def _compute_crystal_energy(calculator: Any, symbol: str) -> tuple[float, str]:
    """Compute the energy (eV/atom) of the relaxed reference crystal of an element, and describe the crystal."""
    crystal = build_reference_crystal(symbol)
    if crystal is None:
        raise PropertyError("ASE has no reference crystal")
    relaxed = relax_structure(calculator, crystal, relax_cell=True)
    return float(relaxed.get_potential_energy()) / len(relaxed), f"crystal of {symbol}"
