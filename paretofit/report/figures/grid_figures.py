"""Figures of levels on a grid of cutoffs and k-point spacings: heat maps, and convergence in each direction."""

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from paretofit.report.figures import style
from paretofit.report.wording import format_number

PANELS = {  # titles of the panels, by their column
    "energy_rmsd_mean_shifted": "energy (meV/atom)",
    "force_rmsd": "force (meV/Å)",
    "mean_seconds": "cost (s)",
}
ROUNDING_DECIMALS = 6  # rounds the errors of forces that are zero by symmetry to zero
DIRECTIONS = {  # labels of the axes of the grid, by their column
    "cutoff_ev": "cutoff (eV)",
    "kspacing_per_angstrom": "k-point spacing (1/Å)",
}
DARK_SHARE = 0.6  # share of the logarithmic colour range; numbers on darker cells are white


def plot_level_grid(grid: pd.DataFrame) -> np.ndarray:
    """Plot energy RMSD, force RMSD and mean cost over cutoff and k-point spacing, with the numbers in the cells.

    Parameters
    ----------
    grid : DataFrame, from `paretofit.report.findings.tabulate_grid`, the reference last

    Returns
    -------
    (3,) array of Axes
    """
    with style.use_publication_style():
        figure = Figure(figsize=(2 * style.COLUMN_WIDTH_IN, 2.2))
        axes = np.asarray(figure.subplots(1, len(PANELS), sharey=True))
        figure.subplots_adjust(left=0.09, right=0.99, bottom=0.2, top=0.88, wspace=0.06)
        for ax, (column, title) in zip(axes, PANELS.items(), strict=True):
            table = grid.pivot_table(index="kspacing_per_angstrom", columns="cutoff_ev", values=column)
            reference = tuple(grid[["kspacing_per_angstrom", "cutoff_ev"]].iloc[-1])
            cells = table.to_numpy().round(ROUNDING_DECIMALS)
            positive = cells[cells > 0]
            norm = LogNorm(positive.min(), positive.max()) if positive.size and np.ptp(positive) > 0 else None
            ax.imshow(np.where(cells > 0, cells, np.nan), norm=norm, cmap="cividis_r", aspect="auto", origin="lower")
            for (row, column_index), number in np.ndenumerate(cells):
                is_dark = norm is not None and number > 0 and norm(number) > DARK_SHARE
                is_reference = (table.index[row], table.columns[column_index]) == reference
                text = "reference" if is_reference and number == 0 else format_number(number)
                ax.text(column_index, row, text, ha="center", va="center", color="white" if is_dark else "black")
            ax.set_xticks(range(len(table.columns)), [f"{cutoff:g}" for cutoff in table.columns])
            ax.set_yticks(range(len(table.index)), [f"{spacing:g}" for spacing in table.index])
            ax.set(xlabel="cutoff (eV)", title=title)
            ax.grid(visible=False)
        axes[0].set_ylabel("k-point spacing (1/Å)")
    return axes


def plot_grid_convergence(grid: pd.DataFrame, configurations: pd.DataFrame) -> np.ndarray:
    """Plot the energy errors of each configuration against the cutoff and against the k-point spacing.

    In each of the two panels, the setting that is not on the axis is that of the reference. The mean over
    configurations is subtracted from the errors of a level, because a fit absorbs it; the remaining errors differ
    between structures (Fig. S1 of Baghishov et al., Digital Discovery (2025), doi 10.1039/d5dd00294j). The numbers
    above the axes are the root mean squares over configurations. Configurations that lack a label at any level are
    omitted.

    Parameters
    ----------
    grid : DataFrame, from `paretofit.report.findings.tabulate_grid`, the reference last
    configurations : DataFrame, `LevelErrors.configurations` of `paretofit.dataset.quality` (meV/atom)

    Returns
    -------
    (2,) array of Axes
    """
    errors = configurations.pivot_table(index="config_id", columns="level", values="energy_error").dropna()
    reference = grid.iloc[-1]
    # `configurations` has no rows for the reference, whose errors are zero by definition.
    errors = (errors - errors.mean()).assign(**{str(reference["level"]): 0.0})
    with style.use_publication_style():
        figure = Figure(figsize=(2 * style.COLUMN_WIDTH_IN, 2.3))
        axes = np.asarray(figure.subplots(1, 2))
        figure.subplots_adjust(left=0.1, right=0.98, bottom=0.19, top=0.84, wspace=0.25)
        for ax, (column, label), fixed_column in zip(axes, DIRECTIONS.items(), reversed(DIRECTIONS), strict=True):
            levels = grid[grid[fixed_column] == reference[fixed_column]]
            levels = levels.sort_values(column, ascending=column == "cutoff_ev")  # from coarse to fine
            level_errors = errors[levels["level"]].to_numpy().T  # (n_levels, n_configurations)
            positions = np.arange(len(levels))
            ax.plot(positions, level_errors, color=style.COLOURS[0], linewidth=0.6, alpha=0.5)
            for position, rms in zip(positions, np.sqrt((level_errors**2).mean(axis=1)), strict=True):
                ax.text(position, 1.03, format_number(rms), transform=ax.get_xaxis_transform(), ha="center")
            ax.set_xticks(positions, [f"{setting:g}" for setting in levels[column]])
            fixed_unit = "eV" if fixed_column == "cutoff_ev" else "1/Å"
            ax.set_title(f"at {reference[fixed_column]:g} {fixed_unit}", pad=14)
            ax.set(xlabel=label, xlim=(-0.15, len(levels) - 0.85))
        axes[0].set_ylabel("energy error (meV/atom)")
    return axes
