"""The file of a committee and its calibration, ``NAME.committee.h5`` in the directory of a potential's LAMMPS files.

The file contains the members, the calibration data (from which intervals of any coverage are computed), the active
sets that grade atoms, the factor from which leverages are computed, and the digests of the known structures.
"""

from pathlib import Path

import h5py
import numpy as np

from paretofit.core import (
    CORRUPT_FILE_ERRORS,
    Array,
    InputError,
    RowKind,
    atomic_hdf5,
    check_global_heaps,
    check_members,
    join_lines,
    raise_if_system_error,
)
from paretofit.uncertainty.extrapolation import EnvironmentGrade, TrainingLeverage
from paretofit.uncertainty.known_structures import HELD_OUT, TRAIN
from paretofit.uncertainty.potential_uncertainty import CalibrationData, Uncertainty

COMMITTEE_SUFFIX = ".committee.h5"
FILE_VERSION = 2
# names of HDF5 datasets by attribute of `EnvironmentGrade`, and attributes of `Uncertainty` that become HDF5 attributes
GRADE_DATASETS = {"scale": "scale", "coefficient_map": "graded", "span_basis": "spanned"}
FILE_ATTRIBUTES = ("method", "energy_weight", "coverage", "level")


def write_committee(path: Path, members: Array | None, uncertainty: Uncertainty | None) -> None:
    """Write the file of a committee.

    Parameters
    ----------
    path : Path
    members : (m, p) float64 or None
        Coefficients of the members; None for networks, which are stored in other files.
    uncertainty : Uncertainty or None
        None for a committee without calibration.
    """
    with atomic_hdf5(path) as (file, _):
        file.attrs["committee_version"] = FILE_VERSION
        if members is not None:
            file["members"] = members
        if uncertainty is None:
            return
        file.attrs.update({name: getattr(uncertainty, name) for name in FILE_ATTRIBUTES})
        if uncertainty.n_members is not None:
            file.attrs["members"] = uncertainty.n_members
        if uncertainty.leverage is not None:
            file["leverage/kept"] = uncertainty.leverage.retained_columns
            file.create_dataset("leverage/R", data=uncertainty.leverage.R, compression="gzip", compression_opts=1)
        for kind, kind_data in uncertainty.calibration_data.items():
            for name, array in kind_data._asdict().items():
                file[f"held_out/{kind.name.lower()}/{name}"] = array
        for element, grade in uncertainty.environment_grades.items():
            file[f"environments/{element}/quadratic"] = grade.quadratic
            for attribute, name in GRADE_DATASETS.items():
                file[f"environments/{element}/{name}"] = getattr(grade, attribute)
        for role in (TRAIN, HELD_OUT):
            digests = sorted(
                digest for digest, structure_role in uncertainty.structure_roles.items() if structure_role == role
            )
            file[f"known/{role}"] = np.array(digests, dtype="S16")  # digests have 16 characters


def read_committee(path: Path) -> tuple[Array, Uncertainty | None]:
    """Read the file of a committee of linear models.

    Returns
    -------
    members : (m, p) float64
        Coefficients of the members.
    uncertainty : Uncertainty or None
        Calibration of the committee; None if the file contains none.

    Raises
    ------
    InputError
        If the file is corrupt or of another version, or if there are fewer than two members or all are identical.
    """
    members, uncertainty = _read_file(path, "fit it again")
    if members.ndim != 2 or len(members) < 2:
        raise InputError(f"{path}: a committee requires at least two members; its array has shape {members.shape}")
    if not np.ptp(members, axis=0).any():
        raise InputError(f"{path}: all members are identical, so that their spread has no meaning; fit it again")
    return members, uncertainty


def read_uncertainty(path: Path) -> Uncertainty:
    """Read the calibration of a committee of networks, whose members are stored in other files.

    Raises
    ------
    InputError
        If the file is corrupt or of another version, or has no calibration.
    """
    _, uncertainty = _read_file(path, "train it again")
    if uncertainty is None:
        raise InputError(f"{path} is corrupt: it has no calibration; train it again")
    return uncertainty


