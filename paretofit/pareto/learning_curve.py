"""Learning curves: the error of a setting at any number of configurations, from the sizes at which it was measured.

Between measured sizes the curve is straight in log(error) against log(n). Beyond the largest, at the reference level,
it follows ε(n) = ε∞ + A n^(-α), with ε∞ at least the training error there, which rises towards it. At a cheaper level,
ε(n)² = ε_ref(n)² + δ², where δ, what a model learns of the error of the level's labels, stays what it was, and lies
between a share of that error and all of it where that is known. How far this can be trusted comes from drawing the
repetitions anew, and from an allowance for the form of the curve. Nothing here knows atoms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EXPONENTS = np.array([0.35, 0.5, 0.7, 1.0])  # α of errors; 1/2 where squared errors fall as 1/n
REPLICAS = 100  # of a curve, from repetitions drawn anew
TAIL = 5  # sizes, at most, to which the curve beyond is fitted
FEWEST = 3  # sizes below which nothing beyond the largest can be said
LOW, HIGH = 0.1, 0.9  # quantiles of the spread
Z = 1.2816  # half width of the interval between them, in standard deviations of a normal distribution
# Relative error of the form of the curve, times the root of 1 + ln(n/n_k). With it nine of ten errors of what is
# recommended from pilots of 40 lie within the range foretold (shipped data; tests/benchmarks/RESULTS.md), and fewer of
# those of other settings.
FORM = 0.25
# The largest exponent that is promised: where hardly more rows than coefficients have been seen (not in folds, which
# have a ridge), errors fall from a peak, and would be foretold to fall on.
STEEPEST = {False: 0.5, True: 1.0}
LEARNED = (
    0.5  # share, at least, of a level's error that a model of it learns; 0.2 to 0.95 in the paper's Tables 4 and 5
)


@dataclass(frozen=True)
class Estimates:
    """Errors at some sizes, in the unit of the curve.

    Attributes
    ----------
    value : (m,) float
        What the middle one of many draws would have.
    low, high : (m,) float
        Between which four draws of five would lie.
    is_extrapolated : (m,) bool
        Larger than any size that was measured.
    """

    value: Array
    low: Array
    high: Array
    is_extrapolated: NDArray[np.bool_]


@dataclass(frozen=True)
class LearningCurve:
    """The errors of one setting by number of configurations.

    Attributes
    ----------
    sizes : (k,) float
        Increasing.
    errors : tuple of k arrays
        Errors of the repetitions at each size, positive; where there are equally many at every size, the same place
        means the same repetition.
    has_folds : bool
        The repetitions are parts of one test set, as in cross-validation: the error is their root mean square, and what
        is unsure about it comes from drawing the parts anew.
    training_errors : array, optional
        Training errors of the repetitions at the largest size, for a curve of the reference level.
    reference_curve : LearningCurve, optional
        The same setting at the reference level, for one of a cheaper level.
    label_error : float, optional
        RMSD of the labels of a cheaper level against those of the reference.
    min_learned_share : float
        Share, at least, of that error which a model of the level learns.
    """

    sizes: Array
    errors: tuple[Array, ...]
    has_folds: bool = False
    training_errors: Array | None = None
    reference_curve: LearningCurve | None = None
    label_error: float | None = None
    min_learned_share: float = 0.5

    @cached_property
    def central_errors(self) -> Array:
        """``(k,)``: the median of the repetitions, or the root mean square of the folds."""
        return np.array([self._middle(one) for one in self.errors])

    @cached_property
    def bootstrap_errors(self) -> Array:
        """``(REPLICAS, k)``: the middles of repetitions drawn anew, the same ones at every size."""
        return np.column_stack([self._drawn_middles(one) for one in self.errors])

    def _middle(self, errors: Array, axis: int | None = None) -> Array:
        return np.asarray(np.sqrt(np.mean(errors**2, axis=axis)) if self.has_folds else np.median(errors, axis=axis))

    def _drawn_middles(self, errors: Array) -> Array:
        """``(REPLICAS,)``; the generator is always the same, so that a table always gives the same plan."""
        places = np.random.default_rng(0).random((REPLICAS, len(errors))) * len(errors)
        return self._middle(errors[places.astype(int)], axis=1)

    @cached_property
    def relative_quantiles(self) -> tuple[Array, Array]:
        """10 % and 90 % quantiles over the middle, each ``(k,)``.

        Where every repetition is the same fit, as with the whole training set, the spread is that of the size before,
        smaller by the root of the ratio of the sizes; NaN where there is none before.
        """
        low, high = np.full((2, len(self.sizes)), np.nan)
        drawn = self.bootstrap_errors.T if self.has_folds else self.errors
        for k, (errors, middle) in enumerate(zip(drawn, self.central_errors, strict=True)):
            if len(np.unique(errors)) > 1:
                low[k], high[k] = np.quantile(errors, [LOW, HIGH]) / middle
            elif k:
                shrink = np.sqrt(self.sizes[k - 1] / self.sizes[k])
                low[k], high[k] = low[k - 1] ** shrink, high[k - 1] ** shrink
        return low, high

    def predict(self, sizes: Array) -> Estimates:
        """The errors to be expected with other numbers of configurations, ``(m,)``, none below the smallest."""
        sizes = np.asarray(sizes, dtype=float)
        here = np.log(np.minimum(sizes, self.sizes[-1]))
        known = np.log(self.sizes)
        value, low, high = (
            np.exp(np.interp(here, known, np.log(one))) for one in (self.central_errors, *self.relative_quantiles)
        )
        below, above = value * low, value * high
        beyond = sizes > self.sizes[-1]
        if beyond.any():
            factors = np.log(self.extrapolate_factors(sizes[beyond]))
            steepest = -STEEPEST[self.has_folds] * np.log(sizes[beyond] / self.sizes[-1])
            value[beyond] *= np.exp(np.maximum(np.median(factors, axis=0), steepest))
            form = FORM * np.sqrt(1 + np.log(sizes[beyond] / self.sizes[-1]))
            doubt = Z * np.hypot(np.std(factors, axis=0), form)
            low, high = np.where(np.isnan(low), 1.0, low), np.where(np.isnan(high), 1.0, high)
            for bound, spread, sign in ((below, low, -1.0), (above, high, 1.0)):
                bound[beyond] = value[beyond] * np.exp(sign * np.hypot(np.log(spread[beyond]), doubt))
        return Estimates(value, below, above, beyond)

    def extrapolate_factors(self, sizes: Array) -> Array:
        """By how much errors change from the largest measured size to larger ones, ``(REPLICAS, m)``."""
        if self.reference_curve is not None and np.array_equal(self.reference_curve.sizes, self.sizes):
            return self._factors_by_reference(self.reference_curve, sizes)
        start = int(np.argmax(self.central_errors))  # small subsets of rich models first get worse
        first = max(start, len(self.sizes) - TAIL)
        if len(self.sizes) - first < FEWEST:  # no slope to go on: no gain is promised
            return np.ones((REPLICAS, len(sizes)))
        floors = np.zeros(REPLICAS) if self.training_errors is None else self._drawn_middles(self.training_errors)
        return power_law_factors(self.sizes[first:], self.bootstrap_errors[:, first:], sizes, floors)

    def _factors_by_reference(self, reference: LearningCurve, sizes: Array) -> Array:
        """ε² = ε_ref² + δ², with δ² from the last sizes that were measured."""
        last = slice(-FEWEST, None)
        added = (
            (self.bootstrap_errors[:, last] ** 2 - reference.bootstrap_errors[:, last] ** 2).mean(axis=1).clip(min=0.0)
        )
        least = np.zeros(REPLICAS)
        if self.label_error is not None:
            least += (self.min_learned_share * self.label_error / self.bootstrap_errors[:, -1]).clip(max=1.0)
            added = added.clip((self.min_learned_share * self.label_error) ** 2, self.label_error**2)
        start = reference.bootstrap_errors[:, -1]
        later = start[:, None] * reference.extrapolate_factors(sizes)
        ratio = np.sqrt((later**2 + added[:, None]) / (start**2 + added)[:, None])
        return np.asarray(np.maximum(ratio, least[:, None]))


def power_law_factors(measured_sizes: Array, errors: Array, sizes: Array, min_limits: Array) -> Array:
    """ε(n)/ε(n_k) of the curve ε∞ + A n^(-α) that fits best, with ε∞ at least a floor and A at least zero.

    Least squares of relative deviations; α from `EXPONENTS`.

    Parameters
    ----------
    measured_sizes : (k,) float
        Sizes that were measured, the last being n_k.
    errors : (b, k) float
        Errors there, a row for each curve.
    sizes : (m,) float
        Sizes n.
    min_limits : (b,) float
        Least ε∞; taken as the smallest error where it is larger.

    Returns
    -------
    (b, m) float
    """
    min_limits = np.minimum(min_limits, errors.min(axis=1))
    best = np.full(len(errors), np.inf)
    factors = np.ones((len(errors), len(sizes)))
    for exponent in EXPONENTS:
        decay = (measured_sizes / measured_sizes[-1]) ** -exponent
        above, slope, misfit = _two_coefficients(1.0 / errors, decay / errors, 1.0 - min_limits[:, None] / errors)
        limit = min_limits + above
        curve = limit[:, None] + slope[:, None] * (sizes / measured_sizes[-1]) ** -exponent
        better = misfit < best
        factors[better] = (curve / (limit + slope)[:, None])[better]
        best = np.minimum(best, misfit)
    return np.maximum(factors, (min_limits / errors[:, -1])[:, None])


def _two_coefficients(constant: Array, decay: Array, target: Array) -> tuple[Array, Array, Array]:
    """Least squares of ``a constant + s decay = target`` for each row, a and s at least zero; and the misfit."""
    cc, dd, cd = ((one * other).sum(axis=1) for one, other in ((constant, constant), (decay, decay), (constant, decay)))
    ct, dt = (constant * target).sum(axis=1), (decay * target).sum(axis=1)
    determinant = np.maximum(cc * dd - cd**2, 1e-300)
    above, slope = (ct * dd - dt * cd) / determinant, (dt * cc - ct * cd) / determinant
    only_above, only_slope = np.maximum(ct / cc, 0.0), np.maximum(dt / dd, 0.0)
    above, slope = np.where(slope < 0, only_above, above), np.where(slope < 0, 0.0, slope)
    above, slope = np.where(above < 0, 0.0, above), np.where(above < 0, only_slope, slope)
    misfit = ((above[:, None] * constant + slope[:, None] * decay - target) ** 2).sum(axis=1)
    return above, slope, misfit
