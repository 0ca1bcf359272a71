"""Verbs around datasets."""

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
from paretofit.dataset import describe_dataset


@app.command(epilog="Example:  paretofit info data/beryllium.h5")
def info(dataset: Annotated[Path, typer.Argument(help="A dataset (HDF5).")]) -> None:
    """Show what is in a dataset, and what deserves a second look."""
    from paretofit.dataset import Dataset, format_dataset_info

    with Dataset(dataset) as data:
        typer.echo(format_dataset_info(describe_dataset(data)))


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
    from paretofit.dataset import format_import_summary, import_dataset, read_level_settings

    if published is not None:
        from paretofit.published import import_published

        if level or file or energy_key or forces_key or stress_key or id_key or seconds_key or match or add or order:
            raise InputError("--published goes with --allow-pickle and --settings only; leave the other options out")
        how = read_level_settings(settings) if settings else None
        typer.echo(format_import_summary(import_published(output, published, allow_pickle=allow_pickle, settings=how)))
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
        settings=read_level_settings(settings) if settings else None,
        match_by=match,
        append=add,
        level_order=split_names(order) or None,
    )
    typer.echo(format_import_summary(summary))


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
    "--level 5 --keys mace   |   paretofit export runs/quick-1a2b3c4d -o potential --level 5 --twojmax 6 --weight 12.25"
)
def export(
    source: Annotated[Path, typer.Argument(help="A dataset (HDF5), or a finished run, one fit of which is written.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")],
    level: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--level", help="Dataset: once for each level to export. Run: of the fit.", show_default="all"),
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="Dataset: extxyz, or db for an ASE database.")] = "extxyz",
    keys: Annotated[str, typer.Option("--keys", help="Dataset: plain, or mace for REF_energy and so on.")] = "plain",
    twojmax: Annotated[Optional[int], typer.Option(help="Run: of the fit.", show_default="largest")] = None,  # noqa: UP045
    weight: Annotated[Optional[float], typer.Option(help="Run: w_E/w_F.", show_default="best")] = None,  # noqa: UP045
    n_train: Annotated[Optional[int], typer.Option(help="Run: configurations.", show_default="largest")] = None,  # noqa: UP045
    sampling: Annotated[Optional[str], typer.Option(help="Run: how they were drawn.", show_default="best")] = None,  # noqa: UP045
    repeat: Annotated[int, typer.Option(min=0, help="Run: which draw.")] = 0,
    ridge: Annotated[Optional[str], typer.Option(help="Run: which penalty.", show_default="best")] = None,  # noqa: UP045
    name: Annotated[str, typer.Option(help="Run: of the potential's files.")] = "potential",
    committee: CommitteeOption = None,
    method: CommitteeMethodOption = "bootstrap",
    coverage: CoverageOption = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Run: of the committee.")] = 1,
    jobs: JobsOption = None,
) -> None:
    """Write a dataset's levels as files that other programs read, or a fit of a run as a LAMMPS potential."""
    if source.is_dir():
        from joblib import cpu_count

        from paretofit.commands import export_potential

        if level is not None and len(level) > 1:
            raise InputError("a potential is fitted to one level; give --level once")
        made = export_potential(
            source,
            output,
            level=None if level is None else level[0],
            twojmax=twojmax,
            weight_ratio=weight,
            n_train=n_train,
            sampling=sampling,
            repeat=repeat,
            ridge=ridge,
            name=name,
            committee=read_committee_options(committee, method, coverage, seed),
            jobs=jobs or cpu_count(),
            progress=True,
        )
        typer.echo(made.text)
        return
    if committee is not None:
        raise InputError(f"{source} is a dataset; --committee goes with a run, or with 'paretofit fit {source}'")
    from paretofit.dataset import export_dataset

    summary = export_dataset(source, output, levels=level, format=format_, keys=keys)
    for level_name, path in summary.paths.items():
        without = summary.unlabelled_ids[level_name]
        note = f", {len(without)} of them without a complete label (ids {_some(without)})" if without else ""
        typer.echo(f"{path}: {summary.n_configurations} configurations{note}")
    typer.echo(f"{summary.settings_path}: the levels' settings")


def _some(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
