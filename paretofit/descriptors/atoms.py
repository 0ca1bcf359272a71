"""Descriptors of each atom, and the energy rows that they form."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.core import Array, get_shared_lammps
from paretofit.descriptors.any_basis import AnyBasis
from paretofit.descriptors.basis import SnapBasis
from paretofit.descriptors.batches import map_structures
from paretofit.descriptors.features import pack_triangle, sum_features
from paretofit.descriptors.lammps_frame import assign_types, extract_per_atom, load_configuration
from paretofit.descriptors.pod_basis import PodBasis
from paretofit.descriptors.pod_sums import extract_pod_values
from paretofit.descriptors.snap_sums import extract_atom_gradient, format_compute_command
from paretofit.execution import RunContext


def compute_atom_descriptors(lammps: Any, basis: AnyBasis, atoms: Atoms) -> Array:
    """Bispectrum components, or proper orthogonal descriptors, of every atom.

    Parameters
    ----------
    lammps : lammps.lammps
        LAMMPS instance, which is cleared first.
    basis : SnapBasis or PodBasis
    atoms : ase.Atoms

    Returns
    -------
    (N, K) float64
        Components in the nested order of the basis, or descriptors in LAMMPS's order.

    Raises
    ------
    InputError
        If the basis lacks an element, positions or cell are not finite, the cell has no volume, or LAMMPS fails.
    """
    with load_configuration(lammps, basis, atoms):
        if isinstance(basis, PodBasis):
            return extract_pod_values(lammps, basis, len(atoms))
        lammps.command(format_compute_command(basis, "", "sna/atom"))
        # LAMMPS evaluates a per-atom compute only if an output uses it; here, the printed sum uses it.
        lammps.commands_string("compute sum all reduce sum c_rows[1]\nthermo_style custom step c_sum\nrun 0 post no")
        values = extract_per_atom(lammps, lammps.numpy.extract_compute("rows", 1, 2), len(atoms))
    return values[:, basis.component_order]


def compute_mean_descriptors(lammps: Any, basis: AnyBasis, atoms: Atoms) -> Array:
    """Composition and mean descriptors of a configuration by element, ``(n_elements * (1 + K),) float64``.

    The entries of each element are its fraction of the atoms, then the sum of the K descriptors of its atoms divided by
    the number of all atoms.

    Raises
    ------
    InputError
        As in `compute_atom_descriptors`.
    """
    descriptors, types = compute_atom_descriptors(lammps, basis, atoms), assign_types(basis, atoms)
    blocks = []
    for element_type in range(1, len(basis.elements) + 1):
        element_descriptors = descriptors[types == element_type]
        blocks += [[len(element_descriptors) / len(atoms)], element_descriptors.sum(axis=0) / len(atoms)]
    return np.concatenate(blocks)


def compute_atom_descriptors_and_gradient(lammps: Any, basis: SnapBasis, atoms: Atoms) -> tuple[Array, Array]:
    """Bispectrum components of every atom, and their derivatives with respect to all positions.

    The parameters are those of `compute_atom_descriptors`.

    Returns
    -------
    components : (N, K) float64
        Components in the nested order of the basis.
    gradient : (N, 3, N, K) float64
        ``gradient[j, α, i]`` is ∂B_i/∂R_jα, 1/Å, in the frame of `atoms`. The array is dense and fits
        into memory for at most a few hundred atoms.

    Raises
    ------
    InputError
        As in `compute_atom_descriptors`.
    """
    with load_configuration(lammps, basis, atoms) as (_, rotation):
        components, negative_gradient = extract_atom_gradient(lammps, basis, len(atoms))
    # The components are a view of LAMMPS's memory.
    return components.copy(), -np.einsum("ab,jibk->jaik", rotation, negative_gradient)


def compute_atom_rows(lammps: Any, basis: AnyBasis, atoms: Atoms) -> Array:
    """Feature rows of the atoms, ``(N, n_features) float64``; their mean is the energy row of the configuration.

    Raises
    ------
    InputError
        As in `compute_atom_descriptors`.
    """
    descriptors, types = compute_atom_descriptors(lammps, basis, atoms), assign_types(basis, atoms)
    n_atoms, n_elements = len(atoms), len(basis.elements)
    n_features_per_element = (basis.n_features - n_elements) // n_elements
    feature_blocks = [descriptors]
    if basis.has_products:
        feature_blocks.append(pack_triangle(descriptors[:, :, None] * descriptors[:, None, :]))
    features = np.zeros((n_atoms, n_elements, n_features_per_element))  # zero in the columns of other elements
    features[np.arange(n_atoms), types - 1] = np.hstack(feature_blocks)
    constants = np.eye(n_elements)[types - 1]
    return np.hstack([constants, features.reshape(n_atoms, -1)[:, basis.column_order]])


def compute_energy_row(lammps: Any, basis: AnyBasis, atoms: Atoms) -> Array:
    """Energy row of a configuration, ``(n_features,) float64``, computed without its force rows.

    The row equals that of `compute_configuration_rows`, and is much cheaper to compute.

    Raises
    ------
    InputError
        As in `compute_atom_descriptors`.
    """
    descriptors, types = compute_atom_descriptors(lammps, basis, atoms), assign_types(basis, atoms)
    n_atoms_by_element = np.bincount(types - 1, minlength=len(basis.elements))
    return np.concatenate([n_atoms_by_element, sum_features(basis, descriptors, types)]) / len(atoms)


def compute_energy_rows(
    structures: Sequence[Atoms], basis: AnyBasis, *, jobs: int = 1, progress: bool = False
) -> Array:
    """Energy rows of many structures, ``(n_structures, n_features) float64``, computed by `jobs` processes.

    Raises
    ------
    InputError
        As in `compute_atom_descriptors`.
    """
    return np.array(map_structures(_compute_row, basis, structures, "descriptors", RunContext(jobs, progress)))


def _compute_row(basis: AnyBasis, atoms: Atoms) -> Array:
    """Compute an energy row in a worker, with the LAMMPS instance of its process."""
    return compute_energy_row(get_shared_lammps(), basis, atoms)
