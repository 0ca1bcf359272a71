"""Finding on the cheapest level that is enough for a model of each size, so that better labels hardly lower errors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from paretofit.pareto import INTERVAL_COVERAGE
from paretofit.report.findings.finding import Finding, FindingDots
from paretofit.report.paired_errors import INTERVAL_SUFFIXES, MIN_DRAWS, ErrorComparison, PairedErrors
from paretofit.report.tables import summaries
from paretofit.report.wording import capitalise_sentence, format_number, join_items

QUESTION = "Which level is enough for a model of each size?"
MAX_ERROR_RATIO = 1.1  # error with labels of a level that is enough, divided by that with labels of the reference
_KINDS = tuple(summaries.ERROR_KINDS.values())
_SHARED = ("weight_ratio", "sampling")  # columns in which the compared settings agree


def assess_sufficient_levels(
    results: pd.DataFrame, levels: Sequence[str], split_errors: PairedErrors | None = None
) -> Finding | None:
    """Find the cheapest level for each 2Jmax whose labels give at most 10 % larger errors than those of the reference.

    Fits at the largest subset are compared. For each 2Jmax, their sampling and w_E/w_F are those with which labels of
    the reference give the lowest √(energy error · force error).

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    levels : names in order of cost; the last is the reference
    split_errors : errors in further train/test splits; by default the repetitions are compared

    Returns
    -------
    Finding or None
        ``numbers`` has a row per (2Jmax, level below the reference): both errors divided by those with labels of the
        reference, the ends of the 90 % intervals of these ratios, and ``is_enough``, whether both upper ends are below
        `MAX_ERROR_RATIO`. None without fits on labels of the reference and of a cheaper level.
    """
    columns = list(summaries.ERROR_KINDS)
    rows = summaries.select_largest_subset(summaries.compute_medians(results, levels))
    rows = summaries.select_finite_rows(rows, columns, positive=True)
    comparison = ErrorComparison(results, split_errors)
    records = []
    for twojmax, group in rows.groupby("twojmax"):
        settings = group.to_dict("records")
        references = [row for row in settings if row["level"] == levels[-1]]
        if references:
            best = min(references, key=lambda row: float(np.prod([row[name] for name in columns])))
            row_by_level = {row["level"]: row for row in settings if all(row[name] == best[name] for name in _SHARED)}
            for level in (level for level in levels[:-1] if level in row_by_level):
                ratios = _estimate_ratios(comparison, best, row_by_level[level])
                is_enough = all(ratios[f"{kind}_ratio_high"] < MAX_ERROR_RATIO for kind in _KINDS)
                record = {"twojmax": twojmax, "weight_ratio": best["weight_ratio"], "level": level}
                records.append({**record, **ratios, "is_enough": is_enough})
    if not records:
        return None
    numbers = pd.DataFrame(records)
    text = (
        f"{_describe_levels(numbers, levels[-1])} Enough means that both errors are at most "
        f"{100 * (MAX_ERROR_RATIO - 1):.0f} % larger than with the same number of labels of level {levels[-1]}, with "
        f"the whole of their {100 * INTERVAL_COVERAGE:.0f} % intervals ({comparison.sample_description}; "
        f"{summaries.describe_subset(rows)})."
    )
    groups = "2Jmax " + numbers["twojmax"].astype(str) + ", level " + numbers["level"]
    dots = FindingDots.collect(
        numbers, groups, {kind: f"{kind}_ratio" for kind in _KINDS}, f"error / error with labels of level {levels[-1]}"
    )
    return Finding("sufficient_level", QUESTION, "measured", text, numbers=numbers, dots=dots)


def _estimate_ratios(
    comparison: ErrorComparison, reference: Mapping[Any, Any], row: Mapping[Any, Any]
) -> dict[str, float]:
    """Estimate both errors of a setting, `row`, divided by those of `reference`, with the ends of their intervals.

    If all samples have the same ratio, because all repetitions fit the whole training set, the ends are NaN.
    """
    ratios: dict[str, float] = {}
    for column, kind in summaries.ERROR_KINDS.items():
        ratio, low, high = comparison.estimate_ratio(column, reference, row)
        ends = (float("nan"),) * 2 if np.isclose(low, high, rtol=1e-9) else (low, high)
        ratios |= {f"{kind}_ratio{end}": value for end, value in zip(INTERVAL_SUFFIXES, (ratio, *ends), strict=True)}
    return ratios


def _describe_levels(numbers: pd.DataFrame, reference: str) -> str:
    """Describe which level is the cheapest that is enough for which 2Jmax."""
    if np.isnan(numbers[[f"{kind}_ratio_high" for kind in _KINDS]].to_numpy()).all():
        return f"Which level is enough is not known; that requires {MIN_DRAWS} further splits (confidence.splits)."
    cheapest_rows = {
        twojmax: next((row for row in group.to_dict("records") if row["is_enough"]), None)
        for twojmax, group in numbers.groupby("twojmax")
    }
    clauses = []
    for level in dict.fromkeys(numbers["level"]):
        rows = {twojmax: row for twojmax, row in cheapest_rows.items() if row is not None and row["level"] == level}
        if rows:
            ratios = join_items(
                f"{format_number(max(row[f'{kind}_ratio_high'] for row in rows.values()))} times the {kind} error"
                for kind in _KINDS
            )
            clauses.append(f"level {level} is enough at 2Jmax {join_items(rows)} (at most {ratios})")
    sizes_without_level = [twojmax for twojmax, row in cheapest_rows.items() if row is None]
    if sizes_without_level:
        clauses.append(f"at 2Jmax {join_items(sizes_without_level)}, no level below {reference} is shown to be enough")
    return capitalise_sentence("; ".join(clauses))
