"""Finding on whether leverage sampling gives lower errors than random sampling at equal subset size.

Subsets of a repetition are nested, so the cells (2Jmax, w_E/w_F, subset size) of a repetition depend on each other, but
the repetitions are independent. The test therefore averages the logarithms of the ratios of errors over all cells of a
2Jmax, and tests whether the averages of the repetitions, or of the train/test splits, differ from zero.
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
RANK_REVEALING = "rrqr"  # solver of fits with a lower rank than the number of coefficients
CELL = ["twojmax", "weight_ratio", "n_train"]
_METHOD = (
    "Fits are compared at the reference level and at equal subset size, 2Jmax and w_E/w_F (a cell); ratios are those "
    "of the medians over repetitions, in the geometric mean over cells, and numbers of random configurations are "
    "interpolated in their learning curve."
)
TESTED = ("leverage", "block-leverage")
SIGNIFICANCE_LEVEL = 0.05
MIN_REPEATS = 4  # fewer have a scatter that is too uncertain
# Fits to the same configurations in another order agree much better than this, but fits to different subsets do not.
SAME_FIT_RELATIVE_TOLERANCE = 1e-3


def assess_leverage_sampling(
    results: pd.DataFrame, levels: Sequence[str], split_errors: PairedErrors | None = None
) -> Finding:
    """Compare leverage and block-leverage with random sampling at the reference level, for each 2Jmax.

    Cells (2Jmax, w_E/w_F, subset size) are omitted in which all sampling methods give the same fit, because the subset
    is the whole training set, and in which a subset does not determine all coefficients.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    levels : names in order of cost; the last is the reference
    split_errors : errors in further train/test splits; with fewer than three of them, the repetitions are tested

    Returns
    -------
    Finding
        Yes if both methods have significantly lower energy and force errors (p < 0.05) at every 2Jmax, mixed if only
        some of these errors are, no if none is, not tested with fewer than `MIN_REPEATS` repetitions. ``numbers`` has a
        row per cell, sampling method and kind of error; ``random_configurations`` is the number of random
        configurations with the same error, in the geometric mean over weights: infinite if it is above the largest
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
    units = min(score["units"] for score in scores)
    caveat = "" if units >= MIN_REPEATS else _describe_missing_repeats(units)
    omissions = _describe_omissions(whole_set_sizes, n_undetermined)
    text = join_sentences(_describe_scores(scores), caveat, _describe_test(split_errors), _METHOD, omissions)
    answers = {_answer(score) for score in scores}
    status: FindingStatus = "yes" if answers == {"yes"} else "mixed" if "yes" in answers else "no"
    tested = cells[cells["sampling"].isin(TESTED)]
    groups = tested["sampling"] + "\n2Jmax " + tested["twojmax"].astype(str)
    dots = FindingDots.collect(tested, groups, {"": "ratio_of_medians"}, "error / error of random sampling")
    return Finding("sampling", QUESTION, "not tested" if caveat else status, text, PAPER, cells, dots)


def _find_obstacle(frame: pd.DataFrame, levels: Sequence[str]) -> str:
    samplings = set(frame["sampling"])
    if frame.empty:
        return f"there are no fits to the reference level, {levels[-1]}"
    if "random" not in samplings:
        return "there are no fits with random sampling"
    if not samplings & set(TESTED):
        return "there are no fits with leverage sampling"
    return ""


