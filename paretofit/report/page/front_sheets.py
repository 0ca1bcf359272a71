"""Tables of the front: the best level for each budget, as in the answer, and the share of each level and 2Jmax."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from paretofit import pareto
from paretofit.pareto import BASIS_COLUMN
from paretofit.report.answer import ERROR_UNITS, INTERVAL_PERCENT, Answer
from paretofit.report.page.sweep_page import ReportTable
from paretofit.report.paired_errors import INTERVAL_SUFFIXES
from paretofit.report.rivals import MODEL_COLUMN, name_column
from paretofit.report.tables import summaries
from paretofit.report.tables.table_text import INTERVAL_ATTRIBUTE
from paretofit.report.wording import format_count, format_number

COST_COLUMN = summaries.OBJECTIVES[-1]
_WHOLE_SET = "all"  # sampling method of the whole training set


def build_front_tables(
    results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str], answer: Answer | None = None
) -> Iterator[ReportTable]:
    """Build the tables that analyse the front.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å, s, µs/atom/step)
    front : DataFrame with `FRONT_COLUMNS`, a row per point of the front over all 2Jmax or of the front of each 2Jmax
    levels : names in order of cost; the last is the reference
    answer : from `paretofit.report.find_answer`, optional

    Yields
    ------
    ReportTable
        The best level for each budget, if there is an answer and the cost of labels is known; then the shares of the
        front, if any setting has positive finite errors.
    """
    medians = summaries.compute_medians(results, levels)
    # As in the front, the sampling method of the whole training set is "all". The size is NaN if the front has no such
    # point; the comparison is then False, and no sampling method is replaced.
    whole_set_size = front.loc[front["sampling"] == _WHOLE_SET, "n_train"].min()
    is_whole_set = medians["n_train"] >= whole_set_size
    table = medians.assign(sampling=medians["sampling"].mask(is_whole_set, _WHOLE_SET))
    if answer is not None and answer.has_cost:
        yield _build_budget_table(answer)
    has_cost = len(summaries.select_finite_rows(table, summaries.OBJECTIVES, positive=True)) > 0
    objectives = summaries.OBJECTIVES if has_cost else summaries.OBJECTIVES[:2]
    usable_medians = summaries.select_finite_rows(table, objectives, positive=True)
    if usable_medians.empty:
        return
    overall = _compute_overall_front(usable_medians, front, objectives)
    yield _build_share_table(usable_medians, overall, objectives, levels)


def _compute_overall_front(
    usable_medians: pd.DataFrame, front: pd.DataFrame, objectives: Sequence[str]
) -> pd.DataFrame:
    """Compute the front over all 2Jmax.

    If the cost is an objective, this is the front of the rows of `front` with positive finite objectives. Without such
    rows, or if the cost is unknown, it is the front of the medians `usable_medians` in the given objectives.
    """
    if COST_COLUMN in objectives:
        overall = summaries.select_finite_rows(
            summaries.compute_overall_front(front), summaries.OBJECTIVES, positive=True
        )
        if len(overall):
            return overall.assign(weight_ratio=summaries.compute_weight_ratio(overall))
    return summaries.drop_duplicate_fits(pareto.pareto_front(usable_medians, list(objectives)))


def _build_budget_table(answer: Answer) -> ReportTable:
    """Build the table of the answer's ranges of budgets, with the setting for the highest budgets of each range."""
    ranges, compared_name = answer.ranges, name_column(answer.compared)
    budgets = ranges[["budget_from", "budget_to"]].map(
        lambda end: answer.format_budget(end) if np.isfinite(end) else "–"
    )
    table = pd.DataFrame(
        {
            "level": ranges["level"].astype(str),
            "budget from": budgets["budget_from"],
            "budget to": budgets["budget_to"],
            "budget from (s)": ranges["budget_from"].astype(float),
            "budget to (s)": ranges["budget_to"].astype(float),
            **ranges[[*([MODEL_COLUMN] if MODEL_COLUMN in ranges else []), "twojmax", "sampling", "n_train"]],
            "weight_ratio": summaries.compute_weight_ratio(ranges),
            **{f"ref_{kind}{end}": ranges[f"{kind}{end}"] for kind in ERROR_UNITS for end in INTERVAL_SUFFIXES},
        }
    )
    table.attrs[INTERVAL_ATTRIBUTE] = INTERVAL_PERCENT
    note = (
        f"The answer at the top of the page, for every budget: the {compared_name} with the lowest √(energy · force) "
        "error that a DFT budget pays for; if there are many ranges, without those that gain least. Configurations, "
        "weights and expected errors are those of the last setting of a range. The explorer opens at the knee, "
        f"{answer.format_budget(answer.knee)}: with error and cost in logarithms, each scaled to run from 0 to 1, "
        "their sum is the lowest there."
    )
    return ReportTable(f"Best {compared_name} by budget", note, "best_by_budget", table)


