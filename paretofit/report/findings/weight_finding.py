"""Finding on whether a larger force weight lowers the energy error of models of the lowest levels."""

from collections.abc import Iterator, Sequence

import pandas as pd

from paretofit.report.findings.finding import Finding, combine_answers
from paretofit.report.paired_errors import NO_CLEAR_DIFFERENCE, ErrorComparison, PairedErrors
from paretofit.report.tables.summaries import compute_medians, describe_subset, select_largest_subset
from paretofit.report.wording import format_levels, format_number, format_ratio, join_items, join_sentences

QUESTION = "Does a larger force weight lower the energy error against the reference at the lowest levels?"
PAPER = (
    "In the paper's table for 2Jmax = 6 the energy error is lower at w_E/w_F = 12.25 than at 150 for levels 1 and 2 "
    "of 6 (level 2: 51.9 and 53.1 meV/atom), and higher for levels 3 to 6."
)
# Columns of the numbers, in the order of `_list_answers`; energies are in meV/atom.
COLUMNS = [
    "twojmax", "level", "smallest_ratio", "energy_at_smallest", "largest_ratio", "energy_at_largest",
    "smallest_to_largest", "smallest_to_largest_low", "smallest_to_largest_high", "best_ratio", "best_energy", "answer",
]  # fmt: skip


def assess_force_weight(
    results: pd.DataFrame, levels: Sequence[str], split_errors: PairedErrors | None = None
) -> Finding:
    """Compare the energy errors against the reference at different w_E/w_F, for the largest subset.

    A smaller w_E/w_F is a larger force weight. For a level and 2Jmax, the answer is *yes* if the energy error at the
    smallest w_E/w_F is clearly below that at the largest; *partly* if only the lowest error, at a ratio in between, is
    clearly below it; *no* if the error at the smallest w_E/w_F is clearly higher; and *no clear difference* otherwise
    (see `ErrorComparison.classify_change`). The status combines the answers of the lowest levels, see
    `select_lowest_levels`.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    levels : names in order of cost; the last is the reference
    split_errors : errors in further train/test splits; by default the repetitions are compared

    Returns
    -------
    Finding
        ``numbers`` has a row per (2Jmax, level), including levels above the lowest ones; ``smallest_to_largest`` is the
        energy error at the smallest w_E/w_F divided by that at the largest, with its 90 % interval.
    """
    rows = select_largest_subset(compute_medians(results, levels))
    comparison = ErrorComparison(results, split_errors)
    lowest_levels = [level for level in select_lowest_levels(levels) if level in set(rows["level"])]
    numbers = pd.DataFrame(_list_answers(rows, levels, comparison), columns=COLUMNS)
    reason = ""
    if rows["weight_ratio"].nunique() < 2:
        reason = "all fits have the same energy/force weight"
    elif not set(lowest_levels) & set(numbers["level"]):
        reason = "the results contain none of the lowest levels at two weights"
    if reason:
        return Finding.not_tested("weights", QUESTION, reason, PAPER)
    is_lowest = numbers["level"].isin(lowest_levels)
    lowest_numbers, other_numbers = numbers[is_lowest], numbers[~is_lowest]
    answers = f"{_describe_levels(lowest_numbers, lowest_levels)}{_describe_other_levels(other_numbers)}"
    text = f"At the largest subset ({describe_subset(rows)}): {answers}"
    # in the status, no clear difference counts as no
    clear_answers = [answer.replace(NO_CLEAR_DIFFERENCE, "no") for answer in lowest_numbers["answer"]]
    text = join_sentences(text, comparison.describe_criterion())
    return Finding("weights", QUESTION, combine_answers(clear_answers), text, PAPER, numbers)


def select_lowest_levels(levels: Sequence[str]) -> list[str]:
    """Select the lower half of the levels below the reference, rounded up: levels 1 to 3 of 6, or 1 and 2 of 5."""
    return list(levels[: len(levels) // 2])


def _list_answers(
    rows: pd.DataFrame, levels: Sequence[str], comparison: ErrorComparison
) -> Iterator[tuple[object, ...]]:
    """Yield the values of `COLUMNS` for each 2Jmax and level with at least two w_E/w_F."""
    for twojmax, rows_of_size in rows.groupby("twojmax"):
        for level in levels:
            rows_of_level = rows_of_size[(rows_of_size["level"] == level) & rows_of_size["ref_energy"].notna()]
            errors = rows_of_level.set_index("weight_ratio")["ref_energy"].sort_index()
            if len(errors) < 2:
                continue
            smallest, largest, best_ratio = errors.index[0], errors.index[-1], errors.idxmin()
            settings = {row["weight_ratio"]: row for row in rows_of_level.to_dict("records")}
            smallest_change, best_change = (
                comparison.classify_change("ref_energy", settings[largest], settings[ratio])
                for ratio in (smallest, best_ratio)
            )
            answer = {"falls": "yes", "rises": "no"}.get(smallest_change, NO_CLEAR_DIFFERENCE)
            answer = "partly" if answer != "yes" and best_change == "falls" else answer
            ratio_and_ends = comparison.estimate_ratio("ref_energy", settings[largest], settings[smallest])
            yield (
                twojmax, level, smallest, errors[smallest], largest, errors[largest], *ratio_and_ends,
                best_ratio, errors.min(), answer,
            )  # fmt: skip


def _describe_levels(numbers: pd.DataFrame, lowest_levels: Sequence[str]) -> str:
    """Describe the answers of each of the lowest levels, with the energy errors at the largest 2Jmax as an example."""
    clauses = []
    for level in lowest_levels:
        answers = numbers[numbers["level"] == level]
        if answers.empty:
            continue
        row = answers.iloc[-1]  # the largest 2Jmax
        clauses.append(
            f"level {level}: {_list_sizes_by_answer(answers)} (at 2Jmax {row['twojmax']}: "
            f"{format_number(row['energy_at_largest'])} meV/atom at w_E/w_F = {format_ratio(row['largest_ratio'])}, "
            f"{format_number(row['energy_at_smallest'])} at {format_ratio(row['smallest_ratio'])}, lowest "
            f"{format_number(row['best_energy'])} at {format_ratio(row['best_ratio'])})"
        )
    return "; ".join(clauses) + "."


def _list_sizes_by_answer(answers: pd.DataFrame) -> str:
    """List the 2Jmax of each answer: ``"yes at 2Jmax 4 and 6, no at 8"``."""
    answer_texts: list[str] = []
    for answer in ("yes", "partly", "no", NO_CLEAR_DIFFERENCE):
        sizes = list(answers.loc[answers["answer"] == answer, "twojmax"])
        if sizes:
            answer_texts.append(f"{answer} at {'' if answer_texts else '2Jmax '}{join_items(sizes)}")
    return ", ".join(answer_texts)


def _describe_other_levels(numbers: pd.DataFrame) -> str:
    """Count the cases of the other levels with the answer *yes*; empty without other levels."""
    if numbers.empty:
        return ""
    names = list(dict.fromkeys(numbers["level"]))
    n_yes = (numbers["answer"] == "yes").sum()
    return f" For {format_levels(names)} the answer is yes in {n_yes} of {len(numbers)} cases (each level and 2Jmax)."
