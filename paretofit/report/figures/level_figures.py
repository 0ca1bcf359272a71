"""The figures of the DFT error analysis: every convergence level against the reference, before anything is fitted.

Each figure is a function of the tables of `paretofit.dataset.quality.LevelErrors` that returns its axes. Errors are
 small against the span of the data, so each parity panel stands on a panel of the errors themselves. Points are
rasterised, and of very many only some are drawn: the vector file stays small. Limits, medians and counts are those of
all of them.
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
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from paretofit.dataset.quality import MIN_FORCE_RMSD_MEV_PER_ANGSTROM
from paretofit.report.figures import axes as axes_tools
from paretofit.report.figures import style
from paretofit.report.figures.sweep_figures import CannotDrawError
from paretofit.report.wording import format_count, format_number

VECTOR_LABEL = "shortest cell vector (Å)"
_FAR = 1.0  # spans of the middle 99 %: points farther out than this are counted, not shown
_INTERVALS = 14  # of the x axis, for medians
MAX_PARITY_POINTS = 15_000  # drawn in a parity panel
MAX_SHARED_PANEL_POINTS = 1_000  # drawn of each level where all levels are in one panel
MIN_INTERVAL_POINTS = 5  # points in an interval, for a median to say something
MIN_MEDIAN_POINTS = MIN_INTERVAL_POINTS * _INTERVALS  # points of a level, below which there are no medians
_GRID = 400  # points of a density curve
_BINS = 61  # odd: the middle one is around zero force
_WIDE = 1.6  # times the largest force at the reference: where the axis of the distributions ends at the latest
_STEPS = 20  # of the colour bar
_MEDIAN: dict[str, Any] = {
    "color": "black", "marker": "o", "markersize": 2.6, "markerfacecolor": "white", "markeredgewidth": 0.8,
    "linewidth": 0.9,
}  # fmt: skip
# Without smoothed edges the picture inside of a vector file is a third as large, and looks the same in print.
_POINTS: dict[str, Any] = {"linewidths": 0, "rasterized": True, "zorder": 2, "antialiased": False}
_HALO = [withStroke(linewidth=2.2, foreground="white")]


def plot_energy_parity(configurations: pd.DataFrame, levels: Sequence[str]) -> np.ndarray:
    """Energies per atom of each level against the reference, and below them their errors; colour: shortest vector.

    Parameters
    ----------
    configurations : DataFrame, `LevelErrors.configurations` (eV/atom, meV/atom, Å)
    levels : names by cost, the last is the reference

    Returns
    -------
    (n_levels, 2) array of Axes, in the order of `levels`: parity, error
    """
    points = configurations.rename(columns={"reference_energy": "x", "energy": "y", "energy_error": "error"})
    return _parity(points, levels, "energy", ("eV/atom", "meV/atom"))


def plot_force_parity(forces: pd.DataFrame, levels: Sequence[str]) -> np.ndarray:
    """Force components of each level against the reference, and below them their errors; colour: shortest vector.

    Parameters
    ----------
    forces : DataFrame, `LevelErrors.forces` (eV/Å, Å)
    levels : names by cost, the last is the reference

    Returns
    -------
    (n_levels, 2) array of Axes, in the order of `levels`: parity, error
    """
    points = forces.rename(columns={"reference": "x", "force": "y"})
    return _parity(points.assign(error=1000 * (points["y"] - points["x"])), levels, "force", ("eV/Å", "meV/Å"))


def plot_distributions(configurations: pd.DataFrame, forces: pd.DataFrame, levels: Sequence[str]) -> np.ndarray:
    """How energies per atom and force components are distributed at each level; the reference is the thick line.

    The energies have a Gaussian kernel, the same one at every level; the forces are counted in bins, on a
    logarithmic axis.

    Parameters
    ----------
    configurations, forces : DataFrame, as in `LevelErrors` (eV/atom, eV/Å)
    levels : names by cost, the last is the reference

    Returns
    -------
    (2,) array of Axes: energies, forces
    """
    present = _present(configurations, levels)
    energies = {level: configurations.loc[configurations["level"] == level, "energy"] for level in present}
    components = {level: forces.loc[forces["level"] == level, "force"] for level in present}
    energies[levels[-1]] = _once(configurations)["reference_energy"]
    components[levels[-1]] = _once(forces)["reference"]
    with style.publication_style():
        axes = style.create_panels(2)
        _draw_densities(axes[0], _as_arrays(energies), levels)
        _draw_histograms(axes[1], _as_arrays(components), levels)
        axes[0].set_xlabel("energy (eV/atom)")
        axes[0].set_ylabel("probability density (atom/eV)")
        axes[1].set_xlabel("force component (eV/Å)")
        axes[1].set_ylabel("probability density (Å/eV)")
        handles = [_line_handle(level, levels) for level in [*present, levels[-1]]]
        style.add_legend_below(axes, handles, min(len(handles), 6))
    return axes


def plot_errors_by_vector(configurations: pd.DataFrame, levels: Sequence[str]) -> np.ndarray:
    """Size of the energy error and force RMSD against the shortest cell vector, with medians of each level.

    Parameters
    ----------
    configurations : DataFrame, `LevelErrors.configurations` (meV/atom, meV/Å, Å)
    levels : names by cost, the last is the reference

    Returns
    -------
    (2,) array of Axes: energies, forces
    """
    present = _present(configurations, levels)
    known = configurations[configurations["shortest_vector"].notna()]
    if known["shortest_vector"].nunique() < 2:
        raise CannotDrawError("The configurations do not differ in their shortest cell vector.")
    energy, force = known["energy_error"].abs(), known["force_rmsd"]
    with style.publication_style():
        axes = style.create_panels(2)
        labels = ("size of the energy error (meV/atom)", "force RMSD (meV/Å)")
        for ax, values, label in zip(axes, (energy, force), labels, strict=True):
            _draw_by_vector(ax, known.assign(value=values), present, levels)
            ax.set_xlabel(VECTOR_LABEL)
            ax.set_ylabel(label)
        handles = style.build_level_handles(levels, present, present)
        style.add_legend_below(axes, handles, min(len(handles), 6))
    return axes


def _present(points: pd.DataFrame, levels: Sequence[str]) -> list[str]:
    """The levels below the reference that have points, by cost."""
    have = set(points["level"])
    present = [level for level in levels[:-1] if level in have]
    if not present:
        raise CannotDrawError("There is only one convergence level, so there is nothing to compare.")
    return present


def _once(points: pd.DataFrame) -> pd.DataFrame:
    """Each configuration once: its rows at the first level that has it."""
    return points[points["level"] == points.groupby("config_id")["level"].transform("first")]


def _as_arrays(values: dict[str, pd.Series]) -> dict[str, np.ndarray]:
    return {level: part.to_numpy(float) for level, part in values.items()}


def _parity(points: pd.DataFrame, levels: Sequence[str], what: str, units: tuple[str, str]) -> np.ndarray:
    """A parity and an error panel for each level: `points` has the columns level, x, y, error, shortest_vector."""
    present = _present(points, levels)
    with style.publication_style():
        axes = _double_panels(len(present))
        norm = _vector_norm(points["shortest_vector"].to_numpy(float))
        for (parity, error), level in zip(axes, present, strict=True):
            rows = points[points["level"] == level]
            rows = rows.iloc[np.random.default_rng(0).permutation(len(rows))]  # no colour on top of the others
            _scatter(parity, rows["x"].to_numpy(float), rows["y"].to_numpy(float), rows, norm)
            _scatter(error, rows["x"].to_numpy(float), rows["error"].to_numpy(float), rows, norm)
            parity.axline((0, 0), slope=1, color="black", linewidth=0.6, zorder=1)
            error.axhline(0, color="black", linewidth=0.6, zorder=1)
            _medians(error, rows["x"].to_numpy(float), rows["error"].to_numpy(float), **_MEDIAN)
            _title(parity, level, levels, f"RMSD {format_number(_rms(rows['error']))} {units[1]}")
            parity.set_ylabel(f"{what} ({units[0]})")
            error.set_ylabel(f"error ({units[1]})")
            error.set_xlabel(f"{what} at level {style.escape_mathtext(levels[-1])} ({units[0]})")
            error.figure.align_ylabels([parity, error])
        if norm is not None:
            _colour_bar(axes, norm)
    return axes


def _double_panels(count: int) -> np.ndarray:
    """``(count, 2)`` axes: for each a panel, and a lower one that shares its x axis; two pairs in a row."""
    columns, rows = min(count, 2), (count + 1) // 2
    width = style.PAGE_WIDTH_IN if columns == 2 else style.COLUMN_WIDTH_IN
    figure = Figure(figsize=(width, 3.3 * rows + 0.5), layout="constrained")
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=(3, 2) * rows)
    array = np.empty((count, 2), dtype=object)
    for k in range(count):
        row, column = 2 * (k // 2), k % 2
        upper = figure.add_subplot(grid[row, column])
        upper.tick_params(labelbottom=False)
        array[k] = upper, figure.add_subplot(grid[row + 1, column], sharex=upper)
    return array


def _colour_bar(axes: np.ndarray, norm: Normalize) -> None:
    wide = len(axes) > 1
    style.get_parent_figure(axes).colorbar(
        ScalarMappable(norm, _colours()), ax=list(axes.flat), location="bottom", label=VECTOR_LABEL, extend="both",
        shrink=0.6 if wide else 0.9, aspect=45 if wide else 30, pad=0.02,
    )  # fmt: skip


def _colours() -> Colormap:
    """Even in lightness, without the pale end, which small points on white do not show; in steps, for small files."""
    return ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.93, _STEPS)))


def _vector_norm(vectors: np.ndarray) -> Normalize | None:
    """Of the middle 98 %, so that a few long cells leave the colours to the others; None where all are the same."""
    known = vectors[np.isfinite(vectors)]
    if not known.size or np.ptp(known) < 1e-6:
        return None
    low, high = np.quantile(known, (0.01, 0.99))
    return Normalize(float(low), float(high)) if high > low else Normalize(float(known.min()), float(known.max()))


def _scatter(ax: Axes, x: np.ndarray, y: np.ndarray, rows: pd.DataFrame, norm: Normalize | None) -> None:
    """Points coloured by the shortest vector, grey without one; limits that leave out, and count, what is far off."""
    vectors = rows["shortest_vector"].to_numpy(float)
    known = np.isfinite(vectors) & (norm is not None)
    size = _size(len(x))
    grey, coloured = (np.flatnonzero(here)[:MAX_PARITY_POINTS] for here in (~known, known))
    ax.scatter(x[grey], y[grey], s=size, color="#777777", **_POINTS)
    if coloured.size:
        ax.scatter(x[coloured], y[coloured], s=size, c=vectors[coloured], cmap=_colours(), norm=norm, **_POINTS)
    ax.set_xlim(*_limits(x))
    ax.set_ylim(*_limits(y))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    outside = int((~axes_tools.find_inside_axes(ax, x, y)).sum())
    if outside:
        ax.set_title(f"{format_count(outside, 'point')} outside", loc="right", fontsize=6, color="#666666")


def _size(count: int) -> float:
    """Area of a marker in points², smaller where there are more of them."""
    return 12.0 if count < 200 else 5.0 if count < 2000 else 2.5


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Around all values but those more than `_FAR` spans away from the middle 99 %."""
    low, high = np.quantile(values, (0.005, 0.995))
    reach = _FAR * (high - low)
    inside = values[(values >= low - reach) & (values <= high + reach)]
    margin = 0.05 * np.ptp(inside) or 0.05 * max(abs(float(low)), 1e-3)
    return float(inside.min() - margin), float(inside.max() + margin)


