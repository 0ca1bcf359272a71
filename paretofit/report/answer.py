"""The answer of a study: the level and setting to run for a budget, from the planner of `paretofit.pareto`.

The page, the terminal, notebooks and `paretofit plan` show this answer, so that they recommend the same settings. The
criterion is the lowest √(energy error · force error) within the budget.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from paretofit import pareto
from paretofit.core import InputError
from paretofit.pareto import ASSUMED_COLUMN, BASIS_COLUMN, MD_COST_COLUMN, SPLITS_COLUMN
from paretofit.report.budgets import MAX_SCORE_RATIO, choose_budgets, format_budget, list_round_budgets
from paretofit.report.paired_errors import ErrorComparison, PairedErrors
from paretofit.report.rivals import (
    MODEL_COLUMN,
    choose_within_budget,
    describe_ties,
    find_rivals,
    list_ties,
    name_column,
    name_value,
)
from paretofit.report.setting_yaml import format_study
from paretofit.report.tables.table_text import format_interval
from paretofit.report.wording import format_count, format_levels, format_number, join_items

ERRORS = {"energy": "meV/atom", "force": "meV/Å"}
N_BUDGETS = 5
ERROR_SOURCE, TEST_SET = "error_source", "test set"  # name in the attributes of a results table, and its default
INTERVAL_PERCENT = 80  # share of draws within ``_low`` and ``_high`` of the planner's options
MAX_CURVE_SIZES = 60  # numbers of configurations of each setting, in addition to the measured ones
MAX_TIES_LENGTH = 12  # characters; more alternatives in a cell of the table are counted
MAX_RANGES = 4  # budget ranges in the sentence
MAX_RANGE_SCORE_RATIO = 1.25  # increase of the score in a range of budgets that is left out of the sentence


@dataclass(frozen=True)
class Answer:
    """The best setting for any budget, with its expected errors.

    Attributes
    ----------
    sentence : str
        The best convergence level for each range of budgets; with a single level, the best 2Jmax, or, with several
        bases, the best model (basis and size).
    certainty : str
        The budgets of `table` at which this is not certain, as a sentence; empty if there is nothing to compare.
    table : DataFrame
        A row for each of a few round budgets, ``budget``: the option of `paretofit.pareto.tabulate_options` that
        `paretofit.pareto.choose_option` selects, with ``level``, ``n_train``, ``twojmax``, ``w_energy``, ``w_force``,
        ``sampling``, ``label_seconds``, the expected errors with the ends of their intervals, and the MD cost.
        ``ties`` lists the other values of the column `compared` that are not clearly worse.
    rivals : DataFrame
        For each budget, the best option with each other value of the column `compared`, in order of their scores, with
        ``excess``, its score divided by that of the best, minus 1; ``share_above``, the share of paired samples in
        which its score is higher, by `ErrorComparison`; and ``is_clear``, whether this share is above 95 %. May be
        empty.
    curve : DataFrame
        The best option for every budget: rows with ``budget_from`` and ``budget_to``.
    options : DataFrame
        All options, from which the curve is selected.
    knee : float
        Budget at the knee of the curve.
    studies : tuple of str
        YAML of a study for each row of `table`.
    reference : str
        Level against which errors are measured.
    notes : tuple of str
        What limits the trust in the answer, as sentences.
    has_cost : bool
        Whether budgets are seconds of labels; otherwise they are numbers of configurations.
    error_source : str
        ``"test set"`` or ``"leave-one-out"``.
    """

    sentence: str
    certainty: str
    table: pd.DataFrame
    rivals: pd.DataFrame
    curve: pd.DataFrame
    options: pd.DataFrame
    knee: float
    studies: tuple[str, ...]
    reference: str
    notes: tuple[str, ...]
    has_cost: bool
    error_source: str = TEST_SET

    @property
    def compared(self) -> str:
        """Column whose values are compared: the level; with a single level, the 2Jmax or, with bases, the model."""
        return _get_compared_column(self.options)

    @property
    def ranges(self) -> pd.DataFrame:
        """Ranges of budgets with one best value of `compared`, as in `sentence`: the last option of each range."""
        return _select_ranges(self.curve, self.compared)

    def format_budget(self, budget: float) -> str:
        """Format a budget, such as ``"10 min"`` or ``"40 configurations"``."""
        return format_budget(budget, has_cost=self.has_cost)

    def to_dict(self) -> dict[str, Any]:
        """Convert the answer to a mapping for JSON, without the options and the curve."""
        return {
            "sentence": self.sentence, "certainty": self.certainty,
            "unit": "s" if self.has_cost else "configurations",
            "interval_percent": INTERVAL_PERCENT, "reference": self.reference, "budgets": self.table,
            "rivals": self.rivals, "studies": list(self.studies), "notes": list(self.notes),
        }  # fmt: skip


def find_answer(
    results: pd.DataFrame,
    study: Mapping[str, Any] | None = None,
    split_errors: PairedErrors | None = None,
    *,
    n_budgets: int = N_BUDGETS,
    further_studies: Mapping[str, Mapping[str, Any]] | None = None,
) -> Answer:
    """Find the best setting for any budget from the results of a study.

    Parameters
    ----------
    results : DataFrame
        A row for each fit, as for `paretofit.pareto.tabulate_options` (meV/atom, meV/Å, s). Without any known cost of
        labels, the budget is the number of configurations.
    study : mapping, optional
        Settings as in the YAML file, for the YAML of a setting.
    split_errors : PairedErrors, optional
        Errors in further splits, for paired differences of settings; by default those of the repetitions are used.
    n_budgets : int
        Maximum number of budgets in the table.
    further_studies : mapping of str to mapping, optional
        Settings of the studies of further bases, by the name in the column ``basis`` of the results.

    Raises
    ------
    InputError
        If the table lacks a column or no row of it can be used.
    """
    error_source = str(results.attrs.get(ERROR_SOURCE, TEST_SET))
    results, has_cost = _ensure_costs(results)
    candidates = list_round_budgets(results, has_cost)
    options = pareto.tabulate_options(results, budget=candidates, max_sizes=MAX_CURVE_SIZES)
    if BASIS_COLUMN in options:
        options[MODEL_COLUMN] = options[BASIS_COLUMN].astype(str) + " " + options["twojmax"].astype(str)
    scored = options.assign(score=pareto.compute_score(options, "both"))
    curve = pareto.select_best_by_budget(scored, "score", "label_seconds")
    budgets = choose_budgets(curve, n_budgets, has_cost)
    table = pd.DataFrame([choose_within_budget(options, budget) for budget in budgets]).reset_index(drop=True)
    reference = pareto.find_reference_level(results)
    key = _get_compared_column(options)
    rivals = find_rivals(options, table, key, ErrorComparison(results, split_errors))
    table["ties"] = [list_ties(rivals, budget, key) for budget in table["budget"]]
    sentence = _describe_ranges(curve, key, has_cost)
    if key != "level":
        sentence = f"{sentence.removesuffix('.')}; {_describe_gain(table, has_cost)}."
    elif MODEL_COLUMN in table:
        models = list(dict.fromkeys(table[MODEL_COLUMN]))
        sentence = f"{sentence.removesuffix('.')}; the best {'model is' if len(models) == 1 else 'models are'} "
        sentence += f"{join_items(models)}."
    return Answer(
        sentence, describe_ties(table, rivals, key, has_cost), table, rivals, curve, options,
        _find_knee(curve), tuple(
            format_study(row, reference, (further_studies or {}).get(str(row.get(BASIS_COLUMN)), study))
            for _, row in table.iterrows()
        ), reference,
        (*_describe_omitted_budgets(curve, key, has_cost), *_collect_notes(results, table, has_cost)),
        has_cost, error_source,
    )  # fmt: skip


def find_answer_or_reason(
    results: pd.DataFrame,
    study: Mapping[str, Any] | None = None,
    split_errors: PairedErrors | None = None,
    further_studies: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Answer | None, str]:
    """Find the answer; if no row of the results can be used, return None and a sentence with the reason."""
    try:
        return find_answer(results, study, split_errors, further_studies=further_studies), ""
    except InputError as error:
        return None, f"No setting can be recommended: {error}."


def get_interval(row: pd.Series, kind: str) -> tuple[float, float]:
    """Return the ends of the interval of an expected error, in its unit; NaN if its spread is unknown.

    Parameters
    ----------
    row : Series
        An option of the planner.
    kind : {"energy", "force"}
    """
    return float(row[f"{kind}_low"]), float(row[f"{kind}_high"])


def format_error(row: pd.Series, kind: str) -> str:
    """Format an expected error with its interval, such as ``"21.3 (18.8–24.9)"``, with * if it is extrapolated."""
    low, high = get_interval(row, kind)
    return f"{format_number(row[kind])}{format_interval(low, high)}{' *' if row['beyond'] else ''}"


def format_md_speed(row: pd.Series) -> str:
    """Format the MD speed in atom-steps/s on one core; a dash if it is unknown."""
    return format_number(1e6 / row[MD_COST_COLUMN])


def _get_compared_column(options: pd.DataFrame) -> str:
    if len(set(options["level"])) > 1:
        return "level"
    return MODEL_COLUMN if MODEL_COLUMN in options else "twojmax"


def _ensure_costs(results: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Replace the cost of labels by the number of configurations if it is unknown; return whether it is known."""
    if "label_seconds" not in results or "n_train" not in results:
        raise InputError("an answer requires a results table with the columns 'label_seconds' and 'n_train'")
    results = results.assign(level=results["level"].astype(str))
    has_cost = bool((results["label_seconds"] > 0).any())
    return (results if has_cost else results.assign(label_seconds=results["n_train"].astype(float))), has_cost


