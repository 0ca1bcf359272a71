"""Choice of level, number of configurations, 2Jmax and weights for a budget, from a table of results.

Every setting of the table (level, 2Jmax, weights, sampling) has a learning curve and a cost per configuration. An
*option* is a setting with a number of configurations. The planner evaluates each setting at many affordable numbers,
keeps the options within the limits, and selects the one with the lowest error. The table need not come from a study.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from paretofit.core import InputError, check_choice
from paretofit.pareto.columns import extract_numbers
from paretofit.pareto.confidence import scale_intervals
from paretofit.pareto.learning_curve import HIGH_QUANTILE, LOW_QUANTILE, LearningCurve
from paretofit.pareto.mixture_columns import MIXTURE_COLUMNS, describe_size, find_mixtures
from paretofit.pareto.property_predictions import SPLITS_COLUMN, predict_properties
from paretofit.properties import get_property_name

PREFERENCES = ("energy", "force", "both")
BASIS_COLUMN = "basis"  # column of joined results: the name of the basis
SETTING_COLUMNS = ("level", "twojmax", "sampling", "w_energy", "w_force", "ridge", BASIS_COLUMN)
REQUIRED_COLUMNS = (*SETTING_COLUMNS[:-2], "n_train", "ref_energy", "ref_force", "label_seconds")
MD_COST_COLUMN = "md_us_per_atom_step"
ASSUMED_COLUMN = "cost_is_assumed"  # column of results: the cost of the level's labels is an assumption of the study
# Smallest share of the error of a level's labels that its models learn. In Tables 4 and 5 of Baghishov et al. (2025),
# for levels 1 to 3, the share of energy errors is 0.6 to 0.95 at w_E/w_F = 150 and 0.3 to 0.9 at 12; that of force
# errors is 0.7 to 1 and 0.2 to 0.3. On the shipped data, it is 0.9 for energies and 0.6 to 0.8 for forces. The values
# were chosen with six of the twelve pilots of tests/benchmarks/bench_plan.py.
MIN_LEARNED_SHARE = {"energy": 0.8, "force": 0.5}
MAX_SIZES = 1000  # numbers of configurations for each setting, in addition to the measured ones
MAX_POSSIBLE_SIZES = 10**5  # numbers of configurations from which the largest one within a budget is selected
DEFAULT_EXTRAPOLATION_FACTOR = 2.0  # largest number of configurations, as a multiple of the largest measured one

_SizeLimits = tuple[Sequence[float], float, int]  # budgets, extrapolation factor and max_sizes of `tabulate_options`
_Curves = dict[tuple[int, str], LearningCurve]  # curves by the id() of the rows of a setting, and the kind of error


@dataclass(frozen=True)
class Limits:
    """Limits of a plan; None means no limit.

    Attributes
    ----------
    budget : float or None
        Cost of all labels, s.
    max_energy, max_force : float or None
        Largest expected errors against the reference, meV/atom and meV/Å.
    max_md_cost : float or None
        Largest MD cost of a model, µs per atom and step.
    max_properties : mapping of str to float
        Largest errors of properties, in their units, by the column of results.
    """

    budget: float | None = None
    max_energy: float | None = None
    max_force: float | None = None
    max_md_cost: float | None = None
    max_properties: Mapping[str, float] = field(default_factory=dict)

    def select(self, options: pd.DataFrame, *columns: str) -> pd.DataFrame:
        """Select the options within the limits of `columns`, by default within all limits; NaN exceeds any limit."""
        limits = {
            "label_seconds": self.budget, "energy": self.max_energy, "force": self.max_force,
            MD_COST_COLUMN: self.max_md_cost, **self.max_properties,
        }  # fmt: skip
        for column in columns or limits:
            if (limit := limits[column]) is not None:
                options = options[options[column] <= limit]
        return options


def tabulate_options(
    results: pd.DataFrame,
    *,
    budget: float | Sequence[float] | None = None,
    extrapolation_factor: float = DEFAULT_EXTRAPOLATION_FACTOR,
    max_sizes: int = MAX_SIZES,
) -> pd.DataFrame:
    """Tabulate the expected errors and costs of every setting for many numbers of configurations.

    Parameters
    ----------
    results : pandas.DataFrame
        A row for each fit, with the columns `REQUIRED_COLUMNS` (meV/atom, meV/Å, s); ``md_us_per_atom_step``, ``ridge``
        and the ends of 90 % intervals (``ref_energy_low``, ..., with ``further_splits``) are optional. If no row has a
        reference error, the leave-one-out errors (``loo_ref_energy``, ...) are used. Rows whose errors are not positive
        and finite, or whose cost is not positive, are ignored.
    budget : float or sequence of float, optional
        Cost of all labels, s. The options include the largest number of configurations that each budget pays for. As
        errors are interpolated linearly in log(error) against log(n), the best option within a budget is at this number
        or at a measured one, whatever `max_sizes` is.
    extrapolation_factor : float
        Largest number of configurations as a multiple of the largest measured one, at least 1.
    max_sizes : int
        Approximate count of other numbers of configurations for each setting, besides those measured or from `budget`.

    Returns
    -------
    pandas.DataFrame
        A row for each option (mixtures: only measured sizes): the columns of its setting, ``n_train``,
        ``label_seconds``, the expected errors ``energy`` and ``force`` (meV/atom, meV/Å) with the ends of their
        intervals (``_low``, ``_high``), ``beyond`` (whether ``n_train`` is larger than all measured sizes), the errors
        of properties, and ``md_us_per_atom_step`` (NaN if unknown). Intervals contain 80 % of the draws of the training
        set, around the median; with further splits, 80 % of new draws in new splits, around the geometric mean.

    Raises
    ------
    InputError
        If a column is missing or not numeric, if no row can be used, or if the extrapolation factor is below 1.
    """
    if extrapolation_factor < 1:
        raise InputError(f"'extrapolation_factor' must be at least 1 (no extrapolation); got {extrapolation_factor:g}")
    table = _select_usable_rows(results)
    reference_level = find_reference_level(table)
    budgets = [] if budget is None else np.atleast_1d(budget).tolist()
    curves: _Curves = {}
    size_limits = (budgets, extrapolation_factor, max_sizes)
    tables = [
        _tabulate_setting(setting, rows, reference_rows, reference_level, size_limits, curves)
        for setting, rows, reference_rows in _group_settings(table, reference_level)
    ]
    options: pd.DataFrame = pd.concat(tables, ignore_index=True)
    return options


def choose_option(options: pd.DataFrame, limits: Limits, prefer: str = "both") -> pd.Series:
    """Choose the option with the lowest error within the limits or, without a budget, the cheapest one.

    Parameters
    ----------
    options : pandas.DataFrame
        From `tabulate_options`.
    limits : Limits
    prefer : {"both", "energy", "force"}
        Error to minimise. "both" minimises the product of both errors, so that their relative changes count equally.

    Returns
    -------
    pandas.Series
        One row of `options`.

    Raises
    ------
    InputError
        If `prefer` is unknown, or no option is within the limits; the message then says what can be reached.
    """
    compute_score(options, prefer)  # report an unknown preference before any other problem
    affordable_options = limits.select(options, "label_seconds")
    if affordable_options.empty:
        option = select_minimum(options, "label_seconds")
        raise InputError(
            f"a budget of {limits.budget:g} s is too small: the cheapest setting costs {option['label_seconds']:.3g} s "
            f"({describe_setting(option)}); raise the budget"
        )
    _check_md_limit(affordable_options, limits)
    candidates = limits.select(affordable_options)
    if candidates.empty:
        raise InputError(_explain_unreachable(options, limits.select(affordable_options, MD_COST_COLUMN), limits))
    if limits.budget is None:
        return select_minimum(candidates, "label_seconds")
    return select_minimum(candidates.assign(_score=compute_score(candidates, prefer)), "_score").drop("_score")


def compute_score(options: pd.DataFrame, prefer: str) -> pd.Series:
    """Check `prefer`, and compute the score that `choose_option` minimises: one error or the geometric mean of both."""
    check_choice("'prefer'", prefer, PREFERENCES)
    if prefer != "both":
        return options[prefer]
    return pd.Series(np.sqrt(options["energy"].to_numpy() * options["force"].to_numpy()), index=options.index)


def select_minimum(options: pd.DataFrame, column: str) -> pd.Series:
    """Select the row with the smallest value of a column, which is not NaN in all rows; of several, the first one."""
    row: pd.Series = options.iloc[int(np.nanargmin(options[column].to_numpy(dtype=float)))]
    return row


def choose_option_by(options: pd.DataFrame, limits: Limits, prefer: str, column: str) -> pd.DataFrame:
    """Choose an option by `choose_option` for each value of `column`, and sort these options by their score.

    Values without an option within the limits are omitted; at least one value must have such an option.
    """
    groups = limits.select(options).groupby(column, sort=False)
    table = pd.DataFrame([choose_option(group, limits, prefer) for _, group in groups])
    return table.iloc[np.argsort(compute_score(table, prefer).to_numpy(), kind="stable")].reset_index(drop=True)


def find_adjacent_measurements(results: pd.DataFrame, row: pd.Series) -> pd.DataFrame:
    """Compute the median errors and costs of the setting of an option at the adjacent measured sizes.

    Parameters
    ----------
    results : pandas.DataFrame
        A row for each fit, checked as in `tabulate_options`.
    row : pandas.Series
        The option, from `tabulate_options`.

    Returns
    -------
    pandas.DataFrame
        ``n_train``, ``ref_energy``, ``ref_force``, ``label_seconds`` and the number of ``repetitions``, at the largest
        measured size up to that of the option, and at the smallest one above it, if they exist.
    """
    table = _select_usable_rows(results)
    for column in list_setting_columns(table):
        table = table[table[column] == row[column]]
    rows_by_size = table.groupby("n_train")
    medians = rows_by_size[["ref_energy", "ref_force", "label_seconds"]].median()
    medians = medians.assign(repetitions=rows_by_size.size()).reset_index()
    is_above = medians["n_train"] > row["n_train"]
    adjacent_rows: pd.DataFrame = pd.concat([medians[~is_above].tail(1), medians[is_above].head(1)], ignore_index=True)
    return adjacent_rows


def describe_setting(row: pd.Series) -> str:
    """Describe a setting (``"level 3, 96 configurations, 2Jmax = 6, ..."``), with its basis and ridge if it has any."""
    ridge = f", ridge {row['ridge']}" if "ridge" in row.index else ""
    basis = f" ({row[BASIS_COLUMN]})" if BASIS_COLUMN in row.index else ""
    return (
        f"level {row['level']}, {describe_size(row)}, 2Jmax = {int(row['twojmax'])}{basis}, "
        f"w_E/w_F = {row['w_energy'] / row['w_force']:.6g}, {row['sampling']} sampling{ridge}"
    )


def _select_usable_rows(results: pd.DataFrame) -> pd.DataFrame:
    """Select rows with positive finite errors and positive costs; without test errors, use leave-one-out errors.

    Levels become strings. `InputError` is raised if a required column is missing or no row remains.
    """
    missing_columns = [name for name in REQUIRED_COLUMNS if name not in results.columns]
    if missing_columns:
        columns = ", ".join(REQUIRED_COLUMNS)
        raise InputError(f"a plan requires a results table with the columns {columns}; it lacks '{missing_columns[0]}'")
    if results["ref_energy"].isna().all() and "loo_ref_energy" in results.columns:  # a study without a test set
        for error in ("energy", "force"):
            loo_errors = {f"ref_{error}": results[f"loo_ref_{error}"], f"test_{error}": results[f"loo_{error}"]}
            results = results.assign(**loo_errors)
    names = ["n_train", "ref_energy", "ref_force", "label_seconds"]
    values = extract_numbers(results, names)
    table = results.assign(**{name: values[name] for name in names}, level=results["level"].astype(str))
    numbers = values.to_numpy(dtype=float)
    is_usable = (numbers > 0).all(axis=1) & np.isfinite(numbers[:, 1:3]).all(axis=1)  # columns 1 and 2 are the errors
    if not is_usable.any():
        raise InputError("no row of the results table has finite errors, size and cost above zero; check these columns")
    usable_rows: pd.DataFrame = table[is_usable]
    return usable_rows


def list_setting_columns(table: pd.DataFrame) -> list[str]:
    """List the columns of a table that identify a setting, in the order of `SETTING_COLUMNS`."""
    return [column for column in SETTING_COLUMNS if column in table.columns]


def has_folds(table: pd.DataFrame) -> bool:
    """Return whether the repetitions of a table are folds of one cross-validation, as in a pilot."""
    return "fold" in table.columns


def find_reference_level(table: pd.DataFrame) -> str:
    """Find the only single level whose test and reference errors are equal; otherwise, take the most expensive one."""
    table = table[~find_mixtures(table)]
    if {"test_energy", "test_force"} <= set(table.columns):
        is_same = (table["test_energy"] == table["ref_energy"]) & (table["test_force"] == table["ref_force"])
        candidates = [level for level, flags in is_same.groupby(table["level"]) if flags.all()]
        if len(candidates) == 1:
            return str(candidates[0])
    unit_cost = (table["label_seconds"] / table["n_train"]).groupby(table["level"]).median()
    return str(unit_cost.idxmax())


def _group_settings(
    table: pd.DataFrame, reference_level: str
) -> Iterator[tuple[dict[str, Any], pd.DataFrame, pd.DataFrame | None]]:
    """Yield each setting, its rows and, for cheaper single levels, its rows at the reference level (otherwise None)."""
    columns = list_setting_columns(table)  # the first one is the level
    groups: dict[Any, pd.DataFrame] = dict(iter(table.groupby(columns, sort=False)))
    for values, rows in groups.items():
        has_reference = values[0] != reference_level and not find_mixtures(rows).all()
        reference_rows = groups.get((reference_level, *values[1:])) if has_reference else None
        yield dict(zip(columns, values, strict=True)), rows, reference_rows


def _build_curve(
    rows: pd.DataFrame, kind: str, reference: pd.DataFrame | None, curves: _Curves, *, is_reference: bool
) -> LearningCurve:
    """Build the learning curve of a setting; `curves` caches those of the reference level, which all levels use."""
    if is_reference and (id(rows), kind) in curves:
        return curves[id(rows), kind]
    # Arrays are sorted by size and split: a groupby for each of many settings would take most of the time.
    order = np.argsort(rows["n_train"].to_numpy(), kind="stable")
    sizes, first_rows = np.unique(rows["n_train"].to_numpy(dtype=float)[order], return_index=True)
    errors = tuple(np.split(rows[f"ref_{kind}"].to_numpy(dtype=float)[order], first_rows[1:]))
    train_errors = None
    if is_reference and f"train_{kind}" in rows:
        train_errors = rows[f"train_{kind}"].to_numpy(dtype=float)[order[first_rows[-1] :]]
    reference_curve = None if reference is None else _build_curve(reference, kind, None, curves, is_reference=True)
    interval_columns, intervals = [f"ref_{kind}_low", f"ref_{kind}_high", SPLITS_COLUMN], None
    if set(interval_columns) <= set(rows):  # all repetitions of a setting have the same interval
        low, high, n_splits = (rows[name].to_numpy(dtype=float)[order[first_rows]] for name in interval_columns)
        intervals = scale_intervals(np.array([low, high]), n_splits, HIGH_QUANTILE - LOW_QUANTILE)
    label_error = float(rows[f"label_{kind}"].iloc[0]) if f"label_{kind}" in rows else None
    curve = LearningCurve(
        sizes, errors, has_folds(rows), train_errors, reference_curve, label_error, MIN_LEARNED_SHARE[kind], intervals
    )
    if is_reference:
        curves[id(rows), kind] = curve
    return curve


def _list_sizes(measured_sizes: np.ndarray, unit_costs: np.ndarray, size_limits: _SizeLimits) -> np.ndarray:
    """List the measured sizes, other sizes up to the extrapolation limit, and the largest size within each budget.

    They are in ascending order. `unit_costs` are the costs of a label (s) at the measured sizes.
    """
    budgets, extrapolation_factor, max_sizes = size_limits
    # 1e-9, because a product such as 100 · 1.15 = 114.99999999999999 must not be rounded down.
    smallest_size, largest_size = measured_sizes[0], np.floor(measured_sizes[-1] * extrapolation_factor + 1e-9)
    if largest_size < MAX_POSSIBLE_SIZES:
        possible_sizes = np.arange(smallest_size, largest_size + 1)
    else:
        possible_sizes = np.geomspace(smallest_size, largest_size, MAX_POSSIBLE_SIZES).round()
    further_sizes = possible_sizes
    if largest_size - smallest_size >= max_sizes:
        further_sizes = np.geomspace(smallest_size, largest_size, max_sizes).round()
    sizes = [*measured_sizes, *further_sizes, largest_size]
    costs = possible_sizes * np.interp(possible_sizes, measured_sizes, unit_costs)
    for budget in budgets:
        sizes += list(possible_sizes[costs <= budget][-1:])  # [-1:] is empty if the budget pays for none of the sizes
    return np.unique(sizes)


def _tabulate_setting(
    setting: dict[str, Any],
    rows: pd.DataFrame,
    reference: pd.DataFrame | None,
    reference_level: str,
    size_limits: _SizeLimits,
    curves: _Curves,
) -> pd.DataFrame:
    """Tabulate the options of one setting, a row for each number of configurations."""
    measured_sizes = np.sort(rows["n_train"].unique()).astype(float)
    # Leverage sampling selects large cells, which cost more; the mean cost depends on the size of the subset.
    unit_costs = (rows.groupby("n_train")["label_seconds"].median() / measured_sizes).to_numpy(dtype=float)
    is_mixture = bool(find_mixtures(rows).all())
    # The size of a mixture is that at its top level, to which its cost is not proportional: use only measured sizes.
    sizes = measured_sizes if is_mixture else _list_sizes(measured_sizes, unit_costs, size_limits)
    cost = sizes * np.interp(sizes, measured_sizes, unit_costs)
    columns: dict[str, Any] = {**setting, "n_train": sizes.astype(int), "label_seconds": cost}
    columns |= {name: rows[name].iloc[0] for name in MIXTURE_COLUMNS if name in rows}
    for kind in ("energy", "force"):
        curve = _build_curve(rows, kind, reference, curves, is_reference=setting["level"] == reference_level)
        estimates = curve.predict(sizes)
        columns |= {kind: estimates.errors, f"{kind}_low": estimates.low, f"{kind}_high": estimates.high}
        columns["beyond"] = estimates.is_extrapolated
    columns |= predict_properties(rows, measured_sizes, sizes)
    columns[MD_COST_COLUMN] = float(rows[MD_COST_COLUMN].median()) if MD_COST_COLUMN in rows else np.nan
    return pd.DataFrame(columns)


def _check_md_limit(options: pd.DataFrame, limits: Limits) -> None:
    """Raise `InputError` if the MD cost is limited, but is unknown for all options or too high for all of them."""
    if limits.max_md_cost is None:
        return
    if options[MD_COST_COLUMN].isna().all():
        raise InputError(
            f"the results have no MD cost ('{MD_COST_COLUMN}'), so the MD speed cannot be limited; run the study "
            "again to measure it, or set 'cost.md_us_per_atom_step' in the study"
        )
    if limits.select(options, MD_COST_COLUMN).empty:
        option = select_minimum(options, MD_COST_COLUMN)
        cost = option[MD_COST_COLUMN]
        raise InputError(
            f"no model needs at most {limits.max_md_cost:.3g} µs per atom and step; the fastest, 2Jmax = "
            f"{int(option['twojmax'])}, needs {cost:.3g} µs ({1e6 / cost:.3g} atom-steps/s)"
        )


def _explain_unreachable(options: pd.DataFrame, affordable_options: pd.DataFrame, limits: Limits) -> str:
    """Explain that no option is within the limits; `affordable_options` are those within the budget and MD cost."""
    targets = []
    errors = (("an energy", "energy", limits.max_energy, "meV/atom"), ("a force", "force", limits.max_force, "meV/Å"))
    for subject, name, limit, unit in errors:
        if limit is not None:
            option = select_minimum(affordable_options, name)
            suffix = ", extrapolated" if option["beyond"] else ""
            targets.append(f"{subject} error of {limit:g} {unit} (the lowest is {option[name]:.4g}{suffix})")
    for name, limit in limits.max_properties.items():
        lowest_error = select_minimum(affordable_options, name)[name]
        targets.append(f"an error of '{get_property_name(name)}' of {limit:g} (the lowest is {lowest_error:.4g})")
    budget_text = "" if limits.budget is None else f" within {limits.budget:g} s"
    accurate_options = limits.select(options, "energy", "force", MD_COST_COLUMN, *limits.max_properties)
    remedy = "raise the limits, or study larger subsets and models"
    if len(accurate_options):
        option = select_minimum(accurate_options, "label_seconds")
        remedy = f"the cheapest setting that does so costs {option['label_seconds']:.4g} s: {describe_setting(option)}"
    return f"no setting{budget_text} reaches {' and '.join(targets)}; {remedy}"
