"""Finding on properties: whether errors of energies and forces rank settings as the errors of properties do."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from paretofit.core import Array
from paretofit.pareto import INTERVAL_COVERAGE
from paretofit.properties import get_property_name, is_property_error
from paretofit.report.findings.finding import Finding, FindingDots, FindingStatus
from paretofit.report.paired_errors import PairedErrors
from paretofit.report.tables.summaries import ERROR_KINDS, SETTING, compute_weight_ratio
from paretofit.report.wording import format_number, format_ratio, join_items

QUESTION = "Do the errors of energies and forces rank settings as the errors of properties do?"
MIN_SETTINGS = 5  # number of settings; with fewer, there is no rank correlation
MIN_SPLITS = 3  # number of splits, the study's own included; with fewer, there is no interval


class _PropertyErrors(NamedTuple):
    """Columns of the numbers that `_describe_lowest_errors` reads."""

    property: str
    error_of_lowest_errors: float
    lowest_error: float
    weight_ratio: float


def assess_properties(results: pd.DataFrame, split_errors: PairedErrors | None = None) -> Finding | None:
    """Compute the rank correlation of each property's error with the errors of energies and forces over all settings.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å, and the units of the properties)
    split_errors : errors in further train/test splits, for the intervals

    Returns
    -------
    Finding or None
        Yes if the correlation with the geometric mean of both errors is clearly above zero for every property, no if
        it is clearly above zero for none, mixed otherwise. ``numbers`` has a row for each property: the rank
        correlations (C. Spearman, Am. J. Psychol. 15, 72 (1904)) with their 90 % intervals; ``error_of_lowest_errors``,
        the error of the property in the setting with the lowest geometric mean of both errors; ``lowest_error``, the
        lowest error of the property; and the setting with this error. None without properties or with fewer than five
        settings.
    """
    columns = [name for name in map(str, results) if is_property_error(name)]
    medians = _compute_medians(results, columns)
    if not columns or len(medians) < MIN_SETTINGS:
        return None
    numbers = pd.DataFrame([_tabulate_property(column, medians, split_errors) for column in columns])
    is_clear = numbers["rank_both_low"].fillna(-np.inf) > 0
    status: FindingStatus = "yes" if is_clear.all() else "no" if not is_clear.any() else "mixed"
    dots = FindingDots.collect(
        numbers, numbers["property"], {kind: f"rank_{kind}" for kind in ERROR_KINDS.values()},
        "rank correlation with the error of the property", reference=0.0,
    )  # fmt: skip
    answer = f"{_describe_ranking(numbers, is_clear)} {_describe_lowest_errors(numbers)}"
    return Finding("properties", QUESTION, status, answer, numbers=numbers, dots=dots)


def _compute_medians(results: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Compute the medians over repetitions of the errors of each setting with finite energy and force errors.

    ``both`` is the geometric mean of the energy and force errors; `columns` are those of the properties.
    """
    table = results.assign(weight_ratio=compute_weight_ratio(results))
    medians = table.groupby(SETTING)[[*ERROR_KINDS, *columns]].median().reset_index()
    medians["both"] = np.sqrt(medians["ref_energy"] * medians["ref_force"])
    finite: pd.DataFrame = medians[np.isfinite(medians["both"])].reset_index(drop=True)
    return finite


def _tabulate_property(column: str, medians: pd.DataFrame, split_errors: PairedErrors | None) -> dict[str, object]:
    """Compute the row of the numbers for the property with its error in `column`."""
    row: dict[str, object] = {"property": get_property_name(column)}
    # the first sample is the test set of a split; the errors by column have the shape (n_splits, n_settings)
    split_test_errors: dict[str, Array] = {}
    if split_errors is not None and column in split_errors.errors:
        split_test_errors = {name: errors[:, 0] for name, errors in split_errors.errors.items()}
        energy_errors, force_errors = split_test_errors["ref_energy"], split_test_errors["ref_force"]
        split_test_errors["both"] = np.sqrt(energy_errors.astype(float) * force_errors)
    column_by_kind = {kind: name for name, kind in ERROR_KINDS.items()} | {"both": "both"}
    for kind, name in column_by_kind.items():
        correlations = [_compute_rank_correlation(medians[name].to_numpy(), medians[column].to_numpy())]
        if split_test_errors:
            pairs = zip(split_test_errors[name], split_test_errors[column], strict=True)
            correlations += [_compute_rank_correlation(*pair) for pair in pairs]
        low, high = _estimate_interval(correlations, len(medians))
        row |= {f"rank_{kind}": correlations[0], f"rank_{kind}_low": low, f"rank_{kind}_high": high}
    records = medians.to_dict("records")
    # settings with the lowest mean of energy and force errors, and with the lowest error of the property
    lowest, best = records[int(medians["both"].argmin())], records[int(medians[column].argmin())]
    row |= {"error_of_lowest_errors": lowest[column], "lowest_error": best[column]}
    return row | {name: best[name] for name in [*SETTING, *ERROR_KINDS]}


