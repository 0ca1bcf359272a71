"""Figures of unlabelled candidates: descriptor maps that mark the selected candidates, and histograms."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms
from matplotlib.axes import Axes
from threadpoolctl import threadpool_limits

from paretofit.core import Array
from paretofit.report.figures import style
from paretofit.structures import find_nearest_distance

TSNE_SEED = 1  # constant, because the map is an illustration and not a result
MAX_PERPLEXITY = 30.0  # scikit-learn's default, which is too large for few points
KINDS = (  # values of config_type, in the order of their colours
    "distorted", "strained", "vacancy", "cluster", "entropy", "alloy", "substituted", "supercell", "molecule", "slab",
    "isolated",
)  # fmt: skip
COLOURS = (*style.COLOURS, "#AA3377", "#888888")  # a colour for each kind
MIN_MAP_POINTS = 5  # number of points below which no map is drawn


def save_candidate_figures(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw and save the maps (if there are enough candidates) and the distributions.

    Parameters
    ----------
    table : pandas.DataFrame
        A row for each candidate: ``kind``, ``volume_per_atom`` (Å³, NaN without a volume), ``nearest_distance`` (Å),
        descriptors ``d0``, ``d1``, ... and optionally ``chosen`` (bool, for selected candidates).
    folder : Path
        Directory for ``map.png``, ``distributions.png`` and their SVGs, which is created if it does not exist.

    Returns
    -------
    list of Path
        Paths of the PNG files.
    """
    paths: list[Path] = []
    with style.use_publication_style():
        if len(table) >= MIN_MAP_POINTS:
            axes = style.create_panels(2)
            draw_candidate_map(axes[0], table, embed_by_pca(table), "PCA")
            draw_candidate_map(axes[1], table, embed_by_tsne(table), "t-SNE")
            style.add_legend_below(axes, axes[0].get_legend_handles_labels()[0], 4)
            paths += style.save_figure(style.get_parent_figure(axes), folder, "map")
        axes = style.create_panels(2)
        draw_distribution(axes[0], table, "volume_per_atom", "volume per atom (Å³)")
        draw_distribution(axes[1], table, "nearest_distance", "nearest distance (Å)")
        style.add_legend_below(axes, axes[1].get_legend_handles_labels()[0], 4)
        paths += style.save_figure(style.get_parent_figure(axes), folder, "distributions")
    return [path for path in paths if path.suffix == ".png"]


def embed_by_pca(table: pd.DataFrame) -> np.ndarray:
    """Compute the first two principal components, ``(n, 2)``, of the standardised descriptors ``d0``, ``d1``, ..."""
    from sklearn.decomposition import PCA  # noqa: PLC0415  (slow to import)

    return np.asarray(PCA(2, svd_solver="full").fit_transform(_standardise_descriptors(table)))


def embed_by_tsne(table: pd.DataFrame) -> np.ndarray:
    """Compute a t-SNE map, ``(n, 2)``, of the standardised descriptors, initialised with principal components."""
    from sklearn.manifold import TSNE  # noqa: PLC0415  (slow to import)

    # t-SNE considers three times as many neighbours as the perplexity, so there must be as many other points.
    perplexity = min(MAX_PERPLEXITY, (len(table) - 1) / 3)
    embedding = TSNE(2, perplexity=perplexity, init="pca", random_state=TSNE_SEED)
    with threadpool_limits(1):  # several threads would be slower on a busy machine, and change the last digits
        return np.asarray(embedding.fit_transform(_standardise_descriptors(table)))


def draw_candidate_map(ax: Axes, table: pd.DataFrame, points: np.ndarray, method: str) -> None:
    """Draw candidates at points ``(n, 2)`` of a map, coloured by kind; selected candidates have a black rim.

    `method` is the name of the map for the labels of the axes.
    """
    kinds = list(dict.fromkeys(table["kind"]))
    is_chosen = table["chosen"].to_numpy(dtype=bool) if "chosen" in table else np.zeros(len(table), dtype=bool)
    for kind in kinds:
        colour, marker = _select_style(kind, kinds)
        x, y = points[(table["kind"] == kind).to_numpy()].T
        ax.scatter(x, y, s=9, linewidths=0, alpha=0.7, label=kind, marker=marker, color=colour)
    if is_chosen.any():
        x, y = points[is_chosen].T
        ax.scatter(x, y, s=22, facecolors="none", edgecolors="black", linewidths=0.7, label="selected")
    ax.set(xlabel=f"{method} 1", ylabel=f"{method} 2", xticklabels=[], yticklabels=[])


def draw_distribution(ax: Axes, table: pd.DataFrame, column: str, label: str) -> None:
    """Draw a histogram of the finite values of a column, stacked by kind, or a text if there are none."""
    kinds = list(dict.fromkeys(table["kind"]))
    finite_rows = table[np.isfinite(table[column])]
    values_by_kind = [finite_rows.loc[finite_rows["kind"] == kind, column].to_numpy() for kind in kinds]
    if len(finite_rows):
        colours = [_select_style(kind, kinds)[0] for kind in kinds]
        ax.hist(values_by_kind, bins=40, stacked=True, color=colours, label=kinds, linewidth=0)
    else:
        ax.text(0.5, 0.5, "no values", transform=ax.transAxes, ha="center")
    ax.set(xlabel=label, ylabel="candidates")


def _select_style(kind: str, kinds: Sequence[str]) -> tuple[str, str]:
    """Select the colour and the marker of a kind: fixed for `KINDS`, by order of appearance for other kinds."""
    all_kinds = [*KINDS, *(name for name in kinds if name not in KINDS)]
    return COLOURS[all_kinds.index(kind) % len(COLOURS)], style.get_level_marker(kind, all_kinds)


def _standardise_descriptors(table: pd.DataFrame) -> np.ndarray:
    """Scale the descriptors to a mean of 0 and a standard deviation of 1, without those that are constant.

    If all are constant, the first two are returned without scaling.
    """
    columns = [name for name in table.columns if name.startswith("d") and name[1:].isdigit()]
    descriptors = table[columns].to_numpy(dtype=float)
    deviations = descriptors.std(axis=0)
    is_varying = deviations > 1e-12 * np.abs(descriptors).max(axis=0)  # smaller deviations are rounding errors
    if not is_varying.any():
        return descriptors[:, :2]
    varying = descriptors[:, is_varying]
    return np.asarray((varying - varying.mean(axis=0)) / deviations[is_varying])


def tabulate_descriptors(structures: Sequence[Atoms], describe: Callable[[Atoms], Array]) -> pd.DataFrame:
    """Tabulate the descriptors of structures, with columns ``d0``, ``d1``, ...

    `describe` returns the descriptors of a structure, ``(n_descriptors,)``.
    """
    descriptors = np.array([describe(atoms) for atoms in structures])
    return pd.DataFrame(descriptors, columns=[f"d{index}" for index in range(descriptors.shape[1])])


def tabulate_candidates(structures: Sequence[Atoms], describe: Callable[[Atoms], Array]) -> pd.DataFrame:
    """Build the table of `save_candidate_figures` for structures.

    The kind is ``config_type`` in the info of a structure, or ``"-"``. `describe` is as in `tabulate_descriptors`.
    """
    return tabulate_descriptors(structures, describe).assign(
        kind=[str(atoms.info.get("config_type", "-")) for atoms in structures],
        volume_per_atom=[atoms.cell.volume / len(atoms) if atoms.pbc.all() else np.nan for atoms in structures],
        nearest_distance=[find_nearest_distance(atoms) for atoms in structures],
    )