def _find_knee(curve: pd.DataFrame) -> float:
    """Find the budget at the knee of the curve, without the settings whose errors are far above the lowest."""
    useful = curve[curve["score"] <= MAX_SCORE_RATIO * curve["score"].iloc[-1]]
    return float(useful["budget_from"].iloc[pareto.find_knee(useful, ["label_seconds", "score"])])


def _select_ranges(curve: pd.DataFrame, key: str) -> pd.DataFrame:
    """Select the ranges of budgets with one value of a column.

    If there are many, the first ones are left out if their errors are far above the lowest, and those that gain least.
    """
    all_ranges = pareto.merge_adjacent_ranges(curve, key)
    n_useless = int((all_ranges["score"] > MAX_SCORE_RATIO * all_ranges["score"].iloc[-1]).sum())
    all_ranges = all_ranges.iloc[min(n_useless, max(len(all_ranges) - MAX_RANGES, 0)) :]
    ranges = pareto.drop_similar_ranges(all_ranges, key, MAX_RANGES, MAX_RANGE_SCORE_RATIO)
    return ranges.assign(budget_to=[*ranges["budget_from"].iloc[1:], np.inf])


def _describe_omitted_budgets(curve: pd.DataFrame, key: str, has_cost: bool) -> Iterator[str]:
    """Describe the lowest budgets, if the sentence leaves their ranges out."""
    start = _select_ranges(curve, key)["budget_from"].iloc[0]
    if start > curve["budget_from"].iloc[0]:
        yield (
            f"The sentence begins at {format_budget(start, has_cost=has_cost)}; with less, errors are more than "
            f"{MAX_SCORE_RATIO:g} times the lowest."
        )


