"""The verb that checks a potential on physics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional, TypeVar

import typer

from paretofit.cli.common import app, console, split_names
from paretofit.core import InputError

T = TypeVar("T", int, float)
Structures = Annotated[
    Optional[list[Path]],  # noqa: UP045  (typer)
    typer.Option(help="A structure, anything ASE reads; may be repeated.", show_default="the elements' crystals"),
]
Surfaces = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="Miller indices, 1,1,1; may be repeated.", show_default="three low ones"),
]
Sites = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="A site in fractions of the conventional cell, 0.5,0.5,0.5; may be repeated."),
]


@app.command(
    epilog="Examples:  paretofit validate potential/potential.mod --structure hcp.cif -o checks   |   paretofit "
    "validate potential --against ase.calculators.emt.EMT --structure cu.cif --quick -o checks"
)
def validate(
    potential: Annotated[
        str,
        typer.Argument(
            help="A SNAP potential's files or folder, a MACE committee's folder, a file with the pair_style lines of a "
            "LAMMPS script, or an ASE "
            "calculator, module.Class; with +d2 or +d3 at its end dispersion is added."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")] = Path("validation"),
    against: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Another one of these to compare with, or the validation.csv of one."),
    ] = None,
    structure: Structures = None,
    properties: Annotated[
        str,
        typer.Option(
            "--property",
            help="By commas: lattice, eos, elastic, phonons, defects, surfaces, interlayer, dimer, md.",
            show_default="all",
        ),
    ] = "",
    prototypes: Annotated[str, typer.Option(help="Crystals of an element whose equations of state are compared.")] = (
        "fcc,bcc,hcp"
    ),
    surface: Surfaces = None,
    interstitial: Sites = None,
    temperature: Annotated[float, typer.Option(min=1.0, help="Of the dynamics, K.")] = 300.0,
    time: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0.1, help="Of the dynamics with a thermostat, ps.", show_default="10, or 0.5 with --quick"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small cells and short dynamics.")] = False,
) -> None:
    """Check a potential on physics: crystals, elasticity, phonons, defects, surfaces, dynamics, short distances."""
    from paretofit.commands import validate_potential as run
    from paretofit.validation import QUICK_EFFORT, Effort, ValidationSettings

    effort = QUICK_EFFORT if quick else Effort()
    protocol = replace(effort.md_protocol, temperature=temperature, nvt_time_ps=time or effort.md_protocol.nvt_time_ps)
    settings = ValidationSettings(
        replace(effort, md_protocol=protocol),
        tuple(split_names(prototypes)),
        tuple(_three("--surface", text, int) for text in surface or []),
        tuple(_three("--interstitial", text, float) for text in interstitial or []),
    )
    result = run(
        potential,
        output,
        against=against,
        structures=structure or (),
        properties=split_names(properties),
        settings=settings,
        progress=True,
    )
    console.print(result.text, markup=False, highlight=False, soft_wrap=True)


def _three(option: str, text: str, kind: type[T]) -> tuple[T, T, T]:
    try:
        a, b, c = (kind(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} needs three numbers separated by commas; got '{text}'") from error
    return a, b, c
