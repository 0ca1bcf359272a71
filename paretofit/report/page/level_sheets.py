"""What the report says of the DFT errors themselves: figures with captions, tables with notes, and the gist in words.

Every number in a sentence is computed from the tables of `LevelErrors`, and nothing is drawn or fitted here.
"""

from collections.abc import Iterator, Sequence

import pandas as pd

from paretofit.dataset.quality import LevelErrors
from paretofit.report.figures import level_figures
from paretofit.report.figures.drawing import FigurePlan
from paretofit.report.page.sweep_page import ReportTable
from paretofit.report.wording import format_count, format_levels, format_number, join_items

TARGET = 1.0  # meV/atom, "often regarded as a target for accurate MLIPs" (section 3.1 of the paper)
CLEAR = 0.001  # p-value below which a correlation is named
_SAME = 0.05  # a shift that changes the RMSD by less than this share neither helps nor harms
_NAMES = {
    "shortest_vector": "the shortest cell vector",
    "n_kpoints": "the number of k-points",
    "largest_kspacing": "the largest k-point spacing",
    "atoms": "the number of atoms",
}


def plan_level_figures(errors: LevelErrors, levels: Sequence[str]) -> Iterator[FigurePlan]:
    """The figures of the error analysis.

    Parameters
    ----------
    errors : LevelErrors
    levels : names by cost, the last is the reference

    Yields
    ------
    FigurePlan
    """
    points, forces = errors.configurations, errors.forces
    colour = "Colour: the shortest cell vector over the periodic directions, the same scale in all panels."

    yield FigurePlan(
        "level_energies", lambda: level_figures.plot_energy_parity(points, levels),
        lambda: f"Energy per atom at each level against level {errors.reference_level}, and below it the error, level minus "
        f"reference, of {_span(points.groupby('level').size(), 'configuration')}. {colour}"
        f"{_median('Rings: medians', points)}{_drawn(points, level_figures.MAX_PARITY_POINTS)}",
    )  # fmt: skip
    yield FigurePlan(
        "level_forces", lambda: level_figures.plot_force_parity(forces, levels),
        lambda: f"Force components at each level against level {errors.reference_level}, and below them the errors, of "
        f"{_span(forces.groupby('level').size(), 'component')}. {colour}"
        f"{_median('Rings: medians', forces)}{_drawn(forces, level_figures.MAX_PARITY_POINTS)}",
    )  # fmt: skip
    yield FigurePlan(
        "level_distributions", lambda: level_figures.plot_distributions(points, forces, levels),
        lambda: "Probability density of the energies per atom (Gaussian kernel, the same at every level) and of the "
        f"force components (counted in bins, logarithmic axis). {_moments(errors)}",
    )  # fmt: skip
    yield FigurePlan(
        "level_errors_by_vector", lambda: level_figures.plot_errors_by_vector(points, levels),
        lambda: f"Size of the energy error and force RMSD of a configuration against level {errors.reference_level}, by its "
        "shortest cell vector. Forces that are zero by symmetry have no error and lie outside."
        f"{_median('Lines: medians', points)}{_drawn(points, level_figures.MAX_SHARED_PANEL_POINTS)}",
    )  # fmt: skip


def build_level_tables(errors: LevelErrors, levels: Sequence[str]) -> Iterator[ReportTable]:
    """The tables of the error analysis: settings and cost, errors, and what the errors go with.

    Parameters
    ----------
    errors : LevelErrors
    levels : names by cost, the last is the reference

    Yields
    ------
    Sheet
    """
    yield ReportTable(
        "Convergence levels", f"Settings and cost of {format_levels(list(errors.settings['level']))}: {_cost(errors)}",
        "level_settings", errors.settings,
    )  # fmt: skip
    if errors.table.empty:
        return
    yield ReportTable("DFT errors of the levels", _errors_note(errors, levels), "level_errors", errors.table)
    names = errors.correlations["property"].map(lambda name: _NAMES[name].removeprefix("the "))
    note = (
        "Spearman's rank correlation of the size of the energy error and of the force RMSD of a configuration with "
        "its geometry and its k-point mesh at that level, and the p-value of no correlation; – where one side does "
        "not vary. Forces that are zero by symmetry are left out. The p-values take the configurations for "
        "independent, and the four properties depend on one another."
    )
    yield ReportTable(
        "What the DFT errors go with", note, "level_correlations", errors.correlations.assign(property=names)
    )


