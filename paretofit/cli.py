"""The command line: verbs, progress, exit codes; every verb calls one public function.

Exit code 0: done; 1: the work failed; 2: the input is wrong, said in one sentence.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from paretofit import __version__
from paretofit.errors import InputError

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


def main() -> None:
    """Run the command line and turn wrong input into one sentence and exit code 2."""
    try:
        app()
    except InputError as error:
        Console(stderr=True, soft_wrap=True).print(f"paretofit: {error}", markup=False, highlight=False)
        sys.exit(2)


def _version(value: bool) -> None:
    if value:
        console.print(f"paretofit {__version__}")
        raise typer.Exit


@app.callback()
def _callback(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example:  paretofit init data/beryllium.h5 -o my_study.yaml")
def init(
    dataset: Annotated[Optional[Path], typer.Argument(help="A dataset (HDF5).")] = None,  # noqa: UP045  (typer)
    output: Annotated[Path, typer.Option("--output", "-o", help="The study to write.")] = Path("study.yaml"),
    keys: Annotated[bool, typer.Option("--keys", help="List every key of a study and stop.")] = False,
) -> None:
    """Write a commented study for a dataset."""
    from paretofit.study import write_template
    from paretofit.study.schema import settings_table

    if keys:
        for key, default, meaning in settings_table():
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
    jobs: Jobs = None,
) -> None:
    """Run a study: descriptors, sweep, front, report. Run again, it goes on where it stopped."""
    from joblib import cpu_count

    from paretofit.study import run_study

    try:
        result = run_study(study, out=out, jobs=jobs or cpu_count(), progress=True)
    except KeyboardInterrupt:
        typer.echo("paretofit: interrupted; the same command goes on where this one stopped", err=True)
        raise typer.Exit(130) from None  # what shells expect of an interrupted command
    for warning in result.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    seconds = ", ".join(f"{stage} {value:.1f} s" for stage, value in result.seconds.items())
    overall = int(result.front["overall"].sum())
    console.print(
        f"{len(result.results)} fits; medians over repetitions: {overall} points on the front over all 2Jmax, "
        f"{len(result.front)} on the fronts of each ({seconds})",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"{result.report}", soft_wrap=True, highlight=False)


@app.command(
    epilog="Example:  paretofit label studies/label_beryllium.yaml --dry-run   |   the same without, to compute"
)
def label(
    study: Annotated[Path, typer.Argument(help="The study (YAML) with a section 'labelling'.")],
    out: Annotated[Optional[Path], typer.Option("--out", help="Run folder.", show_default="runs/<name>-labels")] = None,  # noqa: UP045
    jobs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--jobs", "-j", min=1, help="Labels at a time, a core for each.", show_default="all cores"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it will cost, from up to eight cheap labels, which are kept.")
    ] = False,
    collect: Annotated[
        bool, typer.Option("--collect", help="Write the dataset with what is finished, also while others compute.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Compute again what failed.")] = False,
    write_inputs: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--write-inputs", help="Compute nothing; write VASP, QE or ABINIT inputs below this folder."),
    ] = None,
    read_outputs: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--read-outputs", help="Compute nothing; take in what has run in such a folder."),
    ] = None,
) -> None:
    """Compute the labels that a dataset lacks, each safe on disk at once. Run again, it goes on where it stopped."""
    import signal

    from joblib import cpu_count

    from paretofit.study import label as labels

    cores = jobs or labels.default_jobs(study, cpu_count())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's end of time is Ctrl-C
    try:
        if write_inputs is not None:
            typer.echo(labels.write_label_inputs(study, write_inputs, out=out))
            return
        if dry_run:
            table, model = labels.estimate_labels(study, out=out, jobs=cores, progress=True)
            typer.echo(labels.format_estimate(table, model, cores))
            return
        if read_outputs is not None:
            result = labels.read_label_outputs(study, read_outputs, out=out)
        elif collect:
            result = labels.collect_labels(study, out=out)
        else:
            result = labels.label_study(study, out=out, jobs=cores, progress=True, retry_failed=retry_failed)
    except KeyboardInterrupt:
        typer.echo("paretofit: interrupted; finished labels are kept, the same command goes on from there", err=True)
        raise typer.Exit(130) from None
    typer.echo(labels.format_labels(result))
    if result.failed:
        raise typer.Exit(1)


@app.command(epilog="Example:  paretofit augment studies/augment_beryllium.yaml")
def augment(
    study: Annotated[Path, typer.Argument(help="The study (YAML) with a section 'augmentation'.")],
    figures: Annotated[bool, typer.Option(help="Draw a map and distributions beside the output.")] = True,
) -> None:
    """Make candidates for labelling: distortions, strain, vacancies, slabs, clusters, alloys, maximal entropy."""
    from paretofit.study.augment import augment_study, format_candidates

    typer.echo(format_candidates(augment_study(study, figures=figures, progress=True)))


@app.command(epilog="Example:  paretofit select candidates.extxyz -n 500 --method d-optimal --given data/beryllium.h5")
def select(
    candidates: Annotated[Path, typer.Argument(help="Structures: a dataset, or any file that ASE reads.")],
    n: Annotated[int, typer.Option("-n", help="How many.")],
    method: Annotated[
        str, typer.Option("--method", help="leverage, block-leverage, d-optimal, farthest-point or random.")
    ] = "d-optimal",
    given: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--given", help="What is labelled already: it counts, but is not chosen."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Extended XYZ to write.")] = Path("selected.extxyz"),
    study: Annotated[Optional[Path], typer.Option("--study", help="A study whose basis is to be used.")] = None,  # noqa: UP045
    twojmax: Annotated[int, typer.Option(min=0, max=20, help="2Jmax of the basis, where no study gives one.")] = 4,
    energy_weight: Annotated[float, typer.Option(help="w_E of leverage scores, where w_F is 1.")] = 150.0,
    draw: Annotated[
        bool | None,
        typer.Option(
            "--draw/--top", help="Leverage: draw with probabilities by score (the default), or take the highest."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 1,
    figures: Annotated[bool, typer.Option(help="Draw the map, the chosen ones marked.")] = True,
    jobs: Jobs = None,
) -> None:
    """Choose structures worth labelling, by descriptors alone, and write them in the order of choice."""
    from joblib import cpu_count

    from paretofit.study import load_study
    from paretofit.study.select import format_selection, select_structures

    selection = select_structures(
        candidates,
        n,
        method=method,
        given=given,
        output=output,
        basis=load_study(study).basis if study else None,
        twojmax=twojmax,
        energy_weight=energy_weight,
        draw=draw,
        seed=seed,
        jobs=jobs or cpu_count(),
        figures=figures,
        progress=True,
    )
    typer.echo(format_selection(selection))


@app.command(epilog="Example:  paretofit info data/beryllium.h5")
def info(dataset: Annotated[Path, typer.Argument(help="A dataset (HDF5).")]) -> None:
    """Show what is in a dataset, and what deserves a second look."""
    from paretofit.dataset import Dataset, format_info

    with Dataset(dataset) as data:
        typer.echo(format_info(data.info()))


@app.command(
    name="import",
    epilog="Examples:  paretofit import data.h5 --level 1=cheap.extxyz --level 2=good.extxyz --settings levels.yaml"
    "   |   paretofit import data.h5 --level 5=runs/level_5/   |   paretofit import data.h5 --level 6=new.extxyz --add"
    "   |   paretofit import data.h5 --file all.extxyz --level cheap --level good --energy-key '{level}_energy'",
)
def import_(
    output: Annotated[Path, typer.Argument(help="The dataset to write (HDF5).")],
    level: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--level", help="NAME=FILE or NAME=FOLDER for each level, cheapest first; with --file NAME only."),
    ] = None,
    file: Annotated[Optional[Path], typer.Option("--file", help="One file with every level's labels.")] = None,  # noqa: UP045
    settings: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--settings", help="YAML with a list 'levels' of name and settings, kept with the labels."),
    ] = None,
    energy_key: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Key of the energies, eV.", show_default="what ASE reads, REF_energy or {level}_energy"),
    ] = None,
    forces_key: Annotated[Optional[str], typer.Option(help="Key of the forces, eV/Å.")] = None,  # noqa: UP045
    stress_key: Annotated[Optional[str], typer.Option(help="Key of the stress, eV/Å³.")] = None,  # noqa: UP045
    id_key: Annotated[Optional[str], typer.Option(help="Key of the ids.", show_default="config_id or id")] = None,  # noqa: UP045
    seconds_key: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Key of a label's cost.", show_default="seconds, cpu_seconds or wall_seconds"),
    ] = None,
    match: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="id, geometry or order: what makes structures of two files the same.", show_default="id"),
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Keep what the dataset holds, and add to it.")] = False,
    order: Annotated[str, typer.Option(help="All levels, cheapest first, separated by commas.")] = "",
    published: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--published", help="A folder of the published form: Be_structures.h5, Be_prec_1.h5, ..."),
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Open its pickles, which can run code: only if you trust them.")
    ] = False,
) -> None:
    """Import labelled structures: any file that ASE reads, ASE databases, FitSNAP JSON, VASP output, and folders."""
    from paretofit.dataset import format_summary, import_dataset, read_settings

    if published is not None:
        from paretofit.dataset.pandas_hdf import import_published

        if level or file or energy_key or forces_key or stress_key or id_key or seconds_key or match or add or order:
            raise InputError("--published goes with --allow-pickle and --settings only; leave the other options out")
        how = read_settings(settings) if settings else None
        typer.echo(format_summary(import_published(output, published, allow_pickle=allow_pickle, settings=how)))
        return
    if not level:
        raise InputError("import needs --level NAME=FILE for each level, or --published FOLDER")
    summary = import_dataset(
        output,
        _sources(level) if file is None else file,
        levels=level,
        energy_key=energy_key,
        forces_key=forces_key,
        stress_key=stress_key,
        id_key=id_key,
        seconds_key=seconds_key,
        settings=read_settings(settings) if settings else None,
        match=match,
        add=add,
        order=_names(order) or None,
    )
    typer.echo(format_summary(summary))


def _sources(level: list[str]) -> dict[str, str]:
    for entry in level:
        if "=" not in entry:
            raise InputError(f"--level needs NAME=FILE (or NAME with --file); got '{entry}'")
    sources = dict(entry.split("=", 1) for entry in level)
    if len(sources) != len(level):
        raise InputError("--level names a level twice")
    return sources


@app.command(
    epilog="Examples:  paretofit export data/beryllium.h5 -o exported   |   paretofit export data.h5 -o exported "
    "--level 5 --keys mace"
)
def export(
    dataset: Annotated[Path, typer.Argument(help="A dataset (HDF5).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")],
    level: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--level", help="Once for each level to export.", show_default="all"),
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="extxyz, or db for an ASE database.")] = "extxyz",
    keys: Annotated[str, typer.Option("--keys", help="plain, or mace for REF_energy and so on.")] = "plain",
) -> None:
    """Write each level to a file that other programs read; no digit is lost."""
    from paretofit.dataset import export_dataset

    summary = export_dataset(dataset, output, levels=level, format=format_, keys=keys)
    for name, path in summary.paths.items():
        without = summary.unlabelled[name]
        note = f", {len(without)} of them without a complete label (ids {_some(without)})" if without else ""
        typer.echo(f"{path}: {summary.n_configurations} configurations{note}")
    typer.echo(f"{summary.settings}: the levels' settings")


def _some(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")


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
    from paretofit.pareto import front_of_file
    from paretofit.pareto.anatomy import front_words

    if published:
        from paretofit.study.published import format_published, published_study

        if group_by or aggregate != "median":
            raise InputError("--published takes medians over repetitions; leave out --group-by and --aggregate")
        study = published_study(tables, minimize=_names(minimize), out=out, figures=figures)
        typer.echo(format_published(study), err=out is None)
        front = study.front
    elif len(tables) != 1 or not minimize or figures is not None:
        raise InputError("pareto needs one table and --minimize COLUMN,...; several tables and --figures go with "
                         "--published")  # fmt: skip
    else:
        front = front_of_file(tables[0], _names(minimize), _names(group_by), aggregate, out, drop_missing=drop_missing)
    if anatomy:
        objectives = _names(minimize) or ["ref_energy", "ref_force", "label_seconds"]
        typer.echo(front_words(front, objectives, _names(anatomy)), err=out is None)
    if dropped := front.attrs["dropped_rows"]:
        Console(stderr=True).print(f"{dropped} rows with missing values were left out", highlight=False)
    if out is None:
        sys.stdout.write(front.to_csv(index=False, float_format="%.10g", lineterminator="\n"))
    else:
        console.print(f"{len(front)} rows on the front, written to {out}", highlight=False)


@app.command(epilog="Example:  paretofit report runs/beryllium-1a2b3c4d")
def report(run: Annotated[Path, typer.Argument(help="The folder of a finished run.")]) -> None:
    """Write front, figures, tables and report.html of a run again, without fitting."""
    from paretofit.study.run_report import rebuild_report

    made = rebuild_report(run)
    for warning in made.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"{made.report}", soft_wrap=True, highlight=False)


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
    jobs: Jobs = None,
) -> None:
    """Say what to run with a budget: level, configurations, 2Jmax and weights, with the errors to expect."""
    import json

    from joblib import cpu_count

    from paretofit.study.plan import plan

    made = plan(
        source,
        budget=budget,
        max_energy=max_energy,
        max_force=max_force,
        md_speed=md_speed,
        prefer=prefer,
        extrapolate=extrapolate,
        pilot=pilot,
        out=out,
        jobs=jobs or cpu_count(),
        progress=not as_json,
    )
    typer.echo(json.dumps(made.to_dict(), indent=1) if as_json else made.study_text if study else made.text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    main()
