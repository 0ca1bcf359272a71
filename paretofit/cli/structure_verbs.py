"""Verbs for structures and labels: label, augment, properties and select."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from paretofit.cli import options
from paretofit.cli.options import app, print_result

DryRunOption = Annotated[
    bool,
    Option(
        "--dry-run",
        help="Estimate the cost of the missing labels; computes up to eight cheap labels first and stores them.",
    ),
]


@app.command(
    epilog="Examples:  paretofit label studies/label_beryllium.yaml --dry-run   |   paretofit label my_labels.yaml"
)
def label(
    study: Annotated[Path, Argument(help="Study (YAML) with a section 'labelling'.")],
    *,
    out: options.RunFolder = None,
    jobs: Annotated[
        int | None,
        Option("--jobs", "-j", min=1, help="Number of labels computed at the same time.", show_default="cores"),
    ] = None,
    dry_run: DryRunOption = False,
    collect: Annotated[
        bool, Option("--collect", help="Write the labels finished so far to the dataset and stop.")
    ] = False,
    retry_failed: Annotated[
        bool, Option("--retry-failed", help="Compute again the labels that failed in an earlier run.")
    ] = False,
    write_inputs: Annotated[
        Path | None,
        Option(help="Write the input files of VASP, Quantum ESPRESSO or ABINIT to this folder instead of computing."),
    ] = None,
    read_outputs: Annotated[
        Path | None, Option(help="Read the finished outputs in a folder of --write-inputs instead of computing.")
    ] = None,
    force: Annotated[bool, Option("--force", help="With --write-inputs: replace existing inputs.")] = False,
    progress: options.Progress = True,
    as_json: options.Json = False,
) -> None:
    """Compute the missing labels of a dataset; each is stored when finished, and the same command resumes a run."""
    from joblib import cpu_count

    from paretofit import commands

    n_jobs = jobs or commands.choose_label_jobs(study, cpu_count())
    if write_inputs is not None:
        typer.echo(commands.write_label_inputs(study, write_inputs, out=out, overwrite=force))
        return
    if dry_run:
        table, model = commands.estimate_label_cost(study, out=out, jobs=n_jobs, progress=progress)
        print_result(table, commands.format_estimate(table, model, n_jobs), as_json=as_json)
        return
    if read_outputs is not None:
        labelling = commands.read_label_outputs(study, read_outputs, out=out)
    elif collect:
        labelling = commands.collect_labels(study, out=out)
    else:
        labelling = commands.label_study(study, out=out, jobs=n_jobs, progress=progress, retry_failed=retry_failed)
    print_result(labelling, commands.format_labels(labelling), as_json=as_json)
    if labelling.n_failed:
        raise typer.Exit(1)


@app.command(epilog="Example:  paretofit augment studies/augment_beryllium.yaml")
def augment(
    study: Annotated[Path, Argument(help="Study (YAML) with a section 'augmentation'.")],
    *,
    out: Annotated[
        Path | None, Option("--out", "-o", help="Extended XYZ file to write.", show_default="augmentation.output")
    ] = None,
    figures: options.Figures = True,
    force: options.Force = False,
    progress: options.Progress = True,
    as_json: options.Json = False,
) -> None:
    """Generate candidates for labelling: distortions, strain, vacancies, slabs, clusters, alloys, maximal entropy."""
    from paretofit.commands import augment_study, format_candidates

    augmentation = augment_study(study, out=out, figures=figures, overwrite=force, progress=progress)
    print_result(augmentation, format_candidates(augmentation), as_json=as_json, exclude=("candidates",))


@app.command(epilog="Example:  paretofit properties my_study.yaml -o properties.extxyz")
def properties(
    study: Annotated[Path, Argument(help="Study (YAML) with a section 'properties'.")],
    *,
    out: Annotated[Path, Option("--out", "-o", help="Extended XYZ file to write.")] = Path("properties.extxyz"),
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Write the structures whose labels a study's properties require as references, for 'paretofit label'."""
    from paretofit.commands import format_property_structures, write_property_structures

    structures = write_property_structures(study, out=out, overwrite=force)
    print_result(structures, format_property_structures(structures), as_json=as_json)


@app.command(
    epilog="Example:  paretofit select candidates.extxyz -n 500 --method d-optimal --already-labelled data/beryllium.h5"
)
def select(
    candidates: Annotated[Path, Argument(help="Candidate structures: a dataset (HDF5) or any file that ASE reads.")],
    *,
    max_selected: Annotated[int, Option("--max-selected", "-n", help="Number of structures to select.")],
    method: Annotated[
        str, Option(help="Selection method: leverage, block-leverage, d-optimal, farthest-point or random.")
    ] = "d-optimal",
    already_labelled: Annotated[
        Path | None, Option(help="Labelled structures: the selection takes them into account but excludes them.")
    ] = None,
    out: Annotated[Path, Option("--out", "-o", help="Extended XYZ file to write.")] = Path("selected.extxyz"),
    basis_from: Annotated[Path | None, Option(help="Study (YAML) whose SNAP basis is used.")] = None,
    twojmax: Annotated[int, Option(min=0, max=20, help="2Jmax of the default basis.")] = 4,
    energy_weight: Annotated[
        float | None,
        Option(
            help="Energy weight w_E of the leverage scores (w_F is 1); by default the mean number of force components."
        ),
    ] = None,
    draw: Annotated[
        bool | None,
        Option(
            "--draw/--top",
            help="With leverage methods: draw at random with probabilities proportional to the scores (the default), "
            "or take the highest scores.",
        ),
    ] = None,
    seed: Annotated[int, Option(min=0, help="Random seed of the selection.")] = 1,
    figures: options.Figures = True,
    force: options.Force = False,
    jobs: options.Jobs,
    progress: options.Progress = True,
    as_json: options.Json = False,
) -> None:
    """Select structures to label by their descriptors, and write them in the order of selection."""
    from paretofit.commands import format_selection, select_structures
    from paretofit.descriptors import require_descriptors
    from paretofit.study import load_study

    basis = require_descriptors(load_study(basis_from).basis) if basis_from else None
    selection = select_structures(
        candidates, max_selected, method=method, already_labelled=already_labelled, out=out, basis=basis,
        twojmax=twojmax, energy_weight=energy_weight,
        draw=draw, seed=seed, jobs=jobs, figures=figures, overwrite=force, progress=progress,
    )  # fmt: skip
    print_result(selection, format_selection(selection), as_json=as_json)
