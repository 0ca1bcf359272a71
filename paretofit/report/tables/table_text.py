"""Tables of the report (errors by level and weight, the front, costs), and their text in Markdown.

Every table is a DataFrame with the column names of the results, which the CSV files have, too. Markdown and HTML show
the headings with units in `HEADINGS` instead.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from paretofit.core import write_csv, write_text
from paretofit.pareto import BASIS_COLUMN
from paretofit.report.tables import summaries
from paretofit.report.wording import format_number, format_ratio

INTERVAL_ATTRIBUTE = "interval_percent"  # key in the ``attrs`` of a table: coverage of its intervals
DEFAULT_INTERVAL_PERCENT = 90  # coverage of the intervals of a table without this attribute
HEADINGS = {  # headings with units, by the name of the column
    "deviation_percent": "deviation (%)",
    "budget_s": "budget (s)",
    "mixture_basis": "mixture, basis",
    "single_basis": "single level, basis",
    "mixture_twojmax": "mixture, 2Jmax",
    "mixture_weight_ratio": "mixture, w_E/w_F",
    "mixture_energy": "mixture, energy (meV/atom)",
    "mixture_force": "mixture, force (meV/Å)",
    "single_twojmax": "single level, 2Jmax",
    "single_weight_ratio": "single level, w_E/w_F",
    "single_energy": "single level, energy (meV/atom)",
    "single_force": "single level, force (meV/Å)",
    "mixture_energy_ratio": "energy, mixture/single level",
    "mixture_force_ratio": "force, mixture/single level",
    "ratio": "both errors, mixture/single level",
    "share": "share of samples with lower errors",
    "twojmax": "2Jmax",
    "overall": "on the front over all 2Jmax",
    "n_train": "configurations",
    "n_features": "features",
    "n_repeats": "repetitions",
    "weight_ratio": "w_E/w_F",
    "w_energy": "w_E",
    "w_force": "w_F",
    "train_energy": "energy, training (meV/atom)",
    "test_energy": "energy, own level (meV/atom)",
    "ref_energy": "energy, reference (meV/atom)",
    "ref_energy_shifted": "energy, reference, shifted (meV/atom)",
    "train_ref_energy": "energy, training, reference (meV/atom)",
    "train_ref_force": "force, training, reference (meV/Å)",
    "train_force": "force, training (meV/Å)",
    "test_force": "force, own level (meV/Å)",
    "ref_force": "force, reference (meV/Å)",
    "p_front": "share of samples on the front",
    "tied_with": "tied with points",
    "label_seconds": "DFT cost (s)",
    "seconds_per_configuration": "DFT cost per configuration (s)",
    "relative_cost": "relative to the reference",
    "md_us_per_atom_step": "MD cost (µs/atom/step)",
    "energy_before": "energy before (meV/atom)",
    "energy_after": "energy after (meV/atom)",
    "force_before": "force before (meV/Å)",
    "force_after": "force after (meV/Å)",
    "energy_at_smallest": "its energy (meV/atom)",
    "energy_at_largest": "its energy (meV/atom)",
    "energy_factor": "energy, after/before",
    "force_factor": "force, after/before",
    "smallest_to_largest": "energy, smallest/largest w_E/w_F",
    "smallest": "factor at the smallest 2Jmax",
    "largest": "factor at the largest 2Jmax",
    "both": "geometric mean of both errors",
    "both_to_lowest": "both errors, relative to the best",
    "energy_to_lowest": "energy, relative to the best",
    "force_to_lowest": "force, relative to the best",
    "energy_ratio": "energy, reference/own level",
    "force_ratio": "force, reference/own level",
    "factor_ratio": "ratio of both factors",
    "smallest_ratio": "smallest w_E/w_F",
    "largest_ratio": "largest w_E/w_F",
    "best_ratio": "best w_E/w_F",
    "best_energy": "its energy (meV/atom)",
    "lowest_energy": "lowest energy (meV/atom)",
    "lowest_force": "lowest force (meV/Å)",
    "cheapest_s": "cheapest (s)",
    "most_expensive_s": "most expensive (s)",
    "energy_from_s": "lowest energy from (s)",
    "energy_to_s": "lowest energy to (s)",
    "force_from_s": "lowest force from (s)",
    "force_to_s": "lowest force to (s)",
    "cutoff_ev": "cutoff (eV)",
    "kspacing_per_angstrom": "k-point spacing (1/Å)",
    "additive_rmsd": "energy RMSD of the sum of both errors (meV/atom)",
    "deviation": "deviation from the sum / RMSD",
    "n_labels": "complete labels",
    "n_incomplete": "incomplete labels",
    "mean_seconds": "mean cost (s)",
    "median_seconds": "median cost (s)",
    "n_configurations": "configurations",
    "n_left_out": "left out",
    "energy_rmsd": "energy RMSD, unshifted (meV/atom)",
    "energy_rmsd_bulk_shifted": "energy RMSD, shifted by the reference configuration (meV/atom)",
    "energy_rmsd_mean_shifted": "energy RMSD, shifted by the mean error (meV/atom)",
    "mean_energy_error": "mean energy error (meV/atom)",
    "force_rmsd": "force RMSD (meV/Å)",
    "energy_correlation": "rank correlation, energy error",
    "energy_p_value": "p-value, energy error",
    "n_energies": "energies",
    "n_forces": "forces",
    "force_correlation": "rank correlation, force RMSD",
    "force_p_value": "p-value, force RMSD",
}


def tabulate_errors(results: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    """Tabulate errors at the largest subset for every 2Jmax and w_E/w_F.

    The columns are those of Tables 4 and 5 of Baghishov et al., Digital Discovery (2025).

    Parameters
    ----------
    results : DataFrame, a row per fit
    levels : names in order of cost; the last is the reference

    Returns
    -------
    DataFrame, a row per (2Jmax, w_E/w_F, level): medians over repetitions in meV/atom and meV/Å, and the ends of 90 %
    intervals if the results have them.
    """
    rows = summaries.select_largest_subset(summaries.compute_medians(results, levels))
    columns = [
        "twojmax", "weight_ratio", "level", "n_train", "train_energy", "test_energy", "ref_energy",
        "ref_energy_shifted", "train_force", "test_force", "ref_force",
    ]  # fmt: skip
    level_rank = rows["level"].map({level: rank for rank, level in enumerate(levels)})
    table = rows.assign(_rank=level_rank).sort_values(["twojmax", "weight_ratio", "_rank"], ignore_index=True)
    return table[insert_intervals(columns, table)]


def insert_intervals(columns: Sequence[str], table: pd.DataFrame) -> list[str]:
    """List `columns`, each followed by the columns with the ends of its interval that `table` has."""
    names = (f"{column}{suffix}" for column in columns for suffix in ("", "_low", "_high"))
    return [name for name in names if name in columns or name in table]


def tabulate_front(front: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the points of the front in order of DFT cost and energy error, with w_E/w_F instead of the two weights.

    Parameters
    ----------
    front : DataFrame
        A row per point, with the columns `FRONT_COLUMNS`. Optional: ``point``, ``basis``, ``overall`` (whether the
        point is also on the front over all 2Jmax; shown as yes or no), ``p_front``, ``tied_with``, and the ends of
        intervals.
    """
    table = front.assign(weight_ratio=summaries.compute_weight_ratio(front), level=front["level"].astype(str))
    columns = [name for name in summaries.FRONT_COLUMNS if name not in ("w_energy", "w_force")]
    columns.insert(columns.index("n_train") + 1, "weight_ratio")
    if "overall" in front.columns:
        columns.append("overall")
        table["overall"] = table["overall"].map({True: "yes", False: "no"})
    leading_columns = [name for name in (BASIS_COLUMN, "point") if name in front.columns]
    last_columns = [name for name in ("p_front", "tied_with") if name in front.columns]
    columns = [*leading_columns, *columns, *last_columns]
    return table.sort_values(["label_seconds", "ref_energy"])[insert_intervals(columns, table)].reset_index(drop=True)


