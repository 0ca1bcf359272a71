"""Medians over repetitions: tables with a row per setting, from results with a row per fit.

A *setting* is a combination of 2Jmax, level, sampling method, subset size and w_E/w_F. All figures and tables of the
report use these medians.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from paretofit.core import InputError
from paretofit.pareto import BASIS_COLUMN, MD_COST_COLUMN, MIXTURE_COLUMNS, find_mixtures, pareto_front
from paretofit.properties import is_property_error

SETTING = ["twojmax", "level", "sampling", "n_train", "weight_ratio"]
ERRORS = [
    "train_energy", "train_force", "test_energy", "test_force",
    "ref_energy", "ref_force", "ref_energy_shifted",
]  # fmt: skip
TRAIN_REFERENCE_COLUMNS = ["train_ref_energy", "train_ref_force"]  # optional in tables that do not come from a study
INTERVALS = ["ref_energy_low", "ref_energy_high", "ref_force_low", "ref_force_high"]  # optional; ends of 90 % intervals
VALUES = [*ERRORS, *TRAIN_REFERENCE_COLUMNS, "label_seconds", "n_features", "rank", MD_COST_COLUMN]
ERROR_KINDS = {"ref_energy": "energy", "ref_force": "force"}  # columns of the errors against the reference
OBJECTIVES = [*ERROR_KINDS, "label_seconds"]
RESULT_COLUMNS = [
    "twojmax", "level", "sampling", "n_train", "repeat", "w_energy", "w_force", "n_features", "rank",
    "condition", "solver", *ERRORS, "label_seconds", MD_COST_COLUMN,
]  # fmt: skip
FRONT_COLUMNS = [
    "twojmax", "level", "sampling", "n_train", "w_energy", "w_force", *OBJECTIVES, "n_repeats",
]  # fmt: skip

# In order of preference where only one sampling method is shown; random sampling is first, as it needs no descriptors.
SAMPLINGS = ("random", "leverage", "block-leverage", "top-leverage", "top-block-leverage")


def check_columns(frame: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    """Raise `InputError` if a table, which the message calls `name`, lacks one of the columns that the report reads."""
    missing_columns = [column for column in columns if column not in frame.columns]
    if missing_columns:
        raise InputError(f"the {name} table must have the columns {', '.join(columns)}; it lacks {missing_columns[0]}")


def prepare_results(results: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    """Check the results, convert their levels to strings, and add a column ``weight_ratio`` = w_E / w_F.

    Parameters
    ----------
    results : DataFrame, a row per fit
    levels : names of the convergence levels in order of cost; the last is the reference

    Returns
    -------
    DataFrame, a copy with the same rows; `TRAIN_REFERENCE_COLUMNS` that are missing are added with NaN.

    Raises
    ------
    InputError
        If a column is missing or a level is not in `levels`.
    """
    check_columns(results, RESULT_COLUMNS, "results")
    missing_columns = {name: np.nan for name in TRAIN_REFERENCE_COLUMNS if name not in results}
    frame = results.assign(
        level=results["level"].astype(str), weight_ratio=compute_weight_ratio(results), **missing_columns
    )
    unknown_levels = sorted(set(frame["level"]) - set(levels))
    if unknown_levels:
        raise InputError(f"the results have level {unknown_levels[0]!r}, which is not among {', '.join(levels)}")
    return frame


def select_single_levels(results: pd.DataFrame) -> pd.DataFrame:
    """Select the fits to labels of a single level, without mixtures of levels."""
    selected: pd.DataFrame = results[~find_mixtures(results)]
    return selected


def tabulate_mixtures(results: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the mixtures of levels in the results: a row for each, with its name ``level`` and `MIXTURE_COLUMNS`."""
    names = ["level", *(name for name in MIXTURE_COLUMNS if name in results)]
    table: pd.DataFrame = results.loc[find_mixtures(results), names].drop_duplicates("level")
    return table


def compute_weight_ratio(frame: pd.DataFrame) -> pd.Series:
    """Compute w_E / w_F of each row, rounded to 6 significant digits so that equal ratios form one group.

    Returns
    -------
    Series of float, with the index of `frame`.
    """
    ratios = frame["w_energy"].to_numpy(dtype=float) / frame["w_force"].to_numpy(dtype=float)
    # A table has few different ratios in many rows, and formatting each row would be slow.
    distinct_ratios, positions = np.unique(ratios, return_inverse=True)
    rounded = np.array([float(f"{ratio:.6g}") for ratio in distinct_ratios])
    return pd.Series(rounded[positions], index=frame.index, dtype=float)


