"""What a potential does not know: error bars of its predictions, and how far a structure is from its training set.

It lies beside a potential's LAMMPS files as ``NAME.committee.h5``: the members, what they said of held-out labelled
configurations (from which intervals of any coverage follow), the active set of atoms that grades others, and the
factor that leverages come from. Energies are per atom, eV; forces eV/Å; stresses eV/Å³.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from paretofit.core import (
    CORRUPT_FILE_ERRORS,
    InputError,
    RowKind,
    atomic_path,
    check_global_heaps,
    check_members,
    hash_array,
    one_line,
)
from paretofit.uncertainty.calibration import (
    CALIBRATIONS,
    ConformalIntervals,
    calibrate_conformal,
    disagreement,
    min_calibration_size,
)
from paretofit.uncertainty.extrapolation import EnvironmentGrade, TrainingLeverage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ase import Atoms

    from paretofit.core import Array

COMMITTEE_SUFFIX = ".committee.h5"
VERSION = 1
GRADE_DATASETS = {
    "quadratic": "quadratic",
    "scale": "scale",
    "graded": "coefficient_map",
    "spanned": "span_basis",
}  # names in the file, and attributes of `EnvironmentGrade`
SAME = 3  # decimals of Å to which positions and cells of one structure agree
TRAIN, HELD_OUT = "train", "held out"


class CalibrationData(NamedTuple):
    """What a committee said of labels that it has not seen.

    Attributes
    ----------
    spread : (n,) float64
        Standard deviations over the members.
    residual : (n,) float64
        Label minus prediction.
    configuration : (n,) int64
        Which configuration each value is of.
    group : (n,) int64
        Which family of relatives that is in: what is exchangeable.
    """

    spread: Array
    residual: Array
    configuration: Array
    group: Array

    @property
    def n_groups(self) -> int:
        """Families."""
        return len(np.unique(self.group))

    def aggregate_by_configuration(self) -> tuple[Array, Array]:
        """Disagreement and error of each configuration (equations 1 and 2 of Bidoggia et al., 2025), ascending."""
        _, number, counts = np.unique(self.configuration, return_inverse=True, return_counts=True)
        spread, error = (np.bincount(number, one**2) / counts for one in (self.spread, self.residual))
        return np.sqrt(spread), np.sqrt(spread + error)


@dataclass(frozen=True)
class Uncertainty:
    """Beside the members of a committee: its calibration, and what it was trained on.

    Attributes
    ----------
    method : str
        How the members were made.
    held_out : mapping of RowKind to HeldOut
        Empty if nothing was held out; stress only if labels had it.
    environments : mapping of element to EnvironmentGrade
    leverage : TrainingLeverage or None
        None of a network, which has no rows.
    energy_weight : float
        w_E, the weight of an energy row in the leverage.
    structure_roles : mapping of str to str
        "train" or "held out" by `hash_structure`.
    coverage : float
        Of the intervals unless another is asked for.
    level : str
        Of the labels.
    n_members : int or None
        Of a committee of so few that its disagreement may be small by chance.
    """

    method: str
    held_out: Mapping[RowKind, CalibrationData]
    environments: Mapping[str, EnvironmentGrade]
    leverage: TrainingLeverage | None
    energy_weight: float
    structure_roles: Mapping[str, str]
    coverage: float = 0.9
    level: str = ""
    n_members: int | None = None
    _found: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        held = ", ".join(f"{len(one.residual)} {kind.name.lower()}" for kind, one in self.held_out.items()) or "nothing"
        return f"Uncertainty({self.method}, calibrated on {held}, {100 * self.coverage:g} % intervals)"

    def fit_interval(self, kind: RowKind, coverage: float | None = None) -> ConformalIntervals | None:
        """The conformal interval of energies per atom, force components or stress components; None if not calibrated.

        Of the coverage that the fit says it is also None if too few configurations of this kind were held out.

        Raises
        ------
        InputError
            If there were too few for a coverage that is asked for.
        """
        own = self.held_out.get(kind)
        optional = coverage is None or kind == RowKind.STRESS  # of which labels are often few
        share = self.coverage if coverage is None else coverage
        if own is None or (optional and own.n_groups < min_calibration_size(share)):
            return None
        key = kind, self.coverage if coverage is None else coverage
        if key not in self._found:
            self._found[key] = calibrate_conformal(own.spread, own.residual, key[1], own.group, self.n_members)
        found: ConformalIntervals = self._found[key]
        return found

    def fit_calibration(self, kind: RowKind, method: str = "slope") -> Any:
        """Errors of configurations from their disagreements: "slope" (τ = aε), "isotonic" or "quantile".

        Returns
        -------
        Slope, Isotonic or QuantileLine
            Each with ``threshold(error)`` and ``error(spread)``.

        Raises
        ------
        InputError
            If the method is not one of these, or nothing of this kind was held out.
        """
        if method not in CALIBRATIONS:
            raise InputError(f"the calibration '{method}' is not one of {', '.join(CALIBRATIONS)}")
        if kind not in self.held_out:
            raise InputError(f"no {kind.name.lower()} was held out to calibrate by; fit again with some held out")
        return CALIBRATIONS[method](*self.held_out[kind].aggregate_by_configuration())

    def compute_grades(self, atoms: Atoms, descriptors: Array) -> Array:
        """``(N,)``: how far each atom is outside of the training set (γ > 1), from its descriptors ``(N, K)``."""
        symbols = np.array(atoms.get_chemical_symbols())
        grades = np.full(len(symbols), np.inf)
        for element, grade in self.environments.items():
            own = symbols == element
            if own.any():
                grades[own] = grade(descriptors[own])
        return grades


@dataclass(frozen=True)
class Assessment:
    """What a committee says of one structure, and how far that is to be trusted.

    Attributes
    ----------
    energy, forces, stress
        Of the potential: eV, (N, 3) eV/Å, (6,) eV/Å³ (NaN where not periodic in three directions).
    energy_std, forces_std, stress_std
        Standard deviations over the members: eV/atom, (N, 3) eV/Å, (6,) eV/Å³.
    energy_interval, forces_interval, stress_interval
        Half widths of the conformal intervals, like those; NaN where not calibrated.
    grades : (N,) float64
        D-optimality grade of each atom; above 1 outside of the training set.
    leverage : float
        Of the structure's energy row; below 1 for those that trained; NaN of a network.
    """

    energy: float
    forces: Array
    stress: Array
    energy_std: float
    forces_std: Array
    stress_std: Array
    energy_interval: float
    forces_interval: Array
    stress_interval: Array
    grades: Array
    leverage: float

    @property
    def grade(self) -> float:
        """The highest grade of an atom."""
        return float(self.grades.max())


def build_assessment(
    members: Any, uncertainty: Uncertainty, grades: Array, leverage: float, coverage: float | None = None
) -> Assessment:
    """What a committee says, from what its members predict.

    Parameters
    ----------
    members : Prediction
        ``energy`` (m,), ``forces`` (m, N, 3), ``stress`` (m, 6).
    uncertainty : Uncertainty
    grades : (N,) float64
    leverage : float
    coverage : float, optional
        Of the intervals; by default what `uncertainty` says.
    """
    n = len(grades)
    spreads = [
        disagreement(members.energy[:, None] / n)[0],
        disagreement(members.forces.reshape(len(members.forces), -1)).reshape(n, 3),
        disagreement(members.stress),
    ]
    intervals = [
        spread * np.nan if (found := uncertainty.fit_interval(kind, coverage)) is None else found.half_width(spread)
        for kind, spread in zip((RowKind.ENERGY, RowKind.FORCE, RowKind.STRESS), spreads, strict=True)
    ]
    return Assessment(
        energy=float(members.energy.mean()),
        forces=members.forces.mean(axis=0),
        stress=members.stress.mean(axis=0),
        energy_std=float(spreads[0]),
        forces_std=spreads[1],
        stress_std=spreads[2],
        energy_interval=float(intervals[0]),
        forces_interval=intervals[1],
        stress_interval=intervals[2],
        grades=grades,
        leverage=leverage,
    )


def hash_structure(atoms: Atoms) -> str:
    """Names a structure up to a thousandth of an Å, to know again what trained."""
    geometry = np.round(np.concatenate([atoms.cell[:].ravel(), atoms.positions.ravel()]), SAME) + 0.0  # no -0.0
    return hash_array(np.concatenate([atoms.numbers, atoms.pbc, geometry]))[:16]


def write_committee(path: Path, members: Array | None, uncertainty: Uncertainty | None) -> None:
    """Write a committee's file; members that are networks have files of their own."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["committee_version"] = VERSION
        if members is not None:
            file["members"] = members
        if uncertainty is None:
            return
        file.attrs.update(
            {name: getattr(uncertainty, name) for name in ("method", "energy_weight", "coverage", "level")}
        )
        if uncertainty.n_members is not None:
            file.attrs["members"] = uncertainty.n_members
        if uncertainty.leverage is not None:
            file["leverage/kept"] = uncertainty.leverage.retained_columns
            file.create_dataset("leverage/R", data=uncertainty.leverage.R, compression="gzip", compression_opts=1)
        for kind, held_out in uncertainty.held_out.items():
            for name, values in held_out._asdict().items():
                file[f"held_out/{kind.name.lower()}/{name}"] = values
        for element, grade in uncertainty.environments.items():
            for name, attribute in GRADE_DATASETS.items():
                file[f"environments/{element}/{name}"] = getattr(grade, attribute)
        for role in (TRAIN, HELD_OUT):
            keys = sorted(key for key, one in uncertainty.structure_roles.items() if one == role)
            file[f"known/{role}"] = np.array(keys, dtype="S16")


