"""How the figures look: one colour and one marker for each convergence level, print sizes, saving.

The colour of a level depends only on its place in the list of levels, so it is the same in every
figure. Figures are made without pyplot: no backend is chosen and nothing stays open.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from paretofit.core import atomic_path

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/) without its yellow, which is too pale for
# lines on white, and two of Paul Tol's muted colours. Lightness alternates, for black-and-white print.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#000000", "#882255", "#999933")
# As many again, and a count that shares no factor with the colours': 99 levels differ in one or the other.
MARKERS = ("v", "^", "s", "D", "o", "P", "X", "<", ">", "p", "h")

# Samplings appear in figures of one level, so their colours only need to differ from one another.
_SAMPLING_STYLES = {
    "random": ("#777777", "o", "-"),
    "leverage": ("#AA3377", "s", "-"),
    "block-leverage": ("#228833", "D", "-"),
    "top-leverage": ("#AA3377", "v", ":"),
    "top-block-leverage": ("#228833", "^", ":"),
}

COLUMN_WIDTH_IN = 8 / 2.54  # inches: one column of a journal
PAGE_WIDTH_IN = 17 / 2.54  # inches: both columns
LEGEND_AXES_LABEL = "spare"  # label of the axes that hold a legend instead of a picture

_RC: Any = {  # matplotlib types the keys one by one
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same picture on every machine
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.4,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "savefig.dpi": 240,
    "svg.fonttype": "path",
    "svg.hashsalt": "paretofit",
}


@contextmanager
def publication_style() -> Iterator[None]:
    """The rcParams in which the figures are drawn and saved, for the length of a ``with`` block."""
    with mpl.rc_context(_RC):
        yield


def level_colour(level: str, levels: Sequence[str]) -> str:
    """The colour of a convergence level, from its place in `levels`."""
    return COLOURS[list(levels).index(level) % len(COLOURS)]


def level_marker(level: str, levels: Sequence[str]) -> str:
    """The marker of a convergence level, from its place in `levels`."""
    return MARKERS[list(levels).index(level) % len(MARKERS)]


def sampling_style(sampling: str) -> tuple[str, str, str]:
    """Colour, marker and line style of a sampling method."""
    return _SAMPLING_STYLES.get(sampling, ("#4477AA", "P", "--"))


def escape_mathtext(text: str) -> str:
    """`text` with its dollar signs escaped: names come from data and are not mathematics."""
    return text.replace("$", r"\$")


def build_level_handles(
    levels: Sequence[str], drawn: Sequence[str], inside: Collection[str], *, line: bool = True
) -> list[Line2D]:
    """Legend entries of the levels in `drawn`, in the order of `levels`.

    A level that is not `inside` of the axes of any panel is marked as outside. With ``line=False`` the
    marker is hollow, as where the face of a marker says something else.
    """
    return [
        Line2D(
            [], [],
            color=level_colour(level, levels), marker=level_marker(level, levels),
            linestyle="-" if line else "none",
            markerfacecolor=level_colour(level, levels) if line else "white", markeredgewidth=1.0,
            label=f"level {escape_mathtext(level)}{'' if level in inside else ' (outside)'}",
        )
        for level in levels
        if level in set(drawn)
    ]  # fmt: skip


def ensure_axes(ax: Axes | None, height: float = 0.95) -> Axes:
    """`ax`, or the axes of a new figure one column wide; `height` is a multiple of the width."""
    if ax is not None:
        return ax
    return Figure(figsize=(COLUMN_WIDTH_IN, COLUMN_WIDTH_IN * height), layout="constrained").subplots()


def create_panels(count: int) -> np.ndarray:
    """Axes of a new figure with `count` panels, two in a row (one column wide if there is only one).

    Of an odd number the last place holds the legend, see `add_legend_below`.
    """
    columns, rows = min(count, 2), (count + 1) // 2
    width = PAGE_WIDTH_IN if columns == 2 else COLUMN_WIDTH_IN
    spare = rows * columns > count
    figure = Figure(figsize=(width, rows * 2.45 + (0.1 if spare else 0.55)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for empty in axes[count:]:
        empty.set_axis_off()
        empty.set_label(LEGEND_AXES_LABEL)
    return axes[:count]


def add_legend_below(axes: np.ndarray, handles: Sequence[Artist], columns: int) -> Legend:
    """One legend for all panels: in the place that an odd number of them leaves empty, else below them."""
    figure = get_parent_figure(axes)
    for spare in figure.axes:
        if spare.get_label() == LEGEND_AXES_LABEL:
            return spare.legend(handles=handles, loc="center", ncols=2 if len(handles) > 6 else 1, fontsize=8)
    return figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def get_parent_figure(axes: Axes | np.ndarray) -> Figure:
    """The figure that holds an axes, or the first of an array of them."""
    first = axes if isinstance(axes, Axes) else axes.flat[0]
    figure = first.get_figure(root=True)
    if figure is None:
        raise ValueError("the axes belong to no figure; hand in axes made by Figure.subplots")
    return figure


def save_figure(figure: Figure, folder: Path | str, name: str) -> list[Path]:
    """Write ``folder/name.png`` and ``folder/name.svg``, each whole or not at all.

    The same figure gives the same bytes: no date, and a fixed salt for the SVG's identifiers.
    """
    paths = []
    metadata: dict[str, dict[str, str | None]] = {"png": {"Software": None}, "svg": {"Date": None}}
    with publication_style():
        for kind, entries in metadata.items():
            path = Path(folder) / f"{name}.{kind}"
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=kind, metadata=entries)
            paths.append(path)
    return paths
