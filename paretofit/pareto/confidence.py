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
# Degrees of freedom of the variance that is expected from bootstrap samples and repetitions, relative to the variance
# between splits, which has one for each split.
EXPECTED_VARIANCE_DEGREES = 5.0


def estimate_intervals(errors: Array, repetitions: Sequence[Array], coverage: float = INTERVAL_COVERAGE) -> Array:
    """Estimate prediction intervals of the errors that a new train/test split and a new draw will have.

    The logarithm of an error has a normal distribution over splits and draws. Its variance is estimated from one fit in
    each split, s², and, because splits are few, moderated by the variance σ₀² that is expected from bootstrap samples
    of the test sets and from repeated draws (G. K. Smyth, Stat. Appl. Genet. Mol. Biol. 3, 3 (2004)):

        σ² = (ν₀ σ₀² + ν s²) / (ν₀ + ν),   x̄ ± t_{ν₀+ν} σ (1 + 1/n)^½,

    with the mean x̄ over the n - 1 splits and the study's own split, which counts by the mean of its repetitions.

    Parameters
    ----------
    errors : (n_splits, n_samples, n_settings) float
    repetitions : sequence of n_settings arrays
        Errors of the repetitions of each setting in the study's own split.
    coverage : float
        Probability that the interval contains the error.

    Returns
    -------
    (2, n_settings) float64
        Lower and upper ends; their geometric mean is the expected error. NaN where an error is not finite or zero.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.asarray(errors, dtype=float))
        own = [np.log(np.asarray(values, dtype=float)) for values in repetitions]
        values = np.vstack([logs[:, 0], [float(np.mean(value)) for value in own]])
        n, degrees = len(values), len(values) - 1
        draw_variance = np.array([np.var(value, ddof=1) if len(value) > 1 else 0.0 for value in own])
        expected = logs[:, 1:].var(axis=1).mean(axis=0) + draw_variance
        variance = (EXPECTED_VARIANCE_DEGREES * expected + degrees * values.var(axis=0, ddof=1)) / (
            EXPECTED_VARIANCE_DEGREES + degrees
        )
        half_width = stats.t.ppf((1 + coverage) / 2, EXPECTED_VARIANCE_DEGREES + degrees) * np.sqrt(
            variance * (1 + 1 / n)
        )
        ends = np.exp(values.mean(axis=0) + np.array([-1.0, 1.0])[:, None] * half_width)
    return np.where(np.isfinite(ends) & (ends > 0), ends, np.nan)


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
    stacked = np.stack([values.reshape(-1, len(costs)) for values in objectives], axis=-1)
    counts = np.zeros(len(costs))
    for sample in stacked:
        points = np.column_stack([sample, costs]).astype(np.float64)
        is_finite = np.isfinite(points).all(axis=1)
        if is_finite.any():
            counts[is_finite] += moocore.is_nondominated(points[is_finite], keep_weakly=True)
    return counts / len(stacked)


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
