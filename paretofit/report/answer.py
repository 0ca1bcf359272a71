"""The answer of a study: the level and setting to choose for a budget, from the planner of `paretofit.pareto`.

The page, the terminal, notebooks and `paretofit plan` show this answer, so that they recommend the same settings. The
best setting is the one with the lowest *score*, √(energy error · force error), within the budget.
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
    describe_wide_intervals,
    find_rivals,
    list_ties,
    name_column,
    name_value,
)
from paretofit.report.setting_yaml import format_study
from paretofit.report.tables.table_text import format_interval
from paretofit.report.wording import format_count, format_levels, format_number, join_items

ERROR_UNITS = {"energy": "meV/atom", "force": "meV/Å"}  # by the kind of error, which is a column of the options
N_BUDGETS = 5  # default number of budgets in the table
ERROR_SOURCE, TEST_SET = "error_source", "test set"  # attribute of a results table, see `Answer`, and its default
INTERVAL_PERCENT = 80  # share of draws within ``_low`` and ``_high`` of the planner's options
MAX_CURVE_SIZES = 60  # numbers of configurations of each setting, in addition to the measured ones
MAX_TIES_LENGTH = 12  # characters of the alternatives in a cell of the table; longer lists are replaced by their number
MAX_RANGES = 4  # number of budget ranges in the sentence
MIN_RANGE_RATIO = 1.25  # ratio of the ends of a budget range below which the sentence omits it
MAX_RANGE_SCORE_RATIO = 1.25  # largest factor by which omitting a range from the sentence may raise its lowest score


@dataclass(frozen=True)
class Answer:
    """The best setting for each budget, with its expected errors.

    Attributes
    ----------
    sentence : str
        The best convergence level for each range of budgets; with a single level, the best 2Jmax, or, with several
        bases, the best model (basis and size).
    certainty : str
        Sentences on whether `sentence` is certain at the budgets of `table`, and at which budgets errors are hardly
        known; empty if there are no rivals and no wide intervals.
    table : DataFrame
        A row for each of a few round budgets, ``budget`` (s, or configurations): the option of
        `paretofit.pareto.tabulate_options` that `paretofit.pareto.choose_option` selects, with ``level``, ``n_train``,
        ``twojmax``, ``w_energy``, ``w_force``, ``sampling``, ``label_seconds``, the expected errors ``energy``
        (meV/atom) and ``force`` (meV/Å) with the ends of their intervals (``_low``, ``_high``), and the MD cost.
        ``ties`` lists the other values of the column `compared` that are not clearly worse.
    rivals : DataFrame
        From `find_rivals`: for each budget, the best option with each other value of the column `compared`, and how
        clearly it is worse. Empty if there are no other values.
    curve : DataFrame
        The best option for every budget: a row for each range from ``budget_from`` to ``budget_to``, with its
        ``score``.
    options : DataFrame
        All options, from which the curve is selected.
    knee : float
        Budget at the knee of the curve.
    studies : tuple of str
        YAML of a study for each row of `table`.
    reference : str
        Level against which errors are measured.
    notes : tuple of str
        Sentences on what the numbers mean and what limits their reliability.
    has_cost : bool
        Whether budgets are costs of labels in s; otherwise they are numbers of configurations.
    error_source : str
        What the errors are computed on: ``"test set"`` or ``"leave-one-out"``.
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
        """Column whose values are compared: the level; if there is only one, the 2Jmax or, with bases, the model."""
        return _get_compared_column(self.options)

    @property
    def ranges(self) -> pd.DataFrame:
        """Budget ranges of `sentence`, each with one recommended value of `compared`, in the form of `curve`.

        Ranges of low budgets may be missing. Because similar ranges are dropped, the value need not be the best in its
        whole range. The other columns are those of the best option at the upper end of the range before similar ranges
        were dropped; see `_select_ranges`.
        """
        return _select_ranges(self.curve, self.compared)

    def format_budget(self, budget: float) -> str:
        """Format a budget, such as ``"10 min"`` or ``"40 configurations"``."""
        return format_budget(budget, has_cost=self.has_cost)

    def to_dict(self) -> dict[str, Any]:
        """Collect the texts and the tables (DataFrames) of the answer for JSON, without the options and the curve."""
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
    """Find the best setting for each budget from the results of a study.

    Parameters
    ----------
    results : DataFrame
        A row for each fit, as for `paretofit.pareto.tabulate_options` (meV/atom, meV/Å, s). If no cost of labels is
        known, the budget is the number of configurations. The attribute ``error_source`` gives `Answer.error_source`.
    study : mapping, optional
        Settings as in the YAML file of the study, for `Answer.studies`. By default, these contain only the keys of the
        setting.
    split_errors : PairedErrors, optional
        Errors in further splits, for paired differences of settings; by default, the repetitions are used.
    n_budgets : int
        Maximum number of budgets in the table.
    further_studies : mapping of str to mapping, optional
        Settings of the studies of further bases, by the name in the column ``basis`` of the results.

    Raises
    ------
    InputError
        If the table lacks a column, or none of its rows can be used.
    """
    error_source = str(results.attrs.get(ERROR_SOURCE, TEST_SET))
    results, has_cost = _ensure_costs(results)
    candidate_budgets = list_round_budgets(results, has_cost)
    options = pareto.tabulate_options(results, budget=candidate_budgets, max_sizes=MAX_CURVE_SIZES)
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
        sentence = f"{sentence.removesuffix('.')}; {_describe_error_range(table, has_cost)}."
    elif MODEL_COLUMN in table:
        models = list(dict.fromkeys(table[MODEL_COLUMN]))
        sentence = f"{sentence.removesuffix('.')}; the best {'model is' if len(models) == 1 else 'models are'} "
        sentence += f"{join_items(models)}."
    studies = tuple(
        format_study(row, reference, (further_studies or {}).get(str(row.get(BASIS_COLUMN)), study))
        for _, row in table.iterrows()
    )
    notes = (*_describe_omitted_budgets(curve, key, has_cost), *_collect_notes(results, table, has_cost))
    certainty = f"{describe_ties(table, rivals, key, has_cost)} {describe_wide_intervals(table, has_cost)}".strip()
    return Answer(
        sentence, certainty, table, rivals, curve, options, _find_knee(curve), studies, reference, notes, has_cost,
        error_source,
    )  # fmt: skip


