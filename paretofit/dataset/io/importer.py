"""Labelled structures from any file that ASE reads, FitSNAP JSON, VASP output and folders, into a dataset file.

Energies are taken as they are labelled, never recomputed. Configurations of several files are matched by id where
they carry one, else by their order or their geometry; in every case their geometry must agree. An import can add to
a dataset, and then changes nothing that is there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms

from paretofit.core import InputError, read_yaml, suggest_match
from paretofit.dataset.dataset import Dataset
from paretofit.dataset.io.extract import SECONDS_KEYS, check_seconds_key, extract_file_labels, extract_prefixed_labels
from paretofit.dataset.io.frames import read_frames
from paretofit.dataset.io.matching import MatchResult, match_frames
from paretofit.dataset.io.stored_labels import LabelColumns, merge_labels, read_existing_dataset
from paretofit.dataset.io.structure_files import Frames
from paretofit.dataset.quality.unit_checks import find_unit_warnings
from paretofit.dataset.writer import Label, LevelData, dump_json, write_dataset

SHOWN = 5


@dataclass
class ImportSummary:
    """What an import found.

    Attributes
    ----------
    path : Path
    n_configurations : int
    n_labels : mapping of level to int
        Complete labels: those whose energy and all of whose forces are finite.
    missing_ids : mapping of level to list of int
        The ids of all other configurations.
    skipped : list of str
        A sentence for each file of a folder that could not be read.
    notes : list of str
        How structures were matched, which keys were taken, what was left out.
    warnings : list of str
        Units and signs that look wrong, see `paretofit.dataset.quality.unit_checks`.
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
    """One source's structures, and the labels of one or all levels that came with them."""

    frames: Frames
    labels: LabelColumns
    settled: bool = False  # info beside the labels belongs to the configurations: none of it is a label's
    notes: list[str] = field(default_factory=list)


def import_dataset(
    output: Path | str,
    sources: Mapping[str, Path | str] | Path | str,
    *,
    levels: Sequence[str] | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    id_key: str | None = None,
    seconds_key: str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    match_by: str | None = None,
    append: bool = False,
    level_order: Sequence[str] | None = None,
) -> ImportSummary:
    """Import labelled structures into one dataset file.

    Parameters
    ----------
    output : path-like
        The dataset to write; replaced as a whole.
    sources : mapping of level to file or folder, or one file
        One file or folder for each level, in order of cost; or one file with every level's labels under prefixed
        keys, for which `levels` names the levels.
    levels : sequence of str, optional
        With one file: the levels, in order of cost.
    energy_key, forces_key, stress_key : str, optional
        The keys of a level's labels, ``{level}`` standing for its name. Energies in eV (total), forces in eV/Å,
        stress in eV/Å³ (six in ASE's Voigt order, or nine). By default with one file ``{level}_energy`` and so on,
        else what ASE takes for results, or where there are none ``REF_energy``, ``dft_energy`` and the like.
    id_key : str, optional
        The key of the configurations' ids; by default the first of ``config_id``, ``id`` and
        ``configuration_id`` that all frames carry.
    seconds_key : str, optional
        The key of a label's cost; by default the first of ``seconds``, ``cpu_seconds`` and
        ``wall_seconds``. ``{level}`` stands for the level's name.
    settings : mapping of level to mapping, optional
        How each level was computed, see `read_level_settings`.
    match_by : {"id", "geometry", "order"}, optional
        What makes structures of two files the same configuration, see `paretofit.dataset.io.matching.match_frames`.
    append : bool
        Keep what `output` holds, and add levels, configurations and missing labels to it.
    level_order : sequence of str, optional
        All levels in order of cost, the reference last; by default in the order given, new ones last.

    Returns
    -------
    ImportSummary

    Raises
    ------
    InputError
        If a file cannot be read, holds no structures or no labels, a label is not numbers, ids repeat, the geometry
        of a configuration differs between files (atoms may be wrapped into the cell), or a label contradicts one
        that is in the dataset already.
    """
    keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
    if isinstance(sources, Mapping):
        parts = [_file_part(str(level), Path(path), keys, id_key, seconds_key) for level, path in sources.items()]
    else:
        frames = read_frames(Path(sources), id_key)
        labels = extract_prefixed_labels(frames, [str(level) for level in levels or ()], keys, seconds_key)
        parts = [_Part(frames, labels, settled=True)]
    new = {level: column for part in parts for level, column in part.labels.items()}
    check_seconds_key(new, seconds_key)
    _check_settings(settings, new)
    recorded: dict[str, Mapping[str, Any]] = {}
    if append:
        frames, labels, recorded_before = read_existing_dataset(Path(output))
        parts.insert(0, _Part(frames, labels, settled=True))
        recorded.update(recorded_before)
    _join_settings(recorded, settings or {})
    matched = match_frames([part.frames for part in parts], match_by)
    columns = _columns(parts, matched)
    names = _ordered(list(columns), level_order)
    data = {level: LevelData(columns[level], recorded.get(level, {})) for level in names}
    write_dataset(output, matched.atoms, data, matched.ids)
    return _summary(Path(output), parts, matched)


def _file_part(level: str, path: Path, keys: Mapping[str, str | None], id_key: str | None, cost: str | None) -> _Part:
    frames = read_frames(path, id_key)
    labels, notes = extract_file_labels(frames, level, keys, cost)
    return _Part(frames, {level: labels}, notes=notes)


