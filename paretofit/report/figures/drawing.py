"""Planned figures of a report, and their rendering to files and to images on the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from paretofit.report.figures import style
from paretofit.report.page.sweep_page import ReportFigure


@dataclass(frozen=True)
class FigurePlan:
    """Figure to be drawn.

    Attributes
    ----------
    name : str
        Name of its files, without a suffix.
    draw : callable
        Function that draws the figure and returns its axes.
    caption : callable
        Function that returns the caption.
    is_wide : bool
        Whether the figure has the full width of the page.
    is_secondary : bool
        Whether the figure is drawn on request only, because drawing it takes as long as drawing all primary figures.
    """

    name: str
    draw: Callable[[], Axes | np.ndarray]
    caption: Callable[[], str]
    is_wide: bool = True
    is_secondary: bool = False


def render_figure(
    plan: FigurePlan, folder: Path, formats: Sequence[str] = ("png", "svg"), dpi: float | None = None
) -> ReportFigure:
    """Remove older files of a figure, draw it, and save it as files.

    Parameters
    ----------
    plan : FigurePlan
    folder : Path
        Directory of the files.
    formats : sequence of {"png", "svg"}
        Formats of the files; the page shows the first one.
    dpi : float, optional
        Resolution of the PNG; by default that of the style.

    Returns
    -------
    ReportFigure
        Image and caption or, if the figure cannot be drawn, the reason.
    """
    style.remove_figure(folder, plan.name)
    try:
        axes = plan.draw()
    except style.CannotDrawError as error:
        return ReportFigure(plan.name, "", missing_reason=str(error))
    paths = style.save_figure(style.get_parent_figure(axes), folder, plan.name, formats, dpi)
    image = paths[0].read_bytes()
    mime = {".png": "image/png", ".svg": "image/svg+xml"}[paths[0].suffix]  # media type of the image
    return ReportFigure(plan.name, plan.caption(), image=image, mime=mime, is_wide=plan.is_wide)
