"""Formation energies of point defects in elements, relaxed with one potential and evaluated with one or more.

E_f = E(defective) - E(pristine) + n E(pristine)/N with n atoms removed from a crystal of N atoms (paper 1); the crystal
is also the reservoir of atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from paretofit.validation.quantity import PropertyError


@dataclass(frozen=True)
class DefectCells:
    """Cells with defects, relaxed at the lattice constants of the pristine cell.

    Attributes
    ----------
    pristine : ase.Atoms
    cells : dict of str to ase.Atoms
        Cells by the name of the defect: ``vacancy``, ``divacancy``, ``interstitial 1``, ...
    failures : dict of str to str
        Reasons why defects could not be relaxed, by name.
    """

    pristine: Atoms
    cells: dict[str, Atoms]
    failures: dict[str, str]


def relax_defect_cells(
    calculator: Any, crystal: Atoms, *, min_length: float, interstitials: Sequence[Sequence[float]] = ()
) -> DefectCells:
    """Relax vacancies on each inequivalent site, the nearest divacancy, and interstitials.

    Parameters
    ----------
    calculator : ase calculator
    crystal : ase.Atoms
        Relaxed crystal of one element.
    min_length : float
        Smallest distance between opposite faces of the supercell, Å.
    interstitials : sequence of (3,) float
        Sites in fractions of the vectors of `crystal`.

    Raises
    ------
    PropertyError
        If the crystal contains several elements, because the energy of a removed atom would be ambiguous.
    """
    if len(set(crystal.numbers)) > 1:
        raise PropertyError("formation energies of compounds require chemical potentials; only elements are supported")
    pristine = repeat_to_length(crystal, min_length)
    cells, failures = {}, {}
    for name, atoms in _build_unrelaxed_cells(crystal, pristine, interstitials).items():
        try:
            cells[name] = relax_structure(calculator, atoms, relax_cell=False, fmax=FORCE_TOLERANCE)
            cells[name].calc = None  # the calculator is shared with other cells
        except PropertyError as error:
            failures[name] = str(error)
    return DefectCells(pristine, cells, failures)


def compute_formation_energies(calculator: Any, defects: DefectCells) -> dict[str, float]:
    """Compute the formation energy (eV) of each defect by name, without further relaxation."""
    energy_per_atom = compute_energy(defects.pristine, calculator) / len(defects.pristine)
    return {name: compute_energy(cell, calculator) - len(cell) * energy_per_atom
            for name, cell in defects.cells.items()}  # fmt: skip


def _build_unrelaxed_cells(
    crystal: Atoms, pristine: Atoms, interstitials: Sequence[Sequence[float]]
) -> dict[str, Atoms]:
    """Build supercells with vacancies, a divacancy and interstitials, by name."""
    sites = sorted(set(find_symmetry(crystal).equivalent_atoms.tolist()))
    indices = {site: _find_nearest_atom(pristine, crystal.positions[site]) for site in sites}
    cells = {}
    for site, index in indices.items():
        cells["vacancy" if len(sites) == 1 else f"vacancy {site + 1}"] = _remove_atoms(pristine, [index])
    first_index = indices[sites[0]]
    distances = pristine.get_distances(first_index, range(len(pristine)), mic=True)
    distances[first_index] = np.inf
    cells["divacancy"] = _remove_atoms(pristine, [first_index, int(np.argmin(distances))])
    for number, site in enumerate(interstitials, start=1):
        cell = pristine.copy()
        cell.append(Atom(crystal.symbols[0], np.asarray(site) @ crystal.cell[:]))
        cell.wrap()
        cells[f"interstitial {number}"] = cell
    return cells


def _find_nearest_atom(atoms: Atoms, position: Any) -> int:
    """Find the atom of a supercell at a position of the crystal."""
    differences = atoms.cell.scaled_positions(atoms.positions - position)
    return int(np.argmin(np.abs(differences - np.round(differences)).sum(axis=1)))


def _remove_atoms(atoms: Atoms, indices: list[int]) -> Atoms:
    copy: Atoms = atoms.copy()
    del copy[indices]
    return copy
