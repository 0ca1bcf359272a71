"""Verbs for datasets: info, import and export."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from paretofit.cli import options
from paretofit.cli.options import app, print_result, read_committee_options, split_names, wrap_for_terminal
from paretofit.core import InputError

if TYPE_CHECKING:
    from paretofit.dataset import ExportSummary

KEY_HELP = {
    "energy": "Key of the total energies (eV).",
    "forces": "Key of the forces (eV/Å).",
    "stress": "Key of the stress (eV/Å³).",
    "id": "Key of the configuration ids.",
    "seconds": "Key of the computing time of a label (s).",
}
KEY_BY_LEVEL = "LEVEL=KEY for one level; may be repeated."  # second sentence of the help text of each key option
EnergyKeyOption = Annotated[
    list[str] | None,
    Option(
        help=f"{KEY_HELP['energy']} {KEY_BY_LEVEL}", show_default="the key that ASE reads, REF_energy or {level}_energy"
    ),
]
SecondsKeyOption = Annotated[
    list[str] | None,
    Option(help=f"{KEY_HELP['seconds']} {KEY_BY_LEVEL}", show_default="seconds, cpu_seconds or wall_seconds"),
]
IdKeyOption = Annotated[
    list[str] | None, Option(help=f"{KEY_HELP['id']} {KEY_BY_LEVEL}", show_default="config_id or id")
]
LevelPathsOption = Annotated[
    list[str] | None,
    Option(
        "--level",
        help="Level and its file or folder, NAME=PATH; repeat for each level, cheapest first. With --file: NAME only.",
    ),
]
MatchOption = Annotated[
    str | None,
    Option(help="How structures of different files are matched: id, geometry or order.", show_default="id"),
]
PublishedOption = Annotated[
    Path | None, Option(help="Folder with the published dataset (Be_structures.h5, Be_prec_1.h5, ...).")
]
PickleOption = Annotated[
    bool,
    Option(
        "--allow-pickle",
        help="Unpickle the published files. Unpickling can run code, so use this only for files that you trust.",
    ),
]
FormatOption = Annotated[
    str, Option("--format", help="File format of an exported dataset: extxyz or db (ASE database).")
]
LabelKeysOption = Annotated[
    str, Option(help="Naming of the labels in an exported dataset: plain, or mace (REF_energy, ...).")
]
FitLevelsOption = Annotated[
    list[str] | None,
    Option(help="Convergence level of the labels; may be repeated for a dataset.", show_default="all"),
]
FrontOption = Annotated[
    bool,
    Option(
        "--front",
        help="Export every point of a run's front, with an index of errors, MD speed, survival and drift in short "
        "dynamics. Run the same command again to resume.",
    ),
]
FrontStructureOption = Annotated[
    Path | None,
    Option(help="Structure of the dynamics of --front.", show_default="the study's reference configuration"),
]
TrainingSizeOption = Annotated[
    int | None,
    Option(
        help="Number of training configurations of the fit; of a mixture, at its top level.", show_default="largest"
    ),
]
FrontMdTimeOption = Annotated[
    float | None,
    Option(min=0.02, help="Length of each part of the dynamics of --front (ps).", show_default="0.2"),
]
SourceArgument = Annotated[
    Path, Argument(help="Dataset to export (HDF5), or folder of a finished run to export a fit from.")
]


@app.command(epilog="Example:  paretofit info data/beryllium.h5")
def info(
    dataset: Annotated[Path, Argument(help="Dataset to describe (HDF5).")], *, as_json: options.Json = False
) -> None:
    """Describe a dataset, with warnings about suspicious labels and structures."""
    from paretofit.commands import inspect_dataset
    from paretofit.dataset import format_dataset_info

    summary = inspect_dataset(dataset)
    print_result(summary, format_dataset_info(summary), as_json=as_json)


@app.command(
    name="import",
    epilog="Examples:  paretofit import data.h5 --level 1=cheap.extxyz --level 2=good.extxyz --level-settings l.yaml"
    "   |   paretofit import data.h5 --level 5=runs/level_5/   |   paretofit import data.h5 --level 6=new.extxyz --add"
    "   |   paretofit import data.h5 --file all.extxyz --level cheap --level good --energy-key '{level}_energy'"
    "   |   paretofit import data.h5 --level cheap=c.xyz --level good=g.xyz --energy-key cheap=E --forces-key cheap=F",
)
def import_(
    dataset: Annotated[Path, Argument(help="Dataset to write (HDF5).")],
    *,
    level: LevelPathsOption = None,
    file: Annotated[Path | None, Option(help="File that contains the labels of all levels.")] = None,
    level_settings: Annotated[
        Path | None, Option(help="YAML file with the DFT settings of each level, stored with its labels.")
    ] = None,
    energy_key: EnergyKeyOption = None,
    forces_key: Annotated[list[str] | None, Option(help=f"{KEY_HELP['forces']} {KEY_BY_LEVEL}")] = None,
    stress_key: Annotated[list[str] | None, Option(help=f"{KEY_HELP['stress']} {KEY_BY_LEVEL}")] = None,
    id_key: IdKeyOption = None,
    seconds_key: SecondsKeyOption = None,
    match: MatchOption = None,
    add: Annotated[bool, Option("--add", help="Add to the existing dataset.")] = False,
    force: Annotated[bool, Option("--force", help="Replace the existing dataset.")] = False,
    level_order: Annotated[str, Option(help="Order of all levels, cheapest first, separated by commas.")] = "",
    published: PublishedOption = None,
    allow_pickle: PickleOption = False,
) -> None:
    """Import labelled structures: any file that ASE reads, ASE databases, FitSNAP JSON, VASP output, and folders."""
    from paretofit.commands import check_import, import_labels
    from paretofit.dataset import format_import_summary, read_level_settings

    settings = read_level_settings(level_settings) if level_settings else None
    key_options = {"energy_key": energy_key, "forces_key": forces_key, "stress_key": stress_key, "id_key": id_key,
               "seconds_key": seconds_key}  # fmt: skip
    keys = {name: _parse_keys(f"--{name.replace('_', '-')}", entries or []) for name, entries in key_options.items()}
    if published is not None:
        from paretofit.published import import_published

        if level or file or any(keys.values()) or match or add or level_order:
            raise InputError(
                "--published can only be combined with --allow-pickle, --level-settings and --force; "
                "drop the other options"
            )
        summary = check_import(
            import_published(dataset, published, allow_pickle=allow_pickle, settings=settings, overwrite=force)
        )
    elif not level:
        raise InputError("import requires --level NAME=FILE for each level, or --published FOLDER")
    else:
        source = _parse_level_paths(level) if file is None else file
        summary = import_labels(dataset, source, levels=level, settings=settings, match_by=match, append=add,
                                overwrite=force, level_order=split_names(level_order) or None, **keys)  # fmt: skip
    typer.echo(wrap_for_terminal(format_import_summary(summary)))


def _parse_keys(option: str, entries: list[str]) -> str | dict[str, str] | None:
    """Parse one KEY for all levels, or LEVEL=KEY for each level; return None without entries.

    `option` is the name of the option in messages.
    """
    if not entries:
        return None
    if len(entries) == 1 and "=" not in entries[0]:
        return entries[0]
    keys = dict(entry.split("=", 1) for entry in entries if "=" in entry)
    if len(keys) != len(entries):
        raise InputError(f"{option} must be one KEY, or LEVEL=KEY once for each level; got {', '.join(entries)}")
    return keys


def _parse_level_paths(entries: list[str]) -> dict[str, str]:
    """Return the path of each level from entries NAME=PATH; raise `InputError` if one is invalid or repeated."""
    for entry in entries:
        if "=" not in entry:
            raise InputError(f"--level must be NAME=FILE (or NAME with --file); got '{entry}'")
    paths = dict(entry.split("=", 1) for entry in entries)
    if len(paths) != len(entries):
        raise InputError("--level is given twice for the same level; give each level once")
    return paths


@app.command(
    epilog="Examples:  paretofit export data/beryllium.h5 -o exported   |   paretofit export data.h5 -o exported "
    "--level 5 --label-keys mace   |   paretofit export runs/quick-1a2b3c4d -o potential --level 5 --twojmax 6 "
    "--weight-ratio 12.25   |   paretofit export runs/quick-1a2b3c4d --front -o front --jobs 4"
)
def export(
    source: SourceArgument,
    *,
    out: Annotated[Path, Option("--out", "-o", help="Folder to write to.")],
    front: FrontOption = False,
    structure: FrontStructureOption = None,
    md_time: FrontMdTimeOption = None,
    level: FitLevelsOption = None,
    format_: FormatOption = "extxyz",
    label_keys: LabelKeysOption = "plain",
    twojmax: Annotated[int | None, Option(help="2Jmax of the fit to export.", show_default="largest")] = None,
    weight_ratio: options.WeightRatio = None,
    n_train: TrainingSizeOption = None,
    sampling: Annotated[str | None, Option(help="Sampling method of the fit.", show_default="best")] = None,
    repetition: Annotated[int, Option(min=0, help="Repetition (random draw) of the fit to export.")] = 0,
    ridge: Annotated[str | None, Option(help="Ridge penalty of the fit.", show_default="best")] = None,
    name: Annotated[str, Option(help="Base name of the potential's files.")] = "potential",
    committee: options.Committee = None,
    committee_method: options.CommitteeMethod = "bootstrap",
    coverage: options.Coverage = 0.9,
    seed: Annotated[int, Option(min=0, help="Random seed of the committee.")] = 1,
    force: options.Force = False,
    jobs: options.Jobs,
    progress: options.Progress = True,
    as_json: options.Json = False,
) -> None:
    """Export the levels of a dataset to files that other programs read, or fits of a run as LAMMPS potentials."""
    if front:
        _check_no_fit_options(level, twojmax, weight_ratio, n_train, sampling, ridge, committee)
        _export_front(source, out, structure, md_time, force=force, jobs=jobs, progress=progress, as_json=as_json)
        return
    _check_no_dynamics_options(structure, md_time)
    if not source.is_dir():
        if committee is not None:
            raise InputError(f"--committee requires a run folder; for a dataset, use 'paretofit fit {source}'")
        from paretofit.dataset import export_dataset

        summary = export_dataset(source, out, levels=level, format=format_, keys=label_keys, overwrite=force)
        print_result(summary, _format_export(summary), as_json=as_json)
        return
    from paretofit.commands import export_potential

    fit = export_potential(
        source, out, level=_get_single_level(level), twojmax=twojmax, weight_ratio=weight_ratio, n_train=n_train,
        sampling=sampling, repeat=repetition, ridge=ridge, name=name, overwrite=force, jobs=jobs, progress=progress,
        committee=read_committee_options(committee, committee_method, coverage, seed),
    )  # fmt: skip
    print_result(fit, fit.text, as_json=as_json, exclude=("potential",))
    fit.require_agreement()


def _get_single_level(levels: list[str] | None) -> str | None:
    """Return the level of --level, or None without it; raise `InputError` if there are several."""
    if levels is not None and len(levels) > 1:
        raise InputError("a potential is fitted to one level; give --level once")
    return levels[0] if levels else None


def _check_no_fit_options(*values: object) -> None:
    """Raise `InputError` if an option of one fit has a value, because --front exports all fits of the front."""
    if any(value is not None for value in values):
        raise InputError(
            "--front exports every point of the front and cannot be combined with options of one fit; "
            "drop these options, or --front"
        )


def _check_no_dynamics_options(*values: object) -> None:
    """Raise `InputError` if an option of the dynamics has a value, because there are none without --front."""
    if any(value is not None for value in values):
        raise InputError(
            "--structure and --md-time are for the dynamics of --front; add --front, or omit these options"
        )


def _export_front(
    run: Path, out: Path, structure: Path | None, md_time: float | None, *, force: bool, jobs: int, progress: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Export every point of a run's front with its index, print the summary, and check the agreement with LAMMPS."""
    from paretofit.commands import export_front
    from paretofit.validation import MdProtocol

    settings: dict[str, Any] = {}
    if md_time is not None:
        settings["protocol"] = MdProtocol(nvt_time_ps=md_time, nve_time_ps=md_time)
    front_export = export_front(
        run, out, structure=structure, overwrite=force, jobs=jobs, progress=progress, **settings
    )
    print_result(front_export, front_export.text, as_json=as_json)
    front_export.require_agreement()


def _format_export(summary: "ExportSummary") -> str:
    """Format a line for each exported level, with up to five ids of configurations without a complete label."""
    lines = []
    for level, path in summary.paths.items():
        ids = summary.unlabelled_ids[level]
        id_list = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
        note = f", {len(ids)} of them without a complete label (ids {id_list})" if ids else ""
        lines.append(f"{path}: {summary.n_configurations} configurations{note}")
    return "\n".join([*lines, f"{summary.settings_path}: settings of the levels"])
