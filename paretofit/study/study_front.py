"""The tables that a study draws from its results: the front, and what a ridge penalty changes."""

import pandas as pd

from paretofit.core import InputError
from paretofit.pareto import pareto_front

FRONT_GROUPS = ["twojmax", "level", "sampling", "n_train", "w_energy", "w_force"]
MD_COST = "md_us_per_atom_step"
FRONT_OBJECTIVES = ["ref_energy", "ref_force", "label_seconds"]


def find_study_front(results: pd.DataFrame, n_train: int | None = None) -> pd.DataFrame:
    """Pareto front of energy error, force error and DFT cost for each 2Jmax, medians over repetitions.

    Parameters
    ----------
    results : DataFrame
        A results table.
    n_train : int, optional
        Size of the whole training set: there all samplings coincide, and the fit counts once, as sampling
        "all".

    Returns
    -------
    DataFrame
        The column ``overall`` tells whether a point is also on the front over all 2Jmax, and ``overall_with_md``,
        where the MD cost of every 2Jmax is known, whether it is on that with MD cost as a fourth objective.
    """
    groups = FRONT_GROUPS + (["ridge"] if "ridge" in results else [])
    timed = results[MD_COST].notna().all()
    groups += [MD_COST] if timed else []
    if n_train is not None:
        results = results.assign(sampling=results["sampling"].where(results["n_train"] < n_train, "all"))
    parts = [pareto_front(table, FRONT_OBJECTIVES, group_by=groups) for _, table in results.groupby("twojmax")]
    front = pd.concat(parts, ignore_index=True)
    front = front.assign(overall=front.index.isin(pareto_front(front, FRONT_OBJECTIVES).index))
    if timed:
        with_md = pareto_front(front, [*FRONT_OBJECTIVES, MD_COST])
        front = front.assign(overall_with_md=front.index.isin(with_md.index))
    return front


def substitute_loo_errors(results: pd.DataFrame, warnings: list[str]) -> pd.DataFrame:
    """Results of a study without a test set, leave-one-out errors standing where test errors would.

    Fits for which leave-one-out is not determined (too few labels for the model) are left out, and counted in
    a sentence that is added to `warnings`.

    Raises
    ------
    InputError
        If no fit is left.
    """
    stand_in = {
        f"{kind}_{name}": f"loo{'_ref' if kind == 'ref' else ''}_{name}"
        for kind in ("test", "ref")
        for name in ("energy", "force")
    }
    shown = results.assign(**{test: results[left_out] for test, left_out in stand_in.items()})
    judged = shown.dropna(subset=list(stand_in))
    if judged.empty:
        raise InputError(
            "without a test set fits are judged by leave-one-out, and no fit has enough labels for it; take larger "
            "'sizes', a smaller 'twojmax', or add 'auto' to 'ridge'"
        )
    warnings.append(
        "There is no test set: the errors shown are leave-one-out errors of the training subsets; "
        f"{len(shown) - len(judged)} fits whose labels do not determine them are left out."
    )
    return judged


def tabulate_ridge_effect(results: pd.DataFrame, front: pd.DataFrame) -> pd.DataFrame:
    """For each 2Jmax and subset size the lowest errors with each penalty, and its share of the front.

    Medians over repetitions at the reference level (the last in the table), the best of all weights and
    samplings; meV/atom and meV/Å.
    """
    reference = results[results["level"] == results["level"].iloc[-1]]
    medians: pd.DataFrame = reference.groupby([*FRONT_GROUPS, "ridge"])[["ref_energy", "ref_force"]].median()
    keys = ["twojmax", "n_train", "ridge"]
    table = medians.groupby(keys).min().rename(columns=lambda name: f"lowest_{name}")
    table["points_on_front"] = front.groupby(keys).size().reindex(table.index, fill_value=0)
    return pd.DataFrame(table.reset_index())
