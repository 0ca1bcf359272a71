"""Findings on model sizes: whether errors fall from one 2Jmax to the next, and whether small models suffer less."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from paretofit.pareto import INTERVAL_COVERAGE
from paretofit.report.findings.finding import Finding, FindingDots, FindingStatus
from paretofit.report.findings.steps import (
    collect_step_dots,
    combine_changes,
    count_changes,
    list_steps,
    name_interval,
)
from paretofit.report.paired_errors import (
    NO_CLEAR_DIFFERENCE,
    ErrorComparison,
    PairedErrors,
    compute_central_interval,
)
from paretofit.report.tables.summaries import ERROR_KINDS, compute_medians, describe_subset, select_largest_subset
from paretofit.report.wording import capitalise_sentence, format_count, format_number, join_items

SIZE_QUESTION = "Do larger models have lower errors?"
SIZE_PAPER = (
    "In the paper the lowest errors fall from 2Jmax = 4 to 10, where they are about 4.5 meV/atom and 105 "
    "meV/Å (Fig. 7)."
)
LABEL_PAPER = (
    "In the paper, models with 2Jmax = 4 that are trained on levels 3, 4 and 5 have similar errors against level 6, "
    "and those with 2Jmax = 10 do not (Fig. 5)."
)
LABEL_QUESTION = "Do small models suffer less from cheap labels?"


def assess_models(
    results: pd.DataFrame, levels: Sequence[str], split_errors: PairedErrors | None = None
) -> tuple[Finding | None, Finding | None]:
    """Compare the errors of models of different 2Jmax, and their sensitivity to cheap labels, at the largest subset.

    The parameters are those of `assess_error_decrease`.

    Returns
    -------
    model_size : Finding or None
        Whether errors fall from one 2Jmax to the next; ``numbers`` has a row per (level, w_E/w_F, step). None with a
        single 2Jmax.
    label_sensitivity : Finding or None
        Yes if a cheaper level raises the errors of the largest 2Jmax clearly more than those of the smallest one in
        some cases, and clearly less in none; mixed if both occur, otherwise no. ``numbers`` has a row per (kind of
        error, level) with the factors for both 2Jmax (geometric means over w_E/w_F of the error divided by that of a
        model that is trained on the reference) and ``factor_ratio``, that of the largest 2Jmax divided by that of the
        smallest one, with their 90 % intervals. None with a single 2Jmax or level.
    """
    rows = select_largest_subset(compute_medians(results, levels))
    comparison = ErrorComparison(results, split_errors)
    return _assess_size(rows, comparison), _assess_label_sensitivity(rows, levels, comparison)


def _assess_size(rows: pd.DataFrame, comparison: ErrorComparison) -> Finding | None:
    steps = list_steps(rows, "twojmax", sorted(set(rows["twojmax"])), ["level", "weight_ratio"], comparison)
    if steps.empty:
        return None
    text = (
        f"At the largest subset ({describe_subset(rows)}), of {format_count(len(steps), 'step')} from one 2Jmax to the "
        f"next (each level and w_E/w_F), {count_changes(steps)}. {_describe_rises(steps)}{comparison.describe()}"
    )
    dots = collect_step_dots(steps, "2Jmax ")
    return Finding("model_size", SIZE_QUESTION, combine_changes(steps), text, SIZE_PAPER, steps, dots)


def _describe_rises(steps: pd.DataFrame) -> str:
    """Describe at which levels errors rise with 2Jmax."""
    parts = []
    for kind in ("energy", "force"):
        counts = [
            f"{(group[kind] == 'rises').sum()} of {len(group)} at level {level}"
            for level, group in steps.groupby("level", sort=False)
            if (group[kind] == "rises").any()
        ]
        if counts:
            parts.append(f"the {kind} error rises in {join_items(counts)}")
    return f"{capitalise_sentence('; '.join(parts))} " if parts else ""


def _assess_label_sensitivity(rows: pd.DataFrame, levels: Sequence[str], comparison: ErrorComparison) -> Finding | None:
    sizes = sorted(set(rows["twojmax"]))
    ends = [sizes[0], sizes[-1]]
    settings = {
        (row["twojmax"], row["level"], row["weight_ratio"]): row
        for row in rows[rows["twojmax"].isin(ends)].to_dict("records")
    }
    ratios = sorted(set(rows["weight_ratio"]))
    table = []
    for column, kind in ERROR_KINDS.items():
        for level in levels[:-1]:
            keys = [[(size, name, ratio) for size in ends for name in (level, levels[-1])] for ratio in ratios]
            common = [[settings[key] for key in quadruple] for quadruple in keys if set(quadruple) <= set(settings)]
            medians = np.array([[row[column] for row in quadruple] for quadruple in common], dtype=float)
            if len(sizes) > 1 and common and np.isfinite(medians).all() and (medians > 0).all():
                factors = np.exp(np.log(medians[:, [0, 2]] / medians[:, [1, 3]]).mean(axis=0))
                samples = _compute_factors(comparison, column, common)
                ratios_of_factors = samples[:, 1] - samples[:, 0]
                row: dict[str, Any] = {"error": kind, "level": level}
                names = {"smallest": (factors[0], samples[:, 0]), "largest": (factors[1], samples[:, 1]),
                         "factor_ratio": (factors[1] / factors[0], ratios_of_factors)}  # fmt: skip
                for name, (value, logarithms) in names.items():
                    row |= name_interval(name, (value, *compute_central_interval(np.exp(logarithms))))
                table.append({**row, "change": _name_change(ratios_of_factors)})
    if not table:
        return None
    numbers = pd.DataFrame(table)
    text = (
        f"Labels of a cheaper level raise the errors of 2Jmax {ends[1]} clearly more than those of 2Jmax {ends[0]} in "
        f"{(numbers['change'] == 'more').sum()} of {format_count(len(numbers), 'case')} (energies and forces, each "
        f"level), clearly less in {(numbers['change'] == 'less').sum()}. {_describe_example(numbers, ends, levels)}"
    )
    label = f"factor at 2Jmax {ends[1]} / factor at 2Jmax {ends[0]}"
    dots = FindingDots.collect(numbers, "level " + numbers["level"].astype(str), {"": "factor_ratio"}, label)
    return Finding("label_sensitivity", LABEL_QUESTION, _combine(numbers), text, LABEL_PAPER, numbers, dots)


def _compute_factors(
    comparison: ErrorComparison, column: str, quadruples: Sequence[Sequence[Mapping[Any, Any]]]
) -> np.ndarray:
    """Compute samples of the logarithms of the factors of the smallest and the largest model, ``(n_samples, 2)``."""
    samples = comparison.collect_samples([column], [row for quadruple in quadruples for row in quadruple])
    logarithms = np.log(samples).reshape(len(samples), len(quadruples), 4).mean(axis=1)
    return np.asarray(logarithms[:, ::2] - logarithms[:, 1::2])


def _name_change(logarithms: np.ndarray) -> str:
    margin = (1 - INTERVAL_COVERAGE) / 2
    if len(logarithms) and (logarithms > 0).mean() > 1 - margin:
        return "more"
    return "less" if len(logarithms) and (logarithms < 0).mean() > 1 - margin else NO_CLEAR_DIFFERENCE


def _combine(numbers: pd.DataFrame) -> FindingStatus:
    changes = set(numbers["change"])
    if "more" in changes:
        return "mixed" if "less" in changes else "yes"
    return "no"


def _describe_example(numbers: pd.DataFrame, ends: Sequence[int], levels: Sequence[str]) -> str:
    """Describe the factors of the cheapest level."""
    first = numbers[numbers["level"] == levels[0]] if (numbers["level"] == levels[0]).any() else numbers
    rows = first.drop_duplicates("error").to_dict("records")
    parts = join_items(
        f"the {row['error']} error {format_number(row['smallest'], 2)}-fold at 2Jmax {ends[0]} and "
        f"{format_number(row['largest'], 2)}-fold at 2Jmax {ends[1]}"
        for row in rows
    )
    return f"Training on level {rows[0]['level']} instead of level {levels[-1]} makes {parts}."
