"""LAMMPS's SNAP files of a linear model: ``.snapcoeff``, ``.snapparam`` and the ``.mod`` that uses them.

For each element, LAMMPS's file lists the constant, the coefficients of the components, and those of the products of two
components (the upper triangle, row by row). Columns in paretofit are in nested order, see `SnapBasis`; this module
converts between the two orders.
"""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from paretofit.core import Array, InputError, format_validation_error, write_text
from paretofit.descriptors import ReferencePotential, SnapBasis
from paretofit.potentials.potential_files import (
    PotentialFiles,
    name_files,
    read_reference,
    read_words,
    reduce_basis,
    resolve_potential_paths,
)

# Keys of a .snapparam file: attribute of the basis, type, and LAMMPS's default value (None if there is no default).
PARAMETERS: dict[str, tuple[str, type, float | None]] = {
    "rcutfac": ("rcutfac", float, None),
    "twojmax": ("twojmax", int, None),
    "rfac0": ("rfac0", float, 0.99363),
    "rmin0": ("rmin0", float, 0.0),
    "bzeroflag": ("bzeroflag", bool, 1.0),
    "switchflag": ("switchflag", bool, 1.0),
    "quadraticflag": ("quadratic", bool, 0.0),
    "chemflag": ("chemflag", bool, 0.0),
    "bnormflag": ("bnormflag", bool, 0.0),
    "wselfallflag": ("wselfallflag", bool, 0.0),
}
# Keys of older versions of LAMMPS, with the only value that gives the components of current versions.
OBSOLETE_PARAMETERS = {"diagonalstyle": 3}


def write_snap(
    folder: Path, name: str, basis: SnapBasis, coefficients: Array, *, reference: ReferencePotential | None = None
) -> PotentialFiles:
    """Write a fitted model as a LAMMPS potential.

    Parameters
    ----------
    folder : Path
        Directory of the files; it is created if it does not exist.
    name : str
        Stem of the file names.
    basis : SnapBasis
        Basis with the largest 2Jmax; the model may have a smaller 2Jmax.
    coefficients : (p,) float64
        Coefficients in eV, in nested order; p must be the number of columns up to some 2Jmax of the basis.
    reference : ReferencePotential, optional
        Reference potential; the ``.mod`` file adds it as an overlay.

    Returns
    -------
    PotentialFiles

    Raises
    ------
    InputError
        If no 2Jmax has this number of columns, a coefficient is not finite, or LAMMPS cannot read the name.
    """
    model_basis = reduce_basis(basis, len(coefficients))
    files = name_files(folder, name, coefficients, "snap", list(model_basis.elements), reference)
    write_text(files.coefficients, _format_coefficients(model_basis, coefficients))
    write_text(files.parameters, _format_parameters(model_basis))
    write_text(files.include, files.format_include())
    return files


def to_lammps_coefficients(basis: SnapBasis, coefficients: Array) -> Array:
    """Convert coefficients ``(n_features,)`` from nested order to LAMMPS's order.

    Returns
    -------
    (n_elements, 1 + K [+ K(K+1)/2]) float64
        Coefficients of the constant, of the K components, and of their products for a quadratic model.

    Notes
    -----
    With chemflag, several components are equal, and a fit may distribute a coefficient among them in any way. The
    energy in LAMMPS does not depend on the distribution, but the forces are the gradient of this energy only if equal
    components have equal coefficients (``SNA::compute_yi`` uses one of them for all). They are therefore averaged.
    """
    n_elements = len(basis.elements)
    lammps_coefficients = np.empty(basis.n_features - n_elements)
    lammps_coefficients[basis.lammps_columns] = coefficients[n_elements:]
    table = np.column_stack([coefficients[:n_elements], lammps_coefficients.reshape(n_elements, -1)])
    if basis.chemflag:
        _average_equal_components(basis, table)
    return table


