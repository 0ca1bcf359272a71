"""Rows of one configuration from LAMMPS: an energy row and three force rows for each atom.

Quadratic rows are products of the linear bispectrum and its gradient (see `paretofit.linear.reduction`). Above
`MAX_GRADIENT` atoms the dense gradient, 3N² rows, is too large and LAMMPS makes the quadratic rows itself.

Every configuration is handed to LAMMPS as a three-dimensionally periodic cell in LAMMPS's frame: the
lattice is Minkowski-reduced (the same crystal with short vectors), made right-handed and rotated, and the
force rows are rotated back. Directions that are not periodic get a vacuum wider than the cutoff.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.geometry import complete_cell, minkowski_reduce

from paretofit.core import InputError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms

    from paretofit.core import Array
    from paretofit.descriptors.basis import SnapBasis

MAX_GRADIENT = 300
BAR_PER_EV_A3 = 1.6021765e6  # LAMMPS's nktv2p of its units metal
GPA_PER_BAR = 1e-4
FLAT = 1e-9  # volume of a cell whose vectors have length 1
NOISE = (
    r"^ERROR(?: on proc \d+)?: ",
    r"\s*For more information see \S+",
    r"\s*\(\S*\.(?:cpp|h):\d+\)",
    r"\s*Last input line:.*",
)
GRADIENT_BATCH_ROWS = 64  # rows of the gradient for which the K x K products are formed at once


def compute_configuration_rows(
    lammps: Any, basis: SnapBasis, atoms: Atoms, *, direct: bool | None = None
) -> tuple[Array, Array]:
    """Energy row and force rows of one configuration.

    Parameters
    ----------
    lammps : lammps.lammps
        An instance; it is cleared first.
    basis : SnapBasis
    atoms : ase.Atoms
        Any cell, periodic or not in each direction.
    direct : bool, optional
        Let LAMMPS form the quadratic rows (``quadraticflag 1``); by default only above 300 atoms.

    Returns
    -------
    energy_row : (n_features,) float64
        Σᵢ Bᵢ / N, so that its product with the coefficients is the energy per atom in eV.
    force_rows : (3N, n_features) float64
        Minus the derivative of Σᵢ Bᵢ with respect to the positions, 1/Å, in the frame of `atoms`;
        atom by atom, x, y, z.

    Raises
    ------
    InputError
        If it has an element that the basis lacks, is not finite or has no volume, or LAMMPS refuses it.
    """
    types = assign_types(basis, atoms)
    direct = len(atoms) > MAX_GRADIENT if direct is None else direct
    with translate_lammps_errors(atoms):
        rotation = create_lammps_atoms(lammps, basis, atoms, types)
        if direct:
            sums, gradients, _ = _lammps_sums(lammps, basis, len(atoms))
        else:
            sums, gradients = _product_sums(lammps, basis, types)
    return _in_frame(basis, atoms, types, rotation, sums, gradients)


def compute_configuration_rows_with_stress(lammps: Any, basis: SnapBasis, atoms: Atoms) -> tuple[Array, Array, Array]:
    """Energy row, force rows and stress rows of one configuration; LAMMPS forms the quadratic rows itself.

    Returns
    -------
    energy_row, force_rows
        As `compute_configuration_rows` gives them.
    stress_rows : (6, n_features) float64
        GPa, positive in tension, in ASE's Voigt order (xx, yy, zz, yz, xz, xy) and the frame of `atoms`. The unit is
        that of LAMMPS, whose factor from eV/Å³ to bar is 1.6021765e6, 8e-8 from the exact one.

    Raises
    ------
    InputError
        As `compute_configuration_rows`, and if it is not periodic in three directions.
    """
    if not atoms.pbc.all():
        raise InputError(f"{_name(atoms)} is not periodic in three directions, and has no stress")
    types = assign_types(basis, atoms)
    with translate_lammps_errors(atoms):
        rotation = create_lammps_atoms(lammps, basis, atoms, types)
        sums, gradients, virial = _lammps_sums(lammps, basis, len(atoms))
    energy_row, force_rows = _in_frame(basis, atoms, types, rotation, sums, gradients)
    stress_rows = np.zeros((6, basis.n_features))
    pressure = virial[:, basis.column_order] * (BAR_PER_EV_A3 * GPA_PER_BAR / atoms.cell.volume)
    stress_rows[:, len(basis.elements) :] = -rotate_voigt(pressure, rotation)
    if not np.isfinite(stress_rows).all():
        raise InputError(f"{_name(atoms)}: its stress rows are not finite; do atoms overlap?")
    return energy_row, force_rows, stress_rows


def rotate_voigt(values: Array, rotation: Array) -> Array:
    """Symmetric tensors ``(6, ...)`` in the order xx, yy, zz, yz, xz, xy, turned: R T Rᵀ."""
    full = np.array(values)[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
    turned = np.einsum("ia,ab...,jb->ij...", rotation, full, rotation)
    return np.asarray(turned[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]])


def _in_frame(
    basis: SnapBasis, atoms: Atoms, types: Array, rotation: Array, sums: Array, gradients: Array
) -> tuple[Array, Array]:
    """Energy and force rows in nested order and the frame of the configuration."""
    n, n_elements = len(atoms), len(basis.elements)
    energy_row = np.empty(basis.n_features)
    energy_row[:n_elements] = np.bincount(types - 1, minlength=n_elements) / n
    energy_row[n_elements:] = sums[basis.column_order] / n
    force_rows = np.zeros((3 * n, basis.n_features))
    rotated = np.einsum("ab,nbk->nak", rotation, gradients.reshape(n, 3, -1)[:, :, basis.column_order])
    force_rows[:, n_elements:] = rotated.reshape(3 * n, -1)
    if not (np.isfinite(energy_row).all() and np.isfinite(force_rows).all()):
        raise InputError(f"{_name(atoms)}: its descriptors are not finite; do atoms overlap?")
    return energy_row, force_rows


def _name(atoms: Atoms) -> str:
    return f"configuration {atoms.info.get('config_id', '?')}"


@contextmanager
def translate_lammps_errors(atoms: Atoms) -> Iterator[None]:
    """Turn what LAMMPS says is wrong into a sentence about the configuration."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the library raises a bare Exception with LAMMPS's own message
        raise InputError(f"{_name(atoms)}: LAMMPS stopped with: {format_lammps_error(error)}") from error