def _summary(path: Path, parts: Sequence[_Part], matched: MatchResult) -> ImportSummary:
    with Dataset(path) as data:
        complete = {level: data.labels(level).complete for level in data.levels}
        return ImportSummary(
            path=path,
            n_configurations=len(data),
            n_labels={level: int(have.sum()) for level, have in complete.items()},
            missing_ids={level: data.ids[~have].tolist() for level, have in complete.items()},
            skipped=[text for part in parts for text in part.frames.skipped],
            notes=[text for part in parts for text in (*part.frames.notes, *part.notes)] + matched.notes,
            warnings=find_unit_warnings(data),
        )


def format_import_summary(summary: ImportSummary) -> str:
    """The summary as plain text: counts for each level, what was skipped, notes and warnings."""
    lines = [f"{summary.path}: {summary.n_configurations} configurations"]
    for level, count in summary.n_labels.items():
        missing = summary.missing_ids[level]
        some = ", ".join(map(str, missing[:SHOWN])) + (", ..." if len(missing) > SHOWN else "")
        lines.append(f"level {level}: {count} labels" + (f", {len(missing)} missing (ids {some})" if missing else ""))
    if summary.skipped:
        lines.append(f"{len(summary.skipped)} files or folders were skipped:")
        lines += [f"  {text}" for text in summary.skipped[:SHOWN]]
        lines += ["  ..."] if len(summary.skipped) > SHOWN else []
    lines += [f"note: {text}" for text in summary.notes]
    lines += [f"warning: {text}" for text in summary.warnings]
    return "\n".join(lines)


def read_level_settings(path: Path | str) -> dict[str, dict[str, Any]]:
    """Read how each level was computed from a YAML file.

    ``levels`` is a list of mappings that have a ``name``; everything beside ``levels`` is common to all.

    Raises
    ------
    InputError
        If the file cannot be read or has no such list.
    """
    content = read_yaml(path)
    listed = content.get("levels") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not all(isinstance(one, dict) and "name" in one for one in listed):
        raise InputError(f"{path} must have a list 'levels' whose entries each have a 'name'")
    common = {key: value for key, value in content.items() if key != "levels"}
    return {
        str(one["name"]): {**common, **{key: value for key, value in one.items() if key != "name"}} for one in listed
    }


def _check_settings(settings: Mapping[str, Any] | None, levels: Mapping[str, Any]) -> None:
    unknown = [name for name in settings or {} if name not in levels]
    if unknown:
        raise InputError(
            f"the settings describe level '{unknown[0]}', which is not imported; the levels are {', '.join(levels)}"
        )


def _join_settings(recorded: dict[str, Mapping[str, Any]], settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Add settings of levels; what a dataset records already must not change."""
    for level, given in settings.items():
        have = recorded.get(level, {})
        different = [key for key in given if key in have and have[key] != given[key]]
        if different:
            key = different[0]
            raise InputError(
                f"the settings of level '{level}' say {key} {given[key]}, the dataset says {have[key]}; labels of one "
                "level must be of one kind: give the new ones another level"
            )
        recorded[level] = {**have, **given}


def _ordered(levels: list[str], order: Sequence[str] | None) -> list[str]:
    if order is None:
        return levels
    wrong = [name for name in order if name not in levels]
    if wrong or len(set(order)) != len(order) or len(order) != len(levels):
        hint = suggest_match(wrong[0], levels) if wrong else ""
        raise InputError(f"the order must name each level once ({', '.join(levels)}); got {', '.join(order)}{hint}")
    return list(order)


def _columns(parts: Sequence[_Part], matched: MatchResult) -> dict[str, list[Label | None]]:
    """Each level's labels in the order of the configurations; their info is divided between both."""
    shared = _shared_info(parts, matched)
    columns: dict[str, list[Label | None]] = {}
    for part, positions in zip(parts, matched.positions, strict=True):
        for level, labels in part.labels.items():
            column = columns.setdefault(level, [None] * len(matched.atoms))
            for k, (at, label) in enumerate(zip(positions, labels, strict=True)):
                own = label if part.settled else _with_own_info(label, part.frames.atoms[k], shared[at])
                column[at] = merge_labels(column[at], own, part.frames.describe_frame(k), level)
    for atoms, keys in zip(matched.atoms, shared, strict=True):
        atoms.info = {key: value for key, value in atoms.info.items() if key in keys}
    return columns


def _with_own_info(label: Label | None, atoms: Atoms, shared: set[str]) -> Label | None:
    """The label with what its file says beside what is the configuration's."""
    if label is None:
        return None
    own = {key: value for key, value in atoms.info.items() if key not in shared and key != "seconds"}
    return {**label, "info": {**own, **label["info"]}}


def _shared_info(parts: Sequence[_Part], matched: MatchResult) -> list[set[str]]:
    """For each configuration the info keys that are its own; the rest is the labels'.

    These are all keys where the labels came under keys or are in a dataset already, else those that say the same in
    every file, for all configurations.
    """
    values: list[dict[str, Any]] = [{} for _ in matched.atoms]
    settled: list[set[str] | None] = [None] * len(matched.atoms)
    varying = set(SECONDS_KEYS)
    for part, positions in zip(parts, matched.positions, strict=True):
        for atoms, at in zip(part.frames.atoms, positions, strict=True):
            if part.settled and settled[at] is None:
                settled[at] = set(atoms.info)
            for key, value in atoms.info.items():
                if dump_json(values[at].setdefault(key, value)) != dump_json(value):
                    varying.add(key)
    return [set(known) - varying if own is None else own for known, own in zip(values, settled, strict=True)]
