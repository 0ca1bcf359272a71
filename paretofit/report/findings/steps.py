"""Steps from one level, or one 2Jmax, to the next, and whether errors against the reference fall in them."""

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd

from paretofit.report.findings.finding import FindingDots, FindingStatus
from paretofit.report.paired_errors import INTERVAL_SUFFIXES, NO_CLEAR_DIFFERENCE, ErrorComparison


def list_steps(
    rows: pd.DataFrame,
    column: str,
    values: Sequence[object],
    shared_columns: Sequence[str],
    comparison: ErrorComparison,
) -> pd.DataFrame:
    """Compare the errors of settings with adjacent values of a column.

    Parameters
    ----------
    rows : DataFrame, medians of settings at one subset size
    column : column whose adjacent values are compared
    values : all values of this column, in order
    shared_columns : columns that are equal in both settings
    comparison : comparison of the errors

    Returns
    -------
    DataFrame
        A row per step: `shared_columns`, ``from`` and ``to``, and for each kind of error, such as ``energy``, the
        medians ``energy_before`` and ``energy_after``, their ratio ``energy_factor`` with the ends of its 90 %
        interval, and the change, ``energy``, from `ErrorComparison.classify_change`.
    """
    steps = []
    for keys, group in rows.groupby(list(shared_columns)):
        settings = {row[column]: row for row in group.to_dict("records")}
        for lower, higher in pairwise(value for value in values if value in settings):
            step: dict[str, object] = {**dict(zip(shared_columns, keys, strict=True)), "from": lower, "to": higher}
            for kind in ("energy", "force"):
                before, after, error_column = settings[lower], settings[higher], f"ref_{kind}"
                step |= {f"{kind}_before": before[error_column], f"{kind}_after": after[error_column]}
                step |= name_interval(f"{kind}_factor", comparison.estimate_ratio(error_column, before, after))
                step[kind] = comparison.classify_change(error_column, before, after)
            steps.append(step)
    return pd.DataFrame(steps)


def name_interval(name: str, estimate: tuple[float, float, float]) -> dict[str, float]:
    """Name a value and the ends of its interval as columns of a table: ``name``, ``name_low`` and ``name_high``."""
    return dict(zip((f"{name}{suffix}" for suffix in INTERVAL_SUFFIXES), estimate, strict=True))


def collect_step_dots(steps: pd.DataFrame, name: str = "") -> FindingDots:
    """Collect the factors of errors in all steps as dots; the group of a step begins with the text `name`."""
    groups = name + steps["from"].astype(str) + " → " + steps["to"].astype(str)
    return FindingDots.collect(
        steps, groups, {"energy": "energy_factor", "force": "force_factor"}, "error after the step / before it"
    )


def count_changes(steps: pd.DataFrame) -> str:
    """Format, as part of a sentence, in how many steps each error falls, rises and has no clear difference."""
    return "; ".join(
        f"the {kind} error falls in {changes.count('falls')}, rises in {changes.count('rises')} and has "
        f"{NO_CLEAR_DIFFERENCE} in {changes.count(NO_CLEAR_DIFFERENCE)}"
        for kind, changes in steps[["energy", "force"]].to_dict("list").items()
    )


def combine_changes(steps: pd.DataFrame) -> FindingStatus:
    """Return ``"yes"`` if most errors fall and none rises, ``"no"`` if none falls, otherwise ``"mixed"``."""
    changes = pd.concat([steps["energy"], steps["force"]])
    share_of_falls = float((changes == "falls").mean())
    if share_of_falls == 0:
        return "no"
    return "yes" if share_of_falls > 0.5 and not (changes == "rises").any() else "mixed"
