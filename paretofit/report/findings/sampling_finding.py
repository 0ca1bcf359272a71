"""Finding on whether leverage sampling gives lower errors than random sampling at equal subset size.

The subsets of a repetition are nested, so that its cells (2Jmax, w_E/w_F, subset size) depend on each other, whereas
the repetitions are independent. Therefore, the logarithms of the ratios of errors are averaged over all cells of a
2Jmax, and a t-test decides whether the averages of the repetitions, or of the train/test splits, differ from zero.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from paretofit.report.findings.finding import Finding, FindingDots, FindingStatus
from paretofit.report.paired_errors import NO_CLEAR_DIFFERENCE, ErrorComparison, PairedErrors
from paretofit.report.tables.summaries import ERROR_KINDS, compute_quantiles, list_sampling_methods, prepare_results
from paretofit.report.wording import format_count, format_number, join_items, join_sentences

QUESTION = "Does leverage sampling give lower errors than random sampling?"
PAPER = (
    "In the paper both leverage methods give clearly lower errors and spreads than random sampling; block leverage "
    "gives slightly lower force errors, regular leverage slightly lower energy errors."
)
CELL = ["twojmax", "weight_ratio", "n_train"]  # columns of a cell, in which sampling methods are compared
_METHOD = (
    "Fits are compared at the reference level and at equal subset size, 2Jmax and w_E/w_F (a cell); ratios are those "
    "of the medians over repetitions, in the geometric mean over cells, and numbers of random configurations are "
    "interpolated in their learning curve."
)
TESTED = ("leverage", "block-leverage")  # sampling methods that the answer compares with random sampling
SIGNIFICANCE_LEVEL = 0.05  # largest p-value of a significant difference
MIN_REPEATS = 4  # number of repetitions or splits; the scatter of fewer is too uncertain for a test
# Fits to the same configurations in another order agree much better than this, but fits to different subsets do not.
SAME_FIT_RELATIVE_TOLERANCE = 1e-3


def assess_leverage_sampling(
    results: pd.DataFrame, levels: Sequence[str], split_errors: PairedErrors | None = None
) -> Finding:
    """Compare leverage and block-leverage with random sampling at the reference level, for each 2Jmax.

    Two kinds of cells (2Jmax, w_E/w_F, subset size) are omitted: those in which the subset is the whole training set,
    for which all sampling methods give the same fit, and those in which a subset does not determine all coefficients.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    levels : names in order of cost; the last is the reference
    split_errors : errors in further train/test splits; with fewer than three of them, the repetitions are tested

    Returns
    -------
    Finding
        Yes if the energy and force errors of both methods are significantly lower (p < 0.05) at every 2Jmax, mixed if
        only some of these errors are, no if none is, not tested with fewer than `MIN_REPEATS` repetitions. ``numbers``
        has a row per cell, sampling method and kind of error; ``random_configurations`` is the number of random
        configurations that give the same error, in the geometric mean over weights: infinite if it exceeds the largest
        size, 0 if it is below the smallest.
    """
    frame = prepare_results(results, levels)
    frame = frame[frame["level"] == levels[-1]]
    method_names = [name for name in list_sampling_methods(frame) if name != "random"]
    if reason := _find_obstacle(frame, levels):
        return Finding.not_tested("sampling", QUESTION, reason, PAPER)
    determined, n_undetermined = drop_undetermined_cells(frame)
    subsets, whole_set_sizes = drop_whole_training_set(determined)
    cells = _compare_cells(subsets, method_names) if set(subsets["sampling"]) > {"random"} else pd.DataFrame()
    if cells.empty:
        reason = (
            "no subset size below the whole training set has both random and leverage sampling and determines all "
            "coefficients"
        )
        return Finding.not_tested("sampling", QUESTION, reason, PAPER)
    cells = _add_intervals(cells, levels[-1], ErrorComparison(frame, split_errors))
    cells = _add_random_configurations(cells, determined)
    if split_errors is not None and 1 + len(split_errors.errors["ref_energy"]) < MIN_REPEATS:
        split_errors = None  # too few splits for a test, for which the repetitions may be enough
    scores = [
        _score_method(subsets[subsets["twojmax"] == twojmax], group, split_errors)
        for (twojmax, name, _), group in cells.groupby(["twojmax", "sampling", "error"], sort=False)
        if name in TESTED
    ]
    n_averages = min(score["n_averages"] for score in scores)
    caveat = "" if n_averages >= MIN_REPEATS else _describe_missing_repeats(n_averages)
    omissions = _describe_omissions(whole_set_sizes, n_undetermined)
    text = join_sentences(_describe_scores(scores), caveat, _describe_test(split_errors), _METHOD, omissions)
    answers = {_classify_score(score) for score in scores}
    status: FindingStatus = "yes" if answers == {"yes"} else "mixed" if "yes" in answers else "no"
    tested = cells[cells["sampling"].isin(TESTED)]
    groups = tested["sampling"] + "\n2Jmax " + tested["twojmax"].astype(str)
    dots = FindingDots.collect(tested, groups, {"": "ratio_of_medians"}, "error / error of random sampling")
    return Finding("sampling", QUESTION, "not tested" if caveat else status, text, PAPER, cells, dots)


def _find_obstacle(frame: pd.DataFrame, levels: Sequence[str]) -> str:
    """Return the reason why the question cannot be tested; empty if it can."""
    method_names = set(frame["sampling"])
    if frame.empty:
        return f"there are no fits to the reference level, {levels[-1]}"
    if "random" not in method_names:
        return "there are no fits with random sampling"
    if not method_names & set(TESTED):
        return "there are no fits with leverage sampling"
    return ""


def drop_undetermined_cells(frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Drop the cells in which the rank of any fit is lower than its number of coefficients.

    Returns
    -------
    DataFrame, int
        Remaining rows, and number of dropped cells.
    """
    is_determined = frame["rank"] >= frame["n_features"]
    by_cell = is_determined.groupby([frame[name] for name in CELL])
    return frame[by_cell.transform("all")], int((~by_cell.all()).sum())


