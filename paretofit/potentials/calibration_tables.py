"""Calibration tables of a committee: slopes, detection rates for pairs of thresholds, and coverage."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from paretofit.core import Array
from paretofit.potentials.committee_building import DISPLAY_UNITS
from paretofit.potentials.evaluation_tables import KINDS, NEW
from paretofit.uncertainty import Uncertainty, map_detection_scores

MIN_RELATIVE_ERROR = 1e-3  # ratio to the median error; smaller errors belong to forces that vanish by symmetry
MIN_CONFIGURATIONS = 5  # number of labelled configurations outside the training set that a table requires
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
    configurations. Held-out configurations do not test the calibration, because it was fitted to them. Quantities
    without a calibration or with too few labels are omitted. The keys are ``slopes``, ``detection`` and ``coverage``.
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
        line = uncertainty.fit_calibration(kind)
        slopes.append(
            [quantity, line.slope, line.slope_half_width, line.rms_residual * DISPLAY_UNITS[kind][0], test_set]
        )
        rates += _tabulate_rates(quantity, labelled_rows)
        coverages += _tabulate_coverage(
            quantity, uncertainty, test_set, evaluated_components[evaluated_components["quantity"] == quantity]
        )
    return {
        "slopes": pd.DataFrame(slopes, columns=list(SLOPE_COLUMNS)),
        "detection": pd.DataFrame(rates, columns=list(RATE_COLUMNS)),
        "coverage": pd.DataFrame(coverages, columns=list(COVERAGE_COLUMNS)),
    }


def _tabulate_rates(quantity: str, labelled_rows: pd.DataFrame) -> list[list[Any]]:
    """Return a row of detection rates for each pair of a limit of the disagreement and a limit of the error."""
    spread, error = (labelled_rows[f"{quantity}_{name}"].to_numpy() for name in ("std", "committee_error"))
    is_significant = error > MIN_RELATIVE_ERROR * np.median(error)
    spread, error = spread[is_significant], error[is_significant]
    spread_limits, error_limits = _space_limits(spread), _space_limits(error)
    maps = map_detection_scores(spread, error, spread_limits, error_limits)
    return [
        [quantity, spread_limits[i], error_limits[j], *(float(rates[i, j]) for rates in maps)]
        for i, j in np.ndindex(maps[0].shape)
    ]


def _tabulate_coverage(
    quantity: str, uncertainty: Uncertainty, test_set: str, components: pd.DataFrame
) -> list[list[Any]]:
    """Return, for each nominal coverage, the fractions of errors within conformal and within normal intervals."""
    kind = KINDS[quantity]
    factor, _ = DISPLAY_UNITS[kind]
    n_groups = uncertainty.calibration_data[kind].n_groups
    errors, std = components["error"].abs().to_numpy(), components["std"].to_numpy()
    rows = []
    for nominal_coverage in NOMINAL_COVERAGES:
        if (
            n_groups * (1 - nominal_coverage) < nominal_coverage
            or (interval := uncertainty.fit_interval(kind, nominal_coverage)) is None
        ):
            continue  # too few groups for a calibration of this coverage
        half_width = factor * interval.compute_half_width(std / factor)
        normal_coverage = np.mean(errors <= norm.ppf((1 + nominal_coverage) / 2) * std)
        rows.append([quantity, nominal_coverage, test_set, n_groups, np.mean(errors <= half_width), normal_coverage])
    return rows


def _space_limits(values: Array) -> Array:
    """Return thresholds from the smallest to the largest positive value, evenly spaced on a logarithmic axis."""
    positive_values = values[values > 0]
    if not len(positive_values):
        return np.array([1.0])  # no value is above any positive threshold
    return np.geomspace(positive_values.min(), positive_values.max(), N_LIMITS)
