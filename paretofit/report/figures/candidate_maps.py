"""Figures of candidates that nobody has labelled yet: where they lie, and which are chosen."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms
from matplotlib.axes import Axes
from threadpoolctl import threadpool_limits

from paretofit.core import Array
from paretofit.report.figures import style
from paretofit.structures import nearest_distance

SEED = 1  # of the t-SNE, which is a picture, not a result
PERPLEXITY = 30.0
KINDS = (
    "distorted", "strained", "vacancy", "cluster", "entropy", "alloy", "substituted", "supercell", "molecule", "slab",
    "isolated",
)  # fmt: skip
COLOURS = (*style.COLOURS, "#AA3377", "#888888")  # one for each kind
MIN_MAP_POINTS = 5  # points below which there is nothing to map


def save_candidate_figures(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw and save the maps and the distributions.

    Parameters
    ----------
    table : pandas.DataFrame
        A row for each candidate: ``kind``, ``volume_per_atom`` (Å³, NaN where there is none), ``nearest_distance``
        (Å), descriptors ``d0``, ``d1``, ... and, where some are chosen, ``chosen`` (bool).
    folder : Path
        Made if need be; gets ``map.png``, ``distributions.png`` and their SVGs.

    Returns
    -------
    list of Path
        The PNG files.
    """
    saved: list[Path] = []
    with style.publication_style():
        if len(table) >= MIN_MAP_POINTS:
            axes = style.create_panels(2)
            for ax, points, name in zip(
                axes, (embed_by_pca(table), embed_by_tsne(table)), ("PCA", "t-SNE"), strict=True
            ):
                plot_candidate_map(table, points, name, axes=ax)
            style.add_legend_below(axes, axes[0].get_legend_handles_labels()[0], 4)
            saved += style.save_figure(style.get_parent_figure(axes), folder, "map")
        axes = style.create_panels(2)
        plot_distribution(table, "volume_per_atom", "volume per atom (Å³)", axes=axes[0])
        plot_distribution(table, "nearest_distance", "nearest distance (Å)", axes=axes[1])
        style.add_legend_below(axes, axes[1].get_legend_handles_labels()[0], 4)
        saved += style.save_figure(style.get_parent_figure(axes), folder, "distributions")
    return [path for path in saved if path.suffix == ".png"]


def embed_by_pca(table: pd.DataFrame) -> np.ndarray:
    """``(n, 2)``: the first two principal components of the standardised descriptors."""
    from sklearn.decomposition import PCA  # noqa: PLC0415  (slow to import)

    return np.asarray(PCA(2, svd_solver="full").fit_transform(_standardised(table)))


def embed_by_tsne(table: pd.DataFrame) -> np.ndarray:
    """``(n, 2)``: t-SNE of the standardised descriptors, begun from their principal components."""
    from sklearn.manifold import TSNE  # noqa: PLC0415  (slow to import)

    perplexity = min(PERPLEXITY, (len(table) - 1) / 3)
    embedding = TSNE(2, perplexity=perplexity, init="pca", random_state=SEED)
    with threadpool_limits(1):  # threads that wait for each other are slower on a busy machine, and change digits
        return np.asarray(embedding.fit_transform(_standardised(table)))


def plot_candidate_map(table: pd.DataFrame, points: np.ndarray, name: str, *, axes: Axes | None = None) -> Axes:
    """A map of the candidates, coloured by kind; chosen ones have a dark rim.

    Parameters
    ----------
    table : pandas.DataFrame
        As in `save_candidate_figures`.
    points : (n, 2) float
    name : str
        Of the method, for the axes.
    axes : matplotlib Axes, optional
    """
    ax = style.ensure_axes(axes)
    kinds = _kinds(table)
    chosen = table["chosen"].to_numpy(dtype=bool) if "chosen" in table else np.zeros(len(table), dtype=bool)
    for kind in kinds:
        own = (table["kind"] == kind).to_numpy()
        colour, shape = _look(kind, kinds)
        x, y = points[own].T
        ax.scatter(x, y, s=9, linewidths=0, alpha=0.7, label=kind, marker=shape, color=colour)
    if chosen.any():
        x, y = points[chosen].T
        ax.scatter(x, y, s=22, facecolors="none", edgecolors="black", linewidths=0.7, label="chosen")
    ax.set_xlabel(f"{name} 1")
    ax.set_ylabel(f"{name} 2")
    ax.set_xticklabels([])
    ax.set_yticklabels([])
    return ax


def plot_distribution(table: pd.DataFrame, column: str, label: str, *, axes: Axes | None = None) -> Axes:
    """A histogram of a column, stacked by kind."""
    ax = style.ensure_axes(axes)
    kinds = _kinds(table)
    values = [table.loc[table["kind"] == kind, column] for kind in kinds]
    finite = [one[np.isfinite(one)].to_numpy() for one in values]
    if sum(map(len, finite)):
        colours = [_look(kind, kinds)[0] for kind in kinds]
        ax.hist(finite, bins=40, stacked=True, color=colours, label=kinds, linewidth=0)
    else:
        ax.text(0.5, 0.5, "none has one", transform=ax.transAxes, ha="center")
    ax.set_xlabel(label)
    ax.set_ylabel("candidates")
    return ax


def _kinds(table: pd.DataFrame) -> Sequence[str]:
    return list(dict.fromkeys(table["kind"]))


def _look(kind: str, kinds: Sequence[str]) -> tuple[str, str]:
    """Colour and marker: always the same for a kind that we make, by turn for others."""
    known = [*KINDS, *(one for one in kinds if one not in KINDS)]
    return COLOURS[known.index(kind) % len(COLOURS)], style.level_marker(kind, known)


def _standardised(table: pd.DataFrame) -> np.ndarray:
    columns = [name for name in table.columns if name.startswith("d") and name[1:].isdigit()]
    values = table[columns].to_numpy(dtype=float)
    spread = values.std(axis=0)
    kept = spread > 1e-12 * np.abs(values).max(axis=0)
    return (values[:, kept] - values[:, kept].mean(axis=0)) / spread[kept] if kept.any() else values[:, :2]


def tabulate_candidates(structures: Sequence[Atoms], describe: Callable[[Atoms], Array]) -> pd.DataFrame:
    """What the figures show: kind, volume per atom, nearest distance, and descriptors (columns ``d0``, ``d1``, ...)."""
    values = np.array([describe(atoms) for atoms in structures])
    table = pd.DataFrame(values, columns=[f"d{k}" for k in range(values.shape[1])])
    return table.assign(
        kind=[str(atoms.info.get("config_type", "-")) for atoms in structures],
        volume_per_atom=[atoms.cell.volume / len(atoms) if atoms.pbc.all() else np.nan for atoms in structures],
        nearest_distance=[nearest_distance(atoms) for atoms in structures],
    )
