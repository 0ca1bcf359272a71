"""HTML templates of the pages; jinja2 escapes everything that comes from data or from the caller."""

from typing import Any

import jinja2

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("paretofit", "report/page"),
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


def render_template(name: str, **context: Any) -> str:
    """Render a template of this folder."""
    return _ENVIRONMENT.get_template(name).render(**context)
