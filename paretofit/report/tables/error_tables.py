"""The tables of the paper that compare levels at one size: energy and force errors at two weightings, and the models.

Tables 4, 5 and 2 of Baghishov et al., Digital Discovery (2025). Columns carry the headings that people read, because
which weightings there are depends on the study.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from paretofit.report.page.sweep_page import ReportTable
from paretofit.report.tables.summaries import compute_medians, describe_subset, select_largest_subset
from paretofit.report.wording import format_levels, format_number, format_ratio, join_items

_TRAINING, _OWN, _SHIFTED = "training", "own level", "shifted"
_ENERGY = {"train_energy": _TRAINING, "test_energy": _OWN, "ref_energy": "", "ref_energy_shifted": _SHIFTED}
_FORCE = {"train_force": _TRAINING, "test_force": _OWN, "ref_force": ""}
_SAME = 0.01  # relative; a smaller difference is not counted as one
MD_SPEED_HEADING = "atoms·steps/s"

Errors = dict[str, dict[str, float]]  # by level and column of the results


def build_error_tables(
    results: pd.DataFrame, levels: Sequence[str], weights: Sequence[tuple[float, float]]
) -> Iterator[ReportTable]:
    """Tables 4 and 5: energy and force errors of every level at the largest 2Jmax and the largest subset.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    levels : names by cost, the last is the reference
    weights : one or two pairs w_E, w_F; see `paretofit.study.analysis.select_paper_weights`. One that was not swept is left out

    Yields
    ------
    Sheet
        Energies, then forces: medians over repetitions, a row per level. Nothing where none of `weights` was swept.
    """
    rows = select_largest_subset(compute_medians(results, levels))
    rows = rows[rows["twojmax"] == rows["twojmax"].max()]
    ratios = list(dict.fromkeys(float(f"{w_energy / w_force:.6g}") for w_energy, w_force in weights))
    parts = {ratio: _by_level(rows[rows["weight_ratio"] == ratio], levels) for ratio in ratios}
    parts = {ratio: part for ratio, part in parts.items() if part}
    if not parts:
        return
    setting = (
        f"Median RMSE over repetitions at 2Jmax = {rows['twojmax'].iloc[0]}, the largest, trained on "
        f"{describe_subset(rows)}, on the training set and on the test set, there against the level trained on and "
        f"against level {levels[-1]}, the reference."
    )
    energy = [
        setting,
        "Shifted: less the mean error.",
        *(_against_reference(part, "ref_energy", ratio, levels, "meV/atom") for ratio, part in parts.items()),
        _closer_to_reference(parts, levels),
        _force_weight(parts),
        _shift(parts),
    ]
    yield ReportTable(
        "Energy errors by weighting", _joined(energy), "energy_errors_by_weighting",
        _side_by_side(parts, levels, _ENERGY, "meV/atom"),
    )  # fmt: skip
    force = [setting, *(_against_reference(part, "ref_force", ratio, levels, "meV/Å") for ratio, part in parts.items())]
    yield ReportTable(
        "Force errors by weighting", _joined(force), "force_errors_by_weighting",
        _side_by_side(parts, levels, _FORCE, "meV/Å"),
    )  # fmt: skip


def _by_level(rows: pd.DataFrame, levels: Sequence[str]) -> Errors:
    """Errors by level and column."""
    found = rows.set_index("level")[[*_ENERGY, *_FORCE]].astype(float).to_dict(orient="index")
    return {level: {str(name): value for name, value in found[level].items()} for level in levels if level in found}


def _side_by_side(
    parts: dict[float, Errors], levels: Sequence[str], columns: dict[str, str], unit: str
) -> pd.DataFrame:
    """A row per level, the columns of each weighting under their headings."""
    present = [level for level in levels if any(level in part for part in parts.values())]
    table: dict[str, list[Any]] = {"level": present}
    for ratio, part in parts.items():
        for column, name in columns.items():
            words = name if name in (_TRAINING, _OWN) else ", ".join(filter(None, (f"level {levels[-1]}", name)))
            heading = f"w_E/w_F = {format_ratio(ratio)}: {words} ({unit})"
            table[heading] = [part[level][column] if level in part else np.nan for level in present]
    return pd.DataFrame(table)


def _joined(sentences: Sequence[str]) -> str:
    return " ".join(text for text in sentences if text)


def _against_reference(part: Errors, column: str, ratio: float, levels: Sequence[str], unit: str) -> str:
    """Errors of the other levels as multiples of what the reference's own model has."""
    errors = {level: row[column] for level, row in part.items() if np.isfinite(row[column])}
    own = errors.pop(levels[-1], 0.0)
    if own <= 0 or not errors:
        return ""
    times = join_items(format_number(error / own) for error in errors.values())
    one = len(errors) == 1
    return (
        f"At w_E/w_F = {format_ratio(ratio)} the model of level {levels[-1]} is off by {format_number(own)} {unit}, and "
        f"{'that' if one else 'those'} of {format_levels(list(errors))} {'has' if one else 'have'} {times} times that "
        "error."
    )


