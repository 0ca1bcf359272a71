"""Predictions of the errors of properties at numbers of configurations that were not fitted, and texts about them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from paretofit.pareto.confidence import scale_intervals
from paretofit.pareto.learning_curve import HIGH_QUANTILE, LOW_QUANTILE
from paretofit.properties import get_property_name, is_property_error

SPLITS_COLUMN = "further_splits"  # column of results: number of further train/test splits of the intervals


def predict_properties(rows: pd.DataFrame, measured_sizes: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """Predict the errors of properties of one setting; between measured sizes, the larger error of the adjacent ones.

    The error of a single number, such as an elastic constant, follows no power law.

    Parameters
    ----------
    rows : DataFrame
        Results of the setting, a row for each fit.
    measured_sizes : (m,) float64
        Ascending.
    sizes : (n,) float64

    Returns
    -------
    mapping of str to (n,) float64
        By the column of results: medians, or with further splits means over splits, which have ``_low`` and ``_high``,
        the ends of 80 % intervals.
    """
    names = [name for name in map(str, rows) if is_property_error(name)]
    if not names:
        return {}
    medians = rows.groupby("n_train").median(numeric_only=True).sort_index()
    below = np.clip(np.searchsorted(measured_sizes, sizes, side="right") - 1, 0, None)
    above = np.clip(np.searchsorted(measured_sizes, sizes), None, len(measured_sizes) - 1)
    columns: dict[str, np.ndarray] = {}
    for name in names:
        errors, ends = medians[name].to_numpy(), [f"{name}_low", f"{name}_high"]
        intervals = np.full((2, len(errors)), np.nan)
        if set(ends) <= set(medians):
            n_splits = medians[SPLITS_COLUMN].to_numpy()
            intervals = scale_intervals(medians[ends].to_numpy().T, n_splits, HIGH_QUANTILE - LOW_QUANTILE)
            errors = np.where(np.isfinite(intervals[0]), np.sqrt(intervals[0] * intervals[1]), errors)
        positions = np.where(errors[above] > errors[below], above, below)
        columns |= {name: errors[positions], **dict(zip(ends, intervals[:, positions], strict=True))}
    return columns


def describe_properties(option: pd.Series, units: Mapping[str, str]) -> str:
    """Describe the errors of the properties of an option with their intervals; empty without properties."""
    texts = []
    for name in map(str, option.index):
        if is_property_error(name) and not np.isnan(option[name]):  # the models of given rows have no properties
            low, high = (option.get(f"{name}_{end}", np.nan) for end in ("low", "high"))
            interval = f" ({low:.3g} to {high:.3g})" if np.isfinite(low) else ""
            property_name = get_property_name(name)
            unit = f" {units[property_name]}" if property_name in units else ""
            texts.append(f"{property_name} {option[name]:.3g}{unit}{interval}")
    return ", ".join(texts)
