"""Homogeneous strains of structures."""

import numpy as np
from ase import Atoms

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # tensor indices of each Voigt index


def apply_voigt_strain(atoms: Atoms, component: int, strain: float) -> Atoms:
    """Return a copy of a structure with a homogeneous strain: its cell and positions are multiplied by 1 + ε.

    Parameters
    ----------
    atoms : ase.Atoms
    component : int
        Voigt index of the strain component, 0 to 5.
    strain : float
        Strain; for a shear component the engineering strain, twice the elements of the symmetric tensor ε.
    """
    i, j = VOIGT[component]
    deformation = np.eye(3)
    deformation[i, j] = deformation[j, i] = 1 + strain if i == j else strain / 2
    copy: Atoms = atoms.copy()
    copy.set_cell(atoms.cell[:] @ deformation, scale_atoms=True)
    return copy
