"""Tables that a study derives from its results: the front, and the effect of a ridge penalty."""

import pandas as pd

from paretofit.core import InputError
from paretofit.pareto import pareto_front

FRONT_GROUPS = ["twojmax", "level", "sampling", "n_train", "w_energy", "w_force"]
MD_COST = "md_us_per_atom_step"
FRONT_OBJECTIVES = ["ref_energy", "ref_force", "label_seconds"]


def find_study_front(results: pd.DataFrame, n_train: int | None = None) -> pd.DataFrame:
    """Find the front of energy error, force error and DFT cost for each 2Jmax, from medians over repetitions.

    Parameters
    ----------
    results : DataFrame
        A results table.
    n_train : int, optional
        Size of the whole training set: all sampling methods give the same fit of it, which is listed once, as
        sampling "all".

    Returns
    -------
    DataFrame
        The column ``overall`` is true for points that are also on the front over all 2Jmax; ``overall_with_md``, where
        the MD cost of every 2Jmax is known, for those on the front with MD cost as a fourth objective.
    """
    groups = FRONT_GROUPS + (["ridge"] if "ridge" in results else [])
    has_md_cost = results[MD_COST].notna().all()
    groups += [MD_COST] if has_md_cost else []
    if n_train is not None:
        results = results.assign(sampling=results["sampling"].where(results["n_train"] < n_train, "all"))
    parts = [pareto_front(table, FRONT_OBJECTIVES, group_by=groups) for _, table in results.groupby("twojmax")]
    front = pd.concat(parts, ignore_index=True)
    front = front.assign(overall=front.index.isin(pareto_front(front, FRONT_OBJECTIVES).index))
    if has_md_cost:
        with_md = pareto_front(front, [*FRONT_OBJECTIVES, MD_COST])
        front = front.assign(overall_with_md=front.index.isin(with_md.index))
    return front


def substitute_loo_errors(results: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    """Replace the test errors of a study without a test set by leave-one-out errors.

    Fits without leave-one-out errors (too few labels for the model) are dropped; a message with their number is added
    to `warnings`.

    Raises
    ------
    InputError
        If no fit has leave-one-out errors.
    """
    loo_columns = {
        f"{kind}_{name}": f"loo{'_ref' if kind == 'ref' else ''}_{name}"
        for kind in ("test", "ref")
        for name in ("energy", "force")
    }
    replaced = results.assign(**{test: results[loo] for test, loo in loo_columns.items()})
    determined = replaced.dropna(subset=list(loo_columns))
    if determined.empty:
        raise InputError(
            "without a test set fits are evaluated by leave-one-out errors, and no fit has enough labels for them; "
            "use larger 'sizes', a smaller 'twojmax', or add 'auto' to 'ridge'"
        )
    warnings.append(
        "There is no test set: the errors shown are leave-one-out errors of the training subsets; "
        f"{len(replaced) - len(determined)} fits whose labels do not determine them are not shown."
    )
    return determined


def tabulate_ridge_effect(results: pd.DataFrame, front: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the lowest errors with each ridge penalty, and its points on the front, by 2Jmax and subset size.

    Errors are medians over repetitions at the reference level (the last in the table), the lowest of all weights and
    sampling methods; meV/atom and meV/Å.
    """
    reference = results[results["level"] == results["level"].iloc[-1]]
    medians: pd.DataFrame = reference.groupby([*FRONT_GROUPS, "ridge"])[["ref_energy", "ref_force"]].median()
    keys = ["twojmax", "n_train", "ridge"]
    table = medians.groupby(keys).min().rename(columns=lambda name: f"lowest_{name}")
    table["points_on_front"] = front.groupby(keys).size().reindex(table.index, fill_value=0)
    return pd.DataFrame(table.reset_index())
