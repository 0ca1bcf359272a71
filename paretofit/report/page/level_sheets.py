"""DFT errors of the convergence levels in the report: figures with captions, tables with notes, and a summary.

All numbers come from the tables of `LevelErrors`, which compares labels; no model is fitted.
"""

from collections.abc import Iterator, Sequence

import pandas as pd

from paretofit.dataset.quality import LevelErrors
from paretofit.report.figures import level_figures
from paretofit.report.figures.drawing import FigurePlan
from paretofit.report.figures.grid_figures import plot_grid_convergence, plot_level_grid
from paretofit.report.findings import tabulate_grid
from paretofit.report.page.sweep_page import ReportTable
from paretofit.report.wording import (
    format_count_range,
    format_levels,
    format_number,
    format_signed,
    join_items,
    join_sentences,
)

TARGET_RMSD = 1.0  # meV/atom, "often regarded as a target for accurate MLIPs" (section 3.1 of the paper)
MAX_P_VALUE = 0.001  # a correlation with a larger p-value is not significant, and the summary does not list it
_MIN_RELATIVE_CHANGE = 0.05  # the summary says that a shift hardly changes the RMSD if the relative change is smaller
_PROPERTY_NAMES = {  # by the name in the column ``property`` of the correlations
    "shortest_vector": "the shortest cell vector",
    "n_kpoints": "the number of k-points",
    "largest_kspacing": "the largest k-point spacing",
    "atoms": "the number of atoms",
}


def plan_grid_figures(errors: LevelErrors) -> Iterator[FigurePlan]:
    """Plan the heat maps of the levels and the figure of the convergence with the cutoff and the k-point spacing.

    Nothing is yielded unless the levels form a grid of cutoffs and k-point spacings (see `tabulate_grid`).
    """
    grid = tabulate_grid(errors)
    if len(grid):
        yield FigurePlan(
            "level_grid", lambda: plot_level_grid(grid),
            lambda: "RMSD of energies (after subtracting the mean error) and forces against level "
            f"{errors.reference_level}, and mean cost of a label, by cutoff and k-point spacing.",
        )  # fmt: skip
        yield FigurePlan(
            "grid_convergence", lambda: plot_grid_convergence(grid, errors.configurations),
            lambda: f"Energy error per atom against level {errors.reference_level}, minus its mean over "
            "configurations, as a function of the cutoff (left) and of the k-point spacing (right). Each line is a "
            "configuration with labels at all levels; the numbers above the axes are root mean squares over these "
            "configurations.",
        )  # fmt: skip


def plan_level_figures(errors: LevelErrors, levels: Sequence[str]) -> Iterator[FigurePlan]:
    """Plan the figures of the DFT errors of the levels, with their captions.

    Parameters
    ----------
    errors : LevelErrors
    levels : names in order of cost; the last is the reference

    Yields
    ------
    FigurePlan
        The error of each level, the grid of levels if there is one, and four secondary figures.
    """
    points, forces, reference = errors.configurations, errors.forces, errors.reference_level
    colour = "The colour is the shortest cell vector over the periodic directions, on the same scale in all panels."
    yield FigurePlan(
        "level_rmsd", lambda: level_figures.plot_level_errors(errors.table, levels),
        lambda: f"Root mean square error of the labels of each level against level {reference}.", is_wide=False,
    )  # fmt: skip
    yield from plan_grid_figures(errors)
    yield FigurePlan(
        "level_energies", lambda: level_figures.plot_energy_parity(points, levels),
        lambda: f"Energy per atom at each level against level {reference}, and below it the error, level minus "
        f"reference, of {_count_points(points, 'configuration')}. {colour}"
        f"{_describe_medians('Rings: medians', points)}{_describe_limit(points, level_figures.MAX_PARITY_POINTS)}",
        is_secondary=True,
    )  # fmt: skip
    yield FigurePlan(
        "level_forces", lambda: level_figures.plot_force_parity(forces, levels),
        lambda: f"Force components at each level against level {reference}, and below them the errors, of "
        f"{_count_points(forces, 'component')}. {colour}"
        f"{_describe_medians('Rings: medians', forces)}{_describe_limit(forces, level_figures.MAX_PARITY_POINTS)}",
        is_secondary=True,
    )  # fmt: skip
    yield FigurePlan(
        "level_distributions", lambda: level_figures.plot_distributions(points, forces, levels),
        lambda: "Probability density of the energies per atom (Gaussian kernel, the same at every level) and of the "
        f"force components (counted in bins, logarithmic axis). {_describe_distributions(errors)}",
        is_secondary=True,
    )  # fmt: skip
    yield FigurePlan(
        "level_errors_by_vector", lambda: level_figures.plot_errors_by_vector(points, levels),
        lambda: f"Absolute energy error and force RMSD of a configuration against level {reference}, by its shortest "
        "cell vector. Forces that are zero by symmetry have no error and are outside the axes."
        f"{_describe_medians('Lines: medians', points)}"
        f"{_describe_limit(points, level_figures.MAX_SHARED_PANEL_POINTS)}",
        is_secondary=True,
    )  # fmt: skip