def format_lammps_error(error: Exception) -> str:
    """What LAMMPS says is wrong, without where in its source and in which line of our input."""
    text = one_line(error)
    for noise in NOISE:
        text = re.sub(noise, "", text)
    return text.strip() or type(error).__name__


def assign_types(basis: SnapBasis, atoms: Atoms) -> Array:
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell[:]).all()):
        raise InputError(f"{_name(atoms)} has positions or cell vectors that are not finite")
    known = {symbol: k + 1 for k, symbol in enumerate(basis.elements)}
    symbols = atoms.get_chemical_symbols()
    for symbol in symbols:
        if symbol not in known:
            raise InputError(
                f"{_name(atoms)} has {symbol}, an element without SNAP "
                f"parameters; the basis has {', '.join(basis.elements)}: add it to 'elements'"
            )
    return np.array([known[symbol] for symbol in symbols])


def transform_to_lammps_frame(atoms: Atoms, cutoff: float) -> tuple[Array, Array, Array]:
    """Cell, positions and rotation that bring a configuration into LAMMPS's frame.

    Returns
    -------
    cell : (3, 3) float64
        Rows; lower triangular with a positive diagonal, Å.
    positions : (N, 3) float64
        In that frame, Å.
    rotation : (3, 3) float64
        Proper; ``rotation @ v`` takes a vector of LAMMPS's frame back to the frame of `atoms`.
    """
    cell = np.array(complete_cell(build_vacuum_cell(atoms, cutoff)))
    if abs(np.linalg.det(cell / np.linalg.norm(cell, axis=1, keepdims=True))) < FLAT:
        raise InputError(f"{_name(atoms)}: its cell has no volume; give vectors that do not lie in one plane")
    cell, _ = minkowski_reduce(cell)
    if np.linalg.det(cell) < 0:
        cell[2] *= -1  # the same lattice, right-handed
    q, r = np.linalg.qr(cell.T)
    signs = np.sign(np.diag(r))
    rotation, lower = q * signs, (r.T * signs)
    scaled = np.linalg.solve(cell.T, atoms.positions.T).T
    return lower, (scaled - np.floor(scaled)) @ lower, rotation


def build_vacuum_cell(atoms: Atoms, cutoff: float) -> Array:
    """The cell with its non-periodic vectors replaced by ones long enough for the atoms and a vacuum."""
    cell = np.array(atoms.cell[:])
    periodic = np.asarray(atoms.pbc)
    if (np.linalg.norm(cell[periodic], axis=1) < 1e-8).any():
        raise InputError(f"{_name(atoms)} is periodic along a cell vector of length zero")
    if periodic.all():
        return cell
    cell[~periodic] = 0.0
    cell = np.array(complete_cell(cell))  # unit vectors at right angles to what is there
    for axis in np.flatnonzero(~periodic):
        unit = cell[axis] / np.linalg.norm(cell[axis])
        extent = np.ptp(atoms.positions @ unit)
        cell[axis] = unit * (extent + 2 * cutoff + 1.0)
    return cell


def create_lammps_atoms(lammps: Any, basis: SnapBasis, atoms: Atoms, types: Array) -> Array:
    """Set up the configuration in LAMMPS; return the rotation back to the frame of `atoms`."""
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
    made = lammps.create_atoms(n, list(range(1, n + 1)), types.tolist(), positions.ravel().tolist())
    if made != n:
        raise InputError(f"{_name(atoms)}: LAMMPS took {made} of its {n} atoms")
    # The pair style only makes LAMMPS build neighbour lists as far as the basis reaches.
    lammps.commands_string(
        "mass * 1.0\n"
        f"pair_style zero {basis.cutoff * 1.0001 + 1e-6!r} nocoeff\npair_coeff * *\n"
        f"neighbor 0.0 bin\nneigh_modify one {_neighbour_limit(cell, n, basis.cutoff)} page 10000000"
    )
    return rotation


