"""Which levels are on the front, and in which range of cost?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from paretofit.pareto.front import pareto_front
from paretofit.report.findings.finding import Finding, Verdict
from paretofit.report.summaries import OBJECTIVES, fronts_by_twojmax, medians
from paretofit.report.words import counted, duration_range, listed, named_levels, number

QUESTION = "Are levels cheaper than the reference on the front, and in which range of cost?"
PAPER = (
    "In the paper levels 1 and 2 of 6 are absent, 10 to 20 minutes of DFT favour level 3, 20 to 1,000 minutes "
    "level 4 and more than 3,000 minutes level 5, while level 6 appears only at the very edge."
)
# The cheapest setting of all is always on a front that counts cost, however bad it is. A level counts as
# useful where it reaches this multiple of the lowest energy and force errors on the front at once.
NEAR = 2.0


def levels_on_front(results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str]) -> Finding:
    """Say which levels are on the front of each 2Jmax and overall, with their ranges of label cost.

    Parameters
    ----------
    results : DataFrame, a row per fit
    front : DataFrame, a row per point of the overall front (energies meV/atom, forces meV/Å, s)
    levels : names by cost, the last is the reference

    Returns
    -------
    Finding
        Yes where every 2Jmax has a point of a level below the reference whose errors are within a
        factor of two of the lowest on its front; no where none has; else mixed. ``numbers`` has a row
        per (2Jmax or overall, level).
    """
    table = medians(results, levels)
    costs = table["label_seconds"].to_numpy(dtype=float)
    reason = ""
    if table["level"].nunique() < 2:
        reason = (
            f"the results hold only level {table['level'].iloc[0]}" if len(table) else "there are no results"
        )
    elif not (np.isfinite(costs) & (costs > 0)).any():
        reason = "no setting has a label cost above zero, so cheaper cannot be told from dearer"
    if reason:
        return Finding("front", QUESTION, "not tested", f"Not tested: {reason}. {PAPER}")
    by_twojmax = fronts_by_twojmax(table)
    numbers = pd.concat(
        [_rows(part, str(value), levels) for value, part in by_twojmax.groupby("twojmax")]
        + [_rows(_overall(front), "all", levels)],
        ignore_index=True,
    )
    text = f"{_overall_words(numbers, levels)} {_by_twojmax_words(numbers)} {PAPER}"
    return Finding("front", QUESTION, _verdict(numbers, levels), text, numbers)


def _overall(front: pd.DataFrame) -> pd.DataFrame:
    """The front over all 2Jmax, also where the one that was handed in is one for each 2Jmax."""
    finite = np.isfinite(front[OBJECTIVES].to_numpy(dtype=float)).all(axis=1)
    return pareto_front(front[finite], OBJECTIVES) if finite.any() else front[finite]


def _rows(front: pd.DataFrame, twojmax: str, levels: Sequence[str]) -> pd.DataFrame:
    """A row for each level: points on this front, points near its best, and the ranges of their cost (s)."""
    names = front["level"].astype(str)
    near = pd.Series(True, index=front.index)
    for column in OBJECTIVES[:2]:
        near &= front[column] <= NEAR * front[column].min()
    rows = []
    for level in levels:
        here, good = front[names == level], front[(names == level) & near]
        rows.append({
            "twojmax": twojmax,
            "level": level,
            "points": len(here),
            "cheapest_s": here["label_seconds"].min(),
            "dearest_s": here["label_seconds"].max(),
            "lowest_energy": here["ref_energy"].min(),
            "lowest_force": here["ref_force"].min(),
            "near_best": len(good),
            "near_cheapest_s": good["label_seconds"].min(),
            "near_dearest_s": good["label_seconds"].max(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _overall_words(numbers: pd.DataFrame, levels: Sequence[str]) -> str:
    rows = numbers[numbers["twojmax"] == "all"]
    shown = rows[rows["points"] > 0]
    if shown.empty:
        return "The front over all 2Jmax has no points."
    named = [
        f"level {row.level} from {duration_range(row.cheapest_s, row.dearest_s)} ({counted(row.points, 'point')}, "
        f"down to {number(row.lowest_energy)} meV/atom and {number(row.lowest_force)} meV/Å)"
        for row in shown.itertuples()
    ]
    absent = [level for level in levels if level not in set(shown["level"])]
    missing = f"; {named_levels(absent)} {'is' if len(absent) == 1 else 'are'} absent" if absent else ""
    return (
        f"The front over all 2Jmax has {counted(int(shown['points'].sum()), 'point')}, by DFT cost of the training "
        f"labels: {listed(named)}{missing}."
    )


def _by_twojmax_words(numbers: pd.DataFrame) -> str:
    """Where useful accuracy is reached, by 2Jmax: the cheapest point of a front is there whatever its error."""
    named = []
    for twojmax, rows in numbers[numbers["twojmax"] != "all"].groupby("twojmax", sort=False):
        good = rows[rows["near_best"] > 0]
        parts = [
            f"level {row.level} at {duration_range(row.near_cheapest_s, row.near_dearest_s)}"
            for row in good.itertuples()
        ]
        named.append(f"for 2Jmax = {twojmax} {listed(parts) if parts else 'no level'}")
    return f"Within a factor of {NEAR:g} of both lowest errors are {'; '.join(named)}."


def _verdict(numbers: pd.DataFrame, levels: Sequence[str]) -> Verdict:
    rows = numbers[(numbers["twojmax"] != "all") & (numbers["level"] != levels[-1])]
    useful = rows.groupby("twojmax")["near_best"].sum() > 0
    return "yes" if useful.all() else "mixed" if useful.any() else "no"
