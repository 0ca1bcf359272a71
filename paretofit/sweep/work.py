"""Work of a sweep in floating point operations, for estimates of its duration; results do not depend on it.

The prefactors reproduce the CPU time of studies of Be, Mo and InP with 21 to 1,596 columns; those of fits to fewer rows
than columns were counted from the operations of the factors. Durations on other processors follow from the measured
speed of their linear algebra. In the comments, n is the number of rows and P that of columns.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

ROW_FLOPS_PER_COLUMN = 60.0  # number of operations that take as long as reading a number of the design from the disk
REDUCTION_PASSES = 3.0  # number of products of all rows with a (P, P) matrix: Gram matrices, whitening, leverage
FOLD_FLOPS = 3.3  # multiple of n P² for the triangle of n rows, which is slower than a matrix product
WEIGH_FLOPS = 1.0  # multiple of P³ for the triangle of all 2Jmax at one pair of weights
SOLVE_FLOPS = 40.0  # multiple of P² for the fit of one level and its errors
WIDE_FLOPS = 7.0  # multiple of n² P for the factor of n rows < P columns
WIDE_WEIGHT_FLOPS = 0.5  # multiple of n³ for each pair of weights with this factor
ROW_FIT_FLOPS = 8.0  # multiple of n P min(n, P) for a fit from n rows: factorisations are slower than products
# numbers of folded triangles, each 2 P³ operations, of a training set and of each of its pairs of weights
MIXTURE_FOLDED_TRIANGLES, MIXTURE_FOLDED_TRIANGLES_PER_WEIGHT = 4.0, 2.0
MIN_FIT_FLOPS = 4e7  # number of operations in about a millisecond, which a fit of any size takes at least


def count_reduction_flops(n_rows: int, n_columns: int) -> float:
    """Count the operations of the reduction of all rows."""
    # The term in P³ is that of the triangles and R₀, whatever the number of rows.
    return n_rows * n_columns * (2 * REDUCTION_PASSES * n_columns + ROW_FLOPS_PER_COLUMN) + 10.0 * n_columns**3


def count_chain_flops(
    n_rows: Sequence[int],
    n_weights: Sequence[int],
    n_columns: Sequence[int],
    n_levels: int,
    *,
    is_whole_training_set: bool,
) -> float:
    """Count the operations of the fits to the nested subsets of one draw.

    Parameters
    ----------
    n_rows : sequence of int
        Rows of each subset, ascending.
    n_weights : sequence of int
        Pairs of weights to be fitted to each subset.
    n_columns : sequence of int
        Columns of each 2Jmax.
    n_levels : int
    is_whole_training_set : bool
        Whether the only subset is the whole training set, whose factors are known.
    """
    p = max(n_columns)
    total = 0.0 if is_whole_training_set else max(n_rows, default=0) * p * (FOLD_FLOPS * p + ROW_FLOPS_PER_COLUMN)
    for n, n_pairs in zip(n_rows, n_weights, strict=True):
        total += n_pairs * WEIGH_FLOPS * p**3
        total += n_pairs * len(n_columns) * n_levels * (MIN_FIT_FLOPS + SOLVE_FLOPS * p**2)
        wide_sizes = [size for size in n_columns if size > n and n_pairs]
        total += sum(WIDE_FLOPS * n**2 * size + n_pairs * WIDE_WEIGHT_FLOPS * n**3 for size in wide_sizes)
    return total


def count_mixture_flops(n_training_sets: int, n_weights: int, n_columns: Sequence[int]) -> float:
    """Count the operations of the fits of mixtures: the folding of triangles of P columns, and the solutions.

    P is the largest of `n_columns`.

    Parameters
    ----------
    n_training_sets : int
    n_weights : int
        Number of pairs of weights, summed over the training sets.
    n_columns : sequence of int
        Columns of each 2Jmax.
    """
    p = float(max(n_columns))
    n_folded_triangles = MIXTURE_FOLDED_TRIANGLES * n_training_sets + MIXTURE_FOLDED_TRIANGLES_PER_WEIGHT * n_weights
    return 2 * n_folded_triangles * p**3 + n_weights * len(n_columns) * (MIN_FIT_FLOPS + SOLVE_FLOPS * p**2)


def count_row_fit_flops(n_rows: int, n_columns: int, n_models: int, n_levels: int, n_test_rows: int) -> float:
    """Estimate the work of the fits of one 2Jmax to one subset in the plain engine, in floating point operations.

    Parameters
    ----------
    n_rows, n_columns : int
        Rows of the subset, and columns of the 2Jmax.
    n_models : int
        Number of models of the 2Jmax, which differ in their pair of weights or in their ridge.
    n_levels : int
        Number of levels, all of which share the factorisation of a model.
    n_test_rows : int
    """
    smaller_dimension = min(n_rows, n_columns)
    reading_flops = (n_rows + n_test_rows) * n_columns * ROW_FLOPS_PER_COLUMN
    flops_per_model = ROW_FIT_FLOPS * n_rows * n_columns * smaller_dimension + 2.0 * n_levels * n_test_rows * n_columns
    return reading_flops + n_models * (flops_per_model + n_levels * MIN_FIT_FLOPS)


def measure_flop_rate(size: int = 700) -> float:
    """Measure the operations per second of CPU time in products of matrices, in about 0.1 s on one thread."""
    matrix = np.random.default_rng(1).random((size, size))
    with threadpool_limits(1):
        matrix @ matrix  # loads the library
        start_s = time.process_time()
        for _ in range(3):
            matrix @ matrix
        return 3 * 2.0 * size**3 / max(time.process_time() - start_s, 1e-6)  # a coarse clock may show no time
