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
MAX_LISTED_RANGES = 6  # number of budget ranges listed in one sentence


def assess_levels_on_front(results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str]) -> Finding:
    """Assess which levels are on the front, and which level is best for each label budget.

    The cheapest setting is always on a front that includes cost, however large its errors are. The status is therefore
    stricter: a cheaper level is worth using if it gives the lowest error at some budget that would also pay for the
    reference level.

    Parameters
    ----------
    results : DataFrame, a row per fit
    front : DataFrame, a row per point of the fronts of all 2Jmax (meV/atom, meV/Å, s)
    levels : names in order of cost; the last is the reference

    Returns
    -------
    Finding
        Yes if a cheaper level is worth using for energy and force errors at every 2Jmax, no if this is never the case,
        mixed otherwise. ``numbers`` has a row per (2Jmax or ``"all"``, level), from `tabulate_front_levels`.
    """
    table = summaries.select_finite_rows(summaries.compute_medians(results, levels), summaries.OBJECTIVES)
    reason = _find_obstacle(table, levels)
    if reason:
        return Finding.not_tested("front", QUESTION, reason, PAPER)
    fronts = {str(twojmax): rows for twojmax, rows in summaries.compute_fronts_by_twojmax(table).groupby("twojmax")}
    fronts["all"] = summaries.compute_overall_front(front)
    numbers = pd.concat([tabulate_front_levels(rows, name, levels) for name, rows in fronts.items()], ignore_index=True)
    limits = pd.DataFrame(
        [_find_budget_limits(fronts[str(twojmax)], rows, levels[-1]) | {"twojmax": twojmax}
         for twojmax, rows in table.groupby("twojmax")]
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
    """Return the reason why the question cannot be tested; empty if it can."""
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
    """Tabulate the points of each level on a front.

    Parameters
    ----------
    front : DataFrame, a row per point (meV/atom, meV/Å, s)
    twojmax : 2Jmax of the front, or ``"all"``, for the column ``twojmax``
    levels : names in order of cost

    Returns
    -------
    DataFrame
        A row for each level: the number of its ``points``; their lowest and highest cost, ``cheapest_s`` and
        ``most_expensive_s``; the ``lowest_energy`` and ``lowest_force`` errors, with the ends of their intervals if the
        front has these; and the lowest and highest budget at which the level gives the lowest energy or force error,
        such as ``energy_from_s`` and ``energy_to_s`` (NaN if there is no such budget).
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
            level_ranges = [(low, high) for name, low, high in ranges if name == level] or [(np.nan, np.nan)]
            row |= {f"{kind}_from_s": level_ranges[0][0], f"{kind}_to_s": level_ranges[-1][1]}
    return pd.DataFrame(list(rows.values()))


def find_best_levels(front: pd.DataFrame, column: str) -> list[tuple[str, float, float]]:
    """Find the level with the lowest error for each range of budgets.

    Parameters
    ----------
    front : DataFrame, a row per point
    column : column of the error

    Returns
    -------
    list of (str, float, float)
        Level and ends of the range, in seconds of label cost, in ascending order. Adjacent ranges of the same level are
        merged; the last range ends at infinity.
    """
    if front.empty:
        return []
    ranges = merge_adjacent_ranges(select_best_by_budget(front, column, "label_seconds"), "level")
    return list(ranges[["level", "budget_from", "budget_to"]].itertuples(index=False, name=None))


def _find_budget_limits(front: pd.DataFrame, settings: pd.DataFrame, reference: str) -> dict[str, Any]:
    """Find the highest budget (s) at which a cheaper level is better although the reference level is affordable.

    Parameters
    ----------
    front, settings : DataFrame
        Points of the front of a 2Jmax, and all settings with this 2Jmax.
    reference : name of the reference level

    Returns
    -------
    dict
        ``min_reference_cost``, the lowest cost of a setting at the reference level (s), and the highest budgets for
        ``energy`` and ``force`` errors: NaN if no cheaper level is better, infinity if one is still
        better at the highest budgets.
    """
    min_cost = settings.loc[settings["level"] == reference, "label_seconds"].min()
    limits: dict[str, Any] = {"min_reference_cost": min_cost}
    for column, kind in summaries.ERROR_KINDS.items():
        upper_ends = [
            high for level, _, high in find_best_levels(front, column) if level != reference and high > min_cost
        ]
        limits[kind] = max(upper_ends, default=float("nan"))
    return limits


def _describe_points(front: pd.DataFrame, numbers: pd.DataFrame, levels: Sequence[str]) -> str:
    """Describe the points of each level on the front over all 2Jmax, and their costs, from the table of the finding."""
    rows = numbers[(numbers["twojmax"] == "all") & (numbers["points"] > 0)]
    level_texts = [
        f"level {row['level']} ({row['points']} {format_duration_range(row['cheapest_s'], row['most_expensive_s'])})"
        for _, row in rows.iterrows()
    ]
    absent_levels = [level for level in levels if level not in set(rows["level"])]
    verb = "is" if len(absent_levels) == 1 else "are"
    absence = f"; {format_levels(absent_levels)} {verb} absent" if absent_levels else ""
    return (
        "The front over all 2Jmax in energy error, force error and DFT cost has "
        f"{format_count(len(front), 'point')}, by the DFT cost of the training labels: {join_items(level_texts)}"
        f"{absence}."
    )


def _describe_budgets(front: pd.DataFrame) -> str:
    """Describe which level gives the lowest error for each range of budgets, at most `MAX_LISTED_RANGES` of them."""
    clauses = []
    for column, kind in summaries.ERROR_KINDS.items():
        ranges = find_best_levels(front, column)
        range_texts = [f"level {level} from {format_duration(low)}" for level, low, _ in ranges[:MAX_LISTED_RANGES]]
        if len(ranges) > MAX_LISTED_RANGES:
            last_level, last_low, _ = ranges[-1]
            changes = format_count(len(ranges) - MAX_LISTED_RANGES + 1, "more change")
            range_texts[-1] = f"{changes} up to level {last_level} from {format_duration(last_low)}"
        lowest_error = f"down to {format_number(front[column].min())} {UNITS[kind]}"
        clauses.append(f"the lowest {kind} error comes from {join_items(range_texts)} ({lowest_error})")
    return f"As the budget grows, {'; '.join(clauses)}."


def _describe_limits(limits: pd.DataFrame) -> str:
    """Describe, for each 2Jmax, the budgets from `_find_budget_limits`."""
    clauses = []
    for _, row in limits.iterrows():
        limit_list = join_items(_describe_limit(row[kind], kind) for kind in summaries.ERROR_KINDS.values())
        min_cost = format_duration(row["min_reference_cost"])
        clauses.append(f"at 2Jmax = {row['twojmax']:.0f} (reference affordable from {min_cost}) {limit_list}")
    return f"Where the reference level is also affordable, cheaper levels are better {'; '.join(clauses)}."


def _describe_limit(budget: float, kind: str) -> str:
    """Describe up to which budget (s) cheaper levels have a lower error; NaN means never, infinity at every budget."""
    if np.isnan(budget):
        return f"never in {kind}"
    return f"at every budget in {kind}" if np.isinf(budget) else f"up to {format_duration(budget)} in {kind}"
