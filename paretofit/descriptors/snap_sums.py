"""Sums of the SNAP features of a configuration, and minus their derivatives, from LAMMPS's ``compute snap``.

Quadratic features are formed here from the bispectrum components and their gradients, which takes less than half the
time that LAMMPS takes. Above `MAX_DENSE_GRADIENT_ATOMS` atoms, the dense gradient of 3N² rows is too large, and LAMMPS
forms the products.
"""

from typing import Any

import numpy as np

from paretofit.core import Array
from paretofit.descriptors.basis import SnapBasis
from paretofit.descriptors.features import pack_triangle, sum_features

MAX_DENSE_GRADIENT_ATOMS = 300  # number of atoms above which LAMMPS forms the products
GRADIENT_BATCH_ROWS = 64  # number of rows of the gradient for which K x K products are formed at once


def format_compute_command(basis: SnapBasis, flags: str, style: str = "snap") -> str:
    """Return LAMMPS's command that defines the compute "rows" for a basis, with further flags at its end."""
    element_settings = " ".join(repr(float(value)) for value in [*basis.radelem, *basis.wj])
    chemistry = ""
    if basis.chemflag:
        chemistry = f" chem {len(basis.elements)} " + " ".join(str(k) for k in range(len(basis.elements)))
    return (
        f"compute rows all {style} {basis.rcutfac!r} {basis.rfac0!r} {basis.twojmax} {element_settings} "
        f"rmin0 {basis.rmin0!r} bzeroflag {int(basis.bzeroflag)} switchflag {int(basis.switchflag)} "
        f"bnormflag {int(basis.bnormflag)} wselfallflag {int(basis.wselfallflag)}{chemistry} {flags}"
    )


def extract_snap_array(lammps: Any, basis: SnapBasis, flags: str) -> Array:
    """Evaluate LAMMPS's ``compute snap`` with these flags, and return its array, a view of LAMMPS's memory."""
    lammps.command(format_compute_command(basis, flags))
    lammps.commands_string("thermo_style custom step c_rows[1][1]\nrun 0 post no")
    return np.asarray(lammps.numpy.extract_compute("rows", 0, 2))


def extract_atom_gradient(lammps: Any, basis: SnapBasis, n: int) -> tuple[Array, Array]:
    """Return the components of n atoms, ``(n, K)``, and minus their derivatives, ``(n, n, 3, K)``, in nested order.

    The axes of the derivatives are the atom a that moves, the atom i that has the components, the direction α in
    LAMMPS's frame, and the component. With ``dgradflag 1``, the first n rows of LAMMPS's array are B_i, and row
    ``n + 3 (a n + i) + α`` is -∂B_i/∂R_aα; every row begins with three index columns.
    """
    rows = extract_snap_array(lammps, basis, "quadraticflag 0 bikflag 1 dgradflag 1")[:, 3:][:, basis.component_order]
    return rows[:n], rows[n : n + 3 * n * n].reshape(n, n, 3, -1)


def compute_product_sums(lammps: Any, basis: SnapBasis, types: Array) -> tuple[Array, Array]:
    """Return the sums of all atoms' features and minus the derivatives of these sums, both in nested order.

    The sums, ``(n_features - n_elements,)``, do not include the constants. The derivatives, 1/Å, have the shape
    ``(3N, n_features - n_elements)`` and are in LAMMPS's frame. Quadratic features and their derivatives are formed
    here from the linear ones. `types`, ``(N,)``, contains LAMMPS's type of each atom.
    """
    n = len(types)
    B, dB = extract_atom_gradient(lammps, basis, n)
    dB = dB.transpose(0, 2, 1, 3).reshape(3 * n, n, -1)  # axes: row (a, α), atom i, component
    gradients = []
    for element_type in range(1, len(basis.elements) + 1):
        is_element = types == element_type
        element_dB = dB[:, is_element]
        gradients.append(element_dB.sum(axis=1))
        if basis.quadratic:
            gradients.append(_compute_quadratic_gradient(B[is_element], element_dB))
    return sum_features(basis, B, types), np.concatenate(gradients, axis=1)[:, basis.column_order]


def _compute_quadratic_gradient(B: Array, dB: Array) -> Array:
    """Compute the upper triangle of M + Mᵀ, with a halved diagonal, for M = (∂B/∂R)ᵀ B of each row of the gradient.

    B is ``(N, K)``, dB ``(n_rows, N, K)``; the returned gradient has the shape ``(n_rows, K (K + 1) / 2)``.
    """
    K = B.shape[1]
    rows = np.empty((len(dB), K * (K + 1) // 2))
    for first_row in range(0, len(dB), GRADIENT_BATCH_ROWS):
        window = slice(first_row, first_row + GRADIENT_BATCH_ROWS)
        M = dB[window].transpose(0, 2, 1) @ B
        rows[window] = pack_triangle(M + M.transpose(0, 2, 1))
    return rows


def extract_lammps_sums(lammps: Any, basis: SnapBasis, n: int) -> tuple[Array, Array, Array]:
    """Return the arrays of `compute_product_sums` for n atoms, but formed by LAMMPS, and the rows of the virial.

    The six rows of the virial are in the order xx, yy, zz, yz, xz, xy, in LAMMPS's frame.
    """
    snap_array = extract_snap_array(lammps, basis, f"quadraticflag {int(basis.quadratic)}")[:, basis.lammps_columns]
    return snap_array[0], snap_array[1 : 1 + 3 * n], snap_array[1 + 3 * n : 7 + 3 * n]
