"""Verbs around potentials."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from paretofit.cli.common import (
    CommitteeMethodOption,
    CommitteeOption,
    CoverageOption,
    JobsOption,
    app,
    read_committee_options,
    split_names,
)
from paretofit.core import InputError


@app.command(
    epilog="Examples:  paretofit fit data/beryllium.h5 --twojmax 6 --committee 8 -o potential   |   paretofit fit "
    "--fitsnap Ta-example.in -o potential   |   the same with --optimise-weights energy,force"
)
def fit(
    source: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(help="A dataset (HDF5), or a study (YAML) whose dataset, basis and split are taken."),
    ] = None,
    fitsnap: Annotated[Optional[Path], typer.Option("--fitsnap", help="A FitSNAP input (.in), as it is.")] = None,  # noqa: UP045
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")] = Path("potential"),
    level: Annotated[Optional[str], typer.Option(help="Of the labels.", show_default="the last")] = None,  # noqa: UP045
    twojmax: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Of the model.", show_default="the largest, up to 8, for which there are rows enough"),
    ] = None,
    weight: Annotated[Optional[float], typer.Option(help="w_E/w_F.", show_default="12.25, or the study's")] = None,  # noqa: UP045
    hold_out: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Share of the configurations that calibrates and does not train.", show_default="0.2"),
    ] = None,
    committee: CommitteeOption = None,
    method: CommitteeMethodOption = "bootstrap",
    coverage: CoverageOption = 0.9,
    optimise_weights: Annotated[
        str,
        typer.Option(
            help="--fitsnap: search for group weights: energy, force, stress, Liquid:force, difference:a/b of files."
        ),
    ] = "",
    front: Annotated[
        bool, typer.Option("--front", help="--fitsnap: also the front between two objectives, as weights_front.csv.")
    ] = False,
    regulariser: Annotated[
        float, typer.Option(min=0.0, help="--fitsnap: how strongly weights are held where they are.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Of what is held out, and of the committee.")] = 1,
    jobs: JobsOption = None,
) -> None:
    """Fit a dataset, or what a FitSNAP input says, and write a LAMMPS potential, with a committee if asked for."""
    from joblib import cpu_count

    from paretofit.commands import fit_fitsnap, format_fit

    if (source is None) == (fitsnap is None):
        raise InputError("fit needs a dataset or a study, or --fitsnap INPUT, and not both")
    if source is not None:
        from paretofit.commands import fit_dataset

        if optimise_weights or front:
            raise InputError("--optimise-weights and --front go with --fitsnap; a study has 'group_weights'")
        fitted = fit_dataset(
            source,
            output,
            level=level,
            twojmax=twojmax,
            weight_ratio=weight,
            held_out_fraction=hold_out,
            committee=read_committee_options(committee, method, coverage, seed),
            seed=seed,
            jobs=jobs or cpu_count(),
            progress=True,
        )
        typer.echo(fitted.text)
        return
    assert fitsnap is not None  # noqa: S101  (one of the two is there)
    if any(one is not None for one in (level, twojmax, weight, hold_out)):
        raise InputError("--level, --twojmax, --weight and --hold-out go with a dataset; a FitSNAP input says its own")
    made = fit_fitsnap(
        fitsnap,
        output,
        objectives=split_names(optimise_weights),
        front=front,
        regulariser=regulariser,
        seed=seed,
        committee=read_committee_options(committee, method, coverage, seed),
        jobs=jobs or cpu_count(),
        progress=True,
    )
    typer.echo(format_fit(made))


@app.command(
    epilog="Examples:  paretofit evaluate potential data/beryllium_far.h5 -o evaluation   |   paretofit evaluate "
    "potential candidates.extxyz   |   paretofit evaluate potential --md-speed --cell bulk.cif"
)
def evaluate(
    potential: Annotated[
        Path, typer.Argument(help="A SNAP potential (.mod or .snapcoeff) or the folder of any, also of MACE networks.")
    ],
    dataset: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(help="A dataset (HDF5), or anything ASE reads, labelled or not."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for tables and figures.")] = Path(
        "evaluation"
    ),
    level: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Whose labels.", show_default="the potential's, or the last"),
    ] = None,
    coverage: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Share of labels that the intervals are to hold.", show_default="the potential's"),
    ] = None,
    max_energy: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="meV/atom: flag what the disagreement says is worse."),
    ] = None,
    max_force: Annotated[Optional[float], typer.Option(help="meV/Å: the same.")] = None,  # noqa: UP045
    max_stress: Annotated[Optional[float], typer.Option(help="GPa: the same.")] = None,  # noqa: UP045
    calibration: Annotated[
        str, typer.Option(help="From errors to disagreements: slope, isotonic or quantile.")
    ] = "slope",
    md_speed: Annotated[bool, typer.Option("--md-speed", help="Time dynamics on one core.")] = False,
    cell: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Structure to time it on, anything ASE reads.", show_default="the element's crystal"),
    ] = None,
    jobs: JobsOption = None,
) -> None:
    """Errors of a potential and, of a committee, disagreements, intervals and extrapolation grades; or its speed."""
    from joblib import cpu_count

    from paretofit.commands import evaluate_dataset, evaluate_md_speed

    if not md_speed and dataset is None:
        raise InputError("evaluate needs a dataset, or --md-speed, or both")
    if dataset is not None:
        tolerances = {"energy": max_energy, "force": max_force, "stress": max_stress}
        found = evaluate_dataset(
            potential,
            dataset,
            output,
            level=level,
            coverage=coverage,
            tolerances={key: value for key, value in tolerances.items() if value is not None},
            calibration=calibration,
            jobs=jobs or cpu_count(),
            progress=True,
        )
        typer.echo(found.text)
    if md_speed:
        speed = evaluate_md_speed(potential, cell)
        typer.echo(
            f"{speed.us_per_atom_step:.4g} µs for each atom and step, {speed.atom_steps_per_second:.4g} atoms·steps/s "
            f"on one core ({speed.n_atoms} atoms, slowest of three timings {speed.max_min_ratio:.2f} times the fastest)"
        )
