"""Calibration of committees: disagreement and error, the conversion from one to the other, and detection rates.

All functions take plain arrays. A value is an energy per atom, a force component or a stress component, in any unit,
but never an extensive energy or the norm of a vector.

**Calibrations in logarithms.** Slopes, isotonic curves and quantiles are fitted to the logarithms of disagreements and
errors, with medians or clipped residuals, because errors span decades and a single outlier must not determine the fit.
Least squares through the origin, as in Bidoggia et al. (2025), follow the few largest errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from paretofit.core import Array, InputError
from paretofit.linear import split_by_group

MIN_CALIBRATION_PAIRS = 3
# standard deviations of log(error / disagreement); larger deviations are clipped before an isotonic fit
MAX_DEVIATION_SIGMA = 3.0
SIGMA_PER_MAD = 1.4826  # standard deviation of a normal distribution, relative to its median absolute deviation
NORMAL_QUANTILE_95 = 1.959964  # standard deviations of a 95 % confidence interval


def compute_disagreement(member_predictions: Array, configuration: Array | None = None) -> Array:
    """Compute D = √(⟨(L_j − ⟨L⟩)²⟩) over the members of a committee, for each value or configuration.

    Parameters
    ----------
    member_predictions : (m, n) float64
        Predictions of the m members, m ≥ 2.
    configuration : (n,) int, optional
        Number of the configuration of each value; the root mean square is taken over the values with the same number,
        such as the force components of a configuration.

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
    values = _validate_members(member_predictions)
    return _average_by_configuration(values.var(axis=0), configuration)


def compute_committee_error(member_predictions: Array, labels: Array, configuration: Array | None = None) -> Array:
    """Compute ε = √(⟨(L_j − L)²⟩) over the members, against the labels ``(n,)``; otherwise as `compute_disagreement`.

    Notes
    -----
    Equation 2 of Bidoggia et al. (2025). It contains the spread: ε² = D² + (⟨L⟩ − L)².
    """
    values = _validate_members(member_predictions)
    if np.shape(labels) != values.shape[1:]:
        raise InputError(f"there must be a label for each of {values.shape[1]} values; got {np.size(labels)}")
    return _average_by_configuration(((values - labels) ** 2).mean(axis=0), configuration)


@dataclass(frozen=True)
class SlopeCalibration:
    """The line τ = a ε through the origin, from errors ε to disagreements τ.

    Attributes
    ----------
    slope : float
        a, the median of τ/ε.
    slope_half_width : float
        Half width of the 95 % confidence interval of the slope.
    rms_residual : float
        Root mean squared deviation of the disagreements from the line.
    """

    slope: float
    slope_half_width: float
    rms_residual: float

    def find_threshold(self, error: float) -> float:
        """Return the disagreement above which errors exceed `error`."""
        return self.slope * _validate_threshold(error)

    def predict_error(self, spread: Array) -> Array:
        """Return the errors that correspond to disagreements."""
        return np.asarray(spread / self.slope)