def _build_share_table(
    usable_medians: pd.DataFrame, overall: pd.DataFrame, objectives: Sequence[str], levels: Sequence[str]
) -> ReportTable:
    """Build the table of the shares of the front, in errors and cost and, if it is known, with the MD cost as well.

    Parameters
    ----------
    usable_medians : DataFrame
        Medians of all settings with positive finite objectives.
    overall : DataFrame
        Points of the front over all 2Jmax.
    objectives : sequence of str
        Columns of the objectives: both errors, and the DFT cost if it is known.
    levels : sequence of str
        Names in order of cost.
    """
    table = _tabulate_shares(overall, objectives, levels)
    models, model = ("bases and 2Jmax", "basis") if BASIS_COLUMN in overall else ("2Jmax", "2Jmax")
    objectives_text = "errors and DFT cost" if COST_COLUMN in objectives else "the two errors"
    note = (
        f"The number of points of the front over all {models} that belong to each level and each {model}, and the "
        "share of the dominated hypervolume (in scaled logarithms) that is lost without these points. A group with "
        "many points and little lost volume is nearly matched by the points of other groups. "
        f"The front in {objectives_text} has {format_count(len(overall), 'point')} and dominates "
        f"{_format_volume(overall, objectives)} % of the box that extends to {pareto.HYPERVOLUME_REFERENCE:g} times "
        f"the range of each objective. {_describe_largest_shares(table)}"
    )
    objectives_with_md = [*objectives, pareto.MD_COST_COLUMN]
    timed_medians = summaries.select_finite_rows(usable_medians, objectives_with_md, positive=True)
    if len(timed_medians):
        front_with_md = summaries.drop_duplicate_fits(pareto.pareto_front(timed_medians, objectives_with_md))
        shares = _tabulate_shares(front_with_md, objectives_with_md, levels).set_index("group")
        table = table.set_index("group").join(shares.add_prefix("with MD cost: "), how="outer", sort=False)
        table = table.reindex(_sort_groups(table.index, levels)).reset_index(names="group")
        # A group that is on only one of the two fronts has no points on the other one.
        count_columns = [name for name in table.columns if name.endswith("points")]
        table[count_columns] = table[count_columns].fillna(0).astype(int)
        table = table.fillna(0.0)
        note += (
            f" With the MD cost as a further objective, the front has {format_count(len(front_with_md), 'point')} and "
            f"dominates {_format_volume(front_with_md, objectives_with_md)} % of its box."
        )
    return ReportTable("Shares of the front", note, "front_shares", table)


def _tabulate_shares(points: pd.DataFrame, objectives: Sequence[str], levels: Sequence[str]) -> pd.DataFrame:
    """Tabulate the shares of the front that belong to each level, and to each basis or, if there is one, each 2Jmax."""
    tables = []
    models = (BASIS_COLUMN, "basis ") if BASIS_COLUMN in points else ("twojmax", "2Jmax = ")
    for column, prefix in (("level", "level "), models):
        shares = pareto.compute_front_shares(points, objectives, column)
        columns = {
            "group": prefix + shares[column].astype(str),
            "points": shares["points"].astype(int),
            "points (%)": 100 * shares["share"],
            "volume lost (%)": 100 * shares["volume_lost"],
        }
        tables.append(pd.DataFrame(columns))
    table = pd.concat(tables).set_index("group")
    return table.reindex(_sort_groups(table.index, levels)).reset_index(names="group")


def _sort_groups(groups: "pd.Index[str]", levels: Sequence[str]) -> list[str]:
    """Sort groups: levels by cost, then 2Jmax in ascending order, or bases by name."""
    level_groups = [f"level {level}" for level in levels if f"level {level}" in groups]
    other_groups = set(groups) - set(level_groups)
    # By length first, so that "2Jmax = 10" comes after "2Jmax = 8".
    return [*level_groups, *sorted(other_groups, key=lambda name: (len(name), name) if "=" in name else (0, name))]


def _format_volume(points: pd.DataFrame, objectives: Sequence[str]) -> str:
    """Format the share that a front dominates of its box (see `compute_hypervolume_share`), as a number in %."""
    return format_number(100 * pareto.compute_hypervolume_share(points, objectives))


def _describe_largest_shares(table: pd.DataFrame) -> str:
    """Describe which level has the most points of the front, and without which level most volume is lost."""
    rows = table[table["group"].str.startswith("level ")].set_index("group")
    most_points, most_volume = str(rows["points (%)"].idxmax()), str(rows["volume lost (%)"].idxmax())
    points = format_number(rows["points (%)"][most_points])
    volume = format_number(rows["volume lost (%)"][most_volume])
    text = f"Most points, {points} %, are of {most_points}"
    if most_points == most_volume:
        return f"{text}, without which most volume, {volume} %, is lost too."
    return f"{text}; most volume, {volume} %, is lost without {most_volume}."