def _rms(values: pd.Series) -> float:
    return float(np.sqrt(np.mean(values.to_numpy(float) ** 2)))


def _title(ax: Axes, level: str, levels: Sequence[str], text: str) -> None:
    """The level and what it is worth, after the marker that the level has in every figure."""
    ax.set_title(f"     level {style.escape_mathtext(level)}: {text}", loc="left")
    place = offset_copy(ax.transAxes, style.get_parent_figure(ax), x=5, y=9, units="points")
    ax.plot(
        0, 1, transform=place, clip_on=False, linestyle="none", markersize=5,
        marker=style.level_marker(level, levels), color=style.level_colour(level, levels),
    )  # fmt: skip


def _medians(ax: Axes, x: np.ndarray, y: np.ndarray, **line: Any) -> None:
    """Medians of y in equal intervals of x, where there are points enough; an empty interval breaks the line."""
    if len(x) < MIN_MEDIAN_POINTS:
        return
    interval = np.floor((x - x.min()) / (np.ptp(x) or 1.0) * _INTERVALS * (1 - 1e-9))
    grouped = pd.DataFrame({"x": x, "y": y}).groupby(interval)
    middle = grouped.median()[grouped.size() >= MIN_INTERVAL_POINTS]
    empty = sorted(set(range(_INTERVALS)) - set(interval))
    middle = pd.concat([middle, pd.DataFrame(np.nan, index=empty, columns=["x", "y"])]).sort_index()
    ax.plot(middle["x"].to_numpy(float), middle["y"].to_numpy(float), path_effects=_HALO, zorder=3, **line)


