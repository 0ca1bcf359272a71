"""A figure of the report before it is drawn, and what becomes of it: files and a picture on the page, or a reason."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from paretofit.core import remove_file
from paretofit.report.figures import style
from paretofit.report.figures import sweep_figures as figures
from paretofit.report.page.sweep_page import ReportFigure

LARGEST_SVG = 200_000  # bytes; of what has thousands of points the page holds the bitmap


@dataclass(frozen=True)
class FigurePlan:
    """A figure to be made: its file name, how to draw it, and what its caption says."""

    name: str
    draw: Callable[[], Axes | np.ndarray]
    caption: Callable[[], str]
    wide: bool = True


def render_figure(plan: FigurePlan, folder: Path) -> ReportFigure:
    """Draw and save a figure; where it cannot be drawn, remove what an earlier report left and say why."""
    try:
        drawn = plan.draw()
    except figures.CannotDrawError as reason:
        for kind in ("png", "svg"):
            remove_file(folder / f"{plan.name}.{kind}")
        return ReportFigure(plan.name, "", missing_reason=str(reason))
    png, svg = (path.read_bytes() for path in style.save_figure(style.get_parent_figure(drawn), folder, plan.name))
    image, mime = (svg, "image/svg+xml") if len(svg) < max(LARGEST_SVG, len(png)) else (png, "image/png")
    return ReportFigure(plan.name, plan.caption(), image=image, mime=mime, wide=plan.wide)
