"""Findings on cheap labels: models that are better than their labels, and the DFT time that larger errors save."""

from collections.abc import Sequence

import pandas as pd

from paretofit.pareto import format_size
from paretofit.report.figures.style import UNITS
from paretofit.report.findings.finding import Finding, FindingDots
from paretofit.report.paired_errors import INTERVAL_SUFFIXES, MIN_RELATIVE_CHANGE, ErrorComparison, PairedErrors
from paretofit.report.tables import summaries
from paretofit.report.wording import (
    capitalise_sentence,
    format_count,
    format_duration,
    format_number,
    join_items,
    join_sentences,
)

OWN_LEVEL_QUESTION = "Are models closer to the reference than to their own labels?"
SAVING_QUESTION = "How much DFT time do slightly larger errors save?"
TOLERANCES = (0.05, 0.1, 0.2, 0.5)  # increases of an error relative to the lowest error
STATED_TOLERANCES = (0.1, 0.2)  # tolerances in the answer; the table has all


def assess_own_level(
    results: pd.DataFrame, levels: Sequence[str], split_errors: PairedErrors | None = None
) -> Finding | None:
    """Compare the test errors of models of cheaper levels against the reference with those against their own level.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    levels : names in order of cost; the last is the reference
    split_errors : errors in further train/test splits; by default the repetitions are compared

    Returns
    -------
    Finding or None
        ``numbers`` has a row per (2Jmax, w_E/w_F, level) at the largest subset, for energies and forces: both test
        errors, their ratio with the ends of its 90 % interval, and both errors on the training set. None if no model of
        a cheaper level has finite test errors above zero.
    """
    rows = summaries.select_largest_subset(summaries.compute_medians(results, levels))
    kinds = list(summaries.ERROR_KINDS.values())
    columns = [f"{target}_{kind}" for kind in kinds for target in ("test", "ref")]
    rows = summaries.select_finite_rows(rows[rows["level"] != levels[-1]], columns, positive=True)
    if rows.empty:
        return None
    train_columns = [f"{target}_{kind}" for kind in kinds for target in ("train", "train_ref")]
    numbers = rows[["twojmax", "weight_ratio", "level", *columns, *train_columns]].reset_index(drop=True)
    comparison, settings = ErrorComparison(results, split_errors), rows.to_dict("records")
    clauses, train_clauses = [], []
    for column, kind in summaries.ERROR_KINDS.items():
        ratios = [comparison.estimate_ratio(f"test_{kind}", row, row, column) for row in settings]
        for suffix, ratio_column in zip(INTERVAL_SUFFIXES, zip(*ratios, strict=True), strict=True):
            numbers[f"{kind}_ratio{suffix}"] = ratio_column
        is_clear = (numbers[f"{kind}_ratio"] < 1 - MIN_RELATIVE_CHANGE) & (numbers[f"{kind}_ratio_high"] < 1)
        counts = _count_by_level(numbers, is_clear)
        clauses.append(f"the {kind} error against the reference is clearly lower in {join_items(counts) or 'none'}")
        train_ratio = numbers[f"train_ref_{kind}"] / numbers[f"train_{kind}"]
        if train_ratio.notna().any():
            counts = _count_by_level(numbers, train_ratio < 1 - MIN_RELATIVE_CHANGE)
            train_clauses.append(f"the {kind} error in {join_items(counts) or 'none'}")
    lower = f"at least {100 * MIN_RELATIVE_CHANGE:.0f} % lower against the reference"
    training = f" On the training set, {join_items(train_clauses)} is {lower}." if train_clauses else ""
    text = (
        f"Of {format_count(len(numbers), 'model')} trained on cheaper levels (each 2Jmax and w_E/w_F at the largest "
        f"subset), {'; '.join(clauses)}. Compared are errors on test labels of the reference and of the level trained "
        f"on. Where the first is lower, the model averages out part of the errors of its labels.{training} "
        f"{comparison.describe_criterion()}"
    )
    columns_by_kind = {kind: f"{kind}_ratio" for kind in kinds}
    groups = "level " + numbers["level"].astype(str)
    dots = FindingDots.collect(numbers, groups, columns_by_kind, "error against the reference / own level")
    return Finding("own_level", OWN_LEVEL_QUESTION, "measured", text, numbers=numbers, dots=dots)


def _count_by_level(numbers: pd.DataFrame, is_lower: pd.Series) -> list[str]:
    """Format, for each level, the number of models whose error is lower; levels without such models are omitted."""
    return [
        f"{is_lower[group.index].sum()} of {len(group)} at level {level}"
        for level, group in numbers.groupby("level", sort=False)
        if is_lower[group.index].any()
    ]


def assess_savings(results: pd.DataFrame, levels: Sequence[str]) -> Finding | None:
    """Find the cheapest settings with errors within some percentages of the lowest error of any setting.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å, s)
    levels : names in order of cost, mixtures of levels included; the last is the reference

    Returns
    -------
    Finding or None
        ``numbers`` has a row per (kind of error, tolerance): the cheapest setting within the tolerance, its error and
        cost, and ``saving``, the cost of the setting with the lowest error divided by that of this setting. None if no
        setting has finite errors and a cost above zero.
    """
    medians = summaries.compute_medians(results, levels).merge(summaries.tabulate_mixtures(results), "left", "level")
    table = summaries.select_finite_rows(medians, summaries.OBJECTIVES, positive=True)
    if table.empty:
        return None
    rows, clauses = [], []
    for column, kind in summaries.ERROR_KINDS.items():
        best = table.sort_values([column, "label_seconds"]).iloc[0]
        saving_texts = []
        for tolerance in TOLERANCES:
            candidates = table[table[column] <= best[column] * (1 + tolerance)]
            cheapest = candidates.sort_values(["label_seconds", column]).iloc[0]
            saving = best["label_seconds"] / cheapest["label_seconds"]
            interval_columns = [name for name in (f"{column}_low", f"{column}_high") if name in cheapest]
            error = {"error": kind, "tolerance": tolerance, "median": cheapest[column]}
            error |= {name.replace(column, "median"): cheapest[name] for name in interval_columns}
            rows.append({**error, **cheapest[[*summaries.SETTING, "label_seconds"]], "saving": saving})
            if tolerance in STATED_TOLERANCES:
                saving_texts.append(
                    f"an error that is {100 * tolerance:.0f} % larger {_describe_saving(cheapest, saving)}"
                )
        clauses.append(
            f"the lowest {kind} error, {format_number(best[column])} {UNITS[kind]}, costs "
            f"{format_duration(best['label_seconds'])} of DFT; {join_items(saving_texts)}"
        )
    sentences = join_sentences(*map(capitalise_sentence, clauses))
    text = f"{sentences} Errors are medians over repetitions in one train/test split."
    numbers = pd.DataFrame(rows)
    groups = (100 * numbers["tolerance"]).map("error {:.0f} % larger".format)
    dots = FindingDots.collect(numbers, groups, {"": "saving"}, "DFT time is this many times less")
    return Finding("savings", SAVING_QUESTION, "measured", text, numbers=numbers, dots=dots)


def _describe_saving(cheapest: pd.Series, saving: float) -> str:
    """Describe how many times less the cheapest setting within a tolerance costs, as the end of a clause."""
    if saving <= 1:
        return "has no cheaper setting"
    setting = f"level {cheapest['level']}, {format_size(cheapest)} configurations"
    cost = format_duration(cheapest["label_seconds"])
    return f"costs {format_number(saving, 2)} times less ({setting}, {cost})"
