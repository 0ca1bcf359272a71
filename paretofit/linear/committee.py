"""Committees of linear models from one factorisation: bootstrap, random subsets, posterior draws, and POPS.

Rows are whitened by the weighted fit of all of them; what a member needs then is a sum of block moments and a small
factorisation (DESIGN §4.11). Configurations, or families of relatives, are drawn in at most `BLOCKS` blocks, so that
the memory of the moments does not grow with the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.linalg

from paretofit.errors import InputError
from paretofit.linear.factor import column_scales

if TYPE_CHECKING:
    from paretofit.linear.factor import Array

BLOCKS = 100  # that are drawn; fewer where there are fewer groups
INDEPENDENT = 1e-10  # of the largest pivot: below, a column depends on others
METHODS = ("bootstrap", "subset", "posterior", "pops")
Method = Literal["bootstrap", "subset", "posterior", "pops"]


@dataclass(frozen=True)
class WhitenedFit:
    """A weighted fit of all rows, in coordinates where its normal matrix is the identity.

    Attributes
    ----------
    coefficients : (p,) float64
    U : (n, p) float64
        Weighted rows, whitened: UᵀU = 1.
    residual : (n,) float64
        Weighted label minus prediction.
    scale, R : arrays
        β = (R⁻¹ δ) / scale.
    """

    coefficients: Array
    U: Array
    residual: Array
    scale: Array
    R: Array

    @classmethod
    def of(cls, rows: Array, targets: Array, weights: Array) -> WhitenedFit:
        """Fit ``(n, p)`` rows to ``(n,)`` targets with a weight each.

        Raises
        ------
        InputError
            If the rows do not determine all columns.
        """
        weighted = rows * weights[:, None]
        scale = column_scales(weighted)
        Q, R = scipy.linalg.qr(weighted / scale, mode="economic", check_finite=False)
        pivots = np.abs(np.diag(R))
        if len(rows) < rows.shape[1] or pivots.min() < INDEPENDENT * pivots.max():
            raise InputError(
                f"{len(rows)} rows do not determine {rows.shape[1]} coefficients, so that a committee has no spread to "
                "go by; take a smaller 2Jmax or more configurations"
            )
        delta = Q.T @ (targets * weights)
        beta = scipy.linalg.solve_triangular(R, delta) / scale
        return cls(beta, Q, (targets * weights) - Q @ delta, scale, R)

    def raw(self, delta: Array) -> Array:
        """Coefficients ``(m, p)`` of whitened differences ``(m, p)`` from the fit."""
        return np.asarray(self.coefficients + scipy.linalg.solve_triangular(self.R, delta.T).T / self.scale)


def committee(
    fit: WhitenedFit,
    group: Array,
    members: int,
    rng: np.random.Generator,
    *,
    method: Method = "bootstrap",
    fraction: float = 0.7,
) -> Array:
    """Coefficients of a committee.

    Parameters
    ----------
    fit : WhitenedFit
    group : (n,) int
        What is drawn together: a configuration's rows, or those of a family of relatives.
    members : int
        Two at least.
    rng : numpy.random.Generator
    method : {"bootstrap", "subset", "posterior", "pops"}
        Groups drawn with replacement; a random share of them; draws from the Gaussian posterior of the coefficients
        with the noise of the fit; uniform draws from the hypercube that holds the coefficients which would make each
        single row exact (POPS: misspecification, not noise, T. D. Swinburne and D. Perez, Mach. Learn.: Sci. Technol.
        6, 015008 (2025)).
    fraction : float
        Of the groups in a subset.

    Returns
    -------
    (members, p) float64

    Raises
    ------
    InputError
        If there are fewer than two members or groups, or the method or fraction is not one.
    """
    if members < 2:
        raise InputError(f"a committee needs two members at least; got {members}")
    if method not in METHODS:
        raise InputError(f"the method '{method}' is not one of {', '.join(METHODS)}")
    if method == "posterior":
        return fit.raw(_posterior(fit, members, rng))
    if method == "pops":
        return fit.raw(_pops(fit, members, rng))
    if not 0 < fraction < 1:
        raise InputError(f"the share of groups in a subset must lie between 0 and 1; got {fraction}")
    return fit.raw(_resampled(fit, group, members, rng, fraction if method == "subset" else None))


def _resampled(fit: WhitenedFit, group: Array, members: int, rng: np.random.Generator, fraction: float | None) -> Array:
    """Members fitted to blocks that are drawn with replacement, or to a share of them."""
    names, number = np.unique(group, return_inverse=True)
    if len(names) < 2:
        raise InputError(f"resampling needs two groups at least; there is {len(names)}")
    n_blocks = min(BLOCKS, len(names))
    block = rng.permutation(np.arange(len(names)) % n_blocks)[number]
    G, c = [], []
    for k in range(n_blocks):
        own = block == k
        G.append(fit.U[own].T @ fit.U[own])
        c.append(fit.U[own].T @ fit.residual[own])
    found = []
    for _ in range(members):
        if fraction is None:
            counts = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks)).astype(float)
        else:
            counts = np.zeros(n_blocks)
            counts[rng.permutation(n_blocks)[: max(1, round(fraction * n_blocks))]] = 1.0
        found.append(_solved(np.tensordot(counts, G, axes=1), counts @ np.array(c)))
    return np.array(found)


def _solved(M: Array, right: Array) -> Array:
    """M⁻¹ c; directions that a draw does not see stay where the whole fit has them."""
    values, vectors = scipy.linalg.eigh(M, check_finite=False)
    seen = values > INDEPENDENT * max(values[-1], 1.0)
    return np.asarray(vectors[:, seen] @ ((vectors[:, seen].T @ right) / values[seen]))


def _posterior(fit: WhitenedFit, members: int, rng: np.random.Generator) -> Array:
    """Gaussian with covariance σ² (UᵀU)⁻¹ = σ² 1."""
    n, p = fit.U.shape
    variance = float(fit.residual @ fit.residual) / max(n - p, 1)
    return np.asarray(np.sqrt(variance) * rng.normal(size=(members, p)))


def _pops(fit: WhitenedFit, members: int, rng: np.random.Generator) -> Array:
    """δ_i = u_i r_i / h_i makes row i exact at the least change of the loss; their bounding box in principal axes."""
    leverage = np.einsum("ij,ij->i", fit.U, fit.U)
    exact = fit.U * (fit.residual / np.maximum(leverage, 1e-12))[:, None]
    _, _, axes = scipy.linalg.svd(exact, full_matrices=False, check_finite=False)
    along = exact @ axes.T
    low, high = along.min(axis=0), along.max(axis=0)
    return np.asarray(rng.uniform(low, high, (members, along.shape[1])) @ axes)
