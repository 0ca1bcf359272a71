"""Confidence of errors, of their differences and of a front, from fits in several train/test splits.

An error that a study reports depends on the train/test split, on the draw of the training subset, and on the test
configurations. All functions get errors of the shape (n_splits, n_samples, n_settings): each setting was fitted once in
each split, and the samples are the test set of the split, first, and bootstrap samples of it. Settings of a split share
its sets, so that differences of settings are paired. Errors are positive and compared by their logarithms.
"""

from collections.abc import Sequence

import moocore
import numpy as np
from scipy import stats

from paretofit.core import Array

INTERVAL_COVERAGE = 0.9


def estimate_intervals(errors: Array, repetitions: Sequence[Array], coverage: float = INTERVAL_COVERAGE) -> Array:
    """Estimate prediction intervals of the errors that a new train/test split and a new draw will have.

    The logarithms x of the error in n - 1 splits and in the study's own split, where it is the mean over the
    repetitions, are a sample of a normal distribution. Its scatter s contains that of splits, draws and test sets, and
    the next value is in x̄ ± t_{n-1} s (1 + 1/n)^½ (G. J. Hahn and W. Q. Meeker, Statistical Intervals, Wiley, 1991,
    section 4.7). With bootstrap samples of test sets, the scatter of the test sets would count twice.

    Parameters
    ----------
    errors : (n_splits, n_samples, n_settings) float
        Of the samples, only the first is used.
    repetitions : sequence of n_settings arrays
        Errors of the repetitions of each setting in the study's own split.
    coverage : float
        Probability that the interval contains the error.

    Returns
    -------
    (2, n_settings) float64
        Lower and upper ends; their geometric mean is the expected error. NaN where an error is not finite or zero.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        study_split_means = [np.mean(np.log(np.asarray(values, dtype=float))) for values in repetitions]
        values = np.vstack([np.log(np.asarray(errors[:, 0], dtype=float)), study_split_means])
        n = len(values)
        half_width = stats.t.ppf((1 + coverage) / 2, n - 1) * np.sqrt(values.var(axis=0, ddof=1) * (1 + 1 / n))
        ends = np.exp(values.mean(axis=0) + np.array([-1.0, 1.0])[:, None] * half_width)
    return np.where((np.isfinite(ends) & (ends > 0)).all(axis=0), ends, np.nan)


def scale_intervals(ends: Array, n_splits: Array, coverage: float) -> Array:
    """Convert intervals of `estimate_intervals` with `INTERVAL_COVERAGE` to another coverage.

    Parameters
    ----------
    ends : (2, m) float
        Lower and upper ends.
    n_splits : (m,) float
        Number of further splits.
    coverage : float
        Probability of the new intervals.

    Returns
    -------
    (2, m) float64
    """
    ratio = stats.t.ppf((1 + coverage) / 2, n_splits) / stats.t.ppf((1 + INTERVAL_COVERAGE) / 2, n_splits)
    center = np.sqrt(ends[0] * ends[1])
    return np.asarray(center * (ends / center) ** ratio)


def compute_front_probabilities(objectives: Sequence[Array], costs: Array) -> Array:
    """Compute the share of samples in which each setting is on the front of some errors and the cost.

    Parameters
    ----------
    objectives : sequence of (n_splits, n_samples, n_settings) float
        Errors to minimise. Settings with an error that is not finite in a sample are not on its front.
    costs : (n_settings,) float

    Returns
    -------
    (n_settings,) float64
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
        They are broadcast against each other.

    Returns
    -------
    (...) float64
    """
    share: Array = ((first > second) + 0.5 * (first == second)).mean(axis=(0, 1))
    return share


def find_ties(objectives: Sequence[Array], coverage: float = INTERVAL_COVERAGE) -> Array:
    """Find the pairs of settings that paired bootstrap samples cannot tell apart in any error.

    Two settings are tied if the central interval of each error's paired difference contains zero.

    Parameters
    ----------
    objectives : sequence of (n_splits, n_samples, n_settings) float
    coverage : float
        Probability of the interval.

    Returns
    -------
    (n_settings, n_settings) bool
        Symmetric; false on the diagonal.
    """
    n = objectives[0].shape[-1]
    is_tied, margin = ~np.eye(n, dtype=bool), (1 - coverage) / 2
    for values in objectives:
        for k in range(n):
            share = compute_sign_shares(values, values[..., k : k + 1])
            is_tied[k] &= (share > margin) & (share < 1 - margin) & np.isfinite(values[..., k]).all()
    return is_tied & is_tied.T
