"""Export of a dataset to other programs: one extended XYZ file or ASE database for each level.

Numbers are written without rounding. Configurations whose label is missing or failed are written without a label, and
their ids are returned. Ids, info, costs and the metadata of labels are also written, so that `paretofit import`
reproduces the dataset. The settings of the levels are written to ``levels.yaml``.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict, output_column_format
from ase.stress import voigt_6_to_full_3x3_stress
from ruamel.yaml import YAML

from paretofit.core import Array, InputError, atomic_path, check_choice, check_new_paths, write_text
from paretofit.dataset.dataset import Dataset
from paretofit.dataset.io.extract import CONFIG_INFO_KEY, LABEL_INFO_KEY, LABEL_STATUS_KEY, SECONDS_KEYS
from paretofit.dataset.io.stored_labels import read_labels
from paretofit.dataset.io.structure_files import ID_KEYS
from paretofit.dataset.writer import Label, dump_json

KEY_PREFIXES = {"plain": "", "mace": "REF_"}  # prefixes of the keys of labels
# Keys that paretofit, extended XYZ or ASE's database uses for other purposes.
FILE_KEYS = {CONFIG_INFO_KEY, LABEL_INFO_KEY, LABEL_STATUS_KEY, "Lattice", "Properties", "pbc", "virial", "uid"}
# Info of a configuration under these keys is stored in the mapping CONFIG_INFO_KEY, because ASE or an import would read
# it as a label, an id or a setting of the file.
RESERVED_KEYS = {*all_properties, *SECONDS_KEYS, *ID_KEYS, *FILE_KEYS}
EXACT_FORMAT = "%.17g"  # 17 digits determine a float64
ROUNDED_FORMAT = "%16.8f"  # ASE's format of a number in a column


@dataclass
class ExportSummary:
    """Files and counts of an export.

    Attributes
    ----------
    paths : mapping of level to Path
        File of each level.
    n_configurations : int
        Number of configurations in each file.
    unlabelled_ids : mapping of level to list of int
        Ids of the configurations whose label is missing, incomplete or failed. Of an incomplete label, the quantities
        that it has were written; of a failed label, none.
    settings_path : Path
        File with the settings of the levels, in the format of ``paretofit import --level-settings``.
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
    format: str = "extxyz",  # noqa: A002  (the name of the option and of ASE)
    keys: str = "plain",
    overwrite: bool = False,
) -> ExportSummary:
    """Export a dataset to one file for each level: ``level_<name>.extxyz`` or ``level_<name>.db``.

    Parameters
    ----------
    dataset : path-like
        The dataset file.
    output : path-like
        A directory, which is created if it does not exist. Each file is written atomically: one for each level, and
        ``levels.yaml`` with the settings of the levels.
    levels : sequence of str, optional
        Levels to export; all levels by default.
    format : {"extxyz", "db"}
        Extended XYZ with 17 digits, or an ASE database.
    keys : {"plain", "mace"}
        Names of the labels: ``energy``, ``free_energy``, ``forces`` and ``stress``; or ``REF_energy``, ``REF_forces``
        and ``REF_stress``, which MACE reads for training. A database requires "plain". Energies are in
        eV (total, force-consistent), forces in eV/Å, stress in eV/Å³ (nine components, ASE's sign).
    overwrite : bool
        Replace existing files; by default, they raise an error.

    Returns
    -------
    ExportSummary

    Raises
    ------
    InputError
        If the dataset cannot be read or lacks a level, the value of an option is invalid, or a file exists or cannot be
        written.
    """
    writers: dict[str, Callable[[Path, Iterator[Atoms]], None]] = {"extxyz": write_structures, "db": _write_database}
    check_choice("format", format, writers)
    folder = Path(output)
    _check_options(folder, format, keys)
    with Dataset(dataset) as data:
        names = list(dict.fromkeys(levels or data.levels))
        # An unknown level raises an error here, before any file is written.
        is_complete = {name: data.labels(name).is_complete for name in names}
        paths = {name: folder / f"level_{name}.{format}" for name in names}
        check_new_paths([*paths.values(), folder / "levels.yaml"], overwrite=overwrite)
        for name, path in paths.items():
            writers[format](path, _label_structures(data, name, keys))
        write_text(folder / "levels.yaml", _format_level_settings(data, names))
        return ExportSummary(
            paths=paths,
            n_configurations=len(data),
            unlabelled_ids={name: data.ids[~mask].tolist() for name, mask in is_complete.items()},
            settings_path=folder / "levels.yaml",
        )


