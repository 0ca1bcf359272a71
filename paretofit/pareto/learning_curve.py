"""Learning curves: the error of a setting for any number of configurations n, predicted from measured sizes.

A *size* is a number of training configurations. Between measured sizes, log(error) is linear in log(n). Above the
largest size, at the reference level, the curve is ε(n) = ε∞ + A n^(-α); the training error at the largest size is a
lower bound of ε∞. At a cheaper level, ε(n)² = ε_ref(n)² + δ², where δ is the part of the level's label error that a
model learns. δ does not depend on n; if the label error is known, δ is between a minimum share of this error and the
whole error. Prediction intervals combine a bootstrap over the repetitions with a relative error of the assumed form of
the curve.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EXPONENTS = np.array([0.35, 0.5, 0.7, 1.0])  # candidates for α; it is 1/2 where squared errors fall as 1/n
N_REPLICAS = 100  # number of bootstrap replicas of a curve
MAX_FITTED_SIZES = 5  # the power law is fitted to at most this number of sizes, the largest ones
MIN_FITTED_SIZES = 3  # with fewer sizes, the error is assumed not to fall above the largest size
LOW_QUANTILE, HIGH_QUANTILE = 0.1, 0.9  # ends of a prediction interval
INTERVAL_HALF_WIDTH = 1.2816  # half width of this interval, in standard deviations of a normal distribution
# Relative error of the assumed form of the curve, at the largest measured size n_k; at a larger size n, it is
# multiplied by (1 + ln(n/n_k))^½. With this value, the predicted intervals contain nine of ten errors of the settings
# that are recommended from pilots of 40 configurations (shipped data; tests/benchmarks/RESULTS.md), but fewer errors of
# other settings.
FORM_RELATIVE_ERROR = 0.25
# Largest exponent of a predicted decrease, by `LearningCurve.has_folds`. Errors have a peak where there are hardly more
# rows than coefficients, and a fit to sizes just above the peak would predict too fast a decrease at larger sizes.
# Folds have no such peak, because they are fitted with a ridge.
MAX_EXPONENT = {False: 0.5, True: 1.0}


@dataclass(frozen=True)
class Estimates:
    """Predicted errors at some sizes, in the unit of the curve.

    Attributes
    ----------
    errors : (m,) float
        Central errors, see `LearningCurve.central_errors`.
    low, high : (m,) float
        Ends of 80 % prediction intervals; NaN at measured and interpolated sizes if the spread is unknown.
    is_extrapolated : (m,) bool
        Whether the size is larger than all measured sizes.
    """

    errors: Array
    low: Array
    high: Array
    is_extrapolated: NDArray[np.bool_]


@dataclass(frozen=True)
class LearningCurve:
    """Errors of one setting as a function of the number of configurations.

    Attributes
    ----------
    sizes : (k,) float
        Measured numbers of configurations, in ascending order.
    errors : tuple of k arrays
        Positive errors of the repetitions at each size. If all sizes have the same number of repetitions, errors at
        the same position belong to the same repetition.
    has_folds : bool
        Whether the repetitions are folds of a cross-validation: the error is their root mean square, and its
        uncertainty comes from a bootstrap over the folds.
    training_errors : array, optional
        Training errors of the repetitions at the largest size, for a curve of the reference level; they bound ε∞. By
        default, the bound is zero.
    reference_curve : LearningCurve, optional
        Curve of the same setting at the reference level, for a curve of a cheaper level. It is used if it has the same
        sizes; otherwise, the power law is fitted to the curve itself.
    label_error : float, optional
        Root mean square deviation of the labels of a cheaper level from those of the reference level; None if unknown.
    min_learned_share : float
        Smallest share of the label error that a model of a cheaper level learns.
    intervals : (2, k) float, optional
        Ends of the interval at each size that contains the error of a new draw in a new train/test split with a
        probability of 80 % (see `estimate_intervals`). Where they are not NaN, they replace the spread of the
        repetitions, and their geometric means replace the central errors.
    """

    sizes: Array
    errors: tuple[Array, ...]
    has_folds: bool = False
    training_errors: Array | None = None
    reference_curve: LearningCurve | None = None
    label_error: float | None = None
    min_learned_share: float = 0.5
    intervals: Array | None = None

    @cached_property
    def central_errors(self) -> Array:
        """Error at each size, ``(k,)``: geometric mean of `intervals`; without them, the median or the RMS of folds."""
        averages = np.array([self._average(errors) for errors in self.errors])
        means = np.full(len(averages), np.nan) if self.intervals is None else np.sqrt(np.prod(self.intervals, axis=0))
        return np.where(np.isnan(means), averages, means)

    @cached_property
    def bootstrap_errors(self) -> Array:
        """Averages of bootstrap replicas, ``(N_REPLICAS, k)``.

        A row draws the same repetitions at all sizes with equal numbers of repetitions.
        """
        return np.column_stack([self._average_replicas(errors) for errors in self.errors])

    def _average(self, errors: Array, axis: int | None = None) -> Array:
        """Compute the root mean square of errors of folds, or the median of errors of repetitions."""
        return np.asarray(np.sqrt(np.mean(errors**2, axis=axis)) if self.has_folds else np.median(errors, axis=axis))

    def _average_replicas(self, errors: Array) -> Array:
        """Draw bootstrap replicas of the errors of n repetitions, and return the average of each, ``(N_REPLICAS,)``."""
        return self._average(errors[_draw_positions(len(errors))], axis=1)

    @cached_property
    def relative_quantiles(self) -> tuple[Array, Array]:
        """10 % and 90 % quantiles of the errors at each size, divided by the central error, each ``(k,)``.

        With folds, they are quantiles of `bootstrap_errors`. If all errors are equal, as for repetitions with the whole
        training set, the quantiles are derived from those of the next smaller size, on the assumption that their
        logarithms are proportional to n^(-1/2); they are NaN if there is no smaller size. Where `intervals` is not NaN,
        its ends replace the quantiles.
        """
        low, high = np.full((2, len(self.sizes)), np.nan)
        samples = self.bootstrap_errors.T if self.has_folds else self.errors
        for k, (errors, center) in enumerate(zip(samples, self.central_errors, strict=True)):
            if len(np.unique(errors)) > 1:
                low[k], high[k] = np.quantile(errors, [LOW_QUANTILE, HIGH_QUANTILE]) / center
            elif k:
                log_factor = np.sqrt(self.sizes[k - 1] / self.sizes[k])
                low[k], high[k] = low[k - 1] ** log_factor, high[k - 1] ** log_factor
        if self.intervals is not None:
            ratios = np.sqrt(self.intervals[1] / self.intervals[0])  # of the upper end to the geometric mean
            low, high = np.where(np.isnan(ratios), low, 1 / ratios), np.where(np.isnan(ratios), high, ratios)
        return low, high

    def predict(self, sizes: Array) -> Estimates:
        """Predict the errors for numbers of configurations, ``(m,)``, which must not be below the smallest size.

        Predictions above the largest size fall at most as n^(-`MAX_EXPONENT`).
        """
        sizes = np.asarray(sizes, dtype=float)
        log_sizes, log_measured_sizes = np.log(np.minimum(sizes, self.sizes[-1])), np.log(self.sizes)
        errors, low_ratio, high_ratio = (
            np.exp(np.interp(log_sizes, log_measured_sizes, np.log(column)))
            for column in (self.central_errors, *self.relative_quantiles)
        )
        low, high = errors * low_ratio, errors * high_ratio
        is_beyond = sizes > self.sizes[-1]
        if is_beyond.any():
            log_growth = np.log(sizes[is_beyond] / self.sizes[-1])
            log_factors = np.log(self.extrapolate_factors(sizes[is_beyond]))
            min_log_factors = -MAX_EXPONENT[self.has_folds] * log_growth
            errors[is_beyond] *= np.exp(np.maximum(np.median(log_factors, axis=0), min_log_factors))
            form_error = FORM_RELATIVE_ERROR * np.sqrt(1 + log_growth)
            half_width = INTERVAL_HALF_WIDTH * np.hypot(np.std(log_factors, axis=0), form_error)
            # The spread at the largest measured size and the uncertainty of the extrapolation are independent, so that
            # the squares of their logarithms add. An unknown spread (NaN) is left out.
            for ends, ratio, sign in ((low, low_ratio, -1.0), (high, high_ratio, 1.0)):
                log_ratio = np.log(np.where(np.isnan(ratio), 1.0, ratio)[is_beyond])
                ends[is_beyond] = errors[is_beyond] * np.exp(sign * np.hypot(log_ratio, half_width))
        return Estimates(errors, low, high, is_beyond)

    def extrapolate_factors(self, sizes: Array) -> Array:
        """Predict the errors at larger sizes ``(m,)``, divided by that at the largest measured size.

        Returns
        -------
        (N_REPLICAS, m) float64
            A row for each bootstrap replica; 1 everywhere if there are too few sizes for a fit.
        """
        if self.reference_curve is not None and np.array_equal(self.reference_curve.sizes, self.sizes):
            return self._extrapolate_from_reference(self.reference_curve, sizes)
        # The errors of large models rise with the size up to a peak, below which the power law does not hold.
        peak = int(np.argmax(self.central_errors))
        first_index = max(peak, len(self.sizes) - MAX_FITTED_SIZES)
        if len(self.sizes) - first_index < MIN_FITTED_SIZES:
            return np.ones((N_REPLICAS, len(sizes)))
        min_limits = (
            np.zeros(N_REPLICAS) if self.training_errors is None else self._average_replicas(self.training_errors)
        )
        fitted_errors = self.bootstrap_errors[:, first_index:]
        return fit_power_law_factors(self.sizes[first_index:], fitted_errors, sizes, min_limits)

    def _extrapolate_from_reference(self, reference: LearningCurve, sizes: Array) -> Array:
        """Compute the ratios of `extrapolate_factors` from ε² = ε_ref² + δ², with ε_ref of the reference level.

        δ² is the mean of ε² - ε_ref² over the `MIN_FITTED_SIZES` largest measured sizes. If the label error is known,
        δ is limited to the range from `min_learned_share` of this error to the whole error.
        """
        differences = self.bootstrap_errors**2 - reference.bootstrap_errors**2
        learned_square = differences[:, -MIN_FITTED_SIZES:].mean(axis=1).clip(min=0.0)
        min_ratio = np.zeros(N_REPLICAS)  # with a label error: its learned part, below which the error cannot fall
        if self.label_error is not None:
            min_learned = self.min_learned_share * self.label_error
            min_ratio += (min_learned / self.bootstrap_errors[:, -1]).clip(max=1.0)
            learned_square = learned_square.clip(min_learned**2, self.label_error**2)
        last_errors = reference.bootstrap_errors[:, -1]
        reference_errors = last_errors[:, None] * reference.extrapolate_factors(sizes)
        squares, last_squares = reference_errors**2 + learned_square[:, None], last_errors**2 + learned_square
        return np.asarray(np.maximum(np.sqrt(squares / last_squares[:, None]), min_ratio[:, None]))


@cache
def _draw_positions(n: int) -> NDArray[np.int_]:
    """Draw positions from 0 to n - 1 with replacement for each bootstrap replica, ``(N_REPLICAS, n)`` int.

    The seed is fixed, so that plans are reproducible and the replicas of all settings are paired. The cached array is
    shared by all calls and must not be modified.
    """
    return (np.random.default_rng(0).random((N_REPLICAS, n)) * n).astype(int)


def fit_power_law_factors(measured_sizes: Array, errors: Array, sizes: Array, min_limits: Array) -> Array:
    """Fit ε(n) = ε∞ + A n^(-α) with a lower bound of ε∞ and A ≥ 0 to each curve, and return ε(n)/ε(n_k).

    The sum of the squared relative deviations is minimised; α is the best of `EXPONENTS`.

    Parameters
    ----------
    measured_sizes : (k,) float
        Measured sizes in ascending order, the last one being n_k.
    errors : (b, k) float
        Errors at these sizes, a row for each curve.
    sizes : (m,) float
        Sizes n.
    min_limits : (b,) float
        Lower bound of ε∞ for each curve; the smallest error of the curve is used instead if it is lower.

    Returns
    -------
    (b, m) float64
        The ratio ε(n)/ε(n_k) of each fitted curve, at least the bound of ε∞ divided by the error measured at n_k.
    """
    min_limits = np.minimum(min_limits, errors.min(axis=1))
    best_misfit = np.full(len(errors), np.inf)
    best_exponent, best_limit, best_slope = np.zeros(len(errors)), np.ones(len(errors)), np.zeros(len(errors))
    for exponent in EXPONENTS:
        # The fit is to ε/ε_measured, so that deviations are relative; `excess` is ε∞ above its bound, and `slope` is
        # A n_k^(-α).
        decay = (measured_sizes / measured_sizes[-1]) ** -exponent
        excess, slope, misfit = _fit_two_coefficients(1.0 / errors, decay / errors, 1.0 - min_limits[:, None] / errors)
        is_better = misfit < best_misfit
        best_misfit = np.minimum(best_misfit, misfit)
        best_exponent[is_better] = exponent
        best_limit[is_better], best_slope[is_better] = (min_limits + excess)[is_better], slope[is_better]
    curves = best_limit[:, None] + best_slope[:, None] * (sizes / measured_sizes[-1]) ** -best_exponent[:, None]
    factors = np.maximum(curves / (best_limit + best_slope)[:, None], (min_limits / errors[:, -1])[:, None])
    return np.asarray(factors)


def _fit_two_coefficients(constant: Array, decay: Array, target: Array) -> tuple[Array, Array, Array]:
    """Minimise |offset · constant + slope · decay - target|² for each row, with offset, slope ≥ 0.

    Parameters
    ----------
    constant, decay, target : (b, k) float

    Returns
    -------
    offset, slope, misfit : (b,) float64
        Both coefficients, and the minimum.
    """
    # Dot products of the vectors c (constant), d (decay) and t (target), from which the normal equations follow.
    cc, dd, cd = (constant * constant).sum(axis=1), (decay * decay).sum(axis=1), (constant * decay).sum(axis=1)
    ct, dt = (constant * target).sum(axis=1), (decay * target).sum(axis=1)
    determinant = np.maximum(cc * dd - cd**2, 1e-300)  # avoids a division by zero if the vectors are parallel
    offset, slope = (ct * dd - dt * cd) / determinant, (dt * cc - ct * cd) / determinant
    # A negative coefficient is set to zero, and the other one is fitted alone.
    offset, slope = np.where(slope < 0, np.maximum(ct / cc, 0.0), offset), np.where(slope < 0, 0.0, slope)
    offset, slope = np.where(offset < 0, 0.0, offset), np.where(offset < 0, np.maximum(dt / dd, 0.0), slope)
    misfit = ((offset[:, None] * constant + slope[:, None] * decay - target) ** 2).sum(axis=1)
    return offset, slope, misfit
