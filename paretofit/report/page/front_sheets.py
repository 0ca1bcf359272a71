"""Tables of the front: the best level for each budget, the knee points, and the share of each level and 2Jmax.

All tables contain medians over repetitions, without interpolation between subset sizes.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from paretofit import pareto
from paretofit.report.page.sweep_page import ReportTable
from paretofit.report.tables import summaries
from paretofit.report.wording import (
    format_count,
    format_duration,
    format_number,
    format_ratio,
    join_items,
)

_ENERGY, _FORCE, COST_COLUMN = summaries.OBJECTIVES
_BOTH = "both"  # column of sqrt(energy error · force error)
CRITERIA = {_ENERGY: "energy", _FORCE: "force", _BOTH: "both"}
_ALL = "all"
_POINT_COLUMNS = ["twojmax", "sampling", "n_train", "weight_ratio", _ENERGY, _FORCE]
MAX_TABLE_ROWS = 75
MAX_RANGE_LENGTH_LIMIT_DECADES = 0.5  # the minimum length of a budget range stops growing at this value


def build_front_tables(results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str]) -> Iterator[ReportTable]:
    """Build the tables that analyse the front.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å, s, µs/atom/step)
    front : DataFrame with `FRONT_COLUMNS`, a row per point of the front over all 2Jmax or of the front of each 2Jmax
    levels : names in order of cost; the last is the reference

    Yields
    ------
    ReportTable
        Best level by budget (if the cost of labels is known), knee points, and shares of the front.
    """
    medians = summaries.compute_medians(results, levels)
    # As in the front, the sampling method of the whole training set is "all". The size is NaN if the front has no such
    # point; the comparison is then False, and no sampling method is replaced.
    whole_set_size = front.loc[front["sampling"] == _ALL, "n_train"].min()
    table = medians.assign(sampling=medians["sampling"].where(~(medians["n_train"] >= whole_set_size), _ALL))
    priced = _select_priced(table)
    if len(priced):
        yield _build_budget_table(priced)
    objectives = summaries.OBJECTIVES if len(priced) else summaries.OBJECTIVES[:2]
    usable = summaries.select_finite_rows(table, objectives, positive=True)
    if usable.empty:
        return
    overall = _compute_overall_front(usable, front, objectives)
    yield _build_knee_table(usable, overall, objectives)
    yield _build_share_table(usable, overall, objectives, levels)


def _describe_point(row: "pd.Series[float]") -> str:
    return (
        f"{row['n_train']:,} configurations of level {row['level']} at 2Jmax = {row['twojmax']} and w_E/w_F = "
        f"{format_ratio(row['weight_ratio'])}, with {format_number(row[_ENERGY])} meV/atom and "
        f"{format_number(row[_FORCE])} meV/Å"
    )


def _select_priced(table: pd.DataFrame) -> pd.DataFrame:
    """Select settings with positive finite errors and cost, and add the column √(energy error · force error)."""
    rows = summaries.select_finite_rows(table, summaries.OBJECTIVES, positive=True)
    return rows.assign(**{_BOTH: np.sqrt(rows[_ENERGY] * rows[_FORCE])})


def _compute_overall_front(usable: pd.DataFrame, front: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """Compute the front over all 2Jmax, from `front` if the cost is an objective and `front` has finite rows.

    Otherwise, compute it from the medians `usable`, for the given objectives.
    """
    if COST_COLUMN in objectives:
        overall = summaries.select_finite_rows(
            summaries.compute_overall_front(front), summaries.OBJECTIVES, positive=True
        )
        if len(overall):
            return overall.assign(weight_ratio=summaries.compute_weight_ratio(overall))
    return summaries.drop_duplicate_fits(pareto.pareto_front(usable, list(objectives)))


def _compute_fronts(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Compute the front of each 2Jmax and the front over all 2Jmax; the keys are the row names of the tables.

    The best setting for any budget lies on the front of its 2Jmax. Of settings with the same cost and the same value of
    one error, the front contains the setting with the smaller other error.
    """
    fronts = summaries.compute_fronts_by_twojmax(table)
    return {**_name_fronts(fronts), _ALL: pareto.pareto_front(fronts, summaries.OBJECTIVES)}


