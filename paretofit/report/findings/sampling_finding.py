"""Does leverage sampling beat random sampling at equal subset size?

Subsets of growing size contain one another, so the cells of one repetition are not independent of each
other; the repetitions are. The test therefore ranks within each cell, averages the ranks of a
repetition over all cells to one number, and compares these numbers between samplings.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from paretofit.report.findings.finding import Finding, FindingStatus
from paretofit.report.tables.summaries import compute_quantiles, list_sampling_methods, prepare_results
from paretofit.report.wording import format_count, format_number, join_items

QUESTION = "Does leverage sampling beat random sampling?"
PAPER = (
    "In the paper both leverage samplings beat random clearly, in error and in spread; block leverage "
    "gives slightly lower force errors, regular leverage slightly lower energy errors."
)
KINDS = {"ref_energy": "energy", "ref_force": "force"}
CELL = ["twojmax", "weight_ratio", "n_train"]
_METHOD = (
    "Fits are compared at the reference level and at equal subset size, 2Jmax and w_E/w_F (a cell). In each "
    "cell the medians over repetitions, and the ranges from their 10th to their 90th percentile (the spreads), "
    "are divided by those of random sampling; averages over cells are geometric means. p is of a rank test."
)
_OUTCOMES = {
    "yes": "significantly lower",
    "no": "significantly higher",
    "no difference": "no clear difference",
}
TESTED = ("leverage", "block-leverage")
ALPHA = 0.05
# Two samplings with four repetitions each can just reach p < 0.05 in a two-sided rank test (p = 0.029).
LEAST_REPEATS = 4
# Fits to the same configurations in another order agree far better than this, different subsets never do.
SAME_FIT = 1e-3


def assess_leverage_sampling(results: pd.DataFrame, levels: Sequence[str]) -> Finding:
    """Compare leverage and block-leverage with random sampling at the reference level.

    Cells (2Jmax, w_E/w_F, subset size) in which all samplings coincide, because the subset is the whole
    training set, are left out.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    levels : names by cost, the last is the reference

    Returns
    -------
    Finding
        Yes or no where both samplings agree for both energy and force errors (p < 0.05), else mixed;
        no also where no difference is significant. ``numbers`` has a row per cell, sampling and kind of
        error.
    """
    frame = prepare_results(results, levels)
    frame = frame[frame["level"] == levels[-1]]
    others = [name for name in list_sampling_methods(frame) if name != "random"]
    if reason := _untestable(frame, levels):
        return Finding("sampling", QUESTION, "not tested", f"Not tested: {reason}.", PAPER)
    frame, whole = without_whole_set(frame)
    cells = _cells(frame, others) if set(frame["sampling"]) > {"random"} else pd.DataFrame()
    if cells.empty:
        reason = "no subset size below the whole training set has both random and leverage sampling"
        return Finding("sampling", QUESTION, "not tested", f"Not tested: {reason}.", PAPER)
    scores = [_score(frame, cells, name, kind) for name in others if name in TESTED for kind in KINDS.values()]
    repeats = min(score["repeats"] for score in scores)
    caveat = "" if repeats >= LEAST_REPEATS else _too_few(repeats)
    text = f"{_sentences(scores)} {caveat}{_METHOD} {_left_out(whole)}".strip()
    return Finding("sampling", QUESTION, "not tested" if caveat else _verdict(scores), text, PAPER, cells)


def _untestable(frame: pd.DataFrame, levels: Sequence[str]) -> str:
    samplings = set(frame["sampling"])
    if frame.empty:
        return f"there are no fits to the reference level, {levels[-1]}"
    if "random" not in samplings:
        return "there are no fits with random sampling"
    if not samplings & {"leverage", "block-leverage"}:
        return "there are no fits with leverage sampling"
    return ""


def without_whole_set(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """Leave out the largest subset size of a 2Jmax where all samplings and repetitions give one answer.

    Returns
    -------
    The other rows, and the subset sizes that were left out.
    """
    keep = pd.Series(True, index=frame.index)
    sizes = set()
    for _, rows in frame.groupby("twojmax"):
        largest = rows[rows["n_train"] == rows["n_train"].max()]
        if len(largest) == largest["weight_ratio"].nunique():
            continue  # a single fit for each weight has nothing to coincide with
        errors = largest.groupby("weight_ratio")[list(KINDS)]
        if ((errors.max() - errors.min()) <= SAME_FIT * errors.min().abs()).all(axis=None):
            keep[largest.index] = False
            sizes.add(int(largest["n_train"].iloc[0]))
    return frame[keep], sorted(sizes)


def _cells(frame: pd.DataFrame, others: Sequence[str]) -> pd.DataFrame:
    """A row per cell, sampling and kind of error: ratios of medians and of spreads to those of random."""
    parts = []
    for column, kind in KINDS.items():
        middle = frame.pivot_table(index=CELL, columns="sampling", values=column, aggfunc="median")
        spread = frame.pivot_table(index=CELL, columns="sampling", values=column, aggfunc=_spread)
        spread = spread.reindex_like(middle)
        for name in others:
            table = pd.DataFrame({
                "sampling": name,
                "error": kind,
                "random_median": middle["random"],
                "median": middle[name],
                "ratio_of_medians": middle[name] / middle["random"],
                "ratio_of_spreads": (spread[name] / spread["random"]).where(spread["random"] > 0),
            })  # fmt: skip
            usable = np.isfinite(table["ratio_of_medians"]) & (table["ratio_of_medians"] > 0)
            parts.append(table[usable].reset_index())
    cells: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return cells


def _spread(values: pd.Series) -> float:
    low, high = compute_quantiles(values, (0.1, 0.9))
    return high - low


def _score(frame: pd.DataFrame, cells: pd.DataFrame, name: str, kind: str) -> dict[str, Any]:
    """Over all cells: wins, geometric means of the ratios, and the p-value of the rank test."""
    mine = cells[(cells["sampling"] == name) & (cells["error"] == kind)]
    column = next(key for key, value in KINDS.items() if value == kind)
    ranks = _mean_ranks(frame, column, name)
    mine_ranks, random_ranks = ranks[name], ranks["random"]
    repeats = min(len(mine_ranks), len(random_ranks))
    p = np.nan
    if repeats >= LEAST_REPEATS:
        p = stats.mannwhitneyu(list(mine_ranks), list(random_ranks), alternative="two-sided").pvalue
    return {
        "sampling": name,
        "kind": kind,
        "cells": len(mine),
        "wins": int((mine["ratio_of_medians"] < 1).sum()),
        "ratio": _geometric_mean(mine["ratio_of_medians"]),
        "spread": _geometric_mean(mine["ratio_of_spreads"]),
        "lower": bool(repeats and mine_ranks.mean() < random_ranks.mean()),
        "repeats": repeats,
        "p": float(p),
    }


def _mean_ranks(frame: pd.DataFrame, column: str, name: str) -> dict[str, np.ndarray]:
    """For `name` and random, the rank of each repetition's error among all of a cell, averaged over cells.

    Only cells that hold every repetition of both samplings count, so that all averages are over the same.
    """
    pair = frame[frame["sampling"].isin([name, "random"]) & np.isfinite(frame[column])]
    table = pair.pivot_table(index=CELL, columns=["sampling", "repeat"], values=column).dropna()
    ranks = table.rank(axis=1).mean(axis=0)
    return {
        sampling: ranks[ranks.index.get_level_values("sampling") == sampling].to_numpy(dtype=float)
        for sampling in (name, "random")
    }


def _geometric_mean(ratios: pd.Series) -> float:
    values = ratios.to_numpy(dtype=float)
    values = values[np.isfinite(values) & (values > 0)]
    return float(np.exp(np.log(values).mean())) if values.size else float("nan")


def _answer(score: dict[str, Any]) -> str:
    if not score["p"] < ALPHA:
        return "no difference"
    return "yes" if score["lower"] else "no"


def _verdict(scores: Sequence[dict[str, Any]]) -> FindingStatus:
    answers = {_answer(score) for score in scores}
    if answers == {"yes"}:
        return "yes"
    return "mixed" if "yes" in answers else "no"


def _left_out(sizes: Sequence[int]) -> str:
    if not sizes:
        return ""
    return (
        f"Subsets of {join_items(sizes)} configurations are left out: they are the whole training set, where "
        "all samplings coincide."
    )


def _too_few(repeats: int) -> str:
    return (
        f"Whether this is more than chance is not tested: all cells share {format_count(repeats, 'repetition')}, "
        f"and it takes {LEAST_REPEATS}. "
    )


def _sentences(scores: Sequence[dict[str, Any]]) -> str:
    """One sentence for each sampling, on energy and force errors."""
    named: dict[str, list[str]] = {}
    for score in scores:
        spread = "" if np.isnan(score["spread"]) else f", its spread {score['spread']:.2f} times"
        test = "" if np.isnan(score["p"]) else f"; {_OUTCOMES[_answer(score)]}, p = {format_number(score['p'], 2)}"
        named.setdefault(score["sampling"], []).append(
            f"the {score['kind']} error is lower in {score['wins']} of {format_count(score['cells'], 'cell')} "
            f"(on average {score['ratio']:.2f} times that of random sampling{spread}{test})"
        )
    return " ".join(f"With {name} sampling {join_items(parts)}." for name, parts in named.items())
