"""What the verbs share: the application, its console, and options that several of them have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console

from paretofit.cli.stopping import VerbGroup
from paretofit.core import InputError

if TYPE_CHECKING:
    from paretofit.potentials import CommitteeSettings

app = typer.Typer(
    name="paretofit",
    cls=VerbGroup,
    help="Decide how to make an interatomic potential: DFT convergence, data, model and weights on one Pareto front.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console()
JobsOption = Annotated[
    Optional[int],  # noqa: UP045  (typer)
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        help="Processes of this machine (a cluster has its own); no number depends on it.",
        show_default="one for each core",
    ),
]

CommitteeOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--committee", help="Members of a committee: error bars, intervals and extrapolation grades."),
]
CommitteeMethodOption = Annotated[
    str,
    typer.Option("--method", help="How members are made: bootstrap, subset, posterior or pops (needs --committee)."),
]
CoverageOption = Annotated[float, typer.Option("--coverage", help="Share of labels that the intervals hold.")]


def read_committee_options(members: int | None, method: str, coverage: float, seed: int) -> CommitteeSettings | None:
    """The committee that the options ask for, if any."""
    from paretofit.potentials import CommitteeSettings

    if members is None:
        if method != "bootstrap":
            raise InputError(f"--method {method} is of a committee; say how many members with --committee")
        return None
    return CommitteeSettings(members, method, coverage, seed)


def split_names(text: str) -> list[str]:
    """Words separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]