def tabulate_costs(results: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    """Tabulate the cost of a label at each level.

    The cost is the median of ``label_seconds`` / ``n_train`` over the settings of `select_largest_subset`.

    Parameters
    ----------
    results : DataFrame, a row per fit
    levels : names in order of cost; the last is the reference

    Returns
    -------
    DataFrame, a row per level: ``seconds_per_configuration`` (s), and ``relative_cost``, its ratio to the cost at the
    reference level (NaN if this is unknown).
    """
    rows = summaries.select_largest_subset(summaries.compute_medians(results, levels))
    unit_costs = (rows["label_seconds"] / rows["n_train"]).groupby(rows["level"]).median()
    table = pd.DataFrame({"level": [level for level in levels if level in unit_costs.index]})
    table["seconds_per_configuration"] = table["level"].map(unit_costs).astype(float)
    reference_cost = float(unit_costs.get(levels[-1], np.nan))
    table["relative_cost"] = table["seconds_per_configuration"] / (reference_cost if reference_cost > 0 else np.nan)
    return table


def format_heading(column: object) -> str:
    """Return the heading of a column with its unit; without an entry in `HEADINGS`, this is the name, as words."""
    name = str(column)
    return HEADINGS.get(name, name if " " in name else name.replace("_", " "))


def format_cell(column: object, value: object) -> str:
    """Format the value of a cell: floats with 3 significant digits, or 6 for weight ratios; others as `str` does."""
    if not isinstance(value, (float, np.floating)):
        return str(value)
    if str(column) in ("weight_ratio", "smallest_ratio", "largest_ratio", "best_ratio"):
        return format_ratio(float(value))
    return format_number(float(value))


def format_cells(table: pd.DataFrame) -> tuple[list[str], list[list[tuple[str, object]]]]:
    """Format a table for reading: a number and the ends of its interval (``_low``, ``_high``) share a cell.

    Returns
    -------
    headings : list of str
        Headings with units, and with the coverage of the intervals in the column.
    rows : list of list of (str, object)
        The text and the value of each cell; with an interval, the text is such as ``"28.1 (24–34.2)"``.
    """
    names = [str(name) for name in table.columns]
    possible_ends = {name: (f"{name}_low", f"{name}_high") for name in names}
    interval_columns = {name: ends for name, ends in possible_ends.items() if set(ends) <= set(names)}
    hidden_names = {end for ends in interval_columns.values() for end in ends}
    shown = [(position, name) for position, name in enumerate(names) if name not in hidden_names]
    note = f", {table.attrs.get(INTERVAL_ATTRIBUTE, DEFAULT_INTERVAL_PERCENT)} % interval"
    headings = [_insert_note(format_heading(name), note if name in interval_columns else "") for _, name in shown]
    positions = {name: position for position, name in enumerate(names)}
    rows: list[list[tuple[str, object]]] = []
    for values in table.itertuples(index=False, name=None):
        row: list[tuple[str, object]] = []
        for position, name in shown:
            text = format_cell(name, values[position])
            if name in interval_columns:
                text += format_interval(*(values[positions[end]] for end in interval_columns[name]))
            row.append((text, values[position]))
        rows.append(row)
    return headings, rows


def _insert_note(heading: str, note: str) -> str:
    """Insert a note between the name and the unit of a heading: ``"force, 90 % interval (meV/Å)"``."""
    name, bracket, unit = heading.partition(" (")
    return f"{name}{note}{bracket}{unit}"


def format_interval(low: float, high: float) -> str:
    """Format the ends of an interval as a suffix of a number, such as ``" (24–34.2)"``; empty if an end is unknown.

    >>> format_interval(24.0, 34.21), format_interval(float("nan"), 1.0)
    (' (24–34.2)', '')
    """
    return f" ({format_number(low)}–{format_number(high)})" if np.isfinite(low) and np.isfinite(high) else ""


def format_markdown(table: pd.DataFrame) -> str:
    """Format a table in Markdown, as `format_cells` does; | is escaped, and line breaks become blanks."""
    headings, rows = format_cells(table)
    lines = [headings, ["---"] * len(headings), *([text for text, _ in row] for row in rows)]
    escaped = [[text.replace("|", "\\|").replace("\n", " ") for text in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def write_table(folder: Path | str, name: str, table: pd.DataFrame) -> list[Path]:
    """Write ``folder/name.csv`` (full precision) and ``folder/name.md`` atomically, and return their paths."""
    paths = [Path(folder) / f"{name}.csv", Path(folder) / f"{name}.md"]
    write_csv(table, paths[0], digits=None)
    write_text(paths[1], format_markdown(table))
    return paths
