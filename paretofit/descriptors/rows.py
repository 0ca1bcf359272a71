"""Rows of one configuration in a basis of any family: an energy row, force rows and stress rows."""

from typing import Any

import numpy as np
from ase import Atoms

from paretofit.core import Array, InputError
from paretofit.descriptors.any_basis import AnyBasis
from paretofit.descriptors.lammps_frame import load_configuration, name_configuration, rotate_voigt
from paretofit.descriptors.pod_basis import PodBasis
from paretofit.descriptors.pod_sums import compute_pod_strain_derivatives, compute_pod_sums
from paretofit.descriptors.snap_sums import MAX_DENSE_GRADIENT_ATOMS, compute_product_sums, extract_lammps_sums

BAR_PER_EV_A3 = 1.6021765e6  # LAMMPS's constant nktv2p in metal units
GPA_PER_BAR = 1e-4


def compute_configuration_rows(
    lammps: Any, basis: AnyBasis, atoms: Atoms, *, use_lammps_products: bool | None = None
) -> tuple[Array, Array]:
    """Energy row and force rows of one configuration.

    Parameters
    ----------
    lammps : lammps.lammps
        LAMMPS instance, which is cleared first.
    basis : SnapBasis or PodBasis
    atoms : ase.Atoms
        Any cell, periodic or not in each direction.
    use_lammps_products : bool, optional
        Whether LAMMPS forms the rows of quadratic SNAP (``quadraticflag 1``); by default only above
        `MAX_DENSE_GRADIENT_ATOMS` atoms.

    Returns
    -------
    energy_row : (n_features,) float64
        Σᵢ Bᵢ / N, so that its product with the coefficients is the energy per atom in eV.
    force_rows : (3N, n_features) float64
        Minus the derivative of Σᵢ Bᵢ with respect to the positions, 1/Å, in the frame of `atoms`; the rows x, y and z
        of each atom, in the order of the atoms.

    Raises
    ------
    InputError
        If the basis lacks an element, positions or cell are not finite, the cell has no volume, or LAMMPS fails.
    """
    use_lammps_products = len(atoms) > MAX_DENSE_GRADIENT_ATOMS if use_lammps_products is None else use_lammps_products
    with load_configuration(lammps, basis, atoms) as (types, rotation):
        if isinstance(basis, PodBasis):
            sums, gradients = compute_pod_sums(lammps, basis)
        elif use_lammps_products:
            sums, gradients, _ = extract_lammps_sums(lammps, basis, len(atoms))
        else:
            sums, gradients = compute_product_sums(lammps, basis, types)
    return _build_rows(basis, atoms, types, rotation, sums, gradients)


def compute_configuration_rows_with_stress(lammps: Any, basis: AnyBasis, atoms: Atoms) -> tuple[Array, Array, Array]:
    """Energy row, force rows and stress rows of one configuration.

    For SNAP, LAMMPS forms the quadratic rows and the virial. For POD, the stress rows are computed by central
    differences. The parameters are those of `compute_configuration_rows`.

    Returns
    -------
    energy_row, force_rows
        As in `compute_configuration_rows`.
    stress_rows : (6, n_features) float64
        GPa, positive in tension, in ASE's Voigt order (xx, yy, zz, yz, xz, xy) and the frame of `atoms`. LAMMPS's
        factor from eV/Å³ to bar is used, 1.6021765e6; its relative difference from the exact factor is 8e-8.

    Raises
    ------
    InputError
        As in `compute_configuration_rows`, and if the configuration is not periodic in three directions.
    """
    if not atoms.pbc.all():
        raise InputError(f"{name_configuration(atoms)} is not periodic in three directions, so that it has no stress")
    stress_rows = np.zeros((6, basis.n_features))
    feature_rows = stress_rows[:, len(basis.elements) :]
    if isinstance(basis, PodBasis):
        energy_row, force_rows = compute_configuration_rows(lammps, basis, atoms)
        feature_rows[:] = compute_pod_strain_derivatives(lammps, basis, atoms)
    else:
        with load_configuration(lammps, basis, atoms) as (types, rotation):
            sums, gradients, virial = extract_lammps_sums(lammps, basis, len(atoms))
        energy_row, force_rows = _build_rows(basis, atoms, types, rotation, sums, gradients)
        feature_rows[:] = -rotate_voigt(virial, rotation)
    feature_rows *= BAR_PER_EV_A3 * GPA_PER_BAR / atoms.cell.volume  # LAMMPS has refused cells without volume
    if not np.isfinite(stress_rows).all():
        raise InputError(f"{name_configuration(atoms)}: its stress rows are not finite; check whether atoms overlap")
    return energy_row, force_rows, stress_rows


def _build_rows(
    basis: AnyBasis, atoms: Atoms, types: Array, rotation: Array, sums: Array, gradients: Array
) -> tuple[Array, Array]:
    """Return the energy row, and the force rows in the frame of the configuration, both with constant columns.

    `sums` are the sums of the features of all atoms, and `gradients` minus their derivatives, in LAMMPS's frame. Raises
    `InputError` if a row is not finite.
    """
    n_atoms, n_elements = len(atoms), len(basis.elements)
    energy_row = np.empty(basis.n_features)
    energy_row[:n_elements] = np.bincount(types - 1, minlength=n_elements) / n_atoms
    energy_row[n_elements:] = sums / n_atoms
    force_rows = np.zeros((3 * n_atoms, basis.n_features))
    rotated_gradients = np.einsum("ab,nbk->nak", rotation, gradients.reshape(n_atoms, 3, -1))
    force_rows[:, n_elements:] = rotated_gradients.reshape(3 * n_atoms, -1)
    if not (np.isfinite(energy_row).all() and np.isfinite(force_rows).all()):
        raise InputError(f"{name_configuration(atoms)}: its descriptors are not finite; check whether atoms overlap")
    return energy_row, force_rows
