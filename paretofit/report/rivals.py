"""Rivals of a recommended setting: the best settings of the other levels, and how clearly they are worse.

If a study has a single level, the rivals have another 2Jmax or, with several bases, another model (basis and size).
"""

from typing import Any

import numpy as np
import pandas as pd

from paretofit import pareto
from paretofit.pareto import BASIS_COLUMN, INTERVAL_COVERAGE
from paretofit.report.budgets import format_budget
from paretofit.report.paired_errors import MIN_DRAWS, ErrorComparison
from paretofit.report.tables.summaries import ERROR_KINDS, compute_weight_ratio
from paretofit.report.wording import format_number, join_items

MAX_INTERVAL_RATIO = 10.0  # ends of an 80 % interval with a larger ratio are pointed out
MODEL_COLUMN = "model"  # column of options of several bases: the name of the basis and the size, such as "pod 6"

WIDE_INTERVAL = (
    "errors are hardly known: from one draw of the configurations to the next, they differ by more than a factor of "
    f"{MAX_INTERVAL_RATIO:g}; take more configurations, or a smaller model"
)


def choose_within_budget(options: pd.DataFrame, budget: float) -> pd.Series:
    """Choose the best option within a budget, as `paretofit plan` does; return it with the budget in ``budget``.

    Raises
    ------
    InputError
        If the budget is lower than the cost of every option.
    """
    choice = pareto.choose_option(options, pareto.Limits(budget=budget), "both")
    row: pd.Series = pd.concat([pd.Series({"budget": budget}), choice])
    return row


def find_rivals(options: pd.DataFrame, table: pd.DataFrame, key: str, comparison: ErrorComparison) -> pd.DataFrame:
    """Find the best option with each other value of a column for each budget.

    Parameters
    ----------
    options : DataFrame
        From `paretofit.pareto.tabulate_options`.
    table : DataFrame
        For each budget, the best option from `choose_within_budget`.
    key : {"level", "twojmax", "model"}
        Column whose values are compared.
    comparison : ErrorComparison
        Paired errors of the settings.

    Returns
    -------
    DataFrame
        Options in order of ``budget`` and of ``excess``: the score, which is the geometric mean of the energy and force
        errors, divided by that of the best option, minus 1.
        ``share_above`` is the share of paired samples, scaled by `compute_size_factors`, in which the score is higher
        than that of the best option (see `ErrorComparison.compute_share_above`), and ``is_clear`` is whether this share
        is above 95 %. Empty if there are no other values.
    """
    rivals = []

    def compute_product_factor(option: pd.Series) -> float:
        """Compute the factor that scales the paired products of both errors to the size of an option."""
        return float(np.prod(list(compute_size_factors(option, options, comparison).values())))

    for _, best in table.iterrows():
        others = options[(options[key] != best[key]) & (options["label_seconds"] <= best["budget"])]
        # All mixtures of levels are variants of one choice: only the best one is a rival, and not of another mixture.
        groups = others[key].astype(str).mask(pareto.find_mixtures(others), "mixture")
        if pd.notna(best.get("n_base", np.nan)):
            groups = groups[groups != "mixture"]
        for _, group_options in others.loc[groups.index].groupby(groups):
            rival = choose_within_budget(group_options, best["budget"])
            excess = _compute_score(rival) / _compute_score(best) - 1
            factor = compute_product_factor(rival) / compute_product_factor(best)
            share = comparison.compute_share_above(list(ERROR_KINDS), get_setting(rival), get_setting(best), factor)
            is_clear = share > (1 + INTERVAL_COVERAGE) / 2
            rivals.append({**rival, "excess": excess, "share_above": share, "is_clear": is_clear})
    return pd.DataFrame(rivals).sort_values(["budget", "excess"], ignore_index=True) if rivals else pd.DataFrame()


def get_setting(option: pd.Series) -> dict[str, Any]:
    """Return the columns of an option that identify its setting for `ErrorComparison`: `SETTING`, ``basis`` if any."""
    ratio = compute_weight_ratio(option.to_frame().T).iloc[0]
    names = ["twojmax", "level", "sampling", "n_train", *({BASIS_COLUMN} & {*option.index})]
    return {**option[names], "weight_ratio": ratio}


def compute_size_factors(option: pd.Series, options: pd.DataFrame, comparison: ErrorComparison) -> dict[str, float]:
    """Divide the expected errors of an option by those at the nearest number of configurations that was fitted.

    Paired samples, which are those of this number, are scaled by these factors to the number of the option.

    Parameters
    ----------
    option : Series
        A row of `options`.
    options : DataFrame
        From `paretofit.pareto.tabulate_options`, with all numbers of configurations that were fitted.
    comparison : ErrorComparison
        Paired errors of the settings.

    Returns
    -------
    dict
        Factors by the column of the error.
    """
    columns = pareto.list_setting_columns(options)
    is_same_setting = (options[columns] == option[columns]).all(axis=1)
    fitted = options[is_same_setting & options["n_train"].isin(comparison.fitted_sizes)]
    distances = np.abs(np.log(fitted["n_train"] / option["n_train"])).to_numpy()
    nearest = fitted.iloc[int(distances.argmin())]
    return {column: option[kind] / nearest[kind] for column, kind in ERROR_KINDS.items()}


