"""Finding on mixtures of levels: whether a few accurate labels on top of many cheap ones pay, and from which budget."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from paretofit import pareto
from paretofit.core import Array
from paretofit.pareto import BASIS_COLUMN, INTERVAL_COVERAGE, compute_sign_shares, describe_size
from paretofit.report.findings.finding import Finding, FindingDots, FindingStatus
from paretofit.report.paired_errors import (
    NO_CLEAR_DIFFERENCE,
    ErrorComparison,
    PairedErrors,
    compute_central_interval,
)
from paretofit.report.rivals import choose_within_budget, compute_size_factors, get_setting
from paretofit.report.tables.summaries import ERROR_KINDS, select_single_levels
from paretofit.report.wording import format_duration, format_number, join_items

MAX_LISTED_BUDGETS = 3  # number of budgets listed in the first sentence
QUESTION = "Do mixtures of levels pay, and from which budget on?"


def assess_mixtures(results: pd.DataFrame, split_errors: PairedErrors | None = None) -> Finding | None:
    """Compare the best mixture with the best setting of a single level that costs no more, for each cost of a mixture.

    The best one has the lowest product of the expected energy and force errors.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å, s), of all bases
    split_errors : errors in further train/test splits; by default the repetitions are compared

    Returns
    -------
    Finding or None
        Yes if the product of both errors of the best mixture is clearly lower at every budget, no if it is clearly
        lower at none, mixed otherwise. ``numbers`` has a row for each budget, from `_compare_within_budget`. None
        without mixtures or costs.
    """
    if len(select_single_levels(results)) == len(results) or not (results["label_seconds"] > 0).any():
        return None
    # mixtures have only measured sizes, so that a small `max_sizes` saves time and changes nothing
    options = pareto.tabulate_options(results, max_sizes=2)
    costs = sorted(set(options.loc[pareto.find_mixtures(options), "label_seconds"]))
    options = pareto.tabulate_options(results, budget=costs)
    is_mixture = pareto.find_mixtures(options)
    mixtures, singles = options[is_mixture], options[~is_mixture & ~options["beyond"]]
    comparison = ErrorComparison(results, split_errors)
    rows: list[dict[str, Any]] = []
    for budget in costs:
        if not (singles["label_seconds"] <= budget).any():
            continue
        mixture, single = choose_within_budget(mixtures, budget), choose_within_budget(singles, budget)
        if rows and mixture["label_seconds"] == rows[-1]["budget_s"]:
            continue  # the mixture that costs this budget is worse than a cheaper one
        size_factors = compute_size_factors(single, singles, comparison)
        rows.append(_compare_within_budget(mixture, single, comparison, size_factors))
    if not rows:
        return None
    numbers = pd.DataFrame(rows)
    is_lower, is_higher = numbers["verdict"] == "lower", numbers["verdict"] == "higher"
    status: FindingStatus = "yes" if is_lower.all() else "no" if not is_lower.any() else "mixed"
    candidates = numbers[is_lower] if is_lower.any() else numbers
    best = candidates.sort_values("ratio").iloc[0]
    headline = "No mixture is clearly better than a single level that costs no more"
    if is_lower.any():
        budgets = [format_duration(seconds) for seconds in candidates["budget_s"]]
        if len(budgets) > MAX_LISTED_BUDGETS:
            budgets = [f"{len(budgets)} budgets from {budgets[0]} to {budgets[-1]}"]
        headline = f"Mixing levels clearly pays at {join_items(budgets)} of DFT"
    n_unclear = len(numbers) - is_lower.sum() - is_higher.sum()
    text = (
        f"{headline}. With {format_duration(best['budget_s'])}, {best['mixture_setting']} give "
        f"{_format_errors(best, 'mixture')}, and the best single level, {best['single_setting']}, gives "
        f"{_format_errors(best, 'single')}; the ratio of the geometric means of both errors is "
        f"{_format_ratio(best)} ({best['verdict']}). Of {len(numbers)} mixtures, each the best within its "
        f"cost, {is_lower.sum()} are clearly better than the best single level, {is_higher.sum()} clearly worse, "
        f"and {n_unclear} not clearly different."
    )
    groups = numbers["budget_s"].map(format_duration) + ": " + numbers["mixture_level"]
    columns = {kind: f"mixture_{kind}_ratio" for kind in ERROR_KINDS.values()}
    dots = FindingDots.collect(numbers, groups, columns, "error of the mixture / of the best single level")
    return Finding("mixtures", QUESTION, status, text, numbers=numbers, dots=dots)


def _compare_within_budget(
    mixture: pd.Series, single: pd.Series, comparison: ErrorComparison, size_factors: Mapping[str, float]
) -> dict[str, Any]:
    """Compare the best mixture with the best single level within a budget, the cost of the mixture.

    Paired samples are those of the nearest numbers of configurations that were fitted; `size_factors`, by the column of
    the error, scale the errors of the single level to its number of configurations.

    Returns
    -------
    dict
        The setting and expected errors of both; the energy and force errors and their geometric mean (``ratio``) of the
        mixture, divided by those of the single level, with 90 % intervals; ``share``, the share of paired samples in
        which the product of both errors is lower for the mixture; and the ``verdict`` on this product.
    """
    ratios = {name: mixture[name] / single[name] for name in ERROR_KINDS.values()}
    ratios["both"] = float(np.sqrt(ratios["energy"] * ratios["force"]))
    settings = [get_setting(single), get_setting(mixture)]
    products = comparison.collect_samples(list(ERROR_KINDS), settings)  # of both errors, (n_samples, 2)
    single_products = float(np.prod(list(size_factors.values()))) * products[None, :, 0]
    share = float(compute_sign_shares(single_products, products[None, :, 1])) if len(products) else np.nan
    limit = (1 + INTERVAL_COVERAGE) / 2
    verdict = "lower" if share > limit else "higher" if share < 1 - limit else NO_CLEAR_DIFFERENCE
    row: dict[str, Any] = {"budget_s": mixture["label_seconds"]}
    for name, option in (("mixture", mixture), ("single", single)):
        model = f" ({option[BASIS_COLUMN]} {option['twojmax']})" if BASIS_COLUMN in option else ""
        # the size of a mixture names its levels
        level = "" if name == "mixture" else f"level {option['level']} with "
        row |= {f"{name}_basis": option[BASIS_COLUMN]} if model else {}
        row |= {
            f"{name}_level": option["level"], f"{name}_setting": f"{level}{describe_size(option)}{model}",
            f"{name}_twojmax": option["twojmax"], f"{name}_weight_ratio": option["w_energy"] / option["w_force"],
            f"{name}_energy": option["energy"], f"{name}_force": option["force"],
        }  # fmt: skip
    columns_by_kind = {**{kind: [column] for column, kind in ERROR_KINDS.items()}, "both": list(ERROR_KINDS)}
    for kind, columns in columns_by_kind.items():
        factor = float(np.prod([size_factors[column] for column in columns]))
        samples = comparison.collect_samples(columns, settings)
        ratio, low, high = _estimate_ratio(ratios[kind], samples, factor, len(columns))
        name = "ratio" if kind == "both" else f"mixture_{kind}_ratio"
        row |= {name: ratio, f"{name}_low": low, f"{name}_high": high}
    return row | {"share": share, "verdict": verdict}


def _estimate_ratio(expected_ratio: float, samples: Array, factor: float, n_errors: int) -> tuple[float, float, float]:
    """Estimate the ratio of the errors of the mixture to those of the single level, with the ends of its 90 % interval.

    Parameters
    ----------
    expected_ratio : ratio of the expected errors, which is returned if there are no samples
    samples : (n_samples, 2) products of `n_errors` errors of the single level and of the mixture
    factor : factor that scales the products of the single level
    """
    if not len(samples):
        return expected_ratio, float("nan"), float("nan")
    # the root makes the ratio of products a ratio of geometric means
    ratios = (samples[:, 1] / (factor * samples[:, 0])) ** (1 / n_errors)
    return (float(np.median(ratios)), *compute_central_interval(ratios))


def _format_ratio(row: pd.Series) -> str:
    """Format the ratio of the geometric means in a row of the numbers, with its interval if it is known."""
    low, high = (format_number(row[f"ratio_{end}"]) for end in ("low", "high"))
    interval = f", 90 % interval {low} to {high}" if np.isfinite(row["ratio_low"]) else ""
    return f"{format_number(row['ratio'])}{interval}"


def _format_errors(row: pd.Series, name: str) -> str:
    """Format the errors of the mixture or the single level (`name` ``"mixture"`` or ``"single"``) in a row."""
    return f"{format_number(row[f'{name}_energy'])} meV/atom and {format_number(row[f'{name}_force'])} meV/Å"
