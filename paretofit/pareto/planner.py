"""What to run with a budget: level, number of configurations, 2Jmax and weights, out of a table of results.

Every setting of the table (level, 2Jmax, weights, sampling) is a learning curve and a price for each configuration.
The planner looks at every setting at every number of configurations that the budget pays for, keeps those within the
limits, and takes the lowest error. It knows nothing of what made the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from paretofit.core import InputError, suggest_match
from paretofit.pareto.columns import extract_numbers
from paretofit.pareto.learning_curve import LearningCurve

if TYPE_CHECKING:
    from collections.abc import Iterator

Prefer = Literal["energy", "force", "both"]
PREFERENCES = ("energy", "force", "both")
SETTING_COLUMNS = (
    "level",
    "twojmax",
    "sampling",
    "w_energy",
    "w_force",
    "ridge",
)  # of a setting; ridge where there is one
COLUMNS = ("level", "twojmax", "sampling", "w_energy", "w_force", "n_train", "ref_energy", "ref_force", "label_seconds")
MD_COST_COLUMN = "md_us_per_atom_step"
# Share, at least, of the error of a level's labels that its models learn. In Tables 4 and 5 of the paper, levels 1 to
# 3: energies 0.6 to 0.95 at w_E/w_F = 150 and 0.3 to 0.9 at 12; forces 0.7 to 1 and 0.2 to 0.3. On the shipped data
# 0.9 and 0.6 to 0.8, which six of the twelve pilots of tests/benchmarks/bench_plan.py helped to choose.
LEARNED = {"energy": 0.8, "force": 0.5}
STEPS = 1000  # sizes looked at, at most, besides those measured
DEFAULT_EXTRAPOLATION_FACTOR = 2.0  # how far beyond the largest size that was measured


@dataclass(frozen=True)
class Limits:
    """What a plan has to keep to; None: no limit.

    Attributes
    ----------
    budget : float or None
        Cost of all labels, s.
    max_energy, max_force : float or None
        Largest expected error against the reference, meV/atom and meV/Å.
    max_md_cost : float or None
        µs for each atom and step.
    """

    budget: float | None = None
    max_energy: float | None = None
    max_force: float | None = None
    max_md_cost: float | None = None


def tabulate_options(
    results: pd.DataFrame, *, budget: float | None = None, extrapolation_factor: float = DEFAULT_EXTRAPOLATION_FACTOR
) -> pd.DataFrame:
    """Every setting of a results table at many numbers of configurations, with what to expect there.

    Parameters
    ----------
    results : pandas.DataFrame
        A row for each fit, with the columns `COLUMNS` (meV/atom, meV/Å, s); ``md_us_per_atom_step`` and ``ridge``
        where there are any. Rows with errors that are not finite are left out.
    budget : float, optional
        s; the number of configurations that it just pays for is among the options.
    extrapolation_factor : float
        How far to go beyond the largest number of configurations of a setting, 1 for not at all.

    Returns
    -------
    pandas.DataFrame
        The columns of a setting, ``n_train``, ``label_seconds``, ``energy`` and ``force`` (meV/atom, meV/Å) with
        ``_low`` and ``_high`` (four draws of five lie between), ``beyond`` (larger than what was measured), and
        ``md_us_per_atom_step``.

    Raises
    ------
    InputError
        If a column is missing, or no row can be used.
    """
    if extrapolation_factor < 1:
        raise InputError(f"'extrapolate' must be at least 1 (no further than measured); got {extrapolation_factor:g}")
    table = _usable(results)
    top = find_reference_level(table)
    parts = [
        _curve_options(key, rows, reference, top, budget, extrapolation_factor)
        for key, rows, reference in _settings(table)
    ]
    found: pd.DataFrame = pd.concat(parts, ignore_index=True)
    return found


def choose_option(options: pd.DataFrame, limits: Limits, prefer: str = "both") -> pd.Series:
    """The best option within the limits; without a budget, the cheapest.

    Parameters
    ----------
    options : pandas.DataFrame
        From `tabulate_options`.
    limits : Limits
    prefer : {"both", "energy", "force"}
        Which error is to be lowest; both: their product, so that a tenth of one is worth a tenth of the other.

    Returns
    -------
    pandas.Series
        One row.

    Raises
    ------
    InputError
        If no option is within the limits; says what the nearest would cost or reach.
    """
    compute_score(options, prefer)  # an unknown preference is said first
    affordable = options if limits.budget is None else options[options["label_seconds"] <= limits.budget]
    if affordable.empty:
        cheapest = select_minimum(options, "label_seconds")
        raise InputError(
            f"a budget of {limits.budget:g} s is below the cheapest point, which costs {cheapest['label_seconds']:.3g} "
            f"s ({describe_setting(cheapest)}); raise it"
        )
    fast = _fast_enough(affordable, limits)
    fit = fast[_good_enough(fast, limits)]
    if fit.empty:
        raise InputError(_out_of_reach(options, fast, limits))
    if limits.budget is None:
        return select_minimum(fit, "label_seconds")
    return select_minimum(fit.assign(_score=compute_score(fit, prefer)), "_score").drop("_score")


def compute_score(options: pd.DataFrame, prefer: str) -> pd.Series:
    """What is minimised: an error in its own unit, or the root of the product of both."""
    if prefer not in PREFERENCES:
        raise InputError(
            f"'prefer' must be one of {', '.join(PREFERENCES)}; got '{prefer}'{suggest_match(prefer, PREFERENCES)}"
        )
    if prefer != "both":
        return options[prefer]
    return pd.Series(np.sqrt(options["energy"].to_numpy() * options["force"].to_numpy()), index=options.index)


def select_minimum(options: pd.DataFrame, column: str) -> pd.Series:
    """The row with the smallest value of a column, the first of several."""
    row: pd.Series = options.iloc[int(np.argmin(options[column].to_numpy(dtype=float)))]
    return row


def choose_option_by(options: pd.DataFrame, limits: Limits, prefer: str, column: str) -> pd.DataFrame:
    """The best option within the limits for each value of a column, such as each level; sorted by what is minimised."""
    rows = []
    for _, part in options.groupby(column, sort=False):
        try:
            rows.append(choose_option(part, limits, prefer))
        except InputError:  # nothing of this value is within the limits
            continue
    table = pd.DataFrame(rows)
    return table.iloc[np.argsort(compute_score(table, prefer).to_numpy(), kind="stable")].reset_index(drop=True)


def find_adjacent_measurements(results: pd.DataFrame, row: pd.Series) -> pd.DataFrame:
    """The medians of a chosen setting at the measured sizes around its own: at most two rows.

    Returns
    -------
    pandas.DataFrame
        ``n_train``, ``ref_energy``, ``ref_force``, ``label_seconds`` and ``repetitions``.
    """
    table = _usable(results)
    for key in _keys(table):
        table = table[table[key] == row[key]]
    grouped = table.groupby("n_train")
    medians = grouped[["ref_energy", "ref_force", "label_seconds"]].median().assign(repetitions=grouped.size())
    medians = medians.reset_index()
    below, above = medians[medians["n_train"] <= row["n_train"]], medians[medians["n_train"] > row["n_train"]]
    near: pd.DataFrame = pd.concat([below.tail(1), above.head(1)], ignore_index=True)
    return near


def describe_setting(row: pd.Series) -> str:
    """``"level 3, 96 configurations, 2Jmax = 6, w_E/w_F = 12.25, random sampling"``."""
    ratio = row["w_energy"] / row["w_force"]
    ridge = f", ridge {row['ridge']}" if "ridge" in row.index else ""
    return (
        f"level {row['level']}, {int(row['n_train'])} configurations, 2Jmax = {int(row['twojmax'])}, "
        f"w_E/w_F = {ratio:.6g}, {row['sampling']} sampling{ridge}"
    )


def _usable(results: pd.DataFrame) -> pd.DataFrame:
    """The rows that can be planned from."""
    missing = [name for name in COLUMNS if name not in results.columns]
    if missing:
        raise InputError(
            f"a plan needs a results table with the columns {', '.join(COLUMNS)}; this one lacks '{missing[0]}'"
        )
    if results["ref_energy"].isna().all() and "loo_ref_energy" in results.columns:  # a study without a test set
        stand_in = {f"{kind}_{error}": results[f"loo{'_ref' if kind == 'ref' else ''}_{error}"]
                    for kind in ("test", "ref") for error in ("energy", "force")}  # fmt: skip
        results = results.assign(**stand_in)
    values = extract_numbers(results, ["n_train", "ref_energy", "ref_force", "label_seconds"])
    table = results.assign(**{str(name): values[name] for name in values}, level=results["level"].astype(str))
    errors = table[["ref_energy", "ref_force"]].to_numpy(dtype=float)
    priced = table["label_seconds"].to_numpy(dtype=float) > 0
    usable = np.isfinite(errors).all(axis=1) & (errors > 0).all(axis=1) & priced & (values["n_train"] > 0).to_numpy()
    if not usable.any():
        raise InputError("no row of the results table has finite errors and a label cost above zero")
    kept: pd.DataFrame = table[usable]
    return kept


def _keys(table: pd.DataFrame) -> list[str]:
    return [key for key in SETTING_COLUMNS if key in table.columns]


def has_folds(table: pd.DataFrame) -> bool:
    """Whether the repetitions of a table are folds of one cross-validation, as a pilot's are."""
    return "fold" in table.columns