def _draw_densities(ax: Axes, values: dict[str, np.ndarray], levels: Sequence[str]) -> None:
    """Kernel densities in a window around the reference's energies; what lies beyond is said."""
    reference = values[levels[-1]]
    spread = float(np.ptp(reference)) or 0.1
    low, high = float(reference.min()) - 0.35 * spread, float(reference.max()) + 0.35 * spread
    grid = np.linspace(low, high, _GRID)
    # Silverman's rule for the reference, halved because these densities have several peaks.
    width = max(0.45 * float(reference.std()) * len(reference) ** -0.2, 1e-3 * spread)
    for level, energies in values.items():
        density = _kernel_density(energies, grid, width)
        ax.plot(grid, density, **_line(level, levels))
    ax.set_xlim(low, high)
    ax.set_ylim(bottom=0)
    shares = {level: float(np.mean((part < low) | (part > high))) for level, part in values.items()}
    _note_shares(ax, shares)


def _kernel_density(values: np.ndarray, grid: np.ndarray, width: float) -> np.ndarray:
    """(len(grid),) density of Gaussians of one width, in blocks so that memory stays small."""
    total = np.zeros(len(grid))
    for start in range(0, len(values), 2000):
        steps = (grid[:, None] - values[None, start : start + 2000]) / width
        total += np.exp(-0.5 * steps**2).sum(axis=1)
    density: np.ndarray = total / (len(values) * width * np.sqrt(2 * np.pi))
    return density


