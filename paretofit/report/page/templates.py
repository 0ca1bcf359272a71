"""HTML templates of the pages; jinja2 escapes all text that is inserted into them."""

from typing import Any

import jinja2

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("paretofit", "report/page"),
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


def render_template(name: str, **context: Any) -> str:
    """Render the template with this file name, from the directory of this module, with the variables in `context`.

    A variable that the template uses and `context` lacks raises `jinja2.UndefinedError`.
    """
    return _ENVIRONMENT.get_template(name).render(**context)