def build_level_tables(errors: LevelErrors, levels: Sequence[str]) -> Iterator[ReportTable]:
    """Build the tables of the DFT errors of the levels.

    Parameters
    ----------
    errors : LevelErrors
    levels : names in order of cost; the last is the reference

    Yields
    ------
    ReportTable
        Settings and cost of the levels; then, if there are levels besides the reference, their errors and the
        correlations of the errors.
    """
    names = format_levels(list(errors.settings["level"]))
    yield ReportTable(
        "Convergence levels", f"Settings and cost of {names}: {_describe_cost(errors)}", "level_settings",
        errors.settings,
    )  # fmt: skip
    if errors.table.empty:
        return
    yield ReportTable("DFT errors of the levels", _describe_error_table(errors, levels), "level_errors", errors.table)
    properties = errors.correlations["property"].map(lambda name: _PROPERTY_NAMES[name].removeprefix("the "))
    note = (
        "Spearman's rank correlation of the absolute energy error and of the force RMSD with the geometry and the "
        "k-point mesh of a configuration, at each level, and the p-value of no correlation; – if one of the two "
        "quantities does not vary. Forces that are zero by symmetry are omitted. The p-values assume independent "
        "configurations, and the four properties depend on each other."
    )
    yield ReportTable(
        "Correlations of the DFT errors", note, "level_correlations", errors.correlations.assign(property=properties)
    )


def describe_level_errors(errors: LevelErrors) -> str:
    """Summarise the errors of the levels, the effect of shifts, and correlations of the errors in a few sentences."""
    if errors.table.empty:
        return f"Level {errors.reference_level} is the only convergence level, so there are no DFT errors to compare."
    return join_sentences(
        _describe_errors(errors),
        _describe_reference_shift(errors),
        _describe_mean_shift(errors),
        _describe_correlations(errors.correlations, "energy", "The absolute energy error"),
        _describe_correlations(errors.correlations, "force", "The force RMSD"),
    )


def _count_points(points: pd.DataFrame, noun: str) -> str:
    """Format the range of the numbers of points of the levels, such as ``"238 to 240 configurations"``."""
    return format_count_range(points.groupby("level").size(), noun)


def _describe_limit(points: pd.DataFrame, max_points: int) -> str:
    """Describe the limit of the number of points; empty if all points are drawn."""
    is_limited = points.groupby("level").size().max() > max_points
    return f" At most {max_points:,} points are drawn for each level." if is_limited else ""


def _describe_medians(subject: str, points: pd.DataFrame) -> str:
    """Describe how the medians in a figure are computed; empty if there are too few points to draw medians."""
    has_medians = points.groupby("level").size().max() >= level_figures.MIN_MEDIAN_POINTS
    return (
        f" {subject} in equal intervals of at least {level_figures.MIN_INTERVAL_POINTS} points." if has_medians else ""
    )


def _describe_distributions(errors: LevelErrors) -> str:
    """Describe the range of the energies and the scatter of the force components at the reference level."""
    energies, forces = errors.configurations["reference_energy"], errors.forces["reference"]
    return (
        f"At level {errors.reference_level} the energies range from {format_signed(energies.min())} to "
        f"{format_signed(energies.max())} eV/atom, and the force components have a standard deviation of "
        f"{format_number(forces.std(ddof=0))} eV/Å and a maximum of {format_number(forces.abs().max())} eV/Å."
    )


def _describe_cost(errors: LevelErrors) -> str:
    """Describe how much more a label costs at the highest level than at the lowest, and the number of labels."""
    rows = errors.settings.dropna(subset=["mean_seconds"])
    if len(rows) < 2 or not rows["mean_seconds"].iloc[0] > 0:
        return "fewer than two levels have a recorded cost of labels."
    lowest, highest = rows.iloc[0], rows.iloc[-1]
    cost_ratio = format_number(highest["mean_seconds"] / lowest["mean_seconds"])
    counts = errors.settings["n_labels"]
    caveat = " The levels have labels of different configurations, so compare with care."
    if counts.min() == counts.max():
        caveat = ""
    return (
        f"a label at level {highest['level']} costs {cost_ratio} times as much as one at level {lowest['level']}, in "
        f"the mean of {format_count_range(counts, 'complete label')}.{caveat}"
    )