def find_reference_level(table: pd.DataFrame) -> str:
    """The level on which own and reference errors are the same; where own ones are not there, the dearest."""
    if {"test_energy", "test_force"} <= set(table.columns):
        same = (table["test_energy"] == table["ref_energy"]) & (table["test_force"] == table["ref_force"])
        found = [level for level, own in same.groupby(table["level"]) if own.all()]
        if len(found) == 1:
            return str(found[0])
    each = (table["label_seconds"] / table["n_train"]).groupby(table["level"]).median()
    return str(each.idxmax())


def _settings(table: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame, pd.DataFrame | None]]:
    """Each setting, its rows, and those of the same setting at the reference level where it is of a cheaper one."""
    keys, top = _keys(table), find_reference_level(table)
    groups = {values: rows for values, rows in table.groupby(keys, sort=False)}  # noqa: C416  (keys are tuples)
    for values, rows in groups.items():
        own: tuple[Any, ...] = values
        setting = dict(zip(keys, own, strict=True))
        reference = None if setting["level"] == top else groups.get((top, *own[1:]))
        yield setting, rows, reference


def _curve(rows: pd.DataFrame, kind: str, reference: pd.DataFrame | None, *, is_reference: bool) -> LearningCurve:
    grouped = rows.groupby("n_train")
    sizes = np.sort(rows["n_train"].unique()).astype(float)
    errors = tuple(part.to_numpy(dtype=float) for _, part in grouped[f"ref_{kind}"])
    training = None
    if is_reference and f"train_{kind}" in rows:
        training = grouped.get_group(sizes[-1])[f"train_{kind}"].to_numpy(dtype=float)
    above = None if reference is None else _curve(reference, kind, None, is_reference=True)
    known = float(rows[f"label_{kind}"].iloc[0]) if f"label_{kind}" in rows else None
    return LearningCurve(sizes, errors, has_folds(rows), training, above, known, LEARNED[kind])


