"""Import of labelled structures from any file that ASE reads, FitSNAP JSON, VASP output and directories.

Labels are never recomputed. Configurations of several files are matched by id if they have ids, otherwise by order or
by geometry; their geometries must agree in every case. An import can extend a dataset without changing its content.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paretofit.core import Array, InputError, check_new_paths, format_count, list_first, read_yaml, suggest_match
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

MAX_LISTED_FILES = 5  # number of skipped files that the summary lists
LABEL_INFO_KEYS = ("cores", "scf_converged")  # keys that describe a label even if all files agree


@dataclass
class ImportSummary:
    """Counts, notes and warnings of an import.

    Attributes
    ----------
    path : Path
        The dataset file.
    n_configurations : int
        Number of configurations in the dataset.
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
class _LabelledFrames:
    """Structures of one source, and their labels at one or all levels."""

    frames: Frames
    labels: LabelColumns
    has_shared_info: bool = False  # whether all info describes configurations, and none describes a label
    notes: list[str] = field(default_factory=list)  # messages for the user
    energy_kinds: dict[str, str] = field(default_factory=dict)  # by level, if known; see `determine_energy_kind`


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
        Key of the cost of a label (s); ``{level}`` is replaced by the name of the level. For a single file, the default
        is ``{level}_seconds``; for several files, the first of ``seconds``, ``cpu_seconds`` and ``wall_seconds``.
    settings : mapping of level to mapping, optional
        Settings of the calculations at each level, as from `read_level_settings`.
    match_by : {"id", "geometry", "order"}, optional
        How to match structures of several files; for the default, see `paretofit.dataset.io.matching.match_frames`.
    append : bool
        Keep the content of `output`, and add levels, configurations and missing labels to it.
    overwrite : bool
        Replace an existing `output`.
    level_order : sequence of str, optional
        All levels in order of cost, ending with the reference; by default, existing levels precede the new ones, which
        are in the order of `sources` or `levels`.

    Returns
    -------
    ImportSummary

    Raises
    ------
    InputError
        If `output` exists and neither `append` nor `overwrite` is set, a file cannot be read or has no structures or
        labels, a label is not numeric, a key or a level is unknown, ids are repeated, the geometry of a configuration
        differs between files (except for the periodic images and the order of atoms), or a label or a setting
        contradicts the dataset.
    """
    check_import_output(output, sources, append=append, overwrite=overwrite)
    keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
    inputs = _read_sources(sources, levels, keys, id_key, seconds_key)
    new_levels = [level for labelled_frames in inputs for level in labelled_frames.labels]
    for level in settings or {}:
        if level not in new_levels:
            problem = f"the settings describe level '{level}', which is not imported"
            raise InputError(f"{problem}; imported levels: {', '.join(new_levels)}")
    stored_settings: dict[str, dict[str, Any]] = {}
    if append:
        frames, labels, stored_settings = read_existing_dataset(Path(output))
        inputs.insert(0, _LabelledFrames(frames, labels, has_shared_info=True))
    level_settings = _merge_settings(stored_settings, settings or {})
    _add_energy_kinds(level_settings, inputs, settings or {})
    match = match_frames([labelled_frames.frames for labelled_frames in inputs], match_by)
    columns = _merge_columns(inputs, match)
    level_names = _order_levels(list(columns), level_order)
    level_data = {level: LevelData(columns[level], level_settings.get(level, {})) for level in level_names}
    write_dataset(output, match.atoms, level_data, match.ids)
    notes = [text for entry in inputs for text in (*entry.frames.notes, *entry.notes)] + match.notes
    return summarize_import(Path(output), notes, [text for entry in inputs for text in entry.frames.skipped])


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


def _read_sources(
    sources: Mapping[str, Path | str] | Path | str,
    levels: Sequence[str] | None,
    keys: UserKeys,
    id_key: UserKey,
    seconds_key: UserKey,
) -> list[_LabelledFrames]:
    """Read the structures and labels of each source, or of the one file with the labels of all levels."""
    inputs = []
    _check_key_levels({**keys, "id": id_key, "seconds": seconds_key}, sources, levels)
    if isinstance(sources, Mapping):
        for level, path in sources.items():
            frames = read_frames(Path(path), select_level_key(id_key, str(level)))
            labels, notes, energy_kind = extract_file_labels(frames, str(level), keys, seconds_key)
            kinds = {} if energy_kind is None else {str(level): energy_kind}
            inputs.append(_LabelledFrames(frames, {str(level): labels}, notes=notes, energy_kinds=kinds))
    else:
        if isinstance(id_key, Mapping):
            raise InputError(f"{sources} is one file for all levels, and can have only one id key; got {dict(id_key)}")
        frames = read_frames(Path(sources), id_key)
        columns, notes = extract_prefixed_labels(frames, [str(level) for level in levels or ()], keys, seconds_key)
        inputs.append(_LabelledFrames(frames, columns, has_shared_info=True, notes=notes))
    all_labels = {level: column for labelled_frames in inputs for level, column in labelled_frames.labels.items()}
    check_seconds_key(all_labels, seconds_key)
    return inputs


def _check_key_levels(
    keys: UserKeys, sources: Mapping[str, Path | str] | Path | str, levels: Sequence[str] | None
) -> None:
    """Check that all levels for which the user chose a key are imported."""
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
    """Format counts for each level, skipped files, notes, warnings and the next step as plain text."""
    lines = [f"{summary.path}: {format_count(summary.n_configurations, 'configuration')}"]
    for level, count in summary.n_labels.items():
        missing_ids = summary.missing_ids[level]
        id_list = list_first(missing_ids)
        missing_text = f", {len(missing_ids)} missing (ids {id_list})" if missing_ids else ""
        lines.append(f"level {level}: {format_count(count, 'label')}{missing_text}")
    if summary.skipped:
        lines.append(f"{len(summary.skipped)} files or directories were skipped:")
        lines += [f"  {text}" for text in summary.skipped[:MAX_LISTED_FILES]]
        lines += ["  ..."] if len(summary.skipped) > MAX_LISTED_FILES else []
    lines += [f"note: {text}" for text in summary.notes]
    lines += [f"warning: {text}" for text in summary.warnings]
    if any(summary.n_labels.values()):
        lines.append(f"next: paretofit info {summary.path}, then paretofit init {summary.path} -o study.yaml")
    else:
        lines.append(
            "no configuration has both an energy and forces, which every model requires; import them from another file "
            "with --add, or import this one again with --energy-key and --forces-key and --force"
        )
    return "\n".join(lines)


def read_level_settings(path: Path | str) -> dict[str, dict[str, Any]]:
    """Read the settings of each level from a YAML file.

    In the file, ``levels`` is a list of mappings with the ``name`` and the settings of a level; all other keys are
    settings of every level.

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
    """Merge new settings of levels with stored settings; raise `InputError` if the new ones contradict them."""
    merged_settings = dict(stored_settings)
    for level, new_settings in settings.items():
        old_settings = merged_settings.get(level, {})
        for key in new_settings:
            if key in old_settings and old_settings[key] != new_settings[key]:
                raise InputError(
                    f"the settings of level '{level}' have {key} {new_settings[key]}, but the dataset has "
                    f"{old_settings[key]}; all labels of a level must have the same settings: import the new labels as "
                    "another level"
                )
        merged_settings[level] = {**old_settings, **new_settings}
    return merged_settings


