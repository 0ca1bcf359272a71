"""Number of independent training rows, for comparison with the number of coefficients.

Not every row helps to determine coefficients. The steps of a relaxation are near-duplicates or have almost parallel
forces, and around a defect the forces of most atoms are almost zero: such configurations determine far fewer
coefficients than they have rows.
"""

import numpy as np

from paretofit.core import Array
from paretofit.dataset import Dataset
from paretofit.structures import group_configurations
from paretofit.study.schema import Study

MIN_FORCE = 1e-6  # eV/Å; forces that are zero by symmetry have rows of zeros
GAUSSIAN_KURTOSIS = 3.0  # <f⁴> / <f²>² of normally distributed f


def count_independent_rows(dataset: Dataset, train: Array, level: str) -> int:
    """Estimate how many training rows can determine coefficients: energies, and independent force components.

    Of near-duplicates, only the first configuration counts. Of n nonzero force components f_i of a configuration,
    min(n, 3 (Σ f_i²)² / Σ f_i⁴) are independent: n if they are normally distributed, and fewer if only a few atoms have
    large forces. If m configurations have the same group (trajectory or parent) and number of atoms, m is replaced by
    m / (1 + (m - 1) ρ) (the effective sample size of clustered samples: L. Kish, Survey Sampling, Wiley, 1965). ρ is
    the mean squared cosine between their force vectors, corrected for 1/n, its value for random vectors.

    Parameters
    ----------
    dataset : Dataset
        Configurations that are labelled at `level`.
    train : (n_train,) int64
        Positions of the training configurations in `dataset`.
    level : str
        Level whose forces are counted.
    """
    groups = group_configurations(dataset, Study.model_fields["split"].default.group_by)
    duplicates = group_configurations(dataset, [])
    distinct_positions = train[np.unique(duplicates[train], return_index=True)[1]]
    labels, sizes = dataset.labels(level), dataset.n_atoms
    forces_by_group: dict[tuple[int, int], list[Array]] = {}
    for k in distinct_positions.tolist():
        begin, end = labels.offsets[k : k + 2]
        forces = labels.forces[begin:end].ravel()
        if (np.abs(forces) > MIN_FORCE).any():
            forces_by_group.setdefault((int(groups[k]), int(sizes[k])), []).append(forces)
    return len(distinct_positions) + int(sum(map(_count_components, forces_by_group.values())))


def _count_components(vectors: list[Array]) -> float:
    """Estimate the number of independent components of the force vectors, ``(n,)`` each, of one group."""
    forces = np.array(vectors)
    squares = (forces**2).sum(axis=1)
    n_nonzero = (np.abs(forces) > MIN_FORCE).sum(axis=1)
    counts = np.minimum(n_nonzero, GAUSSIAN_KURTOSIS * squares**2 / (forces**4).sum(axis=1))
    n_components, m = float(counts.mean()), len(forces)
    if m == 1:
        return n_components
    cosines = forces / np.sqrt(squares)[:, None]
    # both products have the same Frobenius norm; the smaller one is faster
    products = cosines @ cosines.T if m < forces.shape[1] else cosines.T @ cosines
    chance_level = 1 / max(n_components, 2.0)  # at most 1/2, because 1 - chance_level is a divisor
    mean_square = (float((products**2).sum()) - m) / (m * (m - 1))
    correlation = max(0.0, (mean_square - chance_level) / (1 - chance_level))
    return n_components * m / (1 + (m - 1) * correlation)
