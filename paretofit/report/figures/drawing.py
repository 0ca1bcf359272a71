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
    """A figure to draw: the stem of its files, a function that draws it, and one that returns its caption.

    A secondary figure is drawn on request only, because it takes as long as all that a reader looks at first.
    """

    name: str
    draw: Callable[[], Axes | np.ndarray]
    caption: Callable[[], str]
    wide: bool = True
    is_secondary: bool = False


def render_figure(
    plan: FigurePlan, folder: Path, formats: Sequence[str] = ("png", "svg"), dpi: float | None = None
) -> ReportFigure:
    """Draw and save a figure; if it cannot be drawn, remove its old files and return the reason instead of an image.

    Parameters
    ----------
    plan : FigurePlan
    folder : Path
    formats : sequence of {"png", "svg"}
        The page shows the first one.
    dpi : float, optional
        Resolution of the PNG.
    """
    style.remove_figure(folder, plan.name)
    try:
        axes = plan.draw()
    except style.CannotDrawError as reason:
        return ReportFigure(plan.name, "", missing_reason=str(reason))
    paths = style.save_figure(style.get_parent_figure(axes), folder, plan.name, formats, dpi)
    image = paths[0].read_bytes()
    mime = {".png": "image/png", ".svg": "image/svg+xml"}[paths[0].suffix]
    return ReportFigure(plan.name, plan.caption(), image=image, mime=mime, wide=plan.wide)
