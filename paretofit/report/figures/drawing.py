"""Planned figures of a report, and their rendering to files and to images on the page."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from paretofit.report.figures import style
from paretofit.report.page.sweep_page import ReportFigure

MAX_SVG_BYTES = 200_000  # a larger SVG (thousands of points) is shown as a bitmap if that is smaller


@dataclass(frozen=True)
class FigurePlan:
    """A figure to draw: the stem of its files, a function that draws it, and one that returns its caption."""

    name: str
    draw: Callable[[], Axes | np.ndarray]
    caption: Callable[[], str]
    wide: bool = True


def render_figure(plan: FigurePlan, folder: Path) -> ReportFigure:
    """Draw and save a figure; if it cannot be drawn, remove its old files and return the reason instead of an image."""
    try:
        axes = plan.draw()
    except style.CannotDrawError as reason:
        style.remove_figure(folder, plan.name)
        return ReportFigure(plan.name, "", missing_reason=str(reason))
    png, svg = (path.read_bytes() for path in style.save_figure(style.get_parent_figure(axes), folder, plan.name))
    image, mime = (svg, "image/svg+xml") if len(svg) < max(MAX_SVG_BYTES, len(png)) else (png, "image/png")
    return ReportFigure(plan.name, plan.caption(), image=image, mime=mime, wide=plan.wide)