def _check_options(folder: Path, file_format: str, keys: str) -> None:
    """Check that the keys exist, that the format supports them, and that `folder` is not a file."""
    check_choice("keys", keys, KEY_PREFIXES)
    if file_format == "db" and keys != "plain":
        raise InputError(f"keys '{keys}' require the format 'extxyz'; an ASE database has fixed columns: use 'plain'")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose a directory for the export")


def _label_structures(data: Dataset, level: str, keys: str) -> Iterator[Atoms]:
    """Yield each configuration with its label: in a calculator for ``plain`` keys, otherwise in its info and arrays.

    Info under reserved keys is moved to the mapping ``config_info``.
    """
    prefix = KEY_PREFIXES[keys]
    reserved_keys = RESERVED_KEYS | {f"{prefix}{quantity}" for quantity in all_properties}
    for atoms, label in zip(data, read_labels(data, level), strict=True):
        info = {"config_id": atoms.info.pop("config_id")}
        info.update({key: value for key, value in atoms.info.items() if key not in reserved_keys})
        if reserved_info := {key: value for key, value in atoms.info.items() if key in reserved_keys}:
            info[CONFIG_INFO_KEY] = reserved_info
        atoms.info = {**info, **_collect_metadata(label)}
        results = _collect_results(label)
        if keys == "plain":
            atoms.calc = SinglePointCalculator(atoms, **results) if results else None
        else:
            _store_results(atoms, results, prefix)
        yield atoms


def _collect_metadata(label: Label | None) -> dict[str, Any]:
    """Return the cost and info of a label, and ``failed`` as its status if it failed, under the keys of exported files.

    Missing metadata are omitted.
    """
    if label is None:
        return {}
    metadata: dict[str, Any] = {"seconds": float(label["seconds"])} if np.isfinite(label["seconds"]) else {}
    if label["info"]:
        metadata[LABEL_INFO_KEY] = label["info"]
    if label["status"] == "failed":
        metadata[LABEL_STATUS_KEY] = "failed"
    return metadata


def _collect_results(label: Label | None) -> dict[str, Any]:
    """Return the quantities of a label that are not missing; empty without a label or if the calculation failed.

    The energy is also the ``free_energy``.
    """
    if label is None or label["status"] == "failed":
        return {}
    results: dict[str, Any] = {}
    if np.isfinite(label["energy"]):
        results.update(energy=float(label["energy"]), free_energy=float(label["energy"]))
    results.update({name: label[name] for name in ("forces", "stress") if np.isfinite(label[name]).any()})
    return results


def _store_results(atoms: Atoms, results: Mapping[str, Any], prefix: str) -> None:
    """Store results in the info and arrays of `atoms`, under keys with a prefix.

    ``free_energy``, which equals the energy, is omitted.
    """
    for name, value in results.items():
        if name == "forces":
            atoms.arrays[prefix + name] = value
        elif name == "stress":
            atoms.info[prefix + name] = voigt_6_to_full_3x3_stress(value).ravel()
        elif name != "free_energy":
            atoms.info[prefix + name] = value


def write_structures(path: Path, structures: Iterable[Atoms]) -> None:
    """Write structures atomically as extended XYZ, without rounding.

    Raises
    ------
    InputError
        As for `paretofit.core.atomic_path`.
    """
    with atomic_path(path) as temporary_path, temporary_path.open("w", encoding="utf-8") as stream:
        for atoms in structures:
            stream.write(format_extxyz(atoms))