def _average_equal_components(basis: SnapBasis, table: Array) -> None:
    """Average the coefficients of equal components, and those of equal products of components, in place.

    `table` is an array of coefficients in LAMMPS's order; see `to_lammps_coefficients`.
    """
    K = basis.n_components
    # Components are equal if they have the same three pairs of angular order and element.
    equal_components: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for k, (e1, e2, e3, j1, j2, j) in enumerate(basis.lammps_components):
        equal_components.setdefault(tuple(sorted([(j1, e1), (j2, e2), (j, e3)])), []).append(k)
    averaging_matrix = np.zeros((K, K))
    for indices in equal_components.values():
        averaging_matrix[np.ix_(indices, indices)] = 1 / len(indices)
    triangle = np.triu_indices(K)
    for row in table:
        row[1 : K + 1] = averaging_matrix @ row[1 : K + 1]
        if basis.quadratic:
            products = np.zeros((K, K))
            products[triangle] = row[K + 1 :]
            # LAMMPS halves the squares, so that the energy of the products is ½ Bᵀ S B with this symmetric matrix S.
            symmetric_products = products + products.T - np.diag(np.diag(products))
            row[K + 1 :] = (averaging_matrix @ symmetric_products @ averaging_matrix)[triangle]


def _format_coefficients(basis: SnapBasis, coefficients: Array) -> str:
    """Format the text of a ``.snapcoeff`` file."""
    table = to_lammps_coefficients(basis, coefficients)
    lines = ["# SNAP coefficients written by paretofit", f"{len(basis.elements)} {table.shape[1]}"]
    for symbol, radius, weight, element_coefficients in zip(
        basis.elements, basis.radelem, basis.wj, table, strict=True
    ):
        lines.append(f"{symbol} {radius!r} {weight!r}")
        lines += [f"{coefficient:.17g}" for coefficient in element_coefficients.tolist()]
    return "\n".join(lines) + "\n"


def _format_parameters(basis: SnapBasis) -> str:
    """Format the text of a ``.snapparam`` file."""
    lines = ["# SNAP parameters written by paretofit"]
    for key, (attribute, value_type, _) in PARAMETERS.items():
        value = getattr(basis, attribute)
        lines.append(f"{key} {value!r}" if value_type is float else f"{key} {int(value)}")
    return "\n".join(lines) + "\n"


def read_snap(path: Path) -> tuple[SnapBasis, Array, ReferencePotential | None]:
    """Read the LAMMPS files of a SNAP potential.

    Parameters
    ----------
    path : Path
        Path of a ``.mod``, ``.snapcoeff`` or ``.snapparam`` file, or of a directory with one potential.

    Returns
    -------
    basis : SnapBasis
    coefficients : (n_features,) float64
        Coefficients in nested order.
    reference : ReferencePotential or None
        From the ``.mod`` file; None if this file is missing or has no reference potential.

    Raises
    ------
    InputError
        If a file is missing or incomplete, does not belong to a SNAP potential, or contains an invalid value.
    """
    coefficient_file, parameter_file, include = resolve_potential_paths(path)
    settings = _read_parameters(parameter_file)
    elements, table = _read_coefficients(coefficient_file)
    try:
        columns: Any = zip(*elements, strict=True)
        symbols, radii, weights = map(list, columns)
        attributes = {attribute: value_type(settings[key]) for key, (attribute, value_type, _) in PARAMETERS.items()}
        basis = SnapBasis(elements=symbols, radelem=radii, wj=weights, **attributes)
    except ValidationError as error:
        reason = format_validation_error(error, SnapBasis)
        raise InputError(
            f"{coefficient_file} and {parameter_file} do not describe a SNAP potential: {reason}"
        ) from error
    width = _count_columns(basis)
    if table.shape[1] != width:
        raise InputError(
            f"{coefficient_file} has {table.shape[1]} coefficients for each element, but {parameter_file} requires "
            f"{width}"
        )
    return basis, to_nested_coefficients(basis, table), read_reference(include)


def find_snap_files(path: Path) -> PotentialFiles:
    """Return the paths of the files of an existing SNAP potential, after reading them as a check; see `read_snap`.

    If the ``.snapparam`` has a key that current versions of LAMMPS no longer accept, `PotentialFiles.parameters` is the
    path of a temporary copy without the key.
    """
    basis, _, reference = read_snap(path)
    coefficients, parameters, include = resolve_potential_paths(path)
    if OBSOLETE_PARAMETERS.keys() & {words[0] for words in read_words(parameters)}:
        parameters = _write_temporary_parameters(_format_parameters(basis))
    return PotentialFiles(coefficients, parameters, include, list(basis.elements), reference)


