"""Configurations in LAMMPS: the cell in LAMMPS's frame, atom types, per-atom results and error messages.

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
from paretofit.descriptors.linear_basis import LinearBasis

# Volume of a cell whose vectors are scaled to length 1; if it is smaller, the vectors are considered to lie in a plane.
MIN_NORMALISED_VOLUME = 1e-9
# Patterns of the details in LAMMPS's messages that do not help a user.
LAMMPS_ERROR_DETAILS = (
    r"^ERROR(?: on proc \d+)?: ",
    r"\s*For more information see \S+",
    r"\s*\(\S*\.(?:cpp|h):\d+\)",
    r"\s*Last input line:.*",
)


def name_configuration(atoms: Atoms) -> str:
    """Return the name of a configuration for messages, such as "configuration 17"; "?" stands for a missing id."""
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
def load_configuration(lammps: Any, basis: LinearBasis, atoms: Atoms) -> Iterator[tuple[Array, Array]]:
    """Replace the system in LAMMPS by a configuration; yield the types of its atoms and the rotation of LAMMPS's frame.

    The types are those of `assign_types`, the rotation, ``(3, 3)``, that of `transform_to_lammps_frame`. Errors of
    LAMMPS inside the `with` block become an `InputError` that names the configuration.
    """
    types = assign_types(basis, atoms)
    with translate_lammps_errors(atoms):
        yield types, create_lammps_atoms(lammps, basis, atoms, types)


def format_lammps_error(error: Exception) -> str:
    """Return LAMMPS's message on one line without the details in `LAMMPS_ERROR_DETAILS`.

    These are the prefix "ERROR: ", the link to the manual, the location in LAMMPS's source code, and the last command.
    If nothing remains, return the name of the exception's type.
    """
    text = join_lines(error)
    for pattern in LAMMPS_ERROR_DETAILS:
        text = re.sub(pattern, "", text)
    return text.strip() or type(error).__name__


def assign_types(basis: LinearBasis, atoms: Atoms) -> Array:
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


def check_elements(atoms: Atoms, basis: LinearBasis, prefix: str = "") -> None:
    """Raise `InputError`, with a message that begins with `prefix`, if the basis lacks an element of `atoms`."""
    if missing_elements := set(atoms.get_chemical_symbols()) - set(basis.elements):
        raise InputError(
            f"{prefix}{name_configuration(atoms)} has {min(missing_elements)}, an element that the basis lacks; the "
            f"basis has {', '.join(basis.elements)}: add the element to 'elements'"
        )


def transform_to_lammps_frame(atoms: Atoms, cutoff: float) -> tuple[Array, Array, Array]:
    """Transform a configuration to LAMMPS's frame.

    Parameters
    ----------
    atoms : ase.Atoms
    cutoff : float
        Largest distance of neighbours, Å, which determines the width of a vacuum; see `build_vacuum_cell`.

    Returns
    -------
    cell : (3, 3) float64
        Cell vectors as rows, Å; lower triangular with a positive diagonal.
    positions : (N, 3) float64
        Positions in LAMMPS's frame, wrapped into the cell, Å.
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
    Q, R = np.linalg.qr(cell.T)  # cell = Rᵀ Qᵀ, and Rᵀ is lower triangular
    signs = np.sign(np.diag(R))  # LAMMPS requires a positive diagonal
    rotation, lammps_cell = Q * signs, R.T * signs
    fractional_positions = np.linalg.solve(cell.T, atoms.positions.T).T
    return lammps_cell, (fractional_positions - np.floor(fractional_positions)) @ lammps_cell, rotation


def create_lammps_atoms(lammps: Any, basis: LinearBasis, atoms: Atoms, types: Array) -> Array:
    """Clear LAMMPS and create the configuration in it; return the rotation back to the frame of `atoms`.

    `types`, ``(N,) int``, contains LAMMPS's type of each atom. Raises `InputError` if LAMMPS does not create all atoms.
    """
    cell, positions, rotation = transform_to_lammps_frame(atoms, basis.cutoff)
    (xx, _, _), (xy, yy, _), (xz, yz, zz) = cell.tolist()
    lammps.command("clear")
    lammps.commands_string(
        "units metal\natom_style atomic\natom_modify map array sort 0 0\nbox tilt large\n"
        f"region cell prism 0 {xx!r} 0 {yy!r} 0 {zz!r} {xy!r} {xz!r} {yz!r}\n"
        f"create_box {len(basis.elements)} cell"
    )
    n_atoms = len(atoms)
    n_created = lammps.create_atoms(n_atoms, list(range(1, n_atoms + 1)), types.tolist(), positions.ravel().tolist())
    if n_created != n_atoms:
        raise InputError(f"{name_configuration(atoms)}: LAMMPS created {n_created} of its {n_atoms} atoms")
    # The pair style has no forces; it makes LAMMPS build neighbour lists up to slightly more than the basis's cutoff.
    lammps.commands_string(
        "mass * 1.0\n"
        f"pair_style zero {basis.cutoff * 1.0001 + 1e-6!r} nocoeff\npair_coeff * *\n"
        f"neighbor 0.0 bin\n{NEIGHBOUR_LIMITS}"
    )
    return rotation


def extract_per_atom(lammps: Any, values: Array, n_atoms: int) -> Array:
    """Copy LAMMPS's per-atom values to an array ``(n_atoms, ...)`` in the order of the configuration.

    LAMMPS may reorder the atoms, and its arrays may continue with ghost atoms.
    """
    order = np.argsort(np.array(lammps.numpy.extract_atom("id"))[:n_atoms])
    return np.array(values)[:n_atoms][order]


def rotate_voigt(values: Array, rotation: Array) -> Array:
    """Rotate symmetric tensors T, ``(6, ...)`` in the order xx, yy, zz, yz, xz, xy, to R T Rᵀ."""
    tensors = np.array(values)[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
    rotated_tensors = np.einsum("ia,ab...,jb->ij...", rotation, tensors, rotation)
    return np.asarray(rotated_tensors[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]])
