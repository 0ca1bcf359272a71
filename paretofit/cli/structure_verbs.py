"""Verbs that make, choose and label structures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from paretofit.cli.common import JobsOption, app


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
    from joblib import cpu_count

    from paretofit.commands import (
        choose_label_jobs,
        collect_labels,
        estimate_label_cost,
        format_estimate,
        format_labels,
        label_study,
        read_label_outputs,
        write_label_inputs,
    )

    cores = jobs or choose_label_jobs(study, cpu_count())
    if write_inputs is not None:
        typer.echo(write_label_inputs(study, write_inputs, out=out))
        return
    if dry_run:
        table, model = estimate_label_cost(study, out=out, jobs=cores, progress=True)
        typer.echo(format_estimate(table, model, cores))
        return
    if read_outputs is not None:
        result = read_label_outputs(study, read_outputs, out=out)
    elif collect:
        result = collect_labels(study, out=out)
    else:
        result = label_study(study, out=out, jobs=cores, progress=True, retry_failed=retry_failed)
    typer.echo(format_labels(result))
    if result.n_failed:
        raise typer.Exit(1)


@app.command(epilog="Example:  paretofit augment studies/augment_beryllium.yaml")
def augment(
    study: Annotated[Path, typer.Argument(help="The study (YAML) with a section 'augmentation'.")],
    figures: Annotated[bool, typer.Option(help="Draw a map and distributions beside the output.")] = True,
) -> None:
    """Make candidates for labelling: distortions, strain, vacancies, slabs, clusters, alloys, maximal entropy."""
    from paretofit.commands import augment_study, format_candidates

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
    jobs: JobsOption = None,
) -> None:
    """Choose structures worth labelling, by descriptors alone, and write them in the order of choice."""
    from joblib import cpu_count

    from paretofit.commands import format_selection, select_structures
    from paretofit.study import load_study

    selection = select_structures(
        candidates,
        n,
        method=method,
        already_labelled=given,
        out=output,
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
