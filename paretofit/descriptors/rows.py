"""Rows of one configuration from LAMMPS: an energy row and three force rows for each atom.

Quadratic rows are formed from products of the linear bispectrum and its gradient (see `paretofit.linear.reduction`).
Above `MAX_DENSE_GRADIENT_ATOMS` atoms, the dense gradient of 3N² rows is too large, and LAMMPS forms the products.

Every configuration is passed to LAMMPS as a three-dimensionally periodic cell in LAMMPS's frame: the
lattice is Minkowski-reduced (the same crystal with short vectors), made right-handed and rotated, and the
force rows are rotated back. Directions that are not periodic get a vacuum wider than the cutoff.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell, minkowski_reduce

from paretofit.core import NEIGHBOUR_LIMITS, Array, InputError, build_vacuum_cell, join_lines
from paretofit.descriptors.basis import SnapBasis

MAX_DENSE_GRADIENT_ATOMS = 300  # number of atoms above which LAMMPS forms the products
BAR_PER_EV_A3 = 1.6021765e6  # LAMMPS's constant nktv2p in metal units
GPA_PER_BAR = 1e-4
MIN_NORMALISED_VOLUME = 1e-9  # volume of a cell whose vectors are scaled to length 1; below it, they lie in one plane
LAMMPS_ERROR_DETAILS = (  # locations in LAMMPS's source and in our input, which do not help a user
    r"^ERROR(?: on proc \d+)?: ",
    r"\s*For more information see \S+",
    r"\s*\(\S*\.(?:cpp|h):\d+\)",
    r"\s*Last input line:.*",
)
GRADIENT_BATCH_ROWS = 64  # rows of the gradient for which the K x K products are formed at once


def compute_configuration_rows(
    lammps: Any, basis: SnapBasis, atoms: Atoms, *, use_lammps_products: bool | None = None
) -> tuple[Array, Array]:
    """Energy row and force rows of one configuration.

    Parameters
    ----------
    lammps : lammps.lammps
        LAMMPS instance, which is cleared first.
    basis : SnapBasis
    atoms : ase.Atoms
        Any cell, periodic or not in each direction.
    use_lammps_products : bool, optional
        Whether LAMMPS forms the quadratic rows (``quadraticflag 1``); by default only above 300 atoms.

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
        if use_lammps_products:
            sums, gradients, _ = _extract_lammps_sums(lammps, basis, len(atoms))
        else:
            sums, gradients = _compute_product_sums(lammps, basis, types)
    return _build_rows(basis, atoms, types, rotation, sums, gradients)


