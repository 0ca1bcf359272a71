"""Findings of a study with a single convergence level: on the learning curve, weights, model sizes and MD speed."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from paretofit.pareto import INTERVAL_COVERAGE, MD_COST_COLUMN
from paretofit.report.findings.finding import Finding, FindingDots
from paretofit.report.paired_errors import (
    INTERVAL_SUFFIXES,
    MIN_DRAWS,
    MIN_RELATIVE_CHANGE,
    NO_CLEAR_DIFFERENCE,
    ErrorComparison,
    PairedErrors,
    compute_central_interval,
)
from paretofit.report.tables import summaries
from paretofit.report.tables.table_text import insert_intervals
from paretofit.report.wording import format_count, format_number, format_ratio, join_items, join_sentences

QUESTIONS = {
    "learning": "What do more configurations gain?",
    "weights": "Which energy-to-force weight ratio gives the lowest errors?",
    "models": "Which 2Jmax, at which MD speed?",
}
CRITERIA = {  # names of the criteria for the best weights, by their column in the medians
    "ref_energy": "the lowest energy error", "ref_force": "the lowest force error", "both": "the lowest product of both"
}  # fmt: skip
COMPARED_ERRORS = {"both": list(summaries.ERROR_KINDS)}  # errors in a product; other criteria are single errors
MIN_RELATIVE_GAIN = 0.05  # relative decrease of the errors; with less, a larger model is not worth its MD cost


def collect_single_level_findings(
    results: pd.DataFrame, level: str, split_errors: PairedErrors | None = None
) -> list[Finding]:
    """Collect the findings on sizes, weights and models of a study with one level.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    level : name of the level
    split_errors : errors in further train/test splits; by default the repetitions are compared

    Returns
    -------
    list of Finding
        The findings of `QUESTIONS`, in this order; without numbers if no setting has finite errors above zero.
    """
    comparison = ErrorComparison(results.assign(level=results["level"].astype(str)), split_errors)
    medians = summaries.select_finite_rows(
        summaries.compute_medians(results, [level]), list(summaries.ERROR_KINDS), positive=True
    )
    # The geometric mean ranks settings by both errors, independently of their units.
    medians = medians.assign(both=np.sqrt(medians["ref_energy"] * medians["ref_force"]))
    if medians.empty:
        reason = "No setting has finite errors on the test set."
        return [Finding(name, question, "measured", reason) for name, question in QUESTIONS.items()]
    return [
        _assess_learning(medians, comparison), _assess_weights(medians, comparison), _assess_models(medians, comparison)
    ]  # fmt: skip


def _build_finding(name: str, text: str, numbers: pd.DataFrame, dots: FindingDots | None = None) -> Finding:
    """Build the finding on the question with a name, a key of `QUESTIONS`."""
    return Finding(name, QUESTIONS[name], "measured", text, numbers=numbers, dots=dots)


def _assess_learning(medians: pd.DataFrame, comparison: ErrorComparison) -> Finding:
    """Assess the lowest errors of each subset size, their changes to the next size, and the effect of doubling."""
    by_size = medians.groupby("n_train")
    best = medians.loc[by_size["both"].idxmin()].sort_values("n_train", ignore_index=True)
    columns = ["n_train", "twojmax", "weight_ratio", "sampling", *summaries.ERROR_KINDS]
    numbers = best[insert_intervals(columns, best)].assign(**_compare_adjacent_sizes(best, comparison))
    size_list = join_items(f"{size:,}" for size in best["n_train"])
    energies, forces = (" → ".join(map(format_number, best[column])) for column in summaries.ERROR_KINDS)
    text = (
        f"With {size_list} configurations, the setting with the lowest √(energy error · force error) has errors of "
        f"{energies} meV/atom and {forces} meV/Å."
    )
    gain, source = _describe_doubling(best, comparison)
    return _build_finding("learning", join_sentences(gain, text, source), numbers)


def _compare_adjacent_sizes(best: pd.DataFrame, comparison: ErrorComparison) -> dict[str, list[Any]]:
    """Compare the errors of each size with those of the next smaller one.

    Returns
    -------
    dict of str to list
        Columns with an element for each size, such as ``energy_factor``, ``energy_factor_low``, ``energy_factor_high``
        and the change ``energy``; the elements of the smallest size are NaN and ``""``.
    """
    rows = best.to_dict("records")
    columns: dict[str, list[Any]] = {}
    for column, kind in summaries.ERROR_KINDS.items():
        factors = [comparison.estimate_ratio(column, before, after) for before, after in pairwise(rows)]
        factor_columns = zip((np.nan,) * len(INTERVAL_SUFFIXES), *factors, strict=True)
        for suffix, factor_column in zip(INTERVAL_SUFFIXES, factor_columns, strict=True):
            columns[f"{kind}_factor{suffix}"] = list(factor_column)
        changes = [comparison.classify_change(column, before, after) for before, after in pairwise(rows)]
        columns[kind] = ["", *changes]
    return columns


def _describe_doubling(best: pd.DataFrame, comparison: ErrorComparison) -> tuple[str, str]:
    """Describe how the errors change if the number of configurations doubles, from a fit to the upper half of sizes.

    An interval is that of fits to the errors of the same settings in each of the paired samples.

    Returns
    -------
    text, source : str
        Sentences on the changes and on the source of their intervals; the second is empty with a single size.
    """
    if len(best) < 2:
        reason = "Only one size was tested, so there is no learning curve: add smaller ones to 'sizes' in the study."
        return reason, ""
    n_upper = max(2, len(best) - len(best) // 2)  # a slope requires two sizes
    upper = best.iloc[-n_upper:]
    changes = []
    for column, kind in summaries.ERROR_KINDS.items():
        factor = _fit_doubling_factors(upper["n_train"], upper[[column]].to_numpy(dtype=float).T)[0]
        samples = comparison.collect_samples([column], upper.to_dict("records"))
        low, high = compute_central_interval(_fit_doubling_factors(upper["n_train"], samples))
        is_clear = factor < 1 - MIN_RELATIVE_CHANGE and high < 1
        interval = f"90 % interval {format_number(low)} to {format_number(high)}" if len(samples) else "no interval"
        changes.append(
            f"the {kind} error by a factor of {format_number(factor)} "
            f"({interval}{'' if is_clear else ', no clear gain'})"
        )
    smallest, largest = upper["n_train"].iloc[0], upper["n_train"].iloc[-1]
    text = f"Between {smallest:,} and {largest:,} configurations, doubling their number changes {join_items(changes)}."
    source = (
        f"The interval is the central {100 * INTERVAL_COVERAGE:.0f} % of fits to errors of the same settings in "
        f"{comparison.sample_description}, at least {MIN_DRAWS} different ones. There is no clear gain if "
        f"it contains 1, or if the errors fall by less than {100 * MIN_RELATIVE_CHANGE:.0f} %."
    )
    return text, source


def _fit_doubling_factors(sizes: pd.Series, errors: np.ndarray) -> np.ndarray:
    """Fit power laws to errors; return the factors by which the errors change if the size doubles.

    Parameters
    ----------
    sizes : (n_sizes,) numbers of configurations, at least two different ones
    errors : (n_samples, n_sizes) float

    Returns
    -------
    (n_finite_samples,) float64
        Samples with errors that are not positive and finite are omitted.
    """
    with np.errstate(divide="ignore"):
        log_errors = np.log(errors)
    log_errors = log_errors[np.isfinite(log_errors).all(axis=1)]
    log_sizes = np.log(sizes.to_numpy(dtype=float))
    centred_log_sizes = log_sizes - log_sizes.mean()
    exponents = log_errors @ centred_log_sizes / (centred_log_sizes @ centred_log_sizes)  # slopes of least squares
    return np.asarray(2.0**exponents)


def _assess_weights(medians: pd.DataFrame, comparison: ErrorComparison) -> Finding:
    """Assess which weight ratios have the lowest errors, for the largest model at the largest subset."""
    rows = summaries.select_largest_subset(medians)
    rows = rows[rows["twojmax"] == rows["twojmax"].max()].sort_values("weight_ratio")
    numbers = rows[insert_intervals(["twojmax", "weight_ratio", *summaries.ERROR_KINDS], rows)]
    clauses = []
    for column, criterion in CRITERIA.items():
        row = rows.iloc[int(rows[column].argmin())]
        is_tied = comparison.find_ties(COMPARED_ERRORS.get(column, [column]), rows, row.to_dict())
        ties = join_items(format_ratio(ratio) for ratio in rows.loc[is_tied, "weight_ratio"])
        tie_text = f"; {NO_CLEAR_DIFFERENCE} from {ties}" if ties else ""
        clauses.append(
            f"w_E/w_F = {format_ratio(row['weight_ratio'])} gives {criterion} ({format_number(row['ref_energy'])} "
            f"meV/atom, {format_number(row['ref_force'])} meV/Å{tie_text})"
        )
    text = f"At 2Jmax = {rows['twojmax'].iloc[0]}, trained on {summaries.describe_subset(rows)}, {join_items(clauses)}."
    if rows["weight_ratio"].nunique() < 2:
        ratio = format_ratio(rows["weight_ratio"].iloc[0])
        text = f"All fits have w_E/w_F = {ratio}: add further ratios to 'weights' in the study to compare them."
    return _build_finding("weights", text, numbers)


def _assess_models(medians: pd.DataFrame, comparison: ErrorComparison) -> Finding:
    """Assess the best errors and the MD speed of each 2Jmax at the largest subset."""
    rows = summaries.select_largest_subset(medians)
    best = rows.loc[rows.groupby("twojmax")["both"].idxmin()].sort_values("twojmax", ignore_index=True)
    cost_columns = [name for name in ("n_features", MD_COST_COLUMN) if name in best]
    columns = ["twojmax", "weight_ratio", *summaries.ERROR_KINDS, *cost_columns]
    model_texts = [
        f"2Jmax = {row['twojmax']}: {format_number(row['ref_energy'])} meV/atom and "
        f"{format_number(row['ref_force'])} meV/Å{_format_speed(row)}"
        for _, row in best.iterrows()
    ]
    lead = f"Trained on {summaries.describe_subset(best)}, at the w_E/w_F with the lowest product of both errors"
    text = f"{lead}: {'; '.join(model_texts)}. {_recommend_size(best, comparison)}".strip()
    numbers = best[insert_intervals(columns, best)].copy()
    lowest = best.iloc[int(best["both"].argmin())].to_dict()
    for column, kind in summaries.ERROR_KINDS.items():
        ratios = [comparison.estimate_ratio(column, lowest, row) for row in best.to_dict("records")]
        for suffix, ratio_column in zip(INTERVAL_SUFFIXES, zip(*ratios, strict=True), strict=True):
            numbers[f"{kind}_to_lowest{suffix}"] = ratio_column
    groups, label = "2Jmax " + numbers["twojmax"].astype(str), f"error / error at 2Jmax {lowest['twojmax']}"
    columns_by_kind = {kind: f"{kind}_to_lowest" for kind in summaries.ERROR_KINDS.values()}
    return _build_finding("models", text, numbers, FindingDots.collect(numbers, groups, columns_by_kind, label))


def _format_speed(row: pd.Series) -> str:
    """Format the MD speed of a model, to be appended to its errors; empty if the speed is unknown."""
    cost = row.get(MD_COST_COLUMN, np.nan)  # µs per atom and step
    return f", {format_number(1e6 / cost)} atom-steps/s of MD on one core" if np.isfinite(cost) and cost > 0 else ""


def _recommend_size(best: pd.DataFrame, comparison: ErrorComparison) -> str:
    """Name the smallest model whose errors are at most `MIN_RELATIVE_GAIN` above the lowest, or not clearly above them.

    `best` has a row for each 2Jmax, in ascending order. With a single 2Jmax, the text is empty.
    """
    if len(best) < 2:
        return ""
    lowest = best.iloc[int(best["both"].argmin())]
    is_close = (best["both"] <= lowest["both"] * (1 + MIN_RELATIVE_GAIN)).to_numpy()
    is_tied = comparison.find_ties(list(summaries.ERROR_KINDS), best, lowest.to_dict())
    smallest = best[is_close | is_tied].iloc[0]
    if smallest["twojmax"] == best["twojmax"].iloc[-1]:
        return "The largest model has the lowest errors; a still larger one may be better."
    n_larger = int((best["twojmax"] > smallest["twojmax"]).sum())
    return (
        f"{format_count(n_larger, 'larger model')} {'does' if n_larger == 1 else 'do'} not clearly lower the errors by "
        f"more than {100 * MIN_RELATIVE_GAIN:.0f} % compared with 2Jmax = {smallest['twojmax']}."
    )