def _curve_options(
    key: dict[str, Any], rows: pd.DataFrame, reference: pd.DataFrame | None, top: str, budget: float | None,
    extrapolate: float,
) -> pd.DataFrame:  # fmt: skip
    grouped = rows.groupby("n_train")
    sizes = np.sort(rows["n_train"].unique()).astype(float)
    # Leverage draws large cells, which cost more each; that changes with the size of the subset.
    each = (grouped["label_seconds"].median() / sizes).to_numpy(dtype=float)
    numbers = _numbers(sizes, each, budget, extrapolate)
    cost = numbers * np.interp(numbers, sizes, each)
    columns: dict[str, Any] = {**key, "n_train": numbers.astype(int), "label_seconds": cost}
    for kind in ("energy", "force"):
        expected = _curve(rows, kind, reference, is_reference=key["level"] == top).predict(numbers)
        columns |= {kind: expected.value, f"{kind}_low": expected.low, f"{kind}_high": expected.high}
        columns["beyond"] = expected.is_extrapolated
    columns[MD_COST_COLUMN] = float(rows[MD_COST_COLUMN].median()) if MD_COST_COLUMN in rows else np.nan
    return pd.DataFrame(columns)


def _numbers(sizes: np.ndarray, each: np.ndarray, budget: float | None, extrapolate: float) -> np.ndarray:
    """Whole numbers of configurations to look at: those measured, some between, and what the budget just pays for."""
    largest = np.floor(sizes[-1] * extrapolate + 1e-9)
    every = largest - sizes[0] < STEPS
    between = np.arange(sizes[0], largest + 1) if every else np.round(np.geomspace(sizes[0], largest, STEPS))
    numbers = [*sizes, *between, largest]
    if budget is not None:
        trial = np.arange(sizes[0], largest + 1) if largest < 1e5 else np.geomspace(sizes[0], largest, 10**5).round()
        paid = trial[trial * np.interp(trial, sizes, each) <= budget]
        numbers += [paid[-1]] if paid.size else []
    return np.unique(numbers)


