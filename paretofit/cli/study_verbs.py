"""Verbs that make, run and read studies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from paretofit.cli.common import JobsOption, app, console, split_names
from paretofit.core import InputError


@app.command(epilog="Example:  paretofit init data/beryllium.h5 -o my_study.yaml")
def init(
    dataset: Annotated[Optional[Path], typer.Argument(help="A dataset (HDF5).")] = None,  # noqa: UP045  (typer)
    output: Annotated[Path, typer.Option("--output", "-o", help="The study to write.")] = Path("study.yaml"),
    keys: Annotated[bool, typer.Option("--keys", help="List every key of a study and stop.")] = False,
) -> None:
    """Write a commented study for a dataset."""
    from paretofit.study import tabulate_settings, write_template

    if keys:
        for key, default, meaning in tabulate_settings():
            typer.echo(f"{key:<46} {default:<20} {meaning}")
        return
    if dataset is None:
        raise InputError("init needs a dataset: paretofit init DATASET.h5")
    path = write_template(dataset, output)
    console.print(f"{path} written; look through it, then: paretofit run {path}", highlight=False)


@app.command(epilog="Example:  paretofit run studies/quick.yaml --jobs 2")
def run(
    study: Annotated[Path, typer.Argument(help="The study (YAML).")],
    out: Annotated[Optional[Path], typer.Option("--out", help="Run folder.", show_default="runs/<name>-<hash>")] = None,  # noqa: UP045
    jobs: JobsOption = None,
) -> None:
    """Run a study: descriptors, sweep, front, report. Run again, it goes on where it stopped."""
    from joblib import cpu_count

    from paretofit.study import run_study

    result = run_study(study, out=out, jobs=jobs or cpu_count(), progress=True)
    for warning in result.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    seconds = ", ".join(f"{stage} {value:.1f} s" for stage, value in result.stage_seconds.items())
    overall = int(result.front["overall"].sum())
    console.print(
        f"{len(result.results)} fits; medians over repetitions: {overall} points on the front over all 2Jmax, "
        f"{len(result.front)} on the fronts of each ({seconds})",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"{result.report}", soft_wrap=True, highlight=False)


@app.command(epilog="Example:  paretofit report runs/beryllium-1a2b3c4d")
def report(run: Annotated[Path, typer.Argument(help="The folder of a finished run.")]) -> None:
    """Write front, figures, tables and report.html of a run again, without fitting."""
    from paretofit.study import rebuild_report

    made = rebuild_report(run)
    for warning in made.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"{made.path}", soft_wrap=True, highlight=False)


@app.command(
    name="plan",
    epilog="Examples:  paretofit plan runs/quick-1a2b3c4d --budget 2h   |   paretofit plan results.csv --max-energy 25 "
    "--max-force 150   |   paretofit plan pilot.yaml --budget 20h --md-speed 5000 --json",
)
def plan_(
    source: Annotated[
        Path, typer.Argument(help="A run folder, a results table (CSV), or the study of a pilot (YAML).")
    ],
    budget: Annotated[Optional[str], typer.Option(help="For labels, core time: 600, 90min, 20h, 3d.")] = None,  # noqa: UP045
    max_energy: Annotated[Optional[float], typer.Option(help="Largest energy error, meV/atom.")] = None,  # noqa: UP045
    max_force: Annotated[Optional[float], typer.Option(help="Largest force error, meV/Å.")] = None,  # noqa: UP045
    md_speed: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Least speed of the potential, atoms·steps/s on a core."),
    ] = None,
    prefer: Annotated[
        str, typer.Option(help="Which error to make lowest: both (their product), energy, force.")
    ] = "both",
    extrapolate: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="How many times more configurations than measured may be recommended.", show_default="2; 30"),
    ] = None,
    pilot: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Pilot: take so many of its dataset's configurations, at random.", show_default="all"),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", help="Pilot: where its fits are kept.", show_default="runs/<name>-pilot"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, for scripts.")] = False,
    study: Annotated[
        bool, typer.Option("--study", help="Write only the keys of a study that fits exactly this.")
    ] = False,
    jobs: JobsOption = None,
) -> None:
    """Say what to run with a budget: level, configurations, 2Jmax and weights, with the errors to expect."""
    import json

    from joblib import cpu_count

    from paretofit.commands import plan

    made = plan(
        source,
        budget=budget,
        max_energy=max_energy,
        max_force=max_force,
        min_md_speed=md_speed,
        prefer=prefer,
        extrapolation_factor=extrapolate,
        n_pilot=pilot,
        out=out,
        jobs=jobs or cpu_count(),
        progress=not as_json,
    )
    typer.echo(json.dumps(made.to_dict(), indent=1) if as_json else made.study_text if study else made.text)


@app.command(
    epilog="Examples:  paretofit pareto results.csv --minimize ref_energy,ref_force,label_seconds --group-by level"
    "   |   paretofit pareto published/*.csv --published --figures figures --out front.csv"
)
def pareto(
    tables: Annotated[list[Path], typer.Argument(help="Any CSV; with --published one or several.")],
    minimize: Annotated[
        str,
        typer.Option(
            help="Columns to minimise, separated by commas.",
            show_default="with --published ref_energy,ref_force,label_seconds",
        ),
    ] = "",
    group_by: Annotated[str, typer.Option("--group-by", help="Rows with equal values here are repetitions.")] = "",
    aggregate: Annotated[
        str, typer.Option("--aggregate", help="median, mean, min or max over repetitions.")
    ] = "median",
    out: Annotated[Optional[Path], typer.Option("--out", help="Write the front to this CSV.")] = None,  # noqa: UP045
    drop_missing: Annotated[bool, typer.Option("--drop-missing", help="Leave out rows with missing values.")] = False,
    published: Annotated[
        bool, typer.Option("--published", help="The published tables: medians over repetitions, a cost per level.")
    ] = False,
    figures: Annotated[Optional[Path], typer.Option(help="With --published: folder for the paper's figures.")] = None,  # noqa: UP045
    anatomy: Annotated[
        str,
        typer.Option(help="Also say hypervolume, knee, and how much of the front the values of these columns hold."),
    ] = "",
) -> None:
    """Find the rows of a table that no other row beats in every objective."""
    from paretofit.pareto import describe_front, extract_front_from_csv

    if published:
        from paretofit.commands import analyse_published_tables, format_published

        if group_by or aggregate != "median":
            raise InputError("--published takes medians over repetitions; leave out --group-by and --aggregate")
        study = analyse_published_tables(tables, minimize=split_names(minimize), out=out, figures_folder=figures)
        typer.echo(format_published(study), err=out is None)
        front = study.front
    elif len(tables) != 1 or not minimize or figures is not None:
        raise InputError("pareto needs one table and --minimize COLUMN,...; several tables and --figures go with "
                         "--published")  # fmt: skip
    else:
        front = extract_front_from_csv(
            tables[0], split_names(minimize), split_names(group_by), aggregate, out, drop_missing=drop_missing
        )
    if anatomy:
        objectives = split_names(minimize) or ["ref_energy", "ref_force", "label_seconds"]
        typer.echo(describe_front(front, objectives, split_names(anatomy)), err=out is None)
    if dropped := front.attrs["dropped_rows"]:
        Console(stderr=True).print(f"{dropped} rows with missing values were left out", highlight=False)
    if out is None:
        sys.stdout.write(front.to_csv(index=False, float_format="%.10g", lineterminator="\n"))
    else:
        console.print(f"{len(front)} rows on the front, written to {out}", highlight=False)


@app.command(
    epilog="Examples:  paretofit learn studies/learn_quick.yaml   |   again, after a stop or a kill: it goes on   |   "
    "paretofit learn my.yaml --stage explore"
)
def learn(
    study: Annotated[Path, typer.Argument(help="The study (YAML), with the section 'learning'.")],
    out: Annotated[Optional[Path], typer.Option("--out", help="Run folder.", show_default="runs/<name>-learn")] = None,  # noqa: UP045
    stage: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Only this stage of the present iteration: label, train, explore or select."),
    ] = None,
    jobs: JobsOption = None,
) -> None:
    """Active learning: label, train a committee, explore by MD, select what is uncertain, and again."""
    from joblib import cpu_count

    from paretofit.commands import learn as run_learn

    def say(words: str) -> None:
        console.print(words, highlight=False, markup=False, soft_wrap=True)

    result = run_learn(study, out=out, stage=stage, jobs=jobs or cpu_count(), progress=True, notify=say)
    typer.echo(result.text)
    if result.failed:
        raise typer.Exit(1)
