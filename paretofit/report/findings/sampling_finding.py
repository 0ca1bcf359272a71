"""Finding on whether leverage sampling gives lower errors than random sampling at equal subset size.

Subsets of a repetition are nested, so the cells (2Jmax, w_E/w_F, subset size) of a repetition depend on each other, but
the repetitions are independent. The test therefore ranks the errors within each cell, averages the ranks of a
repetition over all cells, and compares these averages between sampling methods.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from paretofit.report.findings.finding import Finding, FindingStatus
from paretofit.report.tables.summaries import ERROR_KINDS, compute_quantiles, list_sampling_methods, prepare_results
from paretofit.report.wording import format_count, format_number, join_items, join_sentences

QUESTION = "Does leverage sampling give lower errors than random sampling?"
PAPER = (
    "In the paper both leverage methods give clearly lower errors and spreads than random sampling; block leverage "
    "gives slightly lower force errors, regular leverage slightly lower energy errors."
)
CELL = ["twojmax", "weight_ratio", "n_train"]
_METHOD = (
    "Fits are compared at the reference level and at equal subset size, 2Jmax and w_E/w_F (a cell). In each "
    "cell the medians over repetitions, and the ranges from their 10th to their 90th percentile (the spreads), "
    "are divided by those of random sampling; averages over cells are geometric means. p is of a rank test."
)
TESTED = ("leverage", "block-leverage")
SIGNIFICANCE_LEVEL = 0.05
# With four repetitions of both sampling methods, p < 0.05 is possible in a two-sided rank test (p = 0.029).
MIN_REPEATS = 4
# Fits to the same configurations in another order agree much better than this, but fits to different subsets do not.
SAME_FIT_RELATIVE_TOLERANCE = 1e-3


def assess_leverage_sampling(results: pd.DataFrame, levels: Sequence[str]) -> Finding:
    """Compare leverage and block-leverage with random sampling at the reference level.

    Cells (2Jmax, w_E/w_F, subset size) in which all sampling methods give the same fit, because the subset is the whole
    training set, are omitted.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    levels : names in order of cost; the last is the reference

    Returns
    -------
    Finding
        Yes if both methods have significantly lower energy and force errors (p < 0.05), mixed if only some of these
        errors are, no if none is, not tested with fewer than `MIN_REPEATS` repetitions. ``numbers`` has a row
        per cell, sampling method and kind of error.
    """
    frame = prepare_results(results, levels)
    frame = frame[frame["level"] == levels[-1]]
    method_names = [name for name in list_sampling_methods(frame) if name != "random"]
    if reason := _find_obstacle(frame, levels):
        return Finding.not_tested("sampling", QUESTION, reason, PAPER)
    frame, whole_set_sizes = drop_whole_training_set(frame)
    cells = _compare_cells(frame, method_names) if set(frame["sampling"]) > {"random"} else pd.DataFrame()
    if cells.empty:
        reason = "no subset size below the whole training set has both random and leverage sampling"
        return Finding.not_tested("sampling", QUESTION, reason, PAPER)
    tested_names = [name for name in method_names if name in TESTED]
    scores = [_score_method(frame, cells, name, *kind) for name in tested_names for kind in ERROR_KINDS.items()]
    repeats = min(score["repeats"] for score in scores)
    caveat = "" if repeats >= MIN_REPEATS else _describe_missing_repeats(repeats)
    text = join_sentences(_describe_scores(scores), caveat, _METHOD, _describe_dropped_sizes(whole_set_sizes))
    answers = {_answer(score) for score in scores}
    status: FindingStatus = "yes" if answers == {"yes"} else "mixed" if "yes" in answers else "no"
    return Finding("sampling", QUESTION, "not tested" if caveat else status, text, PAPER, cells)


def _find_obstacle(frame: pd.DataFrame, levels: Sequence[str]) -> str:
    samplings = set(frame["sampling"])
    if frame.empty:
        return f"there are no fits to the reference level, {levels[-1]}"
    if "random" not in samplings:
        return "there are no fits with random sampling"
    if not samplings & set(TESTED):
        return "there are no fits with leverage sampling"
    return ""


def drop_whole_training_set(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """Drop, for each 2Jmax, the largest subset size if all its sampling methods and repetitions give the same errors.

    Returns
    -------
    The remaining rows, and the subset sizes that were dropped.
    """
    is_subset = pd.Series(True, index=frame.index)
    sizes = set()
    for _, rows in frame.groupby("twojmax"):
        largest = rows[rows["n_train"] == rows["n_train"].max()]
        if len(largest) == largest["weight_ratio"].nunique():
            continue  # a single fit for each weight cannot be compared with another
        errors = largest.groupby("weight_ratio")[list(ERROR_KINDS)]
        if ((errors.max() - errors.min()) <= SAME_FIT_RELATIVE_TOLERANCE * errors.min().abs()).all(axis=None):
            is_subset[largest.index] = False
            sizes.add(int(largest["n_train"].iloc[0]))
    return frame[is_subset], sorted(sizes)


def _compare_cells(frame: pd.DataFrame, method_names: Sequence[str]) -> pd.DataFrame:
    """Tabulate medians and spreads relative to random sampling, with a row per cell, method and kind of error."""
    tables = []
    for column, kind in ERROR_KINDS.items():
        medians = frame.pivot_table(index=CELL, columns="sampling", values=column, aggfunc="median")
        spread = frame.pivot_table(index=CELL, columns="sampling", values=column, aggfunc=_compute_spread)
        spread = spread.reindex_like(medians)
        for name in method_names:
            table = pd.DataFrame({
                "sampling": name,
                "error": kind,
                "random_median": medians["random"],
                "median": medians[name],
                "ratio_of_medians": medians[name] / medians["random"],
                "ratio_of_spreads": (spread[name] / spread["random"]).where(spread["random"] > 0),
            })  # fmt: skip
            is_valid = np.isfinite(table["ratio_of_medians"]) & (table["ratio_of_medians"] > 0)
            tables.append(table[is_valid].reset_index())
    cells: pd.DataFrame = pd.concat(tables, ignore_index=True)
    return cells


def _compute_spread(values: pd.Series) -> float:
    low, high = compute_quantiles(values, (0.1, 0.9))
    return high - low


def _score_method(frame: pd.DataFrame, cells: pd.DataFrame, name: str, column: str, kind: str) -> dict[str, Any]:
    """Compute the numbers that compare one kind of error of the method `name` with random sampling.

    They are the number of cells with a lower median (``wins``), the geometric means of the ratios of medians and of
    spreads, whether the mean rank is lower, and the p-value of the rank test (NaN below `MIN_REPEATS` repetitions).
    """
    method_cells = cells[(cells["sampling"] == name) & (cells["error"] == kind)]
    ranks, random_ranks = _average_ranks(frame, column, name)
    repeats = min(len(ranks), len(random_ranks))
    p_value = np.nan
    if repeats >= MIN_REPEATS:
        p_value = stats.mannwhitneyu(list(ranks), list(random_ranks), alternative="two-sided").pvalue
    return {
        "sampling": name,
        "kind": kind,
        "cells": len(method_cells),
        "wins": int((method_cells["ratio_of_medians"] < 1).sum()),
        "ratio": _compute_geometric_mean(method_cells["ratio_of_medians"]),
        "spread": _compute_geometric_mean(method_cells["ratio_of_spreads"]),
        "lower": bool(repeats and ranks.mean() < random_ranks.mean()),
        "repeats": repeats,
        "p": float(p_value),
    }


def _average_ranks(frame: pd.DataFrame, column: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rank the errors of all repetitions within each cell, and average the ranks of each repetition over cells.

    Only cells with all repetitions of both methods are used, so that all averages are over the same cells.

    Returns
    -------
    The average rank of each repetition, for the method `name` and for random sampling.
    """
    errors = frame[frame["sampling"].isin([name, "random"]) & np.isfinite(frame[column])]
    table = errors.pivot_table(index=CELL, columns=["sampling", "repeat"], values=column).dropna()
    ranks = table.rank(axis=1).mean(axis=0)
    sampling = ranks.index.get_level_values("sampling")
    return ranks[sampling == name].to_numpy(dtype=float), ranks[sampling == "random"].to_numpy(dtype=float)


