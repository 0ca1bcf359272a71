"""Figures of levels on a grid of cutoffs and k-point spacings: heat maps, and convergence in each direction."""

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from paretofit.report.figures import style
from paretofit.report.wording import format_number

PANELS = {
    "energy_rmsd_mean_shifted": "energy (meV/atom)",
    "force_rmsd": "force (meV/Å)",
    "mean_seconds": "cost (s)",
}
ROUNDING_DECIMALS = 6  # forces that are zero by symmetry have rounding errors
DIRECTIONS = {"cutoff_ev": "cutoff (eV)", "kspacing_per_angstrom": "k-point spacing (1/Å)"}
DARK_SHARE = 0.6  # of the logarithmic range; numbers on darker cells are white


def plot_level_grid(grid: pd.DataFrame) -> np.ndarray:
    """Plot energy RMSD, force RMSD and mean cost over cutoff and k-point spacing, with the numbers in the cells.

    Parameters
    ----------
    grid : DataFrame, from `paretofit.report.findings.tabulate_grid`, the reference last

    Returns
    -------
    (3,) array of Axes
    """
    with style.publication_style():
        figure = Figure(figsize=(2 * style.COLUMN_WIDTH_IN, 2.2))
        axes = np.asarray(figure.subplots(1, len(PANELS), sharey=True))
        figure.subplots_adjust(left=0.09, right=0.99, bottom=0.2, top=0.88, wspace=0.06)
        for ax, (column, title) in zip(axes, PANELS.items(), strict=True):
            table = grid.pivot_table(index="kspacing_per_angstrom", columns="cutoff_ev", values=column)
            reference = tuple(grid[["kspacing_per_angstrom", "cutoff_ev"]].iloc[-1])
            values = table.to_numpy().round(ROUNDING_DECIMALS)
            positive = values[values > 0]
            norm = LogNorm(positive.min(), positive.max()) if positive.size and np.ptp(positive) > 0 else None
            ax.imshow(np.where(values > 0, values, np.nan), norm=norm, cmap="cividis_r", aspect="auto", origin="lower")
            for (row, position), value in np.ndenumerate(values):
                is_dark = norm is not None and value > 0 and norm(value) > DARK_SHARE
                is_reference = (table.index[row], table.columns[position]) == reference
                text = "reference" if is_reference and value == 0 else format_number(value)
                ax.text(position, row, text, ha="center", va="center", color="white" if is_dark else "black")
            ax.set_xticks(range(len(table.columns)), [f"{cutoff:g}" for cutoff in table.columns])
            ax.set_yticks(range(len(table.index)), [f"{spacing:g}" for spacing in table.index])
            ax.set(xlabel="cutoff (eV)", title=title)
            ax.grid(visible=False)
        axes[0].set_ylabel("k-point spacing (1/Å)")
    return axes


def plot_grid_convergence(grid: pd.DataFrame, configurations: pd.DataFrame) -> np.ndarray:
    """Plot the energy errors of each configuration against the cutoff at the densest mesh, and against the mesh.

    The mean over configurations is subtracted, as a fit absorbs it; what remains differs between structures (Fig. S1 of
    Baghishov et al., Digital Discovery (2025), doi 10.1039/d5dd00294j). Numbers are the root mean squares.

    Parameters
    ----------
    grid : DataFrame, from `paretofit.report.findings.tabulate_grid`, the reference last
    configurations : DataFrame, the attribute of `paretofit.dataset.quality.LevelErrors`

    Returns
    -------
    (2,) array of Axes
    """
    errors = configurations.pivot_table(index="config_id", columns="level", values="energy_error").dropna()
    reference = grid.iloc[-1]
    errors = (errors - errors.mean()).assign(**{str(reference["level"]): 0.0})
    with style.publication_style():
        figure = Figure(figsize=(2 * style.COLUMN_WIDTH_IN, 2.3))
        axes = np.asarray(figure.subplots(1, 2))
        figure.subplots_adjust(left=0.1, right=0.98, bottom=0.19, top=0.84, wspace=0.25)
        for ax, (column, label), other in zip(axes, DIRECTIONS.items(), reversed(DIRECTIONS), strict=True):
            levels = grid[grid[other] == reference[other]].sort_values(column, ascending=column == "cutoff_ev")
            values = errors[levels["level"]].to_numpy().T
            positions = np.arange(len(levels))
            ax.plot(positions, values, color=style.COLOURS[0], linewidth=0.6, alpha=0.5)
            for position, root in zip(positions, np.sqrt((values**2).mean(axis=1)), strict=True):
                ax.text(position, 1.03, format_number(root), transform=ax.get_xaxis_transform(), ha="center")
            ax.set_xticks(positions, [f"{value:g}" for value in levels[column]])
            ax.set_title(f"at {reference[other]:g} {'1/Å' if other.startswith('k') else 'eV'}", pad=14)
            ax.set(xlabel=label, xlim=(-0.15, len(levels) - 0.85))
        axes[0].set_ylabel("energy error (meV/atom)")
    return axes
