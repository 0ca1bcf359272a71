"""From a row per fit to a row per setting: the medians over repetitions that all else is drawn from.

A *setting* is one (2Jmax, level, sampling, subset size, w_E/w_F). Nothing here fits or plots.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from paretofit.core import InputError
from paretofit.pareto import pareto_front

SETTING = ["twojmax", "level", "sampling", "n_train", "weight_ratio"]
ERRORS = [
    "train_energy", "train_force", "test_energy", "test_force",
    "ref_energy", "ref_force", "ref_energy_shifted",
]  # fmt: skip
VALUES = [*ERRORS, "label_seconds", "n_features", "rank", "md_us_per_atom_step"]
OBJECTIVES = ["ref_energy", "ref_force", "label_seconds"]
RESULT_COLUMNS = [
    "twojmax", "level", "sampling", "n_train", "repeat", "w_energy", "w_force", "n_features", "rank",
    "condition", "solver", *ERRORS, "label_seconds", "md_us_per_atom_step",
]  # fmt: skip
FRONT_COLUMNS = [
    "twojmax", "level", "sampling", "n_train", "w_energy", "w_force", *OBJECTIVES, "n_repeats",
]  # fmt: skip

# Where only one sampling can stand for a level, the one that needs no descriptors comes first.
SAMPLINGS = ("random", "leverage", "block-leverage", "top-leverage", "top-block-leverage")


def check_columns(frame: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    """Raise `InputError` where a table lacks a column that the report reads."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise InputError(f"the {name} table must have the columns {', '.join(columns)}; it lacks {missing[0]}")


def prepare_results(results: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    """The results with levels as strings and a column ``compute_weight_ratio`` = w_E / w_F.

    Parameters
    ----------
    results : DataFrame, a row per fit
    levels : names of the convergence levels by cost, the last is the reference

    Returns
    -------
    DataFrame with the same rows.
    """
    check_columns(results, RESULT_COLUMNS, "results")
    frame = results.assign(level=results["level"].astype(str), weight_ratio=compute_weight_ratio(results))
    unknown = sorted(set(frame["level"]) - set(levels))
    if unknown:
        raise InputError(f"the results have level {unknown[0]!r}, which is not among {', '.join(levels)}")
    return frame


def compute_weight_ratio(frame: pd.DataFrame) -> pd.Series:
    """w_E / w_F rounded to 6 significant digits, so that equal ratios group together."""
    ratio = frame["w_energy"].to_numpy(dtype=float) / frame["w_force"].to_numpy(dtype=float)
    return pd.Series([float(f"{value:.6g}") for value in ratio], index=frame.index, dtype=float)


def compute_medians(results: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    """Median over repetitions of every error and cost.

    Returns
    -------
    DataFrame, a row per setting: the columns `SETTING`, `VALUES` and ``n_repeats``; meV/atom, meV/Å, s.
    """
    grouped = prepare_results(results, levels).groupby(SETTING, sort=True)
    table = grouped[VALUES].median()
    table["n_repeats"] = grouped.size()
    return table.reset_index()


def select_largest_subset(table: pd.DataFrame) -> pd.DataFrame:
    """For every 2Jmax the rows at the largest subset size that all its levels share, in one sampling.

    With the whole training set all samplings are the same fit; below it, one sampling (the first of
    `SAMPLINGS` that covers most levels) keeps the comparison between levels fair.

    Parameters
    ----------
    table : the medians

    Returns
    -------
    DataFrame, a row per (2Jmax, level, w_E/w_F).
    """
    parts = []
    for _, rows in table.groupby("twojmax"):
        sizes = [set(part["n_train"]) for _, part in rows.groupby("level")]
        common = set.intersection(*sizes) or set.union(*sizes)
        largest = rows[rows["n_train"] == max(common)]
        covered = largest.groupby("sampling")["level"].nunique()
        names = [name for name in covered.index if covered[name] == covered.max()]
        parts.append(largest[largest["sampling"] == min(names, key=_preference)])
    return pd.concat(parts, ignore_index=True) if parts else table


def _preference(sampling: str) -> tuple[int, str]:
    return (SAMPLINGS.index(sampling) if sampling in SAMPLINGS else len(SAMPLINGS), sampling)


def compute_quantiles(values: pd.Series, probabilities: tuple[float, float]) -> tuple[float, float]:
    """Two quantiles of errors of which some may be infinite, where the usual interpolation gives NaN."""
    huge = 1e12  # meV: stands for infinity, between which and anything there is a middle
    low, high = values.clip(upper=huge).quantile(list(probabilities))
    return float(low), float(high)


def list_sampling_methods(table: pd.DataFrame) -> list[str]:
    """The samplings of a table, random first."""
    return sorted(set(table["sampling"]), key=_preference)


def describe_subset(rows: pd.DataFrame) -> str:
    """How the rows of `select_largest_subset` were trained: ``"140 configurations, random sampling"``."""
    sizes = sorted(set(rows["n_train"]))
    size = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    return f"{size} configurations, {' or '.join(list_sampling_methods(rows))} sampling"


def compute_fronts_by_twojmax(table: pd.DataFrame) -> pd.DataFrame:
    """The front of each 2Jmax on its own, over energy error, force error and label cost.

    Settings with an error that is not finite cannot be compared and are left out; where the cost is
    unknown everywhere, the front is over the two errors.

    Parameters
    ----------
    table : the medians

    Returns
    -------
    DataFrame, the rows of `table` that no other row of the same 2Jmax dominates.
    """
    objectives = OBJECTIVES if table["label_seconds"].notna().any() else OBJECTIVES[:2]
    finite = np.isfinite(table[objectives].to_numpy(dtype=float)).all(axis=1)
    parts = [pareto_front(rows, objectives) for _, rows in table[finite].groupby("twojmax")]
    return drop_duplicate_fits(pd.concat(parts, ignore_index=True)) if parts else table.iloc[:0]


def compute_overall_front(front: pd.DataFrame) -> pd.DataFrame:
    """The front over all 2Jmax, also where the one that was handed in is one for each 2Jmax.

    Parameters
    ----------
    front : DataFrame with `FRONT_COLUMNS`; rows where an objective is not finite are left out

    Returns
    -------
    DataFrame, the rows that no other dominates, levels as strings.
    """
    finite = np.isfinite(front[OBJECTIVES].to_numpy(dtype=float)).all(axis=1)
    points = front[finite].assign(level=front["level"].astype(str))
    return drop_duplicate_fits(pareto_front(points, OBJECTIVES) if len(points) else points)


def drop_duplicate_fits(front: pd.DataFrame) -> pd.DataFrame:
    """One point for each fit: the whole training set is the same fit whatever the sampling."""
    same = ["twojmax", "level", "n_train", *OBJECTIVES]
    return front.drop_duplicates([*same, *(set(front.columns) & {"weight_ratio", "w_energy", "w_force"})])