def drop_undetermined_cells(frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Drop the cells with a fit of lower rank than the number of coefficients.

    Returns
    -------
    The remaining rows, and the number of cells that were dropped.
    """
    is_determined = (frame["rank"] >= frame["n_features"]) & (frame["solver"] != RANK_REVEALING)
    by_cell = is_determined.groupby([frame[name] for name in CELL])
    return frame[by_cell.transform("all")], int((~by_cell.all()).sum())


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


def _add_intervals(cells: pd.DataFrame, level: str, comparison: ErrorComparison) -> pd.DataFrame:
    """Add the ends of the 90 % intervals of the ratios of medians, from paired splits or repetitions."""
    columns = {kind: column for column, kind in ERROR_KINDS.items()}
    ends = []
    for row in cells.to_dict("records"):
        column = columns[row["error"]]
        method = {**{name: row[name] for name in CELL}, "level": level, "sampling": row["sampling"]}
        random = {**method, "sampling": "random", column: row["random_median"]}
        ends.append(comparison.estimate_ratio(column, random, {**method, column: row["median"]})[1:])
    position = list(cells.columns).index("ratio_of_medians") + 1
    for name, values in zip(("high", "low"), reversed(list(zip(*ends, strict=True))), strict=True):
        cells.insert(position, f"ratio_of_medians_{name}", values)
    return cells


def _compute_spread(values: pd.Series) -> float:
    low, high = compute_quantiles(values, (0.1, 0.9))
    return high - low


def _add_random_configurations(cells: pd.DataFrame, determined: pd.DataFrame) -> pd.DataFrame:
    """Add the number of random configurations that have the error of each subset, in the mean over weights."""
    random = determined[determined["sampling"] == "random"]
    groups = []
    for (twojmax, _, kind), group in cells.groupby(["twojmax", "sampling", "error"], sort=False):
        column = next(name for name, error in ERROR_KINDS.items() if error == kind)
        rows = random[random["twojmax"] == twojmax]
        medians = rows.pivot_table(index="n_train", columns="weight_ratio", values=column, aggfunc="median")
        curve = np.exp(np.log(medians.dropna(axis=1)).mean(axis=1))
        ratios = group.groupby("n_train")["ratio_of_medians"].apply(_compute_geometric_mean)
        sizes = {size: interpolate_size(curve, ratio * curve.get(size, np.nan)) for size, ratio in ratios.items()}
        groups.append(group.assign(random_configurations=group["n_train"].map(sizes)))
    table: pd.DataFrame = pd.concat(groups, ignore_index=True)
    return table


def interpolate_size(curve: pd.Series, error: float) -> float:
    """Interpolate the size with an error in a learning curve of errors by size, linearly in the logarithms.

    Rises of the curve are levelled. The result is infinite for an error below the lowest, 0 for one above the highest,
    and NaN if the error is not finite.
    """
    errors = np.minimum.accumulate(curve.to_numpy(dtype=float))
    if not np.isfinite(error) or not len(errors):
        return float("nan")
    if error < errors[-1]:
        return float("inf")
    if error > errors[0]:
        return 0.0
    sizes = np.log(curve.index.to_numpy(dtype=float))
    return float(np.exp(np.interp(-np.log(error), -np.log(errors), sizes)))


def _score_method(frame: pd.DataFrame, cells: pd.DataFrame, split_errors: PairedErrors | None) -> dict[str, Any]:
    """Compute the numbers that compare one kind of error of a method with random sampling at one 2Jmax.

    They are the geometric mean of the ratios, the number of random configurations for the middle size, and the p-value
    of a test that the mean logarithm of the ratios of repetitions or splits is zero (NaN below `MIN_REPEATS` of them).
    """
    first = cells.iloc[0]
    column = next(name for name, kind in ERROR_KINDS.items() if kind == first["error"])
    logarithms = _average_logarithms(frame, column, first["sampling"], split_errors)
    has_scatter = len(logarithms) >= MIN_REPEATS and np.ptp(logarithms) > 0
    sizes = sorted(set(cells["n_train"]))
    is_lower = bool(len(logarithms) and logarithms.mean() < 0)
    return {
        **first[["twojmax", "sampling", "error"]],
        "ratio": _compute_geometric_mean(cells["ratio_of_medians"]),
        **choose_equivalent_size(cells, lower=is_lower),
        "random_sizes": (min(sizes), int(frame["n_train"].max())),
        "lower": is_lower,
        "n_agreeing": int(((cells["ratio_of_medians"] < 1) == is_lower).sum()),
        "n_cells": len(cells),
        "by_size": cells.groupby("n_train")["ratio_of_medians"].apply(_compute_geometric_mean),
        "units": len(logarithms),
        "p": float(stats.ttest_1samp(logarithms, 0.0).pvalue) if has_scatter else np.nan,
    }


def choose_equivalent_size(cells: pd.DataFrame, *, lower: bool) -> dict[str, Any]:
    """Choose the size nearest to the middle one whose equivalent number of random configurations agrees with the test.

    Where the learning curve of random sampling rises, this number may be on the other side of the size.

    Returns
    -------
    dict
        ``n_train`` and ``random_configurations``; empty if there is no such size.
    """
    by_size = cells.groupby("n_train")["random_configurations"].first()
    middle = len(by_size) // 2
    for position in sorted(range(len(by_size)), key=lambda k: abs(k - middle)):
        size, equivalent = int(by_size.index[position]), float(by_size.iloc[position])
        if not np.isnan(equivalent) and (equivalent > size) == lower:
            return {"n_train": size, "random_configurations": equivalent}
    return {}


def _average_logarithms(frame: pd.DataFrame, column: str, name: str, split_errors: PairedErrors | None) -> np.ndarray:
    """Average the logarithm of the ratio of a method's error to that of random sampling over cells.

    Only cells with all repetitions of both methods are used, so that all averages are over the same cells.

    Returns
    -------
    An average for each repetition; with further splits, that of all repetitions, followed by an average for each split.
    """
    errors = frame[frame["sampling"].isin([name, "random"]) & np.isfinite(frame[column]) & (frame[column] > 0)]
    table = np.log(errors.pivot_table(index=CELL, columns=["sampling", "repeat"], values=column)).dropna()
    ratios: pd.DataFrame = (table[name] - table["random"]).dropna(axis=1)
    logarithms: np.ndarray = ratios.mean(axis=0).to_numpy(dtype=float)
    if split_errors is None or not len(logarithms):
        return logarithms
    index, level = split_errors.index_settings(), frame["level"].iloc[0]
    pairs = [
        [index.get(("", twojmax, level, sampling, ratio), {}).get(size) for sampling in (name, "random")]
        for twojmax, ratio, size in table.index
    ]
    is_known = [None not in pair for pair in pairs]  # models that are never a choice have no fits in further splits
    positions = np.array([pair for pair in pairs if None not in pair], dtype=int)
    if not len(positions):
        return logarithms
    split_values = np.log(np.asarray(split_errors.errors[column][:, 0], dtype=float)[:, positions])
    differences = (split_values[..., 0] - split_values[..., 1]).mean(axis=1)
    return np.array([ratios[is_known].to_numpy().mean(), *differences[np.isfinite(differences)]])


def _compute_geometric_mean(ratios: pd.Series) -> float:
    values = ratios.to_numpy(dtype=float)
    values = values[np.isfinite(values) & (values > 0)]
    return float(np.exp(np.log(values).mean())) if values.size else float("nan")


def _answer(score: dict[str, Any]) -> str:
    is_majority = 2 * score["n_agreeing"] > score["n_cells"]  # otherwise a few cells have a large effect
    if not (score["p"] < SIGNIFICANCE_LEVEL and is_majority):
        return NO_CLEAR_DIFFERENCE
    return "yes" if score["lower"] else "no"


def _describe_omissions(whole_set_sizes: Sequence[int], n_undetermined: int) -> str:
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


def _describe_missing_repeats(repeats: int) -> str:
    return (
        f"The significance is not tested: all cells share {format_count(repeats, 'repetition')}, but {MIN_REPEATS} are "
        "required."
    )


def _describe_test(split_errors: PairedErrors | None) -> str:
    units = (
        "repetitions" if split_errors is None else "the study's split (the mean over repetitions) and further splits"
    )
    return f"p is of a paired t-test of the logarithms of the ratios over {units}."


def _describe_scores(scores: Sequence[dict[str, Any]]) -> str:
    """Describe the energy and force errors of each sampling method at each 2Jmax."""
    parts_by_method: dict[tuple[int, str], list[str]] = {}
    for score in scores:
        parts = parts_by_method.setdefault((score["twojmax"], score["sampling"]), [])
        parts.append(_describe_score(score))
    return " ".join(
        f"At 2Jmax = {twojmax} with {name} sampling, {join_items(parts)}."
        for (twojmax, name), parts in parts_by_method.items()
    )


def _describe_score(score: dict[str, Any]) -> str:
    answer = _answer(score)
    test = "" if np.isnan(score["p"]) else f", p = {format_number(score['p'], 2)}"
    sizes = score["by_size"]
    trend = (
        f", {sizes.iloc[0]:.2f} with {sizes.index[0]} and {sizes.iloc[-1]:.2f} with {sizes.index[-1]} configurations"
    )
    ratio = f"{score['ratio']:.2f} times that of random sampling{trend if len(sizes) > 1 else ''}{test}"
    if answer == NO_CLEAR_DIFFERENCE:
        return f"the {score['error']} error has {NO_CLEAR_DIFFERENCE} ({ratio})"
    verdict = f"significantly {'lower' if score['lower'] else 'higher'}"
    if "n_train" not in score:
        return f"the {score['error']} error is {verdict} ({ratio})"
    size, (smallest, largest) = score["random_configurations"], score["random_sizes"]
    count = f"about {size:.0f}" if np.isfinite(size) and size > 0 else f"fewer than {smallest}"
    count = f"more than {largest}" if np.isinf(size) else count
    return (
        f"{score['n_train']} configurations have the {score['error']} error of {count} random ones ({verdict}, {ratio})"
    )
