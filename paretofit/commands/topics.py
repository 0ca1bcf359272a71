"""Help topics for the terminal and the API reference: Markdown files beside the code that they describe."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.resources import files

from paretofit.core import check_choice

TOPICS = {  # package and file of each topic
    "data": ("paretofit.dataset", "data.md"),
    "planning": ("paretofit.pareto", "planning.md"),
    "labelling": ("paretofit.labelling", "labelling.md"),
    "structures": ("paretofit.structures", "structures.md"),
    "material-properties": ("paretofit.properties", "properties.md"),
    "potentials": ("paretofit.potentials", "potentials.md"),
    "fitsnap": ("paretofit.fitsnap", "fitsnap.md"),
    "uncertainty": ("paretofit.uncertainty", "uncertainty.md"),
    "validation": ("paretofit.validation", "validation.md"),
    "learning": ("paretofit.learning", "learning.md"),
    "mace": ("paretofit.potentials.mace", "mace.md"),
    "clusters": ("paretofit.execution", "clusters.md"),
    "gpu": ("paretofit.linear", "gpu.md"),
    "yaml": ("paretofit.study", "yaml.md"),
    "run-folder": ("paretofit.study", "run-folder.md"),
    "maths": ("paretofit.linear", "maths.md"),
    "published": ("paretofit.published", "published.md"),
}
DERIVATION = "paretofit.linear.reduction"  # its docstring is the second part of the topic 'maths'


def read_topic(name: str) -> str:
    """Read a help topic as Markdown.

    Raises
    ------
    InputError
        If there is no such topic.
    """
    check_choice("the help topic", name, TOPICS)
    package, file = TOPICS[name]
    text = files(package).joinpath(file).read_text(encoding="utf-8")
    if name == "maths":
        text += f"\n## Derivation\n\n{inspect.getdoc(import_module(DERIVATION))}\n"
    return text


def list_topics() -> list[tuple[str, str]]:
    """List all help topics as pairs of name and title."""
    return [(name, read_topic(name).partition("\n")[0].lstrip("# ")) for name in TOPICS]
