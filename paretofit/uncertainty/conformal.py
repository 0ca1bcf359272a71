"""Intervals around the predictions of a committee that are valid for any model, by conformal prediction.

Functions take plain arrays. A value is an energy per atom, a force component or a stress component, in any unit, but
never an extensive energy or the norm of a vector.

**Conformal intervals and small spreads.** Spreads below a floor, a tenth of their median (more for small committees),
are raised to the floor. Labels of values with smaller spreads, such as forces that nearly vanish by symmetry, are
almost always inside their intervals. In the calibration, they would make the intervals of the other values too narrow.
They are therefore excluded, provided that enough groups remain and that the resulting intervals contain as large a
share of the excluded values as the coverage requires.
"""

from dataclasses import dataclass

import numpy as np

from paretofit.core import Array, InputError

MIN_RELATIVE_SPREAD = 0.1  # floor of the spread, divided by the median of the spreads above zero


@dataclass(frozen=True)
class ConformalIntervals:
    """Intervals around predictions, each of which contains the label with a given probability.

    Attributes
    ----------
    factor : float
        Ratio of the half width of an interval to the spread.
    min_spread : float
        Floor to which smaller spreads are raised, such as those of forces that vanish by symmetry; unit of the values.
    coverage : float
        Probability that an interval contains the label.
    """

    factor: float
    min_spread: float
    coverage: float

    def compute_half_width(self, spread: Array) -> Array:
        """Compute the half widths of the intervals of new values from their spreads, in the same unit and shape."""
        return np.asarray(self.factor * np.maximum(spread, self.min_spread))


def calibrate_conformal(
    spread: Array, residual: Array, coverage: float = 0.9, group: Array | None = None, n_members: int | None = None
) -> ConformalIntervals:
    """Compute the factor q such that prediction ± q·spread contains a new label with at least a given probability.

    Split conformal prediction makes no assumption about the model or the spread, but the new value must be exchangeable
    with those of the calibration. The factor is the `coverage` quantile of |residual| / spread over the n values (or
    groups) and one new value, whose ratio counts as infinite. Spreads below a floor are raised to it, and their
    values may be excluded from the calibration (see the module). If all spreads are equal, all intervals have equal
    width.

    Parameters
    ----------
    spread : (n,) float64
        Spreads of held-out values, which no member was trained on.
    residual : (n,) float64
        Label minus prediction of these values.
    coverage : float
        The probability, between 0 and 1.
    group : (n,) int, optional
        Group of each value; by default, every value is a group. Values of a group, such as the force components of a
        configuration, are correlated, so that groups are exchangeable, but single values are not. All groups therefore
        have the same weight.
    n_members : int, optional
        Size of a small committee, whose members may agree by chance: the floor of the spread is at least the median
        spread divided by ``n_members - 1``. None if the committee is large enough that they do not.

    Raises
    ------
    InputError
        If the coverage is not between 0 and 1, the lengths of the arrays differ, a value is not finite, a spread is
        negative, there are too few values or groups for the coverage, or all spreads are zero.

    Notes
    -----
    V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World (2005); normalised scores after
    H. Papadopoulos, A. Gammerman, V. Vovk, ICTAI (2008); groups after R. Dunn, L. Wasserman, A. Ramdas, J. Am. Stat.
    Assoc. 118, 2491 (2023).
    """
    _check_conformal_input(spread, residual, coverage, group)
    floor = max(MIN_RELATIVE_SPREAD, 0 if n_members is None else 1 / (n_members - 1)) * np.median(spread[spread > 0])
    groups = np.arange(len(residual)) if group is None else np.asarray(group)

    def calibrate_on(mask: Array) -> ConformalIntervals:
        """Calibrate on the values that `mask` selects."""
        factor = _compute_conformal_factor(np.maximum(spread[mask], floor), residual[mask], coverage, groups[mask])
        return ConformalIntervals(factor, float(floor), coverage)

    is_small = spread < floor
    if is_small.any() and len(np.unique(groups[~is_small])) >= get_min_calibration_size(coverage):
        intervals = calibrate_on(~is_small)
        is_inside = np.abs(residual[is_small]) <= intervals.compute_half_width(spread[is_small])
        if is_inside.mean() >= coverage:
            return intervals
    return calibrate_on(np.ones(len(spread), dtype=bool))


def _compute_conformal_factor(spread: Array, residual: Array, coverage: float, group: Array) -> float:
    """Compute the quantile of |residual| / spread over equally weighted groups and one more with an infinite ratio.

    Raises an `InputError` if there are too few groups for a finite quantile.
    """
    names, positions, counts = np.unique(group, return_inverse=True, return_counts=True)
    min_size = get_min_calibration_size(coverage)
    if len(names) < min_size:
        raise InputError(
            f"a coverage of {coverage:g} requires {min_size} held-out configurations or groups for its calibration; "
            f"there are {len(names)}: hold out more configurations, or set a lower coverage"
        )
    # every group, including the additional one, has the weight 1; 1e-6 tolerates the rounding of cumulative weights
    target_weight = coverage * (len(names) + 1) - 1e-6
    return _find_weighted_quantile(np.abs(residual) / spread, 1.0 / counts[positions], target_weight)


def _find_weighted_quantile(values: Array, weights: Array, target_weight: float) -> float:
    """Return the smallest value at which the cumulative weight reaches `target_weight`."""
    order = np.argsort(values, kind="stable")
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), target_weight)])


def get_min_calibration_size(coverage: float) -> int:
    """Return the smallest number of values, or groups, from which intervals of a coverage can be calibrated.

    Raises
    ------
    InputError
        If the coverage is not between 0 and 1.
    """
    _check_coverage(coverage)
    # the quantile is finite for n values if coverage (n + 1) ≤ n; 1e-9 tolerates rounding
    return int(np.ceil(coverage / (1 - coverage) - 1e-9))


def _check_coverage(coverage: float) -> None:
    """Raise an `InputError` if a coverage is not between 0 and 1."""
    if not 0 < coverage < 1:
        raise InputError(f"the coverage must be between 0 and 1; got {coverage}")


def _check_conformal_input(spread: Array, residual: Array, coverage: float, group: Array | None) -> None:
    """Raise an `InputError` if `calibrate_conformal` cannot use its input."""
    _check_coverage(coverage)
    if len(spread) != len(residual) or (group is not None and len(group) != len(residual)):
        raise InputError(
            f"there must be a spread, and a group if there are any, for each residual; got {len(spread)} spreads, "
            f"{len(residual)} residuals{'' if group is None else f' and {len(group)} groups'}"
        )
    if not (np.isfinite(spread) & np.isfinite(residual) & (spread >= 0)).all():
        raise InputError(
            "spreads and residuals must be finite, and spreads non-negative; remove the values without a label"
        )
    if not spread.any():
        raise InputError("conformal intervals need spreads above zero; are the members identical?")