def drop_whole_training_set(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """Drop, for each 2Jmax, the largest subset size if all its sampling methods and repetitions give the same errors.

    It is retained if there is only one fit for each weight.

    Returns
    -------
    DataFrame, list of int
        Remaining rows, and dropped subset sizes.
    """
    is_subset = pd.Series(True, index=frame.index)
    sizes = set()
    for _, rows in frame.groupby("twojmax"):
        largest = rows[rows["n_train"] == rows["n_train"].max()]
        if len(largest) == largest["weight_ratio"].nunique():
            continue
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
        spreads = frame.pivot_table(index=CELL, columns="sampling", values=column, aggfunc=_compute_spread)
        spreads = spreads.reindex_like(medians)
        for name in method_names:
            table = pd.DataFrame({
                "sampling": name,
                "error": kind,
                "random_median": medians["random"],
                "median": medians[name],
                "ratio_of_medians": medians[name] / medians["random"],
                "ratio_of_spreads": (spreads[name] / spreads["random"]).where(spreads["random"] > 0),
            })  # fmt: skip
            is_valid = np.isfinite(table["ratio_of_medians"]) & (table["ratio_of_medians"] > 0)
            tables.append(table[is_valid].reset_index())
    cells: pd.DataFrame = pd.concat(tables, ignore_index=True)
    return cells


def _add_intervals(cells: pd.DataFrame, level: str, comparison: ErrorComparison) -> pd.DataFrame:
    """Insert, in place, the ends of the 90 % intervals of the ratios of medians, from paired splits or repetitions."""
    column_by_kind = {kind: column for column, kind in ERROR_KINDS.items()}
    ends = []
    for row in cells.to_dict("records"):
        column = column_by_kind[row["error"]]
        setting = {**{name: row[name] for name in CELL}, "level": level, "sampling": row["sampling"]}
        random_setting = {**setting, "sampling": "random", column: row["random_median"]}
        ends.append(comparison.estimate_ratio(column, random_setting, {**setting, column: row["median"]})[1:])
    lower_ends, upper_ends = zip(*ends, strict=True)
    position = list(cells.columns).index("ratio_of_medians") + 1
    cells.insert(position, "ratio_of_medians_low", lower_ends)
    cells.insert(position + 1, "ratio_of_medians_high", upper_ends)
    return cells


def _compute_spread(errors: pd.Series) -> float:
    """Compute the difference between the 90th and the 10th percentile of errors."""
    low, high = compute_quantiles(errors, (0.1, 0.9))
    return high - low


def _add_random_configurations(cells: pd.DataFrame, determined: pd.DataFrame) -> pd.DataFrame:
    """Add the number of random configurations that give the error of each subset (geometric mean over weights)."""
    random_rows = determined[determined["sampling"] == "random"]
    groups = []
    for (twojmax, _, kind), group in cells.groupby(["twojmax", "sampling", "error"], sort=False):
        column = next(name for name, error in ERROR_KINDS.items() if error == kind)
        rows = random_rows[random_rows["twojmax"] == twojmax]
        medians = rows.pivot_table(index="n_train", columns="weight_ratio", values=column, aggfunc="median")
        curve = np.exp(np.log(medians.dropna(axis=1)).mean(axis=1))
        ratios = group.groupby("n_train")["ratio_of_medians"].apply(_compute_geometric_mean)
        sizes = {size: interpolate_size(curve, ratio * curve.get(size, np.nan)) for size, ratio in ratios.items()}
        groups.append(group.assign(random_configurations=group["n_train"].map(sizes)))
    table: pd.DataFrame = pd.concat(groups, ignore_index=True)
    return table


def interpolate_size(curve: pd.Series, error: float) -> float:
    """Interpolate the size with an error in a learning curve, linearly in the logarithms of sizes and errors.

    Parameters
    ----------
    curve : Series of positive errors, by size in ascending order; where it rises, it is replaced by the lowest earlier
        error
    error : error in the unit of the curve

    Returns
    -------
    float
        Infinite for an error below the curve, 0 for one above it, NaN if the error is not finite or the curve is empty.
    """
    errors = np.minimum.accumulate(curve.to_numpy(dtype=float))
    if not np.isfinite(error) or not len(errors):
        return float("nan")
    if error < errors[-1]:
        return float("inf")
    if error > errors[0]:
        return 0.0
    sizes = np.log(curve.index.to_numpy(dtype=float))
    # errors fall, but np.interp requires ascending abscissas
    return float(np.exp(np.interp(-np.log(error), -np.log(errors), sizes)))


def _score_method(frame: pd.DataFrame, cells: pd.DataFrame, split_errors: PairedErrors | None) -> dict[str, Any]:
    """Compute the numbers that compare one kind of error of a method with random sampling at one 2Jmax.

    Parameters
    ----------
    frame : fits with this 2Jmax
    cells : rows of the numbers for this 2Jmax, method and kind of error
    split_errors : errors in further splits; None to test the repetitions

    Returns
    -------
    dict
        Among others, ``ratio``, the geometric mean of the ratios; ``by_size``, these means by subset size;
        ``is_lower``, whether the mean logarithm of the ratios is negative; ``n_averages``, the number of repetitions or
        splits; and ``p``, the p-value of a test that this mean is zero (NaN if ``n_averages`` is below `MIN_REPEATS`).
    """
    score_keys = cells.iloc[0][["twojmax", "sampling", "error"]]
    column = next(name for name, kind in ERROR_KINDS.items() if kind == score_keys["error"])
    logarithms = _average_logarithms(frame, column, score_keys["sampling"], split_errors)
    has_scatter = len(logarithms) >= MIN_REPEATS and np.ptp(logarithms) > 0
    sizes = sorted(set(cells["n_train"]))
    is_lower = bool(len(logarithms) and logarithms.mean() < 0)
    return {
        **score_keys,
        "ratio": _compute_geometric_mean(cells["ratio_of_medians"]),
        **choose_equivalent_size(cells, is_lower=is_lower),
        "random_sizes": (min(sizes), int(frame["n_train"].max())),
        "is_lower": is_lower,
        "n_agreeing": int(((cells["ratio_of_medians"] < 1) == is_lower).sum()),
        "n_cells": len(cells),
        "by_size": cells.groupby("n_train")["ratio_of_medians"].apply(_compute_geometric_mean),
        "n_averages": len(logarithms),
        "p": float(stats.ttest_1samp(logarithms, 0.0).pvalue) if has_scatter else np.nan,
    }


def choose_equivalent_size(cells: pd.DataFrame, *, is_lower: bool) -> dict[str, Any]:
    """Choose the subset size nearest to the middle one whose number of random configurations agrees with the test.

    With lower errors (`is_lower`), this number should be above the size, with higher errors below; where the learning
    curve of random sampling rises, it may not be.

    Returns
    -------
    dict
        ``n_train`` and ``random_configurations`` from a row of `cells`; empty if there is no such size.
    """
    by_size = cells.groupby("n_train")["random_configurations"].first()
    middle = len(by_size) // 2
    for position in sorted(range(len(by_size)), key=lambda index: abs(index - middle)):
        size, random_size = int(by_size.index[position]), float(by_size.iloc[position])
        if not np.isnan(random_size) and (random_size > size) == is_lower:
            return {"n_train": size, "random_configurations": random_size}
    return {}


def _average_logarithms(frame: pd.DataFrame, column: str, method: str, split_errors: PairedErrors | None) -> np.ndarray:
    """Average, over cells, the logarithm of the error of a method divided by the error of random sampling.

    Only cells with all repetitions of both methods are used, so that all averages are over the same cells.

    Returns
    -------
    (n_averages,) float64
        An average for each repetition. With further splits, the first element is the average over all repetitions, and
        each of the others is that of a split.
    """
    errors = frame[frame["sampling"].isin([method, "random"]) & np.isfinite(frame[column]) & (frame[column] > 0)]
    table = np.log(errors.pivot_table(index=CELL, columns=["sampling", "repeat"], values=column)).dropna()
    ratios: pd.DataFrame = (table[method] - table["random"]).dropna(axis=1)
    logarithms: np.ndarray = ratios.mean(axis=0).to_numpy(dtype=float)
    if split_errors is None or not len(logarithms):
        return logarithms
    index, level = split_errors.index_settings(), frame["level"].iloc[0]
    # the basis of a table with a single basis is ""
    position_pairs = [
        [index.get(("", twojmax, level, sampling, ratio), {}).get(size) for sampling in (method, "random")]
        for twojmax, ratio, size in table.index
    ]
    # settings that are never the best choice have no fits in further splits
    is_known = [None not in pair for pair in position_pairs]
    known_pairs = np.array([pair for pair in position_pairs if None not in pair], dtype=int)
    if not len(known_pairs):
        return logarithms
    test_errors = np.asarray(split_errors.errors[column][:, 0], dtype=float)  # the first sample is the whole test set
    split_logarithms = np.log(test_errors[:, known_pairs])
    differences = (split_logarithms[..., 0] - split_logarithms[..., 1]).mean(axis=1)
    return np.array([ratios[is_known].to_numpy().mean(), *differences[np.isfinite(differences)]])


def _compute_geometric_mean(ratios: pd.Series) -> float:
    """Compute the geometric mean of the ratios that are positive and finite; NaN if there are none."""
    all_ratios = ratios.to_numpy(dtype=float)
    valid_ratios = all_ratios[np.isfinite(all_ratios) & (all_ratios > 0)]
    return float(np.exp(np.log(valid_ratios).mean())) if valid_ratios.size else float("nan")


def _classify_score(score: dict[str, Any]) -> str:
    """Return ``"yes"`` or ``"no"`` if an error is significantly lower or higher, otherwise `NO_CLEAR_DIFFERENCE`."""
    is_majority = 2 * score["n_agreeing"] > score["n_cells"]  # otherwise, the mean depends on a few extreme cells
    if not (score["p"] < SIGNIFICANCE_LEVEL and is_majority):  # also if p is NaN
        return NO_CLEAR_DIFFERENCE
    return "yes" if score["is_lower"] else "no"


def _describe_omissions(whole_set_sizes: Sequence[int], n_undetermined: int) -> str:
    """Describe which cells were dropped, and why; empty if none was."""
    whole_set, undetermined = "", ""
    if whole_set_sizes:
        whole_set = (
            f"Subsets of {join_items(whole_set_sizes)} configurations are left out: they are the whole training set, "
            "for which all sampling methods give the same fit."
        )
    if n_undetermined:
        undetermined = (
            f"{format_count(n_undetermined, 'cell')} {'is' if n_undetermined == 1 else 'are'} left out in which a "
            "subset does not determine all coefficients."
        )
    return join_sentences(whole_set, undetermined)


def _describe_missing_repeats(n_repeats: int) -> str:
    """Describe that there are too few repetitions for a test."""
    return (
        f"The significance is not tested: all cells share {format_count(n_repeats, 'repetition')}, but {MIN_REPEATS} "
        "are required."
    )


def _describe_test(split_errors: PairedErrors | None) -> str:
    """Describe what p means."""
    samples = (
        "repetitions" if split_errors is None else "the study's split (the mean over repetitions) and further splits"
    )
    return f"p is that of a paired t-test of the logarithms of the ratios over {samples}."


def _describe_scores(scores: Sequence[dict[str, Any]]) -> str:
    """Describe the energy and force errors of each sampling method at each 2Jmax."""
    clauses_by_method: dict[tuple[int, str], list[str]] = {}
    for score in sorted(scores, key=lambda score: -score["twojmax"]):  # the figure shows a large 2Jmax
        clauses = clauses_by_method.setdefault((score["twojmax"], score["sampling"]), [])
        clauses.append(_describe_score(score))
    return " ".join(
        f"At 2Jmax = {twojmax} with {name} sampling, {join_items(clauses)}."
        for (twojmax, name), clauses in clauses_by_method.items()
    )


def _describe_score(score: dict[str, Any]) -> str:
    """Describe one kind of error of a method as a clause, if possible by the number of random configurations."""
    test = "" if np.isnan(score["p"]) else f", p = {format_number(score['p'], 2)}"
    ratios = score["by_size"]
    trend = (
        f", {ratios.iloc[0]:.2f} with {ratios.index[0]} and {ratios.iloc[-1]:.2f} with {ratios.index[-1]} "
        "configurations"
    )
    ratio = f"{score['ratio']:.2f} times that of random sampling{trend if len(ratios) > 1 else ''}{test}"
    if _classify_score(score) == NO_CLEAR_DIFFERENCE:
        return f"the {score['error']} error has {NO_CLEAR_DIFFERENCE} ({ratio})"
    verdict = f"significantly {'lower' if score['is_lower'] else 'higher'}"
    if "n_train" not in score:
        return f"the {score['error']} error is {verdict} ({ratio})"
    random_size, (smallest, largest) = score["random_configurations"], score["random_sizes"]
    count = f"about {random_size:.0f}" if random_size > 0 else f"fewer than {smallest}"
    count = f"more than {largest}" if np.isinf(random_size) else count
    return (
        f"{score['n_train']} configurations have the {score['error']} error of {count} random ones ({verdict}, {ratio})"
    )
