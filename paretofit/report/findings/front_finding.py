"""Finding on the levels of the front, their costs, and whether cheaper levels are worth using."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from paretofit.pareto import merge_adjacent_ranges, select_best_by_budget
from paretofit.report.figures.style import UNITS
from paretofit.report.findings.finding import Finding, FindingStatus
from paretofit.report.tables import summaries
from paretofit.report.wording import (
    format_count,
    format_duration,
    format_duration_range,
    format_levels,
    format_number,
    join_items,
)

QUESTION = "Which levels are on the front, at what cost, and are cheaper levels worth using?"
PAPER = (
    "In the paper, with 6 levels and other cells, 10 to 20 minutes of DFT favour level 3, "
    "20 to 1,000 minutes level 4 and more than 3,000 minutes level 5."
)
MAX_LISTED_RANGES = 6  # budget ranges listed in one sentence


def assess_levels_on_front(results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str]) -> Finding:
    """Assess which levels are on the front, and which level is best for each label budget.

    The cheapest setting is always on a front that includes cost, however large its errors are. The status is therefore
    stricter: a cheaper level is worth using if it gives the lowest error at some budget that would also pay for the
    reference level.

    Parameters
    ----------
    results : DataFrame, a row per fit
    front : DataFrame, a row per point of the front over all 2Jmax (meV/atom, meV/Å, s)
    levels : names in order of cost; the last is the reference

    Returns
    -------
    Finding
        Yes if a cheaper level is worth using for energy and force errors at every 2Jmax, no if this is never the case,
        mixed otherwise. ``numbers`` has a row per (2Jmax or ``"all"``, level); ``energy_from_s`` and ``energy_to_s``
        are the lowest and the highest budget at which the level gives the lowest energy error.
    """
    table = summaries.select_finite_rows(summaries.compute_medians(results, levels), summaries.OBJECTIVES)
    reason = _find_obstacle(table, levels)
    if reason:
        return Finding.not_tested("front", QUESTION, reason, PAPER)
    fronts = {str(value): rows for value, rows in summaries.compute_fronts_by_twojmax(table).groupby("twojmax")}
    fronts["all"] = summaries.compute_overall_front(front)
    numbers = pd.concat([tabulate_front_levels(rows, name, levels) for name, rows in fronts.items()], ignore_index=True)
    limits = pd.DataFrame(
        [_find_budget_limits(fronts[str(value)], rows, levels[-1]) | {"twojmax": value}
         for value, rows in table.groupby("twojmax")]
    )  # fmt: skip
    sentences = [
        _describe_points(fronts["all"], numbers, levels),
        _describe_budgets(fronts["all"]),
        _describe_limits(limits),
    ]
    is_worth_using = limits[list(summaries.ERROR_KINDS.values())].notna().to_numpy()
    status: FindingStatus = "yes" if is_worth_using.all() else "mixed" if is_worth_using.any() else "no"
    return Finding("front", QUESTION, status, " ".join(sentences), PAPER, numbers)


def _find_obstacle(table: pd.DataFrame, levels: Sequence[str]) -> str:
    result_levels = [level for level in levels if level in set(table["level"])]
    if not result_levels:
        return "no setting has finite errors and a known label cost"
    if len(result_levels) < 2:
        return f"the results contain only level {result_levels[0]}, but two levels are required"
    if levels[-1] not in result_levels:
        return f"there are no fits to the reference level, {levels[-1]}"
    if not (table["label_seconds"] > 0).any():
        return "no setting has a label cost above zero, so cheaper levels cannot be distinguished from expensive ones"
    return ""


def tabulate_front_levels(front: pd.DataFrame, twojmax: str, levels: Sequence[str]) -> pd.DataFrame:
    """Tabulate, for each level, the number, the costs and the lowest errors (with intervals) of its points on a front.

    ``*_from_s`` and ``*_to_s`` are the lowest and the highest budget (s) at which the level gives the lowest energy or
    force error; NaN if there is no such budget.
    """
    rows: dict[str, dict[str, Any]] = {}
    for level in levels:
        points = front[front["level"] == level]
        rows[level] = {
            "twojmax": twojmax,
            "level": level,
            "points": len(points),
            "cheapest_s": points["label_seconds"].min(),
            "most_expensive_s": points["label_seconds"].max(),
        }
        for column, kind in summaries.ERROR_KINDS.items():
            lowest = points.sort_values(column).iloc[0] if len(points) else pd.Series(dtype=float)
            names = [name for name in (column, f"{column}_low", f"{column}_high") if name in front]
            rows[level] |= {name.replace(column, f"lowest_{kind}"): lowest.get(name, np.nan) for name in names}
    for column, kind in summaries.ERROR_KINDS.items():
        ranges = find_best_levels(front, column)
        for level, row in rows.items():
            budgets = [(start, end) for name, start, end in ranges if name == level] or [(np.nan, np.nan)]
            row |= {f"{kind}_from_s": budgets[0][0], f"{kind}_to_s": budgets[-1][1]}
    return pd.DataFrame(list(rows.values()))


def find_best_levels(front: pd.DataFrame, column: str) -> list[tuple[str, float, float]]:
    """Find the level with the lowest error for each range of budgets, as (level, from, to) in seconds of label cost.

    Adjacent ranges of the same level are merged; the last range ends at infinity.
    """
    if front.empty:
        return []
    ranges = merge_adjacent_ranges(select_best_by_budget(front, column, "label_seconds"), "level")
    return list(ranges[["level", "budget_from", "budget_to"]].itertuples(index=False, name=None))


def _find_budget_limits(front: pd.DataFrame, settings: pd.DataFrame, reference: str) -> dict[str, Any]:
    """Find the highest budget (s) at which a cheaper level is better although the reference level is affordable.

    Returns
    -------
    dict with ``affordable``, the lowest cost of the reference level (s), and the limits for ``energy`` and ``force``
    errors: NaN if no cheaper level is better, infinity if a cheaper level is still better at the highest budgets.
    """
    min_cost = settings.loc[settings["level"] == reference, "label_seconds"].min()
    limits: dict[str, Any] = {"affordable": min_cost}
    for column, kind in summaries.ERROR_KINDS.items():
        ends = [end for level, _, end in find_best_levels(front, column) if level != reference and end > min_cost]
        limits[kind] = max(ends, default=float("nan"))
    return limits


def _describe_points(front: pd.DataFrame, numbers: pd.DataFrame, levels: Sequence[str]) -> str:
    rows = numbers[(numbers["twojmax"] == "all") & (numbers["points"] > 0)]
    shares = [
        f"level {row['level']} ({row['points']} {format_duration_range(row['cheapest_s'], row['most_expensive_s'])})"
        for _, row in rows.iterrows()
    ]
    absent_levels = [level for level in levels if level not in set(rows["level"])]
    verb = "is" if len(absent_levels) == 1 else "are"
    absence = f"; {format_levels(absent_levels)} {verb} absent" if absent_levels else ""
    return (
        f"The front over all 2Jmax has {format_count(len(front), 'point')}, by the DFT cost of the training "
        f"labels: {join_items(shares)}{absence}."
    )


def _describe_budgets(front: pd.DataFrame) -> str:
    parts = []
    for column, kind in summaries.ERROR_KINDS.items():
        ranges = find_best_levels(front, column)
        starts = [f"level {level} from {format_duration(start)}" for level, start, _ in ranges[:MAX_LISTED_RANGES]]
        if len(ranges) > MAX_LISTED_RANGES:
            changes = format_count(len(ranges) - MAX_LISTED_RANGES + 1, "more change")
            starts[-1] = f"{changes} up to level {ranges[-1][0]} from {format_duration(ranges[-1][1])}"
        lowest_error = f"down to {format_number(front[column].min())} {UNITS[kind]}"
        parts.append(f"the lowest {kind} error comes from {join_items(starts)} ({lowest_error})")
    return f"As the budget grows, {'; '.join(parts)}."


def _describe_limits(limits: pd.DataFrame) -> str:
    """Describe, for each 2Jmax, the budgets from `_find_budget_limits`."""
    cases = []
    for _, row in limits.iterrows():
        ends = [_describe_end(row[kind], kind) for kind in summaries.ERROR_KINDS.values()]
        start = format_duration(row["affordable"])
        cases.append(f"at 2Jmax = {row['twojmax']:.0f} (reference affordable from {start}) {join_items(ends)}")
    return f"Where the reference level is also affordable, cheaper levels are better {'; '.join(cases)}."


def _describe_end(end: float, kind: str) -> str:
    if np.isnan(end):
        return f"never in {kind}"
    return f"at every budget in {kind}" if np.isinf(end) else f"up to {format_duration(end)} in {kind}"
