"""Empty pictures in place of figures that no test looks at: rendering takes most of the time of a small run."""

from contextlib import contextmanager

import pytest
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

_SAVEFIG, _ARRANGE = Figure.savefig, ConstrainedLayoutEngine.execute


def _save_empty_picture(figure, path, **options):
    del figure  # it has been drawn, so that errors of the data are noticed
    _SAVEFIG(Figure(figsize=(0.1, 0.1)), path, **options)


@contextmanager
def empty_pictures():
    """Save figures as small valid PNG and SVG files with nothing on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", _save_empty_picture)
        patch.setattr(ConstrainedLayoutEngine, "execute", lambda *_: None)
        yield


@contextmanager
def rendered_pictures():
    """Render figures, also within `empty_pictures`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", _SAVEFIG)
        patch.setattr(ConstrainedLayoutEngine, "execute", _ARRANGE)
        yield
