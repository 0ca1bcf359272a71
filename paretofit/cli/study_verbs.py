"""Verbs for studies and results tables: init, run, report, plan, pareto and learn."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from paretofit.cli import options
from paretofit.cli.options import app, print_result, split_names
from paretofit.core import InputError

if TYPE_CHECKING:
    from pandas import DataFrame

TablesArgument = Annotated[
    list[Path],
    Argument(help="Results tables (CSV). With several, the column 'table' contains the path of each row's table."),
]
MinimizeOption = Annotated[
    str,
    Option(
        help="Columns to minimise, separated by commas.",
        show_default="with --published ref_energy,ref_force,label_seconds",
    ),
]
GroupByOption = Annotated[
    str, Option(help="Columns that identify a setting; rows of a table with equal values are repetitions of it.")
]
PoolOption = Annotated[
    bool,
    Option("--pool", help="Rows of different tables with equal --group-by values are repetitions of one setting, too."),
]
FrontFileOption = Annotated[
    Path | None, Option("--out", "-o", help="CSV file to write the front to.", show_default="standard output")
]
PublishedOption = Annotated[
    bool,
    Option("--published", help="Read the published tables: medians over repetitions, with a label cost per level."),
]
SummariseOption = Annotated[
    str,
    Option(help="Columns by whose values the front is summarised; also prints its hypervolume and knee point."),
]


@app.command(epilog="Example:  paretofit init data/beryllium.h5 -o my_study.yaml")
def init(
    dataset: Annotated[Path | None, Argument(help="Dataset to write a study for (HDF5).")] = None,
    *,
    out: Annotated[Path, Option("--out", "-o", help="Study to write (YAML).")] = Path("study.yaml"),
    keys: Annotated[
        bool, Option("--keys", help="Print every key of a study with its default and meaning, and exit.")
    ] = False,
    bases: Annotated[
        bool,
        Option("--bases", help="Add further bases to compare: two other cutoffs, the linear form, and POD."),
    ] = False,
    schema: Annotated[Path | None, Option(help="Write the JSON Schema of studies to this file and exit.")] = None,
    force: options.Force = False,
) -> None:
    """Write a commented study for a dataset, and the JSON Schema that editors use for completion."""
    from paretofit.study import estimate_study_cost, tabulate_settings, write_json_schema, write_template

    if schema is not None:
        typer.echo(f"{write_json_schema(schema, overwrite=force)}")
    elif keys:
        for key, default, meaning in tabulate_settings():
            typer.echo(f"{key:<46} {default:<20} {meaning}")
    elif dataset is None:
        raise InputError("init requires a dataset: paretofit init DATASET.h5")
    else:
        path = write_template(dataset, out, with_bases=bases, overwrite=force)
        typer.echo(f"{path} has been written; check it, then run: paretofit run {path}")
        typer.echo(estimate_study_cost(path, jobs=options.count_cores()).text)


@app.command(epilog="Example:  paretofit run studies/quick.yaml --jobs 2")
def run(
    study: Annotated[Path, Argument(help="Study to run (YAML).")],
    *,
    out: options.RunFolder = None,
    allow_pickle: options.AllowPickle = False,
    jobs: options.Jobs,
    dry_run: Annotated[bool, Option("--dry-run", help="Only check the study and estimate its cost.")] = False,
    progress: options.Progress = True,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Run a study: descriptors, sweep, front and report. The same command resumes a stopped run."""
    from paretofit.study import estimate_study_cost, run_study

    if dry_run:
        cost = estimate_study_cost(study, jobs=jobs)
        print_result(cost, cost.text, as_json=as_json)
        return
    finished_run = run_study(study, out=out, jobs=jobs, progress=progress, allow_pickle=allow_pickle)
    text = str(finished_run.report) if quiet else finished_run.text
    print_result(finished_run.to_dict(), text, as_json=as_json)


