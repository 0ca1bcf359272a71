"""What the front says about spending: the best level at every budget, the knees, and who holds the front.

All from the medians over repetitions of what was computed; nothing is interpolated between subset sizes.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from paretofit.pareto import (
    HYPERVOLUME_REFERENCE,
    compute_front_shares,
    dominated_hypervolume,
    find_knee,
    merge_adjacent_ranges,
    pareto_front,
    scale_objectives,
    select_best_by_budget,
)
from paretofit.report.page.sweep_page import ReportTable
from paretofit.report.tables.summaries import (
    OBJECTIVES,
    compute_fronts_by_twojmax,
    compute_medians,
    compute_overall_front,
    compute_weight_ratio,
    drop_duplicate_fits,
)
from paretofit.report.wording import format_count, format_duration, format_number, format_ratio, join_items

_ENERGY, _FORCE, COST_COLUMN = OBJECTIVES
_MD = "md_us_per_atom_step"
_BOTH = "both"  # column of sqrt(energy error · force error)
CRITERIA = {_ENERGY: "energy", _FORCE: "force", _BOTH: "both"}
_ALL = "all"
MAX_TABLE_ROWS = 75  # of a table that people read
MOST_RANGES = 6  # of a sentence
SHORT = 0.05  # decades; ranges below it are left out where there are too many
_STEP = 1.5  # by which that length grows while there still are


def build_front_tables(results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str]) -> Iterator[ReportTable]:
    """The tables that take the front apart.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å, s, µs/atom/step)
    front : DataFrame, a row per point that is not dominated, over all 2Jmax or for each, with `FRONT_COLUMNS`
    levels : names by cost, the last is the reference

    Yields
    ------
    Sheet
        Best level by budget (where the cost of labels is known), knee points, and who holds the front.
    """
    table = _named_whole(compute_medians(results, levels), front)
    priced = _with_cost(table)
    if len(priced):
        yield _budget_sheet(priced)
    objectives = OBJECTIVES if len(priced) else OBJECTIVES[:2]
    usable = _positive(table, objectives)
    if usable.empty:
        return
    overall = _overall(usable, front, objectives)
    yield _knee_sheet(usable, overall, objectives)
    yield _share_sheet(usable, overall, objectives, levels)


def describe_budget(results: pd.DataFrame, levels: Sequence[str]) -> str:
    """Which level a budget for labels is best spent on, as one paragraph.

    By the lowest √(energy error · force error), over all 2Jmax and then for each: after the paper's "10–20 minutes
    favours level 3, 20–1000 minutes level 4, more than 3000 minutes level 5".
    """
    priced = _with_cost(compute_medians(results, levels))
    if priced.empty:
        return "The cost of the labels is not known, so no budget can be matched with a level."
    runs = {name: _runs(part, _BOTH) for name, part in _models(priced).items()}
    kept, shortest = _readable(runs[_ALL], MOST_RANGES)
    ranges = [f"{_budget(row)} level {row['level']}" for _, row in kept.iterrows()]
    ranges[0] = ranges[0].replace(" level ", " favours level ")
    left_out = _left_out(shortest) if shortest else ""
    last = runs[_ALL].iloc[-1]
    sentences = [
        f"By the lowest √(energy error · force error) over all 2Jmax, a DFT budget {join_items(ranges)}.{left_out}",
        f"The most that was spent well is {format_duration(last[COST_COLUMN])}: {_point_words(last)}.",
        _takeover(runs, levels[-1]),
    ]
    return " ".join(text for text in sentences if text)


def _left_out(shortest: float) -> str:
    return (
        f" Ranges shorter than a factor of {format_number(10**shortest)} are left out, and those of one level joined."
    )


def _budget(row: "pd.Series[float]") -> str:
    """``"of 10 min to 2.1 h"``, ``"of 2.1 h and more"``."""
    start = format_duration(row["budget_from"])
    return (
        f"of {start} and more" if np.isinf(row["budget_to"]) else f"of {start} to {format_duration(row['budget_to'])}"
    )


def _point_words(row: "pd.Series[float]") -> str:
    return (
        f"{row['n_train']:,} configurations of level {row['level']} at 2Jmax = {row['twojmax']} and w_E/w_F = "
        f"{format_ratio(row['weight_ratio'])}, with {format_number(row[_ENERGY])} meV/atom and {format_number(row[_FORCE])} meV/Å"
    )


def _takeover(runs: dict[str, pd.DataFrame], reference: str) -> str:
    """From which budget on the reference level stays the best, for each 2Jmax."""
    starts: dict[str, list[str]] = {}
    for name, table in runs.items():
        if name != _ALL:
            held = table["level"].iloc[-1] == reference
            start = f"from {format_duration(table['budget_from'].iloc[-1])} on" if held else "at no large budget"
            starts.setdefault(start, []).append(name.removeprefix("2Jmax = "))
    named = [f"at 2Jmax = {join_items(values)} {start}" for start, values in starts.items()]
    return f"The reference, level {reference}, is the best {'; '.join(named)}."


def _named_whole(table: pd.DataFrame, front: pd.DataFrame) -> pd.DataFrame:
    """The medians with sampling ``"all"`` for the whole training set, where the front calls it that."""
    whole = front.loc[front["sampling"] == _ALL, "n_train"].min()
    return table.assign(sampling=table["sampling"].where(~(table["n_train"] >= whole), _ALL))


def _positive(table: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """The rows whose objectives are all positive and finite, and so have logarithms."""
    values = table[list(objectives)].to_numpy(dtype=float)
    usable: pd.DataFrame = table[(np.isfinite(values) & (values > 0)).all(axis=1)]
    return usable


def _with_cost(table: pd.DataFrame) -> pd.DataFrame:
    """Settings with positive finite errors and cost, and √(energy · force)."""
    rows = _positive(table, OBJECTIVES)
    return rows.assign(**{_BOTH: np.sqrt(rows[_ENERGY] * rows[_FORCE])})


def _overall(usable: pd.DataFrame, front: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """The front over all 2Jmax: the one handed in, which the page shows, or over the two errors without costs."""
    if len(objectives) == len(OBJECTIVES):
        shown = _positive(compute_overall_front(front), OBJECTIVES)
        if len(shown):
            return shown.assign(weight_ratio=compute_weight_ratio(shown))
    return drop_duplicate_fits(pareto_front(usable, list(objectives)))


def _models(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The front of each 2Jmax, and of all together; by the name that they have in the tables.

    Whatever is best at a budget is on the front; of two settings with the same cost and error it has the one that is
    better in the other error.
    """
    fronts = compute_fronts_by_twojmax(table)
    parts = {f"2Jmax = {value}": part for value, part in fronts.groupby("twojmax")}
    return {**parts, _ALL: pareto_front(fronts, OBJECTIVES)}


