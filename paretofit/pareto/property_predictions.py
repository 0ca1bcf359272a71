"""Prediction of the errors of properties for numbers of configurations that were not fitted, and texts about them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from paretofit.pareto.confidence import scale_intervals
from paretofit.pareto.learning_curve import HIGH_QUANTILE, LOW_QUANTILE
from paretofit.properties import get_property_name, is_property_error

SPLITS_COLUMN = "further_splits"  # column of results: number of further train/test splits behind the intervals


def predict_properties(rows: pd.DataFrame, measured_sizes: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """Predict the errors of properties of one setting for any numbers of configurations.

    The error of a single number, such as an elastic constant, follows no power law. Between two measured sizes, the
    prediction is therefore the larger of the errors at both; outside the measured range, it is the error at the nearest
    measured size.

    Parameters
    ----------
    rows : DataFrame
        Results of the setting, a row for each fit, with ``n_train`` and the errors of properties.
    measured_sizes : (m,) float64
        Numbers of configurations that occur in `rows`, in ascending order.
    sizes : (n,) float64
        Numbers of configurations at which errors are predicted.

    Returns
    -------
    dict of str to (n,) float64
        For each column with the error of a property, in its unit: its median over repetitions, or its geometric mean
        over splits if the results have further splits; and, with the suffixes ``_low`` and ``_high``, the ends of its
        80 % interval, which are NaN without further splits. Empty if the results have no properties.
    """
    names = [name for name in map(str, rows) if is_property_error(name)]
    if not names:
        return {}
    medians = rows.groupby("n_train").median(numeric_only=True).sort_index()
    # Positions of the nearest measured sizes on both sides; they are the same at a measured size.
    below = np.clip(np.searchsorted(measured_sizes, sizes, side="right") - 1, 0, None)
    above = np.clip(np.searchsorted(measured_sizes, sizes), None, len(measured_sizes) - 1)
    columns: dict[str, np.ndarray] = {}
    for name in names:
        errors = medians[name].to_numpy()
        ends = [f"{name}_low", f"{name}_high"]
        intervals = np.full((2, len(errors)), np.nan)
        if set(ends) <= set(medians):
            n_splits = medians[SPLITS_COLUMN].to_numpy()
            intervals = scale_intervals(medians[ends].to_numpy().T, n_splits, HIGH_QUANTILE - LOW_QUANTILE)
            # The mean over splits of the logarithms of the errors is the logarithm of the geometric mean of the ends.
            errors = np.where(np.isfinite(intervals[0]), np.sqrt(intervals[0] * intervals[1]), errors)
        positions = np.where(errors[above] > errors[below], above, below)
        columns |= {name: errors[positions], **dict(zip(ends, intervals[:, positions], strict=True))}
    return columns


def describe_properties(option: pd.Series, units: Mapping[str, str]) -> str:
    """Describe the errors of the properties of an option, such as ``"C11 12.3 GPa (10.1 to 14.2)"``.

    Parameters
    ----------
    option : Series
        A row of `paretofit.pareto.tabulate_options`.
    units : mapping of str to str
        Units by the name of the property.

    Returns
    -------
    str
        Errors that are not NaN, with their intervals if known, separated by commas; empty if there are none.
    """
    texts = []
    for name in map(str, option.index):
        # Models that are fitted to rows from a file have no properties: their errors are NaN in a table with others.
        if is_property_error(name) and not np.isnan(option[name]):
            low, high = (option.get(f"{name}_{end}", np.nan) for end in ("low", "high"))
            interval = f" ({low:.3g} to {high:.3g})" if np.isfinite(low) else ""
            property_name = get_property_name(name)
            unit = f" {units[property_name]}" if property_name in units else ""
            texts.append(f"{property_name} {option[name]:.3g}{unit}{interval}")
    return ", ".join(texts)