def compute_medians(results: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    """Compute the medians of `VALUES` (errors, costs and model sizes) over the repetitions of each setting.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å, s)
    levels : names of the convergence levels in order of cost; the last is the reference

    Returns
    -------
    DataFrame, a row per setting, sorted by setting: ``basis`` if there are several bases, the columns `SETTING`, the
    medians of `VALUES`, of `INTERVALS` and of the errors of properties (the latter two if the results have them), and
    ``n_repeats``, the number of repetitions.

    Raises
    ------
    InputError
        As in `prepare_results`.
    """
    keys = [*({BASIS_COLUMN} & {*results}), *SETTING]
    grouped = prepare_results(results, levels).groupby(keys, sort=True)
    further_columns = [name for name in map(str, results) if name in INTERVALS or is_property_error(name)]
    table = grouped[[*VALUES, *further_columns]].median()
    table["n_repeats"] = grouped.size()
    return table.reset_index()


def select_largest_subset(table: pd.DataFrame) -> pd.DataFrame:
    """Select, for every 2Jmax, the rows at the largest subset size that all its levels have in common.

    If the levels of a 2Jmax have no common size, the largest size of any level is used. Only one sampling method is
    selected for each 2Jmax, so that levels are compared fairly: of the methods with the most levels, the first one in
    `SAMPLINGS`. If the subset is the whole training set, this choice has no effect, because all methods give the same
    fit.

    Parameters
    ----------
    table : DataFrame, from `compute_medians`

    Returns
    -------
    DataFrame, a row per (2Jmax, level, w_E/w_F), and per basis if there are several.
    """
    selected_rows = []
    for _, rows in table.groupby("twojmax"):
        sizes = [set(group["n_train"]) for _, group in rows.groupby("level")]
        common_sizes = set.intersection(*sizes) or set.union(*sizes)
        largest = rows[rows["n_train"] == max(common_sizes)]
        n_levels = largest.groupby("sampling")["level"].nunique()
        names = [name for name in n_levels.index if n_levels[name] == n_levels.max()]
        selected_rows.append(largest[largest["sampling"] == min(names, key=_rank_sampling_method)])
    return pd.concat(selected_rows, ignore_index=True) if selected_rows else table


def _rank_sampling_method(sampling: str) -> tuple[int, str]:
    """Return a sort key: the order of `SAMPLINGS`, then all other methods by name."""
    return (SAMPLINGS.index(sampling) if sampling in SAMPLINGS else len(SAMPLINGS), sampling)


def compute_quantiles(values: pd.Series, probabilities: tuple[float, float]) -> tuple[float, float]:
    """Compute two quantiles of errors, without NaN; both are NaN if there are no errors.

    Errors may be infinite. They are limited to 1e12 meV, because an interpolation with infinity would give NaN.
    """
    errors = np.minimum(values.dropna().to_numpy(dtype=float), 1e12)
    low, high = np.quantile(errors, probabilities) if errors.size else (np.nan, np.nan)
    return float(low), float(high)


def list_sampling_methods(table: pd.DataFrame) -> list[str]:
    """List the sampling methods of a table in the order of `SAMPLINGS`, then all others by name."""
    return sorted(set(table["sampling"]), key=_rank_sampling_method)


def describe_subset(rows: pd.DataFrame) -> str:
    """Describe the training sets of rows of `select_largest_subset`: ``"140 configurations, random sampling"``."""
    sizes = sorted(set(rows["n_train"]))
    size = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    return f"{size} configurations, {' or '.join(list_sampling_methods(rows))} sampling"


def select_finite_rows(table: pd.DataFrame, columns: Sequence[str], *, positive: bool = False) -> pd.DataFrame:
    """Select the rows whose values in all given columns are finite and, if `positive` is true, above zero."""
    values = table[list(columns)].to_numpy(dtype=float)
    selected: pd.DataFrame = table[(np.isfinite(values) & ((values > 0) | (not positive))).all(axis=1)]
    return selected


def compute_fronts_by_twojmax(table: pd.DataFrame) -> pd.DataFrame:
    """Compute the front of each 2Jmax in energy error, force error and label cost.

    Settings with an objective that is not finite are omitted. If the cost is unknown for all settings, only the two
    errors are objectives.

    Parameters
    ----------
    table : DataFrame, from `compute_medians`

    Returns
    -------
    DataFrame, the rows of `table` that no other row of the same 2Jmax dominates, without duplicate fits.
    """
    objectives = OBJECTIVES if table["label_seconds"].notna().any() else OBJECTIVES[:2]
    finite_rows = select_finite_rows(table, objectives)
    fronts = [pareto_front(rows, objectives) for _, rows in finite_rows.groupby("twojmax")]
    return drop_duplicate_fits(pd.concat(fronts, ignore_index=True)) if fronts else table.iloc[:0]


def compute_overall_front(front: pd.DataFrame) -> pd.DataFrame:
    """Compute the front over all 2Jmax from the fronts of each 2Jmax.

    Parameters
    ----------
    front : DataFrame with `FRONT_COLUMNS`

    Returns
    -------
    DataFrame, the rows that no other row dominates, without duplicate fits and without rows in which an objective is
    not finite; levels are strings. It may be empty.
    """
    points = select_finite_rows(front, OBJECTIVES).assign(level=front["level"].astype(str))
    return drop_duplicate_fits(pareto_front(points, OBJECTIVES) if len(points) else points)


def drop_duplicate_fits(front: pd.DataFrame) -> pd.DataFrame:
    """Keep the first of several rows with equal model, level, size, weights and objectives.

    Such rows differ in the sampling method: if the subset is the whole training set, all methods give the same fit.
    """
    columns = ["twojmax", "level", "n_train", *OBJECTIVES]
    optional_columns = {"weight_ratio", "w_energy", "w_force", BASIS_COLUMN}
    return front.drop_duplicates([*columns, *(set(front.columns) & optional_columns)])
