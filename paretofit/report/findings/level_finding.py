"""Finding on whether errors against the reference decrease from each convergence level to the next."""

from collections.abc import Sequence

import pandas as pd

from paretofit.report.findings.finding import Finding
from paretofit.report.findings.steps import collect_step_dots, combine_changes, count_changes, list_steps
from paretofit.report.paired_errors import NO_CLEAR_DIFFERENCE, ErrorComparison, PairedErrors
from paretofit.report.tables.summaries import compute_medians, describe_subset, select_largest_subset
from paretofit.report.wording import capitalise_sentence, format_count, format_number, format_ratio, join_items

QUESTION = "Do errors against the reference fall from level to level?"
PAPER = (
    "In the paper, errors fall up to level 5 of 6, and the last two levels give the same errors "
    "(5.05 meV/atom and 110.5 meV/Å at w_E/w_F = 150)."
)
MAX_LISTED_PAIRS = 3  # number of pairs of adjacent levels listed for each kind of error


def assess_error_decrease(
    results: pd.DataFrame, levels: Sequence[str], split_errors: PairedErrors | None = None
) -> Finding:
    """Compare the errors of adjacent levels at the largest subset, for every 2Jmax and w_E/w_F.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    levels : names in order of cost; the last is the reference
    split_errors : errors in further train/test splits; by default the repetitions are compared

    Returns
    -------
    Finding
        Yes if most errors clearly fall and none clearly rises, no if none falls, mixed otherwise. ``numbers`` has a row
        per (2Jmax, w_E/w_F, step), see `list_steps`.
    """
    rows = select_largest_subset(compute_medians(results, levels))
    comparison = ErrorComparison(results, split_errors)
    steps = list_steps(rows, "level", levels, ["twojmax", "weight_ratio"], comparison)
    if steps.empty:
        names = join_items(sorted(set(rows["level"])))
        reason = f"the results contain only level {names}, but two levels are required"
        return Finding.not_tested("levels", QUESTION, reason, PAPER)
    text = (
        f"At the largest subset ({describe_subset(rows)}), of {format_count(len(steps), 'step')} from one level to "
        f"the next (each 2Jmax and w_E/w_F), {count_changes(steps)}. "
        f"{_describe_example(rows, levels)} {_describe_exceptions(steps)}{comparison.describe_criterion()}"
    )
    return Finding(
        "levels", QUESTION, combine_changes(steps), text.strip(), PAPER, steps, collect_step_dots(steps, "level ")
    )


def _describe_example(rows: pd.DataFrame, levels: Sequence[str]) -> str:
    """List the errors of all levels at the largest 2Jmax and the middle weight ratio."""
    ratios = sorted(set(rows["weight_ratio"]))
    twojmax, ratio = rows["twojmax"].max(), ratios[len(ratios) // 2]
    errors = rows[(rows["twojmax"] == twojmax) & (rows["weight_ratio"] == ratio)].set_index("level")
    names = [level for level in levels if level in errors.index]
    energies, forces = (
        " → ".join(map(format_number, errors.loc[names, column])) for column in ("ref_energy", "ref_force")
    )
    return (
        f"For levels {' → '.join(names)} at 2Jmax = {twojmax} and w_E/w_F = {format_ratio(ratio)} the errors are "
        f"{energies} meV/atom and {forces} meV/Å."
    )


def _describe_exceptions(steps: pd.DataFrame) -> str:
    """Describe the pairs of adjacent levels between which an error does not clearly fall in some steps.

    A step compares the levels of a pair at one 2Jmax and w_E/w_F. At most `MAX_LISTED_PAIRS` pairs are listed for each
    kind of error.
    """
    clauses = []
    for kind in ("energy", "force"):
        exceptions = steps[steps[kind].isin(["rises", NO_CLEAR_DIFFERENCE])]
        pair_texts = []
        for (lower, higher), group in exceptions.groupby(["from", "to"], sort=False):
            n_compared = ((steps["from"] == lower) & (steps["to"] == higher)).sum()
            sizes = join_items(sorted(set(group["twojmax"])))
            counts = f"in {len(group)} of {n_compared} comparisons at all 2Jmax and w_E/w_F"
            pair_texts.append(f"from {lower} to {higher} at 2Jmax {sizes} ({counts})")
        n_omitted = len(pair_texts) - MAX_LISTED_PAIRS
        if n_omitted > 0:
            omitted_pairs = format_count(n_omitted, "other pair of levels", "other pairs of levels")
            pair_texts = [*pair_texts[:MAX_LISTED_PAIRS], f"between {omitted_pairs}"]
        if pair_texts:
            clauses.append(f"the {kind} error does not clearly fall {join_items(pair_texts)}")
    return f"{capitalise_sentence('; '.join(clauses))} " if clauses else ""