@cache
def _write_temporary_parameters(text: str) -> Path:
    """Write a temporary ``.snapparam`` and return its path; a second call with the same text returns the same path.

    The file is removed when the process ends.
    """
    folder = Path(tempfile.mkdtemp(prefix="paretofit-potential-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_text(folder / "potential.snapparam", text)
    return folder / "potential.snapparam"


def to_nested_coefficients(basis: SnapBasis, table: Array) -> Array:
    """Convert LAMMPS's coefficients, ``(n_elements, 1 + K [+ K(K+1)/2])``, to nested order, ``(n_features,)``."""
    return np.concatenate([table[:, 0], table[:, 1:].ravel()[basis.lammps_columns]])


def _count_columns(basis: SnapBasis) -> int:
    """Compute the number of coefficients of one element.

    Components are counted, not listed, because with chemflag and many elements there can be too many for the memory.
    """
    K = SnapBasis(elements=basis.elements[:1], twojmax=basis.twojmax).n_components
    K *= len(basis.elements) ** 3 if basis.chemflag else 1
    return 1 + K + (K * (K + 1) // 2 if basis.quadratic else 0)


def _read_parameters(path: Path) -> dict[str, float]:
    """Read the parameters by key, with LAMMPS's defaults for missing keys.

    Raises
    ------
    InputError
        If a line does not consist of a key and a number, a key appears twice or is missing, or a value is invalid.
    """
    settings: dict[str, float] = {}
    for words in read_words(path):
        if len(words) != 2:
            raise InputError(f"{path}: the line '{' '.join(words)}' must consist of a key and a number")
        key, text = words
        if key in settings:
            raise InputError(f"{path}: '{key}' appears more than once; remove all lines but one")
        settings[key] = _parse_parameter(path, key, text)
    for key, (_, _, default) in PARAMETERS.items():
        if key not in settings and default is None:
            raise InputError(f"{path} has no '{key}', so it is not a .snapparam; specify another file")
    return {key: default for key, (_, _, default) in PARAMETERS.items() if default is not None} | settings


def _parse_parameter(path: Path, key: str, text: str) -> float:
    """Parse and check the value of a key; raise `InputError` if it is invalid.

    A flag must be 0 or 1, and 2Jmax a whole number. A key outside `PARAMETERS` must have the value listed in
    `OBSOLETE_PARAMETERS` or, if it is not listed, the value 0.
    """
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{path}: '{key}' must be a number; got '{text}'") from error
    if key not in PARAMETERS:
        if value != (expected_value := OBSOLETE_PARAMETERS.get(key, 0)):
            raise InputError(f"{path}: '{key} {text}' is not supported; it must be {expected_value}")
        return value
    value_type = PARAMETERS[key][1]
    if not np.isfinite(value):
        raise InputError(f"{path}: '{key}' must be a finite number; got '{text}'")
    if value_type is bool and value not in {0, 1}:
        raise InputError(f"{path}: '{key}' is a flag, 0 or 1; got '{text}'")
    if value_type is int and value != int(value):
        raise InputError(f"{path}: '{key}' must be a whole number; got '{text}'")
    return value


def _read_coefficients(path: Path) -> tuple[list[tuple[str, float, float]], Array]:
    """Return the symbol, radius and weight of each element, and the coefficients, ``(n_elements, width)``.

    Raises
    ------
    InputError
        If the file is not complete, or a coefficient is not finite.
    """
    lines = read_words(path)
    elements, rows = [], []
    try:
        n_elements, width = (int(word) for word in lines[0])
        n_lines = 1 + n_elements * (width + 1)
        if min(n_elements, width) < 1 or len(lines) != n_lines:
            raise InputError(
                f"{path} is not a complete .snapcoeff: {n_elements} elements with {width} coefficients each require "
                f"{n_lines} lines, but it has {len(lines)}; restore it from a copy"
            )
        for header in range(1, n_lines, width + 1):
            symbol, radius, weight = lines[header]
            elements.append((symbol, float(radius), float(weight)))
            rows.append([float(text) for (text,) in lines[header + 1 : header + 1 + width]])
    except (ValueError, IndexError) as error:
        if isinstance(error, InputError):  # a subclass of ValueError
            raise
        raise InputError(f"{path} is not a complete .snapcoeff: {error}; restore it from a copy") from error
    table = np.array(rows)
    if not np.isfinite(table).all():
        element, k = np.argwhere(~np.isfinite(table))[0]
        raise InputError(
            f"{path}: coefficient {k + 1} of {elements[element][0]} is not a finite number; fit the potential again"
        )
    return elements, table
