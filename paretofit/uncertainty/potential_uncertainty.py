"""Uncertainty of a potential: error bars of its predictions, and the distance of a structure from its training set.

Energies are in eV per atom, forces in eV/Å, and stresses in eV/Å³.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

from paretofit.core import Array, InputError, RowKind, check_choice
from paretofit.uncertainty.calibration import CALIBRATIONS, compute_disagreement
from paretofit.uncertainty.conformal import ConformalIntervals, calibrate_conformal, get_min_calibration_size
from paretofit.uncertainty.extrapolation import EnvironmentGrade, TrainingLeverage


class CalibrationData(NamedTuple):
    """Spreads and residuals of a committee for labels that it was not trained on.

    Attributes
    ----------
    spread : (n,) float64
        Standard deviations over the members.
    residual : (n,) float64
        Label minus prediction.
    configuration : (n,) int64
        Configuration of each value.
    group : (n,) int64
        Group of this configuration; groups are exchangeable.
    """

    spread: Array
    residual: Array
    configuration: Array
    group: Array

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(np.unique(self.group))

    def aggregate_by_configuration(self) -> tuple[Array, Array]:
        """Compute the disagreement and error of each configuration (equations 1 and 2 of Bidoggia et al., 2025)."""
        _, positions, counts = np.unique(self.configuration, return_inverse=True, return_counts=True)
        mean_variances, mean_squared_errors = (
            np.bincount(positions, values**2) / counts for values in (self.spread, self.residual)
        )
        return np.sqrt(mean_variances), np.sqrt(mean_variances + mean_squared_errors)


@dataclass(frozen=True)
class Uncertainty:
    """Calibration of a committee, and a description of its training set.

    Attributes
    ----------
    method : str
        Method by which the members were drawn or trained.
    calibration_data : mapping of RowKind to CalibrationData
        Calibration data of each kind of label; empty if no configurations were held out.
    environment_grades : mapping of element to EnvironmentGrade
        Functions that grade atoms.
    leverage : TrainingLeverage or None
        Leverage with respect to the training rows; None for a network, which has no linear rows.
    energy_weight : float
        w_E, the weight of an energy row in the leverage.
    structure_roles : mapping of str to str
        "train" or "held out" by `hash_structure`.
    coverage : float
        Default coverage of the intervals.
    level : str
        Convergence level of the labels.
    n_members : int or None
        Number of members, if they are so few that their disagreement may be small by chance.
    """

    method: str
    calibration_data: Mapping[RowKind, CalibrationData]
    environment_grades: Mapping[str, EnvironmentGrade]
    leverage: TrainingLeverage | None
    energy_weight: float
    structure_roles: Mapping[str, str]
    coverage: float = 0.9
    level: str = ""
    n_members: int | None = None
    _intervals: dict[tuple[RowKind, float], ConformalIntervals] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        counts = [f"{len(data.residual)} {kind.name.lower()}" for kind, data in self.calibration_data.items()]
        calibration = ", ".join(counts) or "nothing"
        return f"Uncertainty({self.method}, calibrated on {calibration}, {100 * self.coverage:g} % intervals)"

    def fit_interval(self, kind: RowKind, coverage: float | None = None) -> ConformalIntervals | None:
        """Calibrate the conformal interval of energies per atom, force components or stress components.

        The result is None if no labels of this kind were held out. It is also None if too few configurations were held
        out for the default coverage or, in the case of stresses, for the given `coverage`.

        Raises
        ------
        InputError
            If too few configurations were held out for the given `coverage` of energies or forces.
        """
        data = self.calibration_data.get(kind)
        is_optional = coverage is None or kind == RowKind.STRESS  # stress labels are often few
        key = kind, self.coverage if coverage is None else coverage
        if data is None or (is_optional and data.n_groups < get_min_calibration_size(key[1])):
            return None
        if key not in self._intervals:
            self._intervals[key] = calibrate_conformal(data.spread, data.residual, key[1], data.group, self.n_members)
        return self._intervals[key]

    def fit_calibration(self, kind: RowKind, method: str = "slope") -> Any:
        """Calibrate errors of configurations by their disagreements: "slope" (τ = aε), "isotonic" or "quantile".

        Returns
        -------
        SlopeCalibration, IsotonicCalibration or QuantileCalibration
            All of them have ``find_threshold(error)`` and ``predict_error(spread)``.

        Raises
        ------
        InputError
            If the method is unknown, or too few labels of this kind were held out.
        """
        check_choice("the calibration", method, CALIBRATIONS)
        if kind not in self.calibration_data:
            raise InputError(f"no {kind.name.lower()} labels were held out for a calibration; fit again with some")
        return CALIBRATIONS[method](*self.calibration_data[kind].aggregate_by_configuration())

    def compute_grades(self, atoms: Atoms, descriptors: Array) -> Array:
        """Compute the extrapolation grade of each atom, ``(N,)``, from descriptors ``(N, K)``; ∞ for new elements."""
        symbols = np.array(atoms.get_chemical_symbols())
        grades = np.full(len(symbols), np.inf)
        for element, environment_grade in self.environment_grades.items():
            mask = symbols == element
            if mask.any():
                grades[mask] = environment_grade(descriptors[mask])
        return grades


@dataclass(frozen=True)
class Assessment:
    """Prediction of a committee for one structure, with its uncertainty.

    Attributes
    ----------
    energy, forces, stress
        Predictions of the potential: eV, (N, 3) eV/Å, (6,) eV/Å³ (NaN if not periodic in three directions).
    energy_std, forces_std, stress_std
        Standard deviations over the members: eV/atom, (N, 3) eV/Å, (6,) eV/Å³.
    energy_interval, forces_interval, stress_interval
        Half widths of the conformal intervals in the same units; NaN if they are not calibrated.
    grades : (N,) float64
        D-optimality grade of each atom; above 1, the atom extrapolates.
    leverage : float
        Leverage of the structure's energy row, at most 1 for training structures; NaN for a network.
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
        """Highest grade of the atoms."""
        return float(self.grades.max())


def build_assessment(
    members: Any, uncertainty: Uncertainty, grades: Array, leverage: float, coverage: float | None = None
) -> Assessment:
    """Build the assessment of a structure from the predictions of the members.

    Parameters
    ----------
    members : Prediction
        ``energy`` (m,), ``forces`` (m, N, 3), ``stress`` (m, 6).
    uncertainty : Uncertainty
    grades : (N,) float64
        Grades of the atoms.
    leverage : float
        Leverage of the energy row.
    coverage : float, optional
        Coverage of the intervals; by default that of `uncertainty`.
    """
    n = len(grades)
    spreads = [
        compute_disagreement(members.energy[:, None] / n)[0],
        compute_disagreement(members.forces.reshape(len(members.forces), -1)).reshape(n, 3),
        compute_disagreement(members.stress),
    ]
    intervals = [uncertainty.fit_interval(kind, coverage) for kind in (RowKind.ENERGY, RowKind.FORCE, RowKind.STRESS)]
    widths = [
        spread * np.nan if interval is None else interval.compute_half_width(spread)
        for interval, spread in zip(intervals, spreads, strict=True)
    ]
    means = [float(members.energy.mean()), members.forces.mean(axis=0), members.stress.mean(axis=0)]
    values: list[Any] = [*means, float(spreads[0]), *spreads[1:], float(widths[0]), *widths[1:], grades, leverage]
    return Assessment(*values)