def _runs(part: pd.DataFrame, criterion: str) -> pd.DataFrame:
    return merge_adjacent_ranges(select_best_by_budget(part, criterion, COST_COLUMN), "level")


def _decades(runs: pd.DataFrame) -> np.ndarray:
    """``(n,)``: lengths of the ranges, infinite for one without an end."""
    ends, starts = runs["budget_to"].to_numpy(dtype=float), runs["budget_from"].to_numpy(dtype=float)
    lengths: np.ndarray = np.log10(ends / starts)
    return lengths


def _without_short(runs: pd.DataFrame, shortest: float) -> pd.DataFrame:
    """Ranges of at least so many decades, those of one level joined across what is left out."""
    return merge_adjacent_ranges(runs[_decades(runs) >= shortest], "level")


def _readable(runs: pd.DataFrame, most: int) -> tuple[pd.DataFrame, float]:
    """At most so many ranges, and the shortest length (decades) that was kept for it; 0 where all are there."""
    shortest, kept = 0.0, runs
    while len(kept) > most and shortest < 1.0:
        shortest = _STEP * shortest or SHORT
        kept = _without_short(runs, shortest)
    return kept, shortest


def _budget_sheet(priced: pd.DataFrame) -> ReportTable:
    runs = {
        (name, criterion): _runs(part, criterion) for name, part in _models(priced).items() for criterion in CRITERIA
    }
    total, shortest = sum(map(len, runs.values())), 0.0
    kept = runs
    while sum(map(len, kept.values())) > MAX_TABLE_ROWS and shortest < 0.5:
        shortest = _STEP * shortest or SHORT
        kept = {key: _without_short(part, shortest) for key, part in runs.items()}
    table = pd.concat([_budget_rows(part, *key) for key, part in kept.items()], ignore_index=True)
    note = (
        "The level that gives the lowest error against the reference for a DFT budget, from the cost of its first "
        "setting to where another level takes over; “both” is the lowest √(energy · force). Configurations, weights "
        "and errors are those of the setting at the end of the range. Only what was computed counts: between two "
        "subset sizes nothing is interpolated."
    )
    if shortest:
        note += (
            f" Of {format_count(total, 'range')} those shorter than a factor of {format_number(10**shortest)} in budget are left "
            "out, and ranges of one level are joined across them, which leaves "
            f"{len(table)}."
        )
    return ReportTable("Best level by budget", note, "best_by_budget", table)