def compute_configuration_rows_with_stress(lammps: Any, basis: SnapBasis, atoms: Atoms) -> tuple[Array, Array, Array]:
    """Energy row, force rows and stress rows of one configuration; LAMMPS forms the quadratic rows.

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
    with load_configuration(lammps, basis, atoms) as (types, rotation):
        sums, gradients, virial = _extract_lammps_sums(lammps, basis, len(atoms))
    energy_row, force_rows = _build_rows(basis, atoms, types, rotation, sums, gradients)
    stress_rows = np.zeros((6, basis.n_features))
    pressure = virial * (BAR_PER_EV_A3 * GPA_PER_BAR / atoms.cell.volume)
    stress_rows[:, len(basis.elements) :] = -rotate_voigt(pressure, rotation)
    if not np.isfinite(stress_rows).all():
        raise InputError(f"{name_configuration(atoms)}: its stress rows are not finite; do atoms overlap?")
    return energy_row, force_rows, stress_rows


def rotate_voigt(values: Array, rotation: Array) -> Array:
    """Rotate symmetric tensors T, ``(6, ...)`` in the order xx, yy, zz, yz, xz, xy, to R T Rᵀ."""
    tensors = np.array(values)[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
    rotated_tensors = np.einsum("ia,ab...,jb->ij...", rotation, tensors, rotation)
    return np.asarray(rotated_tensors[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]])


def _build_rows(
    basis: SnapBasis, atoms: Atoms, types: Array, rotation: Array, sums: Array, gradients: Array
) -> tuple[Array, Array]:
    """Return the energy row, and the force rows in the frame of the configuration, both with constant columns.

    Raises `InputError` if they are not finite.
    """
    n, n_elements = len(atoms), len(basis.elements)
    energy_row = np.empty(basis.n_features)
    energy_row[:n_elements] = np.bincount(types - 1, minlength=n_elements) / n
    energy_row[n_elements:] = sums / n
    force_rows = np.zeros((3 * n, basis.n_features))
    rotated_gradients = np.einsum("ab,nbk->nak", rotation, gradients.reshape(n, 3, -1))
    force_rows[:, n_elements:] = rotated_gradients.reshape(3 * n, -1)
    if not (np.isfinite(energy_row).all() and np.isfinite(force_rows).all()):
        raise InputError(f"{name_configuration(atoms)}: its descriptors are not finite; do atoms overlap?")
    return energy_row, force_rows


def name_configuration(atoms: Atoms) -> str:
    """Return the name of a configuration for messages."""
    return f"configuration {atoms.info.get('config_id', '?')}"


@contextmanager
def translate_lammps_errors(atoms: Atoms) -> Iterator[None]:
    """Raise errors of LAMMPS as an `InputError` that names the configuration."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the library raises a bare Exception with LAMMPS's message
        raise InputError(f"{name_configuration(atoms)}: LAMMPS stopped with: {format_lammps_error(error)}") from error


@contextmanager
def load_configuration(lammps: Any, basis: SnapBasis, atoms: Atoms) -> Iterator[tuple[Array, Array]]:
    """Create a LAMMPS system from a configuration; yield its atom types and rotation.

    See `assign_types` and `create_lammps_atoms`. LAMMPS errors inside the `with` block become an `InputError` that
    names the configuration.
    """
    types = assign_types(basis, atoms)
    with translate_lammps_errors(atoms):
        yield types, create_lammps_atoms(lammps, basis, atoms, types)


def format_lammps_error(error: Exception) -> str:
    """Return LAMMPS's message without the location in its source code and the last line of our input."""
    text = join_lines(error)
    for pattern in LAMMPS_ERROR_DETAILS:
        text = re.sub(pattern, "", text)
    return text.strip() or type(error).__name__


def assign_types(basis: SnapBasis, atoms: Atoms) -> Array:
    """Return LAMMPS's type of each atom, ``(N,) int``, counted from 1.

    Raises
    ------
    InputError
        If the basis lacks an element, or positions or cell vectors are not finite.
    """
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell[:]).all()):
        raise InputError(
            f"{name_configuration(atoms)} has positions or cell vectors that are not finite; correct or remove it"
        )
    check_elements(atoms, basis)
    types = {symbol: k for k, symbol in enumerate(basis.elements, start=1)}
    return np.array([types[symbol] for symbol in atoms.get_chemical_symbols()])


def check_elements(atoms: Atoms, basis: SnapBasis, prefix: str = "") -> None:
    """Raise `InputError`, with a message that begins with `prefix`, if the basis lacks an element of `atoms`."""
    if missing_elements := set(atoms.get_chemical_symbols()) - set(basis.elements):
        raise InputError(
            f"{prefix}{name_configuration(atoms)} has {min(missing_elements)}, an element without SNAP parameters; the "
            f"basis has {', '.join(basis.elements)}: add the element to 'elements'"
        )


