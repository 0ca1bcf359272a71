"""Comparison of tabulated cohesive energies with those that follow from the labels of solids and isolated atoms.

The check requires isolated atoms, because the zero of total energies depends on the code and its pseudopotentials. Only
orders of magnitude are compared, because isolated atoms without spin polarization have errors of the order of 1 eV.
"""

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from paretofit.consistency.label_units import ENERGY_UNITS
from paretofit.core import Array
from paretofit.dataset import Dataset, Labels
from paretofit.dataset.quality import compute_neighbour_distance

# eV/atom, with respect to isolated atoms: C. Kittel, Introduction to Solid State Physics, 8th edition, chapter 3,
# table 1.
COHESIVE_ENERGIES = {
    "Li": 1.63, "Be": 3.32, "B": 5.81, "C": 7.37, "N": 4.92, "O": 2.60, "F": 0.84, "Na": 1.113, "Mg": 1.51, "Al": 3.39,
    "Si": 4.63, "P": 3.43, "S": 2.85, "Cl": 1.40, "K": 0.934, "Ca": 1.84, "Sc": 3.90, "Ti": 4.85, "V": 5.31, "Cr": 4.10,
    "Mn": 2.92, "Fe": 4.28, "Co": 4.39, "Ni": 4.44, "Cu": 3.49, "Zn": 1.35, "Ga": 2.81, "Ge": 3.85, "As": 2.96,
    "Se": 2.46, "Br": 1.22, "Rb": 0.852, "Sr": 1.72, "Y": 4.37, "Zr": 6.25, "Nb": 7.57, "Mo": 6.82, "Tc": 6.85,
    "Ru": 6.74, "Rh": 5.75, "Pd": 3.89, "Ag": 2.95, "Cd": 1.16, "In": 2.52, "Sn": 3.14, "Sb": 2.75, "Te": 2.19,
    "I": 1.11, "Cs": 0.804, "Ba": 1.90, "La": 4.47, "Ce": 4.32, "Pr": 3.70, "Nd": 3.40, "Sm": 2.14, "Eu": 1.86,
    "Gd": 4.14, "Tb": 4.05, "Dy": 3.04, "Ho": 3.14, "Er": 3.29, "Tm": 2.42, "Yb": 1.60, "Lu": 4.43, "Hf": 6.44,
    "Ta": 8.10, "W": 8.90, "Re": 8.03, "Os": 8.17, "Ir": 6.94, "Pt": 5.84, "Au": 3.81, "Hg": 0.67, "Tl": 1.88,
    "Pb": 2.03, "Bi": 2.18, "Th": 6.20, "U": 5.55,
}  # fmt: skip
MAX_RATIO = 4.0  # ratio of a cohesive energy to that of the table, or the inverse ratio
UNIT_RESOLUTION = 2.5  # factor by which this ratio may differ from the value of 1 eV in the unit that it indicates
DISTANCE_RATIOS = (0.8, 1.25)  # limits of the nearest distance relative to twice the covalent radius, in a bound solid
MAX_MEASURED_STRUCTURES = 20  # number of the most strongly bound structures that are measured


def find_wrong_cohesion(dataset: Dataset, labels: Labels) -> Iterator[str]:
    """Yield a warning if the cohesive energy of the most strongly bound solid contradicts the tabulated energies.

    A solid is periodic in three directions, with nearest neighbours at the distance of bonds. Nothing is yielded
    without a labelled isolated atom (no neighbour within 7 Å) and a tabulated energy of each of its elements.

    Parameters
    ----------
    dataset : Dataset
    labels : Labels
        Labels of one level.
    """
    positions = np.flatnonzero(np.isfinite(labels.energy))
    single_atoms = positions[dataset.n_atoms[positions] == 1]
    atoms_by_position = zip(single_atoms.tolist(), dataset.select(single_atoms), strict=True)
    isolated_atoms = {k: atoms for k, atoms in atoms_by_position if np.isnan(compute_neighbour_distance(atoms))}
    if not isolated_atoms:
        return
    structures = dict(zip(positions.tolist(), dataset.select(positions), strict=True))
    atom_energies = {atoms.get_chemical_symbols()[0]: float(labels.energy[k]) for k, atoms in isolated_atoms.items()}
    known_elements = atom_energies.keys() & COHESIVE_ENERGIES.keys()
    energies, references = {}, {}
    for k, atoms in structures.items():
        symbols = atoms.get_chemical_symbols()
        if k not in isolated_atoms and atoms.pbc.all() and set(symbols) <= known_elements:
            energies[k] = (sum(atom_energies[symbol] for symbol in symbols) - float(labels.energy[k])) / len(atoms)
            references[k] = sum(COHESIVE_ENERGIES[symbol] for symbol in symbols) / len(atoms)
    strongest_bound = sorted(energies, key=lambda k: -energies[k])[:MAX_MEASURED_STRUCTURES]
    solid = next((k for k in strongest_bound if _is_condensed(structures[k])), None)
    if solid is None or 1 / MAX_RATIO < energies[solid] / references[solid] < MAX_RATIO:
        return
    ratio = energies[solid] / references[solid]
    units = [unit for unit, value in ENERGY_UNITS.items() if abs(np.log(abs(ratio) / value)) < np.log(UNIT_RESOLUTION)]
    cause = f"energies look like {' or '.join(units)}" if units else "the isolated atoms have another zero of energy"
    if ratio < 0:
        cause = "energies have the opposite sign, or the isolated atoms have another zero of energy"
    yield (
        f"the cohesive energy of configuration {dataset.ids[solid]} with respect to the isolated atoms is "
        f"{energies[solid]:.3g} eV/atom, and that of its elements "
        f"{references[solid]:.3g} eV/atom: {cause}"
    )


def _is_condensed(atoms: Atoms) -> bool:
    """Return whether the mean distance of nearest neighbours is within the `DISTANCE_RATIOS` of a bound solid."""
    radii: Array = covalent_radii[atoms.numbers]
    ratio = compute_neighbour_distance(atoms) / (2 * float(radii.mean()))
    return bool(DISTANCE_RATIOS[0] < ratio < DISTANCE_RATIOS[1])
