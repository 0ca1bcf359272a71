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
        error, level). The factor of a 2Jmax is its error divided by that of a model trained on the reference, in the
        geometric mean over w_E/w_F. The columns are the factors ``smallest`` and ``largest`` of both 2Jmax, and
        ``factor_ratio``, the second divided by the first, with 90 % intervals. None with a single 2Jmax or level.
    """
    rows = select_largest_subset(compute_medians(results, levels))
    comparison = ErrorComparison(results, split_errors)
    return _assess_size(rows, comparison), _assess_label_sensitivity(rows, levels, comparison)


def _assess_size(rows: pd.DataFrame, comparison: ErrorComparison) -> Finding | None:
    """Assess whether errors fall from one 2Jmax to the next; None with a single 2Jmax."""
    steps = list_steps(rows, "twojmax", sorted(set(rows["twojmax"])), ["level", "weight_ratio"], comparison)
    if steps.empty:
        return None
    text = (
        f"At the largest subset ({describe_subset(rows)}), of {format_count(len(steps), 'step')} from one 2Jmax to the "
        f"next (each level and w_E/w_F), {count_changes(steps)}. {_describe_rises(steps)}"
        f"{comparison.describe_criterion()}"
    )
    dots = collect_step_dots(steps, "2Jmax ")
    return Finding("model_size", SIZE_QUESTION, combine_changes(steps), text, SIZE_PAPER, steps, dots)


def _describe_rises(steps: pd.DataFrame) -> str:
    """Describe at which levels errors rise with 2Jmax; empty if none rises."""
    clauses = []
    for kind in ("energy", "force"):
        counts = [
            f"{(group[kind] == 'rises').sum()} of {len(group)} at level {level}"
            for level, group in steps.groupby("level", sort=False)
            if (group[kind] == "rises").any()
        ]
        if counts:
            clauses.append(f"the {kind} error rises in {join_items(counts)}")
    return f"{capitalise_sentence('; '.join(clauses))} " if clauses else ""


def _assess_label_sensitivity(rows: pd.DataFrame, levels: Sequence[str], comparison: ErrorComparison) -> Finding | None:
    """Assess whether cheaper levels raise the errors of the largest 2Jmax more than those of the smallest one.

    See `assess_models`.
    """
    sizes = sorted(set(rows["twojmax"]))
    ends = [sizes[0], sizes[-1]]
    if len(sizes) < 2:
        return None
    cases = []
    for column, kind in ERROR_KINDS.items():
        for level in levels[:-1]:
            quadruples = _list_quadruples(rows, ends, level, levels[-1])
            medians = np.array([[row[column] for row in quadruple] for quadruple in quadruples], dtype=float)
            if quadruples and np.isfinite(medians).all() and (medians > 0).all():
                factors = _compute_factors(comparison, column, quadruples, medians)
                cases.append({"error": kind, "level": level, **factors})
    if not cases:
        return None
    numbers = pd.DataFrame(cases)
    text = (
        f"Labels of a cheaper level raise the errors of 2Jmax {ends[1]} clearly more than those of 2Jmax {ends[0]} in "
        f"{(numbers['change'] == 'more').sum()} of {format_count(len(numbers), 'case')} (energies and forces, each "
        f"level), clearly less in {(numbers['change'] == 'less').sum()}. {_describe_example(numbers, ends, levels)}"
    )
    label = f"factor at 2Jmax {ends[1]} / factor at 2Jmax {ends[0]}"
    dots = FindingDots.collect(numbers, "level " + numbers["level"].astype(str), {"": "factor_ratio"}, label)
    return Finding("label_sensitivity", LABEL_QUESTION, _choose_status(numbers), text, LABEL_PAPER, numbers, dots)


def _list_quadruples(
    rows: pd.DataFrame, sizes: Sequence[int], level: str, reference: str
) -> list[list[Mapping[Any, Any]]]:
    """List the settings that differ in 2Jmax and level only, four for each w_E/w_F for which all of them exist.

    Their order is the smallest 2Jmax at the level and at the reference, then the largest 2Jmax at the same levels.
    """
    settings = {(row["twojmax"], row["level"], row["weight_ratio"]): row for row in rows.to_dict("records")}
    pairs = [(size, name) for size in sizes for name in (level, reference)]
    keys_by_ratio = [[(*pair, ratio) for pair in pairs] for ratio in sorted(set(rows["weight_ratio"]))]
    return [[settings[key] for key in keys] for keys in keys_by_ratio if set(keys) <= set(settings)]


def _compute_factors(
    comparison: ErrorComparison, column: str, quadruples: Sequence[Sequence[Mapping[Any, Any]]], medians: np.ndarray
) -> dict[str, Any]:
    """Compute the factors of the smallest and the largest 2Jmax and their ratio, with intervals and the change.

    `medians` are the errors of the settings from `_list_quadruples`, ``(n_quadruples, 4)``.
    """
    smallest, largest = np.exp(np.log(medians[:, [0, 2]] / medians[:, [1, 3]]).mean(axis=0))
    samples = comparison.collect_samples([column], [row for quadruple in quadruples for row in quadruple])
    mean_logarithms = np.log(samples).reshape(len(samples), len(quadruples), 4).mean(axis=1)
    smallest_logarithms, largest_logarithms = (mean_logarithms[:, ::2] - mean_logarithms[:, 1::2]).T
    logarithm_differences = largest_logarithms - smallest_logarithms
    row: dict[str, Any] = {}
    for name, factor, logarithms in (
        ("smallest", smallest, smallest_logarithms),
        ("largest", largest, largest_logarithms),
        ("factor_ratio", largest / smallest, logarithm_differences),
    ):
        row |= name_interval(name, (factor, *compute_central_interval(np.exp(logarithms))))
    return {**row, "change": _classify_change(logarithm_differences)}


def _classify_change(logarithms: np.ndarray) -> str:
    """Return ``"more"`` or ``"less"`` if nearly all samples of the logarithm of a ratio are positive or negative."""
    min_share = (1 + INTERVAL_COVERAGE) / 2
    if len(logarithms) and (logarithms > 0).mean() > min_share:
        return "more"
    return "less" if len(logarithms) and (logarithms < 0).mean() > min_share else NO_CLEAR_DIFFERENCE


def _choose_status(numbers: pd.DataFrame) -> FindingStatus:
    """Choose the status of the label sensitivity from the changes in all cases."""
    changes = set(numbers["change"])
    if "more" in changes:
        return "mixed" if "less" in changes else "yes"
    return "no"


def _describe_example(numbers: pd.DataFrame, ends: Sequence[int], levels: Sequence[str]) -> str:
    """Describe the factors of the cheapest level, or of the first one with numbers, at both 2Jmax in `ends`."""
    is_cheapest = numbers["level"] == levels[0]
    candidates = numbers[is_cheapest] if is_cheapest.any() else numbers
    rows = candidates.drop_duplicates("error").to_dict("records")
    factors = join_items(
        f"the {row['error']} error by {format_number(row['smallest'], 2)} at 2Jmax {ends[0]} and by "
        f"{format_number(row['largest'], 2)} at 2Jmax {ends[1]}"
        for row in rows
    )
    return f"Training on level {rows[0]['level']} instead of level {levels[-1]} multiplies {factors}."