def read_committee(path: Path) -> tuple[Array, Uncertainty | None]:
    """Read a committee's file: the members ``(m, p)``, and the rest where it is there.

    Raises
    ------
    InputError
        If it is damaged, or of another version, or its members are fewer than two or identical.
    """
    members, own = _read_file(path)
    if members.ndim != 2 or len(members) < 2:
        raise InputError(f"{path}: a committee needs two members at least; its array has shape {members.shape}")
    if not np.ptp(members, axis=0).any():
        raise InputError(f"{path}: all members are identical, so that they say nothing of errors; fit it again")
    if own is not None and (wrong := _inconsistent(members, own)):
        raise InputError(f"{path} is damaged: {wrong}; fit it again")
    return members, own


def read_uncertainty(path: Path) -> Uncertainty:
    """Read what lies beside networks: all but the members.

    Raises
    ------
    InputError
        If it is damaged, or of another version.
    """
    members, own = _read_file(path)
    wrong = "it has no calibration" if own is None else _inconsistent(members, own)
    if own is None or wrong:
        raise InputError(f"{path} is damaged: {wrong}; train it again")
    return own


def _read_file(path: Path) -> tuple[Array, Uncertainty | None]:
    nothing = np.empty((0, 0))
    try:
        check_global_heaps(path)
        with h5py.File(path, "r") as file:
            check_members(file)
            version = int(file.attrs["committee_version"])
            if version == VERSION:
                return file["members"][()] if "members" in file else nothing, _read(file)
    except CORRUPT_FILE_ERRORS as error:
        raise InputError(f"{path} is no complete committee ({one_line(error)}); fit it again") from error
    raise InputError(f"{path} is a committee of version {version}, this paretofit reads {VERSION}; fit it again")


