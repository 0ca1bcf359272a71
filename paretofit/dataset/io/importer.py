"""Import of labelled structures from any file that ASE reads, FitSNAP JSON, VASP output and directories.

Labels are never recomputed. Configurations of several files are matched by id if they have ids, otherwise by order or
by geometry; their geometries must agree in every case. An import can extend a dataset without changing its content.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paretofit.core import Array, InputError, check_new_paths, list_first, read_yaml, suggest_match
from paretofit.dataset.dataset import Dataset
from paretofit.dataset.io.extract import (
    SECONDS_KEYS,
    UserKey,
    UserKeys,
    check_seconds_key,
    extract_file_labels,
    extract_prefixed_labels,
    select_level_key,
)
from paretofit.dataset.io.frames import read_frames
from paretofit.dataset.io.matching import MatchResult, match_frames
from paretofit.dataset.io.stored_labels import LabelColumns, merge_labels, read_existing_dataset
from paretofit.dataset.io.structure_files import Frames
from paretofit.dataset.writer import Label, LevelData, dump_json, write_dataset

MAX_LISTED_FILES = 5
LABEL_INFO_KEYS = ("cores", "scf_converged")  # keys that describe a label even if all files agree


@dataclass
class ImportSummary:
    """Counts, notes and warnings of an import.

    Attributes
    ----------
    path : Path
    n_configurations : int
    n_labels : mapping of level to int
        Number of complete labels, whose energy and forces are all finite.
    missing_ids : mapping of level to list of int
        Ids of the configurations without a complete label.
    skipped : list of str
        A message for each file of a directory that could not be read.
    notes : list of str
        Messages about how structures were matched, which keys were used, and what was omitted.
    warnings : list of str
        Messages of `paretofit.consistency.check_labels` about suspicious labels; empty if they were not checked.
    """

    path: Path
    n_configurations: int
    n_labels: dict[str, int]
    missing_ids: dict[str, list[int]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class _Part:
    """Structures of one source, and their labels at one or all levels."""

    frames: Frames
    labels: LabelColumns
    info_is_shared: bool = False  # whether all info describes configurations, and none describes a label
    notes: list[str] = field(default_factory=list)
    energy_kinds: dict[str, str] = field(default_factory=dict)  # kinds by level, as far as they are known


def import_dataset(
    output: Path | str,
    sources: Mapping[str, Path | str] | Path | str,
    *,
    levels: Sequence[str] | None = None,
    energy_key: str | Mapping[str, str] | None = None,
    forces_key: str | Mapping[str, str] | None = None,
    stress_key: str | Mapping[str, str] | None = None,
    id_key: str | Mapping[str, str] | None = None,
    seconds_key: str | Mapping[str, str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    match_by: str | None = None,
    append: bool = False,
    overwrite: bool = False,
    level_order: Sequence[str] | None = None,
) -> ImportSummary:
    """Import labelled structures into a dataset file.

    Parameters
    ----------
    output : path-like
        The dataset file to write.
    sources : mapping of level to file or directory, or one file
        One file or directory for each level, in order of cost; or one file with the labels of all `levels` under
        prefixed keys.
    levels : sequence of str, optional
        Levels of a single file, in order of cost.
    energy_key, forces_key, stress_key : str or mapping of level to str, optional
        Keys of the labels; ``{level}`` is replaced by the name of the level. Energies are in eV (total), forces in
        eV/Å, stress in eV/Å³ (six components in ASE's Voigt order, or nine). For a single file, the default is
        ``{level}_energy`` and so on; for several files, ASE's results or, if there are none, keys such as
        ``REF_energy`` and ``dft_energy``.
    id_key : str or mapping of level to str, optional
        Key of the configuration ids; by default the first of ``config_id``, ``id`` and ``configuration_id`` that all
        structures have.
    seconds_key : str or mapping of level to str, optional
        Key of the cost of a label; by default the first of ``seconds``, ``cpu_seconds`` and ``wall_seconds``.
        ``{level}`` is replaced by the name of the level.
    settings : mapping of level to mapping, optional
        Settings of each level, see `read_level_settings`.
    match_by : {"id", "geometry", "order"}, optional
        How to match structures of several files, see `paretofit.dataset.io.matching.match_frames`.
    append : bool
        Keep the content of `output`, and add levels, configurations and missing labels to it.
    overwrite : bool
        Replace an existing `output`.
    level_order : sequence of str, optional
        All levels in order of cost, ending with the reference; by default in the order of `sources`, after existing
        levels.

    Returns
    -------
    ImportSummary

    Raises
    ------
    InputError
        If `output` exists and neither `append` nor `overwrite` is set, a file cannot be read or has no structures or
        labels, a label is not numeric, ids are repeated, the geometry of a configuration differs between files (except
        for wrapping of atoms into the cell), or a label contradicts the dataset.
    """
    check_import_output(output, sources, append=append, overwrite=overwrite)
    keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
    parts = _read_parts(sources, levels, keys, id_key, seconds_key)
    new_levels = [level for part in parts for level in part.labels]
    for level in settings or {}:
        if level not in new_levels:
            problem = f"the settings describe level '{level}', which is not imported"
            raise InputError(f"{problem}; imported levels: {', '.join(new_levels)}")
    stored_settings: dict[str, dict[str, Any]] = {}
    if append:
        frames, labels, stored_settings = read_existing_dataset(Path(output))
        parts.insert(0, _Part(frames, labels, info_is_shared=True))
    level_settings = _merge_settings(stored_settings, settings or {})
    _add_energy_kinds(level_settings, parts, settings or {})
    match = match_frames([part.frames for part in parts], match_by)
    columns = _merge_columns(parts, match)
    level_names = _order_levels(list(columns), level_order)
    level_data = {level: LevelData(columns[level], level_settings.get(level, {})) for level in level_names}
    write_dataset(output, match.atoms, level_data, match.ids)
    notes = [text for part in parts for text in (*part.frames.notes, *part.notes)] + match.notes
    return summarize_import(Path(output), notes, [text for part in parts for text in part.frames.skipped])


def check_import_output(
    output: Path | str, sources: Mapping[str, Path | str] | Path | str, *, append: bool, overwrite: bool
) -> None:
    """Check that an import replaces a dataset only if `overwrite` is set, and never one of its sources.

    Raises
    ------
    InputError
        If `output` exists and neither `append` nor `overwrite` is set, both are set, or `output` is a source.
    """
    if append and overwrite:
        raise InputError("--add keeps the existing dataset and --force replaces it; choose one of them")
    check_new_paths(
        [output], overwrite=append or overwrite, remedy="add to it with --add, replace it with --force, or choose "
        "another path"
    )  # fmt: skip
    for path in sources.values() if isinstance(sources, Mapping) else [sources]:
        if Path(output).exists() and Path(path).exists() and Path(output).samefile(path):
            raise InputError(f"{output} is one of the files to import; choose another path for the dataset")


def _read_parts(
    sources: Mapping[str, Path | str] | Path | str,
    levels: Sequence[str] | None,
    keys: UserKeys,
    id_key: UserKey,
    seconds_key: UserKey,
) -> list[_Part]:
    parts = []
    _check_key_levels({**keys, "id": id_key, "seconds": seconds_key}, sources, levels)
    if isinstance(sources, Mapping):
        for level, path in sources.items():
            frames = read_frames(Path(path), select_level_key(id_key, str(level)))
            labels, notes, energy_kind = extract_file_labels(frames, str(level), keys, seconds_key)
            kinds = {} if energy_kind is None else {str(level): energy_kind}
            parts.append(_Part(frames, {str(level): labels}, notes=notes, energy_kinds=kinds))
    else:
        if isinstance(id_key, Mapping):
            raise InputError(f"{sources} is one file for all levels, and can have only one id key; got {dict(id_key)}")
        frames = read_frames(Path(sources), id_key)
        columns, notes = extract_prefixed_labels(frames, [str(level) for level in levels or ()], keys, seconds_key)
        parts.append(_Part(frames, columns, info_is_shared=True, notes=notes))
    check_seconds_key({level: column for part in parts for level, column in part.labels.items()}, seconds_key)
    return parts


def _check_key_levels(
    keys: UserKeys, sources: Mapping[str, Path | str] | Path | str, levels: Sequence[str] | None
) -> None:
    """Check that all levels for which the user specified a key are imported."""
    names = [str(level) for level in (sources if isinstance(sources, Mapping) else levels or ())]
    for quantity, key_by_level in keys.items():
        for level, key in key_by_level.items() if isinstance(key_by_level, Mapping) else ():
            if level not in names:
                problem = f"the {quantity} key '{key}' is for level '{level}', which is not imported"
                raise InputError(f"{problem}; imported levels: {', '.join(names)}{suggest_match(level, names)}")


def summarize_import(path: Path, notes: list[str], skipped: Sequence[str] = ()) -> ImportSummary:
    """Summarize the dataset that an import wrote.

    Parameters
    ----------
    path : Path
        The dataset file.
    notes, skipped : sequence of str
        Messages, as in `ImportSummary`.
    """
    with Dataset(path) as data:
        is_complete = {level: data.labels(level).is_complete for level in data.levels}
        return ImportSummary(
            path=path,
            n_configurations=len(data),
            n_labels={level: int(mask.sum()) for level, mask in is_complete.items()},
            missing_ids={level: data.ids[~mask].tolist() for level, mask in is_complete.items()},
            skipped=list(skipped),
            notes=notes,
        )


def format_import_summary(summary: ImportSummary) -> str:
    """Format counts for each level, skipped files, notes and warnings as plain text."""
    lines = [f"{summary.path}: {summary.n_configurations} configurations"]
    for level, count in summary.n_labels.items():
        missing_ids = summary.missing_ids[level]
        id_list = list_first(missing_ids)
        lines.append(
            f"level {level}: {count} labels" + f", {len(missing_ids)} missing (ids {id_list})" * bool(missing_ids)
        )
    if summary.skipped:
        lines.append(f"{len(summary.skipped)} files or directories were skipped:")
        lines += [f"  {text}" for text in summary.skipped[:MAX_LISTED_FILES]]
        lines += ["  ..."] if len(summary.skipped) > MAX_LISTED_FILES else []
    lines += [f"note: {text}" for text in summary.notes]
    lines += [f"warning: {text}" for text in summary.warnings]
    lines.append(f"next: paretofit info {summary.path}, then paretofit init {summary.path} -o study.yaml")
    return "\n".join(lines)


def read_level_settings(path: Path | str) -> dict[str, dict[str, Any]]:
    """Read the settings of each level from a YAML file.

    ``levels`` is a list of mappings with a ``name``; the other keys of the file apply to all levels.

    Raises
    ------
    InputError
        If the file cannot be read or has no such list.
    """
    content = read_yaml(path)
    entries = content.get("levels") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "name" in entry for entry in entries):
        raise InputError(f"{path} must have a list 'levels' whose entries each have a 'name'")
    common_settings = _drop_keys(content, {"levels"})
    return {str(entry["name"]): {**common_settings, **_drop_keys(entry, {"name"})} for entry in entries}


def _merge_settings(
    stored_settings: Mapping[str, dict[str, Any]], settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Merge new settings of levels with stored settings, which must not change."""
    merged_settings = dict(stored_settings)
    for level, new_settings in settings.items():
        old_settings = merged_settings.get(level, {})
        for key in new_settings:
            if key in old_settings and old_settings[key] != new_settings[key]:
                raise InputError(
                    f"the settings of level '{level}' have {key} {new_settings[key]}, the dataset has "
                    f"{old_settings[key]}; all labels of a level must have the same settings: import the new labels as "
                    "another level"
                )
        merged_settings[level] = {**old_settings, **new_settings}
    return merged_settings


def _add_energy_kinds(
    level_settings: dict[str, dict[str, Any]], parts: Sequence[_Part], settings: Mapping[str, Mapping[str, Any]]
) -> None:
    """Record the kind of energy of each level in its settings; a level has one kind, unless the user has set it."""
    for part in parts:
        for level, kind in part.energy_kinds.items():
            stored_kind = level_settings.setdefault(level, {}).setdefault("energy_kind", kind)
            if stored_kind != kind and "energy_kind" not in settings.get(level, {}):
                raise InputError(
                    f"{part.frames.path}: the energies of level '{level}' are '{kind}', those in the dataset "
                    f"'{stored_kind}'; the two differ by the electronic entropy: import them as another level, or "
                    f"choose a key with --energy-key {level}=KEY if they are of the same kind"
                )


def _order_levels(levels: list[str], order: Sequence[str] | None) -> list[str]:
    if order is None:
        return levels
    unknown_levels = [name for name in order if name not in levels]
    if sorted(order) != sorted(levels):
        hint = suggest_match(unknown_levels[0], levels) if unknown_levels else ""
        raise InputError(f"the order must list each level once ({', '.join(levels)}); got {', '.join(order)}{hint}")
    return list(order)


def _merge_columns(parts: Sequence[_Part], match: MatchResult) -> dict[str, list[Label | None]]:
    """Return the labels of each level in the order of the configurations.

    The info of the structures is divided: shared keys stay with the configuration, the others move to the label.
    """
    shared_keys = _find_shared_keys(parts, match)
    columns: dict[str, list[Label | None]] = {}
    for part, positions, atom_orders in zip(parts, match.positions, match.atom_orders, strict=True):
        for level, labels in part.labels.items():
            column = columns.setdefault(level, [None] * len(match.atoms))
            for k, (position, label) in enumerate(zip(positions, labels, strict=True)):
                if label is not None:
                    new_label = _complete_label(label, part, k, atom_orders.get(k), shared_keys[position])
                    column[position] = merge_labels(column[position], new_label, part.frames.describe_frame(k), level)
    for atoms, keys in zip(match.atoms, shared_keys, strict=True):
        atoms.info = _drop_keys(atoms.info, set(atoms.info) - keys)
    return columns


def _complete_label(
    label: Label, part: _Part, k: int, atom_order: Array | None, shared_keys: set[str]
) -> dict[str, Any]:
    """Return a label with its forces in the order of the configuration's atoms, and with the info that describes it."""
    completed_label = dict(label)
    if atom_order is not None and label.get("forces") is not None:
        completed_label["forces"] = label["forces"][atom_order]
    if not part.info_is_shared:
        label_info = _drop_keys(part.frames.atoms[k].info, {*shared_keys, "seconds"})
        completed_label["info"] = {**label_info, **label["info"]}
    return completed_label


def _drop_keys(info: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in info.items() if key not in keys}


def _find_shared_keys(parts: Sequence[_Part], match: MatchResult) -> list[set[str]]:
    """Return, for each configuration, the info keys that describe it rather than one of its labels.

    If the labels came from prefixed keys or from a dataset, these are all remaining keys; otherwise the keys whose
    values agree between all files for every configuration.
    """
    first_values: list[dict[str, Any]] = [{} for _ in match.atoms]
    all_keys: list[set[str] | None] = [None] * len(match.atoms)
    varying_keys = {*SECONDS_KEYS, *LABEL_INFO_KEYS}
    for part, positions in zip(parts, match.positions, strict=True):
        for atoms, position in zip(part.frames.atoms, positions, strict=True):
            if part.info_is_shared and all_keys[position] is None:
                all_keys[position] = set(atoms.info)
            for key, value in atoms.info.items():
                if dump_json(first_values[position].setdefault(key, value)) != dump_json(value):
                    varying_keys.add(key)
    return [
        set(info) - varying_keys if keys is None else keys for info, keys in zip(first_values, all_keys, strict=True)
    ]