def list_ties(rivals: pd.DataFrame, budget: float, key: str) -> list[Any]:
    """List the values of the column `key` that are not clearly worse than the best one at a budget, in sorted order."""
    if rivals.empty:
        return []
    return sorted(rivals.loc[(rivals["budget"] == budget) & ~rivals["is_clear"], key])


def _compute_score(row: pd.Series) -> float:
    """Compute the geometric mean of the energy and force errors of an option."""
    return float(np.sqrt(row["energy"] * row["force"]))


def describe_ties(table: pd.DataFrame, rivals: pd.DataFrame, key: str, has_cost: bool) -> str:
    """Describe in one sentence at which budgets another value of the column `key` is not clearly worse.

    Parameters
    ----------
    table : DataFrame
        A row for each ``budget``, with ``ties`` from `list_ties`.
    rivals : DataFrame
        From `find_rivals`.
    key : {"level", "twojmax", "model"}
        Column whose values are compared.
    has_cost : bool
        Whether budgets are times in s rather than numbers of configurations.

    Returns
    -------
    str
        Empty if there are no rivals.
    """
    if len(rivals) and not np.isfinite(rivals["share_above"].astype(float)).any():
        return f"It is not known how certain this is; that requires {MIN_DRAWS} further splits (confidence.splits)."
    tied = [format_budget(row["budget"], has_cost=has_cost) for _, row in table.iterrows() if row["ties"]]
    if not tied:
        return f"Every other {name_column(key)} is clearly worse at these budgets." if len(rivals) else ""
    where = "at each of these budgets" if len(tied) == len(table) else f"at {join_items(tied)}"
    return f"This is not certain {where}, where another {name_column(key)} may be as good."


def has_wide_interval(option: pd.Series) -> bool:
    """Return whether the ends of the interval of the energy or force error differ by more than `MAX_INTERVAL_RATIO`."""
    return any(option[f"{kind}_high"] > MAX_INTERVAL_RATIO * option[f"{kind}_low"] for kind in ERROR_KINDS.values())


def describe_wide_intervals(table: pd.DataFrame, has_cost: bool) -> str:
    """Describe in one sentence at which budgets of a table the errors are hardly known; empty if there are none."""
    is_wide = [has_wide_interval(row) for _, row in table.iterrows()]
    if not any(is_wide):
        return ""
    where = join_items(format_budget(budget, has_cost=has_cost) for budget in table.loc[is_wide, "budget"])
    return f"At {where}, {WIDE_INTERVAL}."


def describe_rivals(row: pd.Series, rivals: pd.DataFrame, key: str, *, has_cost: bool) -> str:
    """Describe in one sentence how clearly the setting for a budget is better than its rivals.

    Parameters
    ----------
    row : Series
        The setting, a row of the answer's table.
    rivals : DataFrame
        From `find_rivals`.
    key : {"level", "twojmax", "model"}
        Column whose values are compared.
    has_cost : bool
        Whether budgets are times in s rather than numbers of configurations.
    """
    rivals = rivals[rivals["budget"] == row["budget"]] if len(rivals) else rivals
    subject = f"{format_budget(row['budget'], has_cost=has_cost)}: {name_value(row, key)}"
    if rivals.empty:
        return f"{subject} is the only one within this budget."
    tied, worse = rivals[~rivals["is_clear"]], rivals[rivals["is_clear"]]
    worse_names = join_items(name_value(rival, key) for _, rival in worse.iterrows())
    if tied.empty:
        return f"{subject} is clearly better than {worse_names}."
    tied_texts = [f"{name_value(rival, key)}, {_describe_difference(rival)}" for _, rival in tied.iterrows()]
    text = f"{subject} has no clear difference from {join_items(tied_texts)}"
    if len(worse):
        text += f"; {worse_names} {'is' if len(worse) == 1 else 'are'} clearly worse"
    return f"{text}."


def name_column(key: str) -> str:
    """Name a compared column in a sentence or a heading."""
    return "2Jmax" if key == "twojmax" else key


def name_value(row: pd.Series, key: str) -> str:
    """Name the value of a compared column, such as ``"level 3"``, ``"2Jmax 6"`` or ``"pod 8"``."""
    return str(row[key]) if key == MODEL_COLUMN else f"{name_column(key)} {row[key]}"


def _describe_difference(rival: pd.Series) -> str:
    """Describe, in a relative clause, by how much the errors of a rival exceed the lowest ones, and how certainly."""
    percent = f"{format_number(100 * rival['excess'], 2)} %"
    if not np.isfinite(rival["share_above"]):
        return f"whose errors are {percent} larger; too few fits are comparable"
    return (
        f"whose errors are {percent} larger, but smaller in {100 * (1 - rival['share_above']):.0f} % of paired samples"
    )
