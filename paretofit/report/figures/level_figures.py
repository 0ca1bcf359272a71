"""Figures of the DFT errors of every convergence level against the reference, without any fit.

Each function draws tables of `paretofit.dataset.quality.LevelErrors` and returns the axes. Because errors are small
compared with the range of the labels, a panel with the errors is below each parity panel. To keep vector files small,
points are rasterised, and only a limited number is drawn. Limits, medians and counts include all points. A function
raises `CannotDrawError` if there is nothing to compare.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from paretofit.dataset.quality import MIN_FORCE_RMSD_MEV_PER_ANGSTROM
from paretofit.report.figures import axes as axes_tools
from paretofit.report.figures import style
from paretofit.report.figures.style import CannotDrawError
from paretofit.report.wording import format_number

VECTOR_LABEL = "shortest cell vector (Å)"
# Points that are farther from the central 99 % of the values than this, in units of their range, are outside the axes.
_MAX_DISTANCE = 1.0
_N_INTERVALS = 14  # number of intervals of the x axis for medians
MAX_PARITY_POINTS = 15_000  # points drawn in a parity panel
MAX_LINEAR_RATIO = 5.0  # ratio of the largest to the smallest error on a linear axis
MAX_SHARED_PANEL_POINTS = 1_000  # points drawn for each level in a panel with all levels
MIN_INTERVAL_POINTS = 5  # points in an interval required for a median
MIN_MEDIAN_POINTS = MIN_INTERVAL_POINTS * _N_INTERVALS  # points of a level required for medians
_N_GRID_POINTS = 400  # number of points of a density curve
_N_BINS = 61  # odd, so that zero force is in the centre of a bin
_MAX_FORCE_RATIO = 1.6  # limit of the force axis relative to the largest force at the reference level
_N_COLOURS = 20  # number of colours of the colour bar
_MEDIAN_STYLE: dict[str, Any] = {
    "color": "black", "marker": "o", "markersize": 2.6, "markerfacecolor": "white", "markeredgewidth": 0.8,
    "linewidth": 0.9,
}  # fmt: skip
# Without antialiasing, images in vector files are only a third as large, and look the same in print.
_POINT_STYLE: dict[str, Any] = {"linewidths": 0, "rasterized": True, "zorder": 2, "antialiased": False}


def plot_level_errors(table: pd.DataFrame, levels: Sequence[str]) -> np.ndarray:
    """Plot the energy and force RMSD of the labels of each level against the reference.

    Parameters
    ----------
    table : DataFrame, a row per level below the reference: level, energy_rmsd (meV/atom), force_rmsd (meV/Å)
    levels : names in order of cost; the last is the reference

    Returns
    -------
    (2,) array of Axes
    """
    if table.empty:
        raise CannotDrawError("There is only one level, so its labels cannot be compared.")
    with style.use_publication_style():
        figure = Figure(figsize=(style.COLUMN_WIDTH_IN, 1.9))
        axes = np.asarray(figure.subplots(1, 2))
        figure.subplots_adjust(left=0.17, right=0.98, bottom=0.24, top=0.95, wspace=0.62)
        for ax, column, label in zip(
            axes, ("energy_rmsd", "force_rmsd"), ("energy RMSD (meV/atom)", "force RMSD (meV/Å)"), strict=True
        ):
            names = table["level"].astype(str)
            ax.bar(names, table[column], color=[style.get_level_colour(name, levels) for name in names], width=0.65)
            values = table[column].to_numpy(dtype=float)
            positive = values[values > 0]
            if positive.size and positive.max() > MAX_LINEAR_RATIO * positive.min():
                ax.set(yscale="log", ylim=(positive.min() / 2, positive.max() * 1.6))
            ax.set(xlabel="level", ylabel=label)
            ax.tick_params(axis="x", rotation=45 if names.str.len().max() > 6 else 0)
            ax.grid(visible=False, axis="x")
    return axes


def plot_energy_parity(configurations: pd.DataFrame, levels: Sequence[str]) -> np.ndarray:
    """Plot energies per atom at each level against the reference, and the errors, coloured by shortest cell vector.

    Parameters
    ----------
    configurations : DataFrame, `LevelErrors.configurations` (eV/atom, meV/atom, Å)
    levels : names in order of cost; the last is the reference

    Returns
    -------
    (n_compared_levels, 2) array of Axes, in the order of `levels` without the reference: parity, error
    """
    points = configurations.rename(columns={"reference_energy": "x", "energy": "y", "energy_error": "error"})
    return _plot_parity(points, levels, "energy", ("eV/atom", "meV/atom"))


def plot_force_parity(forces: pd.DataFrame, levels: Sequence[str]) -> np.ndarray:
    """Plot force components at each level against the reference, and the errors, coloured by shortest cell vector.

    Parameters
    ----------
    forces : DataFrame, `LevelErrors.forces` (eV/Å, Å)
    levels : names in order of cost; the last is the reference

    Returns
    -------
    (n_compared_levels, 2) array of Axes, in the order of `levels` without the reference: parity, error
    """
    points = forces.rename(columns={"reference": "x", "force": "y"})
    points["error"] = 1000 * (points["y"] - points["x"])
    return _plot_parity(points, levels, "force", ("eV/Å", "meV/Å"))


def plot_distributions(configurations: pd.DataFrame, forces: pd.DataFrame, levels: Sequence[str]) -> np.ndarray:
    """Plot the distributions of energies per atom and force components at each level; the reference line is thick.

    Energies are smoothed with a Gaussian kernel of the same width at every level. Forces are counted in bins, and
    their axis is logarithmic.

    Parameters
    ----------
    configurations, forces : DataFrame, as in `LevelErrors` (eV/atom, eV/Å)
    levels : names in order of cost; the last is the reference

    Returns
    -------
    (2,) array of Axes: energies, forces
    """
    compared_levels = _list_compared_levels(configurations, levels)
    energies = _group_values(configurations, "energy", compared_levels, levels[-1], "reference_energy")
    components = _group_values(forces, "force", compared_levels, levels[-1], "reference")
    with style.use_publication_style():
        axes = style.create_panels(2)
        _draw_densities(axes[0], energies, levels)
        _draw_histograms(axes[1], components, levels)
        axes[0].set(xlabel="energy (eV/atom)", ylabel="probability density (atom/eV)")
        axes[1].set(xlabel="force component (eV/Å)", ylabel="probability density (Å/eV)")
        handles = [_build_line_handle(level, levels) for level in [*compared_levels, levels[-1]]]
        style.add_legend_below(axes, handles, min(len(handles), 6))
    return axes


def plot_errors_by_vector(configurations: pd.DataFrame, levels: Sequence[str]) -> np.ndarray:
    """Plot absolute energy error and force RMSD against the shortest cell vector, with medians of each level.

    Parameters
    ----------
    configurations : DataFrame, `LevelErrors.configurations` (meV/atom, meV/Å, Å)
    levels : names in order of cost; the last is the reference

    Returns
    -------
    (2,) array of Axes: energies, forces
    """
    compared_levels = _list_compared_levels(configurations, levels)
    rows = configurations[configurations["shortest_vector"].notna()]
    if rows["shortest_vector"].nunique() < 2:
        raise CannotDrawError("The configurations do not differ in their shortest cell vector.")
    energy, force = rows["energy_error"].abs(), rows["force_rmsd"]
    with style.use_publication_style():
        axes = style.create_panels(2)
        labels = ("absolute energy error (meV/atom)", "force RMSD (meV/Å)")
        for ax, values, label in zip(axes, (energy, force), labels, strict=True):
            _draw_by_vector(ax, rows.assign(value=values), compared_levels, levels)
            ax.set(xlabel=VECTOR_LABEL, ylabel=label)
        handles = style.build_level_handles(levels, compared_levels, compared_levels)
        style.add_legend_below(axes, handles, min(len(handles), 6))
    return axes


def _list_compared_levels(points: pd.DataFrame, levels: Sequence[str]) -> list[str]:
    """List the levels below the reference that have points, in order of cost; raise `CannotDrawError` if none has."""
    names = set(points["level"])
    compared_levels = [level for level in levels[:-1] if level in names]
    if not compared_levels:
        raise CannotDrawError("There is only one convergence level, so there is nothing to compare.")
    return compared_levels


def _group_values(
    points: pd.DataFrame, column: str, compared_levels: Sequence[str], reference: str, reference_column: str
) -> dict[str, np.ndarray]:
    """Group the values of a column by level, and add those of the reference level from `reference_column`.

    The rows of every level repeat the values of the reference level, which are read once for each configuration.
    """
    is_first_level = points["level"] == points.groupby("config_id")["level"].transform("first")
    values = {level: points.loc[points["level"] == level, column].to_numpy(float) for level in compared_levels}
    return {**values, reference: points.loc[is_first_level, reference_column].to_numpy(float)}


def _plot_parity(points: pd.DataFrame, levels: Sequence[str], quantity: str, units: tuple[str, str]) -> np.ndarray:
    """Plot the columns y and error of `points` against x for each level; `units` are those of x and y, and of error."""
    compared_levels = _list_compared_levels(points, levels)
    with style.use_publication_style():
        axes = _create_panel_pairs(len(compared_levels))
        norm = _choose_vector_norm(points["shortest_vector"].to_numpy(float))
        for (parity_ax, error_ax), level in zip(axes, compared_levels, strict=True):
            rows = points[points["level"] == level]
            rows = rows.iloc[np.random.default_rng(0).permutation(len(rows))]  # so that no colour hides all others
            x, errors = rows["x"].to_numpy(float), rows["error"].to_numpy(float)
            _draw_points(parity_ax, x, rows["y"].to_numpy(float), rows, norm)
            _draw_points(error_ax, x, errors, rows, norm)
            parity_ax.axline((0, 0), slope=1, color="black", linewidth=0.6, zorder=1)
            error_ax.axhline(0, color="black", linewidth=0.6, zorder=1)
            _draw_medians(error_ax, x, errors, **_MEDIAN_STYLE)
            _add_title(parity_ax, level, levels, f"RMSD {format_number(np.sqrt(np.mean(errors**2)))} {units[1]}")
            parity_ax.set_ylabel(f"{quantity} ({units[0]})")
            error_ax.set_ylabel(f"error ({units[1]})")
            error_ax.set_xlabel(f"{quantity} at level {style.escape_mathtext(levels[-1])} ({units[0]})")
            error_ax.figure.align_ylabels([parity_ax, error_ax])
        if norm is not None:
            _add_colour_bar(axes, norm)
    return axes


def _create_panel_pairs(count: int) -> np.ndarray:
    """Create pairs of panels with a common x axis, two pairs in a row; return ``(count, 2)`` Axes, upper first."""
    n_columns, n_rows = min(count, 2), (count + 1) // 2
    width = style.PAGE_WIDTH_IN if n_columns == 2 else style.COLUMN_WIDTH_IN
    figure = Figure(figsize=(width, 3.3 * n_rows + 0.5), layout="constrained")
    grid = figure.add_gridspec(2 * n_rows, n_columns, height_ratios=(3, 2) * n_rows)
    pairs = np.empty((count, 2), dtype=object)
    for index in range(count):
        row, column = 2 * (index // 2), index % 2
        upper = figure.add_subplot(grid[row, column])
        upper.tick_params(labelbottom=False)
        pairs[index] = upper, figure.add_subplot(grid[row + 1, column], sharex=upper)
    return pairs


def _add_colour_bar(axes: np.ndarray, norm: Normalize) -> None:
    """Add a colour bar of the shortest cell vector below the panels."""
    is_wide = len(axes) > 1
    style.get_parent_figure(axes).colorbar(
        ScalarMappable(norm, _create_colour_map()), ax=list(axes.flat), location="bottom", label=VECTOR_LABEL,
        extend="both", shrink=0.6 if is_wide else 0.9, aspect=45 if is_wide else 30, pad=0.02,
    )  # fmt: skip


def _create_colour_map() -> Colormap:
    """Create a colour map with few colours (for small files), without pale ones (hard to see on white)."""
    return ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.93, _N_COLOURS)))


def _choose_vector_norm(vectors: np.ndarray) -> Normalize | None:
    """Choose a colour norm for the central 98 % of lengths of vectors (Å); None if all are equal or unknown.

    The norm does not extend to the few longest cells, because most points would then have the same colour.
    """
    finite = vectors[np.isfinite(vectors)]
    if not finite.size or np.ptp(finite) < 1e-6:
        return None
    low, high = np.quantile(finite, (0.01, 0.99))
    return Normalize(float(low), float(high)) if high > low else Normalize(float(finite.min()), float(finite.max()))


def _draw_points(ax: Axes, x: np.ndarray, y: np.ndarray, rows: pd.DataFrame, norm: Normalize | None) -> None:
    """Draw points coloured by the shortest vector (grey if unknown), and note how many are outside the limits."""
    vectors = rows["shortest_vector"].to_numpy(float)
    has_colour = np.isfinite(vectors) & (norm is not None)
    size = _choose_marker_size(len(x))
    grey_indices, indices = (np.flatnonzero(mask)[:MAX_PARITY_POINTS] for mask in (~has_colour, has_colour))
    ax.scatter(x[grey_indices], y[grey_indices], s=size, color="#777777", **_POINT_STYLE)
    if indices.size:
        colours: dict[str, Any] = {"c": vectors[indices], "cmap": _create_colour_map(), "norm": norm}
        ax.scatter(x[indices], y[indices], s=size, **colours, **_POINT_STYLE)
    ax.set(xlim=_choose_limits(x), ylim=_choose_limits(y))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    axes_tools.annotate_outside(ax, x, y)


def _choose_marker_size(count: int) -> float:
    """Choose the area of a marker in points², smaller for larger numbers of points."""
    return 12.0 if count < 200 else 5.0 if count < 2000 else 2.5


def _choose_limits(values: np.ndarray) -> tuple[float, float]:
    """Choose limits for finite values, without those that are too far from the central 99 %; see `_MAX_DISTANCE`."""
    low, high = np.quantile(values, (0.005, 0.995))
    distance = _MAX_DISTANCE * (high - low)
    inliers = values[(values >= low - distance) & (values <= high + distance)]
    # Equal values have no range; the margin is then a share of their magnitude.
    margin = 0.05 * np.ptp(inliers) or 0.05 * max(abs(float(low)), 1e-3)
    return float(inliers.min() - margin), float(inliers.max() + margin)


def _add_title(ax: Axes, level: str, levels: Sequence[str], text: str) -> None:
    """Write the level and a text above the axes, after the marker of the level."""
    ax.set_title(f"     level {style.escape_mathtext(level)}: {text}", loc="left")  # the spaces are for the marker
    position = offset_copy(ax.transAxes, style.get_parent_figure(ax), x=5, y=9, units="points")
    ax.plot(
        0, 1, transform=position, clip_on=False, linestyle="none", markersize=5,
        marker=style.get_level_marker(level, levels), color=style.get_level_colour(level, levels),
    )  # fmt: skip


def _draw_medians(ax: Axes, x: np.ndarray, y: np.ndarray, **line_style: Any) -> None:
    """Draw medians of y in equal intervals of x, if there are enough points."""
    if len(x) < MIN_MEDIAN_POINTS:
        return
    # The factor 1 - 1e-9 puts the largest x into the last interval; a range of zero is replaced by 1.
    intervals = np.floor((x - x.min()) / (np.ptp(x) or 1.0) * _N_INTERVALS * (1 - 1e-9))
    grouped = pd.DataFrame({"x": x, "y": y}).groupby(intervals)
    medians = grouped.median()[grouped.size() >= MIN_INTERVAL_POINTS]
    empty_intervals = set(range(_N_INTERVALS)) - set(intervals)
    # empty intervals become NaN, which breaks the line; those with too few points are skipped
    medians = medians.reindex(sorted({*medians.index, *empty_intervals}))
    ax.plot(medians["x"].to_numpy(float), medians["y"].to_numpy(float), path_effects=style.HALO, zorder=3, **line_style)


def _draw_densities(ax: Axes, values: dict[str, np.ndarray], levels: Sequence[str]) -> None:
    """Draw kernel densities in a window around the energies of the reference, and note the shares outside it."""
    reference = values[levels[-1]]
    spread = float(np.ptp(reference)) or 0.1  # eV/atom, if all energies are equal
    low, high = float(reference.min()) - 0.35 * spread, float(reference.max()) + 0.35 * spread
    grid = np.linspace(low, high, _N_GRID_POINTS)
    # Half of Silverman's width for the reference, because these densities have several peaks.
    width = max(0.45 * float(reference.std()) * len(reference) ** -0.2, 1e-3 * spread)
    for level, energies in values.items():
        ax.plot(grid, compute_kernel_density(energies, grid, width), **_select_line_style(level, levels))
    ax.set_xlim(low, high)
    ax.set_ylim(bottom=0)
    shares = {level: float(np.mean((energies < low) | (energies > high))) for level, energies in values.items()}
    _note_shares_outside(ax, shares)


def compute_kernel_density(values: np.ndarray, grid: np.ndarray, width: float) -> np.ndarray:
    """Compute the Gaussian kernel density of `values` on a grid, ``(len(grid),)``, in blocks that limit the memory."""
    total = np.zeros(len(grid))
    for start in range(0, len(values), 2000):
        distances = (grid[:, None] - values[None, start : start + 2000]) / width
        total += np.exp(-0.5 * distances**2).sum(axis=1)
    return np.asarray(total / (len(values) * width * np.sqrt(2 * np.pi)))


def _note_shares_outside(ax: Axes, shares: dict[str, float]) -> None:
    """Write above the axes which share of the values of a level is outside, if it is at least 0.05 %."""
    texts = [f"{format_number(100 * share, 2)} % of level {level}" for level, share in shares.items() if share >= 5e-4]
    if texts:  # only two fit above the axes
        style.add_note(ax, f"outside: {', '.join(texts[:2])}{' and others' if len(texts) > 2 else ''}")


def _draw_histograms(ax: Axes, values: dict[str, np.ndarray], levels: Sequence[str]) -> None:
    """Draw densities of force components in common bins on a logarithmic axis; an empty bin is a gap in the line."""
    # If all forces are zero, the limit must still be positive.
    limit = max(_find_largest_inlier(components) for components in values.values()) or 1e-3
    limit = min(limit, _MAX_FORCE_RATIO * float(np.abs(values[levels[-1]]).max()) or limit)
    edges = np.linspace(-limit, limit, _N_BINS + 1)
    for level, components in values.items():
        counts = np.histogram(components, edges)[0]
        density = counts / (max(len(components), 1) * (edges[1] - edges[0]))
        ax.plot(
            (edges[1:] + edges[:-1]) / 2, np.where(density > 0, density, np.nan), **_select_line_style(level, levels)
        )
    ax.set(yscale="log", xlim=(-limit, limit))
    shares = {level: float(np.mean(np.abs(components) > limit)) for level, components in values.items()}
    _note_shares_outside(ax, shares)


def _find_largest_inlier(values: np.ndarray) -> float:
    """Return the largest absolute value within the limits of `_choose_limits`."""
    low, high = _choose_limits(values)
    return float(np.abs(values[(values >= low) & (values <= high)]).max())


def _select_line_style(level: str, levels: Sequence[str]) -> dict[str, Any]:
    """Select the style of the line of a level; the line of the reference is thick and below all others."""
    width, order = (2.4, 2) if level == levels[-1] else (1.0, 3)
    return {"color": style.get_level_colour(level, levels), "linewidth": width, "zorder": order}


def _build_line_handle(level: str, levels: Sequence[str]) -> Line2D:
    """Build the legend entry of the line of a level."""
    suffix = ", reference" if level == levels[-1] else ""
    label = f"level {style.escape_mathtext(level)}{suffix}"
    return Line2D([], [], label=label, **_select_line_style(level, levels))


def _draw_by_vector(ax: Axes, rows: pd.DataFrame, compared_levels: Sequence[str], levels: Sequence[str]) -> None:
    """Draw points and medians of the column ``value`` on a logarithmic axis; zeros count as points outside the axes."""
    vectors, values = rows["shortest_vector"].to_numpy(float), rows["value"].to_numpy(float)
    nonzero = values[values >= MIN_FORCE_RMSD_MEV_PER_ANGSTROM]  # energies in meV/atom have the same limit
    if not nonzero.size:
        raise CannotDrawError("All levels give the same labels, so there are no errors to draw.")
    for level in compared_levels:
        is_level = (rows["level"] == level).to_numpy()
        colour, marker = style.get_level_colour(level, levels), style.get_level_marker(level, levels)
        sample = np.random.default_rng(0).permutation(np.flatnonzero(is_level))[:MAX_SHARED_PANEL_POINTS]
        size = _choose_marker_size(len(vectors))
        ax.scatter(vectors[sample], values[sample], s=size, alpha=0.45, color=colour, **_POINT_STYLE)
        _draw_medians(ax, vectors[is_level], values[is_level], color=colour, marker=marker, markersize=3.5)
    low, high = float(np.quantile(nonzero, 0.005)) / 1.3, float(nonzero.max()) * 1.5
    ax.set(yscale="log", ylim=(low, high), xlim=_choose_limits(vectors))
    axes_tools.set_log_ticks(ax, "y", low, high)
    axes_tools.annotate_outside(ax, vectors, values, list(rows["level"]), "level")
