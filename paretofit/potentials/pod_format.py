"""LAMMPS's POD files of a linear model: ``.podcoeff``, ``.podparam`` and the ``.mod`` that uses them.

For each element, a LAMMPS file lists the constant and the coefficients of the descriptors, in LAMMPS's order. Columns
in paretofit are in nested order, see `PodBasis`.
"""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from paretofit.core import Array, InputError, format_validation_error, write_text
from paretofit.descriptors import PodBasis, ReferencePotential
from paretofit.potentials.potential_files import (
    PotentialFiles,
    name_files,
    read_reference,
    resolve_potential_paths,
    select_basis,
    split_lines,
)

COEFFICIENT_KEY = "model_coefficients:"


def write_pod(
    folder: Path, name: str, basis: PodBasis, coefficients: Array, *, reference: ReferencePotential | None = None
) -> PotentialFiles:
    """Write a fitted model as a LAMMPS potential; parameters and errors are those of `write_snap`."""
    model_basis = select_basis(basis, len(coefficients))
    files = name_files(folder, name, coefficients, "pod", list(model_basis.elements), reference)
    values = _to_lammps_order(model_basis, coefficients)
    lines = [f"{COEFFICIENT_KEY} {len(values)} 0 0", *(f"{value:.17g}" for value in values.tolist())]
    write_text(files.coefficients, "\n".join(lines) + "\n")
    write_text(files.parameters, model_basis.format_parameters())
    write_text(files.include, files.format_include())
    return files


def _to_lammps_order(basis: PodBasis, coefficients: Array) -> Array:
    """Convert coefficients to LAMMPS's order, ``(n_features,)``: the constant and K others of each element."""
    n_elements = len(basis.elements)
    values = np.empty(basis.n_features - n_elements)
    values[basis.column_order] = coefficients[n_elements:]
    return np.column_stack([coefficients[:n_elements], values.reshape(n_elements, -1)]).ravel()


def read_pod(path: Path) -> tuple[PodBasis, Array, ReferencePotential | None]:
    """Read the LAMMPS files of a POD potential that `write_pod` wrote; see `read_snap`.

    Raises
    ------
    InputError
        If a file is missing, is not complete, or belongs to a POD potential with descriptors that `PodBasis` lacks.
    """
    coefficient_file, parameter_file, include = resolve_potential_paths(path)
    basis = _read_parameters(parameter_file)
    lines = split_lines(coefficient_file)
    try:
        values = np.array([float(text) for (text,) in lines[1:]])
    except ValueError as error:
        raise InputError(f"{coefficient_file} is not a complete .podcoeff: {error}; restore it from a copy") from error
    if len(values) != basis.n_features or lines[0] != [COEFFICIENT_KEY, str(len(values)), "0", "0"]:
        raise InputError(
            f"{coefficient_file} has {len(values)} coefficients, but {parameter_file} requires {basis.n_features}"
        )
    if not np.isfinite(values).all():
        raise InputError(f"{coefficient_file} has coefficients that are not finite numbers; fit it again")
    table = values.reshape(len(basis.elements), -1)
    coefficients = np.concatenate([table[:, 0], table[:, 1:].ravel()[basis.column_order]])
    return basis, coefficients, read_reference(include)


def _read_parameters(path: Path) -> PodBasis:
    """Read the basis of a parameter file, and check that the file is the one that the basis has."""
    settings: dict[str, Any] = {words[0]: words[1:] for words in split_lines(path)}
    size_key = "twobody_number_radial_basis_functions"
    if missing_keys := {"species", "rin", "rcut", size_key} - settings.keys():
        raise InputError(f"{path} has no '{min(missing_keys)}', so it is not a .podparam; specify another file")
    keys = [key for key in PodBasis.model_fields if key in settings]
    values = {key: " ".join(settings[key]) for key in keys} | {"twojmax": " ".join(settings[size_key])}
    try:
        basis = PodBasis(elements=settings["species"], **values)
    except ValidationError as error:
        reason = format_validation_error(error, PodBasis)
        raise InputError(f"{path} does not describe a POD potential: {reason}") from error
    expected_settings = dict(_split_settings(basis))
    for key, expected_value in expected_settings.items():
        value = settings.get(key, expected_value)
        if [_to_number(word) for word in value] != [_to_number(word) for word in expected_value]:
            raise InputError(
                f"{path}: '{key} {' '.join(value)}' is not supported with {basis.twojmax} two-body radial functions; "
                f"it must be {' '.join(expected_value)}. LAMMPS scripts can use any POD potential: specify a script"
            )
    return basis


def _split_settings(basis: PodBasis) -> list[tuple[str, list[str]]]:
    lines = [line.split() for line in basis.format_parameters().splitlines() if not line.startswith("#")]
    return [(words[0], words[1:]) for words in lines]


def _to_number(word: str) -> float | str:
    try:
        return float(word)
    except ValueError:
        return word