def transform_to_lammps_frame(atoms: Atoms, cutoff: float) -> tuple[Array, Array, Array]:
    """Transform a configuration to LAMMPS's frame.

    Returns
    -------
    cell : (3, 3) float64
        Cell vectors as rows, Å; lower triangular with a positive diagonal.
    positions : (N, 3) float64
        Positions in LAMMPS's frame, Å.
    rotation : (3, 3) float64
        Proper rotation; ``rotation @ v`` transforms a vector from LAMMPS's frame back to the frame of `atoms`.

    Raises
    ------
    InputError
        If the cell has no volume.
    """
    cell = np.array(complete_cell(build_vacuum_cell(atoms, cutoff)))
    if abs(np.linalg.det(cell / np.linalg.norm(cell, axis=1, keepdims=True))) < MIN_NORMALISED_VOLUME:
        raise InputError(f"{name_configuration(atoms)}: its cell has no volume; its vectors must not lie in one plane")
    cell, _ = minkowski_reduce(cell)
    if np.linalg.det(cell) < 0:
        cell[2] *= -1  # the same lattice, right-handed
    Q, R = np.linalg.qr(cell.T)
    signs = np.sign(np.diag(R))  # LAMMPS requires a positive diagonal
    rotation, lammps_cell = Q * signs, (R.T * signs)
    fractional_positions = np.linalg.solve(cell.T, atoms.positions.T).T
    return lammps_cell, (fractional_positions - np.floor(fractional_positions)) @ lammps_cell, rotation


def create_lammps_atoms(lammps: Any, basis: SnapBasis, atoms: Atoms, types: Array) -> Array:
    """Create the configuration in LAMMPS; return the rotation back to the frame of `atoms`."""
    cell, positions, rotation = transform_to_lammps_frame(atoms, basis.cutoff)
    (xx, _, _), (xy, yy, _), (xz, yz, zz) = cell.tolist()
    n_types = len(basis.elements)
    lammps.command("clear")
    lammps.commands_string(
        "units metal\natom_style atomic\natom_modify map array sort 0 0\nbox tilt large\n"
        f"region cell prism 0 {xx!r} 0 {yy!r} 0 {zz!r} {xy!r} {xz!r} {yz!r}\n"
        f"create_box {n_types} cell"
    )
    n = len(atoms)
    n_created = lammps.create_atoms(n, list(range(1, n + 1)), types.tolist(), positions.ravel().tolist())
    if n_created != n:
        raise InputError(f"{name_configuration(atoms)}: LAMMPS created {n_created} of its {n} atoms")
    # The pair style has no forces; it makes LAMMPS build neighbour lists up to slightly more than the basis's cutoff.
    lammps.commands_string(
        "mass * 1.0\n"
        f"pair_style zero {basis.cutoff * 1.0001 + 1e-6!r} nocoeff\npair_coeff * *\n"
        f"neighbor 0.0 bin\n{NEIGHBOUR_LIMITS}"
    )
    return rotation


def format_compute_command(basis: SnapBasis, flags: str, style: str = "snap") -> str:
    """Return LAMMPS's command that defines the compute "rows" for a basis."""
    element_settings = " ".join(repr(float(value)) for value in [*basis.radelem, *basis.wj])
    chemistry = ""
    if basis.chemflag:
        chemistry = f" chem {len(basis.elements)} " + " ".join(str(k) for k in range(len(basis.elements)))
    return (
        f"compute rows all {style} {basis.rcutfac!r} {basis.rfac0!r} {basis.twojmax} {element_settings} "
        f"rmin0 {basis.rmin0!r} bzeroflag {int(basis.bzeroflag)} switchflag {int(basis.switchflag)} "
        f"bnormflag {int(basis.bnormflag)} wselfallflag {int(basis.wselfallflag)}{chemistry} {flags}"
    )


def extract_per_atom(lammps: Any, values: Array, n: int) -> Array:
    """Copy LAMMPS's per-atom values to an array ``(n, ...)`` in the order of the atoms."""
    order = np.argsort(np.array(lammps.numpy.extract_atom("id"))[:n])
    return np.array(values)[:n][order]


