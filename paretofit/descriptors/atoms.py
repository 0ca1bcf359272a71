"""Linear descriptors atom by atom: what a structure is made of, without labels and without quadratic products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from paretofit.descriptors.rows import _compute_command, _create_atoms, _extract, _types, lammps_errors

if TYPE_CHECKING:
    from ase import Atoms

    from paretofit.descriptors.basis import Array, SnapBasis


def atom_descriptors(lammps: Any, basis: SnapBasis, atoms: Atoms) -> Array:
    """Bispectrum components of every atom.

    Parameters
    ----------
    lammps : lammps.lammps
        An instance; it is cleared first.
    basis : SnapBasis
    atoms : ase.Atoms

    Returns
    -------
    (N, K) float64
        In the basis's nested order of components.

    Raises
    ------
    InputError
        If it has an element that the basis lacks, is not finite or has no volume, or LAMMPS refuses it.
    """
    types = _types(basis, atoms)
    with lammps_errors(atoms):
        _create_atoms(lammps, basis, atoms, types)
        lammps.command(_compute_command(basis, "", "sna/atom"))
        lammps.commands_string("compute held all reduce sum c_rows[1]\nthermo_style custom step c_held\nrun 0 post no")
        values = np.array(lammps.numpy.extract_compute("rows", 1, 2))
        order = np.argsort(np.array(lammps.numpy.extract_atom("id"))[: len(atoms)])
    return np.asarray(values[: len(atoms)][order][:, basis.component_order])


def mean_descriptors(lammps: Any, basis: SnapBasis, atoms: Atoms) -> Array:
    """Shares of the elements and the mean components of their atoms: ``(n_elements * (1 + K),)``."""
    values, types = atom_descriptors(lammps, basis, atoms), _types(basis, atoms)
    parts = []
    for element in range(1, len(basis.elements) + 1):
        own = values[types == element]
        parts += [[len(own) / len(atoms)], own.sum(axis=0) / len(atoms)]
    return np.concatenate(parts)


def atom_descriptors_and_gradient(lammps: Any, basis: SnapBasis, atoms: Atoms) -> tuple[Array, Array]:
    """Bispectrum components of every atom and their derivatives.

    Returns
    -------
    values : (N, K) float64
        In the basis's nested order of components.
    gradient : (N, 3, N, K) float64
        ``gradient[j, α, i]`` is ∂B_i/∂R_jα, 1/Å, in the frame of `atoms`. Dense: for a few hundred atoms at most.

    Raises
    ------
    InputError
        As `atom_descriptors`.
    """
    types, n = _types(basis, atoms), len(atoms)
    with lammps_errors(atoms):
        rotation = _create_atoms(lammps, basis, atoms, types)
        array = _extract(lammps, basis, "quadraticflag 0 bikflag 1 dgradflag 1")[:, 3:][:, basis.component_order]
    values = np.array(array[:n])
    minus = array[n : n + 3 * n * n].reshape(n, n, 3, -1)  # atom j that moves, atom i that sees it, direction
    return values, -np.einsum("ab,jibk->jaik", rotation, minus)