@app.command(
    epilog="Examples:  paretofit report runs/beryllium-1a2b3c4d   |   paretofit report runs/beryllium-1a2b3c4d --open"
)
def report(
    run: Annotated[Path, Argument(help="Folder of a finished run.")],
    *,
    open_page: Annotated[bool, Option("--open", help="Show the page in a browser.")] = False,
    all_figures: Annotated[
        bool, Option("--all-figures", help="Also draw the figures that take long, such as parity plots of the labels.")
    ] = False,
    svg: Annotated[bool, Option("--svg", help="Write the figures as SVG, too.")] = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Rewrite the front, figures, tables and report.html of a run, without fitting."""
    from paretofit.study import rebuild_report

    page = rebuild_report(run, svg=svg, all_figures=all_figures)
    print_result(page.to_dict(), str(page.path) if quiet else page.text, as_json=as_json)
    if open_page:
        typer.launch(str(page.path))


@app.command(
    name="plan",
    epilog="Examples:  paretofit plan runs/quick-1a2b3c4d --budget 2h   |   paretofit plan results.csv --max-energy 25 "
    "--max-force 150   |   paretofit plan pilot.yaml --budget 20h --min-md-speed 5000 --json",
)
def plan_(
    source: Annotated[Path, Argument(help="Run folder, results table (CSV), or study of a pilot (YAML).")],
    *,
    budget: Annotated[
        str | None, Option(help="Computing time available for labels, such as 600 (s), 90min, 20h or 3d.")
    ] = None,
    max_energy: Annotated[float | None, Option(help="Largest acceptable energy error (meV/atom).")] = None,
    max_force: Annotated[float | None, Option(help="Largest acceptable force error (meV/Å).")] = None,
    min_md_speed: Annotated[
        float | None, Option(help="Lowest acceptable MD speed of the potential (atom-steps/s on one core).")
    ] = None,
    max_errors: Annotated[
        list[str] | None, Option("--max", help="Largest acceptable error of a property, such as C44=5; repeatable.")
    ] = None,
    prefer: Annotated[str, Option(help="Error to minimise: energy, force, or both (their product).")] = "both",
    extrapolation_factor: Annotated[
        float | None,
        Option(
            help="Largest number of configurations to recommend, as a multiple of the largest measured number.",
            show_default="2, or 30 for a pilot",
        ),
    ] = None,
    pilot_size: Annotated[
        int | None,
        Option(help="With a study: number of configurations to draw at random for the pilot.", show_default="all"),
    ] = None,
    out: Annotated[
        Path | None,
        Option("--out", "-o", help="With a study: folder for the pilot's results.", show_default="runs/<name>-pilot"),
    ] = None,
    study: Annotated[bool, Option("--study", help="Print a study of exactly this setting.")] = False,
    jobs: options.Jobs,
    progress: options.Progress = True,
    as_json: options.Json = False,
) -> None:
    """Recommend level, number of configurations, 2Jmax and weights for a budget, with the expected errors."""
    from paretofit.commands import parse_property_limits, plan

    choice = plan(
        source, budget=budget, max_energy=max_energy, max_force=max_force, min_md_speed=min_md_speed,
        max_properties=parse_property_limits(max_errors or []), prefer=prefer,
        extrapolation_factor=extrapolation_factor, n_pilot=pilot_size, out=out, jobs=jobs, progress=progress,
    )  # fmt: skip
    print_result(choice.to_dict(), choice.study_text if study else choice.text, as_json=as_json)


@app.command(
    epilog="Examples:  paretofit pareto results.csv --minimize ref_energy,ref_force,label_seconds --group-by level"
    "   |   paretofit pareto a/results.csv b/results.csv --minimize ref_energy,label_seconds --summarise table"
    "   |   paretofit pareto published/*.csv --published --figures-folder figures --out front.csv"
)
def pareto(
    tables: TablesArgument,
    *,
    minimize: MinimizeOption = "",
    group_by: GroupByOption = "",
    pool: PoolOption = False,
    aggregate: Annotated[str, Option(help="Statistic over repetitions: median, mean, min or max.")] = "median",
    out: FrontFileOption = None,
    drop_missing: Annotated[
        bool, Option("--drop-missing", help="Drop rows with missing values (they are counted).")
    ] = False,
    published: PublishedOption = False,
    figures_folder: Annotated[Path | None, Option(help="With --published: folder for the paper's figures.")] = None,
    summarise: SummariseOption = "",
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Find the Pareto-optimal rows of one or several tables, those that no other row dominates."""
    from paretofit.pareto import describe_front, extract_front_from_csv

    objectives = split_names(minimize)
    if published:
        from paretofit.commands import analyse_published_tables, format_published

        if group_by or pool or aggregate != "median":
            raise InputError("--published takes medians over repetitions; remove --group-by, --pool and --aggregate")
        analysis = analyse_published_tables(
            tables, minimize=objectives, out=out, figures_folder=figures_folder, overwrite=force
        )
        # Standard output carries only the front if it is printed as CSV or JSON.
        typer.echo(format_published(analysis), err=out is None or as_json)
        front = analysis.front
        objectives = objectives or ["ref_energy", "ref_force", "label_seconds"]
    elif figures_folder is not None:
        raise InputError("--figures-folder requires --published; remove it, or read the published tables")
    elif not objectives:
        raise InputError("pareto requires --minimize COLUMN,..., or --published")
    else:
        front = extract_front_from_csv(
            tables, objectives, split_names(group_by), aggregate, out,
            pool=pool, drop_missing=drop_missing, overwrite=force,
        )  # fmt: skip
    if summarise:
        typer.echo(describe_front(front, objectives, split_names(summarise)), err=out is None or as_json)
    for note in front.attrs.get("notes", []):
        typer.echo(note, err=True)
    if n_dropped := front.attrs["dropped_rows"]:
        typer.echo(f"{n_dropped} rows with missing values were dropped", err=True)
    text = f"{len(front)} rows on the front, written to {out}" if out is not None else _format_csv(front)
    print_result(front, text, as_json=as_json)


def _format_csv(table: "DataFrame") -> str:
    """Format a table as CSV without its index and the last line end, with escaped spreadsheet formulas."""
    from paretofit.core import escape_formulas

    return escape_formulas(table).to_csv(index=False, float_format="%.10g", lineterminator="\n").removesuffix("\n")


@app.command(epilog="Examples:  paretofit learn studies/learn_quick.yaml   |   paretofit learn my.yaml --stage explore")
def learn(
    study: Annotated[Path, Argument(help="Study (YAML) with a section 'learning'.")],
    *,
    out: options.RunFolder = None,
    stage: Annotated[
        str | None, Option(help="Run only this stage of the current iteration: label, train, explore or select.")
    ] = None,
    allow_pickle: options.AllowPickle = False,
    jobs: options.Jobs,
    progress: options.Progress = True,
    as_json: options.Json = False,
) -> None:
    """Run or resume the active-learning loop: label, train a committee, explore by MD, select uncertain frames."""
    from paretofit import commands

    def notify(message: str) -> None:
        typer.echo(message, err=as_json)

    learning = commands.learn(
        study, out=out, stage=stage, jobs=jobs, progress=progress, notify=notify, allow_pickle=allow_pickle
    )
    print_result(learning, learning.text, as_json=as_json)
    if learning.has_failed:
        raise typer.Exit(1)