def extract_snap_array(lammps: Any, basis: SnapBasis, flags: str) -> Array:
    """Evaluate LAMMPS's ``compute snap`` with these flags, and return a view of LAMMPS's memory."""
    lammps.command(format_compute_command(basis, flags))
    lammps.commands_string("thermo_style custom step c_rows[1][1]\nrun 0 post no")
    return np.asarray(lammps.numpy.extract_compute("rows", 0, 2))


def extract_atom_gradient(lammps: Any, basis: SnapBasis, n: int) -> tuple[Array, Array]:
    """Return the components of each atom, ``(n, K)``, and minus their derivatives, ``(n, n, 3, K)``, in nested order.

    The axes of the derivatives are the atom a that moves, the atom i that has the components, the direction α, and the
    component. With ``dgradflag 1``, the first n rows of LAMMPS's array are B_i, and row ``n + 3 (a n + i) + α`` is
    -∂B_i/∂R_aα; every row begins with three index columns.
    """
    rows = extract_snap_array(lammps, basis, "quadraticflag 0 bikflag 1 dgradflag 1")[:, 3:][:, basis.component_order]
    return rows[:n], rows[n : n + 3 * n * n].reshape(n, n, 3, -1)


def _compute_product_sums(lammps: Any, basis: SnapBasis, types: Array) -> tuple[Array, Array]:
    """Return the sums of all atoms' features and minus the derivatives of these sums, both in nested order.

    Quadratic features and their derivatives are formed from linear ones.
    """
    n = len(types)
    B, dB = extract_atom_gradient(lammps, basis, n)
    dB = dB.transpose(0, 2, 1, 3).reshape(3 * n, n, -1)
    gradients = []
    for element in range(1, len(basis.elements) + 1):
        element_dB = dB[:, types == element]
        gradients.append(element_dB.sum(axis=1))
        if basis.quadratic:
            gradients.append(_compute_quadratic_gradient(B[types == element], element_dB))
    return sum_features(basis, B, types), np.concatenate(gradients, axis=1)[:, basis.column_order]


def sum_features(basis: SnapBasis, B: Array, types: Array) -> Array:
    """Sum the features of all atoms by element, ``(n_features - n_elements,)`` in nested order."""
    sums = []
    for element in range(1, len(basis.elements) + 1):
        element_B = B[types == element]
        sums.append(element_B.sum(axis=0))
        if basis.quadratic:
            sums.append(pack_triangle((element_B.T @ element_B)[None])[0])
    return np.concatenate(sums)[basis.column_order]


def _compute_quadratic_gradient(B: Array, dB: Array) -> Array:
    """Compute the upper triangle of M + Mᵀ, diagonal halved, with M = (∂B/∂R)ᵀ B for each row of the gradient."""
    K = B.shape[1]
    rows = np.empty((len(dB), K * (K + 1) // 2))
    for start in range(0, len(dB), GRADIENT_BATCH_ROWS):
        M = dB[start : start + GRADIENT_BATCH_ROWS].transpose(0, 2, 1) @ B
        rows[start : start + GRADIENT_BATCH_ROWS] = pack_triangle(M + M.transpose(0, 2, 1))
    return rows


def pack_triangle(matrices: Array) -> Array:
    """Pack the upper triangles of ``(n, K, K)`` symmetric matrices row by row, with halved diagonals."""
    K = matrices.shape[1]
    rows, columns = np.triu_indices(K)
    packed_matrices = matrices.reshape(len(matrices), -1)[:, rows * K + columns]
    packed_matrices[:, rows == columns] *= 0.5
    return np.asarray(packed_matrices)


def _extract_lammps_sums(lammps: Any, basis: SnapBasis, n: int) -> tuple[Array, Array, Array]:
    """Return the same arrays as `_compute_product_sums`, here formed by LAMMPS, and the six rows of the virial."""
    snap_array = extract_snap_array(lammps, basis, f"quadraticflag {int(basis.quadratic)}")[:, basis.lammps_columns]
    return snap_array[0], snap_array[1 : 1 + 3 * n], snap_array[1 + 3 * n : 7 + 3 * n]