def _note_shares(ax: Axes, shares: dict[str, float]) -> None:
    beyond = [f"{format_number(100 * share, 2)} % of level {level}" for level, share in shares.items() if share >= 5e-4]
    if beyond:
        text = f"outside: {', '.join(beyond[:2])}{' and others' if len(beyond) > 2 else ''}"
        ax.set_title(style.escape_mathtext(text), loc="right", fontsize=6, color="#666666")


def _draw_histograms(ax: Axes, values: dict[str, np.ndarray], levels: Sequence[str]) -> None:
    """Densities of force components in common bins, logarithmic; an empty bin leaves a gap in the line."""
    reach = max(float(np.abs(_within_reach(part)).max()) for part in values.values()) or 1e-3
    reach = min(reach, _WIDE * float(np.abs(values[levels[-1]]).max()) or reach)
    edges = np.linspace(-reach, reach, _BINS + 1)
    for level, components in values.items():
        counts = np.histogram(components, edges)[0]
        density = counts / (max(len(components), 1) * (edges[1] - edges[0]))
        ax.plot((edges[1:] + edges[:-1]) / 2, np.where(density > 0, density, np.nan), **_line(level, levels))
    ax.set_yscale("log")
    ax.set_xlim(-reach, reach)
    _note_shares(ax, {level: float(np.mean(np.abs(part) > reach)) for level, part in values.items()})


def _within_reach(values: np.ndarray) -> np.ndarray:
    low, high = _limits(values)
    return values[(values >= low) & (values <= high)]


def _line(level: str, levels: Sequence[str]) -> dict[str, Any]:
    """How the line of a level looks: the reference thick and below the others."""
    last = level == levels[-1]
    return {
        "color": style.level_colour(level, levels),
        "linewidth": 2.4 if last else 1.0,
        "zorder": 2 if last else 3,
    }


def _line_handle(level: str, levels: Sequence[str]) -> Line2D:
    last = level == levels[-1]
    return Line2D(
        [], [], label=f"level {style.escape_mathtext(level)}{', reference' if last else ''}", **_line(level, levels)
    )


def _draw_by_vector(ax: Axes, rows: pd.DataFrame, present: Sequence[str], levels: Sequence[str]) -> None:
    """Points and medians of the column ``value``, on a logarithmic axis; what is zero counts as outside."""
    vectors, values = rows["shortest_vector"].to_numpy(float), rows["value"].to_numpy(float)
    seen = values[values >= MIN_FORCE_RMSD_MEV_PER_ANGSTROM]
    if not seen.size:
        raise CannotDrawError("All levels give the same labels, so there are no errors to draw.")
    for level in present:
        here = (rows["level"] == level).to_numpy()
        colour = style.level_colour(level, levels)
        some = np.random.default_rng(0).permutation(np.flatnonzero(here))[:MAX_SHARED_PANEL_POINTS]
        ax.scatter(vectors[some], values[some], s=_size(len(vectors)), alpha=0.45, color=colour, **_POINTS)
        _medians(
            ax, vectors[here], values[here], color=colour, marker=style.level_marker(level, levels), markersize=3.5
        )
    ax.set_yscale("log")
    low, high = float(np.quantile(seen, 0.005)), float(seen.max())
    ax.set_ylim(low / 1.3, high * 1.5)
    ax.set_xlim(*_limits(vectors))
    axes_tools.set_log_ticks(ax, "y", low / 1.3, high * 1.5)
    axes_tools.annotate_outside(ax, vectors, values, list(rows["level"]), "level")
