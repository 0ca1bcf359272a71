"""Calibration of committees: the conversion of their spread to errors, and intervals that are valid for any model.

All functions take plain arrays. A value is an energy per atom, a force component or a stress component, in any unit,
but never an extensive energy or the norm of a vector.

**Conformal intervals and small spreads.** Spreads below a tenth of their median (more, with few members) are raised to
this floor. Values with smaller spreads, such as forces that nearly vanish by symmetry, are inside any interval and
would make the intervals of the other values too narrow. They are therefore excluded from the calibration, provided that
the resulting intervals, at the floor, contain as large a share of them as the coverage requires.
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
        Predictions of the m members, of which there are at least two.
    configuration : (n,) int, optional
        Number of the configuration of each value; values with the same number, such as the force components of a
        configuration, are averaged.

    Returns
    -------
    (n,) or (n_configurations,) float64
        Disagreement of each value, or of each configuration in ascending order of the numbers.

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
        """Return the disagreement above which errors exceed `error`."""
        return self.slope * _check_positive(error)

    def predict_error(self, spread: Array) -> Array:
        """Return the errors that correspond to disagreements."""
        return np.asarray(spread / self.slope)


def calibrate_slope(spread: Array, error: Array) -> SlopeCalibration:
    """Fit a line to the disagreements ``(n,)`` of labelled configurations as a function of their errors ``(n,)``.

    Raises
    ------
    InputError
        If there are fewer than `MIN_CALIBRATION_PAIRS` configurations, a value is negative or not finite, or all errors
        or disagreements are zero.

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
    """Compute how well disagreements above a limit detect errors above a limit.

    Returns
    -------
    (float, float)
        True-positive rate TP / (TP + FN) and positive predictive value TP / (TP + FP); NaN if the denominator is zero.

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
    is_flagged, is_wrong = spread > spread_limit, error > error_limit
    n_hits, n_wrong, n_flagged = (int(mask.sum()) for mask in (is_flagged & is_wrong, is_wrong, is_flagged))
    nan = float("nan")
    return n_hits / n_wrong if n_wrong else nan, n_hits / n_flagged if n_flagged else nan


@dataclass(frozen=True)
class IsotonicCalibration:
    """Errors as a monotonic function of the disagreement, to which they are proportional beyond its largest value.

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
        """Return the disagreement above which the expected error exceeds `error`."""
        positions = np.flatnonzero(self.expected_error > _check_positive(error))
        if not len(positions):
            return float(self.spread[-1] * error / self.expected_error[-1])
        return float(self.spread[positions[0] - 1]) if positions[0] else 0.0

    def predict_error(self, spread: Array) -> Array:
        """Return the errors that correspond to disagreements."""
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
        """Return the disagreement above which more than ``1 - quantile`` of the errors exceed `error`."""
        return _check_positive(error) / self.factor

    def predict_error(self, spread: Array) -> Array:
        """Return the quantile of the errors at disagreements."""
        return np.asarray(self.factor * spread)


def calibrate_isotonic(spread: Array, error: Array) -> IsotonicCalibration:
    """Fit an isotonic regression of the errors ``(n,)`` on the disagreements ``(n,)``.

    Raises
    ------
    InputError
        As in `calibrate_slope`.
    """
    _check_pairs(spread, error)
    values, positions, counts = np.unique(spread, return_inverse=True, return_counts=True)
    means = np.bincount(positions, error) / counts  # equal disagreements correspond to one error
    return IsotonicCalibration(values, np.asarray(isotonic_regression(means, weights=counts).x))


def calibrate_quantile(spread: Array, error: Array, quantile: float = 0.9) -> QuantileCalibration:
    """Fit a quantile regression, through the origin, of the errors ``(n,)`` on the disagreements ``(n,)``.

    The minimum of the pinball loss Σ ρ(ε − b D) is the quantile of ε / D with weights D.

    Raises
    ------
    InputError
        As in `calibrate_slope`, and if `quantile` is not between 0 and 1.
    """
    _check_pairs(spread, error)
    if not 0 < quantile < 1:
        raise InputError(f"the quantile of the errors below the line must be between 0 and 1; got {quantile}")
    is_positive = spread > 0
    ratio, weights = error[is_positive] / spread[is_positive], spread[is_positive]
    target = quantile * float(weights.sum()) * (1 - 1e-12)  # so that rounding does not skip a value
    return QuantileCalibration(_weighted_quantile(ratio, weights, target), quantile)


CALIBRATIONS = {"slope": calibrate_slope, "isotonic": calibrate_isotonic, "quantile": calibrate_quantile}