def find_answer_or_reason(
    results: pd.DataFrame,
    study: Mapping[str, Any] | None = None,
    split_errors: PairedErrors | None = None,
    further_studies: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Answer | None, str]:
    """Find the answer, and return it with an empty text; if there is none, return None and a sentence with the reason.

    The parameters are those of `find_answer`.
    """
    try:
        return find_answer(results, study, split_errors, further_studies=further_studies), ""
    except InputError as error:
        return None, f"No setting can be recommended: {error}."


def get_interval(row: pd.Series, kind: str) -> tuple[float, float]:
    """Return the ends of the interval of an expected error, in its unit; NaN if its spread is unknown.

    Parameters
    ----------
    row : Series
        A row of `Answer.table` or `Answer.options`.
    kind : {"energy", "force"}
        Error in meV/atom or meV/Å.
    """
    return float(row[f"{kind}_low"]), float(row[f"{kind}_high"])


def format_error(row: pd.Series, kind: str) -> str:
    """Format an expected error with its interval, such as ``"21.3 (18.8–24.9)"``; add * if it is extrapolated."""
    low, high = get_interval(row, kind)
    return f"{format_number(row[kind])}{format_interval(low, high)}{' *' if row['beyond'] else ''}"


def format_md_speed(row: pd.Series) -> str:
    """Format the MD speed of an option in atom-steps/s on one core, or a dash if it is unknown."""
    return format_number(1e6 / row[MD_COST_COLUMN])  # the cost is in µs


def _get_compared_column(options: pd.DataFrame) -> str:
    """Return the name of the column `Answer.compared`."""
    if len(set(options["level"])) > 1:
        return "level"
    return MODEL_COLUMN if MODEL_COLUMN in options else "twojmax"