def _closer_to_reference(parts: dict[float, Errors], levels: Sequence[str]) -> str:
    """For which levels a model is closer to the reference than to its own labels."""
    said = []
    for ratio, part in parts.items():
        closer = [
            level
            for level, row in part.items()
            if level != levels[-1] and row["ref_energy_shifted"] < (1 - _SAME) * row["test_energy"]
        ]
        if closer:
            said.append(f"at {format_levels(closer)} for w_E/w_F = {format_ratio(ratio)}")
    if not said:
        return ""
    return (
        f"Less their mean error, energies are closer to level {levels[-1]} than to the labels of the level trained on "
        f"{join_items(said)}: there part of the labels' error is not learned."
    )


def _force_weight(parts: dict[float, Errors]) -> str:
    """For which levels the weighting with the higher force weight gives the better energies."""
    if len(parts) != 2:
        return ""
    low, high = parts[min(parts)], parts[max(parts)]
    pairs = {level: (low[level]["ref_energy"], high[level]["ref_energy"]) for level in low if level in high}
    factors = {level: a / b for level, (a, b) in pairs.items() if np.isfinite([a, b]).all() and b > 0}
    better = {level: factor for level, factor in factors.items() if factor < 1 - _SAME}
    if not factors:
        return ""
    start = f"The higher force weight, w_E/w_F = {format_ratio(min(parts))},"
    if not better:
        return f"{start} lowers the energy error of no level."
    times = join_items(format_number(factor) for factor in better.values())
    return f"{start} multiplies the energy error of {format_levels(list(better))} by {times}."


def _shift(parts: dict[float, Errors]) -> str:
    """The level whose energies a constant shift improves most."""
    pairs = {
        (ratio, level): (row["ref_energy"], row["ref_energy_shifted"])
        for ratio, part in parts.items()
        for level, row in part.items()
        if np.isfinite([row["ref_energy"], row["ref_energy_shifted"]]).all() and row["ref_energy"] > 0
    }
    if not pairs:
        return ""
    ratio, level = min(pairs, key=lambda key: pairs[key][1] / pairs[key][0])
    before, after = pairs[ratio, level]
    if after > (1 - _SAME) * before:
        return "The shift lowers no energy error by more than 1 %."
    return (
        f"The shift helps most at level {level} and w_E/w_F = {format_ratio(ratio)}, from {format_number(before)} to "
        f"{format_number(after)} meV/atom."
    )


def build_model_table(results: pd.DataFrame, levels: Sequence[str], md_timings: pd.DataFrame) -> ReportTable:
    """Table 2: features and MD speed of each 2Jmax.

    Parameters
    ----------
    results : DataFrame, a row per fit
    levels : names by cost, the last is the reference
    md_timings : DataFrame
        ``twojmax``, ``md_us_per_atom_step``, ``spread`` (largest over smallest timing) and ``atoms`` (of the timed
        cell; 0: given in the study); may be empty, and then what the results have counts as given.

    Returns
    -------
    Sheet
        A row per 2Jmax; without the speeds where none is known.
    """
    own = compute_medians(results, levels).groupby("twojmax")[["n_features", "md_us_per_atom_step"]].median()
    table = own[["n_features"]].reset_index().astype({"n_features": int})
    timed = md_timings.set_index("twojmax") if len(md_timings) else own.assign(spread=np.nan, atoms=0)
    costs = table["twojmax"].map(timed["md_us_per_atom_step"]).astype(float)
    costs = costs.where(np.isfinite(costs) & (costs > 0))
    note = "Features of each 2Jmax. The MD speed of the models is not known."
    if costs.notna().any():
        atoms = table["twojmax"].map(timed["atoms"]).fillna(0)
        table["md_us_per_atom_step"] = costs
        table[MD_SPEED_HEADING] = 1e6 / costs
        table["speed is"] = np.where(costs.isna(), "–", np.where(atoms > 0, "measured", "given"))
        note = _model_note(table, timed)
    return ReportTable("Models", note, "models", table)


def _model_note(table: pd.DataFrame, timed: pd.DataFrame) -> str:
    known = table.dropna(subset=["md_us_per_atom_step"])
    sentences = ["Features of each 2Jmax, and the cost of MD with the model."]
    measured = timed.loc[timed.index.isin(known["twojmax"]) & (timed["atoms"] > 0)]
    if len(measured):
        cells = join_items(f"{int(count):,}" for count in sorted(set(measured["atoms"])))
        spread = measured["spread"].max()
        agree = f"; repeated timings agree within a factor of {format_number(spread)}" if np.isfinite(spread) else ""
        sentences.append(f"Measured in LAMMPS on one core, with a cell of {cells} atoms{agree}.")
    if (known["speed is"] == "given").any():
        named = join_items(known.loc[known["speed is"] == "given", "twojmax"])
        sentences.append(f"For 2Jmax = {named} the cost is given, not measured.")
    if len(known) > 1:
        first, last = known.iloc[0], known.iloc[-1]
        sentences.append(
            f"From 2Jmax = {first['twojmax']} to {last['twojmax']} the model has "
            f"{format_number(last['n_features'] / first['n_features'])} times as many features, and a step costs "
            f"{format_number(last['md_us_per_atom_step'] / first['md_us_per_atom_step'])} times as much."
        )
    return " ".join(sentences)
