"""Choosing configurations by their descriptors alone: a determinant that grows fastest, or the farthest point.

Both take account of what is there already, and choose one after the other, so that a smaller choice is a prefix of
a larger one.
"""

import numpy as np
import scipy.linalg

from paretofit.core import Array, InputError
from paretofit.linear.factor import column_scales

RELATIVE_PRIOR_RIDGE = 1e-6  # ridge, in units of the mean square of a scaled column


def select_d_optimal(rows: Array, n: int, existing_rows: Array | None = None) -> tuple[Array, Array]:
    """Choose rows one by one, each the one that raises log det(XᵀX) most.

    Parameters
    ----------
    rows : (n_candidates, p) float64
        A row of features for each candidate.
    n : int
    existing_rows : (n_given, p) float64, optional
        Rows that are in XᵀX already.

    Returns
    -------
    chosen : (n,) int64
        Positions in the order chosen.
    gains : (n,) float64
        By how much each raised log det(XᵀX + λ); they never grow.

    Raises
    ------
    InputError
        If `n` is out of range, or the rows are not finite or of different widths.

    Notes
    -----
    det(Λ + X_SᵀX_S) = det Λ · det(1 + W_S W_Sᵀ) with W = X Λ^{-1/2}, so this is the greedy maximisation of a
    determinant of a kernel matrix, with one new row of its Cholesky factor in each step: O(n_candidates · n) in
    memory and O(n_candidates · n²) in time (L. Chen, G. Zhang and E. Zhou, NeurIPS 2018).
    """
    candidates, there = _checked(rows, n, existing_rows)
    scale = column_scales(np.vstack([candidates, there]))
    whitened = candidates / scale
    prior = there / scale
    moments = prior.T @ prior + RELATIVE_PRIOR_RIDGE * np.eye(len(scale)) * max(1.0, len(candidates) / len(scale))
    factor = np.linalg.cholesky(moments)
    whitened = scipy.linalg.solve_triangular(factor, whitened.T, lower=True, check_finite=False).T
    left = 1.0 + np.einsum("ij,ij->i", whitened, whitened)
    steps = np.empty((n, len(candidates)))
    chosen, gains = np.empty(n, dtype=np.int64), np.empty(n)
    for k in range(n):
        best = int(np.argmax(left))
        chosen[k], gains[k] = best, np.log(max(left[best], 1.0))
        row = whitened @ whitened[best] - steps[:k].T @ steps[:k, best]
        row[best] += 1.0
        steps[k] = row / np.sqrt(left[best])
        left -= steps[k] ** 2
        left[chosen[: k + 1]] = -np.inf
    return chosen, gains


def select_farthest_points(points: Array, n: int, existing_points: Array | None = None) -> tuple[Array, Array]:
    """Choose points one by one, each the farthest from all that are chosen or given.

    Parameters
    ----------
    points : (n_candidates, p) float64
        Scaled by their standard deviations before distances are taken.
    n : int
    existing_points : (n_given, p) float64, optional
        Without, the first is the point farthest from the mean.

    Returns
    -------
    chosen : (n,) int64
    distances : (n,) float64
        Of each to its nearest among those before it, in standard deviations; they never grow.

    Raises
    ------
    InputError
        As `select_d_optimal`.
    """
    candidates, there = _checked(points, n, existing_points)
    everything = np.vstack([candidates, there])
    spread = everything.std(axis=0)
    kept = spread > 1e-12 * np.abs(everything).max(axis=0, initial=1e-300)
    scaled = (candidates - everything.mean(axis=0))[:, kept] / spread[kept]
    known = (there - everything.mean(axis=0))[:, kept] / spread[kept]
    nearest = np.linalg.norm(scaled, axis=1) if not len(known) else _nearest(scaled, known)
    chosen, distances = np.empty(n, dtype=np.int64), np.empty(n)
    for k in range(n):
        best = int(np.argmax(nearest))
        chosen[k], distances[k] = best, nearest[best]
        away = np.linalg.norm(scaled - scaled[best], axis=1)
        nearest = away if k == 0 and not len(known) else np.minimum(nearest, away)
        nearest[chosen[: k + 1]] = -1.0
    return chosen, distances


def _nearest(points: Array, others: Array) -> Array:
    nearest = np.full(len(points), np.inf)
    for other in others:
        np.minimum(nearest, np.linalg.norm(points - other, axis=1), out=nearest)
    return nearest


def _checked(rows: Array, n: int, given: Array | None) -> tuple[Array, Array]:
    candidates = np.asarray(rows, dtype=np.float64)
    there = np.empty((0, candidates.shape[-1])) if given is None else np.asarray(given, dtype=np.float64)
    if candidates.ndim != 2 or there.ndim != 2 or candidates.shape[1] != there.shape[1]:
        raise InputError(
            f"rows must have the shape (n, p), and so must given ones; got {candidates.shape}, {there.shape}"
        )
    if not (np.isfinite(candidates).all() and np.isfinite(there).all()):
        raise InputError("rows must be finite")
    if not 1 <= n <= len(candidates):
        raise InputError(f"n must be at least 1 and at most the number of candidates, {len(candidates)}; got {n}")
    return candidates, there
