"""Budgets for labels: their choice among round numbers, and their text.

A budget is a time in s; if the cost of labels is unknown, it is a number of configurations.
"""

import numpy as np
import pandas as pd

from paretofit import pareto
from paretofit.report.wording import format_count

MAX_SCORE_RATIO = 4.0  # the smallest useful budget is the one with at most this multiple of the lowest score
# Budgets in s. All suitable budgets of the first group, the roundest, are used before those of the second.
ROUND_BUDGETS = (
    (10.0, 60.0, 600.0, 3600.0, 36_000.0, 86_400.0, 864_000.0, 8_640_000.0),
    (1.0, 30.0, 120.0, 300.0, 1200.0, 1800.0, 7200.0, 18_000.0, 172_800.0, 432_000.0, 1_728_000.0, 4_320_000.0),
)
# The same for budgets that are numbers of configurations: powers of ten, then 2 and 5 times powers of ten.
ROUND_COUNTS = (tuple(10.0**k for k in range(8)), tuple(m * 10.0**k for k in range(8) for m in (2.0, 5.0)))


def format_budget(budget: float, *, has_cost: bool) -> str:
    """Format a budget: a time in s as a duration with two significant digits, or else a number of configurations.

    A duration is in the largest unit in which it is at least 2 or exactly 1.

    >>> [format_budget(seconds, has_cost=True) for seconds in (72.3, 60.0, 600.0, 3600.0, 5111.0, 172_800.0)]
    ['72 s', '1 min', '10 min', '1 h', '85 min', '2 days']
    """
    if not has_cost:
        return format_count(round(budget), "configuration")
    for length, unit in ((86_400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if budget >= 2 * length or budget == length or unit == "s":
            break
    duration = float(f"{budget / length:.2g}")
    return f"{duration:,g} {'day' if unit == 'days' and duration == 1 else unit}"


def format_budget_option(budget: float) -> str:
    """Format a round budget (s) for the option ``--budget`` of a command, such as ``"30min"`` or ``"2d"``."""
    return format_budget(budget, has_cost=True).replace(" ", "").replace("days", "d").replace("day", "d")


def choose_budgets(curve: pd.DataFrame, count: int, has_cost: bool) -> list[float]:
    """Choose round budgets that are evenly distributed, on a logarithmic scale, over the useful part of a curve.

    This part begins where the score is at most `MAX_SCORE_RATIO` times the lowest one.

    Parameters
    ----------
    curve : DataFrame
        The best option for every budget: ``score`` and ``budget_from``, in ascending order of budgets.
    count : int
        Maximum number of budgets.
    has_cost : bool
        Whether budgets are times in s rather than numbers of configurations.

    Returns
    -------
    list of float
        Budgets in ascending order; if no round number is in the range, only the highest budget of the curve.
    """
    scores = curve["score"].to_numpy(dtype=float)
    is_useful = scores <= MAX_SCORE_RATIO * scores[-1]
    costs = curve["budget_from"].to_numpy(dtype=float)
    low, high = costs[int(np.argmax(is_useful))], costs[-1]
    budgets: list[float] = []
    for group in ROUND_BUDGETS if has_cost else ROUND_COUNTS:
        candidates = [budget for budget in group if low <= budget <= high]
        # The next budget is the candidate that is farthest from the chosen ones.
        while candidates and len(budgets) < count:
            distances = [min((abs(np.log(budget / other)) for other in budgets), default=1.0) for budget in candidates]
            budgets.append(candidates.pop(int(np.argmax(distances))))
    return sorted(budgets) or [float(high)]


def list_round_budgets(results: pd.DataFrame, has_cost: bool) -> list[float]:
    """List the round budgets from the cost of the cheapest fit to that of the largest extrapolation.

    Parameters
    ----------
    results : DataFrame
        A row for each fit; ``label_seconds`` holds numbers of configurations if `has_cost` is false.
    has_cost : bool
        Whether budgets are times in s rather than numbers of configurations.

    Returns
    -------
    list of float
        Budgets of `ROUND_BUDGETS` or `ROUND_COUNTS`, in their order.
    """
    costs = results.loc[results["label_seconds"] > 0, "label_seconds"]
    high = pareto.DEFAULT_EXTRAPOLATION_FACTOR * costs.max()
    groups = ROUND_BUDGETS if has_cost else ROUND_COUNTS
    return [budget for group in groups for budget in group if costs.min() <= budget <= high]