def _compute_geometric_mean(ratios: pd.Series) -> float:
    values = ratios.to_numpy(dtype=float)
    values = values[np.isfinite(values) & (values > 0)]
    return float(np.exp(np.log(values).mean())) if values.size else float("nan")


def _answer(score: dict[str, Any]) -> str:
    if not score["p"] < SIGNIFICANCE_LEVEL:
        return "no clear difference"
    return "yes" if score["lower"] else "no"


def _describe_dropped_sizes(sizes: Sequence[int]) -> str:
    if not sizes:
        return ""
    return (
        f"Subsets of {join_items(sizes)} configurations are left out: they are the whole training set, for which all "
        "sampling methods give the same fit."
    )


def _describe_missing_repeats(repeats: int) -> str:
    return (
        f"The significance is not tested: all cells share {format_count(repeats, 'repetition')}, but {MIN_REPEATS} are "
        "required."
    )


def _describe_scores(scores: Sequence[dict[str, Any]]) -> str:
    """Describe the energy and force errors of each sampling method."""
    outcomes = {"yes": "significantly lower", "no": "significantly higher"}
    parts_by_method: dict[str, list[str]] = {}
    for score in scores:
        spread = "" if np.isnan(score["spread"]) else f", its spread {score['spread']:.2f} times"
        answer = _answer(score)
        test = "" if np.isnan(score["p"]) else f"; {outcomes.get(answer, answer)}, p = {format_number(score['p'], 2)}"
        parts_by_method.setdefault(score["sampling"], []).append(
            f"the {score['kind']} error is lower in {score['wins']} of {format_count(score['cells'], 'cell')} "
            f"(on average {score['ratio']:.2f} times that of random sampling{spread}{test})"
        )
    return " ".join(f"With {name} sampling {join_items(parts)}." for name, parts in parts_by_method.items())
