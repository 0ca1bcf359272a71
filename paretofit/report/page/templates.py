"""HTML templates of the pages; jinja2 escapes all text from data and from callers."""

from typing import Any

import jinja2

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("paretofit", "report/page"),
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


def render_template(name: str, **context: Any) -> str:
    """Render a template from the directory of this module with the variables in `context`."""
    return _ENVIRONMENT.get_template(name).render(**context)