def describe_level_errors(errors: LevelErrors) -> str:
    """Two to four sentences: which levels are good, whether a shift helps, and what the errors go with."""
    if errors.table.empty:
        return f"Level {errors.reference_level} is the only convergence level, so there are no DFT errors to compare."
    sentences = [_size(errors), _bulk_shift(errors), _mean_shift(errors), _correlated(errors)]
    return " ".join(part for part in sentences if part)


def _span(sizes: "pd.Series[int]", noun: str) -> str:
    low, high = int(sizes.min()), int(sizes.max())
    return format_count(high, noun) if low == high else f"{low:,} to {format_count(high, noun)}"


def _drawn(points: pd.DataFrame, most: int) -> str:
    """The sentence on the points that are drawn, where these are not all."""
    return f" Of each level at most {most:,} points are drawn." if points.groupby("level").size().max() > most else ""


def _median(what: str, points: pd.DataFrame) -> str:
    """The sentence on the medians, where there are points enough to draw them."""
    enough = points.groupby("level").size().max() >= level_figures.MIN_MEDIAN_POINTS
    return f" {what} in equal intervals of at least {level_figures.MIN_INTERVAL_POINTS} points." if enough else ""


def _moments(errors: LevelErrors) -> str:
    """What the reference's distributions span, in a sentence."""
    energies, forces = errors.configurations["reference_energy"], errors.forces["reference"]
    return (
        f"At level {errors.reference_level} the energies run from {_signed(energies.min())} to {_signed(energies.max())} "
        f"eV/atom, and the force components have a standard deviation of {format_number(forces.std(ddof=0))} eV/Å and reach "
        f"{format_number(forces.abs().max())} eV/Å."
    )


def _cost(errors: LevelErrors) -> str:
    """How the mean cost grows over the levels, and how many labels it is a mean of."""
    known = errors.settings.dropna(subset=["mean_seconds"])
    if len(known) < 2 or not known["mean_seconds"].iloc[0] > 0:
        return "the cost of the labels is not recorded at two levels."
    first, last = known.iloc[0], known.iloc[-1]
    counts = errors.settings["n_labels"]
    apart = (
        ""
        if counts.min() == counts.max()
        else " The levels have labels of different configurations, so compare with care."
    )
    return (
        f"a label at level {last['level']} costs {format_number(last['mean_seconds'] / first['mean_seconds'])} times as much "
        f"as one at level {first['level']}, in the mean of {_span(counts, 'complete label')}.{apart}"
    )


def _errors_note(errors: LevelErrors, levels: Sequence[str]) -> str:
    """How the table is made: the reference, the bulk configuration, and what was left out."""
    if errors.reference_configuration is None:
        shift = "No configuration is labelled at every level, so there is no bulk shift."
    else:
        shift = f"The bulk shift takes off the error of configuration {errors.reference_configuration} ({errors.reference_formula})."
    left = errors.table.loc[errors.table["n_left_out"] > 0]
    missing = ""
    if len(left):
        names = [level for level in levels if level in set(left["level"])]
        missing = (
            f" At {format_levels(names)}, {_span(left['n_left_out'], 'configuration')} of the dataset are left out, "
            "because a label is missing or incomplete at that level or at the reference."
        )
    return (
        f"Root mean square differences from level {errors.reference_level}; errors are level minus reference. {shift} The "
        f"mean shift takes off the mean error, which depends on the dataset.{missing}"
    )


