"""Does a larger force weight lower the energy error of models trained on the lowest levels?"""

from collections.abc import Iterator, Sequence

import pandas as pd

from paretofit.report.findings.finding import Finding, combine_answers
from paretofit.report.tables.summaries import compute_medians, describe_subset, select_largest_subset
from paretofit.report.wording import format_levels, format_number, format_ratio, join_items

QUESTION = "Does a larger force weight lower the energy error against the reference for the lowest levels?"
PAPER = (
    "In the paper it does for levels 1, 2 and 3 of 6 (level 2: from 53.8 to 50.2 meV/atom between "
    "w_E/w_F = 150 and 12) and not for levels 4 and 5."
)
COLUMNS = [
    "twojmax", "level", "smallest_ratio", "energy_at_smallest", "largest_ratio", "energy_at_largest",
    "best_ratio", "best_energy", "answer",
]  # fmt: skip
GAIN = 0.01  # relative; a smaller change of the energy error does not count


def assess_force_weight(results: pd.DataFrame, levels: Sequence[str]) -> Finding:
    """Compare the energy error against the reference over w_E/w_F, at the largest subset.

    A smaller w_E/w_F is a larger force weight. For one level and 2Jmax the answer is *yes* where the
    smallest w_E/w_F has an energy error more than 1 % below that of the largest, *partly* where only
    one in between has, else *no*. The verdict is about the lowest levels: the lower half of those
    below the reference, rounded up.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    levels : names by cost, the last is the reference

    Returns
    -------
    Finding
        ``numbers`` has a row per (2Jmax, level), the other levels included for comparison.
    """
    rows = select_largest_subset(compute_medians(results, levels))
    lowest = [level for level in select_lowest_levels(levels) if level in set(rows["level"])]
    numbers = pd.DataFrame(_answers(rows, levels), columns=COLUMNS)
    reason = ""
    if rows["weight_ratio"].nunique() < 2:
        reason = "all fits have the same energy/force weight"
    elif not set(lowest) & set(numbers["level"]):
        reason = "the results hold none of the lowest levels at two weights"
    if reason:
        return Finding("weights", QUESTION, "not tested", f"Not tested: {reason}.", PAPER)
    low = numbers[numbers["level"].isin(lowest)]
    high = numbers[~numbers["level"].isin(lowest)]
    text = f"At the largest subset ({describe_subset(rows)}): {_by_level(low, lowest)}{_contrast(high)}"
    return Finding("weights", QUESTION, combine_answers(list(low["answer"])), text, PAPER, numbers)


def select_lowest_levels(levels: Sequence[str]) -> list[str]:
    """The lower half of the levels below the reference, rounded up: 1, 2, 3 of 6; 1, 2 of 5."""
    return list(levels[: len(levels) // 2])


def _answers(rows: pd.DataFrame, levels: Sequence[str]) -> Iterator[tuple[object, ...]]:
    for twojmax, model in rows.groupby("twojmax"):
        for level in levels:
            part = model[(model["level"] == level) & model["ref_energy"].notna()]
            errors = part.set_index("weight_ratio")["ref_energy"].sort_index()
            if len(errors) < 2:
                continue
            forces, energies, best = errors.iloc[0], errors.iloc[-1], errors.min()
            answer = "yes" if forces < energies * (1 - GAIN) else "partly" if best < energies * (1 - GAIN) else "no"
            smallest, largest, at_best = errors.index[0], errors.index[-1], errors.idxmin()
            yield twojmax, level, smallest, forces, largest, energies, at_best, best, answer


def _by_level(low: pd.DataFrame, lowest: Sequence[str]) -> str:
    sentences = []
    for level in lowest:
        part = low[low["level"] == level]
        if part.empty:
            continue
        row = part.iloc[-1]
        sentences.append(
            f"level {level}: {_tally(part)} (at {row['twojmax']}: {format_number(row['energy_at_largest'])} "
            f"meV/atom at w_E/w_F = {format_ratio(row['largest_ratio'])}, {format_number(row['energy_at_smallest'])} "
            f"at {format_ratio(row['smallest_ratio'])}, lowest {format_number(row['best_energy'])} at "
            f"{format_ratio(row['best_ratio'])})"
        )
    return "; ".join(sentences) + "."


def _tally(part: pd.DataFrame) -> str:
    """``"yes at 2Jmax 4 and 6, no at 8"``."""
    named: list[str] = []
    for answer in ("yes", "partly", "no"):
        values = list(part.loc[part["answer"] == answer, "twojmax"])
        if values:
            named.append(f"{answer} at {'' if named else '2Jmax '}{join_items(values)}")
    return ", ".join(named)


def _contrast(high: pd.DataFrame) -> str:
    if high.empty:
        return ""
    names = list(dict.fromkeys(high["level"]))
    count = (high["answer"] == "yes").sum()
    return f" For {format_levels(names)} it is yes in {count} of {len(high)} cases (each level and 2Jmax)."