def _add_energy_kinds(
    level_settings: dict[str, dict[str, Any]],
    inputs: Sequence[_LabelledFrames],
    settings: Mapping[str, Mapping[str, Any]],
) -> None:
    """Add the kind of energy of each level to `level_settings`, in place, as ``energy_kind``.

    Raise `InputError` if the energies of a level are of two kinds, unless the user's `settings` specify the kind.
    """
    for labelled_frames in inputs:
        for level, kind in labelled_frames.energy_kinds.items():
            stored_kind = level_settings.setdefault(level, {}).setdefault("energy_kind", kind)
            if stored_kind != kind and "energy_kind" not in settings.get(level, {}):
                path = labelled_frames.frames.path
                raise InputError(
                    f"{path}: the energies of level '{level}' are '{kind}', but those in the dataset are "
                    f"'{stored_kind}'; the two differ by the electronic entropy: import the energies as another level, "
                    f"or choose a key with --energy-key {level}=KEY if they are of the same kind"
                )


def _order_levels(levels: list[str], order: Sequence[str] | None) -> list[str]:
    """Return the levels in the user's order, or unchanged without one; raise `InputError` unless it lists each once."""
    if order is None:
        return levels
    unknown_levels = [name for name in order if name not in levels]
    if sorted(order) != sorted(levels):
        hint = suggest_match(unknown_levels[0], levels) if unknown_levels else ""
        raise InputError(f"the order must list each level once ({', '.join(levels)}); got {', '.join(order)}{hint}")
    return list(order)


