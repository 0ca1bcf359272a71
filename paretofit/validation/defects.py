"""Formation energies of point defects, each relaxed with one potential and evaluated with any.

E_f = E(defective) - E(pristine) + n E(pristine)/N with n atoms removed (paper 1): of an element, whose own crystal is
the reservoir.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atom

from paretofit.validation.crystal import find_symmetry, relax_structure, repeat_to_length
from paretofit.validation.quantity import PropertyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

FMAX = 0.01  # eV/Å


@dataclass(frozen=True)
class DefectCells:
    """Cells with defects, relaxed at the lattice constants of the pristine one.

    Attributes
    ----------
    pristine : ase.Atoms
    cells : dict of str to ase.Atoms
        By name: ``vacancy``, ``divacancy``, ``interstitial 1``, ...
    failures : dict of str to str
        Why a defect has no cell.
    """

    pristine: Atoms
    cells: dict[str, Atoms]
    failures: dict[str, str]


def relax_defect_cells(
    calculator: Any, crystal: Atoms, *, min_length: float, interstitials: Sequence[Sequence[float]] = ()
) -> DefectCells:
    """Vacancies on each inequivalent site, the nearest divacancy, and interstitials, relaxed.

    Parameters
    ----------
    calculator : ase calculator
    crystal : ase.Atoms
        Relaxed crystal of one element.
    min_length : float
        Of the supercell, at least, Å.
    interstitials : sequence of (3,) float
        Sites in fractions of the vectors of `crystal`.

    Raises
    ------
    PropertyError
        If it has several elements: the energy of a removed atom would be ambiguous.
    """
    if len(set(crystal.numbers)) > 1:
        raise PropertyError("formation energies of a compound need chemical potentials; only elements are supported")
    pristine = repeat_to_length(crystal, min_length)
    cells, failures = {}, {}
    for name, start in _unrelaxed(crystal, pristine, interstitials).items():
        try:
            final = relax_structure(calculator, start, relax_cell=False, fmax=FMAX)
        except PropertyError as error:
            failures[name] = str(error)
            continue
        final.calc = None  # the calculator goes on with other cells
        cells[name] = final
    return DefectCells(pristine, cells, failures)


def compute_formation_energies(calculator: Any, defects: DefectCells) -> dict[str, float]:
    """Formation energy (eV) of each defect, its cell taken as it is."""
    pristine = defects.pristine.copy()
    pristine.calc = calculator
    per_atom = pristine.get_potential_energy() / len(pristine)
    found = {}
    for name, cell in defects.cells.items():
        copy = cell.copy()
        copy.calc = calculator
        found[name] = float(copy.get_potential_energy() - len(cell) * per_atom)
    return found


def _unrelaxed(crystal: Atoms, pristine: Atoms, interstitials: Sequence[Sequence[float]]) -> dict[str, Atoms]:
    sites = sorted(set(find_symmetry(crystal).equivalent_atoms.tolist()))
    position = crystal.positions
    found = {}
    for site in sites:
        place = _nearest(pristine, position[site])
        name = "vacancy" if len(sites) == 1 else f"vacancy {site + 1}"
        found[name] = _without(pristine, [place])
    first = _nearest(pristine, position[sites[0]])
    distances = pristine.get_distances(first, range(len(pristine)), mic=True)
    distances[first] = np.inf
    found["divacancy"] = _without(pristine, [first, int(np.argmin(distances))])
    for number, site in enumerate(interstitials, start=1):
        added = pristine.copy()
        added.append(Atom(crystal.symbols[0], np.asarray(site) @ crystal.cell[:]))
        added.wrap()
        found[f"interstitial {number}"] = added
    return found


def _nearest(atoms: Atoms, position: Any) -> int:
    """The atom at a position of the crystal that `atoms` repeats."""
    scaled = atoms.cell.scaled_positions(atoms.positions - position)
    return int(np.argmin(np.abs(scaled - np.round(scaled)).sum(axis=1)))


def _without(atoms: Atoms, removed: list[int]) -> Atoms:
    kept: Atoms = atoms[[k for k in range(len(atoms)) if k not in removed]]
    return kept
