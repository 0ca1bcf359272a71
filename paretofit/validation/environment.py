"""Comparison of sites by the distances to the atoms around them, for structures without the symmetry of a lattice."""

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from paretofit.core import Array

RADIUS_A = 6.0  # largest distance of a neighbour
TOLERANCE_A = 0.02  # largest difference between the distances of two equivalent neighbours

# By atomic number: the depths of the neighbours with this number, in descending order, Å. A depth is RADIUS_A minus the
# distance; a neighbour at the radius thus has the depth zero, the same as a missing neighbour.
Environment = dict[int, Array]


def describe_environments(atoms: Atoms) -> list[Environment]:
    """Describe the neighbours of each atom up to a distance of 6 Å.

    An atom with the atomic number 0 marks a point without an atom; it has an environment, but is not a neighbour.
    """
    first_atoms, second_atoms, distances = neighbor_list("ijd", atoms, RADIUS_A)
    environments = []
    for index in range(len(atoms)):
        is_neighbour = first_atoms == index
        numbers, depths = atoms.numbers[second_atoms[is_neighbour]], RADIUS_A - distances[is_neighbour]
        environments.append(
            {int(number): np.sort(depths[numbers == number])[::-1] for number in np.unique(numbers) if number}
        )
    return environments


def are_equivalent(first: Environment, second: Environment) -> bool:
    """Return whether the distances of two environments agree within 0.02 Å.

    A neighbour whose distance is less than 0.02 Å below the radius may be missing in one of the environments.
    """
    for number in first.keys() | second.keys():
        depths = [environment.get(number, np.empty(0)) for environment in (first, second)]
        n_neighbours = max(map(len, depths))
        padded_depths = np.array([np.pad(array, (0, n_neighbours - len(array))) for array in depths])
        if np.ptp(padded_depths, axis=0).max() > TOLERANCE_A:
            return False
    return True