def format_extxyz(atoms: Atoms) -> str:
    """Format a structure as extended XYZ without rounding; ASE's writer rounds columns to eight decimals.

    Parameters
    ----------
    atoms : ase.Atoms
        A structure; the results of its calculator (eV, eV/Å, eV/Å³), its info and its arrays are written.

    Returns
    -------
    str
        One frame, which ends with a line break. Info that ASE cannot read back is stored in the mapping
        ``config_info``.
    """
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    if "stress" in results:
        results["stress"] = voigt_6_to_full_3x3_stress(results.pop("stress"))
    columns: dict[str, Array] = {"symbols": np.array(atoms.get_chemical_symbols()), "positions": atoms.positions}
    columns.update({key: value for key, value in atoms.arrays.items() if key not in {"numbers", "positions"}})
    if "forces" in results:
        columns["forces"] = results.pop("forces")
    frame = atoms.copy()
    frame.info = {**_convert_info(atoms.info), **results}
    comment, _, _, row_format = output_column_format(frame, list(columns), columns)
    row_format = row_format.replace(ROUNDED_FORMAT, EXACT_FORMAT)
    arrays = (np.asarray(values).reshape(len(atoms), -1).tolist() for values in columns.values())
    atom_rows = zip(*arrays, strict=True)  # for each atom, its row of every array
    lines = [row_format % tuple(itertools.chain(*rows)) for rows in atom_rows]
    return f"{len(atoms)}\n{comment}\n{''.join(lines)}"


def _convert_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return info that ASE reads back unchanged.

    Values that ASE would change ("007", "T", None) become JSON text or, if ASE would also change this text, move to the
    mapping ``config_info``.
    """
    converted_info: dict[str, Any] = {}
    config_info = dict(info.get(CONFIG_INFO_KEY, {}))
    for key, value in info.items():
        if _is_read_back(key, value, value):
            converted_info[key] = value
        elif _is_read_back(key, _format_json(value), value):
            converted_info[key] = _format_json(value)
        elif key != CONFIG_INFO_KEY:
            config_info[key] = value
    if config_info:
        converted_info[CONFIG_INFO_KEY] = _format_json(config_info)
    return converted_info


def _format_json(value: Any) -> str:
    """Format a value as JSON text with ASE's mark, so that ASE's reader converts it back."""
    return "_JSON " + dump_json(value).replace("\\", "\\\\")  # ASE escapes quotes, but not backslashes


def _is_read_back(key: str, written_value: Any, value: Any) -> bool:
    """Return whether ASE writes `written_value` on one line and reads it back as `value`."""
    try:
        text = key_val_dict_to_str({key: written_value})
        read_info = key_val_str_to_dict(text)
    except (ValueError, TypeError):  # lists of unequal length
        return False
    return len(text.splitlines()) == 1 and dump_json(read_info) == dump_json({key: value})


def _write_database(path: Path, structures: Iterator[Atoms]) -> None:
    """Write structures atomically to an ASE database, with the id as a searchable pair and other info as data."""
    with (
        atomic_path(path) as temporary_path,
        ase.db.connect(temporary_path, type="db", serial=True, append=False) as database,
    ):
        for atoms in structures:
            info = json.loads(dump_json(atoms.info))
            database.write(atoms, key_value_pairs={"config_id": info.pop("config_id")}, data=info)


def _format_level_settings(data: Dataset, names: Sequence[str]) -> str:
    """Format the settings of levels as the YAML text that `read_level_settings` reads."""
    stream = StringIO()
    levels = [{"name": name, **json.loads(dump_json(data.settings(name)))} for name in names]
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel's type hint is None
    yaml.dump({"levels": levels}, stream)
    return stream.getvalue()
