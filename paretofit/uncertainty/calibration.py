"""From the spread of a committee to errors: calibration on held-out labels, and intervals that hold whatever the model.

Pure arrays: a value may be an energy per atom, a force component or a stress component, in any unit; it never is an
extensive energy or the norm of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import isotonic_regression

from paretofit.core import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paretofit.core import Array

MIN_RELATIVE_SPREAD = 0.1  # of the median spread
Z = 1.959964  # standard deviations of a 95 % confidence interval


def disagreement(member_predictions: Array, configuration: Array | None = None) -> Array:
    """D = √(⟨(L_j − ⟨L⟩)²⟩) over the members of a committee; of several values their root mean square.

    Parameters
    ----------
    member_predictions : (m, n) float64
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
    values = _members(member_predictions)
    return _gathered(values.var(axis=0), configuration)


def committee_error(member_predictions: Array, labels: Array, configuration: Array | None = None) -> Array:
    """ε = √(⟨(L_j − L)²⟩) over the members, against the labels ``(n,)``; otherwise as `disagreement`.

    Notes
    -----
    Equation 2 of Bidoggia et al. (2025). It contains the spread: ε² = D² + (⟨L⟩ − L)².
    """
    values = _members(member_predictions)
    if np.shape(labels) != values.shape[1:]:
        raise InputError(f"there must be a label for each of {values.shape[1]} values; got {np.size(labels)}")
    return _gathered(((values - labels) ** 2).mean(axis=0), configuration)


@dataclass(frozen=True)
class SlopeCalibration:
    """τ = a ε through the origin.

    Attributes
    ----------
    slope : float
        a, by least squares.
    slope_half_width : float
        Half width of its 95 % interval.
    rms_residual : float
        Root mean squared deviation of the disagreements from the line.
    """

    slope: float
    slope_half_width: float
    rms_residual: float

    def threshold(self, error: float) -> float:
        """The disagreement above which errors are above `error`."""
        _check_positive(error)
        return self.slope * error

    def error(self, spread: Array) -> Array:
        """The errors that disagreements stand for."""
        return np.asarray(spread / self.slope)


def calibrate_slope(spread: Array, error: Array) -> SlopeCalibration:
    """Fit the disagreements of labelled configurations, ``(n,)``, to their errors, ``(n,)``.

    Raises
    ------
    InputError
        If there are fewer than three, a value is negative or not finite, or all errors or disagreements are zero.

    Notes
    -----
    Section I.A.6 of Bidoggia et al. (2025).
    """
    _check_pairs(spread, error)
    squares = float(error @ error)
    slope = float(spread @ error) / squares
    residuals = spread - slope * error
    variance = float(residuals @ residuals) / (len(error) - 1)
    return SlopeCalibration(slope, Z * float(np.sqrt(variance / squares)), float(np.sqrt(np.mean(residuals**2))))


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
    if not (spread_limit >= 0 and error_limit >= 0):
        raise InputError(f"thresholds must not be below zero; got {spread_limit} and {error_limit}")
    flagged, wrong = spread > spread_limit, error > error_limit
    hits = int((flagged & wrong).sum())
    rates = (hits / n if (n := int(one.sum())) else float("nan") for one in (wrong, flagged))
    true_positive, predictive = rates
    return true_positive, predictive


@dataclass(frozen=True)
class IsotonicCalibration:
    """Errors as a function of the disagreement that never falls; beyond the calibration's they grow in proportion.

    Attributes
    ----------
    spread : (n,) float64
        Ascending, each once.
    expected_error : (n,) float64
        Never falling.
    """

    spread: Array
    expected_error: Array

    def threshold(self, error: float) -> float:
        """The disagreement above which errors are expected above `error`."""
        _check_positive(error)
        above = np.flatnonzero(self.expected_error > error)
        if not len(above):
            return float(self.spread[-1] * error / self.expected_error[-1])
        return float(self.spread[above[0] - 1]) if above[0] else 0.0

    def error(self, spread: Array) -> Array:
        """The errors that disagreements stand for."""
        beyond = np.maximum(np.asarray(spread) / self.spread[-1], 1.0)
        return np.asarray(np.interp(spread, self.spread, self.expected_error) * beyond)


