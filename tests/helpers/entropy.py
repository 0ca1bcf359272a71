"""Entropy of a set of configurations with respect to random ones."""

import numpy as np

from paretofit.structures.entropy import RIDGE, DescriptorMoments


def compute_entropy_difference(values, random_values):
    """Compute the entropy of a set of configurations minus that of random configurations, to compare sets.

    Parameters
    ----------
    values, random_values : sequence of (N, K) float64
        Descriptors of the atoms of each configuration.
    """
    reference = np.concatenate(list(random_values))
    scale = np.maximum(reference.std(axis=0), 1e-12)
    ridge = RIDGE * np.eye(len(scale))
    entropy, random_entropy = (
        0.5 * np.linalg.slogdet(DescriptorMoments.from_descriptors(descriptors / scale).compute_covariance() + ridge)[1]
        for descriptors in (np.concatenate(list(values)), reference)
    )
    return float(entropy - random_entropy)