def _compute_rank_correlation(errors: Array, property_errors: Array) -> float:
    """Compute the rank correlation of two errors of settings, each ``(n_settings,)`` with NaN if it is unknown.

    The result is NaN with fewer than five settings or if all errors are equal.
    """
    is_known = ~np.isnan(errors) & ~np.isnan(property_errors)
    if is_known.sum() < MIN_SETTINGS or np.ptp(errors[is_known]) == 0:
        return float("nan")
    # a property that is not defined for a setting has an infinite error, whose rank is the highest
    ranks, property_ranks = stats.rankdata(errors[is_known]), stats.rankdata(property_errors[is_known])
    return float(stats.spearmanr(ranks, property_ranks).statistic)


def _estimate_interval(correlations: Sequence[float], n_settings: int) -> tuple[float, float]:
    """Estimate the 90 % interval of the rank correlation in a new split, from the correlations in several splits.

    The inverse hyperbolic tangents z of the correlations are treated as a sample of a normal distribution (R. A.
    Fisher, Metron 1, 3 (1921)), as in `paretofit.pareto.estimate_intervals`. Without enough splits, the ends are NaN.
    """
    n_splits = len(correlations)
    if n_splits < MIN_SPLITS or not np.isfinite(correlations).all():
        return float("nan"), float("nan")
    # A perfect correlation, whose z is infinite, counts as a little less than 1: the exchange of two neighbouring ranks
    # would lower it by twice this difference.
    limit = 1 - 6 / (n_settings * (n_settings**2 - 1))
    z = np.arctanh(np.clip(correlations, -limit, limit))
    t_quantile = stats.t.ppf((1 + INTERVAL_COVERAGE) / 2, n_splits - 1)
    half_width = t_quantile * np.sqrt(z.var(ddof=1) * (1 + 1 / n_splits))
    low, high = np.tanh(z.mean() + np.array([-1, 1]) * half_width)
    return float(low), float(high)


def _describe_ranking(numbers: pd.DataFrame, is_clear: pd.Series) -> str:
    """Describe for which properties settings with lower errors clearly have lower or higher errors, or neither.

    `is_clear` is true for properties with a correlation that is clearly above zero.
    """
    if numbers["rank_both_low"].isna().all():
        correlations = join_items(f"{row.property} {row.rank_both:.2f}" for row in numbers.itertuples())
        return (
            "The rank correlations of the geometric mean of both errors with the errors of the properties are: "
            f"{correlations}. With fewer than two further splits, no correlation is clear."
        )
    is_reverse = numbers["rank_both_high"].fillna(np.inf) < 0
    clauses = []
    for mask, verb_phrase in (
        (is_clear, "clearly have lower errors of"),
        (is_reverse, "clearly have higher errors of"),
        (~is_clear & ~is_reverse, "have no clearly lower or higher errors of"),
    ):
        rows = numbers[mask]
        if len(rows):
            names = join_items(
                f"{row.property} ({row.rank_both:.2f}, {row.rank_both_low:.2f} to {row.rank_both_high:.2f})"
                for row in rows.itertuples()
            )
            clauses.append(f"{verb_phrase} {names}")
    counts = f"{is_clear.sum()} of {len(numbers)} properties"
    reverse = f", and higher errors of {is_reverse.sum()}" if is_reverse.any() else ""
    return (
        f"Settings with lower errors of energies and forces clearly have lower errors of {counts}{reverse}. They "
        f"{'; they '.join(clauses)}. In brackets: the rank correlation "
        "with the geometric mean of both errors, and its 90 % interval."
    )


def _describe_lowest_errors(numbers: pd.DataFrame) -> str:
    """Describe each property's error in the setting with the lowest errors, and the lowest error of the property."""
    property_texts = [
        f"{row.property}: {format_number(row.error_of_lowest_errors)}, lowest {format_number(row.lowest_error)} at "
        f"w_E/w_F = {format_ratio(row.weight_ratio)}"
        for row in map(_PropertyErrors._make, numbers[list(_PropertyErrors._fields)].itertuples(index=False))
    ]
    return f"The setting with the lowest errors has these errors of properties: {'; '.join(property_texts)}."
