"""Homogeneous strains of structures."""

import numpy as np
from ase import Atoms

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # tensor indices of each Voigt index


def apply_voigt_strain(atoms: Atoms, column: int, strain: float) -> Atoms:
    """Copy a structure and multiply cell and positions by 1 + ε, with the symmetric strain ε of a Voigt component."""
    i, j = VOIGT[column]
    deformation = np.eye(3)
    deformation[i, j] = deformation[j, i] = 1 + strain if i == j else strain / 2  # an engineering shear strain is 2ε
    copy: Atoms = atoms.copy()
    copy.set_cell(atoms.cell[:] @ deformation, scale_atoms=True)
    return copy