def calibrate_slope(spread: Array, error: Array, weights: Array | None = None) -> SlopeCalibration:
    """Fit a line τ = a ε to the disagreements ``(n,)`` and errors ``(n,)`` of labelled configurations, by the median.

    The median of τ/ε minimises the sum of |log τ − log aε|; in a median, an outlier counts as much as any other pair.
    Half of the errors are below the predicted ones. Pairs with a zero have no logarithm and are not used.

    Parameters
    ----------
    spread, error : (n,) float64
    weights : (n,) float64, optional
        Weight of each configuration.

    Raises
    ------
    InputError
        If there are fewer than `MIN_CALIBRATION_PAIRS` configurations, a value is negative or not finite, or all errors
        or disagreements are zero.

    Notes
    -----
    Section I.A.6 of Bidoggia et al. (2025), with the median instead of least squares.
    """
    spread, error, weights = _select_positive_pairs(spread, error, weights)
    ratio = spread / error
    # 95 % interval of a median from order statistics: the rank of the median has the standard deviation √n / 2, with
    # the effective number of pairs n = (Σ w)² / Σ w²
    margin = 0.5 * NORMAL_QUANTILE_95 / np.sqrt(weights.sum() ** 2 / (weights**2).sum())
    slope, low, high = compute_weighted_quantiles(ratio, weights, [0.5, 0.5 - margin, 0.5 + margin])
    rms_residual = np.sqrt(np.average((spread - slope * error) ** 2, weights=weights))
    return SlopeCalibration(slope, (high - low) / 2, float(rms_residual))


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
    """Errors as a monotonic function of the disagreement; beyond its largest value, they are proportional to it.

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
        positions = np.flatnonzero(self.expected_error > _validate_threshold(error))
        if not len(positions):
            return float(self.spread[-1] * error / self.expected_error[-1])
        # the point before the first one above `error`
        return float(self.spread[positions[0] - 1]) if positions[0] else 0.0

    def predict_error(self, spread: Array) -> Array:
        """Return the errors that correspond to disagreements."""
        extrapolation_ratio = np.maximum(np.asarray(spread) / self.spread[-1], 1.0)
        return np.asarray(np.interp(spread, self.spread, self.expected_error) * extrapolation_ratio)


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
        return _validate_threshold(error) / self.factor

    def predict_error(self, spread: Array) -> Array:
        """Return the quantile of the errors at disagreements."""
        return np.asarray(self.factor * spread)


def calibrate_isotonic(spread: Array, error: Array, weights: Array | None = None) -> IsotonicCalibration:
    """Fit an isotonic regression of the logarithms of the errors ``(n,)`` on the disagreements ``(n,)``.

    Values of log(error / disagreement) more than `MAX_DEVIATION_SIGMA` from their median are clipped.

    Raises
    ------
    InputError
        As in `calibrate_slope`.
    """
    spread, error, weights = _select_positive_pairs(spread, error, weights)
    log_ratio = np.log(error / spread)
    median = np.median(log_ratio)
    width = MAX_DEVIATION_SIGMA * SIGMA_PER_MAD * np.median(np.abs(log_ratio - median))
    if width > 0:
        log_ratio = np.clip(log_ratio, median - width, median + width)
    values, positions = np.unique(spread, return_inverse=True)
    sums = np.bincount(positions, weights)  # values at equal disagreements are averaged
    means = np.bincount(positions, weights * (np.log(spread) + log_ratio)) / sums
    return IsotonicCalibration(values, np.exp(isotonic_regression(means, weights=sums).x))


def calibrate_quantile(
    spread: Array, error: Array, weights: Array | None = None, quantile: float = 0.9
) -> QuantileCalibration:
    """Fit a line through the origin, error = b × disagreement, below which a quantile of the errors ``(n,)`` lies.

    b is the quantile of ε / τ, which minimises the pinball loss Σ ρ(log ε − log bτ).

    Raises
    ------
    InputError
        As in `calibrate_slope`, and if `quantile` is not between 0 and 1.
    """
    if not 0 < quantile < 1:
        raise InputError(f"the quantile of the errors below the line must be between 0 and 1; got {quantile}")
    spread, error, weights = _select_positive_pairs(spread, error, weights)
    return QuantileCalibration(compute_weighted_quantiles(error / spread, weights, [quantile])[0], quantile)


CALIBRATIONS = {"slope": calibrate_slope, "isotonic": calibrate_isotonic, "quantile": calibrate_quantile}


def map_detection_scores(spread: Array, error: Array, spread_limits: Array, error_limits: Array) -> tuple[Array, Array]:
    """Compute `score_detection` for all pairs of limits: two arrays ``(n_spread_limits, n_error_limits)``."""
    rates = np.array([[score_detection(spread, error, low, high) for high in error_limits] for low in spread_limits])
    return rates[..., 0], rates[..., 1]


def compute_weighted_quantiles(values: Array, weights: Array, quantiles: Sequence[float]) -> list[float]:
    """Compute quantiles of positive values with weights, interpolated in their logarithms between ranks.

    With equal weights, the quantile 0.5 is the median (the geometric mean of two middle values).

    Parameters
    ----------
    values, weights : (n,) float64
        Positive.
    quantiles : sequence of float
    """
    order = np.argsort(values, kind="stable")
    sorted_weights = weights[order]
    ranks = (np.cumsum(sorted_weights) - 0.5 * sorted_weights) / sorted_weights.sum()
    return [float(value) for value in np.exp(np.interp(quantiles, ranks, np.log(values[order])))]


def _validate_threshold(threshold: float) -> float:
    if not threshold > 0:
        raise InputError(f"an error threshold must be positive; got {threshold}")
    return threshold


def _select_positive_pairs(spread: Array, error: Array, weights: Array | None) -> tuple[Array, Array, Array]:
    """Check disagreements and errors, and select those that have logarithms, with their weights."""
    _check_pairs(spread, error)
    weights = np.ones(len(error)) if weights is None else np.asarray(weights, dtype=np.float64)
    is_used = (spread > 0) & (error > 0) & (weights > 0)
    if not is_used.any():
        raise InputError(
            "no configuration has both a disagreement and an error above zero; add labelled configurations"
        )
    return spread[is_used], error[is_used], weights[is_used]


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
            raise InputError(f"{name} must be finite and non-negative; {is_invalid.sum()} of {len(values)} are not")
        if not values.any():
            raise InputError(f"all {name} are zero, so there is nothing to calibrate; are the members identical?")


def _validate_members(member_predictions: Array) -> Array:
    values = np.asarray(member_predictions, dtype=np.float64)
    if values.ndim != 2:
        raise InputError(f"the predictions of the members must have the shape (members, values); got {values.shape}")
    if len(values) < 2:
        raise InputError(f"a committee requires at least two members; got {len(values)}")
    return values


def _average_by_configuration(squares: Array, configuration: Array | None) -> Array:
    """Compute the root of the mean of `squares` over each configuration; without configurations, of each square."""
    if configuration is not None:
        squares = np.array([squares[members].mean() for members in split_by_group(configuration)])
    return np.sqrt(squares)