def _neighbour_limit(cell: Array, n: int, cutoff: float) -> int:
    """A bound on the neighbours of an atom, for cells that are denser than LAMMPS expects."""
    volume = float(np.prod(np.diag(cell)))
    return min(900_000, int(2000 + 8 * n / volume * 4.19 * cutoff**3))


def format_compute_command(basis: SnapBasis, flags: str, style: str = "snap") -> str:
    numbers = " ".join(repr(float(value)) for value in [*basis.radelem, *basis.wj])
    chemistry = ""
    if basis.chemflag:
        chemistry = f" chem {len(basis.elements)} " + " ".join(str(k) for k in range(len(basis.elements)))
    return (
        f"compute rows all {style} {basis.rcutfac!r} {basis.rfac0!r} {basis.twojmax} {numbers} "
        f"rmin0 {basis.rmin0!r} bzeroflag {int(basis.bzeroflag)} switchflag {int(basis.switchflag)} "
        f"bnormflag {int(basis.bnormflag)} wselfallflag {int(basis.wselfallflag)}{chemistry} {flags}"
    )


def extract_snap_array(lammps: Any, basis: SnapBasis, flags: str) -> Array:
    lammps.command(format_compute_command(basis, flags))
    lammps.commands_string("thermo_style custom step c_rows[1][1]\nrun 0 post no")
    return np.asarray(lammps.numpy.extract_compute("rows", 0, 2))


def _product_sums(lammps: Any, basis: SnapBasis, types: Array) -> tuple[Array, Array]:
    """Sums over atoms of features and of minus their derivatives, from products of linear ones.

    With ``dgradflag 1`` the first N rows of LAMMPS's array are the atoms' B, and row
    ``N + 3 (a N + i) + α`` is -∂B_i/∂R_aα, both behind three index columns.
    """
    n, order = len(types), basis.component_order
    array = extract_snap_array(lammps, basis, "quadraticflag 0 bikflag 1 dgradflag 1")[:, 3:]
    B = np.ascontiguousarray(array[:n, order])
    dB = array[n : n + 3 * n * n].reshape(n, n, 3, -1).transpose(0, 2, 1, 3)[..., order].reshape(3 * n, n, -1)
    sums, gradients = [], []
    for element in range(1, len(basis.elements) + 1):
        own = types == element
        B_own, dB_own = B[own], dB[:, own]
        sums.append(B_own.sum(axis=0))
        gradients.append(dB_own.sum(axis=1))
        if basis.quadratic:
            sums.append(pack_triangle((B_own.T @ B_own)[None])[0])
            gradients.append(_quadratic_gradient(B_own, dB_own))
    return np.concatenate(sums), np.concatenate(gradients, axis=1)


def _quadratic_gradient(B: Array, dB: Array) -> Array:
    """Upper triangle of M + Mᵀ, diagonal halved, with M = (∂B/∂R)ᵀ B for each row of the gradient."""
    K = B.shape[1]
    rows = np.empty((len(dB), K * (K + 1) // 2))
    for start in range(0, len(dB), GRADIENT_BATCH_ROWS):
        M = dB[start : start + GRADIENT_BATCH_ROWS].transpose(0, 2, 1) @ B
        rows[start : start + GRADIENT_BATCH_ROWS] = pack_triangle(M + M.transpose(0, 2, 1))
    return rows


def pack_triangle(matrices: Array) -> Array:
    """Upper triangles, row by row, with halved diagonals, of ``(n, K, K)`` symmetric matrices."""
    K = matrices.shape[1]
    rows, columns = np.triu_indices(K)
    flat = matrices.reshape(len(matrices), -1)[:, rows * K + columns]
    flat[:, rows == columns] *= 0.5
    return np.asarray(flat)


def _lammps_sums(lammps: Any, basis: SnapBasis, n: int) -> tuple[Array, Array, Array]:
    """The same sums with LAMMPS forming the products (``quadraticflag 1``), reordered to ours, and the virial's six."""
    array = extract_snap_array(lammps, basis, f"quadraticflag {int(basis.quadratic)}")
    n_elements, K = len(basis.elements), basis.n_components
    width = (array.shape[1] - 1) // n_elements
    order = basis.component_order
    local = order
    if basis.quadratic:
        place = np.zeros((K, K), dtype=int)
        place[np.triu_indices(K)] = np.arange(K * (K + 1) // 2) + K
        place = np.maximum(place, place.T)
        rows, columns = np.triu_indices(K)
        local = np.concatenate([order, place[order[rows], order[columns]]])
    chosen = np.concatenate([element * width + local for element in range(n_elements)])
    return array[0, chosen], array[1 : 1 + 3 * n, chosen], array[1 + 3 * n : 7 + 3 * n, chosen]
