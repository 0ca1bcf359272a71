"""Verbs around potentials."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from paretofit.cli.common import Jobs, app, names
from paretofit.errors import InputError


@app.command(
    epilog="Examples:  paretofit fit --fitsnap Ta-example.in -o potential   |   the same with --optimise-weights "
    "energy,force"
)
def fit(
    fitsnap: Annotated[Path, typer.Option("--fitsnap", help="A FitSNAP input (.in), as it is.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")] = Path("potential"),
    optimise_weights: Annotated[
        str,
        typer.Option(help="Search for group weights: energy, force, stress, Liquid:force, difference:a/b of files."),
    ] = "",
    front: Annotated[
        bool, typer.Option("--front", help="Also the front between two objectives, as weights_front.csv.")
    ] = False,
    regulariser: Annotated[float, typer.Option(min=0.0, help="How strongly weights are held where they are.")] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Of what is held out while weights are searched for.")] = 1,
    jobs: Jobs = None,
) -> None:
    """Fit what a FitSNAP input says, with the errors that FitSNAP shows, and write a LAMMPS potential."""
    from joblib import cpu_count

    from paretofit.study.fit import fit_fitsnap, format_fit

    made = fit_fitsnap(
        fitsnap,
        output,
        optimise=names(optimise_weights),
        front=front,
        regulariser=regulariser,
        seed=seed,
        jobs=jobs or cpu_count(),
        progress=True,
    )
    typer.echo(format_fit(made))


@app.command(epilog="Example:  paretofit evaluate potential/potential.mod --md-speed --cell bulk.cif")
def evaluate(
    potential: Annotated[Path, typer.Argument(help="A SNAP potential: its .mod, .snapcoeff, or their folder.")],
    md_speed: Annotated[bool, typer.Option("--md-speed", help="Time LAMMPS on one core.")] = False,
    cell: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Structure to time it on, anything ASE reads.", show_default="the element's crystal"),
    ] = None,
    dataset: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--dataset", help="Errors of the potential on a dataset, at each level."),
    ] = None,
) -> None:
    """Say how fast a potential is, and how large its errors are on a dataset."""
    from paretofit.study.evaluate import evaluate_errors, evaluate_speed

    if not md_speed and dataset is None:
        raise InputError("evaluate needs --md-speed or --dataset DATASET.h5, or both")
    if dataset is not None:
        errors = evaluate_errors(potential, dataset)
        typer.echo("energies in meV/atom, forces in meV/Å, stresses in GPa")
        typer.echo(errors.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    if md_speed:
        speed = evaluate_speed(potential, cell)
        typer.echo(
            f"{speed.us_per_atom_step:.4g} µs for each atom and step, {speed.atom_steps_per_second:.4g} atoms·steps/s "
            f"on one core ({speed.atoms} atoms, slowest of three timings {speed.spread:.2f} times the fastest)"
        )
