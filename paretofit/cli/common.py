"""What the verbs share: the application, its console, and options that several of them have."""

from __future__ import annotations

from typing import Annotated, Optional

import typer
from rich.console import Console

app = typer.Typer(
    name="paretofit",
    help="Decide how to make an interatomic potential: DFT convergence, data, model and weights on one Pareto front.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console()
Jobs = Annotated[
    Optional[int],  # noqa: UP045  (typer)
    typer.Option("--jobs", "-j", min=1, help="Processes; no number depends on it.", show_default="one for each core"),
]


def names(text: str) -> list[str]:
    """Words separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]
