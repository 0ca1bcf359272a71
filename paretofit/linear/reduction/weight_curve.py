"""The weight path: errors at any ratio of energy to force weight from one eigenvalue decomposition.

Products of energy rows and of force rows are diagonalised together. In the common basis, the fit at any ratio is a
scaling of the components, so that the energy/force front is a continuous curve (see `paretofit.linear.reduction`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize_scalar

from paretofit.core import Array, InputError, RowKind
from paretofit.linear.reduction.conditioning import estimate_gram_condition
from paretofit.linear.reduction.linalg import solve_rows, to_numpy
from paretofit.linear.reduction.reducer import Reduction
from paretofit.linear.reduction.weighing import RowFactors

ERROR_TYPES = ("train", "test", "reference")
MAX_PATH_CONDITION = 1e7  # condition number of weighted Gram matrices up to which the path agrees with fits to 1e-9
KIND_NAMES = {RowKind.ENERGY: "energy", RowKind.FORCE: "force"}
# number of intervals between the minima of the two errors; with fewer, the curve counts as a single point
MIN_KNEE_INTERVALS = 4


@dataclass(frozen=True)
class WeightPath:
    """Errors of one model size as functions of the ratio w_E/w_F.

    Attributes
    ----------
    ratio : (n,) float64
        Ascending, evenly spaced in the logarithm.
    energy, force : mapping of str to (n, n_levels) float64
        Root mean squared errors in the units of the rows (eV/atom, eV/Å), for "train" (the subset), "test"
        (the test set at the level of the fit) and "reference" (the test set at the last level).
    """

    ratio: Array
    energy: dict[str, Array]
    force: dict[str, Array]

    def find_knee_ratio(self, level_index: int, error_type: str = "reference") -> float:
        """Find the ratio at which the curve of log force error against log energy error has the largest curvature.

        Only the part of the curve between the minima of the two errors is considered, because outside it both errors
        grow. If this part has fewer than `MIN_KNEE_INTERVALS` intervals, the result is the geometric mean of its ends.

        Parameters
        ----------
        level_index : int
            Position of the level.
        error_type : str
            "train", "test" or "reference".
        """
        x, y = np.log(self.energy[error_type][:, level_index]), np.log(self.force[error_type][:, level_index])
        first_index, last_index = sorted((int(np.argmin(x)), int(np.argmin(y))))
        log_ratios = np.log(self.ratio)
        if last_index - first_index < MIN_KNEE_INTERVALS:
            return float(np.exp((log_ratios[first_index] + log_ratios[last_index]) / 2))
        curve = CubicSpline(log_ratios, np.stack([x, y]), axis=1)

        def compute_curvature(position: Array) -> Array:
            (dx, dy), (ddx, ddy) = curve(position, 1), curve(position, 2)
            speed = np.hypot(dx, dy)
            return np.asarray(np.abs(dx * ddy - dy * ddx) / np.where(speed > 0, speed, np.inf) ** 3)

        # The two minima, the ends of this part, are excluded: the curve turns there, whatever the trade-off is.
        interior_positions = log_ratios[first_index + 1 : last_index]
        k = int(np.argmax(compute_curvature(interior_positions)))
        bounds = interior_positions[max(k - 1, 0)], interior_positions[min(k + 1, len(interior_positions) - 1)]
        return float(
            np.exp(minimize_scalar(lambda position: -compute_curvature(position), bounds=bounds, method="bounded").x)
        )

    def find_best_ratio(self, level_index: int, force_per_energy: float, error_type: str = "reference") -> float:
        """Find the ratio of the path with the smallest sum of energy error and force error / `force_per_energy`.

        Parameters
        ----------
        level_index : int
            Position of the level.
        force_per_energy : float
            Force error (eV/Å) that counts as much as an energy error of 1 eV/atom, in 1/Å.
        error_type : str
            "train", "test" or "reference".

        Raises
        ------
        InputError
            If `force_per_energy` is not a positive number.
        """
        if not (np.isfinite(force_per_energy) and force_per_energy > 0):
            raise InputError(f"force_per_energy must be a positive number, in 1/Å; got {force_per_energy}")
        total = self.energy[error_type][:, level_index] + self.force[error_type][:, level_index] / force_per_energy
        return float(self.ratio[np.argmin(total)])


def compute_weight_path(
    reduction: Reduction,
    factors: RowFactors,
    size_index: int,
    *,
    ratio_limits: tuple[float, float] = (0.1, 1000.0),
    n_points: int = 121,
) -> WeightPath | None:
    """Compute the errors of one model size at many ratios w_E/w_F between two limits; stress rows are ignored.

    Parameters
    ----------
    reduction : Reduction
    factors : RowFactors
        Factors of the training subset; ``reduction.train`` for the whole training set.
    size_index : int
        Position among the reduction's sizes.
    ratio_limits, n_points
        Smallest and largest w_E/w_F, and number of ratios, both included.

    Returns
    -------
    WeightPath or None
        None if the Gram matrix is singular or too ill-conditioned at the middle of the path.

    Raises
    ------
    InputError
        If the limits are not positive and ascending, `n_points` is below 2, or there are no energy or no force rows.
    """
    low, high = ratio_limits
    if not 0 < low < high < np.inf or n_points < 2:
        raise InputError(
            f"ratio_limits must be positive and ascending, and n_points at least 2; got {ratio_limits} and {n_points}"
        )
    if not all(kind in factors.by_kind and factors.by_kind[kind].n for kind in KIND_NAMES):
        raise InputError("a weight path requires energy rows and force rows")
    middle_ratio = float(np.sqrt(low * high))
    basis = _PathBasis.from_factors(factors, int(factors.whitened_basis.whitened_sizes[size_index]), middle_ratio)
    if basis is None:
        return None
    ratio = np.geomspace(low, high, n_points)
    errors = [_measure_errors(reduction, factors, basis.fit(float(t))) for t in (ratio / middle_ratio) ** 2]
    curves = [
        {name: np.array([point[kind, name] for point in errors]) for name in ERROR_TYPES}
        for kind in KIND_NAMES.values()
    ]
    return WeightPath(ratio, *curves)


@dataclass(frozen=True)
class _PathBasis:
    """Coordinates in which the products of energy rows and of force rows are diagonal.

    With the triangle R of both at a middle ratio, V diagonalises R⁻ᵀ w_E² U_EᵀU_E R⁻¹ = V Λ Vᵀ; at a ratio √t times
    the middle one, coefficients are R⁻¹ V (t Λ + 1 − Λ)⁻¹ Vᵀ R⁻ᵀ (t w_E² U_EᵀY_E + w_F² U_FᵀY_F).

    Attributes
    ----------
    theta : (P, n_levels) float64
        Baseline of the whitening.
    vectors : (p, p) float64
        R⁻¹ V.
    energy_share : (p,) float64
        Diagonal of Λ: the share of the energy rows in each component.
    energy_rhs, force_rhs : (p, n_levels) float64
        Vᵀ R⁻ᵀ w_E² U_EᵀY_E and Vᵀ R⁻ᵀ w_F² U_FᵀY_F.
    """

    theta: Array
    vectors: Array
    energy_share: Array
    energy_rhs: Array
    force_rhs: Array

    @classmethod
    def from_factors(cls, factors: RowFactors, p: int, middle_ratio: float) -> _PathBasis | None:
        """Compute the basis R⁻¹ V, Λ, and the right-hand sides; None if R is singular or too ill-conditioned."""
        by_kind, theta = {kind: factors.by_kind[kind] for kind in KIND_NAMES}, factors.whitened_basis.baseline
        weights, P = np.array([middle_ratio, 1.0, 1.0]) / max(middle_ratio, 1.0), len(theta)
        factor = RowFactors(factors.whitened_basis, by_kind).apply_weights(weights)
        if estimate_gram_condition(factor.R[:p, :p]) >= MAX_PATH_CONDITION:
            return None
        weighted_rows = [weights[kind] * to_numpy(by_kind[kind].get_equivalent_rows()) for kind in KIND_NAMES]
        energy_rows = solve_rows(factor.R[:p, :p], weighted_rows[0][:, :p])
        eigenvalues, V = scipy.linalg.eigh(energy_rows.T @ energy_rows, check_finite=False)
        vectors = scipy.linalg.solve_triangular(factor.R[:p, :p], V, check_finite=False)
        rhs = ((A[:, :p] @ vectors).T @ (A[:, P:] + A[:, p:P] @ theta[p:]) for A in weighted_rows)
        return cls(theta, vectors, np.clip(eigenvalues, 0.0, 1.0), *rhs)  # outside [0, 1] only by rounding

    def fit(self, t: float) -> Array:
        """Fit at the ratio √t times the middle one; return whitened coefficients minus the baseline's."""
        scales = t * self.energy_share + 1 - self.energy_share
        delta = -self.theta
        delta[: len(self.vectors)] = self.vectors @ ((t * self.energy_rhs + self.force_rhs) / scales[:, None])
        return delta


def _measure_errors(reduction: Reduction, factors: RowFactors, delta: Array) -> dict[tuple[str, str], Array]:
    """Measure the errors of a fit, ``(n_levels,)``, by the name of the kind of row and the type of error."""
    train, test = factors.compute_rms(delta), reduction.compute_test_rms(delta)
    errors: dict[tuple[str, Any], Array] = {}
    for kind, name in KIND_NAMES.items():
        rms_errors = train[kind].own_level, test[kind].own_level, test[kind].reference_level
        errors |= {(name, error_type): rms for error_type, rms in zip(ERROR_TYPES, rms_errors, strict=True)}
    return errors