def _describe_error_table(errors: LevelErrors, levels: Sequence[str]) -> str:
    """Describe what the errors are measured against, the shifts, and the configurations that were omitted."""
    shift = "No configuration is labelled at every level, so there is no reference configuration for a shift."
    if errors.reference_configuration is not None:
        shift = (
            "The shift by the reference configuration subtracts the error of configuration "
            f"{errors.reference_configuration} ({errors.reference_formula})."
        )
    incomplete = errors.table.loc[errors.table["n_left_out"] > 0]
    omission = ""
    if len(incomplete):
        names = [level for level in levels if level in set(incomplete["level"])]
        count = format_count_range(incomplete["n_left_out"], "configuration")
        omission = (
            f"At {format_levels(names)}, {count} of the dataset are left out, because their label at this level or at "
            "the reference level is missing or incomplete."
        )
    return join_sentences(
        f"Root mean square differences from level {errors.reference_level}; errors are level minus reference.",
        shift,
        "The shift by the mean error depends on the dataset.",
        omission,
    )


def _describe_errors(errors: LevelErrors) -> str:
    """List the RMSDs from the lowest to the highest level, and the levels with an energy RMSD below `TARGET_RMSD`."""
    table = errors.table
    energies, forces = (join_items(map(format_number, table[name])) for name in ("energy_rmsd", "force_rmsd"))
    below = list(table.loc[table["energy_rmsd"] < TARGET_RMSD, "level"])
    subject = "no energy RMSD is" if len(table) > 1 else "the energy RMSD is not"
    if below:
        subject = f"the energy RMSD of {format_levels(below)} is"
    verb = "differs" if len(table) == 1 else "differ"
    return (
        f"Against level {errors.reference_level}, {format_levels(list(table['level']))} {verb} by {energies} meV/atom "
        f"in energy and {forces} meV/Å in force (RMSD over "
        f"{format_count_range(table['n_configurations'], 'configuration')}); {subject} below "
        f"{format_number(TARGET_RMSD)} meV/atom."
    )


def _describe_reference_shift(errors: LevelErrors) -> str:
    """Describe at which levels subtracting the error of the reference configuration lowers the energy error."""
    table = errors.table
    if errors.reference_configuration is None:
        return ""
    ratio = (table["energy_rmsd_bulk_shifted"] / table["energy_rmsd"]).set_axis(table["level"]).dropna()
    worse, better = ratio[ratio > 1 + _MIN_RELATIVE_CHANGE], ratio[ratio < 1 - _MIN_RELATIVE_CHANGE]
    unchanged = ratio[(ratio - 1).abs() <= _MIN_RELATIVE_CHANGE]
    effects = []
    if len(worse):
        effects.append(f"raises that of {format_levels(list(worse.index))} (up to {format_number(worse.max())} times)")
    if len(better):
        effects.append(
            f"lowers that of {format_levels(list(better.index))} (down to {format_number(better.min())} times)"
        )
    if len(unchanged):
        effects.append(f"hardly changes that of {format_levels(list(unchanged.index))}")
    if not effects:
        return ""
    effects[0] = effects[0].replace("that of", "the energy RMSD of")  # to which "that" in the other effects refers
    return (
        f"The shift by the reference configuration {errors.reference_configuration} ({errors.reference_formula}) "
        f"{join_items(effects)}."
    )


def _describe_mean_shift(errors: LevelErrors) -> str:
    """Describe the largest share, over all levels, of a constant offset in the mean square energy error."""
    table = errors.table[errors.table["energy_rmsd"] > 0].set_index("level")
    if table.empty:
        return ""
    # The mean square error is the square of the mean error plus the variance.
    share = (table["mean_energy_error"] / table["energy_rmsd"]) ** 2
    return (
        f"A constant offset makes up at most {format_number(100 * share.max(), 2)} % of the mean square energy error "
        f"(level {share.idxmax()})."
    )


def _describe_correlations(correlations: pd.DataFrame, kind: str, subject: str) -> str:
    """Describe the property with which an error correlates most strongly at each level with a significant correlation.

    Parameters
    ----------
    correlations : DataFrame
        Table of `LevelErrors`.
    kind : {"energy", "force"}
        Kind of the error.
    subject : str
        Subject of the sentence, which names the error.
    """
    rows = correlations[correlations[f"{kind}_p_value"].notna()]
    significant = rows[rows[f"{kind}_p_value"] < MAX_P_VALUE]
    other_levels = [level for level in dict.fromkeys(rows["level"]) if level not in set(significant["level"])]
    if significant.empty:
        names = join_items(_PROPERTY_NAMES.values())
        return f"{subject} has no significant correlation (p < {MAX_P_VALUE:g}) with {names}." if other_levels else ""
    strength = significant[f"{kind}_correlation"].abs()
    strongest = significant.loc[strength.groupby(significant["level"], sort=False).idxmax()]
    property_texts = [
        f"{_PROPERTY_NAMES[str(name)]} at {format_levels(list(group['level']))} "
        f"(ρ = {join_items(format_signed(value, 2) for value in group[f'{kind}_correlation'])})"
        for name, group in strongest.groupby("property", sort=False)
    ]
    exception = ""
    if other_levels:
        exception = f"; at {format_levels(other_levels)} no correlation is significant (p < {MAX_P_VALUE:g})"
    return f"{subject} correlates most strongly with {join_items(property_texts)}{exception}."
