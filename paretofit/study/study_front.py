"""Tables from the results of a study: the front, leave-one-out errors as test errors, and the effect of a ridge."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from paretofit.core import InputError
from paretofit.pareto import BASIS_COLUMN, pareto_front
from paretofit.properties import is_property_error
from paretofit.report import ERROR_SOURCE
from paretofit.report.tables import tabulate_mixtures

FRONT_GROUPS = ["twojmax", "level", "sampling", "n_train", "w_energy", "w_force"]
MD_COST = "md_us_per_atom_step"
COST = "label_seconds"
FRONT_OBJECTIVES = ["ref_energy", "ref_force", COST]


def find_study_front(
    results: pd.DataFrame, n_train: int | None = None, objectives: Sequence[str] = FRONT_OBJECTIVES[:-1]
) -> pd.DataFrame:
    """Find the front of errors and label cost for each 2Jmax and basis, from medians over repetitions.

    Parameters
    ----------
    results : DataFrame
        Results table.
    n_train : int, optional
        Size of the whole training set. Its fit is the same for all sampling methods and is listed once, with the
        sampling method "all".
    objectives : sequence of str
        Columns with errors; by default those of energies and forces. If a property is not defined in one of the
        repetitions of a setting, as the equilibrium volume may be, the setting is not on the front.

    Returns
    -------
    DataFrame
        Points on the front of each 2Jmax and basis, with the medians of all errors and, for mixtures, the columns of
        `tabulate_mixtures`. The column ``overall`` is true for points that are also on the front over all 2Jmax and
        bases. If the MD cost of every model is known, ``overall_with_md`` is true for points on the front of the table
        with the MD cost as a further objective.

    Raises
    ------
    InputError
        If no setting has the properties among the objectives in all of its repetitions.
    """
    basis_columns = [BASIS_COLUMN] if BASIS_COLUMN in results else []
    groups = [*basis_columns, *FRONT_GROUPS] + (["ridge"] if "ridge" in results else [])
    objectives = [*objectives, COST]
    has_md_cost = results[MD_COST].notna().all()
    groups += [MD_COST] if has_md_cost else []  # does not split groups; keeps the column in the front
    if n_train is not None:
        results = results.assign(sampling=results["sampling"].where(results["n_train"] < n_train, "all"))
    results = _select_defined_settings(results, objectives, groups)
    model_results = results.groupby([*basis_columns, "twojmax"])
    fronts = [pareto_front(table, objectives, group_by=groups) for _, table in model_results]
    front = pd.concat(fronts, ignore_index=True)
    error_columns = [name for name in map(str, results) if name in FRONT_OBJECTIVES or is_property_error(name)]
    if other_columns := [name for name in error_columns if name not in objectives]:
        front = front.merge(results.groupby(groups, as_index=False)[other_columns].median(), on=groups, how="left")
    mixtures = tabulate_mixtures(results)
    front = front.merge(mixtures, on="level", how="left") if len(mixtures) else front
    front = front.assign(overall=front.index.isin(pareto_front(front, objectives).index))
    if has_md_cost:
        md_front = pareto_front(front, [*objectives, MD_COST])
        front = front.assign(overall_with_md=front.index.isin(md_front.index))
    return front


def _select_defined_settings(results: pd.DataFrame, objectives: Sequence[str], groups: list[str]) -> pd.DataFrame:
    """Select the settings whose properties are defined in all repetitions; without properties, all settings.

    A property is not defined if its error is infinite or NaN.

    Raises
    ------
    InputError
        If no setting is left.
    """
    properties = [name for name in objectives if is_property_error(name)]
    is_undefined = (results[properties].isin([np.inf]) | results[properties].isna()).any(axis=1)
    if not is_undefined.any():
        return results
    defined_results: pd.DataFrame = results[~is_undefined.groupby([results[name] for name in groups]).transform("any")]
    if defined_results.empty:
        raise InputError(
            f"no setting has the properties {', '.join(properties)} in all of its repetitions; remove them from "
            "'objectives', or study larger subsets and models"
        )
    return defined_results


def substitute_loo_errors(results: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    """Replace the test errors of a study without a test set by leave-one-out errors.

    Fits without leave-one-out errors, which have too few labels for their model, are dropped. A warning with their
    number is appended to `warnings`, and the attribute `ERROR_SOURCE` of the returned table is set.

    Raises
    ------
    InputError
        If no fit has leave-one-out errors.
    """
    loo_columns = {"test_energy": "loo_energy", "test_force": "loo_force"}
    loo_columns |= {"ref_energy": "loo_ref_energy", "ref_force": "loo_ref_force"}
    results = results.assign(**{test: results[loo] for test, loo in loo_columns.items()})
    evaluated_results = results.dropna(subset=list(loo_columns))
    if evaluated_results.empty:
        raise InputError(
            "without a test set, fits are evaluated by leave-one-out errors, but no fit has enough labels for that; "
            "use larger 'sizes', a smaller 'twojmax', or add 'auto' to 'ridge'"
        )
    warnings.append(
        "There is no test set: the errors shown are leave-one-out errors of the training subsets; "
        f"{len(results) - len(evaluated_results)} fits with too few labels are not shown."
    )
    evaluated_results.attrs[ERROR_SOURCE] = "leave-one-out"
    return evaluated_results


def tabulate_ridge_effect(results: pd.DataFrame, front: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the lowest errors and the number of front points by 2Jmax, subset size and ridge penalty.

    The errors ``lowest_ref_energy`` (meV/atom) and ``lowest_ref_force`` (meV/Å) are medians over repetitions at the
    reference level, minimised over weights and sampling methods; ``points_on_front`` counts the points of all levels.
    """
    reference_level = results["level"].iloc[-1]  # results are sorted by level
    reference_results = results[results["level"] == reference_level]
    medians: pd.DataFrame = reference_results.groupby([*FRONT_GROUPS, "ridge"])[["ref_energy", "ref_force"]].median()
    keys = ["twojmax", "n_train", "ridge"]
    table = medians.groupby(keys).min().rename(columns=lambda name: f"lowest_{name}")
    table["points_on_front"] = front.groupby(keys).size().reindex(table.index, fill_value=0)
    return pd.DataFrame(table.reset_index())
