"""Linear descriptors atom by atom: what a structure is made of, without labels and without quadratic products."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.core import process_lammps, track
from paretofit.descriptors.basis import SnapBasis
from paretofit.descriptors.rows import _compute_command, _create_atoms, _extract, _triangle, _types, lammps_errors
from paretofit.execution import parallel_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from paretofit.core import Array

BATCH = 16  # structures handed to a worker at once


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


def atom_rows(lammps: Any, basis: SnapBasis, atoms: Atoms) -> Array:
    """What the model sees of each atom, ``(N, n_features)``: their mean is the energy row of the configuration."""
    values, types = atom_descriptors(lammps, basis, atoms), _types(basis, atoms)
    n, n_elements = len(atoms), len(basis.elements)
    width = (basis.n_features - n_elements) // n_elements
    local = np.zeros((n, n_elements, width))
    products = [values]
    if basis.quadratic:
        products.append(_triangle(values[:, :, None] * values[:, None, :]))
    local[np.arange(n), types - 1] = np.hstack(products)
    own = np.eye(n_elements)[types - 1]
    return np.hstack([own, local.reshape(n, -1)[:, basis.column_order]])


def energy_row(lammps: Any, basis: SnapBasis, atoms: Atoms) -> Array:
    """The energy row of a configuration without its force rows, much cheaper: ``(n_features,)``.

    Equal to that of `configuration_rows`, for linear and quadratic bases.
    """
    values, types = atom_descriptors(lammps, basis, atoms), _types(basis, atoms)
    sums = []
    for element in range(1, len(basis.elements) + 1):
        own = values[types == element]
        sums.append(own.sum(axis=0))
        if basis.quadratic:
            sums.append(_triangle((own.T @ own)[None])[0])
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
        return np.array([energy_row(process_lammps(), basis, atoms) for atoms in structures])