def _merge_columns(inputs: Sequence[_LabelledFrames], match: MatchResult) -> LabelColumns:
    """Return the labels of each level in the order of the configurations.

    The info of the structures is divided: shared keys stay in the info of the configurations, which is updated in
    place, and the other keys move to the labels.
    """
    shared_keys = _find_shared_keys(inputs, match)
    columns: LabelColumns = {}
    for labelled_frames, positions, atom_orders in zip(inputs, match.positions, match.atom_orders, strict=True):
        for level, labels in labelled_frames.labels.items():
            column = columns.setdefault(level, [None] * len(match.atoms))
            for k, (position, label) in enumerate(zip(positions, labels, strict=True)):
                if label is not None:
                    new_label = _complete_label(label, labelled_frames, k, atom_orders.get(k), shared_keys[position])
                    context = labelled_frames.frames.describe_frame(k)
                    column[position] = merge_labels(column[position], new_label, context, level)
    for atoms, keys in zip(match.atoms, shared_keys, strict=True):
        atoms.info = _drop_keys(atoms.info, set(atoms.info) - keys)
    return columns


def _complete_label(
    label: Label, labelled_frames: _LabelledFrames, k: int, atom_order: Array | None, shared_keys: set[str]
) -> dict[str, Any]:
    """Return the label of frame `k` with its forces in the order of the configuration's atoms, and with its info.

    Without an `atom_order`, the order is that of the frame. The info is that of the label and, unless all info of the
    frames describes configurations, that of the frame without the shared keys.
    """
    completed_label = dict(label)
    if atom_order is not None and label.get("forces") is not None:
        completed_label["forces"] = label["forces"][atom_order]
    if not labelled_frames.has_shared_info:
        label_info = _drop_keys(labelled_frames.frames.atoms[k].info, {*shared_keys, "seconds"})
        completed_label["info"] = {**label_info, **label["info"]}
    return completed_label


def _drop_keys(mapping: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    """Return a copy of a mapping without some keys."""
    return {key: value for key, value in mapping.items() if key not in keys}


def _find_shared_keys(inputs: Sequence[_LabelledFrames], match: MatchResult) -> list[set[str]]:
    """Return, for each configuration, the info keys that describe it rather than one of its labels.

    For a configuration from a dataset or from a file with prefixed keys, these are all its keys; otherwise the keys
    whose values agree between all files for every configuration, except costs and `LABEL_INFO_KEYS`.
    """
    first_info: list[dict[str, Any]] = [{} for _ in match.atoms]  # the first value of each key
    all_keys: list[set[str] | None] = [None] * len(match.atoms)  # None if some info may describe a label
    varying_keys = {*SECONDS_KEYS, *LABEL_INFO_KEYS}
    for labelled_frames, positions in zip(inputs, match.positions, strict=True):
        for atoms, position in zip(labelled_frames.frames.atoms, positions, strict=True):
            if labelled_frames.has_shared_info and all_keys[position] is None:
                all_keys[position] = set(atoms.info)
            for key, value in atoms.info.items():
                if dump_json(first_info[position].setdefault(key, value)) != dump_json(value):
                    varying_keys.add(key)
    return [set(info) - varying_keys if keys is None else keys for info, keys in zip(first_info, all_keys, strict=True)]
