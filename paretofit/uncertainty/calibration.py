"""Calibration of committees: from their spread to errors, and intervals that hold whatever the model.

Pure arrays: a value may be an energy per atom, a force component or a stress component, in any unit; it never is an
extensive energy or the norm of a vector.

**Conformal intervals and small spreads.** Spreads below a tenth of their median (more, with few members) are raised to
that floor. Values with such spreads, as forces that nearly vanish by symmetry, are inside any interval and would make
the intervals of the other values too narrow. So they are left out of the calibration, provided that the intervals of
the others, at the floor, hold as many of them as the coverage demands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from paretofit.core import Array, InputError
from paretofit.linear import split_by_group

MIN_RELATIVE_SPREAD = 0.1  # of the median spread
MIN_CALIBRATION_PAIRS = 3
NORMAL_QUANTILE_95 = 1.959964  # standard deviations of a 95 % confidence interval


def compute_disagreement(member_predictions: Array, configuration: Array | None = None) -> Array:
    """Compute D = √(⟨(L_j − ⟨L⟩)²⟩) over the members of a committee; for several values their root mean square.

    Parameters
    ----------
    member_predictions : (m, n) float64
        Predictions of the m members, two at least.
    configuration : (n,) int, optional
        Values with the same number, such as the force components of a configuration, are averaged.

    Returns
    -------
    (n,) or (n_configurations,) float64
        In the order of `configuration`'s numbers.

    Raises
    ------
    InputError
        If there are fewer than two members.

    Notes
    -----
    Equation 1 of Bidoggia et al. (2025).
    """
    values = _check_members(member_predictions)
    return _average_by_configuration(values.var(axis=0), configuration)


def compute_committee_error(member_predictions: Array, labels: Array, configuration: Array | None = None) -> Array:
    """Compute ε = √(⟨(L_j − L)²⟩) over the members, against the labels ``(n,)``; otherwise as `compute_disagreement`.

    Notes
    -----
    Equation 2 of Bidoggia et al. (2025). It contains the spread: ε² = D² + (⟨L⟩ − L)².
    """
    values = _check_members(member_predictions)
    if np.shape(labels) != values.shape[1:]:
        raise InputError(f"there must be a label for each of {values.shape[1]} values; got {np.size(labels)}")
    return _average_by_configuration(((values - labels) ** 2).mean(axis=0), configuration)


@dataclass(frozen=True)
class SlopeCalibration:
    """The line τ = a ε through the origin.

    Attributes
    ----------
    slope : float
        a, by least squares.
    slope_half_width : float
        Half width of its 95 % interval.
    rms_residual : float
        Root mean squared deviation of the disagreements from the line.
    """

    slope: float
    slope_half_width: float
    rms_residual: float

    def find_threshold(self, error: float) -> float:
        """The disagreement above which errors are above `error`."""
        return self.slope * _check_positive(error)

    def predict_error(self, spread: Array) -> Array:
        """The errors that correspond to disagreements."""
        return np.asarray(spread / self.slope)


def calibrate_slope(spread: Array, error: Array) -> SlopeCalibration:
    """Fit a line to the disagreements ``(n,)`` of labelled configurations as a function of their errors ``(n,)``.

    Raises
    ------
    InputError
        If there are fewer than three, a value is negative or not finite, or all errors or disagreements are zero.

    Notes
    -----
    Section I.A.6 of Bidoggia et al. (2025).
    """
    _check_pairs(spread, error)
    squares = float(error @ error)
    slope = float(spread @ error) / squares
    residuals = spread - slope * error
    variance = float(residuals @ residuals) / (len(error) - 1)
    half_width = NORMAL_QUANTILE_95 * float(np.sqrt(variance / squares))
    return SlopeCalibration(slope, half_width, float(np.sqrt(np.mean(residuals**2))))


def score_detection(spread: Array, error: Array, spread_limit: float, error_limit: float) -> tuple[float, float]:
    """True-positive rate and positive predictive value of "the disagreement is above its limit".

    Returns
    -------
    (float, float)
        TP / (TP + FN) and TP / (TP + FP); NaN where the denominator is zero.

    Raises
    ------
    InputError
        If a limit is below zero.

    Notes
    -----
    Equations 3 and 4 of Bidoggia et al. (2025).
    """
    if not (spread_limit >= 0 and error_limit >= 0):
        raise InputError(f"thresholds must not be below zero; got {spread_limit} and {error_limit}")
    flagged, wrong = spread > spread_limit, error > error_limit
    n_hits, n_wrong, n_flagged = (int(mask.sum()) for mask in (flagged & wrong, wrong, flagged))
    nan = float("nan")
    return n_hits / n_wrong if n_wrong else nan, n_hits / n_flagged if n_flagged else nan


@dataclass(frozen=True)
class IsotonicCalibration:
    """Errors as a monotonic function of the disagreement; beyond the largest one they grow in proportion.

    Attributes
    ----------
    spread : (n,) float64
        Ascending, without duplicates.
    expected_error : (n,) float64
        Not decreasing.
    """

    spread: Array
    expected_error: Array

    def find_threshold(self, error: float) -> float:
        """The disagreement above which errors are expected above `error`."""
        above = np.flatnonzero(self.expected_error > _check_positive(error))
        if not len(above):
            return float(self.spread[-1] * error / self.expected_error[-1])
        return float(self.spread[above[0] - 1]) if above[0] else 0.0

    def predict_error(self, spread: Array) -> Array:
        """The errors that correspond to disagreements."""
        excess = np.maximum(np.asarray(spread) / self.spread[-1], 1.0)
        return np.asarray(np.interp(spread, self.spread, self.expected_error) * excess)


@dataclass(frozen=True)
class QuantileCalibration:
    """A line through the origin below which a quantile of the errors lies: error = factor × disagreement.

    Attributes
    ----------
    factor : float
    quantile : float
    """

    factor: float
    quantile: float

    def find_threshold(self, error: float) -> float:
        """The disagreement above which more than ``1 - quantile`` of the errors are above `error`."""
        return _check_positive(error) / self.factor

    def predict_error(self, spread: Array) -> Array:
        """The quantile of the errors at these disagreements."""
        return np.asarray(self.factor * spread)


def calibrate_isotonic(spread: Array, error: Array) -> IsotonicCalibration:
    """Isotonic regression of the errors ``(n,)`` on the disagreements ``(n,)``.

    Raises
    ------
    InputError
        As `calibrate_slope`.
    """
    _check_pairs(spread, error)
    values, number, counts = np.unique(spread, return_inverse=True, return_counts=True)
    means = np.bincount(number, error) / counts  # equal disagreements correspond to one error
    return IsotonicCalibration(values, np.asarray(isotonic_regression(means, weights=counts).x))


def calibrate_quantile(spread: Array, error: Array, quantile: float = 0.9) -> QuantileCalibration:
    """Quantile regression of the errors ``(n,)`` on the disagreements ``(n,)``, through the origin.

    The minimum of the pinball loss Σ ρ(ε − b D) is the quantile of ε / D with weights D.

    Raises
    ------
    InputError
        As `calibrate_slope`, and if `quantile` is not between 0 and 1.
    """
    _check_pairs(spread, error)
    if not 0 < quantile < 1:
        raise InputError(f"the quantile of the errors below the line must be between 0 and 1; got {quantile}")
    positive = spread > 0
    ratio, weights = error[positive] / spread[positive], spread[positive]
    target = quantile * float(weights.sum()) * (1 - 1e-12)  # so that rounding does not skip a value
    return QuantileCalibration(_weighted_quantile(ratio, weights, target), quantile)


CALIBRATIONS = {"slope": calibrate_slope, "isotonic": calibrate_isotonic, "quantile": calibrate_quantile}


def map_detection_scores(spread: Array, error: Array, spread_limits: Array, error_limits: Array) -> tuple[Array, Array]:
    """`score_detection` for all pairs of limits: two arrays ``(n_spread_limits, n_error_limits)``."""
    rates = np.array([[score_detection(spread, error, low, high) for high in error_limits] for low in spread_limits])
    return rates[..., 0], rates[..., 1]


@dataclass(frozen=True)
class ConformalIntervals:
    """Intervals around predictions that hold new labels with a given probability.

    Attributes
    ----------
    factor : float
        Half widths in units of the spread.
    min_spread : float
        Lower bound of the spread. Forces that vanish by symmetry have no spread, and smaller values are raised to this
        bound.
    coverage : float
        The probability.
    """

    factor: float
    min_spread: float
    coverage: float

    def compute_half_width(self, spread: Array) -> Array:
        """Half widths of the intervals of new values with these spreads."""
        return np.asarray(self.factor * np.maximum(spread, self.min_spread))


def calibrate_conformal(
    spread: Array, residual: Array, coverage: float = 0.9, group: Array | None = None, n_members: int | None = None
) -> ConformalIntervals:
    """Compute the factor q such that prediction ± q·spread holds a new value with at least this probability.

    Split conformal prediction makes no assumption on the model or the spread; the new value must be exchangeable with
    those of the calibration. The factor is the quantile of |residual| / spread over ``n + 1`` values, or groups, the
    new one being infinite. With all spreads equal the intervals have one width.

    Parameters
    ----------
    spread : (n,) float64
        Spreads of held-out values, which no member was trained on.
    residual : (n,) float64
        Label minus prediction of these values.
    coverage : float
        Between 0 and 1.
    group : (n,) int, optional
        Group of each value. Values of a group, such as the force components of a configuration, are correlated; then
        groups are exchangeable, not values, and each group counts as one value.
    n_members : int, optional
        Size of the committee: few members may agree by chance, so that a small spread means little. With two the floor
        of the spread is its median, with three half of it, and so on.

    Raises
    ------
    InputError
        If there are too few values or groups for the coverage, or all spreads are zero.

    Notes
    -----
    V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World (2005); normalised scores after
    H. Papadopoulos, A. Gammerman, V. Vovk, ICTAI (2008); groups after R. Dunn, L. Wasserman, A. Ramdas, J. Am. Stat.
    Assoc. 118, 2491 (2023).
    """
    _check_conformal_input(spread, residual, coverage, group)
    floor = max(MIN_RELATIVE_SPREAD, 0 if n_members is None else 1 / (n_members - 1)) * np.median(spread[spread > 0])
    owner = np.arange(len(residual)) if group is None else np.asarray(group)

    def calibrate(rows: Array) -> ConformalIntervals:
        factor = _conformal_factor(np.maximum(spread[rows], floor), residual[rows], coverage, owner[rows])
        return ConformalIntervals(factor, float(floor), coverage)

    small = spread < floor
    if small.any() and len(np.unique(owner[~small])) >= get_min_calibration_size(coverage):
        intervals = calibrate(~small)
        if np.mean(np.abs(residual[small]) <= intervals.compute_half_width(spread[small])) >= coverage:
            return intervals
    return calibrate(np.ones(len(spread), dtype=bool))


def _conformal_factor(spread: Array, residual: Array, coverage: float, group: Array) -> float:
    """The quantile of |residual| / spread over groups that count one each, and one more that is infinite."""
    names, number, counts = np.unique(group, return_inverse=True, return_counts=True)
    min_size = get_min_calibration_size(coverage)
    if len(names) < min_size:
        raise InputError(
            f"a coverage of {coverage:g} needs {min_size} held-out configurations for its calibration; there are "
            f"{len(names)}: hold out more configurations, or set a lower coverage"
        )
    target = coverage * (len(names) + 1) - 1e-6
    return _weighted_quantile(np.abs(residual) / spread, 1.0 / counts[number], target)


def _weighted_quantile(values: Array, weights: Array, target: float) -> float:
    """The smallest value at which the cumulative weight reaches `target`."""
    order = np.argsort(values, kind="stable")
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), target)])


def get_min_calibration_size(coverage: float) -> int:
    """Smallest number of values, or groups, with which intervals of a coverage can be calibrated."""
    return int(np.ceil(coverage / (1 - coverage) - 1e-9))


def _check_positive(error: float) -> float:
    if not error > 0:
        raise InputError(f"an error threshold must be positive; got {error}")
    return error


def _check_conformal_input(spread: Array, residual: Array, coverage: float, group: Array | None) -> None:
    if not 0 < coverage < 1:
        raise InputError(f"the coverage must be between 0 and 1; got {coverage}")
    if len(spread) != len(residual) or (group is not None and len(group) != len(residual)):
        raise InputError(
            f"there must be a spread, and a group if there are any, for each residual; got {len(spread)} spreads, "
            f"{len(residual)} residuals{'' if group is None else f' and {len(group)} groups'}"
        )
    if not (np.isfinite(spread) & np.isfinite(residual) & (spread >= 0)).all():
        raise InputError(
            "spreads and residuals must be finite, and spreads not negative; remove the values without a label"
        )
    if not spread.any():
        raise InputError("conformal intervals need spreads above zero; are the members identical?")


def _check_pairs(spread: Array, error: Array) -> None:
    if len(spread) != len(error):
        raise InputError(f"there must be an error for each disagreement; got {len(spread)} and {len(error)}")
    if len(spread) < MIN_CALIBRATION_PAIRS:
        raise InputError(
            f"a calibration needs at least {MIN_CALIBRATION_PAIRS} disagreements with their errors; got {len(spread)}"
        )
    for name, values in (("disagreements", spread), ("errors", error)):
        invalid = ~(np.isfinite(values) & (values >= 0))
        if invalid.any():
            raise InputError(f"{name} must be finite and not negative; {invalid.sum()} of {len(values)} are not")
        if not values.any():
            raise InputError(f"all {name} are zero, so there is nothing to calibrate; are the members identical?")


def _check_members(member_predictions: Array) -> Array:
    values = np.asarray(member_predictions, dtype=np.float64)
    if values.ndim != 2:
        raise InputError(f"the predictions of the members must have the shape (members, values); got {values.shape}")
    if len(values) < 2:
        raise InputError(f"a committee needs at least two members; got {len(values)}")
    return values


def _average_by_configuration(squares: Array, configuration: Array | None) -> Array:
    """Root mean squares of the values of each configuration, or of each value alone."""
    if configuration is not None:
        squares = np.array([squares[members].mean() for members in split_by_group(configuration)])
    return np.sqrt(squares)