def map_detection_scores(spread: Array, error: Array, spread_limits: Array, error_limits: Array) -> tuple[Array, Array]:
    """Compute `score_detection` for all pairs of limits: two arrays ``(n_spread_limits, n_error_limits)``."""
    rates = np.array([[score_detection(spread, error, low, high) for high in error_limits] for low in spread_limits])
    return rates[..., 0], rates[..., 1]


@dataclass(frozen=True)
class ConformalIntervals:
    """Intervals around predictions that contain new labels with a given probability.

    Attributes
    ----------
    factor : float
        Half widths in units of the spread.
    min_spread : float
        Lower bound to which smaller spreads are raised, such as those of forces that vanish by symmetry.
    coverage : float
        Probability that an interval contains a new label.
    """

    factor: float
    min_spread: float
    coverage: float

    def compute_half_width(self, spread: Array) -> Array:
        """Compute the half widths of the intervals of new values with these spreads."""
        return np.asarray(self.factor * np.maximum(spread, self.min_spread))


def calibrate_conformal(
    spread: Array, residual: Array, coverage: float = 0.9, group: Array | None = None, n_members: int | None = None
) -> ConformalIntervals:
    """Compute the factor q such that prediction ± q·spread contains a new value with at least a given probability.

    Split conformal prediction makes no assumption about the model or the spread, but the new value must be exchangeable
    with those of the calibration. The factor is the quantile of |residual| / spread over the n values, or groups, and
    the new one, whose ratio counts as infinite. If all spreads are equal, all intervals have the same width.

    Parameters
    ----------
    spread : (n,) float64
        Spreads of held-out values, which no member was trained on.
    residual : (n,) float64
        Label minus prediction of these values.
    coverage : float
        The probability, between 0 and 1.
    group : (n,) int, optional
        Group of each value. Values of a group, such as the force components of a configuration, are correlated, so that
        groups are exchangeable, but single values are not. Each group therefore counts as one value.
    n_members : int, optional
        Size of a small committee, whose members may agree by chance. The floor of the spread is then at least the
        median spread divided by ``n_members - 1``.

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
    groups = np.arange(len(residual)) if group is None else np.asarray(group)

    def calibrate(mask: Array) -> ConformalIntervals:
        factor = _compute_conformal_factor(np.maximum(spread[mask], floor), residual[mask], coverage, groups[mask])
        return ConformalIntervals(factor, float(floor), coverage)

    is_small = spread < floor
    if is_small.any() and len(np.unique(groups[~is_small])) >= get_min_calibration_size(coverage):
        intervals = calibrate(~is_small)
        if np.mean(np.abs(residual[is_small]) <= intervals.compute_half_width(spread[is_small])) >= coverage:
            return intervals
    return calibrate(np.ones(len(spread), dtype=bool))


def _compute_conformal_factor(spread: Array, residual: Array, coverage: float, group: Array) -> float:
    """Compute the quantile of |residual| / spread over groups of equal weight and one more group, which is infinite."""
    names, positions, counts = np.unique(group, return_inverse=True, return_counts=True)
    min_size = get_min_calibration_size(coverage)
    if len(names) < min_size:
        raise InputError(
            f"a coverage of {coverage:g} requires {min_size} held-out configurations for its calibration; there are "
            f"{len(names)}: hold out more configurations, or set a lower coverage"
        )
    target = coverage * (len(names) + 1) - 1e-6
    return _weighted_quantile(np.abs(residual) / spread, 1.0 / counts[positions], target)


def _weighted_quantile(values: Array, weights: Array, target: float) -> float:
    """Return the smallest value at which the cumulative weight reaches `target`."""
    order = np.argsort(values, kind="stable")
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), target)])


def get_min_calibration_size(coverage: float) -> int:
    """Return the smallest number of values, or groups, from which intervals of a coverage can be calibrated."""
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
            f"a calibration requires at least {MIN_CALIBRATION_PAIRS} disagreements with errors; got {len(spread)}"
        )
    for name, values in (("disagreements", spread), ("errors", error)):
        is_invalid = ~(np.isfinite(values) & (values >= 0))
        if is_invalid.any():
            raise InputError(f"{name} must be finite and not negative; {is_invalid.sum()} of {len(values)} are not")
        if not values.any():
            raise InputError(f"all {name} are zero, so there is nothing to calibrate; are the members identical?")


def _check_members(member_predictions: Array) -> Array:
    values = np.asarray(member_predictions, dtype=np.float64)
    if values.ndim != 2:
        raise InputError(f"the predictions of the members must have the shape (members, values); got {values.shape}")
    if len(values) < 2:
        raise InputError(f"a committee requires at least two members; got {len(values)}")
    return values


def _average_by_configuration(squares: Array, configuration: Array | None) -> Array:
    """Compute the root of the mean square of each configuration, or of the square of each value."""
    if configuration is not None:
        squares = np.array([squares[members].mean() for members in split_by_group(configuration)])
    return np.sqrt(squares)
