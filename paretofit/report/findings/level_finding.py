"""Do errors against the reference fall from each convergence level to the next?"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pandas as pd

from paretofit.report.findings.finding import Finding, FindingStatus
from paretofit.report.tables.summaries import compute_medians, describe_subset, select_largest_subset
from paretofit.report.wording import capitalise_sentence, format_count, format_number, format_ratio, join_items

QUESTION = "Do errors against the reference fall from level to level?"
PAPER = (
    "In the paper they fall up to level 5 of 6, and the last two levels give the same errors "
    "(5.05 meV/atom and 110.5 meV/Å at w_E/w_F = 150)."
)
SAME = 0.01  # relative; a smaller change is called none: the published errors saturate to this precision
_PER_CENT = f"{100 * SAME:.0f} %"


def assess_error_decrease(results: pd.DataFrame, levels: Sequence[str]) -> Finding:
    """Compare neighbouring levels at the largest subset, for every 2Jmax and w_E/w_F.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    levels : names by cost, the last is the reference

    Returns
    -------
    Finding
        Yes: no step rises by more than 1 % and some fall; no: none falls; else mixed. ``numbers`` has a
        row per (2Jmax, w_E/w_F, step).
    """
    rows = select_largest_subset(compute_medians(results, levels))
    steps = pd.DataFrame(_steps(rows, levels))
    if steps.empty:
        reason = f"Not tested: the results hold only level {join_items(sorted(set(rows['level'])))}, and it takes two."
        return Finding("levels", QUESTION, "not tested", reason, PAPER)
    counts = [
        f"the {kind} error falls in {(steps[kind] == 'falls').sum()}, stays within {_PER_CENT} in "
        f"{(steps[kind] == 'same').sum()} and rises in {(steps[kind] == 'rises').sum()}"
        for kind in ("energy", "force")
    ]
    text = (
        f"At the largest subset ({describe_subset(rows)}), of {format_count(len(steps), 'step')} from one level to "
        f"the next (each 2Jmax and w_E/w_F), {counts[0]}; {counts[1]}. "
        f"{_example(rows, levels)} {_exceptions(steps)}"
    )
    return Finding("levels", QUESTION, _verdict(steps), text.strip(), PAPER, steps)


def _steps(rows: pd.DataFrame, levels: Sequence[str]) -> Iterator[dict[str, object]]:
    present = [level for level in levels if level in set(rows["level"])]
    for (twojmax, ratio), part in rows.groupby(["twojmax", "weight_ratio"]):
        errors = part.set_index("level")[["ref_energy", "ref_force"]]
        here = [level for level in present if level in errors.index]
        for lower, higher in pairwise(here):
            step: dict[str, object] = {"twojmax": twojmax, "weight_ratio": ratio, "from": lower, "to": higher}
            for kind in ("energy", "force"):
                before, after = (float(errors[f"ref_{kind}"][level]) for level in (lower, higher))
                step |= {f"{kind}_before": before, f"{kind}_after": after, kind: _change(before, after)}
            yield step


def _change(before: float, after: float) -> str:
    if math.isnan(before) or math.isnan(after):
        return "unknown"
    if after > before * (1 + SAME):
        return "rises"
    return "falls" if after < before * (1 - SAME) else "same"


def _verdict(steps: pd.DataFrame) -> FindingStatus:
    changes = set(steps["energy"]) | set(steps["force"])
    if "falls" not in changes:
        return "no"
    return "mixed" if "rises" in changes else "yes"


def _example(rows: pd.DataFrame, levels: Sequence[str]) -> str:
    """The chain of errors at the largest 2Jmax and the middle weight."""
    ratios = sorted(set(rows["weight_ratio"]))
    twojmax, ratio = rows["twojmax"].max(), ratios[len(ratios) // 2]
    part = rows[(rows["twojmax"] == twojmax) & (rows["weight_ratio"] == ratio)].set_index("level")
    here = [level for level in levels if level in part.index]
    chains = [
        " → ".join(format_number(part.loc[level, column]) for level in here) for column in ("ref_energy", "ref_force")
    ]
    return (
        f"For levels {' → '.join(here)} at 2Jmax = {twojmax} and w_E/w_F = {format_ratio(ratio)} the errors go "
        f"{chains[0]} meV/atom and {chains[1]} meV/Å."
    )


def _exceptions(steps: pd.DataFrame, most: int = 3) -> str:
    """Where errors do not fall, by step; the rest is in the numbers."""
    parts = []
    for kind in ("energy", "force"):
        against = steps[steps[kind].isin(["rises", "same"])]
        named = [
            f"from {lower} to {higher} at 2Jmax {join_items(sorted(set(part['twojmax'])))} ({len(part)} of "
            f"{((steps['from'] == lower) & (steps['to'] == higher)).sum()})"
            for (lower, higher), part in against.groupby(["from", "to"], sort=False)
        ]
        if named:
            rest = f" and {format_count(len(named) - most, 'other step')}" if len(named) > most else ""
            parts.append(f"the {kind} error does not fall {join_items(named[:most])}{rest}")
    return f"{capitalise_sentence('; '.join(parts))} " if parts else ""