def _describe_ranges(curve: pd.DataFrame, key: str, has_cost: bool) -> str:
    """Describe the best value of a column for each range of budgets in one sentence."""
    ranges = _select_ranges(curve, key)
    names = [name_value(row, key) for _, row in ranges.iterrows()]
    ends = [format_budget(value, has_cost=has_cost) for value in ranges["budget_from"].iloc[1:]]
    unit = " of DFT" if has_cost else ""
    only = "" if key == "level" else f"All labels are of level {curve['level'].iloc[0]}: "
    if not ends:
        return f"{only}{'T' if not only else 't'}ake {names[0]} for any budget."
    parts = [f"{'below' if only or k else 'Below'} {end}{unit if not k else ''}{' take' if not k else ''} {name}"
             for k, (end, name) in enumerate(zip(ends, names, strict=False))]  # fmt: skip
    return f"{only}{', '.join(parts)}, from then on {names[-1]}."


def _describe_gain(table: pd.DataFrame, has_cost: bool) -> str:
    """Describe the expected errors at the smallest and the largest budget of a table."""
    texts = []
    for _, row in table.iloc[[0, -1] if len(table) > 1 else [0]].iterrows():
        errors = join_items(f"{format_number(row[kind])} {unit}" for kind, unit in ERRORS.items())
        texts.append(
            f"{format_budget(row['budget'], has_cost=has_cost)} {'of DFT give' if has_cost else 'give'} {errors}"
        )
    return ", ".join(texts)


