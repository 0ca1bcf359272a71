"""Tables that are derived from the results of a study: the front, and the effect of a ridge penalty."""

import pandas as pd

from paretofit.core import InputError
from paretofit.pareto import pareto_front
from paretofit.report import ERROR_SOURCE
from paretofit.report.tables import tabulate_mixtures

FRONT_GROUPS = ["twojmax", "level", "sampling", "n_train", "w_energy", "w_force"]
MD_COST = "md_us_per_atom_step"
FRONT_OBJECTIVES = ["ref_energy", "ref_force", "label_seconds"]


def find_study_front(results: pd.DataFrame, n_train: int | None = None) -> pd.DataFrame:
    """Find the front of energy error, force error and DFT cost for each 2Jmax, from medians over repetitions.

    Parameters
    ----------
    results : DataFrame
        Results table.
    n_train : int, optional
        Size of the whole training set. Its fit is the same for all sampling methods and is listed once, with the
        sampling method "all".

    Returns
    -------
    DataFrame
        Points on the fronts. The column ``overall`` is true for points that are also on the front over all 2Jmax. If
        the MD cost of every 2Jmax is known, ``overall_with_md`` is true for points on the overall front with MD cost as
        a fourth objective.
    """
    groups = FRONT_GROUPS + (["ridge"] if "ridge" in results else [])
    has_md_cost = results[MD_COST].notna().all()
    groups += [MD_COST] if has_md_cost else []
    if n_train is not None:
        results = results.assign(sampling=results["sampling"].where(results["n_train"] < n_train, "all"))
    fronts = [pareto_front(table, FRONT_OBJECTIVES, group_by=groups) for _, table in results.groupby("twojmax")]
    front = pd.concat(fronts, ignore_index=True)
    mixtures = tabulate_mixtures(results)
    front = front.merge(mixtures, on="level", how="left") if len(mixtures) else front
    front = front.assign(overall=front.index.isin(pareto_front(front, FRONT_OBJECTIVES).index))
    if has_md_cost:
        md_front = pareto_front(front, [*FRONT_OBJECTIVES, MD_COST])
        front = front.assign(overall_with_md=front.index.isin(md_front.index))
    return front


def substitute_loo_errors(results: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    """Replace the test errors of a study without a test set by leave-one-out errors.

    Fits without leave-one-out errors (too few labels for the model) are dropped; an entry of `warnings` counts them.

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
    """Tabulate the lowest errors and the number of points on the front by 2Jmax, subset size and ridge penalty.

    Errors are medians over repetitions at the reference level (the last in the table), minimised over all weights and
    sampling methods; meV/atom and meV/Å.
    """
    reference_results = results[results["level"] == results["level"].iloc[-1]]
    medians: pd.DataFrame = reference_results.groupby([*FRONT_GROUPS, "ridge"])[["ref_energy", "ref_force"]].median()
    keys = ["twojmax", "n_train", "ridge"]
    table = medians.groupby(keys).min().rename(columns=lambda name: f"lowest_{name}")
    table["points_on_front"] = front.groupby(keys).size().reindex(table.index, fill_value=0)
    return pd.DataFrame(table.reset_index())