def _read(file: h5py.File) -> Uncertainty | None:
    if "method" not in file.attrs:
        return None
    held_out = {
        RowKind[name.upper()]: CalibrationData(*(group[key][()] for key in CalibrationData._fields))
        for name, group in file.get("held_out", {}).items()
    }
    environments = {
        element: EnvironmentGrade(bool(group["quadratic"][()]), *(group[key][()] for key in list(GRADE_DATASETS)[1:]))
        for element, group in file["environments"].items()
    }
    known = {key.decode(): role for role, keys in file["known"].items() for key in keys[()]}
    return Uncertainty(
        str(file.attrs["method"]),
        held_out,
        environments,
        TrainingLeverage(file["leverage/kept"][()], file["leverage/R"][()]) if "leverage" in file else None,
        float(file.attrs["energy_weight"]),
        known,
        float(file.attrs["coverage"]),
        str(file.attrs["level"]),
        int(file.attrs["members"]) if "members" in file.attrs else None,
    )


def _inconsistent(members: Array, own: Uncertainty) -> str:
    """What cannot be in a committee's file; empty if all is well."""
    leverage = own.leverage
    arrays = [members, *(one for held in own.held_out.values() for one in held)]
    arrays += [] if leverage is None else [leverage.R]
    arrays += [getattr(one, name) for one in own.environments.values() for name in list(GRADE_DATASETS.values())[1:]]
    if not all(np.isfinite(one).all() for one in arrays):
        return "it has numbers that are not finite"
    if leverage is not None:
        size = len(leverage.retained_columns)
        if leverage.R.shape != (size, size) or leverage.retained_columns.max(initial=0) >= members.shape[1]:
            return f"its factor for leverages has shape {leverage.R.shape}, for {size} columns"
    for kind, held in own.held_out.items():
        if len({one.shape for one in held}) > 1 or held.spread.ndim != 1:
            return f"its held-out {kind.name.lower()} values are of different lengths"
    for element, one in own.environments.items():
        p = len(one.scale)
        if one.coefficient_map.ndim != 2 or one.coefficient_map.shape[0] != p or one.span_basis.shape[:1] != (p,):
            return f"the grades of {element} are of different sizes"
    if not 0 < own.coverage < 1:
        return f"its coverage is {own.coverage:g}, not between 0 and 1"
    return ""
