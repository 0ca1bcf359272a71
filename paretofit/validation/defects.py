"""Formation energies of point defects, relaxed with one potential and evaluated with one or more.

E_f = E(defective) - E(pristine) + Σ_s n_s μ_s, with n_s atoms of species s removed (Bidoggia et al., 2025). In an
element, the pristine structure is also the reservoir: μ = E(pristine)/N. For compounds, see
`paretofit.validation.reservoirs`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atom, Atoms

from paretofit.validation.crystal import (
    FORCE_TOLERANCE,
    compute_energy,
    find_symmetry,
    relax_structure,
    repeat_to_length,
)
from paretofit.validation.environment import are_equivalent, describe_environments
from paretofit.validation.quantity import PropertyError
from paretofit.validation.stone_wales import find_rotatable_bonds, rotate_bond

MAX_STONE_WALES = 4  # number of inequivalent bonds that are rotated; others are reported as failures


@dataclass(frozen=True)
class DefectCells:
    """Cells with defects, relaxed at the lattice constants of the pristine cell.

    Attributes
    ----------
    pristine : ase.Atoms
    cells : dict of str to ase.Atoms
        Cells by the name of the defect: ``vacancy``, ``divacancy``, ``Stone-Wales``, ``interstitial 1``, ...; in
        compounds ``vacancy Ni``, ``antisite Al on Ni``, ...
    failures : dict of str to str
        Reasons why defects are missing, by name.
    """

    pristine: Atoms
    cells: dict[str, Atoms]
    failures: dict[str, str]


def relax_defect_cells(
    calculator: Any, crystal: Atoms, *, min_length: float, interstitials: Sequence[Sequence[float]] = ()
) -> DefectCells:
    """Relax vacancies and antisites on each inequivalent site, a divacancy, Stone-Wales defects and interstitials.

    Molecules have Stone-Wales defects only, because a molecule without an atom is another molecule.

    Parameters
    ----------
    calculator : ase calculator
    crystal : ase.Atoms
        Relaxed crystal, sheet, wire or molecule.
    min_length : float
        Smallest distance between opposite faces of the supercell in periodic directions, Å.
    interstitials : sequence of (3,) float
        Sites in fractional coordinates of `crystal`; each site gets an atom of each species in turn.

    Raises
    ------
    PropertyError
        If the structure has none of these defects.
    """
    pristine = repeat_to_length(crystal, min_length)
    unrelaxed_cells: dict[str, Atoms] = {}
    if crystal.pbc.any():
        unrelaxed_cells = _build_unrelaxed_cells(crystal, pristine, interstitials)
    bonds = find_rotatable_bonds(pristine)
    for number, bond in enumerate(bonds[:MAX_STONE_WALES], start=1):
        unrelaxed_cells["Stone-Wales" if len(bonds) == 1 else f"Stone-Wales {number}"] = rotate_bond(pristine, bond)
    if not unrelaxed_cells:
        raise PropertyError("a molecule without bonds between three-coordinated atoms has no defects that are computed")
    cells: dict[str, Atoms] = {}
    failures: dict[str, str] = {}
    if len(bonds) > MAX_STONE_WALES:
        failures["Stone-Wales"] = f"{MAX_STONE_WALES} of {len(bonds)} inequivalent bonds are rotated"
    for name, atoms in unrelaxed_cells.items():
        try:
            cells[name] = relax_structure(calculator, atoms, relax_cell=False, fmax=FORCE_TOLERANCE)
            cells[name].calc = None  # the calculator is shared with other cells
        except PropertyError as error:
            failures[name] = str(error)
    return DefectCells(pristine, cells, failures)


def compute_formation_energies(
    calculator: Any, defects: DefectCells, reference_energies: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Compute the formation energy (eV) of each defect by name, without further relaxation.

    Parameters
    ----------
    calculator : ase calculator
    defects : DefectCells
    reference_energies : mapping of str to float, optional
        Energy of an atom of each species in its reservoir, eV; by default the energy per atom of `defects.pristine`,
        which is only correct for elements.
    """
    pristine_energy = compute_energy(defects.pristine, calculator)
    composition = Counter(defects.pristine.symbols)
    energies = reference_energies or dict.fromkeys(composition, pristine_energy / len(defects.pristine))
    results = {}
    for name, cell in defects.cells.items():
        counts = Counter(cell.symbols)
        removed_energy = sum((composition[symbol] - counts[symbol]) * energies[symbol] for symbol in composition)
        results[name] = compute_energy(cell, calculator) - pristine_energy + removed_energy
    return results


def find_inequivalent_sites(crystal: Atoms) -> list[int]:
    """Find one atom for each kind of site: by symmetry in crystals, else by species and distances to neighbours.

    In wires and molecules, spglib would miss symmetries that no lattice has, such as five-fold axes.
    """
    if crystal.pbc.all():
        return sorted(set(find_symmetry(crystal).equivalent_atoms.tolist()))
    sites: list[int] = []
    environments = describe_environments(crystal)
    for k, environment in enumerate(environments):
        if not any(
            crystal.numbers[site] == crystal.numbers[k] and are_equivalent(environments[site], environment)
            for site in sites
        ):
            sites.append(k)
    return sites


def _build_unrelaxed_cells(
    crystal: Atoms, pristine: Atoms, interstitials: Sequence[Sequence[float]]
) -> dict[str, Atoms]:
    """Build supercells with vacancies, antisites, one divacancy and interstitials, by name."""
    sites = find_inequivalent_sites(crystal)
    species = sorted(set(crystal.symbols))
    site_counts = Counter(crystal.symbols[site] for site in sites)
    cells = {}
    for site in sites:
        symbol, index = crystal.symbols[site], _find_nearest_atom(pristine, crystal.positions[site])
        suffix = f" {site + 1}" if site_counts[symbol] > 1 else ""
        name = "vacancy" if len(species) == 1 else f"vacancy {symbol}"
        cells[f"{name}{suffix}"] = _remove_atoms(pristine, [index])
        for other_symbol in species:
            if other_symbol != symbol:
                cell = pristine.copy()
                cell.symbols[index] = other_symbol
                cells[f"antisite {other_symbol} on {symbol}{suffix}"] = cell
    first_index = _find_nearest_atom(pristine, crystal.positions[sites[0]])
    distances = pristine.get_distances(first_index, range(len(pristine)), mic=True)
    distances[first_index] = np.inf
    second_index = int(np.argmin(distances))
    pair = "-".join(sorted(str(pristine.symbols[k]) for k in (first_index, second_index)))
    cells["divacancy" if len(species) == 1 else f"divacancy {pair}"] = _remove_atoms(
        pristine, [first_index, second_index]
    )
    for number, interstitial in enumerate(interstitials, start=1):
        for symbol in species:
            cell = pristine.copy()
            cell.append(Atom(symbol, np.asarray(interstitial) @ crystal.cell[:]))
            cell.wrap()
            cells[f"interstitial {number}" if len(species) == 1 else f"interstitial {symbol} {number}"] = cell
    return cells


def _find_nearest_atom(atoms: Atoms, position: Any) -> int:
    """Return the index of the atom of a supercell that is nearest to a position, with periodic images."""
    differences = atoms.cell.scaled_positions(atoms.positions - position)
    return int(np.argmin(np.abs(differences - np.round(differences)).sum(axis=1)))


def _remove_atoms(atoms: Atoms, indices: list[int]) -> Atoms:
    copy: Atoms = atoms.copy()
    del copy[indices]
    return copy
