"""Style of the figures: a colour and a marker for each convergence level, sizes for print, and saving.

The colour of a level depends only on its position in the list of levels, so it is the same in every figure. Figures are
created without pyplot: no backend is selected, and no figure stays open.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from paretofit.core import InputError, atomic_path, remove_file

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/) without yellow, which is too pale on white, and six of
# Paul Tol's muted colours. Light and dark colours alternate, for black-and-white print.
COLOURS = (
    *("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#000000", "#882255", "#999933"),
    *("#332288", "#44AA99", "#661100", "#DDCC77"),
)
# The numbers of markers (11) and colours (13) have no common factor, so that 143 levels have distinct combinations.
MARKERS = ("v", "^", "s", "D", "o", "P", "X", "<", ">", "p", "h")

# Sampling methods appear in figures of a single level, so their colours only need to differ from each other.
_SAMPLING_STYLES = {
    "random": ("#777777", "o", "-"),
    "leverage": ("#AA3377", "s", "-"),
    "block-leverage": ("#228833", "D", "-"),
    "top-leverage": ("#AA3377", "v", ":"),
    "top-block-leverage": ("#228833", "^", ":"),
}

COLUMN_WIDTH_IN = 8 / 2.54  # width of one column of a journal
PAGE_WIDTH_IN = 17 / 2.54  # width of both columns
LEGEND_AXES_LABEL = "spare"  # label of axes that hold a legend instead of a plot
HALO = [withStroke(linewidth=2.2, foreground="white")]  # keeps text and lines readable on top of points
MIN_RELATIVE_ERROR = 1e-3  # ratio to the median; smaller errors are zero by symmetry and are not drawn
UNITS = {"energy": "meV/atom", "force": "meV/Å", "forces": "meV/Å"}  # units of errors, by property

_STYLE_FILE = Path(__file__).with_name("paretofit.mplstyle")


class CannotDrawError(InputError):
    """Error for a figure that cannot be drawn from the data; the report shows its message instead of the figure."""


def use_publication_style() -> AbstractContextManager[None]:
    """Return a context in which matplotlib uses the rcParams of ``paretofit.mplstyle``."""
    return mpl.rc_context(mpl.rc_params_from_file(_STYLE_FILE, use_default_template=False))


def get_level_colour(level: str, levels: Sequence[str]) -> str:
    """Return the colour of a convergence level, from its position in `levels`."""
    return COLOURS[list(levels).index(level) % len(COLOURS)]


def get_level_marker(level: str, levels: Sequence[str]) -> str:
    """Return the marker of a convergence level, from its position in `levels`."""
    return MARKERS[list(levels).index(level) % len(MARKERS)]


def get_sampling_style(sampling: str) -> tuple[str, str, str]:
    """Return the colour, the marker and the line style of a sampling method; unknown methods share one style."""
    return _SAMPLING_STYLES.get(sampling, ("#4477AA", "P", "--"))


def escape_mathtext(text: str) -> str:
    """Escape the dollar signs in names from data, which matplotlib would interpret as mathematics."""
    return text.replace("$", r"\$")


def build_level_handles(
    levels: Sequence[str], drawn_levels: Sequence[str], levels_inside: Collection[str], *, with_line: bool = True
) -> list[Line2D]:
    """Build the legend entries of the levels in `drawn_levels`, in the order of `levels`.

    Parameters
    ----------
    levels : all levels, in order of cost, which determine colours and markers
    drawn_levels : levels that have points
    levels_inside : levels with a point inside the axes; other levels, whose points are counted in a note, have no entry
    with_line : whether the entries have lines and filled markers; otherwise, markers are hollow, for figures in which
        the face of a marker shows another quantity
    """
    return [
        Line2D(
            [], [],
            color=get_level_colour(level, levels), marker=get_level_marker(level, levels),
            linestyle="-" if with_line else "none",
            markerfacecolor=get_level_colour(level, levels) if with_line else "white", markeredgewidth=1.0,
            label=f"level {escape_mathtext(level)}",
        )
        for level in levels
        if level in drawn_levels and level in levels_inside
    ]  # fmt: skip


def ensure_axes(ax: Axes | None, height: float = 0.95) -> Axes:
    """Return `ax` or, if it is None, axes of a new figure, one column wide; `height` is a multiple of the width."""
    if ax is not None:
        return ax
    return Figure(figsize=(COLUMN_WIDTH_IN, COLUMN_WIDTH_IN * height), layout="constrained").subplots()


def create_panels(count: int) -> np.ndarray:
    """Create the axes of a new figure with `count` panels, ``(count,)``, two in a row.

    A single panel is one column wide. An empty last position of the grid is for the legend, see `add_legend_below`.
    """
    n_columns, n_rows = min(count, 2), (count + 1) // 2
    width = PAGE_WIDTH_IN if n_columns == 2 else COLUMN_WIDTH_IN
    has_legend_axes = n_rows * n_columns > count
    # inches: each row, and a legend below the panels unless there are axes for it
    height = n_rows * 2.45 + (0.1 if has_legend_axes else 0.55)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for legend_ax in axes[count:]:
        legend_ax.set_axis_off()
        legend_ax.set_label(LEGEND_AXES_LABEL)
    return axes[:count]


def create_row(count: int, width: float = COLUMN_WIDTH_IN, height: float = 2.7) -> np.ndarray:
    """Create the axes of a new figure with `count` panels side by side, ``(count,)``.

    Each panel is `width` inches wide, but the figure is at most as wide as a page; `height` is that of the figure, also
    in inches.

    Raises
    ------
    CannotDrawError
        If `count` is 0.
    """
    if not count:
        raise CannotDrawError("there is nothing to draw")
    figure = Figure(figsize=(min(PAGE_WIDTH_IN, width * count), height), layout="constrained")
    return np.asarray(figure.subplots(1, count, squeeze=False)[0])


def add_legend_below(axes: np.ndarray, handles: Sequence[Artist], columns: int) -> Legend:
    """Add one legend for all panels: in the empty position of the grid or, without one, below, in `columns` columns."""
    figure = get_parent_figure(axes)
    for ax in figure.axes:
        if ax.get_label() == LEGEND_AXES_LABEL:
            return ax.legend(handles=handles, loc="center", ncols=2 if len(handles) > 6 else 1, fontsize=8)
    return figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def add_note(ax: Axes, text: str) -> None:
    """Write a small grey note above the axes, on the right, in place of an earlier one."""
    ax.set_title(escape_mathtext(text), loc="right", fontsize=6, color="#666666")


def get_parent_figure(axes: Axes | np.ndarray) -> Figure:
    """Return the figure of an Axes, or of an array of Axes; raise a `ValueError` if there is none."""
    first_ax = axes if isinstance(axes, Axes) else axes.flat[0]
    figure = first_ax.get_figure(root=True)
    if figure is None:
        raise ValueError("the axes do not belong to a figure; pass axes created by Figure.subplots")
    return figure


def save_figure(
    figure: Figure, folder: Path | str, name: str, formats: Sequence[str] = ("png", "svg"), dpi: float | None = None
) -> list[Path]:
    """Write ``folder/name.png`` and ``folder/name.svg``, or one of them (`formats`), atomically; return their paths.

    `dpi` is the resolution of the PNG; the default is that of the style, for print. The same figure always gives the
    same bytes: the PNG omits the version of matplotlib, and the SVG omits the date and has identifiers with a fixed
    salt.
    """
    paths = [Path(folder) / f"{name}.{suffix}" for suffix in formats]
    with use_publication_style(), _arrange_once(figure):
        for path in paths:
            omitted_entry = "Software" if path.suffix == ".png" else "Date"
            with atomic_path(path) as temporary:
                options: dict[str, Any] = {} if dpi is None else {"dpi": dpi}
                figure.savefig(temporary, format=path.suffix[1:], metadata={omitted_entry: None}, **options)
    return paths


@contextmanager
def _arrange_once(figure: Figure) -> Iterator[None]:
    """Run the layout engine once, and disable it in the context, because it takes half of the time of a `savefig`."""
    engine = figure.get_layout_engine()
    if engine is None:
        yield
        return
    engine.execute(figure)
    figure.set_layout_engine(None)
    try:
        yield
    finally:
        figure.set_layout_engine(engine)


def remove_figure(folder: Path, name: str) -> None:
    """Remove the PNG and the SVG file of a figure, if they exist."""
    for path in list_figure_files(folder, name):
        remove_file(path)


def list_figure_files(folder: Path | str, name: str) -> list[Path]:
    """Return the paths of the PNG and the SVG file of a figure."""
    return [Path(folder) / f"{name}.{suffix}" for suffix in ("png", "svg")]
