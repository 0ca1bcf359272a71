"""Which levels are on the front, in which range of cost, and do the cheaper ones earn their place?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from paretofit.report.findings.finding import Finding, FindingStatus
from paretofit.report.tables.summaries import (
    OBJECTIVES,
    compute_fronts_by_twojmax,
    compute_medians,
    compute_overall_front,
)
from paretofit.report.wording import (
    format_count,
    format_duration,
    format_duration_range,
    format_levels,
    format_number,
    join_items,
)

QUESTION = "Which levels are on the front, in which range of cost, and do cheaper ones earn their place?"
PAPER = (
    "In the paper levels 1 and 2 of 6 are absent; 10 to 20 minutes of DFT favour level 3, 20 to 1,000 "
    "minutes level 4 and more than 3,000 minutes level 5, while level 6 appears only at the very edge."
)
KINDS = {"ref_energy": "energy", "ref_force": "force"}


def assess_levels_on_front(results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str]) -> Finding:
    """Say which levels are on the front, and which of them a budget for labels is best spent on.

    The cheapest setting of all is always on a front that counts cost, however bad it is. The verdict
    is therefore stricter: a cheaper level earns its place where it still gives the lowest error at
    some budget that would also pay for the reference level.

    Parameters
    ----------
    results : DataFrame, a row per fit
    front : DataFrame, a row per point of the overall front (energies meV/atom, forces meV/Å, s)
    levels : names by cost, the last is the reference

    Returns
    -------
    Finding
        Yes where a cheaper level earns its place for energy and force errors at every 2Jmax, no where
        for none, else mixed. ``numbers`` has a row per (2Jmax or all, level); ``energy_from_s`` is the
        budget from which the level gives the lowest energy error for the first time, ``energy_to_s``
        the one from which it does no more.
    """
    table = compute_medians(results, levels)
    table = table[np.isfinite(table[OBJECTIVES].to_numpy(dtype=float)).all(axis=1)]
    reason = _untestable(table, levels)
    if reason:
        return Finding("front", QUESTION, "not tested", f"Not tested: {reason}.", PAPER)
    fronts = {str(value): part for value, part in compute_fronts_by_twojmax(table).groupby("twojmax")}
    fronts["all"] = compute_overall_front(front)
    numbers = pd.concat([_rows(part, value, levels) for value, part in fronts.items()], ignore_index=True)
    earned = pd.DataFrame(
        [_earned(fronts[str(value)], rows, levels[-1]) | {"twojmax": value} for value, rows in table.groupby("twojmax")]
    )
    text = " ".join([_points(fronts["all"], numbers, levels), _budgets(fronts["all"]), _places(earned)])
    return Finding("front", QUESTION, _verdict(earned), text, PAPER, numbers)


def _untestable(table: pd.DataFrame, levels: Sequence[str]) -> str:
    present = [level for level in levels if level in set(table["level"])]
    if not present:
        return "no setting has finite errors and a known label cost"
    if len(present) < 2:
        return f"the results hold only level {present[0]}, and it takes two"
    if levels[-1] not in present:
        return f"there are no fits to the reference level, {levels[-1]}"
    if not (table["label_seconds"] > 0).any():
        return "no setting has a label cost above zero, so cheaper cannot be told from dearer"
    return ""


def _rows(front: pd.DataFrame, twojmax: str, levels: Sequence[str]) -> pd.DataFrame:
    """A row for each level: its points on this front, and the budgets (s) at which it is the best buy."""
    rows: dict[str, dict[str, Any]] = {}
    for level in levels:
        here = front[front["level"] == level]
        rows[level] = {
            "twojmax": twojmax,
            "level": level,
            "points": len(here),
            "cheapest_s": here["label_seconds"].min(),
            "dearest_s": here["label_seconds"].max(),
            "lowest_energy": here["ref_energy"].min(),
            "lowest_force": here["ref_force"].min(),
        }
    for column, kind in KINDS.items():
        for row in rows.values():
            row |= {f"{kind}_from_s": np.nan, f"{kind}_to_s": np.nan}
        for level, start, end in find_best_levels(front, column):
            first = rows[level][f"{kind}_from_s"]
            rows[level] |= {f"{kind}_from_s": start if np.isnan(first) else first, f"{kind}_to_s": end}
    return pd.DataFrame(list(rows.values()))


def find_best_levels(front: pd.DataFrame, column: str) -> list[tuple[str, float, float]]:
    """Which level gives the lowest error at a budget, as (level, from, to) in seconds of label cost.

    Neighbouring ranges of the same level are one; the last range has no end (infinity).
    """
    ordered = front.sort_values(["label_seconds", column])
    record = ordered[ordered[column] < ordered[column].cummin().shift(fill_value=np.inf)]
    changes = record[record["level"] != record["level"].shift()]
    starts = [float(value) for value in changes["label_seconds"]]
    return list(zip(changes["level"], starts, [*starts[1:], float("inf")], strict=True))


def _earned(front: pd.DataFrame, settings: pd.DataFrame, reference: str) -> dict[str, Any]:
    """For energy and force: up to which budget (s) a cheaper level wins though the reference is affordable.

    NaN where none does; infinity where the reference level never gives the lowest error.
    """
    affordable = settings.loc[settings["level"] == reference, "label_seconds"].min()
    found: dict[str, Any] = {"affordable": affordable}
    for column, kind in KINDS.items():
        ends = [end for level, _, end in find_best_levels(front, column) if level != reference and end > affordable]
        found[kind] = max(ends, default=float("nan"))
    return found


def _points(front: pd.DataFrame, numbers: pd.DataFrame, levels: Sequence[str]) -> str:
    rows = numbers[(numbers["twojmax"] == "all") & (numbers["points"] > 0)]
    named = [
        f"level {row['level']} ({row['points']} {format_duration_range(row['cheapest_s'], row['dearest_s'])})"
        for _, row in rows.iterrows()
    ]
    absent = [level for level in levels if level not in set(rows["level"])]
    missing = f"; {format_levels(absent)} {'is' if len(absent) == 1 else 'are'} absent" if absent else ""
    return (
        f"The front over all 2Jmax has {format_count(len(front), 'point')}, by the DFT cost of the training "
        f"labels: {join_items(named)}{missing}."
    )


def _budgets(front: pd.DataFrame, most: int = 6) -> str:
    parts = []
    for (column, kind), unit in zip(KINDS.items(), ("meV/atom", "meV/Å"), strict=True):
        buys = find_best_levels(front, column)
        named = [f"level {level} from {format_duration(start)}" for level, start, _ in buys[:most]]
        if len(buys) > most:
            more = format_count(len(buys) - most + 1, "more change")
            named[-1] = f"{more} up to level {buys[-1][0]} from {format_duration(buys[-1][1])}"
        lowest = f"down to {format_number(front[column].min())} {unit}"
        parts.append(f"the lowest {kind} error comes from {join_items(named)} ({lowest})")
    return f"As the budget grows, {'; '.join(parts)}."


def _places(earned: pd.DataFrame) -> str:
    """By 2Jmax, up to which budget a cheaper level wins although the reference could be paid for."""
    named = []
    for _, row in earned.iterrows():
        ends = [_until(row[kind], kind) for kind in KINDS.values()]
        start = format_duration(row["affordable"])
        named.append(f"at 2Jmax = {row['twojmax']:.0f} (reference affordable from {start}) {join_items(ends)}")
    return f"Where the reference level is affordable too, cheaper levels still win {'; '.join(named)}."


def _until(end: float, kind: str) -> str:
    if np.isnan(end):
        return f"never in {kind}"
    return f"at every budget in {kind}" if np.isinf(end) else f"up to {format_duration(end)} in {kind}"


def _verdict(earned: pd.DataFrame) -> FindingStatus:
    won = earned[list(KINDS.values())].notna().to_numpy()
    return "yes" if won.all() else "mixed" if won.any() else "no"