def _ensure_costs(results: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Return the results, with ``n_train`` as ``label_seconds`` if no cost is known, and whether a cost is known.

    Levels become strings. `InputError` is raised if a column is missing.
    """
    for column in ("level", "n_train", "label_seconds"):
        if column not in results:
            raise InputError(f"an answer requires a results table with a column '{column}', which this one lacks")
    results = results.assign(level=results["level"].astype(str))
    has_cost = bool((results["label_seconds"] > 0).any())
    return (results if has_cost else results.assign(label_seconds=results["n_train"].astype(float))), has_cost


def _find_knee(curve: pd.DataFrame) -> float:
    """Find the budget at the knee of the curve, where scores above `MAX_SCORE_RATIO` times the lowest are ignored."""
    useful_rows = curve[curve["score"] <= MAX_SCORE_RATIO * curve["score"].iloc[-1]]
    return float(useful_rows["budget_from"].iloc[pareto.find_knee(useful_rows, ["label_seconds", "score"])])


def _select_ranges(curve: pd.DataFrame, key: str) -> pd.DataFrame:
    """Select the ranges of budgets with one best value of the column `key`, without narrow ones (`MIN_RANGE_RATIO`).

    If there are more than `MAX_RANGES`, ranges of low budgets are omitted while their scores are more than
    `MAX_SCORE_RATIO` times the lowest, and then the ranges that improve least on the preceding one.
    """
    all_ranges = pareto.merge_adjacent_ranges(curve, key)
    # Scores fall along the curve, so the ranges with high scores are the first ones.
    n_useless = int((all_ranges["score"] > MAX_SCORE_RATIO * all_ranges["score"].iloc[-1]).sum())
    n_omitted = min(n_useless, max(len(all_ranges) - MAX_RANGES, 0))
    useful_ranges = all_ranges.iloc[n_omitted:]
    is_wide = useful_ranges["budget_to"] >= MIN_RANGE_RATIO * useful_ranges["budget_from"]
    is_wide.iloc[-1] = True
    useful_ranges = pareto.merge_adjacent_ranges(useful_ranges[is_wide], key)
    ranges = pareto.drop_similar_ranges(useful_ranges, key, MAX_RANGES, MAX_RANGE_SCORE_RATIO)
    return ranges.assign(budget_to=[*ranges["budget_from"].iloc[1:], np.inf])


def _describe_omitted_budgets(curve: pd.DataFrame, key: str, has_cost: bool) -> Iterator[str]:
    """Yield a sentence about the lowest budgets, if `_describe_ranges` omits their ranges."""
    lowest_budget = _select_ranges(curve, key)["budget_from"].iloc[0]
    scores_below = curve.loc[curve["budget_from"] < lowest_budget, "score"]
    if len(scores_below):
        ratio = scores_below.iloc[-1] / curve["score"].iloc[-1]
        yield (
            f"The sentence begins at {format_budget(lowest_budget, has_cost=has_cost)}; with less, errors are at "
            f"least {format_number(ratio, 2)} times the lowest."
        )


def _describe_ranges(curve: pd.DataFrame, key: str, has_cost: bool) -> str:
    """Describe the best value of the column `key` for each range of budgets in one sentence.

    For example: "Below 10 min of DFT take level 2, below 1 h level 3, from then on level 4."
    """
    ranges = _select_ranges(curve, key)
    names = [name_value(row, key) for _, row in ranges.iterrows()]
    ends = [format_budget(budget, has_cost=has_cost) for budget in ranges["budget_from"].iloc[1:]]
    if ends:
        clauses = [f"below {ends[0]}{' of DFT' if has_cost else ''} take {names[0]}"]
        clauses += [f"below {end} {name}" for end, name in zip(ends[1:], names[1:-1], strict=True)]
        text = f"{', '.join(clauses)}, from then on {names[-1]}."
    else:
        text = f"take {names[0]} for any budget."
    if key == "level":
        return text[0].upper() + text[1:]
    return f"All labels are of level {curve['level'].iloc[0]}: {text}"


def _describe_error_range(table: pd.DataFrame, has_cost: bool) -> str:
    """Describe the expected errors at the smallest and the largest budget of a table, as part of a sentence."""
    texts = []
    for _, row in table.iloc[[0, -1] if len(table) > 1 else [0]].iterrows():
        errors = join_items(f"{format_number(row[kind])} {unit}" for kind, unit in ERROR_UNITS.items())
        texts.append(
            f"{format_budget(row['budget'], has_cost=has_cost)} {'of DFT give' if has_cost else 'give'} {errors}"
        )
    return ", ".join(texts)


def _collect_notes(results: pd.DataFrame, table: pd.DataFrame, has_cost: bool) -> Iterator[str]:
    """Yield the sentences of `Answer.notes` about the rows of the table of budgets."""
    yield f"Brackets contain {describe_intervals(results)}."
    if table["beyond"].any():
        yield (
            f"* extrapolated: more configurations than the {int(results['n_train'].max()):,} that were fitted; the "
            "error is assumed to follow a power law."
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
    """Describe, as part of a sentence, what the intervals of expected errors contain, and the data behind them."""
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
    """List the levels whose cost of labels is assumed by the study instead of measured."""
    if ASSUMED_COLUMN not in results:
        return ()
    # Booleans become objects if a cell is empty, as in joined tables.
    is_assumed = results[ASSUMED_COLUMN].astype(str).str.lower() == "true"
    return tuple(results.loc[is_assumed, "level"].astype(str).unique())


def _join_ties(row: pd.Series, column: str, compared: str) -> str:
    """Format the value of a column in a row; the value of the column `compared` with its ties, such as ``"3 or 4"``."""
    ties = ", ".join(map(str, row["ties"])) if column == compared else ""
    if len(ties) > MAX_TIES_LENGTH and len(row["ties"]) > 1:
        ties = f"{len(row['ties'])} others"
    return f"{row[column]} or {ties}" if ties else str(row[column])


def format_answer_table(answer: Answer) -> pd.DataFrame:
    """Format `Answer.table` as text for reading, with a row for each budget and units as headings of the errors.

    The column ``MD speed`` is missing if no speed is known.
    """
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
        **{unit: [format_error(row, kind) for row in rows] for kind, unit in ERROR_UNITS.items()},
        "MD speed": [format_md_speed(row) for row in rows],
    }
    if table[MD_COST_COLUMN].isna().all():
        del columns["MD speed"]
    return pd.DataFrame(columns)
