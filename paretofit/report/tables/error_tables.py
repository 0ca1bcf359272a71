"""Tables of a study in the form of those of Baghishov et al., Digital Discovery (2025).

Tables 4 and 5 show energy and force errors by level at two weight ratios, and Table 2 the models. The columns of
Tables 4 and 5 have headings instead of fixed names, because the weight ratios depend on the study.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from paretofit.pareto import MD_COST_COLUMN
from paretofit.report.figures.style import UNITS
from paretofit.report.page.sweep_page import ReportTable
from paretofit.report.tables.summaries import compute_medians, describe_subset, select_largest_subset
from paretofit.report.wording import format_levels, format_number, format_ratio, join_items, join_sentences

# Headings by the column of results; REFERENCE is replaced by the name of the reference level.
_ENERGY_HEADINGS = {
    "train_energy": "training", "train_ref_energy": "training, REFERENCE", "test_energy": "own level",
    "ref_energy": "REFERENCE", "ref_energy_shifted": "REFERENCE, shifted",
}  # fmt: skip
_FORCE_HEADINGS = {
    "train_force": "training", "train_ref_force": "training, REFERENCE", "test_force": "own level",
    "ref_force": "REFERENCE",
}  # fmt: skip
_MIN_RELATIVE_DIFFERENCE = 0.01  # the texts ignore smaller differences between errors
MD_SPEED_HEADING = "atoms·steps/s"

Errors = dict[str, dict[str, float]]  # errors (meV/atom, meV/Å) by level, then by column of results


def build_error_tables(
    results: pd.DataFrame, levels: Sequence[str], weights: Sequence[tuple[float, float]]
) -> Iterator[ReportTable]:
    """Build Tables 4 and 5: energy and force errors of every level at the largest 2Jmax and the largest subset.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    levels : names in order of cost; the last is the reference
    weights : one or two pairs w_E, w_F; pairs that were not swept are ignored

    Yields
    ------
    ReportTable
        Medians over repetitions with a row per level: first the energy errors, then the force errors. If none of
        `weights` was swept, nothing is yielded.
    """
    rows = select_largest_subset(compute_medians(results, levels))
    rows = rows[rows["twojmax"] == rows["twojmax"].max()]
    # The column ``weight_ratio`` is rounded to six digits, too.
    ratios = list(dict.fromkeys(float(f"{w_energy / w_force:.6g}") for w_energy, w_force in weights))
    errors_by_ratio = {ratio: _group_by_level(rows[rows["weight_ratio"] == ratio], levels) for ratio in ratios}
    errors_by_ratio = {ratio: errors for ratio, errors in errors_by_ratio.items() if errors}
    if not errors_by_ratio:
        return
    setting = (
        f"Median RMSE over repetitions at 2Jmax = {rows['twojmax'].iloc[0]}, the largest, trained on "
        f"{describe_subset(rows)}, for the training set and for the test set; the test errors are given against the "
        f"level of the training labels and against level {levels[-1]}, the reference."
    )
    energy_sentences = [
        "Shifted: without the mean error.",
        *(_compare_with_reference(errors, "energy", ratio, levels) for ratio, errors in errors_by_ratio.items()),
        _describe_unlearned_errors(errors_by_ratio, levels),
        _compare_force_weights(errors_by_ratio),
        _describe_largest_shift(errors_by_ratio),
    ]
    force_sentences = [
        _compare_with_reference(errors, "force", ratio, levels) for ratio, errors in errors_by_ratio.items()
    ]
    for kind, headings, sentences in (
        ("energy", _ENERGY_HEADINGS, energy_sentences),
        ("force", _FORCE_HEADINGS, force_sentences),
    ):
        columns = {name: heading for name, heading in headings.items() if rows[name].notna().any()}
        yield ReportTable(
            f"{kind.capitalize()} errors by weighting", join_sentences(setting, *sentences),
            f"{kind}_errors_by_weighting", _join_weightings(errors_by_ratio, levels, columns, UNITS[kind]),
        )  # fmt: skip


def _group_by_level(rows: pd.DataFrame, levels: Sequence[str]) -> Errors:
    """Convert rows of one weight ratio to errors by level, in the order of `levels`."""
    errors = rows.set_index("level")[[*_ENERGY_HEADINGS, *_FORCE_HEADINGS]].astype(float).to_dict(orient="index")
    return {level: {str(name): value for name, value in errors[level].items()} for level in levels if level in errors}


def _join_weightings(
    errors_by_ratio: dict[float, Errors], levels: Sequence[str], columns: dict[str, str], unit: str
) -> pd.DataFrame:
    """Join the errors of all weight ratios into a table with a row per level.

    `columns` maps columns of results to headings with the placeholder REFERENCE; missing errors are NaN.
    """
    names = [level for level in levels if any(level in errors for errors in errors_by_ratio.values())]
    table: dict[str, list[Any]] = {"level": names}
    for ratio, errors in errors_by_ratio.items():
        for column, template in columns.items():
            heading = template.replace("REFERENCE", f"level {levels[-1]}")
            table[f"w_E/w_F = {format_ratio(ratio)}: {heading} ({unit})"] = [
                errors[level][column] if level in errors else np.nan for level in names
            ]
    return pd.DataFrame(table)


def _compare_with_reference(errors: Errors, kind: str, ratio: float, levels: Sequence[str]) -> str:
    """Describe the errors of models of other levels as multiples of the error of the reference level's model.

    The text is empty if one of these errors is missing or zero.
    """
    column = f"ref_{kind}"
    finite_errors = {level: row[column] for level, row in errors.items() if np.isfinite(row[column])}
    reference_error = finite_errors.pop(levels[-1], 0.0)
    if reference_error <= 0 or not finite_errors:
        return ""
    multiples = join_items(format_number(error / reference_error) for error in finite_errors.values())
    other_levels = format_levels(list(finite_errors))
    subject, verb = ("that", "is") if len(finite_errors) == 1 else ("those", "are")
    return (
        f"At w_E/w_F = {format_ratio(ratio)} the {kind} error of the model of level {levels[-1]} is "
        f"{format_number(reference_error)} {UNITS[kind]}; {subject} of {other_levels} {verb} {multiples} times that "
        "error."
    )


def _describe_unlearned_errors(errors_by_ratio: dict[float, Errors], levels: Sequence[str]) -> str:
    """Describe which levels have models whose energies are closer to the reference than to their training labels."""
    cases = []
    for ratio, errors in errors_by_ratio.items():
        closer_levels = [
            level
            for level, row in errors.items()
            if level != levels[-1] and row["ref_energy_shifted"] < (1 - _MIN_RELATIVE_DIFFERENCE) * row["test_energy"]
        ]
        if closer_levels:
            cases.append(f"of {format_levels(closer_levels)} at w_E/w_F = {format_ratio(ratio)}")
    if not cases:
        return ""
    return (
        f"Without their mean error, the energies of the models {join_items(cases)} are closer to level {levels[-1]} "
        "than to the labels that they were trained on: these models do not learn part of the labels' error."
    )


def _compare_force_weights(errors_by_ratio: dict[float, Errors]) -> str:
    """Describe at which levels the higher of two force weights lowers the energy error, and by which factors.

    The text is empty unless there are two weight ratios with errors at a common level.
    """
    if len(errors_by_ratio) != 2:
        return ""
    low_ratio_errors, high_ratio_errors = errors_by_ratio[min(errors_by_ratio)], errors_by_ratio[max(errors_by_ratio)]
    factors = {}
    for level in (level for level in low_ratio_errors if level in high_ratio_errors):
        before, after = high_ratio_errors[level]["ref_energy"], low_ratio_errors[level]["ref_energy"]
        if np.isfinite([before, after]).all() and before > 0:
            factors[level] = after / before
    improved = {level: factor for level, factor in factors.items() if factor < 1 - _MIN_RELATIVE_DIFFERENCE}
    if not factors:
        return ""
    subject = f"The higher force weight, w_E/w_F = {format_ratio(min(errors_by_ratio))},"
    if not improved:
        return f"{subject} lowers the energy error of no level."
    times = join_items(format_number(factor) for factor in improved.values())
    return f"{subject} multiplies the energy error of {format_levels(list(improved))} by {times}."


def _describe_largest_shift(errors_by_ratio: dict[float, Errors]) -> str:
    """Describe the level and weight ratio at which subtracting the mean error lowers the energy error most."""
    pairs = {
        (ratio, level): (row["ref_energy"], row["ref_energy_shifted"])
        for ratio, errors in errors_by_ratio.items()
        for level, row in errors.items()
        if np.isfinite([row["ref_energy"], row["ref_energy_shifted"]]).all() and row["ref_energy"] > 0
    }
    if not pairs:
        return ""
    ratio, level = min(pairs, key=lambda key: pairs[key][1] / pairs[key][0])
    error, shifted_error = pairs[ratio, level]
    if shifted_error > (1 - _MIN_RELATIVE_DIFFERENCE) * error:
        return "The shift lowers no energy error by more than 1 %."
    return (
        f"The shift has the largest effect at level {level} and w_E/w_F = {format_ratio(ratio)}, from "
        f"{format_number(error)} to {format_number(shifted_error)} meV/atom."
    )


def build_model_table(results: pd.DataFrame, levels: Sequence[str], md_timings: pd.DataFrame) -> ReportTable:
    """Build Table 2: number of features and MD speed of each 2Jmax.

    Parameters
    ----------
    results : DataFrame, a row per fit
    levels : names in order of cost; the last is the reference
    md_timings : DataFrame
        ``twojmax``, ``md_us_per_atom_step``, ``spread`` (ratio of the largest to the smallest timing) and ``atoms``
        (number of atoms in the timed cell; 0 if the study gives the cost). If it is empty, the costs in the results are
        used, as costs that the study gives.

    Returns
    -------
    ReportTable
        A row per 2Jmax: ``n_features`` and, if a cost is known, ``md_us_per_atom_step``, `MD_SPEED_HEADING` and the
        origin of the cost, ``speed is``.
    """
    models = compute_medians(results, levels).groupby("twojmax")[["n_features", MD_COST_COLUMN]].median()
    table = models[["n_features"]].reset_index().astype({"n_features": int})
    timings = md_timings.set_index("twojmax") if len(md_timings) else models.assign(spread=np.nan, atoms=0)
    costs = table["twojmax"].map(timings[MD_COST_COLUMN]).astype(float)
    costs = costs.where(np.isfinite(costs) & (costs > 0))
    note = "Features of each 2Jmax. The MD speed of the models is not known."
    if costs.notna().any():
        is_measured = table["twojmax"].map(timings["atoms"]).fillna(0) > 0
        table[MD_COST_COLUMN] = costs
        table[MD_SPEED_HEADING] = 1e6 / costs  # the costs are in µs
        table["speed is"] = np.where(costs.isna(), "–", np.where(is_measured, "measured", "given"))
        note = _describe_md_costs(table, timings)
    return ReportTable("Models", note, "models", table)


def _describe_md_costs(table: pd.DataFrame, timings: pd.DataFrame) -> str:
    """Describe the origin of the MD costs, and how the cost rises with the number of features.

    Parameters
    ----------
    table : DataFrame
        Table 2, at least one row of which has a cost.
    timings : DataFrame
        ``spread`` and ``atoms`` as in `build_model_table`, with 2Jmax as the index.
    """
    rows = table.dropna(subset=[MD_COST_COLUMN])
    sentences = ["Features of each 2Jmax, and the cost of MD with the model."]
    measured_timings = timings.loc[timings.index.isin(rows["twojmax"]) & (timings["atoms"] > 0)]
    if len(measured_timings):
        cells = join_items(f"{int(count):,}" for count in sorted(set(measured_timings["atoms"])))
        spread = measured_timings["spread"].max()
        note = f"; repeated timings agree within a factor of {format_number(spread)}" if np.isfinite(spread) else ""
        sentences.append(f"The cost was measured in LAMMPS on one core, with a cell of {cells} atoms{note}.")
    given_twojmax = rows.loc[rows["speed is"] == "given", "twojmax"]
    if len(given_twojmax):
        sentences.append(f"For 2Jmax = {join_items(given_twojmax)} the cost is given, not measured.")
    if len(rows) > 1:
        smallest, largest = rows.iloc[0], rows.iloc[-1]
        sentences.append(
            f"From 2Jmax = {smallest['twojmax']} to {largest['twojmax']} the model has "
            f"{format_number(largest['n_features'] / smallest['n_features'])} times as many features, and a step costs "
            f"{format_number(largest[MD_COST_COLUMN] / smallest[MD_COST_COLUMN])} times as much."
        )
    return " ".join(sentences)
