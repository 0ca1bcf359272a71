"""Selection of configurations by their descriptors alone: greedy D-optimality and farthest-point sampling.

Both account for configurations that exist already, and select one row after the other, so that a smaller selection is a
prefix of a larger one.
"""

import numpy as np
import scipy.linalg

from paretofit.core import Array, InputError
from paretofit.linear.factor import compute_column_scales

RELATIVE_PRIOR_RIDGE = 1e-6  # λ / max(1, n_candidates / p), in columns of unit norm
MIN_RELATIVE_SPREAD = 1e-12  # a column with a smaller ratio of standard deviation to largest value is constant


def select_d_optimal(rows: Array, n: int, existing_rows: Array | None = None) -> tuple[Array, Array]:
    """Select rows one by one; each step takes the row that increases log det(XᵀX + λ) the most.

    X are the existing and the selected rows with columns scaled to unit norm; the small ridge λ makes the determinant
    positive for fewer rows than columns.

    Parameters
    ----------
    rows : (n_candidates, p) float64
        A row of features for each candidate.
    n : int
        Number of rows to select.
    existing_rows : (n_existing, p) float64, optional
        Rows that are part of X from the start; none by default.

    Returns
    -------
    positions : (n,) int64
        Positions of the selected candidates, in the order of selection.
    gains : (n,) float64
        Increase of log det(XᵀX + λ) by each selected row; descending.

    Raises
    ------
    InputError
        If `n` is out of range, or the rows are not finite or of different widths.

    Notes
    -----
    With Λ = XᵀX + λ of the existing rows, and the selected candidates X_S, det(Λ + X_SᵀX_S) = det Λ · det(1 + W_S W_Sᵀ)
    for W = X Λ^{-1/2}, so this is the greedy maximisation of the determinant of a kernel matrix, with one new row of
    its Cholesky factor in each step: O(n_candidates · n) in memory and O(n_candidates · n²) in time (L. Chen, G. Zhang
    and E. Zhou, NeurIPS 2018).
    """
    candidates, existing_array = _validate_rows(rows, n, existing_rows)
    scale = compute_column_scales(np.vstack([candidates, existing_array]))
    scaled_existing = existing_array / scale
    moments = scaled_existing.T @ scaled_existing + RELATIVE_PRIOR_RIDGE * np.eye(len(scale)) * max(
        1.0, len(candidates) / len(scale)
    )
    factor = np.linalg.cholesky(moments)
    whitened_rows = scipy.linalg.solve_triangular(factor, (candidates / scale).T, lower=True, check_finite=False).T
    pivots = 1.0 + np.einsum("ij,ij->i", whitened_rows, whitened_rows)
    factor_rows = np.empty((n, len(candidates)))
    positions, gains = np.empty(n, dtype=np.int64), np.empty(n)
    for k in range(n):
        position = int(np.argmax(pivots))
        positions[k], gains[k] = position, np.log(max(pivots[position], 1.0))  # pivots are below 1 only by rounding
        kernel_row = whitened_rows @ whitened_rows[position] - factor_rows[:k].T @ factor_rows[:k, position]
        kernel_row[position] += 1.0
        factor_rows[k] = kernel_row / np.sqrt(pivots[position])
        pivots -= factor_rows[k] ** 2
        pivots[positions[: k + 1]] = -np.inf
    return positions, gains


def select_farthest_points(points: Array, n: int, existing_points: Array | None = None) -> tuple[Array, Array]:
    """Select points one by one; each step takes the point farthest from its nearest selected or existing point.

    Parameters
    ----------
    points : (n_candidates, p) float64
        Features of the candidates. Before distances are computed, each column is divided by its standard deviation over
        all points; constant columns are ignored.
    n : int
        Number of points to select.
    existing_points : (n_existing, p) float64, optional
        Points that exist already; without them, the first selected point is the one farthest from the mean.

    Returns
    -------
    positions : (n,) int64
        Positions of the selected candidates, in the order of selection.
    distances : (n,) float64
        Distance of each selected point to the nearest existing or earlier selected point, in standard deviations;
        descending, except that without existing points the first distance is that to the mean.

    Raises
    ------
    InputError
        As in `select_d_optimal`.
    """
    candidates, existing_array = _validate_rows(points, n, existing_points)
    all_points = np.vstack([candidates, existing_array])
    mean, spread = all_points.mean(axis=0), all_points.std(axis=0)
    is_varying = spread > MIN_RELATIVE_SPREAD * np.abs(all_points).max(axis=0)
    scaled_candidates, scaled_existing = (
        (array - mean)[:, is_varying] / spread[is_varying] for array in (candidates, existing_array)
    )
    min_distances = np.full(len(scaled_candidates), np.inf)
    for point in scaled_existing:
        np.minimum(min_distances, np.linalg.norm(scaled_candidates - point, axis=1), out=min_distances)
    positions, distances = np.empty(n, dtype=np.int64), np.empty(n)
    for k in range(n):
        is_start = k == 0 and not len(scaled_existing)
        candidate_distances = np.linalg.norm(scaled_candidates, axis=1) if is_start else min_distances
        position = int(np.argmax(candidate_distances))
        positions[k], distances[k] = position, candidate_distances[position]
        np.minimum(
            min_distances, np.linalg.norm(scaled_candidates - scaled_candidates[position], axis=1), out=min_distances
        )
        min_distances[positions[: k + 1]] = -1.0  # no point is selected twice
    return positions, distances


def _validate_rows(rows: Array, n: int, existing_rows: Array | None) -> tuple[Array, Array]:
    """Validate the input of a selection; return the candidates and the existing rows, ``(0, p)`` if there are none."""
    candidates = np.asarray(rows, dtype=np.float64)
    existing_array = np.asarray(
        np.empty((0, candidates.shape[-1])) if existing_rows is None else existing_rows, np.float64
    )
    if candidates.ndim != 2 or existing_array.ndim != 2 or candidates.shape[1] != existing_array.shape[1]:
        raise InputError(
            f"the rows and the existing rows must have the shape (n, p) with the same p; got {candidates.shape} and "
            f"{existing_array.shape}"
        )
    if not (np.isfinite(candidates).all() and np.isfinite(existing_array).all()):
        raise InputError("the rows must be finite")
    if not 1 <= n <= len(candidates):
        raise InputError(f"n must be at least 1 and at most the number of candidates, {len(candidates)}; got {n}")
    return candidates, existing_array