def _size(errors: LevelErrors) -> str:
    """RMSDs from the lowest to the highest level, and which of them are below the target."""
    table = errors.table
    energies, forces = (
        join_items(format_number(value) for value in table[name]) for name in ("energy_rmsd", "force_rmsd")
    )
    below = list(table.loc[table["energy_rmsd"] < TARGET, "level"])
    verdict = "none of them is" if len(table) > 1 else "the energy is not"
    if below:
        verdict = f"{format_levels(below)} {'is' if len(below) == 1 else 'are'}"
    return (
        f"Against level {errors.reference_level}, {format_levels(list(table['level']))} differ{_s(table)} by {energies} "
        f"meV/atom in energy and {forces} meV/Å in force (RMSD over "
        f"{_span(table['n_configurations'], 'configuration')}); {verdict} below {format_number(TARGET)} meV/atom."
    )


def _s(table: pd.DataFrame) -> str:
    return "s" if len(table) == 1 else ""


def _bulk_shift(errors: LevelErrors) -> str:
    """Whether taking off the bulk configuration's error brings the energies closer."""
    table = errors.table
    if errors.reference_configuration is None:
        return ""
    ratio = (table["energy_rmsd_bulk_shifted"] / table["energy_rmsd"]).set_axis(table["level"]).dropna()
    worse, better, same = ratio[ratio > 1 + _SAME], ratio[ratio < 1 - _SAME], ratio[(ratio - 1).abs() <= _SAME]
    said = []
    if len(worse):
        said.append(
            f"raises the energy RMSD of {format_levels(list(worse.index))} (up to {format_number(worse.max())} times)"
        )
    if len(better):
        said.append(f"lowers that of {format_levels(list(better.index))} (down to {format_number(better.min())} times)")
    if len(same):
        said.append(f"hardly changes that of {format_levels(list(same.index))}")
    if not said:
        return ""
    said[0] = said[0].replace("that of", "the energy RMSD of")
    return f"Shifting by the bulk configuration {errors.reference_configuration} ({errors.reference_formula}) {join_items(said)}."


def _mean_shift(errors: LevelErrors) -> str:
    """How much of the energy error is a constant."""
    table = errors.table[errors.table["energy_rmsd"] > 0]
    if table.empty:
        return ""
    share = ((table["mean_energy_error"] / table["energy_rmsd"]) ** 2).to_numpy(float)
    most = int(share.argmax())
    return (
        f"A constant offset makes up at most {format_number(100 * share[most], 2)} % of the mean square energy error "
        f"(level {table['level'].iloc[most]})."
    )


def _correlated(errors: LevelErrors) -> str:
    """The property that each level's errors go with most, where that is clear."""
    parts = [
        _strongest(errors.correlations, "energy", "The size of the energy error"),
        _strongest(errors.correlations, "force", "The force RMSD"),
    ]
    return " ".join(part for part in parts if part)


def _strongest(correlations: pd.DataFrame, which: str, subject: str) -> str:
    known = correlations[correlations[f"{which}_p_value"].notna()]
    clear = known[known[f"{which}_p_value"] < CLEAR]
    rest = [level for level in dict.fromkeys(known["level"]) if level not in set(clear["level"])]
    if clear.empty:
        return f"{subject} goes clearly (p < {CLEAR:g}) with none of {join_items(_NAMES.values())}." if rest else ""
    size = clear[f"{which}_correlation"].abs()
    top = clear.loc[size.groupby(clear["level"], sort=False).idxmax()]
    said = [
        f"{_NAMES[str(name)]} at {format_levels(list(rows['level']))} "
        f"(ρ = {join_items(_signed(value, 2) for value in rows[f'{which}_correlation'])})"
        for name, rows in top.groupby("property", sort=False)
    ]
    without = f", and clearly (p < {CLEAR:g}) with nothing at {format_levels(rest)}" if rest else ""
    return f"{subject} goes most with {join_items(said)}{without}."


def _signed(value: float, digits: int = 3) -> str:
    """A number with a minus sign in place of a hyphen."""
    return format_number(value, digits).replace("-", "−")