@dataclass(frozen=True)
class QuantileCalibration:
    """A line through the origin below which a share of the errors lies: error = factor × disagreement.

    Attributes
    ----------
    factor : float
    quantile : float
    """

    factor: float
    quantile: float

    def threshold(self, error: float) -> float:
        """The disagreement above which more than ``1 - share`` of the errors are above `error`."""
        _check_positive(error)
        return error / self.factor

    def error(self, spread: Array) -> Array:
        """What a share of the errors stays below."""
        return np.asarray(self.factor * spread)


def calibrate_isotonic(spread: Array, error: Array) -> IsotonicCalibration:
    """Isotonic regression of the errors ``(n,)`` on the disagreements ``(n,)``.

    Raises
    ------
    InputError
        As `calibrate_slope`.
    """
    _check_pairs(spread, error)
    values, number, counts = np.unique(spread, return_inverse=True, return_counts=True)
    means = np.bincount(number, error) / counts  # equal disagreements stand for one error
    return IsotonicCalibration(values, np.asarray(isotonic_regression(means, weights=counts).x))


def calibrate_quantile(spread: Array, error: Array, quantile: float = 0.9) -> QuantileCalibration:
    """Quantile regression of the errors ``(n,)`` on the disagreements ``(n,)``, through the origin.

    The minimum of the pinball loss Σ ρ(ε − b D) is the quantile of ε / D with weights D.

    Raises
    ------
    InputError
        As `calibrate_slope`, and if `quantile` is not between 0 and 1.
    """
    _check_pairs(spread, error)
    if not 0 < quantile < 1:
        raise InputError(f"the share of errors below the line must lie between 0 and 1; got {quantile}")
    own = spread > 0
    ratio = error[own] / spread[own]
    order = np.argsort(ratio)
    mass = np.cumsum(spread[own][order])
    return QuantileCalibration(float(ratio[order][np.searchsorted(mass, quantile * mass[-1] * (1 - 1e-12))]), quantile)


CALIBRATIONS = {"slope": calibrate_slope, "isotonic": calibrate_isotonic, "quantile": calibrate_quantile}


def detection_map(spread: Array, error: Array, spread_limits: Array, error_limits: Array) -> tuple[Array, Array]:
    """`detection_rates` for all pairs of limits: two arrays ``(n_spread_limits, n_error_limits)``."""
    rates = [[detection_rates(spread, error, one, other) for other in error_limits] for one in spread_limits]
    values = np.array(rates)
    return values[..., 0], values[..., 1]


@dataclass(frozen=True)
class ConformalIntervals:
    """Intervals around predictions that hold new labels with a stated probability.

    Attributes
    ----------
    factor : float
        Half widths in units of the spread.
    min_spread : float
        The smallest spread that is taken at its word: forces that vanish by symmetry have none.
    coverage : float
    """

    factor: float
    min_spread: float
    coverage: float

    def half_width(self, spread: Array) -> Array:
        """Half widths of the intervals of new values with these spreads."""
        return np.asarray(self.factor * np.maximum(spread, self.min_spread))


