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

MAX_STONE_WALES = 4  # number of inequivalent bonds that are rotated; a failure reports that there are others


@dataclass(frozen=True)
class DefectCells:
    """Cells with defects, relaxed at the lattice constants of the pristine cell.

    Attributes
    ----------
    pristine : ase.Atoms
        Supercell without defects.
    cells : dict of str to ase.Atoms
        Cells by the name of the defect: ``vacancy``, ``divacancy``, ``Stone-Wales``, ``interstitial 1``, ...; in
        compounds ``vacancy Ni``, ``antisite Al on Ni``, ... Names end with the number of the atom (from 1) if the
        species has several inequivalent sites, and with the number of the bond if several bonds are rotated.
    failures : dict of str to str
        Reasons why defects are missing from `cells`, by the name of the defect. The key ``Stone-Wales`` means that some
        bonds were not rotated.
    """

    pristine: Atoms
    cells: dict[str, Atoms]
    failures: dict[str, str]


def relax_defect_cells(
    calculator: Any, structure: Atoms, *, min_length: float, interstitials: Sequence[Sequence[float]] = ()
) -> DefectCells:
    """Relax vacancies and antisites on each inequivalent site, a divacancy, Stone-Wales defects and interstitials.

    Molecules have Stone-Wales defects only, because a molecule without an atom is another molecule. At most
    `MAX_STONE_WALES` bonds are rotated. `DefectCells.failures` lists relaxations that fail, and the number of bonds if
    there are more.

    Parameters
    ----------
    calculator : ase calculator
    structure : ase.Atoms
        Relaxed crystal, sheet, wire or molecule.
    min_length : float
        Smallest distance between opposite faces of the supercell in periodic directions, Å.
    interstitials : sequence of (3,) float
        Sites in fractional coordinates of `structure`. For each site and each species of the structure, there is a
        cell with an additional atom of this species at this site.

    Raises
    ------
    PropertyError
        If a molecule has no bond that can be rotated, or the symmetry of a crystal cannot be found.
    """
    pristine = repeat_to_length(structure, min_length)
    unrelaxed_cells: dict[str, Atoms] = {}
    if structure.pbc.any():
        unrelaxed_cells = _build_unrelaxed_cells(structure, pristine, interstitials)
    bonds = find_rotatable_bonds(pristine)
    for number, bond in enumerate(bonds[:MAX_STONE_WALES], start=1):
        unrelaxed_cells["Stone-Wales" if len(bonds) == 1 else f"Stone-Wales {number}"] = rotate_bond(pristine, bond)
    if not unrelaxed_cells:
        raise PropertyError("no defect can be computed for a molecule without bonds between three-coordinated atoms")
    cells: dict[str, Atoms] = {}
    failures: dict[str, str] = {}
    if len(bonds) > MAX_STONE_WALES:
        failures["Stone-Wales"] = f"only {MAX_STONE_WALES} of {len(bonds)} inequivalent bonds are rotated"
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
        Cells, relaxed with this or with another calculator.
    reference_energies : mapping of str to float, optional
        Energy of an atom of each species in its reservoir, eV. By default, the energy per atom of `defects.pristine`,
        which is correct for elements only.
    """
    pristine_energy = compute_energy(defects.pristine, calculator)
    composition = Counter(defects.pristine.symbols)
    atom_energies = reference_energies or dict.fromkeys(composition, pristine_energy / len(defects.pristine))
    formation_energies = {}
    for name, cell in defects.cells.items():
        counts = Counter(cell.symbols)
        removed_energy = sum((composition[symbol] - counts[symbol]) * atom_energies[symbol] for symbol in composition)
        formation_energies[name] = compute_energy(cell, calculator) - pristine_energy + removed_energy
    return formation_energies


def find_inequivalent_sites(structure: Atoms) -> list[int]:
    """Find one atom of each kind of site, and return their indices in ascending order.

    Sites of crystals are compared by symmetry. Sites of other structures are compared by species and distances to
    neighbours, because spglib would miss symmetries that no lattice has, such as five-fold axes.

    Raises
    ------
    PropertyError
        If spglib fails.
    """
    if structure.pbc.all():
        return sorted(set(find_symmetry(structure).equivalent_atoms.tolist()))
    sites: list[int] = []
    environments = describe_environments(structure)
    for index, environment in enumerate(environments):
        if not any(
            structure.numbers[site] == structure.numbers[index] and are_equivalent(environments[site], environment)
            for site in sites
        ):
            sites.append(index)
    return sites


def _build_unrelaxed_cells(
    structure: Atoms, pristine: Atoms, interstitials: Sequence[Sequence[float]]
) -> dict[str, Atoms]:
    """Build copies of the supercell `pristine` with vacancies, antisites, one divacancy and interstitials, by name.

    The supercell is that of `structure`. The divacancy consists of the first inequivalent site and its nearest
    neighbour.
    """
    sites = find_inequivalent_sites(structure)
    species = sorted(set(structure.symbols))
    is_element = len(species) == 1
    site_counts = Counter(structure.symbols[site] for site in sites)
    cells = {}
    for site in sites:
        symbol, index = structure.symbols[site], _find_nearest_atom(pristine, structure.positions[site])
        suffix = f" {site + 1}" if site_counts[symbol] > 1 else ""
        name = "vacancy" if is_element else f"vacancy {symbol}"
        cells[f"{name}{suffix}"] = _remove_atoms(pristine, [index])
        for other_symbol in species:
            if other_symbol != symbol:
                cell = pristine.copy()
                cell.symbols[index] = other_symbol
                cells[f"antisite {other_symbol} on {symbol}{suffix}"] = cell
    first_index = _find_nearest_atom(pristine, structure.positions[sites[0]])
    distances = pristine.get_distances(first_index, range(len(pristine)), mic=True)
    distances[first_index] = np.inf  # an atom is not its own neighbour
    removed_indices = [first_index, int(np.argmin(distances))]
    pair = "-".join(sorted(str(pristine.symbols[index]) for index in removed_indices))
    cells["divacancy" if is_element else f"divacancy {pair}"] = _remove_atoms(pristine, removed_indices)
    for number, interstitial in enumerate(interstitials, start=1):
        for symbol in species:
            cell = pristine.copy()
            # fractional coordinates refer to the cell of the structure, not to that of the supercell
            cell.append(Atom(symbol, np.asarray(interstitial) @ structure.cell[:]))
            cell.wrap()
            cells[f"interstitial {number}" if is_element else f"interstitial {symbol} {number}"] = cell
    return cells


def _find_nearest_atom(atoms: Atoms, position: Any) -> int:
    """Return the index of the atom that is nearest to a position, ``(3,)`` Å, including periodic images.

    Distances are compared in fractional coordinates, which suffices because an atom is at the position.
    """
    differences = atoms.cell.scaled_positions(atoms.positions - position)
    return int(np.argmin(np.abs(differences - np.round(differences)).sum(axis=1)))


def _remove_atoms(atoms: Atoms, indices: list[int]) -> Atoms:
    """Copy a structure without the atoms with the given indices."""
    copy: Atoms = atoms.copy()
    del copy[indices]
    return copy
