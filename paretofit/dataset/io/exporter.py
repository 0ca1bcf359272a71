"""A dataset's levels as files for other programs: extended XYZ or ASE databases, one for each level.

Every number comes back from the file as it was, to the last bit. Configurations whose label is missing or failed are
written without one, and counted. What is beside the labels (ids, info, seconds, what is known of a label) is kept, so
that `paretofit import` makes the same dataset again; the levels' settings go into a ``levels.yaml``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase.db
import numpy as np
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict, output_column_format
from ase.stress import voigt_6_to_full_3x3_stress
from ruamel.yaml import YAML

from paretofit.core import InputError, atomic_path, suggest_match, write_text
from paretofit.dataset.dataset import Dataset
from paretofit.dataset.io.extract import CONFIG_INFO_KEY, LABEL_INFO_KEY, LABEL_STATUS_KEY, SECONDS_KEYS
from paretofit.dataset.io.stored_labels import read_labels
from paretofit.dataset.io.structure_files import ID_KEYS
from paretofit.dataset.writer import dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ase import Atoms

    from paretofit.core import Array
    from paretofit.dataset.writer import Label

KEYS = {"plain": "", "mace": "REF_"}
OWN_KEYS = {CONFIG_INFO_KEY, LABEL_INFO_KEY, LABEL_STATUS_KEY, "Lattice", "Properties", "pbc", "virial", "uid"}
RESERVED = {*all_properties, *SECONDS_KEYS, *ID_KEYS, *OWN_KEYS}
EXACT = "%.17g"
ROUNDED = "%16.8f"  # how ASE writes columns


@dataclass
class ExportSummary:
    """What an export wrote.

    Attributes
    ----------
    paths : mapping of level to Path
    n_configurations : int
        In each file.
    unlabelled_ids : mapping of level to list of int
        Ids of configurations that were written without an energy and forces, because their label is missing,
        incomplete or failed.
    settings_path : Path
        The levels' settings, as ``paretofit import --level-settings`` reads them.
    """

    paths: dict[str, Path]
    n_configurations: int
    unlabelled_ids: dict[str, list[int]]
    settings_path: Path


def export_dataset(
    dataset: Path | str,
    output: Path | str,
    *,
    levels: Sequence[str] | None = None,
    format: str = "extxyz",  # noqa: A002  (the word of the command line and of ASE)
    keys: str = "plain",
) -> ExportSummary:
    """Write one file for each level: ``level_<name>.extxyz`` or ``level_<name>.db``.

    Parameters
    ----------
    dataset : path-like
    output : path-like
        A folder; made where it is missing. Each file is written whole or not at all.
    levels : sequence of str, optional
        By default all.
    format : {"extxyz", "db"}
        Extended XYZ with 17 digits, or an ASE database.
    keys : {"plain", "mace"}
        ``energy``, ``free_energy``, ``forces`` and ``stress``, or ``REF_energy``, ``REF_forces`` and
        ``REF_stress`` as MACE's training reads them. Energies in eV (total, force-consistent), forces in eV/Å,
        stress in eV/Å³ (nine components, ASE's sign).

    Returns
    -------
    ExportSummary

    Raises
    ------
    InputError
        If the dataset cannot be read or lacks a level, a word is not known, or a file cannot be written.
    """
    writers: dict[str, Callable[[Path, Iterator[Atoms]], None]] = {"extxyz": _write_extxyz, "db": _write_database}
    _check_word("format", format, writers)
    _check_word("keys", keys, KEYS)
    if format == "db" and keys != "plain":
        raise InputError(f"keys '{keys}' are for extended XYZ; an ASE database has columns of its own: use 'plain'")
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder to export to")
    with Dataset(dataset) as data:
        names = list(dict.fromkeys(levels or data.levels))
        columns = {name: data.labels(name).complete for name in names}  # an unknown level is refused before any work
        paths = {name: folder / f"level_{name}.{format}" for name in names}
        for name, path in paths.items():
            writers[format](path, _labelled(data, name, keys))
        settings = folder / "levels.yaml"
        write_text(settings, _settings_text(data, names))
        return ExportSummary(
            paths=paths,
            n_configurations=len(data),
            unlabelled_ids={name: data.ids[~complete].tolist() for name, complete in columns.items()},
            settings_path=settings,
        )


def _check_word(name: str, word: str, known: Mapping[str, Any]) -> None:
    if word not in known:
        raise InputError(f"{name} must be one of {', '.join(known)}; got '{word}'{suggest_match(word, known)}")


def _labelled(data: Dataset, level: str, keys: str) -> Iterator[Atoms]:
    """Each configuration with its label in a calculator, or under keys of its info and arrays."""
    labels = RESERVED | {f"{KEYS[keys]}{quantity}" for quantity in all_properties}
    for atoms, label in zip(data, read_labels(data, level), strict=True):
        identity = atoms.info.pop("config_id")
        own = {key: value for key, value in atoms.info.items() if key not in labels}
        aside = {key: value for key, value in atoms.info.items() if key in labels}
        atoms.info = {"config_id": identity, **own, **({CONFIG_INFO_KEY: aside} if aside else {}), **_about(label)}
        results = _results(label)
        if keys == "plain":
            atoms.calc = SinglePointCalculator(atoms, **results) if results else None
        else:
            _prefix(atoms, results, KEYS[keys])
        yield atoms


def _about(label: Label | None) -> dict[str, Any]:
    """What is known of a label beside its numbers."""
    if label is None:
        return {}
    about: dict[str, Any] = {"seconds": float(label["seconds"])} if np.isfinite(label["seconds"]) else {}
    if label["info"]:
        about[LABEL_INFO_KEY] = label["info"]
    if label["status"] == "failed":
        about[LABEL_STATUS_KEY] = "failed"
    return about


def _results(label: Label | None) -> dict[str, Any]:
    """The numbers of a label that are there; none where it failed."""
    if label is None or label["status"] == "failed":
        return {}
    results: dict[str, Any] = {}
    if np.isfinite(label["energy"]):
        results.update(energy=float(label["energy"]), free_energy=float(label["energy"]))
    results.update({name: label[name] for name in ("forces", "stress") if np.isfinite(label[name]).any()})
    return results


def _prefix(atoms: Atoms, results: Mapping[str, Any], prefix: str) -> None:
    for name, value in results.items():
        if name == "forces":
            atoms.arrays[prefix + name] = value
        elif name == "stress":
            atoms.info[prefix + name] = voigt_6_to_full_3x3_stress(value).ravel()
        elif name != "free_energy":
            atoms.info[prefix + name] = value


def _write_extxyz(path: Path, structures: Iterator[Atoms]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for atoms in structures:
            stream.write(format_extxyz(atoms))


def format_extxyz(atoms: Atoms) -> str:
    """A structure as extended XYZ from which ASE reads the same numbers to the last bit.

    Parameters
    ----------
    atoms : ase.Atoms
        Its calculator's results (eV, eV/Å, eV/Å³), info and arrays are written; ASE's own writer rounds the
        columns to eight decimals.

    Returns
    -------
    str
        With the line break at its end. What ASE cannot read back as info stands in the mapping ``config_info``.
    """
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    frame = atoms.copy()
    frame.info = {}
    if "stress" in results:
        frame.info["stress"] = voigt_6_to_full_3x3_stress(results.pop("stress"))
    columns: dict[str, Array] = {"symbols": np.array(atoms.get_chemical_symbols()), "positions": atoms.positions}
    columns.update({key: value for key, value in atoms.arrays.items() if key not in {"numbers", "positions"}})
    if "forces" in results:
        columns["forces"] = results.pop("forces")
    frame.info = {**_readable(atoms.info), **results, **frame.info}
    comment, _, _, row = output_column_format(frame, list(columns), columns)
    row = row.replace(ROUNDED, EXACT)
    rows = zip(*(_flat(values) for values in columns.values()), strict=True)
    lines = [row % tuple(value for part in parts for value in part) for parts in rows]
    return f"{len(atoms)}\n{comment}\n{''.join(lines)}"


def _flat(values: Array) -> list[list[Any]]:
    return np.asarray(values).reshape(len(values), -1).tolist()


def _readable(info: Mapping[str, Any]) -> dict[str, Any]:
    """Each value as ASE reads it back, if need be as JSON text ("007", "T", None); else in a mapping of its own."""
    written: dict[str, Any] = {}
    aside = dict(info.get(CONFIG_INFO_KEY, {}))
    for key, value in info.items():
        ways = [way for way in (value, _as_json(value)) if _comes_back(key, way, value)]
        if ways:
            written[key] = ways[0]
        elif key != CONFIG_INFO_KEY:
            aside[key] = value
    if aside:
        written[CONFIG_INFO_KEY] = _as_json(aside)
    return written


def _as_json(value: Any) -> str:
    return "_JSON " + dump_json(value).replace("\\", "\\\\")  # ASE escapes quotes, but not these


def _comes_back(key: str, way: Any, value: Any) -> bool:
    try:
        read = key_val_str_to_dict(key_val_dict_to_str({key: way}))
    except (ValueError, TypeError):  # lists of unequal length
        return False
    return dump_json(read) == dump_json({key: value})


def _write_database(path: Path, structures: Iterator[Atoms]) -> None:
    with atomic_path(path) as temporary, ase.db.connect(temporary, type="db", serial=True, append=False) as database:
        for atoms in structures:
            info = json.loads(dump_json(atoms.info))
            database.write(atoms, key_value_pairs={"config_id": info.pop("config_id")}, data=info)


def _settings_text(data: Dataset, names: Sequence[str]) -> str:
    stream = StringIO()
    levels = [{"name": name, **json.loads(dump_json(data.settings(name)))} for name in names]
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel hints None
    yaml.dump({"levels": levels}, stream)
    return stream.getvalue()


def write_structures(path: Path, structures: Iterable[Atoms]) -> None:
    """Write structures as extended XYZ with all their digits, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for atoms in structures:
            stream.write(format_extxyz(atoms))
