"""Tables that show the calibration of a committee: slopes, detection rates for pairs of thresholds, and coverage."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from paretofit.core import Array
from paretofit.potentials.committee_building import DISPLAY_UNITS
from paretofit.potentials.evaluation_tables import KINDS, NEW
from paretofit.uncertainty import Uncertainty, map_detection_scores

MIN_RELATIVE_ERROR = 1e-3  # relative to the median error; smaller errors occur if forces vanish by symmetry
MIN_CONFIGURATIONS = 5  # minimum number of labelled configurations outside the training set for a table
N_LIMITS = 40  # number of thresholds along each axis of the map of detection rates
NOMINAL_COVERAGES = np.linspace(0.05, 0.95, 19)
SLOPE_COLUMNS = ("quantity", "slope", "confidence", "residual", "test_set")
RATE_COLUMNS = ("quantity", "spread_limit", "error_limit", "true_positive_rate", "positive_predictive_value")
COVERAGE_COLUMNS = ("quantity", "nominal", "test_set", "calibrated_on", "conformal", "spread")


def build_calibration_tables(
    uncertainty: Uncertainty, table: pd.DataFrame, components: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Tabulate slopes of the calibration, detection rates for pairs of thresholds, and coverage.

    Rates and coverage are evaluated on new configurations or, if fewer than `MIN_CONFIGURATIONS` are new, on held-out
    configurations. The latter do not test the calibration, because it was fitted to them.

    Parameters
    ----------
    uncertainty : Uncertainty
    table, components : pandas.DataFrame
        Tables of `build_evaluation_tables`, of the same configurations.

    Returns
    -------
    dict of str to pandas.DataFrame
        ``slopes`` has the columns `SLOPE_COLUMNS`, which are described in `SlopeCalibration` (``confidence`` is
        `slope_half_width`, ``residual`` is `rms_residual`). ``detection`` has the columns `RATE_COLUMNS`; the rates are
        those of `score_detection` for the limits in the row. ``coverage`` has the columns `COVERAGE_COLUMNS`:
        ``calibrated_on`` is the number of calibration groups, and ``conformal`` and ``spread`` are measured coverages
        of two kinds of intervals with the coverage ``nominal``. Errors and disagreements are in meV/atom, meV/Å and
        GPa. Quantities without a calibration, or with fewer than `MIN_CONFIGURATIONS` labels, are omitted.
    """
    slopes, rates, coverages = [], [], []
    test_set = NEW if (table["set"] == NEW).sum() >= MIN_CONFIGURATIONS else "held out"
    evaluated_rows = table[table["set"] == test_set]
    evaluated_components = components[
        components["configuration"].isin(evaluated_rows.index) & components["error"].notna()
    ]
    for quantity, kind in KINDS.items():
        labelled_rows = evaluated_rows[evaluated_rows[f"{quantity}_error"].notna()]
        if kind not in uncertainty.calibration_data or len(labelled_rows) < MIN_CONFIGURATIONS:
            continue
        factor, _ = DISPLAY_UNITS[kind]
        line = uncertainty.fit_calibration(kind)
        slopes.append([quantity, line.slope, line.slope_half_width, factor * line.rms_residual, test_set])
        rates += _tabulate_rates(quantity, labelled_rows)
        quantity_components = evaluated_components[evaluated_components["quantity"] == quantity]
        coverages += _tabulate_coverage(quantity, uncertainty, test_set, quantity_components)
    return {
        "slopes": pd.DataFrame(slopes, columns=list(SLOPE_COLUMNS)),
        "detection": pd.DataFrame(rates, columns=list(RATE_COLUMNS)),
        "coverage": pd.DataFrame(coverages, columns=list(COVERAGE_COLUMNS)),
    }


def _tabulate_rates(quantity: str, labelled_rows: pd.DataFrame) -> list[list[Any]]:
    """Return a row of `RATE_COLUMNS` for each pair of a threshold of the disagreement and a threshold of the error.

    Configurations whose error is below `MIN_RELATIVE_ERROR` times the median are omitted.
    """
    spread, error = (labelled_rows[f"{quantity}_{name}"].to_numpy() for name in ("std", "committee_error"))
    is_significant = error > MIN_RELATIVE_ERROR * np.median(error)
    spread, error = spread[is_significant], error[is_significant]
    spread_limits, error_limits = _space_limits(spread), _space_limits(error)
    rate_maps = map_detection_scores(spread, error, spread_limits, error_limits)
    return [
        [quantity, spread_limits[i], error_limits[j], *(float(rate_map[i, j]) for rate_map in rate_maps)]
        for i, j in np.ndindex(rate_maps[0].shape)
    ]


def _tabulate_coverage(
    quantity: str, uncertainty: Uncertainty, test_set: str, components: pd.DataFrame
) -> list[list[Any]]:
    """Return a row of `COVERAGE_COLUMNS` for each nominal coverage for which there are enough calibration groups.

    ``conformal`` is the fraction of errors within conformal intervals, and ``spread`` that within the intervals of a
    normal distribution whose standard deviation is the disagreement.
    """
    kind = KINDS[quantity]
    factor, _ = DISPLAY_UNITS[kind]
    n_groups = uncertainty.calibration_data[kind].n_groups
    errors, std = components["error"].abs().to_numpy(), components["std"].to_numpy()
    rows = []
    for nominal_coverage in NOMINAL_COVERAGES:
        if n_groups * (1 - nominal_coverage) < nominal_coverage:
            continue  # a conformal interval of this coverage requires more groups
        interval = uncertainty.fit_interval(kind, nominal_coverage)
        if interval is None:  # excluded by the condition above; for type checkers
            continue
        half_width = factor * interval.compute_half_width(std / factor)
        normal_coverage = np.mean(errors <= norm.ppf((1 + nominal_coverage) / 2) * std)
        rows.append([quantity, nominal_coverage, test_set, n_groups, np.mean(errors <= half_width), normal_coverage])
    return rows


def _space_limits(values: Array) -> Array:
    """Return `N_LIMITS` thresholds from the smallest to the largest positive value, with a constant ratio."""
    positive_values = values[values > 0]
    if not len(positive_values):
        return np.array([1.0])  # an arbitrary threshold, because no value is above any positive threshold
    return np.geomspace(positive_values.min(), positive_values.max(), N_LIMITS)