def _budget_rows(runs: pd.DataFrame, name: str, criterion: str) -> pd.DataFrame:
    """A staircase as the rows of the table."""
    ends = [format_duration(end) if np.isfinite(end) else "–" for end in runs["budget_to"]]
    return pd.DataFrame(
        {
            "models": name,
            "lowest": CRITERIA[criterion],
            "level": runs["level"].astype(str),
            "budget from": [format_duration(start) for start in runs["budget_from"]],
            "budget to": ends,
            "budget from (s)": runs["budget_from"].astype(float),
            "budget to (s)": runs["budget_to"].astype(float),
            **_point_columns(runs),
        }
    )


def _point_columns(points: pd.DataFrame) -> dict[str, "pd.Series[float]"]:
    """The setting and the errors of points, as columns of a table."""
    names = ["twojmax", "sampling", "n_train", "weight_ratio", _ENERGY, _FORCE]
    return {name: points[name] for name in names}


def _knee_sheet(usable: pd.DataFrame, overall: pd.DataFrame, objectives: Sequence[str]) -> ReportTable:
    fronts = {f"2Jmax = {value}": part for value, part in compute_fronts_by_twojmax(usable).groupby("twojmax")}
    rows = []
    for name, points in {**fronts, _ALL: overall}.items():
        knee = points.iloc[[find_knee(points, objectives)]]
        cost = (
            {COST_COLUMN: knee[COST_COLUMN], "DFT cost": [format_duration(value) for value in knee[COST_COLUMN]]}
            if COST_COLUMN in objectives
            else {}
        )
        rows.append(
            pd.DataFrame(
                {"models": name, "points": len(points), "level": knee["level"], **_point_columns(knee), **cost}
            )
        )
    table = pd.concat(rows, ignore_index=True)
    named = ["energy error", "force error", "DFT cost"][: len(objectives)]
    best = table.iloc[-1]
    note = (
        f"The knee of a front is the point with the lowest sum of the logarithms of {join_items(named)}, each scaled to "
        "run from 0 to 1 on that front: every other point loses at least as much in some as it gains in others. Over "
        f"all 2Jmax the knee lies at {_point_words(best)}: "
        f"{format_number(best[_ENERGY] / overall[_ENERGY].min())} times the lowest energy error and "
        f"{format_number(best[_FORCE] / overall[_FORCE].min())} times the lowest force error of the front"
    )
    if COST_COLUMN in objectives:
        note += f", for {format_number(100 * best[COST_COLUMN] / overall[COST_COLUMN].max())} % of the cost of its dearest point"
    return ReportTable("Knee points", f"{note}.", "knee_points", table)