def _collect_notes(results: pd.DataFrame, table: pd.DataFrame, has_cost: bool) -> Iterator[str]:
    yield f"Brackets: {describe_intervals(results)}."
    if table["beyond"].any():
        yield (
            f"* extrapolated: more configurations than the {int(results['n_train'].max()):,} that were fitted. The "
            "error follows a power law there."
        )
    for _, row in table[pareto.find_mixtures(table)].drop_duplicates("level").iterrows():
        weight = row["base_energy_weight"]
        factor = "" if weight == 1 else f"; energies below level {row['top_level']} weigh {weight:g} times as much"
        yield f"Level {row['level']} is a mixture: {pareto.describe_size(row)}{factor}."
    levels = list_assumed_levels(results)
    if levels:
        yield (
            f"The cost of labels of {format_levels(levels)} is assumed by the study (cost.assumed_levels), not "
            "measured, and the answer depends on it."
        )
    if any(table["ties"]):
        yield "Alternatives after 'or' are not clearly worse; the setting and its errors belong to the first entry."
    if table[MD_COST_COLUMN].notna().any():
        yield "MD speed: atom-steps per second on one core, as measured on this machine or given in the study."
    if not has_cost:
        yield "The cost of labels is not known, so budgets are numbers of configurations."


def describe_intervals(results: pd.DataFrame) -> str:
    """Describe what the intervals of the expected errors contain, and from what they are estimated."""
    if SPLITS_COLUMN in results:
        n_splits = int(results[SPLITS_COLUMN].max())
        return (
            f"{INTERVAL_PERCENT} % of the errors of new draws in new train/test splits, from "
            f"{format_count(n_splits, 'further split')}"
        )
    n_repeats = results["repeat"].nunique() if "repeat" in results else 1
    return (
        f"{INTERVAL_PERCENT} % of the errors with other draws of the training set, from "
        f"{format_count(n_repeats, 'repetition')}"
    )


def list_assumed_levels(results: pd.DataFrame) -> tuple[str, ...]:
    """List the levels for which the study assumes the cost of labels."""
    if ASSUMED_COLUMN not in results:
        return ()
    is_assumed = results[ASSUMED_COLUMN].astype(str).str.lower() == "true"
    return tuple(results.loc[is_assumed, "level"].astype(str).unique())


def _join_ties(row: pd.Series, column: str, compared: str) -> str:
    """Format the level or the model of a setting, followed by those that may be as good, such as ``"3 or 4"``."""
    ties = ", ".join(map(str, row["ties"])) if column == compared else ""
    if len(ties) > MAX_TIES_LENGTH and len(row["ties"]) > 1:
        ties = f"{len(row['ties'])} others"
    return f"{row[column]} or {ties}" if ties else str(row[column])


def format_answer_table(answer: Answer) -> pd.DataFrame:
    """Format the table of budgets for reading, a row for each budget."""
    table = answer.table
    rows = [row for _, row in table.iterrows()]
    model = MODEL_COLUMN if MODEL_COLUMN in table else "twojmax"
    columns: dict[str, Sequence[str]] = {
        "budget": [answer.format_budget(row["budget"]) for row in rows],
        "level": [_join_ties(row, "level", answer.compared) for row in rows],
        "configurations": [pareto.format_size(row) for row in rows],
        name_column(model): [_join_ties(row, model, answer.compared) for row in rows],
        "w_E/w_F": [f"{row['w_energy'] / row['w_force']:.6g}" for row in rows],
        "sampling": [str(row["sampling"]) for row in rows],
        **{unit: [format_error(row, kind) for row in rows] for kind, unit in ERRORS.items()},
        "MD speed": [format_md_speed(row) for row in rows],
    }
    if table[MD_COST_COLUMN].isna().all():
        del columns["MD speed"]
    return pd.DataFrame(columns)