def _name_fronts(fronts: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {f"2Jmax = {value}": points for value, points in fronts.groupby("twojmax")}


def _find_ranges(points: pd.DataFrame, criterion: str) -> pd.DataFrame:
    return pareto.merge_adjacent_ranges(pareto.select_best_by_budget(points, criterion, COST_COLUMN), "level")


def _build_budget_table(priced: pd.DataFrame) -> ReportTable:
    fronts = _compute_fronts(priced)
    ranges = {(name, key): _find_ranges(points, key) for name, points in fronts.items() for key in CRITERIA}
    shown, min_decades = pareto.drop_short_ranges(ranges, MAX_TABLE_ROWS, MAX_RANGE_LENGTH_LIMIT_DECADES)
    table = pd.concat([_format_ranges(rows, *key) for key, rows in shown.items()], ignore_index=True)
    note = (
        "The level with the lowest error against the reference for a DFT budget. A range begins at the cost of the "
        "first setting of the level and ends where another level is better; “both” is the lowest √(energy · force). "
        "Configurations, weights and errors are those of the last setting of the range. Only computed settings are "
        "included; nothing is interpolated between subset sizes."
    )
    if min_decades:
        note += (
            f" Of {format_count(sum(map(len, ranges.values())), 'range')} those shorter than a factor of "
            f"{format_number(10**min_decades)} in budget are left out, and ranges of one level are joined across them, "
            f"which leaves {len(table)}."
        )
    return ReportTable("Best level by budget", note, "best_by_budget", table)


def _format_ranges(ranges: pd.DataFrame, name: str, criterion: str) -> pd.DataFrame:
    """Format budget ranges as rows of the table."""
    return pd.DataFrame(
        {
            "models": name,
            "lowest": CRITERIA[criterion],
            "level": ranges["level"].astype(str),
            "budget from": ranges["budget_from"].map(format_duration),
            "budget to": [format_duration(end) if np.isfinite(end) else "–" for end in ranges["budget_to"]],
            "budget from (s)": ranges["budget_from"].astype(float),
            "budget to (s)": ranges["budget_to"].astype(float),
            **ranges[_POINT_COLUMNS],
        }
    )


def _build_knee_table(usable: pd.DataFrame, overall: pd.DataFrame, objectives: Sequence[str]) -> ReportTable:
    has_cost = COST_COLUMN in objectives
    rows = []
    for name, points in {**_name_fronts(summaries.compute_fronts_by_twojmax(usable)), _ALL: overall}.items():
        knee = points.iloc[[pareto.find_knee(points, objectives)]]
        columns = {"models": name, "points": len(points), "level": knee["level"], **knee[_POINT_COLUMNS]}
        if has_cost:
            columns |= {COST_COLUMN: knee[COST_COLUMN], "DFT cost": knee[COST_COLUMN].map(format_duration)}
        rows.append(pd.DataFrame(columns))
    table = pd.concat(rows, ignore_index=True)
    names = ["energy error", "force error", "DFT cost"][: len(objectives)]
    knee_point = table.iloc[-1]
    ratios = {name: format_number(knee_point[name] / overall[name].min()) for name in (_ENERGY, _FORCE)}
    note = (
        f"The knee of a front is the point with the lowest sum of the logarithms of {join_items(names)}, each scaled "
        "to run from 0 to 1 on that front: every other point loses at least as much in some objectives as it gains in "
        f"others. The knee of the front over all 2Jmax has {_describe_point(knee_point)}: {ratios[_ENERGY]} times the "
        f"lowest energy error and {ratios[_FORCE]} times the lowest force error of the front"
    )
    if has_cost:
        percentage = format_number(100 * knee_point[COST_COLUMN] / overall[COST_COLUMN].max())
        note += f", for {percentage} % of the cost of its most expensive point"
    return ReportTable("Knee points", f"{note}.", "knee_points", table)


def _build_share_table(
    usable: pd.DataFrame, overall: pd.DataFrame, objectives: Sequence[str], levels: Sequence[str]
) -> ReportTable:
    table = _tabulate_shares(overall, objectives, levels)
    errors = "errors and DFT cost" if COST_COLUMN in objectives else "the two errors"
    note = (
        "The number of points of the front over all 2Jmax that belong to each level and each 2Jmax, and the share of "
        "the dominated hypervolume (in scaled logarithms) that is lost without these points. A group whose points are "
        "nearly matched by those of others has many points and loses little volume. "
        f"The front in {errors} has {format_count(len(overall), 'point')} and dominates "
        f"{_format_volume(overall, objectives)} % of the box that extends to {pareto.HYPERVOLUME_REFERENCE:g} times "
        f"the range of each objective. {_describe_largest_shares(table)}"
    )
    objectives_with_md = [*objectives, pareto.MD_COST_COLUMN]
    timed = summaries.select_finite_rows(usable, objectives_with_md, positive=True)
    if len(timed):
        front_with_md = summaries.drop_duplicate_fits(pareto.pareto_front(timed, objectives_with_md))
        shares = _tabulate_shares(front_with_md, objectives_with_md, levels).set_index("group")
        table = table.set_index("group").join(shares.add_prefix("with MD cost: "), how="outer", sort=False)
        table = table.reindex(_sort_groups(table.index, levels)).reset_index(names="group")
        counts = [name for name in table.columns if name.endswith("points")]
        table[counts] = table[counts].fillna(0).astype(int)
        table = table.fillna(0.0)
        note += (
            f" With the MD cost as a further objective it has {format_count(len(front_with_md), 'point')} and "
            f"dominates {_format_volume(front_with_md, objectives_with_md)} % of its box."
        )
    return ReportTable("Shares of the front", note, "front_shares", table)


def _tabulate_shares(points: pd.DataFrame, objectives: Sequence[str], levels: Sequence[str]) -> pd.DataFrame:
    """Tabulate the shares of the front that belong to each level and to each 2Jmax."""
    tables = []
    for column, prefix in (("level", "level "), ("twojmax", "2Jmax = ")):
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
    """Sort groups: levels by cost, then 2Jmax in increasing order."""
    level_groups = [f"level {level}" for level in levels if f"level {level}" in groups]
    other_groups = set(groups) - set(level_groups)
    return [*level_groups, *sorted(other_groups, key=lambda name: int(name.rpartition(" ")[2]))]


def _format_volume(points: pd.DataFrame, objectives: Sequence[str]) -> str:
    """Format the percentage of the box of scaled logarithms that a front dominates."""
    return format_number(100 * pareto.compute_hypervolume_share(points, objectives))


def _describe_largest_shares(table: pd.DataFrame) -> str:
    """Describe the level with the most points, and the level whose removal loses the most volume."""
    rows = table[table["group"].str.startswith("level ")].set_index("group")
    most_points, most_volume = str(rows["points (%)"].idxmax()), str(rows["volume lost (%)"].idxmax())
    points = format_number(rows["points (%)"][most_points])
    volume = format_number(rows["volume lost (%)"][most_volume])
    text = f"Most points, {points} %, are of {most_points}"
    if most_points == most_volume:
        return f"{text}, without which most volume, {volume} %, is lost too."
    return f"{text}; most volume, {volume} %, is lost without {most_volume}."
