"""The weight path: errors at any ratio of energy to force weight from one eigen-decomposition (DESIGN §4.8).

Energy and force moments are diagonalised together: in the basis found, the fit at every ratio is a scaling of
components, so that the energy/force front is a continuous curve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize_scalar

from paretofit.core import InputError, RowKind
from paretofit.linear.reduction.moments import NestedFactor
from paretofit.linear.reduction.reducer import MAX_CONDITION, NestedFit

if TYPE_CHECKING:
    from paretofit.core import Array
    from paretofit.linear.reduction.moments import Moments
    from paretofit.linear.reduction.reducer import Reduction

ERRORS = ("train", "test", "reference")


@dataclass(frozen=True)
class WeightPath:
    """Errors of one model size as functions of the ratio w_E/w_F.

    Attributes
    ----------
    ratio : (n,) float64
        Ascending, evenly spaced in the logarithm.
    energy, force : mapping of str to (n, n_levels) float64
        Root mean squared errors in the units of the rows (eV/atom, eV/Å), for "train" (the subset), "test"
        (at the level of the fit) and "reference" (the test set at the last level).
    """

    ratio: Array
    energy: dict[str, Array]
    force: dict[str, Array]

    def knee_ratio(self, level_index: int, error_type: str = "reference") -> float:
        """The ratio at which the curve of log force error against log energy error bends most.

        Only the part of the curve where less of one error costs more of the other counts: beyond it, both
        get worse. If it is a single point, that point is the answer.
        """
        x, y = np.log(self.energy[error_type][:, level_index]), np.log(self.force[error_type][:, level_index])
        low, high = sorted((int(np.argmin(x)), int(np.argmin(y))))
        t = np.log(self.ratio)
        if high - low < 4:
            return float(np.exp((t[low] + t[high]) / 2))
        curve = CubicSpline(t, np.stack([x, y]), axis=1)

        def bend(at: Array) -> Array:
            (dx, dy), (ddx, ddy) = curve(at, 1), curve(at, 2)
            speed = np.hypot(dx, dy)
            return np.asarray(np.abs(dx * ddy - dy * ddx) / np.where(speed > 0, speed, np.inf) ** 3)

        inside = t[low + 1 : high]  # the ends are where one of the two stops falling
        best = int(np.argmax(bend(inside)))
        bounds = inside[max(best - 1, 0)], inside[min(best + 1, len(inside) - 1)]
        return float(np.exp(minimize_scalar(lambda at: -bend(at), bounds=bounds, method="bounded").x))

    def best_ratio(self, level_index: int, force_per_energy: float, error_type: str = "reference") -> float:
        """The ratio with the smallest energy error + force error / `force_per_energy`.

        Parameters
        ----------
        level_index : int
            Number of the level.
        force_per_energy : float
            How much force error (eV/Å) weighs as much as one unit of energy error (eV/atom).

        Raises
        ------
        InputError
            If the preference is not a positive number.
        """
        if not (np.isfinite(force_per_energy) and force_per_energy > 0):
            raise InputError(f"the preference must be a positive number of Å⁻¹; got {force_per_energy}")
        total = self.energy[error_type][:, level_index] + self.force[error_type][:, level_index] / force_per_energy
        return float(self.ratio[np.argmin(total)])


def compute_weight_path(
    reduction: Reduction,
    moments: Moments,
    size_index: int,
    *,
    ratio_limits: tuple[float, float] = (0.1, 1000.0),
    n_points: int = 121,
) -> WeightPath | None:
    """Errors of one model size at every ratio w_E/w_F between two limits.

    Parameters
    ----------
    reduction : Reduction
    moments : Moments
        Of the subset to train on; ``reduction.train`` for the whole training set.
    size_index : int
        Which of the reduction's sizes.
    ratio_limits : (float, float)
        Limits of w_E/w_F.
    n_points : int
        How finely the curve is drawn.

    Returns
    -------
    WeightPath or None
        None where the moments are singular or too ill-conditioned at the middle of the path.

    Raises
    ------
    InputError
        If the limits do not ascend, or there are no energy or no force rows.

    Notes
    -----
    With M = w_E² G_E + w_F² G_F = RᵀR at a middle ratio, V diagonalises R⁻ᵀ w_E² G_E R⁻¹ = V Λ Vᵀ; at a ratio
    √t times the middle one, coefficients are R⁻¹ V (t Λ + 1 − Λ)⁻¹ Vᵀ R⁻ᵀ (t w_E² c_E + w_F² c_F).
    """
    low, high = ratio_limits
    if not 0 < low < high < np.inf or n_points < 2:
        raise InputError(
            f"ratios must ascend and be positive, with at least two points; got {ratio_limits} and {n_points}"
        )
    energy, force = moments.by_kind.get(RowKind.ENERGY), moments.by_kind.get(RowKind.FORCE)
    if energy is None or force is None or not energy.n or not force.n:
        raise InputError("a weight path needs energy rows and force rows")
    p, columns = int(reduction.whitened_sizes[size_index]), reduction.target_columns(size_index)
    middle = float(np.sqrt(low * high))
    scale = max(middle, 1.0)
    w2 = {RowKind.ENERGY: (middle / scale) ** 2, RowKind.FORCE: scale**-2}
    factor = NestedFactor.from_moments(np.asfortranarray(sum(w2[k] * moments.by_kind[k].G[:p, :p] for k in w2)))
    condition = factor.condition(p)
    if not condition < MAX_CONDITION:
        return None
    R = factor.R
    G = np.triu(energy.G[:p, :p])
    G = w2[RowKind.ENERGY] * (G + np.triu(G, 1).T)
    inner = _congruent(R, G)
    eigenvalues, V = scipy.linalg.eigh((inner + inner.T) / 2, check_finite=False)
    share = np.clip(eigenvalues, 0.0, 1.0)
    basis = scipy.linalg.solve_triangular(R, V, check_finite=False)
    right = {k: basis.T @ (w2[k] * moments.by_kind[k].c[:p, columns]) for k in w2}
    ratio = np.geomspace(low, high, n_points)
    found: dict[str, list[Any]] = {}
    for t in (ratio / middle) ** 2:
        damped = (t * right[RowKind.ENERGY] + right[RowKind.FORCE]) / (t * share + 1 - share)[:, None]
        _measure(reduction, moments, NestedFit(basis @ damped, condition, columns), found)
    curves = {name: np.array(values) for name, values in found.items()}
    return WeightPath(
        ratio,
        {name: curves[f"energy_{name}"] for name in ERRORS},
        {name: curves[f"force_{name}"] for name in ERRORS},
    )


def _congruent(R: Array, G: Array) -> Array:
    """R⁻ᵀ G R⁻¹."""
    half = scipy.linalg.solve_triangular(R, G, trans=1, check_finite=False)
    return np.asarray(scipy.linalg.solve_triangular(R, half.T, trans=1, check_finite=False)).T


def _measure(reduction: Reduction, moments: Moments, fit: NestedFit, found: dict[str, list[Any]]) -> None:
    """Append the errors of a fit to the lists of each curve."""
    train, _ = reduction.train_rms(moments, fit)
    test = reduction.test_rms(fit)
    for kind, name in ((RowKind.ENERGY, "energy"), (RowKind.FORCE, "force")):
        errors = {"train": train[kind], "test": test[kind].own_level, "reference": test[kind].reference_level}
        for which, value in errors.items():
            found.setdefault(f"{name}_{which}", []).append(value)
