"""Heat maps of the errors and costs of levels on a grid of cutoffs and k-point spacings."""

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
