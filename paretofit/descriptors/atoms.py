"""Linear descriptors atom by atom: what a structure is made of, without labels and without quadratic products."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.core import get_shared_lammps, track
from paretofit.descriptors.basis import SnapBasis
from paretofit.descriptors.rows import (
    assign_types,
    create_lammps_atoms,
    extract_snap_array,
    format_compute_command,
    pack_triangle,
    translate_lammps_errors,
)
from paretofit.execution import parallel_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from paretofit.core import Array

BATCH = 16  # structures handed to a worker at once


def compute_atom_descriptors(lammps: Any, basis: SnapBasis, atoms: Atoms) -> Array:
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
    types = assign_types(basis, atoms)
    with translate_lammps_errors(atoms):
        create_lammps_atoms(lammps, basis, atoms, types)
        lammps.command(format_compute_command(basis, "", "sna/atom"))
        lammps.commands_string("compute held all reduce sum c_rows[1]\nthermo_style custom step c_held\nrun 0 post no")
        values = np.array(lammps.numpy.extract_compute("rows", 1, 2))
        order = np.argsort(np.array(lammps.numpy.extract_atom("id"))[: len(atoms)])
    return np.asarray(values[: len(atoms)][order][:, basis.component_order])


def compute_mean_descriptors(lammps: Any, basis: SnapBasis, atoms: Atoms) -> Array:
    """Shares of the elements and the mean components of their atoms: ``(n_elements * (1 + K),)``."""
    values, types = compute_atom_descriptors(lammps, basis, atoms), assign_types(basis, atoms)
    parts = []
    for element in range(1, len(basis.elements) + 1):
        own = values[types == element]
        parts += [[len(own) / len(atoms)], own.sum(axis=0) / len(atoms)]
    return np.concatenate(parts)


def compute_atom_descriptors_and_gradient(lammps: Any, basis: SnapBasis, atoms: Atoms) -> tuple[Array, Array]:
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
        As `compute_atom_descriptors`.
    """
    types, n = assign_types(basis, atoms), len(atoms)
    with translate_lammps_errors(atoms):
        rotation = create_lammps_atoms(lammps, basis, atoms, types)
        array = extract_snap_array(lammps, basis, "quadraticflag 0 bikflag 1 dgradflag 1")[:, 3:][
            :, basis.component_order
        ]
    values = np.array(array[:n])
    minus = array[n : n + 3 * n * n].reshape(n, n, 3, -1)  # atom j that moves, atom i that sees it, direction
    return values, -np.einsum("ab,jibk->jaik", rotation, minus)


def compute_atom_rows(lammps: Any, basis: SnapBasis, atoms: Atoms) -> Array:
    """What the model sees of each atom, ``(N, n_features)``: their mean is the energy row of the configuration."""
    values, types = compute_atom_descriptors(lammps, basis, atoms), assign_types(basis, atoms)
    n, n_elements = len(atoms), len(basis.elements)
    width = (basis.n_features - n_elements) // n_elements
    local = np.zeros((n, n_elements, width))
    products = [values]
    if basis.quadratic:
        products.append(pack_triangle(values[:, :, None] * values[:, None, :]))
    local[np.arange(n), types - 1] = np.hstack(products)
    own = np.eye(n_elements)[types - 1]
    return np.hstack([own, local.reshape(n, -1)[:, basis.column_order]])


def compute_energy_row(lammps: Any, basis: SnapBasis, atoms: Atoms) -> Array:
    """The energy row of a configuration without its force rows, much cheaper: ``(n_features,)``.

    Equal to that of `configuration_rows`, for linear and quadratic bases.
    """
    values, types = compute_atom_descriptors(lammps, basis, atoms), assign_types(basis, atoms)
    sums = []
    for element in range(1, len(basis.elements) + 1):
        own = values[types == element]
        sums.append(own.sum(axis=0))
        if basis.quadratic:
            sums.append(pack_triangle((own.T @ own)[None])[0])
    counts = np.bincount(types - 1, minlength=len(basis.elements))
    return np.concatenate([counts, np.concatenate(sums)[basis.column_order]]) / len(atoms)


def compute_energy_rows(
    structures: Sequence[Atoms], basis: SnapBasis, *, jobs: int = 1, progress: bool = False
) -> Array:
    """Energy rows of many structures, ``(n, n_features)``, in parallel; in their order."""
    batches = [structures[start : start + BATCH] for start in range(0, len(structures), BATCH)]
    rows = parallel_map(partial(_energy_rows, basis_json=basis.model_dump_json()), batches, jobs)
    return np.concatenate(list(track(rows, len(batches), "descriptors", enabled=progress)))


def _energy_rows(structures: Sequence[Atoms], basis_json: str) -> Array:
    basis = SnapBasis.model_validate_json(basis_json)
    with threadpool_limits(1):
        return np.array([compute_energy_row(get_shared_lammps(), basis, atoms) for atoms in structures])
