"""Budgets of labels: their choice from round numbers, and their text.

A budget is a time in s; if the cost of labels is unknown, it is a number of configurations.
"""

import numpy as np
import pandas as pd

from paretofit import pareto
from paretofit.report.wording import format_count

MAX_SCORE_RATIO = 4.0  # budgets start where the score is at most this multiple of the lowest
# Budgets in s, the roundest first; each group is used up before the next one.
ROUND_BUDGETS = (
    (10.0, 60.0, 600.0, 3600.0, 36_000.0, 86_400.0, 864_000.0, 8_640_000.0),
    (1.0, 30.0, 120.0, 300.0, 1200.0, 1800.0, 7200.0, 18_000.0, 172_800.0, 432_000.0, 1_728_000.0, 4_320_000.0),
)
ROUND_COUNTS = (tuple(10.0**k for k in range(8)), tuple(m * 10.0**k for k in range(8) for m in (2.0, 5.0)))


def format_budget(budget: float, *, has_cost: bool) -> str:
    """Format a budget in seconds as a duration with two digits, or a number of configurations.

    >>> [format_budget(seconds, has_cost=True) for seconds in (72.3, 60.0, 600.0, 3600.0, 5111.0, 172_800.0)]
    ['72 s', '1 min', '10 min', '1 h', '85 min', '2 days']
    """
    if not has_cost:
        return format_count(round(budget), "configuration")
    for length, unit in ((86_400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if budget >= 2 * length or budget == length or unit == "s":
            break
    value = float(f"{budget / length:.2g}")
    return f"{value:,g} {'day' if unit == 'days' and value == 1 else unit}"


def format_budget_option(budget: float) -> str:
    """Format a round budget for a command line, such as ``"30min"`` or ``"2d"``."""
    return format_budget(budget, has_cost=True).replace(" ", "").replace("days", "d").replace("day", "d")


def choose_budgets(curve: pd.DataFrame, count: int, has_cost: bool) -> list[float]:
    """Choose round budgets, evenly distributed from where the error is at most `MAX_SCORE_RATIO` times the lowest.

    Parameters
    ----------
    curve : DataFrame
        ``score`` and ``budget_from``, in order of cost.
    count : int
        Maximum number.
    has_cost : bool
        Whether budgets are times in s rather than numbers of configurations.
    """
    score = curve["score"].to_numpy(dtype=float)
    is_useful = score <= MAX_SCORE_RATIO * score[-1]
    costs = curve["budget_from"].to_numpy(dtype=float)
    low, high = costs[int(np.argmax(is_useful))], costs[-1]
    budgets: list[float] = []
    for group in ROUND_BUDGETS if has_cost else ROUND_COUNTS:
        candidates = [value for value in group if low <= value <= high]
        while candidates and len(budgets) < count:
            distances = [min((abs(np.log(value / other)) for other in budgets), default=1.0) for value in candidates]
            budgets.append(candidates.pop(int(np.argmax(distances))))
    return sorted(budgets) or [float(high)]


def list_round_budgets(results: pd.DataFrame, has_cost: bool) -> list[float]:
    """List the round budgets that pay for some of the fits, up to the largest extrapolation."""
    costs = results.loc[results["label_seconds"] > 0, "label_seconds"]
    high = pareto.DEFAULT_EXTRAPOLATION_FACTOR * costs.max()
    groups = ROUND_BUDGETS if has_cost else ROUND_COUNTS
    return [value for group in groups for value in group if costs.min() <= value <= high]