def _read_file(path: Path, remedy: str) -> tuple[Array, Uncertainty | None]:
    """Read the members, ``(0, 0)`` for networks, and the calibration, None if the file contains none.

    Raises an `InputError`, whose message ends with `remedy`, if the file is corrupt or of another version.
    """
    try:
        check_global_heaps(path)
        with h5py.File(path, "r") as file:
            check_members(file)
            version = int(file.attrs["committee_version"])
            if version == FILE_VERSION:
                members = file["members"][()] if "members" in file else np.empty((0, 0))
                uncertainty = _read_uncertainty(file)
    except CORRUPT_FILE_ERRORS as error:
        raise_if_system_error(error, path)
        raise InputError(f"{path} is not a complete committee file ({join_lines(error)}); {remedy}") from error
    if version != FILE_VERSION:
        raise InputError(
            f"{path} is a committee of version {version}, but this paretofit reads version {FILE_VERSION}; {remedy}"
        )
    if uncertainty is not None and (problem := _find_inconsistency(members, uncertainty)):
        raise InputError(f"{path} is corrupt: {problem}; {remedy}")
    return members, uncertainty


def _read_uncertainty(file: h5py.File) -> Uncertainty | None:
    """Read the calibration from an open file; return None if the file contains none."""
    if "method" not in file.attrs:
        return None
    calibration_data = {
        RowKind[name.upper()]: CalibrationData(*(group[key][()] for key in CalibrationData._fields))
        for name, group in file.get("held_out", {}).items()
    }
    environment_grades = {
        element: EnvironmentGrade(bool(group["quadratic"][()]), *(group[name][()] for name in GRADE_DATASETS.values()))
        for element, group in file["environments"].items()
    }
    return Uncertainty(
        str(file.attrs["method"]),
        calibration_data,
        environment_grades,
        TrainingLeverage(file["leverage/kept"][()], file["leverage/R"][()]) if "leverage" in file else None,
        float(file.attrs["energy_weight"]),
        {digest.decode(): role for role, digests in file["known"].items() for digest in digests[()]},
        float(file.attrs["coverage"]),
        str(file.attrs["level"]),
        int(file.attrs["members"]) if "members" in file.attrs else None,
    )


def _find_inconsistency(members: Array, uncertainty: Uncertainty) -> str:
    """Describe the first inconsistency in the content of a file; return an empty string if there is none."""
    if members.ndim != 2:
        return f"its array of members has shape {members.shape}"
    leverage, environment_grades = uncertainty.leverage, uncertainty.environment_grades
    arrays = [members, *(array for kind_data in uncertainty.calibration_data.values() for array in kind_data)]
    arrays += [] if leverage is None else [leverage.R]
    arrays += [getattr(grade, attribute) for grade in environment_grades.values() for attribute in GRADE_DATASETS]
    if not all(np.isfinite(array).all() for array in arrays):
        return "it has numbers that are not finite"
    if leverage is not None:
        n_columns = len(leverage.retained_columns)
        if leverage.R.shape != (n_columns, n_columns) or leverage.retained_columns.max(initial=0) >= members.shape[1]:
            return f"its factor for leverages has shape {leverage.R.shape}, for {n_columns} columns"
    for kind, kind_data in uncertainty.calibration_data.items():
        if len({array.shape for array in kind_data}) > 1 or kind_data.spread.ndim != 1:
            return f"its held-out {kind.name.lower()} values are of different lengths"
    for element, grade in environment_grades.items():
        n_columns = len(grade.scale)
        n_rows = {array.shape[:1] for array in (grade.coefficient_map, grade.span_basis)}
        if grade.coefficient_map.ndim != 2 or n_rows != {(n_columns,)}:
            return f"the grades of {element} are of different sizes"
    return "" if 0 < uncertainty.coverage < 1 else f"its coverage is {uncertainty.coverage:g}, not between 0 and 1"