def _share_sheet(
    usable: pd.DataFrame, overall: pd.DataFrame, objectives: Sequence[str], levels: Sequence[str]
) -> ReportTable:
    table = _shares(overall, objectives, levels)
    cost = "errors and DFT cost" if COST_COLUMN in objectives else "the two errors"
    sentences = [
        "How many points of the front over all 2Jmax each level and each 2Jmax holds, and how much of the dominated",
        "hypervolume (in scaled logarithms) goes when these points are taken off and nothing takes their place; a",
        "group whose points others nearly match holds many points and little volume. The front in",
        f"{cost} has {format_count(len(overall), 'point')} and dominates {_volume(overall, objectives)} % of the box that",
        f"goes {HYPERVOLUME_REFERENCE:g} times as far as its extremes.",
        _most(table, "points (%)", "volume lost (%)"),
    ]
    four = _positive(usable, [*objectives, _MD])
    if len(four):
        with_md = drop_duplicate_fits(pareto_front(four, [*objectives, _MD]))
        beside = _shares(with_md, [*objectives, _MD], levels).set_index("group")
        columns = {name: f"with MD cost: {name}" for name in beside.columns}
        table = table.set_index("group").join(beside.rename(columns=columns), how="outer", sort=False)
        table = table.reindex(_ordered(table.index, levels)).reset_index(names="group")
        counts = [name for name in table.columns if name.endswith("points")]
        table[counts] = table[counts].fillna(0).astype(int)
        table = table.fillna(0.0)
        sentences.append(
            f"With the MD cost as one more objective it has {format_count(len(with_md), 'point')} and dominates "
            f"{_volume(with_md, [*objectives, _MD])} % of its box."
        )
    return ReportTable("Who holds the front", " ".join(sentences), "front_shares", table)


def _shares(points: pd.DataFrame, objectives: Sequence[str], levels: Sequence[str]) -> pd.DataFrame:
    """A row for each level and each 2Jmax on the front."""
    parts = []
    for column, word in (("level", "level "), ("twojmax", "2Jmax = ")):
        shares = compute_front_shares(points, objectives, column)
        parts.append(
            pd.DataFrame(
                {
                    "group": [f"{word}{value}" for value in shares[column]],
                    "points": shares["points"].astype(int),
                    "points (%)": 100 * shares["share"],
                    "volume lost (%)": 100 * shares["volume_lost"],
                }
            )
        )
    table = pd.concat(parts).set_index("group")
    return table.reindex(_ordered(table.index, levels)).reset_index(names="group")


def _ordered(groups: "pd.Index[str]", levels: Sequence[str]) -> list[str]:
    """Levels by cost, then 2Jmax in increasing order."""
    named = [f"level {level}" for level in levels if f"level {level}" in groups]
    rest = [name for name in dict.fromkeys(groups) if name not in named]
    return [*named, *sorted(rest, key=lambda name: int(name.rpartition(" ")[2]))]


def _volume(points: pd.DataFrame, objectives: Sequence[str]) -> str:
    """Share of the box of scaled logarithms that a front dominates, in %."""
    names = list(objectives)
    inside = pd.DataFrame(scale_objectives(points, names), columns=names)
    return format_number(
        100
        * dominated_hypervolume(inside, names, [HYPERVOLUME_REFERENCE] * len(names))
        / HYPERVOLUME_REFERENCE ** len(names)
    )


def _most(table: pd.DataFrame, share: str, volume: str) -> str:
    """Which level holds most points, and which most volume."""
    rows = table[table["group"].str.startswith("level ")]
    most, points = max(zip(rows[share], rows["group"], strict=True), key=lambda pair: pair[0])[::-1]
    group, lost = max(zip(rows[volume], rows["group"], strict=True), key=lambda pair: pair[0])[::-1]
    text = f"Most points, {format_number(points)} %, are of {most}"
    if most == group:
        return f"{text}, without which most volume, {format_number(lost)} %, is lost too."
    return f"{text}; most volume, {format_number(lost)} %, is lost without {group}."
