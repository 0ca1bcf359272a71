"""Torques on molecules and clusters: the forces within an isolated body exert no net torque on it.

Forces in a wrong order of the atoms still sum to zero and pass the check of `paretofit.dataset.describe_dataset`, but
they exert a torque.
"""

from collections.abc import Iterator

import numpy as np

from paretofit.core import list_first
from paretofit.dataset import Dataset

MAX_FORCE = 0.01  # eV/Å; forces of this size, all in the direction of rotation, may be numerical errors
MAX_RATIO = 0.02  # ratio of a torque to the largest one that forces of these magnitudes can exert, Σ |r_i - r̄| |F_i|


def find_torques(dataset: Dataset) -> Iterator[str]:
    """Yield a warning for each level whose forces exert a net torque on configurations that are not periodic.

    The torque is Σ (r_i - r̄) × F_i in eV, with the positions r_i, their mean r̄ and the forces F_i; a warning requires a
    magnitude above 0.01 eV/Å Σ |r_i - r̄| and 2 % of Σ |r_i - r̄| |F_i|.
    """
    lever_arms = {
        k: atoms.positions - atoms.positions.mean(axis=0)
        for k, atoms in enumerate(dataset)
        if len(atoms) > 1 and not atoms.pbc.any()
    }
    for level in dataset.levels if lever_arms else ():
        labels = dataset.labels(level)
        torques = {}
        for k, arms in lever_arms.items():
            forces = labels.forces[slice(*labels.offsets[k : k + 2])]
            torque = np.linalg.norm(np.cross(arms, forces).sum(axis=0))
            lengths = np.linalg.norm(arms, axis=1)
            limit = max(MAX_FORCE * lengths.sum(), MAX_RATIO * lengths @ np.linalg.norm(forces, axis=1))
            if torque > limit:  # False if a force is missing, because the torque is NaN
                torques[int(dataset.ids[k])] = float(torque)
        if torques:
            largest_id = max(torques, key=torques.__getitem__)
            yield (
                f"level {level}: forces exert a torque on {len(torques)} of {len(lever_arms)} molecules or clusters, "
                f"up to {torques[largest_id]:.3g} eV in configuration {largest_id}, as if they belonged to other atoms "
                f"or axes: {list_first(list(torques))}"
            )
