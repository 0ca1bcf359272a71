"""Uncertainty of a potential: error bars of its predictions, and extrapolation of structures from its training set.

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
        Standard deviations over the members, eV/atom, eV/Å or eV/Å³.
    residual : (n,) float64
        Label minus prediction, in the same unit.
    configuration : (n,) int64
        Number of the configuration of each value.
    group : (n,) int64
        Number of the group of this configuration; groups are exchangeable.
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
        """Compute the disagreement and the error of each configuration, ``(n_configurations,)`` each.

        These are equations 1 and 2 of Bidoggia et al. (2025), root mean squares over the values of a configuration. The
        configurations are in ascending order of their numbers.
        """
        _, positions, counts = np.unique(self.configuration, return_inverse=True, return_counts=True)
        mean_variances = np.bincount(positions, self.spread**2) / counts
        mean_squared_errors = np.bincount(positions, self.residual**2) / counts
        return np.sqrt(mean_variances), np.sqrt(mean_variances + mean_squared_errors)


@dataclass(frozen=True)
class Uncertainty:
    """Calibration of a committee, and a description of its training set.

    Attributes
    ----------
    method : str
        Method by which the members were drawn or trained.
    calibration_data : mapping of RowKind to CalibrationData
        Calibration data of each kind of label that was held out; empty if no configurations were held out.
    environment_grades : mapping of element to EnvironmentGrade
        Function that grades the atoms of each element.
    leverage : TrainingLeverage or None
        Function that computes leverages with respect to the training rows; None for a network, which has no rows.
    energy_weight : float
        w_E, the weight of an energy row in the leverage.
    structure_roles : mapping of str to str
        "train" or "held out", by the digest of `hash_structure`.
    coverage : float
        Default coverage of the intervals.
    level : str
        Convergence level of the labels.
    n_members : int or None
        Number of members if they are so few that their disagreement may be small by chance; otherwise None.
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
        counts = [f"{len(kind_data.residual)} {kind.name.lower()}" for kind, kind_data in self.calibration_data.items()]
        label_counts = ", ".join(counts) or "nothing"
        return f"Uncertainty({self.method}, calibrated on {label_counts}, {100 * self.coverage:g} % intervals)"

    def fit_interval(self, kind: RowKind, coverage: float | None = None) -> ConformalIntervals | None:
        """Calibrate the conformal interval of energies per atom, force components or stress components.

        The result is None if no labels of this kind were held out. It is also None if too few groups were held out for
        the default coverage or, in the case of stresses, for the given `coverage`. Intervals are cached.

        Parameters
        ----------
        kind : RowKind
        coverage : float, optional
            Probability that an interval contains the label; by default that of this object.

        Raises
        ------
        InputError
            If too few groups were held out for the given `coverage` of energies or forces, if `coverage` is not between
            0 and 1, or if all members agree.
        """
        calibration_data = self.calibration_data.get(kind)
        is_optional = coverage is None or kind == RowKind.STRESS  # there are often few stress labels
        if coverage is None:
            coverage = self.coverage
        if calibration_data is None or (is_optional and calibration_data.n_groups < get_min_calibration_size(coverage)):
            return None
        if (kind, coverage) not in self._intervals:
            self._intervals[kind, coverage] = calibrate_conformal(
                calibration_data.spread, calibration_data.residual, coverage, calibration_data.group, self.n_members
            )
        return self._intervals[kind, coverage]

    def fit_calibration(self, kind: RowKind, method: str = "slope") -> Any:
        """Fit the function that predicts the error of a configuration from its disagreement.

        Parameters
        ----------
        kind : RowKind
        method : {"slope", "isotonic", "quantile"}
            Name of the calibration in `CALIBRATIONS`.

        Returns
        -------
        SlopeCalibration, IsotonicCalibration or QuantileCalibration
            All of them have ``find_threshold(error)`` and ``predict_error(disagreement)``; eV/atom, eV/Å or eV/Å³.

        Raises
        ------
        InputError
            If the method is unknown, too few labels of this kind were held out, or the members agree exactly.
        """
        check_choice("the calibration", method, CALIBRATIONS)
        if kind not in self.calibration_data:
            raise InputError(f"no {kind.name.lower()} labels were held out for a calibration; fit again with some")
        return CALIBRATIONS[method](*self.calibration_data[kind].aggregate_by_configuration())

    def compute_grades(self, atoms: Atoms, descriptors: Array) -> Array:
        """Compute the extrapolation grade of each atom, ``(N,)``, from descriptors ``(N, K)``.

        Atoms of elements that the training set lacks have the grade ∞.
        """
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
        Predictions of the potential: eV, (N, 3) eV/Å, (6,) eV/Å³ (NaN unless the structure is periodic in three
        directions).
    energy_std, forces_std, stress_std
        Standard deviations over the members: eV/atom, (N, 3) eV/Å, (6,) eV/Å³.
    energy_interval, forces_interval, stress_interval
        Half widths of the conformal intervals in the same units; NaN if they are not calibrated.
    grades : (N,) float64
        Extrapolation grade (D-optimality) of each atom; an atom with a grade above 1 extrapolates.
    leverage : float
        Leverage of the energy row of the structure, at most 1 for training structures; NaN for a network.
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
        """Highest extrapolation grade of the atoms."""
        return float(self.grades.max())


def build_assessment(
    members: Any, uncertainty: Uncertainty, grades: Array, leverage: float, coverage: float | None = None
) -> Assessment:
    """Build the assessment of a structure from the predictions of the members.

    Parameters
    ----------
    members : Prediction
        Predictions of the m members: ``energy`` (m,) in eV, ``forces`` (m, N, 3) in eV/Å, ``stress`` (m, 6) in eV/Å³.
    uncertainty : Uncertainty
        Calibration of the intervals.
    grades : (N,) float64
        Extrapolation grades of the atoms.
    leverage : float
        Leverage of the energy row; NaN for a network.
    coverage : float, optional
        Coverage of the intervals; by default that of `uncertainty`.

    Raises
    ------
    InputError
        If there are fewer than two members, or as in `Uncertainty.fit_interval`.
    """
    n = len(grades)
    spreads = [
        compute_disagreement(members.energy[:, None] / n)[0],
        compute_disagreement(members.forces.reshape(len(members.forces), -1)).reshape(n, 3),
        compute_disagreement(members.stress),
    ]
    intervals = [uncertainty.fit_interval(kind, coverage) for kind in (RowKind.ENERGY, RowKind.FORCE, RowKind.STRESS)]
    half_widths = [
        spread * np.nan if interval is None else interval.compute_half_width(spread)
        for interval, spread in zip(intervals, spreads, strict=True)
    ]
    return Assessment(
        energy=float(members.energy.mean()),
        forces=members.forces.mean(axis=0),
        stress=members.stress.mean(axis=0),
        energy_std=float(spreads[0]),
        forces_std=spreads[1],
        stress_std=spreads[2],
        energy_interval=float(half_widths[0]),
        forces_interval=half_widths[1],
        stress_interval=half_widths[2],
        grades=grades,
        leverage=leverage,
    )
