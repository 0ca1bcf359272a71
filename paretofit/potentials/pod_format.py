"""LAMMPS's POD files of a linear model: ``.podcoeff``, ``.podparam`` and the ``.mod`` that uses them.

For each element, LAMMPS's file lists the constant and the coefficients of the descriptors, in LAMMPS's order. Columns
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
    read_words,
    reduce_basis,
    resolve_potential_paths,
)

COEFFICIENT_KEY = "model_coefficients:"  # first word of a .podcoeff


def write_pod(
    folder: Path, name: str, basis: PodBasis, coefficients: Array, *, reference: ReferencePotential | None = None
) -> PotentialFiles:
    """Write a fitted model as a LAMMPS potential; parameters and errors are those of `write_snap`."""
    model_basis = reduce_basis(basis, len(coefficients))
    files = name_files(folder, name, coefficients, "pod", list(model_basis.elements), reference)
    lammps_coefficients = _to_lammps_order(model_basis, coefficients)
    lines = [f"{COEFFICIENT_KEY} {len(lammps_coefficients)} 0 0"]
    lines += [f"{coefficient:.17g}" for coefficient in lammps_coefficients.tolist()]
    write_text(files.coefficients, "\n".join(lines) + "\n")
    write_text(files.parameters, model_basis.format_parameters())
    write_text(files.include, files.format_include())
    return files


def _to_lammps_order(basis: PodBasis, coefficients: Array) -> Array:
    """Convert coefficients ``(n_features,)`` from nested order, with all constants first, to LAMMPS's order.

    In LAMMPS's order, the constant of each element is followed by the coefficients of its descriptors.
    """
    n_elements = len(basis.elements)
    descriptor_coefficients = np.empty(basis.n_features - n_elements)
    descriptor_coefficients[basis.column_order] = coefficients[n_elements:]
    return np.column_stack([coefficients[:n_elements], descriptor_coefficients.reshape(n_elements, -1)]).ravel()


def read_pod(path: Path) -> tuple[PodBasis, Array, ReferencePotential | None]:
    """Read the LAMMPS files of a POD potential; parameters and returned objects are those of `read_snap`.

    Raises
    ------
    InputError
        If a file is missing or incomplete, a value is invalid, or the potential has descriptors that `PodBasis` lacks;
        potentials from `write_pod` have no such descriptors.
    """
    coefficient_file, parameter_file, include = resolve_potential_paths(path)
    basis = _read_parameters(parameter_file)
    lines = read_words(coefficient_file)
    try:
        lammps_coefficients = np.array([float(text) for (text,) in lines[1:]])
    except ValueError as error:
        raise InputError(f"{coefficient_file} is not a complete .podcoeff: {error}; restore it from a copy") from error
    n_coefficients = len(lammps_coefficients)
    if n_coefficients != basis.n_features or lines[0] != [COEFFICIENT_KEY, str(n_coefficients), "0", "0"]:
        raise InputError(
            f"{coefficient_file} must begin with '{COEFFICIENT_KEY} {basis.n_features} 0 0' and have "
            f"{basis.n_features} coefficients, as {parameter_file} requires; it has {n_coefficients}"
        )
    if not np.isfinite(lammps_coefficients).all():
        raise InputError(f"{coefficient_file} has coefficients that are not finite numbers; fit the potential again")
    table = lammps_coefficients.reshape(len(basis.elements), -1)
    coefficients = np.concatenate([table[:, 0], table[:, 1:].ravel()[basis.column_order]])
    return basis, coefficients, read_reference(include)


def _read_parameters(path: Path) -> PodBasis:
    """Read the basis from a ``.podparam`` file.

    Raises
    ------
    InputError
        If a required key is missing, a value is invalid, or another key differs from what `PodBasis` would write.
    """
    settings: dict[str, Any] = {words[0]: words[1:] for words in read_words(path)}
    size_key = "twobody_number_radial_basis_functions"
    if missing_keys := {"species", "rin", "rcut", size_key} - settings.keys():
        raise InputError(f"{path} has no '{min(missing_keys)}', so it is not a .podparam; specify another file")
    keys = [key for key in PodBasis.model_fields if key in settings]
    # The 2Jmax of a `PodBasis` is its number of two-body radial functions.
    fields = {key: " ".join(settings[key]) for key in keys} | {"twojmax": " ".join(settings[size_key])}
    try:
        basis = PodBasis(elements=settings["species"], **fields)
    except ValidationError as error:
        reason = format_validation_error(error, PodBasis)
        raise InputError(f"{path} does not describe a POD potential: {reason}") from error
    expected_settings = dict(_split_settings(basis))
    for key, expected_words in expected_settings.items():
        words = settings.get(key, expected_words)
        if [_to_number(word) for word in words] != [_to_number(word) for word in expected_words]:
            raise InputError(
                f"{path}: '{key} {' '.join(words)}' is not supported with {basis.twojmax} two-body radial functions; "
                f"it must be {' '.join(expected_words)}. LAMMPS scripts can use any POD potential: specify a script"
            )
    return basis


def _split_settings(basis: PodBasis) -> list[tuple[str, list[str]]]:
    """Return the key and the words of the value of each line of the parameter file of a basis."""
    lines = [line.split() for line in basis.format_parameters().splitlines() if not line.startswith("#")]
    return [(words[0], words[1:]) for words in lines]


def _to_number(word: str) -> float | str:
    """Convert a word to a number if possible, so that notations such as 1 and 1.0 are equal."""
    try:
        return float(word)
    except ValueError:
        return word