def _fast_enough(found: pd.DataFrame, limits: Limits) -> pd.DataFrame:
    if limits.max_md_cost is None:
        return found
    if found[MD_COST_COLUMN].isna().all():
        raise InputError(
            f"the results have no MD cost ('{MD_COST_COLUMN}'), so that no MD speed can be asked for; run the study again, which "
            "measures it, or give 'cost.md_us_per_atom_step' in the study"
        )
    fast = found[found[MD_COST_COLUMN] <= limits.max_md_cost]
    if fast.empty:
        cheapest = select_minimum(found, MD_COST_COLUMN)
        raise InputError(
            f"no model needs at most {limits.max_md_cost:.3g} µs for each atom and step; the fastest, 2Jmax = "
            f"{int(cheapest['twojmax'])}, needs {cheapest[MD_COST_COLUMN]:.3g} (that is {1e6 / cheapest[MD_COST_COLUMN]:.3g} atoms·steps/s)"
        )
    return fast


def _good_enough(found: pd.DataFrame, limits: Limits) -> pd.Series:
    good = pd.Series(True, index=found.index)
    for name, limit in (("energy", limits.max_energy), ("force", limits.max_force)):
        if limit is not None:
            good &= found[name] <= limit
    return good


def _out_of_reach(found: pd.DataFrame, affordable: pd.DataFrame, limits: Limits) -> str:
    """Why nothing fits: what is reachable, and what it would cost to get there."""
    asked = []
    for name, limit, unit in (("energy", limits.max_energy, "meV/atom"), ("force", limits.max_force, "meV/Å")):
        if limit is not None:
            lowest = select_minimum(affordable, name)
            guess = ", extrapolated" if lowest["beyond"] else ""
            article = "an" if name == "energy" else "a"
            asked.append(f"{article} {name} error of {limit:g} {unit} (the lowest is {lowest[name]:.4g}{guess})")
    within = "" if limits.budget is None else f" within {limits.budget:g} s"
    fast = _fast_enough(found, limits)
    enough = fast[_good_enough(fast, limits)]
    remedy = "loosen the limits, or study larger subsets and models"
    if len(enough):
        cheapest = select_minimum(enough, "label_seconds")
        remedy = f"it takes {cheapest['label_seconds']:.4g} s: {describe_setting(cheapest)}"
    return f"no setting{within} reaches {' and '.join(asked)}; {remedy}"
