"""Confidence of errors, of their differences and of a front, from fits in several train/test splits.

An error that a study reports depends on the train/test split, on the draw of the training subset, and on the test
configurations. Arrays of errors have the shape (n_splits, n_samples, n_settings): each setting was fitted once in each
split; the first sample is the test set of the split, and the others are bootstrap samples of this test set. All
settings of a split share its training and test sets, so that the differences between settings are paired. Errors are
positive, and intervals are those of their logarithms.
"""

from collections.abc import Sequence

import moocore
import numpy as np
from scipy import stats

from paretofit.core import Array

INTERVAL_COVERAGE = 0.9  # default probability of intervals; that of the ``_low`` and ``_high`` columns of results


def estimate_intervals(errors: Array, repetitions: Sequence[Array], coverage: float = INTERVAL_COVERAGE) -> Array:
    """Estimate prediction intervals of the errors that a new train/test split and a new draw will have.

    The logarithms x of the errors in n - 1 further splits and in the study's own split (there the mean of the
    logarithms over the repetitions) are treated as a sample of a normal distribution. Its standard deviation s contains
    the scatter due to splits, draws and test sets, and the next value lies in x̄ ± t s (1 + 1/n)^½, where t is the
    quantile (1 + `coverage`)/2 of Student's t distribution with n - 1 degrees of freedom (G. J. Hahn and W. Q. Meeker,
    Statistical Intervals, Wiley, 1991, section 4.7). Bootstrap samples of the test sets are not used, because the
    scatter due to the test sets would then count twice.

    Parameters
    ----------
    errors : (n_splits, n_samples, n_settings) float
        Errors in the further splits; only the first sample of each split is used.
    repetitions : sequence of n_settings arrays, (n_repetitions,) float
        Errors of the repetitions of each setting in the study's own split.
    coverage : float
        Probability that the interval contains the error.

    Returns
    -------
    (2, n_settings) float64
        Lower and upper ends, in the unit of the errors; their geometric mean is the expected error. NaN for a setting
        with an error that is zero or not finite.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        study_split_means = [np.mean(np.log(np.asarray(values, dtype=float))) for values in repetitions]
        x = np.vstack([np.log(np.asarray(errors[:, 0], dtype=float)), study_split_means])
        n = len(x)
        half_width = stats.t.ppf((1 + coverage) / 2, n - 1) * np.sqrt(x.var(axis=0, ddof=1) * (1 + 1 / n))
        ends = np.exp(x.mean(axis=0) + np.array([-1.0, 1.0])[:, None] * half_width)
    return np.where((np.isfinite(ends) & (ends > 0)).all(axis=0), ends, np.nan)


def scale_intervals(ends: Array, n_splits: Array, coverage: float) -> Array:
    """Convert intervals of `estimate_intervals` from the coverage `INTERVAL_COVERAGE` to another one.

    Parameters
    ----------
    ends : (2, m) float
        Lower and upper ends.
    n_splits : (m,) float
        Number of further splits of each interval, which is the number of degrees of freedom of its t distribution.
    coverage : float
        Probability of the new intervals.

    Returns
    -------
    (2, m) float64
        Lower and upper ends of intervals with the same geometric mean.
    """
    ratio = stats.t.ppf((1 + coverage) / 2, n_splits) / stats.t.ppf((1 + INTERVAL_COVERAGE) / 2, n_splits)
    center = np.sqrt(ends[0] * ends[1])
    return np.asarray(center * (ends / center) ** ratio)


def compute_front_probabilities(objectives: Sequence[Array], costs: Array) -> Array:
    """Compute the share of samples in which each setting is on the Pareto front of the errors and the cost.

    Parameters
    ----------
    objectives : sequence of (n_splits, n_samples, n_settings) float
        Errors to minimise. A setting with an error that is not finite in a sample is not on the front of this sample.
    costs : (n_settings,) float
        Cost to minimise, in any unit; the same in all samples.

    Returns
    -------
    (n_settings,) float64
        Shares from 0 to 1. Settings with equal errors and costs are on the front together.
    """
    sampled_errors = np.stack([values.reshape(-1, len(costs)) for values in objectives], axis=-1)
    counts = np.zeros(len(costs))
    for sample in sampled_errors:
        points = np.column_stack([sample, costs]).astype(np.float64)
        is_finite = np.isfinite(points).all(axis=1)
        if is_finite.any():
            counts[is_finite] += moocore.is_nondominated(points[is_finite], keep_weakly=True)
    return counts / len(sampled_errors)


def compute_sign_shares(first: Array, second: Array) -> Array:
    """Compute the share of paired samples in which the first error is the larger one; equal errors count half.

    Parameters
    ----------
    first, second : (n_splits, n_samples, ...) float
        Errors, which are broadcast against each other. A sample with NaN counts as one in which the first error is not
        larger.

    Returns
    -------
    (...) float64
        Shares from 0 to 1.
    """
    share: Array = ((first > second) + 0.5 * (first == second)).mean(axis=(0, 1))
    return share


def find_ties(objectives: Sequence[Array], coverage: float = INTERVAL_COVERAGE) -> Array:
    """Find the pairs of settings that cannot be distinguished by any error in the paired samples.

    Two settings are tied if, for each error, the central interval of the paired differences contains zero.

    Parameters
    ----------
    objectives : sequence of (n_splits, n_samples, n_settings) float
        Errors of one kind each, such as energy errors and force errors.
    coverage : float
        Probability of the central interval.

    Returns
    -------
    (n_settings, n_settings) bool
        Symmetric; false on the diagonal, and for settings with an error that is not finite in some sample.
    """
    n_settings = objectives[0].shape[-1]
    is_tied, margin = ~np.eye(n_settings, dtype=bool), (1 - coverage) / 2
    for errors in objectives:
        for k in range(n_settings):
            share = compute_sign_shares(errors, errors[..., k : k + 1])
            is_tied[k] &= (share > margin) & (share < 1 - margin) & np.isfinite(errors[..., k]).all()
    return is_tied & is_tied.T  # row k is false if setting k has an error that is not finite; so must be column k
