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
MIN_SETTINGS = 5  # number of settings of a rank correlation
MIN_SPLITS = 3  # number of splits, the study's own included, for an interval


class _Choice(NamedTuple):
    """Part of a row of the numbers."""

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
        Yes if the correlation with the geometric mean of both errors is clearly above zero for every property, no if it
        is for none, mixed otherwise; None without properties or with fewer than five settings. ``numbers`` has a row
        for each property: the rank correlations (C. Spearman, Am. J. Psychol. 15, 72 (1904)) with their 90 % intervals,
        the property's error of the setting with the lowest errors of energies and forces, the lowest error of the
        property, and the setting that has it.
    """
    columns = [name for name in map(str, results) if is_property_error(name)]
    medians = _compute_medians(results, columns)
    if not columns or len(medians) < MIN_SETTINGS:
        return None
    numbers = pd.DataFrame([_describe_property(column, medians, split_errors) for column in columns])
    is_clear = numbers["rank_both_low"].fillna(-np.inf) > 0
    status: FindingStatus = "yes" if is_clear.all() else "no" if not is_clear.any() else "mixed"
    dots = FindingDots.collect(
        numbers, numbers["property"], {kind: f"rank_{kind}" for kind in ERROR_KINDS.values()},
        "rank correlation with the error of the property", reference=0.0,
    )  # fmt: skip
    answer = f"{_describe_ranking(numbers, is_clear)} {_describe_choice(numbers)}"
    return Finding("properties", QUESTION, status, answer, numbers=numbers, dots=dots)


def _compute_medians(results: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Compute the medians over repetitions of all errors; ``both`` is the geometric mean of energy and force errors."""
    table = results.assign(weight_ratio=compute_weight_ratio(results))
    medians = table.groupby(SETTING)[[*ERROR_KINDS, *columns]].median().reset_index()
    medians["both"] = np.sqrt(medians["ref_energy"] * medians["ref_force"])
    finite: pd.DataFrame = medians[np.isfinite(medians["both"])].reset_index(drop=True)
    return finite


def _describe_property(column: str, medians: pd.DataFrame, split_errors: PairedErrors | None) -> dict[str, object]:
    row: dict[str, object] = {"property": get_property_name(column)}
    for kind, name in {**{kind: name for name, kind in ERROR_KINDS.items()}, "both": "both"}.items():
        errors = medians[name].to_numpy()
        correlations = [_correlate(errors, medians[column].to_numpy())]
        if split_errors is not None and column in split_errors.errors:
            first_samples = {name: values[:, 0] for name, values in split_errors.errors.items()}
            mean_errors = np.sqrt(first_samples["ref_energy"].astype(float) * first_samples["ref_force"])
            values = mean_errors if name == "both" else first_samples[name]
            correlations += [_correlate(*pair) for pair in zip(values, first_samples[column], strict=True)]
        low, high = _estimate_interval(correlations, len(medians))
        row |= {f"rank_{kind}": correlations[0], f"rank_{kind}_low": low, f"rank_{kind}_high": high}
    records = medians.to_dict("records")
    chosen, best = records[int(medians["both"].argmin())], records[int(medians[column].argmin())]
    row |= {"error_of_lowest_errors": chosen[column], "lowest_error": best[column]}
    return row | {name: best[name] for name in [*SETTING, *ERROR_KINDS]}


def _correlate(first: Array, second: Array) -> float:
    """Rank correlation; errors of properties that are not defined are infinite, and thus the largest."""
    is_known = ~np.isnan(first) & ~np.isnan(second)
    if is_known.sum() < MIN_SETTINGS or np.ptp(first[is_known]) == 0:
        return float("nan")
    return float(stats.spearmanr(stats.rankdata(first[is_known]), stats.rankdata(second[is_known])).statistic)


def _estimate_interval(correlations: Sequence[float], n_settings: int) -> tuple[float, float]:
    """Estimate the 90 % interval of the correlation in a new split, from those of several splits.

    Their inverse hyperbolic tangents are treated as a sample of a normal distribution (R. A. Fisher, Metron 1, 3
    (1921)), as in `paretofit.pareto.estimate_intervals`. A perfect correlation counts as half a step below 1, the step
    being the exchange of two neighbouring ranks, so that the tangent is finite.
    """
    values = np.array(correlations)
    n = len(values)
    if n < MIN_SPLITS or not np.isfinite(values).all():
        return float("nan"), float("nan")
    limit = 1 - 6 / (n_settings * (n_settings**2 - 1))
    z = np.arctanh(np.clip(values, -limit, limit))
    half_width = stats.t.ppf((1 + INTERVAL_COVERAGE) / 2, n - 1) * np.sqrt(z.var(ddof=1) * (1 + 1 / n))
    low, high = np.tanh(z.mean() + np.array([-1, 1]) * half_width)
    return float(low), float(high)


def _describe_ranking(numbers: pd.DataFrame, is_clear: pd.Series) -> str:
    """Name the properties that the errors of energies and forces rank, and the others, with their correlations."""
    if numbers["rank_both_low"].isna().all():
        values = join_items(f"{row.property} {row.rank_both:.2f}" for row in numbers.itertuples())
        return (
            "The rank correlations of the geometric mean of both errors with the errors of the properties are: "
            f"{values}. With fewer than two further splits, no correlation is clear."
        )
    is_reverse = numbers["rank_both_high"].fillna(np.inf) < 0
    texts = []
    for mask, text in (
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
            texts.append(f"{text} {names}")
    counts = f"{is_clear.sum()} of {len(numbers)} properties"
    reverse = f", and higher errors of {is_reverse.sum()}" if is_reverse.any() else ""
    return (
        f"Settings with lower errors of energies and forces clearly have lower errors of {counts}{reverse}. They "
        f"{'; they '.join(texts)}. In brackets: the rank correlation "
        "with the geometric mean of both errors, and its 90 % interval."
    )


def _describe_choice(numbers: pd.DataFrame) -> str:
    """Compare the property's error of the setting with the lowest errors with the lowest error of the property."""
    texts = [
        f"{row.property}: {format_number(row.error_of_lowest_errors)}, lowest {format_number(row.lowest_error)} at "
        f"w_E/w_F = {format_ratio(row.weight_ratio)}"
        for row in map(_Choice._make, numbers[list(_Choice._fields)].itertuples(index=False))
    ]
    return f"The setting with the lowest errors has these errors of properties: {'; '.join(texts)}."
