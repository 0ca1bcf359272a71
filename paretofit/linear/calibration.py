"""From the spread of a committee to errors: calibration on held-out labels, and intervals that hold whatever the model.

Pure arrays: a value may be an energy per atom, a force component or a stress component, in any unit; it never is an
extensive energy or the norm of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from paretofit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paretofit.linear.factor import Array

Z = 1.959964  # standard deviations of a 95 % confidence interval


def disagreement(members: Array, configuration: Array | None = None) -> Array:
    """D = √(⟨(L_j − ⟨L⟩)²⟩) over the members of a committee; of several values their root mean square.

    Parameters
    ----------
    members : (m, n) float64
        Predictions of the m members, two at least.
    configuration : (n,) int, optional
        Values with the same number, such as the force components of a configuration, are taken together.

    Returns
    -------
    (n,) or (n_configurations,) float64
        In the order of `configuration`'s numbers.

    Raises
    ------
    InputError
        If there are fewer than two members.

    Notes
    -----
    Equation 1 of Bidoggia et al. (2025).
    """
    values = _members(members)
    return _gathered(values.var(axis=0), configuration)


def committee_error(members: Array, labels: Array, configuration: Array | None = None) -> Array:
    """ε = √(⟨(L_j − L)²⟩) over the members, against the labels ``(n,)``; otherwise as `disagreement`.

    Notes
    -----
    Equation 2 of Bidoggia et al. (2025). It contains the spread: ε² = D² + (⟨L⟩ − L)².
    """
    values = _members(members)
    return _gathered(((values - labels) ** 2).mean(axis=0), configuration)


@dataclass(frozen=True)
class Slope:
    """τ = a ε through the origin.

    Attributes
    ----------
    slope : float
        a, by least squares.
    confidence : float
        Half width of its 95 % interval.
    residual : float
        Root mean squared deviation of the disagreements from the line.
    """

    slope: float
    confidence: float
    residual: float

    def threshold(self, error: float) -> float:
        """The disagreement above which errors are above `error`."""
        if not error > 0:
            raise InputError(f"an error threshold must be positive; got {error}")
        return self.slope * error

    def error(self, spread: Array) -> Array:
        """The errors that disagreements stand for."""
        return np.asarray(spread / self.slope)


def calibrate_slope(spread: Array, error: Array) -> Slope:
    """Fit the disagreements of labelled configurations, ``(n,)``, to their errors, ``(n,)``.

    Raises
    ------
    InputError
        If there are fewer than three, a value is negative or not finite, or all errors or disagreements are zero.

    Notes
    -----
    Section I.A.6 of Bidoggia et al. (2025).
    """
    for name, values in (("disagreements", spread), ("errors", error)):
        if len(values) < 3 or not (np.isfinite(values) & (values >= 0)).all():
            raise InputError(f"calibration needs three {name} at least, finite and not negative; got {len(values)}")
        if not values.any():
            raise InputError(f"all {name} are zero: there is nothing to calibrate; are the members identical?")
    squares = float(error @ error)
    slope = float(spread @ error) / squares
    residuals = spread - slope * error
    variance = float(residuals @ residuals) / (len(error) - 1)
    return Slope(slope, Z * float(np.sqrt(variance / squares)), float(np.sqrt(np.mean(residuals**2))))


def detection_rates(spread: Array, error: Array, spread_limit: float, error_limit: float) -> tuple[float, float]:
    """True-positive rate and positive predictive value of "the disagreement is above its limit".

    Returns
    -------
    (float, float)
        TP / (TP + FN) and TP / (TP + FP); NaN where there is nothing to count.

    Raises
    ------
    InputError
        If a limit is below zero.

    Notes
    -----
    Equations 3 and 4 of Bidoggia et al. (2025).
    """
    if spread_limit < 0 or error_limit < 0:
        raise InputError(f"thresholds must not be below zero; got {spread_limit} and {error_limit}")
    flagged, wrong = spread > spread_limit, error > error_limit
    hits = int((flagged & wrong).sum())
    rates = (hits / n if (n := int(one.sum())) else float("nan") for one in (wrong, flagged))
    true_positive, predictive = rates
    return true_positive, predictive


def conformal_factor(spread: Array, residual: Array, coverage: float = 0.9) -> float:
    """The factor q such that prediction ± q·spread holds a new value with at least this probability.

    Split conformal prediction: whatever the model and however bad the spread, if the new value is exchangeable with
    those of the calibration. With all spreads equal the intervals have one width.

    Parameters
    ----------
    spread : (n,) float64
        Positive, of held-out values that no member has seen.
    residual : (n,) float64
        Label minus prediction there.
    coverage : float
        Between 0 and 1.

    Returns
    -------
    float
        The ⌈(n + 1) coverage⌉-th smallest of |residual| / spread.

    Raises
    ------
    InputError
        If there are too few values for the coverage, or a spread is not positive.

    Notes
    -----
    V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World (2005); normalised scores after
    H. Papadopoulos, A. Gammerman, V. Vovk, ICTAI (2008).
    """
    if not 0 < coverage < 1:
        raise InputError(f"the coverage must lie between 0 and 1; got {coverage}")
    if not (np.isfinite(spread) & (spread > 0)).all():
        raise InputError("every spread must be positive for a conformal interval; are the members identical?")
    rank = int(np.ceil((len(residual) + 1) * coverage - 1e-9))
    if rank > len(residual):
        least = int(np.ceil(coverage / (1 - coverage) - 1e-9))
        raise InputError(
            f"a coverage of {coverage:g} needs {least} held-out values for its calibration; there are {len(residual)}"
        )
    return float(np.sort(np.abs(residual) / spread)[rank - 1])


def _members(members: Array) -> Array:
    values = np.asarray(members, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise InputError(f"a committee needs two members at least; got {len(values)}")
    return values


def _gathered(squares: Array, configuration: Array | None) -> Array:
    """Root mean squares of the values of each configuration, or of each value alone."""
    if configuration is None:
        return np.asarray(np.sqrt(squares))
    return np.array([np.sqrt(squares[own].mean()) for own in _groups(configuration)])


def _groups(configuration: Array) -> Iterator[Array]:
    order = np.argsort(configuration, kind="stable")
    breaks = np.flatnonzero(np.diff(configuration[order])) + 1
    return iter(np.split(order, breaks))
