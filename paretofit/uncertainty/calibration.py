"""Calibration of committees: disagreements, errors, functions that predict errors, and detection rates.

All functions take plain arrays. A value is an energy per atom, a force component or a stress component, in any unit,
but never an extensive energy or the norm of a vector. Disagreements and errors have the same unit.

**Calibrations in logarithms.** Slopes, isotonic curves and quantiles are fitted to the logarithms of disagreements and
errors, with medians or clipped residuals, because errors span decades and a single outlier must not determine the fit.
A least-squares line through the origin, as in Bidoggia et al. (2025), would be determined by the few largest errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from paretofit.core import Array, InputError
from paretofit.linear import split_by_group

MIN_CALIBRATION_PAIRS = 3  # number of pairs of a disagreement and an error
# in standard deviations of log(error / disagreement); larger deviations are clipped before an isotonic fit
MAX_DEVIATION_SIGMA = 3.0
SIGMA_PER_MAD = 1.4826  # standard deviation of a normal distribution, relative to its median absolute deviation
NORMAL_QUANTILE_95 = 1.959964  # half width of a 95 % confidence interval, in standard deviations


def compute_disagreement(member_predictions: Array, configuration: Array | None = None) -> Array:
    """Compute the disagreement D = √⟨(L_j − ⟨L⟩)²⟩ of the members of a committee, for each value or configuration.

    L_j is the prediction of member j, and ⟨ ⟩ is the mean over the members.

    Parameters
    ----------
    member_predictions : (m, n) float64
        Predictions of the m members, m ≥ 2.
    configuration : (n,) int, optional
        Number of the configuration of each value; the root mean square is taken over the values with the same number,
        such as the force components of a configuration. By default, every value has its own disagreement.

    Returns
    -------
    (n,) or (n_configurations,) float64
        Disagreement of each value, or of each configuration in ascending order of the numbers.

    Raises
    ------
    InputError
        If the predictions do not have two dimensions, or there are fewer than two members.

    Notes
    -----
    Equation 1 of Bidoggia et al. (2025).
    """
    predictions = _validate_members(member_predictions)
    return _compute_root_means(predictions.var(axis=0), configuration)


def compute_committee_error(member_predictions: Array, labels: Array, configuration: Array | None = None) -> Array:
    """Compute the error ε = √⟨(L_j − L)²⟩ of the members of a committee, for each value or configuration.

    Parameters
    ----------
    member_predictions, configuration
        As in `compute_disagreement`.
    labels : (n,) float64
        Label L of each value.

    Returns
    -------
    (n,) or (n_configurations,) float64
        As in `compute_disagreement`.

    Raises
    ------
    InputError
        As in `compute_disagreement`, and if the shape of the labels is not ``(n,)``.

    Notes
    -----
    Equation 2 of Bidoggia et al. (2025). The error contains the disagreement D: ε² = D² + (⟨L⟩ − L)².
    """
    predictions = _validate_members(member_predictions)
    if np.shape(labels) != predictions.shape[1:]:
        raise InputError(f"there must be a label for each of {predictions.shape[1]} values; got {np.size(labels)}")
    return _compute_root_means(((predictions - labels) ** 2).mean(axis=0), configuration)


@dataclass(frozen=True)
class SlopeCalibration:
    """Line τ = a ε through the origin, which relates the disagreement τ to the error ε.

    Attributes
    ----------
    slope : float
        a, the median of τ/ε.
    slope_half_width : float
        Half width of the 95 % confidence interval of the slope.
    rms_residual : float
        Root mean square deviation of the disagreements from the line, in their unit.
    """

    slope: float
    slope_half_width: float
    rms_residual: float

    def find_threshold(self, error: float) -> float:
        """Return the disagreement above which the predicted error exceeds `error`.

        Raises an `InputError` if `error` is not positive.
        """
        return self.slope * _validate_threshold(error)

    def predict_error(self, disagreement: Array) -> Array:
        """Predict the errors, ``(n,)``, of configurations with the disagreements ``(n,)``."""
        return np.asarray(disagreement / self.slope)


def calibrate_slope(disagreement: Array, error: Array, weights: Array | None = None) -> SlopeCalibration:
    """Fit a line τ = a ε to the disagreements ``(n,)`` and errors ``(n,)`` of labelled configurations, by the median.

    The median of τ/ε minimises the sum of |log τ − log aε|; in a median, an outlier counts as much as any other pair.
    Half of the errors are below the predicted errors. Pairs in which the disagreement, the error or the weight is zero
    are not used, because a zero has no logarithm.

    Parameters
    ----------
    disagreement, error : (n,) float64
        Disagreement and error of each configuration, in the same unit.
    weights : (n,) float64, optional
        Weight of each configuration; by default, all are 1.

    Raises
    ------
    InputError
        If the arrays differ in length, if there are fewer than `MIN_CALIBRATION_PAIRS` configurations, if an error or a
        disagreement is negative or not finite, or if no configuration has an error, a disagreement and a weight above
        zero.

    Notes
    -----
    Section I.A.6 of Bidoggia et al. (2025), with the median instead of least squares.
    """
    disagreement, error, weights = _select_positive_pairs(disagreement, error, weights)
    ratio = disagreement / error
    # 95 % interval of a median from order statistics: the rank of the median, relative to the number of pairs, has the
    # standard deviation 1 / (2 √n), with the effective number of pairs n = (Σ w)² / Σ w². With few pairs,
    # the limits are the extreme ratios
    margin = 0.5 * NORMAL_QUANTILE_95 / np.sqrt(weights.sum() ** 2 / (weights**2).sum())
    slope, low, high = compute_weighted_quantiles(ratio, weights, [0.5, 0.5 - margin, 0.5 + margin])
    rms_residual = np.sqrt(np.average((disagreement - slope * error) ** 2, weights=weights))
    return SlopeCalibration(slope, (high - low) / 2, float(rms_residual))


def score_detection(
    disagreement: Array, error: Array, disagreement_limit: float, error_limit: float
) -> tuple[float, float]:
    """Compute how well disagreements ``(n,)`` above a limit detect errors ``(n,)`` above a limit.

    A true positive (TP) is a pair above both limits, a false negative (FN) is above the limit of the error only, and a
    false positive (FP) is above the limit of the disagreement only.

    Returns
    -------
    (float, float)
        True-positive rate TP / (TP + FN) and positive predictive value TP / (TP + FP); NaN if the denominator is zero.

    Raises
    ------
    InputError
        If a limit is below zero or NaN.

    Notes
    -----
    Equations 3 and 4 of Bidoggia et al. (2025).
    """
    if not (disagreement_limit >= 0 and error_limit >= 0):
        raise InputError(f"both limits must be at least zero; got {disagreement_limit} and {error_limit}")
    is_flagged, has_large_error = disagreement > disagreement_limit, error > error_limit
    n_true_positives = int((is_flagged & has_large_error).sum())
    n_flagged, n_large_errors = int(is_flagged.sum()), int(has_large_error.sum())
    true_positive_rate = n_true_positives / n_large_errors if n_large_errors else float("nan")
    positive_predictive_value = n_true_positives / n_flagged if n_flagged else float("nan")
    return true_positive_rate, positive_predictive_value


@dataclass(frozen=True)
class IsotonicCalibration:
    """Expected error as a monotonic function of the disagreement.

    The function is piecewise linear between the fitted disagreements. It is constant below the smallest of them, and
    proportional to the disagreement above the largest.

    Attributes
    ----------
    disagreement : (n,) float64
        Disagreements to which the function was fitted, ascending, without duplicates.
    expected_error : (n,) float64
        Expected error at each of these disagreements, not decreasing.
    """

    disagreement: Array
    expected_error: Array

    def find_threshold(self, error: float) -> float:
        """Return the largest fitted disagreement up to which the expected error does not exceed `error`.

        The threshold is 0 if the smallest expected error exceeds `error`, and is extrapolated if the largest expected
        error does not. Raises an `InputError` if `error` is not positive.
        """
        exceeding_positions = np.flatnonzero(self.expected_error > _validate_threshold(error))
        if not len(exceeding_positions):
            return float(self.disagreement[-1] * error / self.expected_error[-1])
        first_exceeding = exceeding_positions[0]
        return float(self.disagreement[first_exceeding - 1]) if first_exceeding else 0.0

    def predict_error(self, disagreement: Array) -> Array:
        """Predict the errors, ``(n,)``, of configurations with the disagreements ``(n,)``."""
        extrapolation_ratio = np.maximum(np.asarray(disagreement) / self.disagreement[-1], 1.0)
        return np.asarray(np.interp(disagreement, self.disagreement, self.expected_error) * extrapolation_ratio)


@dataclass(frozen=True)
class QuantileCalibration:
    """Line through the origin, error = factor × disagreement, below which a given share of the errors lies.

    Attributes
    ----------
    factor : float
        Ratio of the predicted error to the disagreement.
    quantile : float
        Share of the errors below the line, between 0 and 1.
    """

    factor: float
    quantile: float

    def find_threshold(self, error: float) -> float:
        """Return the disagreement above which more than ``1 - quantile`` of the errors exceed `error`.

        Raises an `InputError` if `error` is not positive.
        """
        return _validate_threshold(error) / self.factor

    def predict_error(self, disagreement: Array) -> Array:
        """Compute the quantile of the errors, ``(n,)``, of configurations with the disagreements ``(n,)``."""
        return np.asarray(self.factor * disagreement)


def calibrate_isotonic(disagreement: Array, error: Array, weights: Array | None = None) -> IsotonicCalibration:
    """Fit an isotonic regression of the logarithms of the errors ``(n,)`` on the disagreements ``(n,)``.

    Values of log(error / disagreement) that deviate from their median by more than `MAX_DEVIATION_SIGMA` robust
    standard deviations are clipped. The parameter `weights` is that of `calibrate_slope`.

    Raises
    ------
    InputError
        As in `calibrate_slope`.
    """
    disagreement, error, weights = _select_positive_pairs(disagreement, error, weights)
    log_ratio = np.log(error / disagreement)
    median = np.median(log_ratio)
    max_deviation = MAX_DEVIATION_SIGMA * SIGMA_PER_MAD * np.median(np.abs(log_ratio - median))
    if max_deviation > 0:  # it is zero if more than half of the ratios are equal
        log_ratio = np.clip(log_ratio, median - max_deviation, median + max_deviation)
    # errors at equal disagreements are averaged
    unique_disagreements, positions = np.unique(disagreement, return_inverse=True)
    total_weights = np.bincount(positions, weights)
    mean_log_errors = np.bincount(positions, weights * (np.log(disagreement) + log_ratio)) / total_weights
    log_errors = isotonic_regression(mean_log_errors, weights=total_weights).x
    return IsotonicCalibration(unique_disagreements, np.exp(log_errors))


def calibrate_quantile(
    disagreement: Array, error: Array, weights: Array | None = None, quantile: float = 0.9
) -> QuantileCalibration:
    """Fit a line through the origin, error = b × disagreement, below which a quantile of the errors ``(n,)`` lies.

    b is the quantile of ε/τ, the ratio of error to disagreement, which minimises the pinball loss Σ ρ(log ε − log bτ).
    The parameter `weights` is that of `calibrate_slope`.

    Raises
    ------
    InputError
        As in `calibrate_slope`, and if `quantile` is not between 0 and 1.
    """
    if not 0 < quantile < 1:
        raise InputError(f"the quantile of the errors below the line must be between 0 and 1; got {quantile}")
    disagreement, error, weights = _select_positive_pairs(disagreement, error, weights)
    return QuantileCalibration(compute_weighted_quantiles(error / disagreement, weights, [quantile])[0], quantile)


# functions that fit a calibration, by the name in the settings and on the command line
CALIBRATIONS = {"slope": calibrate_slope, "isotonic": calibrate_isotonic, "quantile": calibrate_quantile}


def map_detection_scores(
    disagreement: Array, error: Array, disagreement_limits: Array, error_limits: Array
) -> tuple[Array, Array]:
    """Compute the rates of `score_detection` for all pairs of a limit of the disagreement and a limit of the error.

    Returns
    -------
    true_positive_rates, positive_predictive_values : (n_disagreement_limits, n_error_limits) float64

    Raises
    ------
    InputError
        If a limit is below zero or NaN.
    """
    rates = np.array(
        [
            [score_detection(disagreement, error, disagreement_limit, error_limit) for error_limit in error_limits]
            for disagreement_limit in disagreement_limits
        ]
    )
    return rates[..., 0], rates[..., 1]


def compute_weighted_quantiles(values: Array, weights: Array, quantiles: Sequence[float]) -> list[float]:
    """Compute quantiles of positive values with weights, by linear interpolation of their logarithms between ranks.

    With equal weights, the quantile 0.5 is the median (for an even number of values, the geometric mean of the two
    middle ones). The rank of a value is the share of the total weight below the middle of its own weight.

    Parameters
    ----------
    values, weights : (n,) float64
        Positive.
    quantiles : sequence of float
        Ranks at which the values are interpolated, such as 0.5 for the median.

    Returns
    -------
    list of float
        Interpolated values in the order of `quantiles`; the smallest value below the lowest rank, and the largest value
        above the highest rank.
    """
    order = np.argsort(values, kind="stable")
    sorted_weights = weights[order]
    ranks = (np.cumsum(sorted_weights) - 0.5 * sorted_weights) / sorted_weights.sum()
    return [float(value) for value in np.exp(np.interp(quantiles, ranks, np.log(values[order])))]


def _validate_threshold(threshold: float) -> float:
    """Return a threshold of the error; raise an `InputError` if it is not positive."""
    if not threshold > 0:  # also true for NaN
        raise InputError(f"an error threshold must be positive; got {threshold}")
    return threshold


def _select_positive_pairs(disagreement: Array, error: Array, weights: Array | None) -> tuple[Array, Array, Array]:
    """Check disagreements and errors; return the pairs above zero, which have logarithms, and their weights.

    Pairs without a positive weight are omitted. An `InputError` is raised as in `calibrate_slope`.
    """
    _check_pairs(disagreement, error)
    weights = np.ones(len(error)) if weights is None else np.asarray(weights, dtype=np.float64)
    is_used = (disagreement > 0) & (error > 0) & (weights > 0)
    if not is_used.any():
        raise InputError(
            "no configuration has both a disagreement and an error above zero; add labelled configurations"
        )
    return disagreement[is_used], error[is_used], weights[is_used]


def _check_pairs(disagreement: Array, error: Array) -> None:
    """Raise an `InputError` if a calibration cannot use the disagreements and errors."""
    if len(disagreement) != len(error):
        raise InputError(f"there must be an error for each disagreement; got {len(disagreement)} and {len(error)}")
    if len(disagreement) < MIN_CALIBRATION_PAIRS:
        raise InputError(
            f"a calibration requires at least {MIN_CALIBRATION_PAIRS} disagreements with errors; "
            f"got {len(disagreement)}"
        )
    for name, values in (("disagreements", disagreement), ("errors", error)):
        is_invalid = ~(np.isfinite(values) & (values >= 0))
        if is_invalid.any():
            raise InputError(f"{name} must be finite and non-negative; {is_invalid.sum()} of {len(values)} are not")
        if not values.any():
            raise InputError(f"all {name} are zero, so there is nothing to calibrate; are the members identical?")


def _validate_members(member_predictions: Array) -> Array:
    """Return the predictions as float64, or raise an `InputError` if they are not those of two or more members."""
    predictions = np.asarray(member_predictions, dtype=np.float64)
    if predictions.ndim != 2:
        raise InputError(
            f"the predictions of the members must have the shape (members, values); got {predictions.shape}"
        )
    if len(predictions) < 2:
        raise InputError(f"a committee requires at least two members; got {len(predictions)}")
    return predictions


def _compute_root_means(squares: Array, configuration: Array | None) -> Array:
    """Compute the root of the mean square of each configuration; without configurations, the root of each square."""
    if configuration is not None:
        squares = np.array([squares[positions].mean() for positions in split_by_group(configuration)])
    return np.sqrt(squares)