def calibrate_conformal(
    spread: Array, residual: Array, coverage: float = 0.9, group: Array | None = None, n_members: int | None = None
) -> ConformalIntervals:
    """The factor q such that prediction ± q·spread holds a new value with at least this probability.

    Split conformal prediction: whatever the model and however bad the spread, if the new value is exchangeable with
    those of the calibration. With all spreads equal the intervals have one width.

    Parameters
    ----------
    spread : (n,) float64
        Of held-out values that no member has seen.
    residual : (n,) float64
        Label minus prediction there.
    coverage : float
        Between 0 and 1.
    group : (n,) int, optional
        Values that belong together, such as the force components of a configuration, resemble each other; then groups
        are exchangeable, not values, and each counts as one.
    n_members : int, optional
        Of the committee: few may agree by chance, so that a small spread says little. Two have the median spread as
        their floor, three half of it, and so on.

    Returns
    -------
    Conformal
        Its factor is the quantile of |residual| / spread over ``n + 1`` values, or groups, the new one being infinite;
        spreads below a tenth of their median (more, with few members) count as that. Such values (forces that nearly
        vanish by symmetry) would be held by any interval and make those of the others too narrow: they are left out,
        as long as the intervals of the others, at that floor, hold as many of them as is stated.

    Raises
    ------
    InputError
        If there are too few values or groups for the coverage, or all spreads are zero.

    Notes
    -----
    V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World (2005); normalised scores after
    H. Papadopoulos, A. Gammerman, V. Vovk, ICTAI (2008); groups after R. Dunn, L. Wasserman, A. Ramdas, J. Am. Stat.
    Assoc. 118, 2491 (2023).
    """
    if not 0 < coverage < 1:
        raise InputError(f"the coverage must lie between 0 and 1; got {coverage}")
    if len(spread) != len(residual) or (group is not None and len(group) != len(residual)):
        raise InputError(
            f"there must be a spread, and a group if there are any, for each residual; got {len(spread)} spreads, "
            f"{len(residual)} residuals{'' if group is None else f' and {len(group)} groups'}"
        )
    if not (np.isfinite(spread) & np.isfinite(residual) & (spread >= 0)).all():
        raise InputError("spreads and residuals must be finite, and spreads not negative; leave out what has no label")
    if not spread.any():
        raise InputError("conformal intervals need spreads above zero; are the members identical?")
    share = MIN_RELATIVE_SPREAD if n_members is None else max(MIN_RELATIVE_SPREAD, 1 / (n_members - 1))
    floor = share * float(np.median(spread[spread > 0]))
    owner = np.arange(len(residual)) if group is None else np.asarray(group)
    small = spread < floor
    if small.any() and len(np.unique(owner[~small])) >= min_calibration_size(coverage):
        own = ConformalIntervals(_factor(spread[~small], residual[~small], coverage, owner[~small]), floor, coverage)
        if np.mean(np.abs(residual[small]) <= own.half_width(spread[small])) >= coverage:
            return own
    return ConformalIntervals(_factor(np.maximum(spread, floor), residual, coverage, owner), floor, coverage)


def _factor(spread: Array, residual: Array, coverage: float, group: Array) -> float:
    """The quantile of |residual| / spread over groups that count one each, and one more that is infinite."""
    names, number, counts = np.unique(group, return_inverse=True, return_counts=True)
    least = min_calibration_size(coverage)
    if len(names) < least:
        raise InputError(
            f"a coverage of {coverage:g} needs {least} held-out configurations for its calibration; there are "
            f"{len(names)}: hold out more, or ask for less"
        )
    scores = np.abs(residual) / spread
    order = np.argsort(scores, kind="stable")
    mass = np.cumsum(1.0 / counts[number][order])
    return float(scores[order][np.searchsorted(mass, coverage * (len(names) + 1) - 1e-6)])


def min_calibration_size(coverage: float) -> int:
    """Values, or groups, that intervals of a coverage need for their calibration."""
    return int(np.ceil(coverage / (1 - coverage) - 1e-9))


def _check_positive(error: float) -> None:
    if not error > 0:
        raise InputError(f"an error threshold must be positive; got {error}")


def _check_pairs(spread: Array, error: Array) -> None:
    if len(spread) != len(error):
        raise InputError(f"there must be an error for each disagreement; got {len(spread)} and {len(error)}")
    if len(spread) < 3:
        raise InputError(f"a calibration needs three disagreements with their errors at least; got {len(spread)}")
    for name, values in (("disagreements", spread), ("errors", error)):
        wrong = ~(np.isfinite(values) & (values >= 0))
        if wrong.any():
            raise InputError(f"{name} must be finite and not negative; {wrong.sum()} of {len(values)} are not")
        if not values.any():
            raise InputError(f"all {name} are zero: there is nothing to calibrate; are the members identical?")


def _members(members: Array) -> Array:
    values = np.asarray(members, dtype=np.float64)
    if values.ndim != 2:
        raise InputError(f"the members' values must be an array (members, values); got shape {values.shape}")
    if len(values) < 2:
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
